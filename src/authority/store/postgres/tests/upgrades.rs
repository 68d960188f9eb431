//! Whom an upgrade gives rights, and whom it keeps waiting.

use super::*;

/// Roles that were named once need not be named again; whom somebody else lets read is nobody of ours.
#[test]
fn an_upgrade_knows_the_roles_that_were_named_before() {
    let bench = Bench::new();
    let known = || bench.upgrade(ADMIN, &Roles::default()).unwrap().roles;
    bench.database.server.sql("postgres", "CREATE ROLE plain LOGIN");
    let may = |role, sql| bench.database.psql(role, sql).is_ok();
    bench.sql(
        "GRANT USAGE ON SCHEMA machine_id TO plain; GRANT SELECT ON ALL TABLES IN SCHEMA machine_id TO plain",
    );
    let probe = "INSERT INTO probes VALUES (1, '') ON CONFLICT (id) DO UPDATE SET body = ''";
    bench.sql("REVOKE ALL ON probes FROM server; REVOKE ALL ON strangers FROM reader; GRANT SELECT ON secrets TO reader");
    assert!(
        !may(SERVER, probe) && !may(READER, "SELECT FROM strangers") && may(READER, "SELECT FROM secrets")
    );
    assert_eq!(known(), roles(Some(SERVER), Some(READER)));
    assert!(
        may(SERVER, probe) && may(READER, "SELECT FROM strangers") && !may(READER, "SELECT FROM secrets")
    );
    assert!(may("plain", "SELECT FROM secrets"), "whom somebody else lets read, it is left to");
    // One that is named beside, and one that becomes the other.
    let named = bench.upgrade(ADMIN, &roles(Some("plain"), None)).unwrap().roles;
    assert_eq!(named.server, ["plain", SERVER]);
    assert!(may("plain", probe) && may(SERVER, probe));
    assert_eq!(bench.upgrade(ADMIN, &roles(None, Some("plain"))).unwrap().roles.reader, ["plain", READER]);
    assert_eq!(known(), Roles { server: vec![SERVER.into()], reader: vec!["plain".into(), READER.into()] });
    assert!(!may("plain", probe));
    // From whom everything was taken, nothing is given back.
    bench.sql(
        "REVOKE ALL ON ALL TABLES IN SCHEMA machine_id FROM server; REVOKE ALL (run) ON state FROM server",
    );
    assert_eq!(known().server, [""; 0]);
    assert!(!may(SERVER, probe));
}

/// Whoever reads for long holds an upgrade up, and no server.
#[test]
fn an_upgrade_lets_go_of_tables_that_others_hold() {
    let bench = Bench::new();
    let pool = bench.database.pool(ADMIN);
    bench.runtime.block_on(async {
        let (reader, owner) = (pool.get().await.unwrap(), pool.get().await.unwrap());
        reader.batch_execute("BEGIN; LOCK TABLE machine_id.proofs IN ACCESS SHARE MODE").await.unwrap();
        owner.batch_execute("BEGIN").await.unwrap();
        let taken = upgrade::take(&owner);
        tokio::pin!(taken);
        // It is the server's turn again and again, long before its patience ends.
        for n in 0..3 {
            let fixtures::Entry { entry, plan } = issuance(n);
            let issued = tokio::select! {
                _ = &mut taken => panic!("it is held"),
                issued = bench.store.issue(entry, plan) => issued,
            };
            assert_eq!(issued.unwrap(), FRESH);
            assert!(
                tokio::time::timeout(Duration::from_millis(700), &mut taken).await.is_err(),
                "it is held"
            );
        }
        reader.batch_execute("ROLLBACK").await.unwrap();
        taken.await.unwrap();
        owner.batch_execute("ROLLBACK").await.unwrap();
    });
    assert_eq!(bench.sql("SELECT count(*) FROM events"), "3");
}
