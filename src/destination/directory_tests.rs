use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;

use super::*;
use crate::destination::manifest::tests::manifest;
use crate::destination::wipe::{WIPED, find, look_again};

fn files(names: &[&'static str]) -> Vec<File> {
    names.iter().map(|name| File::new(*name, format!("{name} content"))).collect()
}

fn filled(path: &Path, names: &[&'static str]) -> Directory {
    let mut directory = Directory::prepare(path).unwrap();
    directory.write(&manifest(names), &[(String::new(), files(names))]).unwrap();
    directory
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn everything_is_private_and_goes_again() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("d");
    let mut directory = Directory::prepare(&path).unwrap();
    let many = manifest(&["a/key", "b/key"]);
    directory.write(&many, &[("a".into(), files(&["key"])), ("b".into(), files(&["key"]))]).unwrap();
    assert_eq!((mode(&path), mode(&path.join("a")), mode(&path.join("a/key"))), (0o700, 0o700, 0o600));
    assert_eq!(mode(&path.join("manifest.json")), 0o600);
    assert_eq!(fs::read_to_string(path.join("b/key")).unwrap(), "key content");
    drop(directory);
    assert!(!path.exists());
}

#[test]
fn what_is_kept_stays_and_is_written_again() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("d");
    filled(&path, &["key", "tls.key"]).keep();
    // Open, so that its number is not given to another.
    let old = fs::File::open(path.join("key")).unwrap();
    let before = old.metadata().unwrap().ino();
    filled(&path, &["key"]).keep();
    assert_ne!(fs::metadata(path.join("key")).unwrap().ino(), before, "replaced, not written in place");
    assert!(!path.join("tls.key").exists(), "a file of the earlier issuance that the new one lacks");
    find(&path).unwrap().unwrap().wipe().unwrap();
    assert!(!path.exists());
    assert!(find(&path).unwrap().is_none());
}

#[test]
fn a_failed_start_leaves_an_earlier_issuance_alone() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("d");
    filled(&path, &["key"]).keep();
    drop(Directory::prepare(&path).unwrap());
    assert!(path.join("key").exists());
    let fresh = temp.path().join("fresh");
    drop(Directory::prepare(&fresh).unwrap());
    assert!(!fresh.exists());
}

#[test]
fn a_failure_half_way_leaves_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("d");
    let mut directory = Directory::prepare(&path).unwrap();
    fs::create_dir(path.join("key.pub")).unwrap();
    let error = directory
        .write(&manifest(&["key", "key.pub"]), &[(String::new(), files(&["key", "key.pub"]))])
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Destination);
    fs::remove_dir(path.join("key.pub")).unwrap();
    drop(directory);
    assert!(!path.exists());
}

#[test]
fn links_and_foreign_directories_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    let real = temp.path().join("real");
    fs::create_dir(&real).unwrap();
    symlink(&real, temp.path().join("link")).unwrap();
    fs::write(temp.path().join("file"), "x").unwrap();
    let full = temp.path().join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("precious"), "x").unwrap();
    let foreign = temp.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("manifest.json"), "{}").unwrap();
    for name in ["link", "file", "full", "foreign", "no/where"] {
        let error = Directory::prepare(&temp.path().join(name)).unwrap_err();
        assert_eq!(error.kind(), Kind::Destination, "{name}");
        assert!(!error.hints().is_empty());
    }
    for name in ["link", "file", "full", "foreign"] {
        assert_eq!(find(&temp.path().join(name)).unwrap_err().kind(), Kind::Usage, "{name}");
    }
    assert!(full.join("precious").exists() && real.exists());
}

#[test]
fn another_layout_takes_the_place_of_the_earlier_one() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("d");
    filled(&path, &["key", "identity", "tls.key"]).keep();
    let mut folders = Directory::prepare(&path).unwrap();
    let of_folder = |folder: &str| (folder.to_owned(), files(&["key"]));
    folders
        .write(&manifest(&["identity/key", "ssh/key"]), &[of_folder("identity"), of_folder("ssh")])
        .unwrap();
    folders.keep();
    assert!(path.join("identity/key").is_file() && path.join("ssh/key").is_file());
    assert!(!path.join("key").exists() && !path.join("tls.key").exists());
    filled(&path, &["key", "identity"]).keep();
    assert!(path.join("identity").is_file() && !path.join("ssh").exists());
    find(&path).unwrap().unwrap().wipe().unwrap();
    assert!(!path.exists());
}

