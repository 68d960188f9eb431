//! The key that the store's rows are sealed with: made once, and never anew because of what the store says.

use rusqlite::Connection;

use super::super::schema::{APPLICATION_ID, MIGRATIONS};
use super::*;
use crate::authority::store::seal::STORE_KEY;

/// A store of the fourth schema, with a secret, a worker and a used proof in it.
fn before_seals(path: &Path) {
    let old = Connection::open(path).unwrap();
    MIGRATIONS[..4].iter().for_each(|migration| old.execute_batch(migration).unwrap());
    old.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
    old.pragma_update(None, "user_version", 4).unwrap();
    let Entry { entry, plan } = issuance(1);
    old.execute(
        "INSERT INTO events (time, event, id, body) VALUES (?1, 'issued', 'i1', '{\"event\":\"issued\"}')",
        [NOW],
    )
    .unwrap();
    for (kind, certificate) in plan.certificates.iter().enumerate() {
        old.execute(
            "INSERT INTO certificates (serial, issuance, kind, expires, key_hash) VALUES (?1, 1, ?2, ?3, ?4)",
            rusqlite::params![certificate.serial, kind, certificate.expires, certificate.key_hash],
        )
        .unwrap();
    }
    let key = crate::authority::store::proofs::proof_key(&entry.replay, 0);
    old.execute(
        "INSERT INTO proofs (key, fingerprint, certificate, held_until, plan) VALUES (?1, ?2, 2, ?3, 'p')",
        rusqlite::params![key.as_ref(), plan.former_fingerprint, HELD.until],
    )
    .unwrap();
    old.execute(
        "INSERT INTO secrets (hash, id, token, expires, made) VALUES (?1, 'k-5', 'github-deploy', ?2, ?3)",
        rusqlite::params![SECRET, NOW + 3600, NOW],
    )
    .unwrap();
    old.execute(
        "INSERT INTO instances (id, token, bot, key, generation, base, attempt, tries, last, registered, seen)
         VALUES ('w-a', 'github-deploy', 'deployer', CAST('w-a' AS BLOB), 3, 2, 'a', 0, 'r', 1, 1)",
        [],
    )
    .unwrap();
}

struct Home(TempDir);

impl Home {
    fn before_seals() -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        before_seals(&home.at("authority.db"));
        home
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn open(&self) -> Result<Sqlite> {
        let path = self.at("authority.db");
        Sqlite::open(&path, &StoreKey::beside(&path), NOW)
    }

    fn refused(&self, why: &str) -> String {
        let error = self.open().unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        assert!(error.to_string().contains(why), "{error}");
        error.hints().join("\n")
    }

    fn meddle(&self, sql: &str) {
        Connection::open(self.at("authority.db")).unwrap().execute_batch(sql).unwrap();
    }
}

fn wait<T>(future: impl Future<Output = Result<T>>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future).unwrap()
}

fn issue(store: &Sqlite, entry: Entry) -> Issued {
    wait(store.issue(entry.entry, entry.plan))
}

#[test]
fn what_was_there_before_seals_goes_on() {
    let home = Home::before_seals();
    for _ in 0..2 {
        let store = home.open().unwrap();
        assert!(wait(store.admits(&SECRET, "github-deploy", NOW)));
        assert!(wait(store.instance("w-a")).is_some());
        assert_eq!(issue(&store, issuance(1)), retry(1));
        assert_eq!(store.tampered(), None);
        assert!(home.at(STORE_KEY).exists() && !home.at("store.key.new").exists());
    }
    assert_eq!(issue(&home.open().unwrap(), join(2, "w-a", 3)), joined(4));
}

/// Wherever it is ended: before the rows are committed, or before the key is in its place.
#[test]
fn one_that_is_ended_while_it_seals_goes_on() {
    let home = Home::before_seals();
    let key = StoreKey::beside(&home.at("authority.db"));
    drop(key.begin().unwrap());
    drop(home.open().unwrap());
    std::fs::rename(home.at(STORE_KEY), home.at("store.key.new")).unwrap();
    let store = home.open().unwrap();
    assert!(wait(store.admits(&SECRET, "github-deploy", NOW)));
    assert!(home.at(STORE_KEY).exists() && !home.at("store.key.new").exists());
}

#[test]
fn a_store_whose_key_is_not_there_is_not_opened() {
    let home = Home::before_seals();
    drop(home.open().unwrap());
    let key = fs::read(home.at(STORE_KEY)).unwrap();
    fs::remove_file(home.at(STORE_KEY)).unwrap();
    assert!(home.refused("there is no ").contains("put it back from the backup"));
    // One that was begun for another store is none.
    drop(StoreKey::beside(&home.at("authority.db")).begin().unwrap());
    home.refused("there is no ");
    drop(StoreKey::beside(&home.at("authority.db")).create().unwrap());
    assert!(home.refused("is not the key that").contains("`cluster` in authority.yaml"));
    fs::write(home.at(STORE_KEY), &key).unwrap();
    let path = home.at("authority.db");
    let error = Sqlite::open(&path, &StoreKey::new(home.0.path(), Owner::me(), "id.other"), NOW).unwrap_err();
    assert!(error.to_string().contains("is not the key that"), "{error}");
    home.open().unwrap();
}

/// Neither a store that says it was never sealed, nor one that is brought from before, is sealed by a key that is there.
#[test]
fn nothing_in_the_store_has_its_rows_sealed_anew() {
    let home = Home::before_seals();
    drop(home.open().unwrap());
    home.meddle("UPDATE instances SET key = CAST('evil' AS BLOB)");
    let good: Vec<u8> = Connection::open(home.at("authority.db"))
        .unwrap()
        .query_row("SELECT seal_check FROM state", [], |row| row.get(0))
        .unwrap();
    for sql in ["UPDATE state SET seal_check = NULL", "UPDATE state SET seal_check = x''"] {
        home.meddle(sql);
        assert!(!home.refused("store").is_empty());
    }
    let connection = Connection::open(home.at("authority.db")).unwrap();
    connection.execute("UPDATE state SET seal_check = ?1", [good]).unwrap();
    drop(connection);
    let store = home.open().unwrap();
    assert_eq!(wait(store.instance("w-a")), None);
    drop(store);
    for end in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(home.at(&format!("authority.db{end}")));
    }
    before_seals(&home.at("authority.db"));
    assert!(
        home.refused("from before its rows were sealed").contains("put back the store that belongs to it")
    );
    // As `docs/backup.md` has it where the key is lost: the operator's word, who can write to both places.
    fs::remove_file(home.at(STORE_KEY)).unwrap();
    drop(home.open().unwrap());
    fs::remove_file(home.at(STORE_KEY)).unwrap();
    home.meddle("UPDATE state SET seal_check = NULL");
    assert!(wait(home.open().unwrap().instance("w-a")).is_some());
}

/// The key is durable before any row is sealed with it: where it cannot be written, the store stays as it was.
#[test]
fn a_key_that_cannot_be_written_seals_nothing() {
    let home = Home::before_seals();
    fs::create_dir_all(home.at("store.key.new/in-its-place")).unwrap();
    assert!(home.refused("cannot write ").contains("this user must be able to make files in"));
    let version: i64 = Connection::open(home.at("authority.db"))
        .unwrap()
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .unwrap();
    assert_eq!(version, 4);
    fs::remove_dir_all(home.at("store.key.new")).unwrap();
    assert!(wait(home.open().unwrap().instance("w-a")).is_some());
}
