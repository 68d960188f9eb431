//! What a database keeps, and what is kept beside it.

use super::super::super::conformance::Engine as _;
use super::super::super::seal::{STORE_KEY, StoreKey};
use super::super::super::{StorePlace, engine as stores};
use super::*;
use crate::folder::trust::Owner;

/// As docs/backup.md has it, where no copy of the key is left.
#[test]
fn with_a_new_key_what_the_old_one_sealed_grants_nothing() {
    let bench = Bench::new();
    bench.issue(issuance(1)).unwrap();
    bench.runtime.block_on(bench.store.add_secret(fixtures::secret(fixtures::SECRET, "t"))).unwrap();
    let opened = || bench.runtime.block_on(bench.database.store());
    let file = bench.database.key().folder().join(STORE_KEY);
    std::fs::remove_file(&file).unwrap();
    assert!(opened().unwrap_err().hints()[1].contains("lost for good"));
    let new = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=\n";
    std::fs::write(&file, new).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert!(
        opened().unwrap_err().to_string().contains("is not the key that the store's rows are sealed with")
    );
    bench.sql("UPDATE state SET seal_check = NULL");
    let store = opened().unwrap();
    let issue =
        |entry: fixtures::Entry| bench.runtime.block_on(store.issue(entry.entry, entry.plan)).unwrap();
    assert_eq!((issue(issuance(1)), issue(fixtures::other(1, 9))), (Issued::Used, Issued::Used));
    assert!(!bench.runtime.block_on(store.admits(&fixtures::SECRET, "t", fixtures::NOW)).unwrap());
    assert_eq!(issue(issuance(2)), FRESH);
    assert!(store.tampered().is_some(), "it is said");
}

/// Nor is one that was gone on with taken for one that lies about it: by whoever knows of it, who seals it anew, by one that is
/// new then, or by one that was given another key.
#[test]
fn a_new_key_and_a_wrong_one_stop_no_store_that_was_gone_on_with() {
    let bench = Bench::new();
    let (runtime, key) = (&bench.runtime, bench.database.key());
    bench.issue(issuance(1)).unwrap();
    bench.sql("UPDATE state SET lost = 'x'");
    runtime.block_on(bench.store.resume(NOW)).unwrap();
    let lost = || bench.sql("SELECT lost IS NOT NULL FROM state");
    let elsewhere = |key: &StoreKey| {
        let folder = tempfile::tempdir().unwrap();
        let new = StoreKey::new(folder.path(), Owner::me(), "test");
        std::fs::copy(key.folder().join(STORE_KEY), folder.path().join(STORE_KEY)).unwrap();
        (folder, new)
    };
    let open = |key: &StoreKey| runtime.block_on(Postgres::open(bench.database.pool(SERVER), key));
    // A new machine with the key of another store.
    let folder = tempfile::tempdir().unwrap();
    let other = StoreKey::new(folder.path(), Owner::me(), "test");
    drop(other.create().unwrap());
    let error = open(&other).unwrap_err();
    assert!(error.to_string().contains("is not the key that the store's rows are sealed with"), "{error}");
    assert_eq!(lost(), "f", "nobody else minds");
    // As docs/backup.md has it.
    std::fs::copy(folder.path().join(STORE_KEY), key.folder().join(STORE_KEY)).unwrap();
    bench.sql("UPDATE state SET seal_check = NULL");
    let known = open(&key).unwrap();
    let (_folder, late) = elsewhere(&key);
    for store in [&known, &open(&late).unwrap()] {
        runtime.block_on(store.mark()).unwrap();
    }
    // Where nobody who has the key by now knows of it, the operator says so once more.
    let (_folder, late) = elsewhere(&key);
    bench.sql("UPDATE state SET seal_check = NULL, restored_mac = NULL");
    let late = open(&late).unwrap();
    assert_eq!(lost(), "t");
    runtime.block_on(late.resume(NOW)).unwrap();
    for store in [&known, &late] {
        runtime.block_on(store.mark()).unwrap();
        runtime.block_on(store.ready()).unwrap();
    }
}

/// The tests' own server does without what costs time.
#[test]
fn a_database_that_may_lose_what_it_acknowledged_is_warned_of() {
    let bench = Bench::new();
    let told = |pool: &Pool| bench.runtime.block_on(durability(pool));
    for role in [ADMIN, SERVER] {
        let said = told(&bench.database.pool(role)).unwrap();
        assert!(
            matches!(&*said, [(what, "turn it on in postgresql.conf")] if what.contains("`fsync = off`")),
            "{said:?}"
        );
    }
    let gone = StorePlace::Postgres(Box::new(
        url::DatabaseUrl::parse("postgres://u@127.0.0.1:1/x?sslmode=disable").unwrap(),
    ));
    let gone = bench.runtime.block_on(stores::durability(&gone, &bench.database.key())).unwrap_err();
    assert!(gone.kind() == Kind::Unreachable, "{gone:?}");
}

