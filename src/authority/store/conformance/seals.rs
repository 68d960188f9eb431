//! Whoever can write to the database and to nothing else is no authority: what
//! is made up, changed or brought from another row buys nothing, and is told.

use super::fixtures::*;
use super::*;
use crate::authority::store::instances::InstanceRefusal;

/// A column of a sealed row, and what the database's administrator makes of it.
type Change = (&'static str, &'static str);

/// Every column that an instance's seal covers but the key that it is found by, and every kind of change.
const OF_INSTANCES: &[Change] = &[
    ("token", "'other'"),
    ("bot", "'root'"),
    ("key", "mac"),
    ("generation", "generation + 1"),
    ("generation", "generation - 1"),
    ("base", "base + 1"),
    ("attempt", "'a'"),
    ("tries", "tries + 1"),
    ("last", "'r'"),
    ("replaces", "'w-admin'"),
    ("registered", "registered + 1"),
    ("seen", "seen - 1"),
    ("locked", "1"),
    ("reason", "'x'"),
    ("mac", "NULL"),
    ("mac", "key"),
    ("mac", "(SELECT mac FROM instances WHERE id = 'w-honest')"),
];

const OF_SECRETS: &[Change] = &[
    ("id", "'k-x'"),
    ("token", "'other'"),
    ("expires", "expires + 1000000"),
    ("made", "made - 1"),
    ("held_to_run", "held_to_run + 1"),
    ("instance", "'w-x'"),
    ("mac", "NULL"),
    ("mac", "hash"),
    ("mac", "(SELECT mac FROM secrets AS other WHERE id = 'k-255')"),
];

const OF_PROOFS: &[Change] = &[
    ("fingerprint", "(SELECT fingerprint FROM proofs AS other WHERE certificate = 402)"),
    ("held_until", "held_until + 1"),
    ("held_to_run", "held_to_run + 1"),
    ("generation", "1"),
    ("mac", "NULL"),
    ("mac", "key"),
    ("mac", "(SELECT mac FROM proofs AS other WHERE certificate = 402)"),
    ("certificate", "402"),
];

fn hash(n: usize) -> [u8; 32] {
    [u8::try_from(n).unwrap(); 32]
}

fn refused(refusal: InstanceRefusal) -> Issued {
    Issued::Refused(refusal)
}

