//! Registered workers in files of before.

use super::*;
use crate::authority::store::sqlite::schema;

/// A store as the version before wrote it, with an issuance in it.
#[test]
fn a_store_of_the_version_before_is_brought_up_to_date() {
    let bench = Bench::new();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("old.db");
    let old = rusqlite::Connection::open(&path).unwrap();
    old.execute_batch(schema::MIGRATIONS[0]).unwrap();
    old.pragma_update(None, "application_id", schema::APPLICATION_ID).unwrap();
    old.pragma_update(None, "user_version", 1).unwrap();
    old.execute_batch(
        "INSERT INTO events (time, event, id, body) VALUES (1, 'issued', 'i9', '{\"event\":\"issued\",\"issuance_id\":\"i9\"}');
         INSERT INTO certificates (serial, issuance, kind, expires, key_hash) VALUES (9, 1, 0, 2000000000, zeroblob(32));
         INSERT INTO proofs (key, fingerprint, certificate, held_until, plan) VALUES (x'01', x'02', 9, 2000000000, 'p');",
    )
    .unwrap();
    drop(old);
    let store = Sqlite::open(&path, &StoreKey::beside(&path), NOW).unwrap();
    assert_eq!(bench.wait(store.certificate(9)).unwrap().issuance_id, "i9");
    bench.wait(store.add_secret(secret(SECRET, "github-deploy")));
    let Entry { entry, plan } = registration(1, "w-a", SECRET);
    assert_eq!(bench.wait(store.issue(entry, plan)), joined(1));
    assert_eq!(bench.wait(store.instances()).len(), 1);
}
