//! A data directory is there whole, or `init` and `serve` agree that it is not and say how to go on.

use std::path::Path;
use std::process::Output;

use tempfile::TempDir;

use super::{chmod, said};
use crate::support::process::{MACHINE_ID, command, installed, machine_id, run, succeed};

const INIT: [&str; 7] =
    ["authority", "init", "--cluster", "id.test", "--public-url", "https://id.test", "--data-dir"];

fn init(data: &Path) -> Output {
    run(machine_id(INIT).arg(data))
}

/// Ends where everything was read, since nobody may listen there.
fn serve(data: &Path) -> String {
    said(&run(machine_id(["authority", "serve", "--listen", "192.0.2.1:1", "--data-dir"]).arg(data)))
}

fn names(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(path).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

const WHOLE: [&str; 6] =
    ["authority.db", "authority.db.mark", "authority.yaml", "keys", "policy", "store.key"];

/// The system kills it where a file grows beyond a limit: by its steps, from the first key to the last
/// page of the store.
#[test]
fn one_that_is_killed_leaves_nothing_that_passes_for_done() {
    assert!(installed("prlimit"), "util-linux");
    for is_there in [false, true] {
        let mut ends = Vec::new();
        for limit in [0, 100, 300, 390, 450, 4096, 8192, 65_536, 1 << 20] {
            let temp = TempDir::new().unwrap();
            let data = temp.path().join("data");
            if is_there {
                std::fs::create_dir(&data).unwrap();
            }
            let killed = run(command("prlimit")
                .args([&format!("--fsize={limit}"), "--core=0", "--", MACHINE_ID])
                .args(INIT)
                .arg(&data));
            ends.push(killed.status.success());
            if !killed.status.success() {
                let refused = serve(&data);
                assert!(
                    refused.contains("`machine-id authority init` creates a data directory"),
                    "{refused}"
                );
                assert!(!data.join("authority.yaml").exists() && !data.join("keys").exists());
                let again = init(&data);
                assert!(again.status.success(), "{limit}: {}", said(&again));
            }
            assert_eq!(names(temp.path()), ["data"], "nothing is left beside it");
            assert_eq!(names(&data), WHOLE);
            succeed(
                machine_id(["authority", "sign-server", "--name", "x.test", "--out"])
                    .arg(temp.path().join("out"))
                    .arg("--data-dir")
                    .arg(&data),
            );
        }
        assert!(ends.contains(&true) && ends.iter().filter(|good| !**good).count() >= 4, "{ends:?}");
    }
}

/// As earlier versions left it, and one whose configuration was lost.
#[test]
fn init_and_serve_say_the_same_of_one_that_is_unfinished() {
    for (gone, names) in [
        (&["authority.yaml"][..], "keys and store.key and authority.db"),
        (&["authority.yaml", "authority.db", "store.key"], "keys"),
    ] {
        let temp = TempDir::new().unwrap();
        let data = temp.path().join("data");
        assert!(init(&data).status.success());
        gone.iter().for_each(|name| std::fs::remove_file(data.join(name)).unwrap());
        let what = format!(
            "error: {} holds {names} and no authority.yaml: `init` was interrupted there, or authority.yaml was lost\n\
             hint: where this authority has issued anything, put authority.yaml back\n\
             hint: where it has not, remove {names}, and run `machine-id authority init`\n",
            data.display()
        );
        assert_eq!(said(&init(&data)), what);
        assert_eq!(serve(&data), what);
        assert!(data.join("keys/ssh_user_ca").exists());
    }
}

/// A mounted volume, which cannot be replaced; it may hold what its file system and the operator put there.
#[test]
fn a_directory_that_is_there_is_filled() {
    let temp = TempDir::new().unwrap();
    let data = temp.path().join("data");
    std::fs::create_dir_all(data.join("policy")).unwrap();
    std::fs::create_dir(data.join("lost+found")).unwrap();
    std::fs::write(data.join("policy/p.yaml"), super::POLICY).unwrap();
    chmod(&data, 0o750);
    let made = init(&data);
    assert!(made.status.success(), "{}", said(&made));
    let mut all = WHOLE.map(str::to_owned).to_vec();
    all.insert(4, "lost+found".to_owned());
    assert_eq!(names(&data), all);
    assert_eq!(names(&data.join("policy")), ["p.yaml"]);
    assert!(said(&init(&data)).contains("is an authority's data directory already"));
    let file = temp.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(said(&init(&file)).contains("cannot use "), "{}", said(&init(&file)));
    if rustix::process::geteuid().is_root()
        && run(command("unshare").args(["--mount", "true"])).status.success()
    {
        let volume = temp.path().join("volume");
        std::fs::create_dir(&volume).unwrap();
        let line = "mount -t tmpfs -o mode=755 tmpfs \"$1\" && shift && \"$0\" \"$@\" && \"$0\" authority audit --data-dir \"$8\"";
        succeed(
            command("unshare")
                .args(["--mount", "sh", "-c", line, MACHINE_ID])
                .arg(&volume)
                .args(INIT)
                .arg(&volume),
        );
    }
}

#[test]
fn two_at_once_make_one() {
    let temp = TempDir::new().unwrap();
    for data in [temp.path().join("a"), temp.path().join("b")] {
        if data.ends_with("b") {
            std::fs::create_dir(&data).unwrap();
        }
        let made: Vec<Output> = std::thread::scope(|scope| {
            let all: Vec<_> = (0..4).map(|_| scope.spawn(|| init(&data))).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert_eq!(made.iter().filter(|one| one.status.success()).count(), 1, "{made:?}");
        assert_eq!(names(&data), WHOLE);
    }
    assert_eq!(names(temp.path()), ["a", "b"]);
}

/// The database is somebody else's to make: `init` names it, and makes no file for it.
#[test]
fn a_store_is_where_it_was_asked_for() {
    let temp = TempDir::new().unwrap();
    let url = "postgres://machine-id@db.test/it's?sslrootcert=db-ca.crt";
    let (shared, file) = (temp.path().join("shared"), temp.path().join("file"));
    succeed(machine_id(INIT).arg(&shared).args(["--store", url]));
    assert_eq!(names(&shared), ["authority.yaml", "keys", "policy", "store.key"]);
    let config = std::fs::read_to_string(shared.join("authority.yaml")).unwrap();
    assert!(
        config.contains("store: 'postgres://machine-id@db.test/it''s?sslrootcert=db-ca.crt'\n"),
        "{config}"
    );
    std::fs::write(shared.join("policy/p.yaml"), super::POLICY).unwrap();
    let check = || run(machine_id(["authority", "check", "--data-dir"]).arg(&shared));
    assert!(said(&check()).contains("cannot read the CA file"), "{}", said(&check()));
    // Which CAs are trusted, the store knows.
    let exported = run(machine_id(["authority", "export", "tls-ca", "--data-dir"]).arg(&shared));
    assert!(said(&exported).contains("cannot read the CA file"), "{}", said(&exported));
    std::fs::copy(shared.join("keys/tls_ca.crt"), shared.join("db-ca.crt")).unwrap();
    assert!(check().status.success(), "{}", said(&check()));
    let weak = config.replace("machine-id@", "machine-id:h4rd2gu3ss@").replace("?ssl", "?sslmode=prefer&ssl");
    std::fs::write(shared.join("authority.yaml"), weak).unwrap();
    let page = String::from_utf8(check().stdout).unwrap();
    for warned in ["holds the database's password", "`sslmode=prefer` believes whoever answers"] {
        assert!(page.contains("warning: ") && page.contains(warned), "{page}");
    }
    assert!(!page.contains("h4rd2gu3ss"), "{page}");
    succeed(machine_id(INIT).arg(&file).args(["--store", "sqlite:other.db"]));
    std::fs::write(file.join("policy/p.yaml"), super::POLICY).unwrap();
    assert_eq!(names(&file), ["authority.yaml", "keys", "other.db", "other.db.mark", "policy", "store.key"]);
    assert!(serve(&file).contains("192.0.2.1:1"), "{}", serve(&file));
}

/// A database's tables are made by its owner, and `serve` does not start before.
#[test]
fn for_a_database_it_says_what_comes_before_serve() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("authority");
    let told = succeed(machine_id(INIT).arg(&data).args(["--store", "postgres://server@db.test/id"]));
    let (upgrade, serve) =
        (told.find("machine-id authority upgrade"), told.find("machine-id authority serve"));
    assert!(upgrade.is_some() && upgrade < serve, "{told}");
    let told = said(&run(machine_id(["authority", "new-store", "--data-dir"]).arg(&data)));
    assert!(told.contains("hint: its owner begins an empty one in another database"), "{told}");
    let files = folder.path().join("file");
    assert!(!succeed(machine_id(INIT).arg(&files)).contains("upgrade"));
}