/// Though servers' clocks and odometers say that its time is up.
#[test]
fn a_proof_is_kept_until_it_has_expired_by_the_clock_of_the_database() {
    let bench = Bench::new();
    let pruned = |now| {
        bench.database.set_clock(now);
        bench.runtime.block_on(bench.store.prune(NOW + 9 * 86_400)).unwrap();
        bench.sql("SELECT count(*) FROM proofs")
    };
    bench.issue(issuance(1)).unwrap();
    bench.store.shared.known.advance(9 * 86_400);
    assert_eq!([pruned(HELD.until), pruned(HELD.until + 1)], ["1", "0"]);
}

/// Neither what is before it nor what is behind it.
#[test]
fn a_page_of_a_long_trail_reads_little_of_it() {
    let bench = Bench::new();
    bench.sql(
        "INSERT INTO events (sequence, time, event, id, body) SELECT n, n, 'issued', n, '' FROM generate_series(1, 20000) AS n",
    );
    bench.sql("ANALYZE events");
    let explained = |after: i64, since: i64| {
        let plan = bench.sql(&format!(
            "PREPARE page (bigint, bigint, bigint, text, text, text, text) AS {};
             EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) EXECUTE page ({after}, 100, {since}, NULL, NULL, NULL, NULL)",
            reads::EVENTS
        ));
        plan.lines().filter(|line| !line.contains("never executed")).collect::<Vec<_>>().join("\n")
    };
    for (after, since) in
        [(0, 1), (0, 500), (0, 19_600), (0, 20_000), (0, 30_000), (10_000, 1), (19_800, 19_600)]
    {
        let plan = explained(after, since);
        assert!(!plan.contains("Seq Scan") && !plan.contains("Sort"), "{plan}");
        let counts = |name: &str| -> Vec<u32> {
            let after = plan.split(name).skip(1);
            after
                .map(|text| text.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap())
                .collect()
        };
        let read: u32 = counts("actual rows=").iter().chain(&counts("Removed by Filter: ")).sum();
        assert!(read < 2000, "{after} {since}: {plan}");
    }
}

/// Each job asks for them, and hosts that are good are many.
#[test]
fn revoked_hosts_have_an_index_of_their_own() {
    let bench = Bench::new();
    bench.sql(
        "INSERT INTO certificates (serial, issuance, kind, expires, revoked, key_hash, host)
         SELECT n, 1, 0, n, CASE n % 2000 WHEN 0 THEN 1 END, decode(repeat('00', 32), 'hex'), 1
         FROM generate_series(1, 20000) AS n",
    );
    bench.sql("ANALYZE certificates");
    let plan = bench.sql(&format!(
        "PREPARE revoked (bigint, bigint, bigint) AS {};
         EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) EXECUTE revoked (0, 1, 8192)",
        hosts::REVOKED
    ));
    assert!(plan.contains("certificates_hosts_revoked") && !plan.contains("Removed by Filter"), "{plan}");
}

/// However many were issued, and have ended.
#[test]
fn certificates_of_hosts_that_end_are_found_by_an_index() {
    let bench = Bench::new();
    bench.sql(
        "INSERT INTO events (sequence, time, event, id, body) SELECT n, n, 'signed', n, '' FROM generate_series(1, 20000) AS n",
    );
    bench.sql(
        "INSERT INTO certificates (serial, issuance, kind, expires, key_hash, host)
         SELECT n, n, 0, n, decode(repeat('00', 32), 'hex'), CASE n % 2 WHEN 0 THEN 1 END
         FROM generate_series(1, 20000) AS n",
    );
    bench.sql("ANALYZE certificates, events");
    let plan = bench.sql(&format!(
        "PREPARE certified (bigint, bigint, bigint) AS {};
         EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) EXECUTE certified (10000, 0, 500)",
        hosts::CERTIFIED
    ));
    assert!(plan.contains("certificates_hosts") && !plan.contains("Seq Scan on certificates"), "{plan}");
    assert!(plan.contains("events_pkey") && !plan.contains("Seq Scan on events"), "{plan}");
}
