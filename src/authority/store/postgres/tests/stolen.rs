//! What a password of the database is worth to whoever has stolen it.

use super::*;

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
