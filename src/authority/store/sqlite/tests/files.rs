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

/// Where the tables are such that this version does right by them; and not from the moment on when they are not.
#[test]
fn a_newer_schema_is_gone_on_with_where_it_says_so() {
    let mut bench = Bench::new();
    assert_eq!(bench.issue(issuance(1)), FRESH);
    let newer = |bench: &Bench, oldest: usize| {
        let state = format!("PRAGMA user_version = 99; UPDATE state SET oldest = {oldest}");
        Connection::open(bench.path()).unwrap().execute_batch(&state).unwrap();
    };
    let version =
        |bench: &Bench| administrator::number(&bench.path(), "SELECT user_version FROM pragma_user_version");
    let known = schema::MIGRATIONS.len();
    newer(&bench, known);
    assert_eq!(bench.issue(issuance(2)), FRESH);
    bench = Bench::of(bench.close());
    assert_eq!(bench.issue(issuance(3)), FRESH);
    assert_eq!(bench.events(EventFilter::default()).len(), 3);
    let read = SqliteTrail::open(&bench.path(), StoreKey::beside(&bench.path()).owner()).unwrap();
    assert_eq!(
        bench.runtime.block_on(read.events(EventFilter::default(), Cursor::default(), 9)).unwrap().len(),
        3
    );
    // What it does not know it cannot carry.
    let archive = archive::SqliteArchive::known(&bench.path(), "here", &StoreKey::beside(&bench.path()));
    let error = archive.unwrap_err();
    assert!(error.to_string().contains("its schema is version 99, this machine-id knows up to 6"), "{error}");
    newer(&bench, known + 1);
    let Entry { entry, plan } = issuance(4);
    let error = bench.runtime.block_on(bench.store.issue(entry, plan)).unwrap_err();
    assert!(error.to_string().contains("which take one that knows version 7 of them"), "{error}");
    assert!(error.hints()[0].contains("use the machine-id that wrote it"), "{error:?}");
    assert!(
        bench.runtime.block_on(bench.store.revoked(0)).is_err(),
        "no list that lacks what a newer one revoked"
    );
    assert_eq!((version(&bench), bench.events(EventFilter::default()).len()), (99, 3));
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
    let newest = Connection::open(&newer).unwrap();
    newest.execute_batch("PRAGMA user_version = 99; UPDATE state SET oldest = 98").unwrap();
    drop(newest);
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
