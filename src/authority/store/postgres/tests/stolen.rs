//! What a password of the database is worth to whoever has stolen it.

use super::super::super::cas::{CaChange, CaChanged, CaStore as _};
use super::super::super::conformance::Engine as _;
use super::*;
use crate::authority::ca::{CaKey, CaKind, CaState};

/// As the threat model says it: whoever has the password and no `store.key` can be in the way, and no more.
#[test]
fn what_is_stolen_with_a_servers_password_lets_nobody_in() {
    let bench = Bench::new();
    let stolen = |sql: &str| bench.database.psql(SERVER, sql).unwrap_or_else(|why| panic!("{sql}: {why}"));
    for n in 1..4 {
        assert_eq!(bench.issue(issuance(n)).unwrap(), FRESH);
    }
    // A secret and a worker of their own; the hash and the key are such as they know.
    stolen(&format!(
        "INSERT INTO secrets (hash, id, token, expires, made, held_to_run, mac)
         VALUES (decode(repeat('07', 32), 'hex'), 'k-evil', 'github-deploy', {}, {NOW}, 0, decode(repeat('07', 32), 'hex'))",
        NOW + 3600
    ));
    stolen(&format!(
        "INSERT INTO instances (number, id, token, bot, key, generation, base, attempt, tries, last, registered, seen)
         VALUES (1, 'w-evil', 'github-deploy', 'deployer', 'w-evil', 1, 1, '', 0, '', {NOW}, {NOW})"
    ));
    let runtime = &bench.runtime;
    assert!(!runtime.block_on(bench.store.admits(&[7; 32], "github-deploy", NOW)).unwrap());
    assert_eq!(runtime.block_on(bench.store.instance("w-evil")).unwrap(), None);
    for entry in [registration(10, "w-new", [7; 32]), join(11, "w-evil", 1)] {
        assert!(matches!(bench.issue(entry).unwrap(), Issued::Refused(_)));
    }
    // A used proof stays used, and what it was used for is not signed for what is written beside it.
    assert_eq!(bench.issue(issuance(1)).unwrap(), retry(1));
    stolen(
        "INSERT INTO certificates SELECT 999999, issuance, kind, expires + 999999, NULL, key_hash, NULL FROM certificates WHERE serial = 2",
    );
    assert_eq!(bench.issue(issuance(1)).unwrap(), Issued::Used);
    // In the way: what was issued is revoked, and what was not is in the trail.
    stolen("UPDATE certificates SET revoked = 1 WHERE serial = 4");
    stolen(
        "INSERT INTO events (sequence, time, event, id, body) SELECT max(sequence) + 1, 1, 'issued', 'i-never', '' FROM events",
    );
    let trail = runtime.block_on(PostgresTrail::open(bench.database.pool(READER))).unwrap();
    let told = runtime.block_on(trail.events(EventFilter::default(), Cursor::default(), 10)).unwrap_err();
    assert!(told.to_string().contains("event"), "{told}");
    let stays = "UPDATE certificates SET revoked = NULL WHERE serial = 4";
    assert!(bench.database.psql(SERVER, stays).unwrap_err().contains("what is revoked stays revoked"));
}

/// One that is revoked by whoever stole the password is on the lists, at whatever time they say it was.
#[test]
fn nothing_makes_a_certificate_unrevocable() {
    let bench = Bench::new();
    assert_eq!(bench.issue(issuance(1)).unwrap(), FRESH);
    let now = NOW + 60;
    bench.sql(&format!(
        "CREATE OR REPLACE FUNCTION clock() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT {now}::bigint'"
    ));
    bench.database.psql(SERVER, "UPDATE certificates SET revoked = expires").unwrap();
    let listed = bench.runtime.block_on(bench.store.revoked(NOW)).unwrap();
    assert!(listed.len() == 2 && listed.iter().all(|listed| listed.revoked == now), "{listed:?}");
}

