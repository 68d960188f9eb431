//! The audit trail as it is read, and the file as it is opened.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use rusqlite::Connection;

use super::outside::old_store;
use super::*;
use crate::error::Kind;

#[test]
fn the_file_is_private_and_opens_again() {
    let bench = Bench::new();
    bench.issue(issuance(1));
    for name in ["authority.db", "authority.db-wal", "authority.db-shm"] {
        let mode = fs::metadata(bench.dir.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    // Beside the server, as a command does, and after it.
    let beside = Sqlite::open(&bench.path(), &StoreKey::beside(&bench.path()), NOW).unwrap();
    let Entry { entry, plan } = issuance(2);
    assert_eq!(bench.wait(beside.issue(entry, plan)), FRESH);
    assert_eq!(bench.names(EventFilter::default()), ["issued i1", "issued i2"]);
    drop(beside);
    let dir = bench.close();
    let mut left: Vec<_> =
        fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(
        left,
        ["authority.db", "authority.db-reserve", "authority.db.mark", "store.key"],
        "closed cleanly"
    );
    assert_eq!(Bench::of(dir).issue(issuance(1)), retry(1));
}

#[test]
fn many_may_open_an_old_store_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("authority.db");
    old_store(&path);
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| Sqlite::open(&path, &StoreKey::beside(&path), NOW).map(drop)))
            .collect();
        for one in all {
            one.join().unwrap().unwrap();
        }
    });
    assert!(Sqlite::open(&path, &StoreKey::beside(&path), NOW).unwrap().restored().is_none());
}

#[test]
fn files_of_others_are_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |path: &Path, wanted: &str| {
        let before = fs::read(path).ok();
        let error = Sqlite::open(path, &StoreKey::beside(path), NOW).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage, "{error}");
        assert!(
            error.to_string().starts_with("cannot open the store ") && error.to_string().contains(wanted),
            "{error}"
        );
        assert_eq!(fs::read(path).ok(), before);
    };
    let newer = dir.path().join("newer.db");
    Sqlite::create(&newer, &StoreKey::beside(&newer)).unwrap();
    Connection::open(&newer).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let known = schema::MIGRATIONS.len();
    let wanted = format!("newer machine-id: its schema is version 99, this machine-id knows up to {known}");
    refused(&newer, &wanted);
    let foreign = dir.path().join("foreign.db");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE cookies (a)").unwrap();
    refused(&foreign, "not an authority's store");
    let text = dir.path().join("text.db");
    fs::write(&text, "not a database at all, but long enough to be looked at as one").unwrap();
    refused(&text, "not a database");
    refused(dir.path(), "cannot use the file: it is not a plain file");
    refused(&dir.path().join("missing/authority.db"), "/missing does not exist");
    assert!(Sqlite::open(Path::new("/dev/full"), &StoreKey::beside(Path::new("/dev/full")), NOW).is_err());
}