#[test]
fn the_earlier_manifest_stands_until_its_files_are_gone() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("d");
    filled(&path, &["key", "tls.key"]).keep();
    // What cannot be removed, so that writing ends half way.
    fs::remove_file(path.join("tls.key")).unwrap();
    fs::create_dir(path.join("tls.key")).unwrap();
    let mut directory = Directory::prepare(&path).unwrap();
    let error = directory.write(&manifest(&["key-cert.pub"]), &[(String::new(), files(&["key-cert.pub"]))]);
    assert_eq!(error.unwrap_err().kind(), Kind::Destination);
    drop(directory);
    let found = find(&path).unwrap().unwrap();
    assert!(found.manifest.plan()[""].contains(&"tls.key".to_owned()), "somebody can take it up again");
    assert!(!path.join("key").exists() && !path.join("key-cert.pub").exists());
}

#[test]
fn one_run_at_a_time() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("d");
    let first = filled(&path, &["key"]);
    let error = Directory::prepare(&path).unwrap_err();
    assert_eq!(error.kind(), Kind::Destination);
    assert!(error.to_string().contains("another machine-id that is running"), "{error}");
    assert!(path.join("key").exists());
    first.keep();
    drop(Directory::prepare(&path).unwrap());
}

#[test]
fn a_directory_that_was_there_stays_as_it_was() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("d");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    drop(Directory::prepare(&path).unwrap());
    assert_eq!(mode(&path), 0o755, "nothing was written");
    let mut directory = Directory::prepare(&path).unwrap();
    assert!(directory.stays);
    let kept = Manifest { keep_directory: true, ..manifest(&["key"]) };
    directory.write(&kept, &[(String::new(), files(&["key"]))]).unwrap();
    directory.wipe().unwrap();
    assert_eq!((mode(&path), fs::read_dir(&path).unwrap().count()), (0o755, 0));
    let mut directory = Directory::prepare(&path).unwrap();
    directory.write(&kept, &[(String::new(), files(&["key"]))]).unwrap();
    directory.keep();
    assert_eq!(mode(&path), 0o700);
    assert!(Directory::prepare(&path).unwrap().stays, "the manifest says so");
    find(&path).unwrap().unwrap().wipe().unwrap();
    assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
}

#[test]
fn a_place_that_others_can_write_to_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let open = temp.path().join("open");
    fs::create_dir_all(open.join("below")).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    symlink(open.join("below"), temp.path().join("link")).unwrap();
    // The parent, its parent, and where a link leads.
    for place in [open.join("d"), open.join("below/d"), temp.path().join("link/d")] {
        let error = Directory::prepare(&place).unwrap_err();
        assert_eq!(error.kind(), Kind::Destination);
        let why = format!(
            "{} can be written to by everybody, so that another user could put something else in its place",
            fs::canonicalize(&open).unwrap().display()
        );
        assert_eq!(error.to_string(), format!("cannot use {}: {why}", place.display()));
        assert!(error.hints()[0].starts_with("leave --destination out"), "{error:?}");
        assert!(!place.exists());
    }
    fs::set_permissions(&open, fs::Permissions::from_mode(0o1777)).unwrap();
    drop(Directory::prepare(&open.join("d")).unwrap());
    drop(Directory::prepare(&temp.path().join("link/d")).unwrap());
}

#[test]
fn an_open_directory_of_ours_is_tightened() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("d");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    let _directory = Directory::prepare(&path).unwrap();
    assert_eq!(mode(&path), 0o700);
}

#[test]
fn links_in_the_way_of_files_are_replaced_not_followed() {
    let temp = tempfile::tempdir().unwrap();
    let victim = temp.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    let path = temp.path().join("d");
    let mut directory = Directory::prepare(&path).unwrap();
    symlink(&victim, path.join("key")).unwrap();
    fs::hard_link(&victim, path.join("key.pub")).unwrap();
    directory.write(&manifest(&["key", "key.pub"]), &[(String::new(), files(&["key", "key.pub"]))]).unwrap();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    assert_eq!(fs::read_to_string(path.join("key")).unwrap(), "key content");
    // A folder that is a link is refused.
    symlink(temp.path(), path.join("sub")).unwrap();
    let error = directory.write(&manifest(&["sub/key"]), &[("sub".into(), files(&["key"]))]).unwrap_err();
    assert_eq!(error.kind(), Kind::Destination);
    assert!(!temp.path().join("key").exists());
}