/// No number leaves none to follow it, and no row that has a good seal is put back to what it was once.
#[test]
fn what_is_written_with_a_servers_password_stops_nothing_for_good() {
    let bench = Bench::new();
    assert_eq!(bench.issue(issuance(1)).unwrap(), FRESH);
    // A worker that goes on, and one that is locked.
    for (n, instance) in [(10, "w"), (20, "w-locked")] {
        let secret = [u8::try_from(n).unwrap(); 32];
        let mut kept = fixtures::secret(secret, "github-deploy");
        kept.expires = NOW + 30 * 86_400;
        bench.runtime.block_on(bench.store.add_secret(kept)).unwrap();
        assert_eq!(bench.issue(registration(n, instance, secret)).unwrap(), joined(1));
        assert_eq!(bench.issue(join(n + 1, instance, 1)).unwrap(), joined(2));
    }
    assert!(matches!(bench.issue(join(30, "w-locked", 0)).unwrap(), Issued::Refused(_)));
    let refused = [
        "INSERT INTO events (sequence, time, event, id, body) VALUES (9223372036854775807, 1, 'x', 'x', '')",
        "INSERT INTO events (sequence, time, event, id, body) VALUES (100000099, 1, 'x', 'x', '')",
        "INSERT INTO events (sequence, time, event, id, body) VALUES (3, -1, 'x', 'x', '')",
        "INSERT INTO events (sequence, time, event, id, body) VALUES (3, 9223372036854775807, 'x', 'x', '')",
        "INSERT INTO certificates SELECT 9, issuance, kind, 9223372036854775807, -1, key_hash FROM certificates LIMIT 1",
        "INSERT INTO certificates SELECT 9, issuance, kind, expires, -1, key_hash FROM certificates LIMIT 1",
        "UPDATE certificates SET instance = NULL WHERE serial = 20",
        "UPDATE certificates SET instance = 2 WHERE serial = 20",
        "INSERT INTO instances (number, id, token, bot, key, generation, base, attempt, tries, last, registered, seen)
         VALUES (9223372036854775807, 'x', '', '', '', 1, 1, '', 0, '', 1, 1)",
        "UPDATE instances SET locked = NULL, reason = NULL WHERE id = 'w-locked'",
        "UPDATE instances SET generation = 9 WHERE id = 'w-locked'",
        "UPDATE instances SET generation = generation - 1 WHERE id = 'w'",
        "UPDATE instances SET base = base - 1 WHERE id = 'w'",
        "UPDATE secrets SET instance = NULL, mac = ''",
        "UPDATE secrets SET instance = 'other'",
        "DELETE FROM secrets",
        "INSERT INTO strangers (number, ring, nth, ends, behind, time, event, id, body)
         VALUES (9223372036854775807, 0, 1, 1, 0, 1, 'x', 'x', '')",
        "INSERT INTO strangers (number, ring, nth, ends, behind, time, event, id, body)
         VALUES (1, 0, 9223372036854775807, 1, 0, 1, 'x', 'x', '')",
        "INSERT INTO strangers (number, ring, nth, ends, behind, time, event, id, body)
         VALUES (1, 0, 1, 9223372036854775807, 0, 1, 'x', 'x', '')",
        "UPDATE state SET list_number = 9223372036854775000",
        "UPDATE state SET run = 9223372036854775807",
        "UPDATE state SET forgotten = 9223372036854775807",
        "UPDATE state SET revocations = 9223372036854775807",
        "UPDATE state SET restored = 9223372036854775807",
        "UPDATE state SET lost = repeat('x', 30000000)",
        "UPDATE state SET list_what = ''",
        "UPDATE state SET seal_check = '\\x00'",
        "UPDATE state SET seal_check = NULL",
        "INSERT INTO usage (key, level, at) VALUES ('x', 1, -9223372036854775808)",
        "INSERT INTO usage (key, level, at) VALUES ('x', 'NaN', 1)",
        "INSERT INTO usage (key, level, at) VALUES ('x', '-Infinity', 1)",
        "INSERT INTO replicas VALUES ('x', repeat('x', 30000000), 'x', 'x', 'x', 1)",
        "INSERT INTO replicas VALUES ('x', 'x', 'x', 'x', 'x', -9223372036854775808)",
        "INSERT INTO cas VALUES (repeat('x', 30000000), 1)",
    ];
    for sql in refused {
        let why = bench.database.psql(SERVER, sql).expect_err(sql);
        assert!(why.contains("machine-id: ") || why.contains("violates check"), "{sql}: {why}");
    }
    // As far as they come, all goes on.
    for sql in [
        "INSERT INTO events (sequence, time, event, id, body)
         SELECT max(sequence) + 100000000, 253402300799, 'x', 'x', '' FROM events",
        "UPDATE state SET list_number = (clock() + 315360000) * 1000000000, run = run + 31536000, forgotten = clock(),
            revocations = revocations + 1, list_made = 9223372036854775807",
        "INSERT INTO usage (key, level, at) VALUES (decode(repeat('07', 32), 'hex'), 1e300, -253402300799000)",
        "INSERT INTO replicas VALUES ('x', 'x', 'x', 'x', 'x', 0)",
    ] {
        bench.database.psql(SERVER, sql).unwrap();
    }
    let runtime = &bench.runtime;
    let store = runtime.block_on(bench.database.store()).unwrap();
    let fixtures::Entry { mut entry, plan } = issuance(40);
    entry.replay.held.until = NOW + 11 * 86_400;
    assert_eq!(runtime.block_on(store.issue(entry, plan)).unwrap(), FRESH);
    runtime.block_on(store.revoke(revocation(40, "a"))).unwrap();
    let first = runtime.block_on(store.list_number(NOW, [1; 32])).unwrap();
    assert!(runtime.block_on(store.list_number(NOW, [2; 32])).unwrap().number > first.number);
    runtime.block_on(store.ready()).unwrap();
    assert_eq!(bench.issue(join(41, "w", 2)).unwrap(), joined(3));
    bench
        .database
        .psql(SERVER, "UPDATE state SET lost = 'all', list_number = list_number + 20000000")
        .unwrap();
    runtime.block_on(store.resume(NOW)).unwrap();
    runtime.block_on(store.ready()).unwrap();
}