fn meddle(bench: &Bench, sql: &str) {
    bench.meddle(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// That the operator is told of so many rows.
fn is_told(bench: &Bench, rows: usize) {
    let told = bench.store.tampered().unwrap_or_default();
    assert!(told.contains(&format!("({rows} seen, ")), "{rows}: {told}");
}

fn register(bench: &Bench, n: u64, instance: &str) {
    let hash = hash(usize::try_from(n).unwrap());
    bench.wait(bench.store.add_secret(secret(hash, "github-deploy")));
    assert_eq!(bench.issue(registration(n, instance, hash)), joined(1));
}

/// What is asked by a worker whose storage is as its row says, after that was changed.
fn next(n: u64, instance: &str, column: &str) -> Entry {
    join(n, instance, 1).with(|entry| match column {
        "token" => entry.entry.token = "other".into(),
        "bot" => entry.entry.bot = "root".into(),
        _ => {}
    })
}

fn a_changed_instance_is_none(bench: &Bench) {
    assert_eq!(bench.store.tampered(), None);
    register(bench, 254, "w-honest");
    for (n, (column, value)) in OF_INSTANCES.iter().enumerate() {
        let (number, id) = (u64::try_from(n).unwrap(), format!("w-{n}"));
        register(bench, number, &id);
        meddle(bench, &format!("UPDATE instances SET {column} = {value} WHERE id = '{id}'"));
        assert_eq!(bench.wait(bench.store.instance(&id)), None, "{column} = {value}");
        for generation in 0..=2 {
            let again = next(1000 + number * 3 + generation, &id, column).with(|entry| {
                entry.entry.join.as_mut().unwrap().claims.generation = i64::try_from(generation).unwrap();
            });
            assert_eq!(bench.issue(again), refused(InstanceRefusal::Unknown), "{column} = {value}");
        }
        // Nor is it registered over by whoever has a secret: a row that nobody answers for is not sealed.
        let fresh = hash(100 + n);
        bench.wait(bench.store.add_secret(secret(fresh, "github-deploy")));
        let over = registration(2000 + number, &id, fresh);
        assert_eq!(bench.issue(over), refused(InstanceRefusal::Unknown), "{column} = {value}");
        assert!(bench.wait(bench.store.admits(&fresh, "github-deploy", NOW)), "the secret was not used up");
        is_told(bench, n + 1);
    }
    assert_eq!(bench.issue(join(5000, "w-honest", 1)), joined(2));
}

fn a_changed_secret_is_none(bench: &Bench) {
    bench.wait(bench.store.add_secret(secret(hash(255), "github-deploy")));
    for (n, (column, value)) in OF_SECRETS.iter().enumerate() {
        let hash = hash(n);
        bench.wait(bench.store.add_secret(secret(hash, "github-deploy")));
        meddle(bench, &format!("UPDATE secrets SET {column} = {value} WHERE id = 'k-{n}'"));
        for token in ["github-deploy", "other"] {
            assert!(!bench.wait(bench.store.admits(&hash, token, NOW)), "{column} = {value}");
            let with = registration(u64::try_from(n).unwrap(), &format!("w-{n}"), hash)
                .with(|entry| entry.entry.token = token.into());
            assert_eq!(bench.issue(with), refused(InstanceRefusal::Secret), "{column} = {value}");
        }
        is_told(bench, n + 1);
    }
    assert_eq!(bench.issue(registration(254, "w-honest", hash(255))), joined(1));
    assert_eq!(bench.number("SELECT count(*) FROM instances"), 1);
}

fn a_used_secret_is_not_made_good_again(bench: &Bench) {
    register(bench, 1, "w-a");
    meddle(bench, "UPDATE secrets SET instance = NULL");
    assert!(!bench.wait(bench.store.admits(&hash(1), "github-deploy", NOW)));
    assert_eq!(bench.issue(registration(2, "w-b", hash(1))), refused(InstanceRefusal::Secret));
    is_told(bench, 1);
}

fn a_locked_instance_is_not_let_in_by_its_row(bench: &Bench) {
    register(bench, 1, "w-a");
    assert_eq!(bench.issue(join(2, "w-a", 7)), refused(InstanceRefusal::Ahead { expected: 1 }));
    meddle(bench, "UPDATE instances SET locked = NULL, reason = NULL");
    assert_eq!(bench.issue(join(3, "w-a", 1)), refused(InstanceRefusal::Unknown));
    is_told(bench, 1);
}

/// Rows that an attacker makes up, with keys and secrets of theirs; with no seal, or with that of another row.
fn what_is_made_up_lets_nobody_in(bench: &Bench) {
    register(bench, 1, "w-honest");
    let instance = |id: &str, mac: &str| {
        let columns = "token, bot, key, generation, base, attempt, tries, last, replaces, registered, seen, locked, reason";
        format!(
            "INSERT INTO instances (number, id, {columns}, mac)
             SELECT (SELECT max(number) + 1 FROM instances), '{id}', {columns}, {mac} FROM instances WHERE id = 'w-honest'"
        )
    };
    for (n, mac) in ["NULL", "mac", "key"].into_iter().enumerate() {
        let id = format!("w-evil-{n}");
        meddle(bench, &instance(&id, mac));
        assert_eq!(bench.wait(bench.store.instance(&id)), None);
        // With the key that the row has.
        let with = join(10 + u64::try_from(n).unwrap(), &id, 1)
            .with(|entry| entry.entry.join.as_mut().unwrap().key = b"w-honest".to_vec());
        assert_eq!(bench.issue(with), refused(InstanceRefusal::Unknown), "{mac}");
    }
    // The hash of a secret that they know, which here is another row's seal; once a seal that is of some row.
    for (n, (value, mac)) in
        [("key_hash", "NULL"), ("key_hash", "(SELECT mac FROM secrets WHERE id = 'k-1')")]
            .into_iter()
            .enumerate()
    {
        let serial = 2 + n;
        meddle(
            bench,
            &format!(
                "INSERT INTO secrets (hash, id, token, expires, made, held_to_run, mac)
                 SELECT {value}, 'k-evil', 'github-deploy', {}, {NOW}, 0, {mac} FROM certificates WHERE serial = {serial}",
                NOW + 3600
            ),
        );
        let known = hash(serial);
        assert!(!bench.wait(bench.store.admits(&known, "github-deploy", NOW)));
        let with = registration(20 + u64::try_from(n).unwrap(), "w-new", known);
        assert_eq!(bench.issue(with), refused(InstanceRefusal::Secret), "{mac}");
    }
    is_told(bench, 5);
    assert_eq!(bench.issue(join(30, "w-honest", 1)), joined(2));
}

/// A used proof stays used, whatever becomes of its row, and what it was used for is not signed again.
fn a_changed_proof_is_used_for_good(bench: &Bench) {
    assert_eq!(bench.issue(issuance(201).with(|entry| entry.plan.fingerprint = [9; 32])), FRESH);
    for (n, (column, value)) in OF_PROOFS.iter().enumerate() {
        let n = u64::try_from(n).unwrap() + 1;
        assert_eq!(bench.issue(issuance(n)), FRESH);
        assert_eq!(bench.issue(issuance(n)), retry(n));
        meddle(bench, &format!("UPDATE proofs SET {column} = {value} WHERE certificate = {}", 2 * n));
        // By whoever has that proof, for what he likes.
        for fingerprint in [[7; 32], [9; 32]] {
            let again = issuance(n).with(|entry| entry.plan.fingerprint = fingerprint);
            assert_eq!(bench.issue(again), Issued::Used, "{column} = {value}");
        }
        is_told(bench, usize::try_from(n).unwrap());
    }
    assert_eq!(bench.names(EventFilter::default()).len(), OF_PROOFS.len() + 1);
}

/// What a repeated exchange takes from other rows is under the proof's seal as well.
fn a_changed_record_is_not_signed_again(bench: &Bench) {
    let changes = [
        ("certificates", "serial = 1000", "serial = 3"),
        ("certificates", "expires = expires + 1000000000", "serial = 4"),
        ("certificates", "kind = 1 - kind", "serial = 6"),
        (
            "certificates",
            "key_hash = (SELECT key_hash FROM certificates AS other WHERE serial = 2)",
            "serial = 8",
        ),
        ("certificates", "issuance = 1", "serial = 11"),
        ("events", "time = time - 1000", "sequence = 6"),
        ("events", "id = 'i1'", "sequence = 7"),
    ];
    // The last one is what the store is known by.
    for n in 1..=8 {
        assert_eq!(bench.issue(issuance(n)), FRESH);
    }
    bench.disarm();
    for (n, (table, change, row)) in (1..).zip(changes) {
        meddle(bench, &format!("UPDATE {table} SET {change} WHERE {row}"));
        assert_eq!(bench.issue(issuance(n)), Issued::Used, "{change}");
        is_told(bench, usize::try_from(n).unwrap());
    }
}

/// What is not covered, as the threat model says it: a row that is put back whole, or taken away.
fn a_row_that_is_put_back_whole_counts(bench: &Bench) {
    register(bench, 1, "w-a");
    meddle(bench, "CREATE TABLE kept AS SELECT * FROM instances");
    assert_eq!(bench.issue(join(2, "w-a", 1)), joined(2));
    meddle(
        bench,
        "UPDATE instances SET generation = kept.generation, base = kept.base, attempt = kept.attempt,
            tries = kept.tries, last = kept.last, seen = kept.seen, bot = kept.bot, mac = kept.mac
         FROM kept WHERE kept.id = instances.id",
    );
    // A storage of that time is let in again, and the worker itself then found to be two.
    assert_eq!(bench.issue(join(3, "w-a", 1)), joined(2));
    assert_eq!(bench.store.tampered(), None);
}

promises! {
    a_changed_instance_is_none,
    a_changed_secret_is_none,
    a_used_secret_is_not_made_good_again,
    a_locked_instance_is_not_let_in_by_its_row,
    what_is_made_up_lets_nobody_in,
    a_changed_proof_is_used_for_good,
    a_changed_record_is_not_signed_again,
    a_row_that_is_put_back_whole_counts,
}