#[test]
fn wiping_follows_no_link_and_empties_no_shared_file() {
    let temp = tempfile::tempdir().unwrap();
    let victim = temp.path().join("victim");
    let other = temp.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(&victim, "precious").unwrap();
    fs::write(other.join("key"), "precious").unwrap();
    let path = temp.path().join("d");
    filled(&path, &["known_hosts"]).keep();
    symlink(&victim, path.join("key")).unwrap();
    fs::hard_link(&victim, path.join("tls.key")).unwrap();
    symlink(&other, path.join("sub")).unwrap();
    fs::write(path.join("notes"), "mine").unwrap();
    fs::write(path.join(".machine-id-0123456789abcdef.tmp"), "half").unwrap();
    let hostile =
        manifest(&["key", "tls.key", "known_hosts", "sub/key", "../victim", "../other/key", "notes"]);
    fs::write(path.join("manifest.json"), hostile.to_json()).unwrap();
    let left = find(&path).unwrap().unwrap().wipe().unwrap_err();
    assert_eq!(left, "left, since machine-id did not write it: notes, sub");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    assert_eq!(fs::read_to_string(other.join("key")).unwrap(), "precious");
    assert_eq!(names(&path), [".machine-id-wiped", "notes", "sub"]);
}

fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_others_put_there_is_named_and_not_ours_to_take() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("d");
    let mut directory = Directory::prepare(&path).unwrap();
    let folders = [("sub".into(), files(&["key"]))];
    directory.write(&manifest(&["sub/key"]), &folders).unwrap();
    fs::copy(path.join("sub/key"), path.join("sub/copy")).unwrap();
    for name in 0..11 {
        fs::write(path.join(format!("file-{name}")), "").unwrap();
    }
    // Sockets that are no connection of ssh: of nobody, and of somebody who says something else.
    drop(UnixListener::bind(path.join("dead")).unwrap());
    let listener = UnixListener::bind(path.join("other")).unwrap();
    let other = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"SSH-2.0-something else\n").unwrap();
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        said
    });
    let left = directory.wipe().unwrap_err();
    assert!(left.starts_with("left, since machine-id did not write it: dead, file-0, file-1, "), "{left}");
    assert!(left.ends_with(" and 4 more"), "{left}");
    assert!(other.join().unwrap().is_empty(), "it was told nothing");
    // Again, and once they are gone.
    assert!(find(&path).unwrap().is_none());
    assert!(look_again(&path).unwrap_err().contains("dead"));
    assert!(Directory::prepare(&path).is_err(), "it holds something else");
    fs::remove_dir_all(&path).unwrap();
    fs::create_dir(&path).unwrap();
    fs::write(path.join(WIPED), "").unwrap();
    look_again(&path).unwrap();
    assert!(names(&path).is_empty());
}

#[test]
fn a_renewal_leaves_the_keys() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("d");
    let mut directory = filled(&path, &["key", "key-cert.pub"]);
    let renewed = vec![File::key("key", "other".into()), File::new("key-cert.pub", "new".into())];
    directory.renew(&manifest(&["key", "key-cert.pub"]), &[(String::new(), renewed)]).unwrap();
    assert_eq!(fs::read_to_string(path.join("key")).unwrap(), "key content");
    assert_eq!(fs::read_to_string(path.join("key-cert.pub")).unwrap(), "new");
}

/// Of an authority that has another version by now.
#[test]
fn a_renewal_may_bring_a_file_and_take_one_away() {
    let temp = tempfile::tempdir().unwrap();
    let (path, list) = (temp.path().join("d"), temp.path().join("d/revoked_hosts.krl"));
    let (few, more) = (["key", "ssh_config"], ["key", "ssh_config", "revoked_hosts.krl"]);
    let mut directory = filled(&path, &few);
    let mut renew = |names: &[&'static str]| {
        directory.renew(&manifest(names), &[(String::new(), files(names))]).unwrap();
        list.exists()
    };
    assert_eq!([renew(&more), renew(&few), renew(&few), renew(&more)], [true, false, false, true]);
    assert!(path.join("key").exists());
    directory.wipe().unwrap();
    assert!(!path.exists(), "it goes with the rest");
}

#[test]
fn a_manifest_that_is_a_pipe_does_not_hang() {
    let temp = tempfile::tempdir().unwrap();
    let made = std::process::Command::new("mkfifo").arg(temp.path().join("manifest.json")).status();
    if made.is_ok_and(|status| status.success()) {
        assert!(find(temp.path()).is_err());
    }
}

#[test]
fn a_renewal_writes_the_keys_of_what_was_not_there() {
    let temp = tempfile::tempdir().unwrap();
    let mut directory = filled(&temp.path().join("d"), &["key"]);
    let with_key = |text: &str| vec![File::key("key", text.to_owned())];
    let folders = [(String::new(), with_key("another")), ("a".to_owned(), with_key("new"))];
    directory.renew(&manifest(&["key", "a/key"]), &folders).unwrap();
    assert_eq!(
        fs::read_to_string(directory.path().join("key")).unwrap(),
        "key content",
        "the one that is there stays"
    );
    assert_eq!(fs::read_to_string(directory.path().join("a/key")).unwrap(), "new");
    directory.renew(&manifest(&["key"]), &[]).unwrap();
    assert!(!directory.path().join("a").exists());
}