/// Nor does it let anybody in whom an operator has locked, nor make the lock take fewer.
#[test]
fn nobody_lifts_a_lock_by_a_servers_password() {
    let bench = Bench::new();
    let lock = fixtures::lock(LockKind::Bot, "deployer");
    bench.runtime.block_on(bench.store.lock(lock)).unwrap();
    for (meddle, is_refused) in [
        ("DELETE FROM locks", true),
        ("TRUNCATE locks", true),
        ("UPDATE locks SET value = 'other'", true),
        ("UPDATE locks SET kind = 'run'", true),
        ("UPDATE locks SET met = ''", true),
        ("UPDATE state SET locks = 0", true),
        ("UPDATE locks SET lifted = 1, lifted_by = 'x'", false),
        ("UPDATE locks SET until = 1, held_to_run = 0", false),
        ("UPDATE state SET locks = locks + 1", false),
    ] {
        let done = bench.database.psql(SERVER, meddle);
        assert_eq!(done.is_err(), is_refused, "{meddle}: {done:?}");
        assert!(matches!(bench.issue(issuance(1)).unwrap(), Issued::Locked(_)), "{meddle}");
    }
    let unlocked = bench.store.unlock(LockKind::Bot, "deployer".to_owned(), NOW, "anna".to_owned());
    assert_eq!(bench.runtime.block_on(unlocked).unwrap().len(), 1);
    assert_eq!(bench.issue(issuance(1)).unwrap(), FRESH);
}

/// What was lost stays lost until the operator says otherwise, whatever the server's role writes of it; and he can.
#[test]
fn nobody_goes_on_with_a_store_that_lost_something_by_a_servers_password() {
    for meddle in [
        "UPDATE state SET lost = NULL",
        "UPDATE state SET lost = NULL, restored = 1900000000, restored_mac = NULL",
        "UPDATE state SET lost = NULL, restored = 1900000000, restored_mac = decode(repeat('07', 32), 'hex')",
        "UPDATE state SET lost = NULL, restored = 253402300799",
        "INSERT INTO events (sequence, time, event, id, body)
         SELECT max(sequence) + 1, 253402300799, 'x', 'x', '\\x' FROM events; UPDATE state SET lost = NULL, restored = 5",
    ] {
        let bench = Bench::new();
        (1..4).for_each(|n| assert_eq!(bench.issue(issuance(n)).unwrap(), FRESH));
        let (runtime, store) = (&bench.runtime, &bench.store);
        let lacks = |store: &Postgres| {
            let marked = runtime.block_on(store.mark());
            marked.err().map(|error| lost(&error).unwrap_or_else(|| panic!("{meddle}: {error:?}")).to_string())
        };
        assert_eq!(lacks(store), None, "{meddle}");
        bench.database.put_back(1);
        assert!(lacks(store).is_some(), "{meddle}");
        bench.database.psql(SERVER, meddle).unwrap();
        assert!(lost(&bench.issue(issuance(5)).unwrap_err()).is_some(), "{meddle}");
        let late = runtime.block_on(bench.database.store()).unwrap();
        assert!(lacks(store).is_some() && lacks(&late).is_some(), "{meddle}");
        for n in 0..2 {
            runtime.block_on(late.resume(NOW)).unwrap();
            assert_eq!((lacks(store), lacks(&late)), (None, None), "{meddle}");
            let restored = store.restored().unwrap().time;
            assert!(restored < 2_200_000_000, "{meddle}: {restored}");
            let entry = issuance(6 + n).with(|entry| entry.restored = Some(restored));
            assert_eq!(bench.issue(entry).unwrap(), FRESH, "{meddle}");
            bench.database.put_back(1);
            assert!(lacks(store).is_some() && lacks(&late).is_some(), "{meddle}");
        }
    }
}

