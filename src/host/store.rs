//! The folder that servers read: files that others may read and only we
//! write, each replaced whole, and there after a power cut.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::Mode;

use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::lock::NotLocked;
use crate::folder::{Folder, PUBLIC_FILE, Unfit};

/// `TrustedUserCAKeys` of `sshd`.
pub const USER_CA: &str = "ssh_user_ca.pub";
/// The CAs of host certificates, one key a line.
pub const HOST_CA: &str = "ssh_host_ca.pub";
/// The same for `ssh`, as `GlobalKnownHostsFile`.
pub const KNOWN_HOSTS: &str = "known_hosts";
/// The CAs of client certificates, for TLS servers.
pub const TLS_CA: &str = "tls_ca.crt";
/// The largest list of CAs that is read, in bytes.
pub const MAX_TRUST: usize = 1 << 20;

/// The file that is locked. Not the folder: whoever can read that, and every
/// server does, could lock it and so keep revocations away.
pub const LOCK: &str = ".machine-id.lock";
/// `sshd`, nginx and the like read it as users of their own; nothing in it is secret.
const DIRECTORY_MODE: Mode =
    Mode::RWXU.union(Mode::RGRP).union(Mode::XGRP).union(Mode::ROTH).union(Mode::XOTH);
/// What to do where others could put another folder in its place: a CA key of their own would be in it.
const ELSEWHERE: &str =
    "give a --dir whose parent exists, below folders that only root or this user can write to";
/// When the temporary file of a run that was killed is surely nobody's, in seconds.
const ABANDONED: i64 = 3600;

/// Opens it, creates it if need be; `Kind::Destination` where it cannot be
/// written to, or others could put CA keys of their own there.
pub fn open(path: &Path) -> Result<Folder> {
    open_folder(path)
        .map_err(|unfit| unfit.error(Kind::Destination, format!("cannot use {}", path.display())))
}

fn open_folder(path: &Path) -> Result<Folder, Unfit> {
    let (folder, _) = Folder::make(path, DIRECTORY_MODE, "--dir", ELSEWHERE)?;
    if folder.standing()?.others_write() {
        return Err(Unfit::new("others can write to it")
            .hint("`chmod go-w` it: whoever writes there can put a CA key of their own there"));
    }
    // Before anything is asked for that could not be kept.
    folder.try_writing().map_err(|error| {
        Unfit::from(error).hint("run this as a user who can write there, or give another --dir")
    })?;
    folder.remove_temporaries(ABANDONED);
    Ok(folder)
}

/// Locks it against other runs: of two that read, compare and rename side
/// by side, the slower one would put its older list in place of a newer
/// one. Waits until `deadline`. Nothing is held where the file system has
/// no locks: revocations count more than one that is late by a run.
/// `Kind::Destination` where another run goes on, or the file is not ours to lock.
pub async fn lock(folder: &Folder, deadline: Instant) -> Result<Option<File>> {
    let (path, lock) = (folder.path().display(), folder.path().join(LOCK));
    let (why, hint) = match folder.lock(LOCK, deadline).await {
        Ok(lock) => return Ok(Some(lock)),
        Err(NotLocked::Unsupported(_)) => return Ok(None),
        Err(NotLocked::Busy) => (
            format!("another `host refresh` is at work on {path}"),
            format!(
                "let one timer refresh it; if one hangs, `fuser {}` says which, and ending it frees the folder",
                lock.display()
            ),
        ),
        Err(NotLocked::Refused(why)) => (
            format!("cannot lock {}: {why}", lock.display()),
            "remove it: it is made anew, as a file that none but its owner can open".to_owned(),
        ),
    };
    Err(Error::new(Kind::Destination, why).hint(hint))
}