/// Only who has `store.key` goes on with it, and what he has said of one store is good for no other.
#[test]
fn that_a_store_was_gone_on_with_is_said_of_that_one() {
    let bench = Bench::new();
    let (runtime, store) = (&bench.runtime, &bench.store);
    assert_eq!(bench.issue(issuance(1)).unwrap(), FRESH);
    bench.sql("UPDATE state SET lost = 'x'");
    runtime.block_on(store.resume(NOW)).unwrap();
    let good = bench.sql("SELECT encode(restored_mac, 'hex') FROM state");
    let good = good.trim();
    // He that runs already has heard of it; of what is made of it he hears too.
    for (sql, holds) in [
        ("restored = restored".to_owned(), true),
        ("restored = restored + 1".to_owned(), false),
        ("restored = restored - 1".to_owned(), false),
        ("restored = NULL, restored_mac = NULL".to_owned(), false),
    ] {
        let restored = bench.sql("SELECT restored FROM state");
        bench.sql(&format!("UPDATE state SET {sql}"));
        let told = runtime.block_on(store.mark());
        assert_eq!(told.is_ok(), holds, "{sql}");
        bench.sql(&format!(
            "UPDATE state SET lost = NULL, restored = {}, restored_mac = '\\x{good}'",
            restored.trim()
        ));
        runtime.block_on(store.mark()).unwrap();
    }
    // A replica that is new knows of nothing that was lost, and does not believe it either.
    let other = Bench::new();
    assert_eq!(other.issue(issuance(1)).unwrap(), FRESH);
    let restored = bench.sql("SELECT restored FROM state");
    other.sql(&format!("UPDATE state SET restored = {}, restored_mac = '\\x{good}'", restored.trim()));
    let late = other.runtime.block_on(other.database.store()).unwrap();
    for store in [&late, &other.store] {
        let error = other.runtime.block_on(store.mark()).unwrap_err();
        let said = lost(&error).unwrap().to_string();
        assert!(said.contains("no authority with its `store.key` has written that"), "{said}");
    }
}

/// A role may say so of all its sessions to come: whoever has its password stops authorities, and cannot have them err.
#[test]
fn what_a_role_has_set_for_itself_decides_nothing_or_is_told() {
    let bench = Bench::new();
    let (name, runtime) = (&bench.database.name, &bench.runtime);
    let during = |set: &str, then: &dyn Fn(Pool)| {
        bench.database.psql(SERVER, &format!("ALTER ROLE server IN DATABASE {name} SET {set}")).unwrap();
        then(bench.database.pool(SERVER));
        bench.sql(&format!("ALTER ROLE server IN DATABASE {name} RESET ALL"));
    };
    let harmless = [
        "search_path = public, pg_catalog",
        "lock_timeout = '1ms'",
        "idle_in_transaction_session_timeout = '1ms'",
        "row_security = off",
        "synchronous_commit = off",
        "default_transaction_isolation = serializable",
        "default_transaction_deferrable = on",
        "bytea_output = escape",
        "standard_conforming_strings = off",
        "client_encoding = LATIN1",
        "datestyle = 'German'",
        "transform_null_equals = on",
        "array_nulls = off",
        "quote_all_identifiers = on",
        "client_min_messages = debug5",
        "enable_indexscan = off",
        "work_mem = '64kB'",
    ];
    for (nth, set) in (10..).zip(harmless) {
        during(set, &|pool| {
            let store = runtime.block_on(Postgres::open(pool, &bench.database.key())).expect(set);
            let entry = issuance(nth);
            assert_eq!(runtime.block_on(store.issue(entry.entry, entry.plan)).expect(set), FRESH);
            assert_eq!(runtime.block_on(store.revoke(revocation(nth, "a"))).expect(set), Revoked::Now);
            runtime.block_on(store.ready()).expect(set);
        });
    }
    let pool = bench.database.pool(SERVER);
    for (set, why) in [
        ("default_transaction_read_only = on", "it takes no writes: it is a standby, or is set to read only"),
        ("local_preload_libraries = 'none'", "could not access file"),
    ] {
        during(set, &|pool| {
            let told = runtime.block_on(pool.get()).unwrap_err();
            assert!(told.to_string().contains(why), "{told}");
            let hint = told
                .hints()
                .last()
                .is_some_and(|hint| hint.contains("ALTER ROLE \"server\" RESET ALL; ALTER"));
            assert!(hint, "{set}: {told:?}");
        });
    }
    drop(runtime.block_on(pool.get()).unwrap());
}

/// CAs are as an authority left them: whoever has the password can keep all from reading them, and makes none trusted.
#[test]
fn no_ca_is_trusted_or_dropped_with_a_servers_password() {
    let bench = Bench::new();
    let key = |name: &str, state| CaKey {
        number: 0,
        kind: CaKind::SshUser,
        name: name.into(),
        id: name.into(),
        is_first: name == "ssh-user",
        state,
        public: name.into(),
        endorsements: Vec::new(),
        cross: Vec::new(),
        sealed: Some(vec![1]),
        since: NOW,
    };
    let change = |phase, expected, keys| CaChange {
        kind: CaKind::SshUser,
        phase,
        expected,
        keys,
        none_live: None,
        at: NOW,
        by: "anna".into(),
    };
    let done = |change| match bench.runtime.block_on(bench.store.change_cas(change)).unwrap() {
        CaChanged::Done(set) => set,
        other => panic!("{other:?}"),
    };
    let begun = done(change(
        "start",
        0,
        vec![key("ssh-user", CaState::Current), key("ssh-user-00000001", CaState::Next)],
    ));
    bench.sql("CREATE TABLE kept AS SELECT * FROM ca_keys; GRANT SELECT ON kept TO server");
    let to = |states: [CaState; 2]| {
        begun.keys.iter().cloned().zip(states).map(|(key, state)| CaKey { state, ..key }).collect()
    };
    let set = done(change("rollback", begun.number, to([CaState::Current, CaState::Revoked])));
    assert_eq!(bench.sql("SELECT oldest FROM state"), "2", "servers of before rotations have ended");
    let columns = "name, id, is_first, state, public, endorsements, crossed, sealed, since, mac";
    for sql in [
        // The one that was rolled back, as it was when it was trusted.
        "UPDATE ca_keys SET state = kept.state, sealed = kept.sealed, mac = kept.mac FROM kept WHERE kept.number = ca_keys.number",
        "UPDATE ca_keys SET public = 'evil' WHERE number = 1",
        "DELETE FROM ca_keys WHERE number = 2",
        "TRUNCATE ca_keys",
        "UPDATE state SET cas = 0",
        "UPDATE state SET cas = cas - 1",
        "UPDATE state SET cas = 9223372036854775807",
        "UPDATE state SET oldest = 1",
        "UPDATE state SET oldest = 3",
        "INSERT INTO ca_keys SELECT 9223372036854775807, kind, name || 'x', id, 0, state, public, endorsements, crossed, sealed,
            since, mac FROM ca_keys WHERE number = 2",
    ] {
        let why = bench.database.psql(SERVER, sql).expect_err(sql);
        assert!(why.contains("machine-id: ") || why.contains("permission denied"), "{sql}: {why}");
    }
    assert_eq!(bench.runtime.block_on(bench.store.cas()).unwrap(), set);
    for sql in [
        &format!(
            "INSERT INTO ca_keys (number, kind, {columns}) SELECT 3, kind, 'evil', id, 0, 'next', public, endorsements, crossed, sealed, since, mac FROM kept WHERE number = 2"
        ),
        "UPDATE ca_keys SET state = 'ended' WHERE number = 1",
        "UPDATE state SET cas_mac = NULL, cas = cas + 1",
    ] {
        bench.database.psql(SERVER, sql).unwrap_or_else(|why| panic!("{sql}: {why}"));
        let error = bench.runtime.block_on(bench.store.cas()).unwrap_err();
        assert!(
            error.kind() == Kind::Usage && error.to_string().contains("not as an authority left them"),
            "{error}"
        );
    }
    assert!(bench.store.tampered().is_some());
}