/// Replaces a file, and returns its path; `Kind::Destination` where it cannot,
/// and the old one stays.
pub fn write(folder: &Folder, name: &str, content: &[u8]) -> Result<PathBuf> {
    let path = folder.path().join(name);
    let written = folder.replace_durably(name, content, PUBLIC_FILE);
    written.context(Kind::Destination, format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// Replaces a file, if there is something to put in its place; returns its path then.
pub fn put(folder: &Folder, name: &str, content: Option<Vec<u8>>) -> Result<Option<PathBuf>> {
    content.map(|content| write(folder, name, &content)).transpose()
}

/// Whatever stands there in place of a file of keys is replaced.
pub fn update(folder: &Folder, name: &str, content: String) -> Result<Option<PathBuf>> {
    put(folder, name, (!holds(folder, name, &content)).then(|| content.into_bytes()))
}

/// Whether a file of keys is that.
pub fn holds(folder: &Folder, name: &str, content: &str) -> bool {
    folder.read(name, MAX_TRUST).is_ok_and(|old| old.as_deref() == Some(content.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use std::time::{Duration, SystemTime};

    use super::*;

    fn names(path: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn files_are_replaced_and_readable_by_all() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("trust");
        let store = open(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o755);
        std::os::unix::fs::symlink("/etc/passwd", path.join("a")).unwrap();
        assert_eq!(store.read("b", 100), Ok(None));
        assert_eq!(store.read("a", 100), Err("it is a symbolic link".to_owned()));
        assert_eq!(write(&store, "a", b"new").unwrap(), path.join("a"));
        assert_eq!(store.read("a", 100), Ok(Some(b"new".to_vec())));
        assert_eq!(store.read("a", 2), Err("it is longer than 2 bytes".to_owned()));
        let metadata = std::fs::symlink_metadata(path.join("a")).unwrap();
        assert_eq!((metadata.is_file(), metadata.mode() & 0o7777), (true, 0o644));
        assert_eq!(names(&path), ["a"]);
    }

    #[test]
    fn folders_that_others_write_to_are_refused() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("trust");
        std::fs::create_dir(&path).unwrap();
        for mode in [0o777, 0o775, 0o1777] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let error = open(&path).unwrap_err();
            assert_eq!(error.kind(), Kind::Destination);
            assert!(error.to_string().ends_with("others can write to it"), "{error}");
        }
        assert_eq!(open(Path::new("/no/such/folder")).unwrap_err().kind(), Kind::Destination);
        let file = parent.path().join("file");
        std::fs::write(&file, "x").unwrap();
        assert_eq!(open(&file).unwrap_err().kind(), Kind::Destination);
    }

    #[test]
    fn what_others_could_put_in_its_place_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let (shared, trust) = (parent.path().join("open"), parent.path().join("trust"));
        std::fs::create_dir_all(shared.join("below/trust")).unwrap();
        std::fs::create_dir(&trust).unwrap();
        std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o777)).unwrap();
        for bad in [shared.join("trust"), shared.join("below/trust")] {
            let error = open(&bad).unwrap_err();
            let words = format!(
                "cannot use {}: {} can be written to by everybody, ",
                bad.display(),
                shared.display()
            );
            assert_eq!(error.kind(), Kind::Destination);
            assert!(error.to_string().starts_with(&words), "{error}");
        }
        assert!(!shared.join("trust").exists(), "nothing is made there");
        std::os::unix::fs::symlink(&trust, parent.path().join("link")).unwrap();
        let error = open(&parent.path().join("link")).unwrap_err();
        assert!(error.to_string().ends_with("it is not a directory, or a symbolic link"), "{error}");
        assert!(open(&trust).is_ok());
    }

    #[test]
    fn one_run_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (open(folder.path()).unwrap(), open(folder.path()).unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let lock = |store: &Folder| runtime.block_on(super::lock(store, Instant::now()));
        let held = lock(&one).unwrap().unwrap();
        let error = lock(&other).unwrap_err();
        assert_eq!(error.kind(), Kind::Destination);
        assert!(error.to_string().starts_with("another `host refresh` is at work on "), "{error}");
        assert!(error.hints()[0].contains(LOCK), "{error:?}");
        drop(held);
        std::fs::remove_file(folder.path().join(LOCK)).unwrap();
        std::os::unix::fs::symlink("/elsewhere", folder.path().join(LOCK)).unwrap();
        let error = lock(&one).unwrap_err().to_string();
        assert!(error.starts_with("cannot lock ") && error.ends_with(": it is a symbolic link"), "{error}");
    }

    #[test]
    fn what_a_killed_run_left_goes_after_an_hour() {
        let parent = tempfile::tempdir().unwrap();
        let temporary = |digit: &str| parent.path().join(format!(".machine-id-{}.tmp", digit.repeat(16)));
        for (digit, age) in [("1", 7200), ("2", 60)] {
            let file = std::fs::File::create(temporary(digit)).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        }
        // Of a clock that was ahead.
        let file = std::fs::File::create(temporary("3")).unwrap();
        file.set_modified(SystemTime::now() + Duration::from_secs(7200)).unwrap();
        open(parent.path()).unwrap();
        assert_eq!(["1", "2", "3"].map(|digit| temporary(digit).exists()), [false, true, false]);
    }
}
