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

/// One from before rotations: its servers go on beside it until the first of them, which is a server's doing.
#[test]
fn a_store_of_before_rotations_is_brought_up_to_date() {
    let bench = Bench::new();
    let name = bench.database.server.database();
    let old = format!(
        "CREATE SCHEMA machine_id;
         CREATE TABLE machine_id.versions (version bigint PRIMARY KEY, oldest bigint NOT NULL, since timestamptz NOT NULL DEFAULT now());
         {} INSERT INTO machine_id.versions (version, oldest) VALUES (1, 1);
         INSERT INTO machine_id.certificates (serial, issuance, kind, expires, key_hash)
            VALUES (1, 1, 0, 1, decode(repeat('07', 32), 'hex'))",
        schema::MIGRATIONS[0].sql
    );
    let sql = |sql: &str| bench.database.server.sql(&name, sql);
    sql(&old);
    let (env, owner) = (crate::environment::Environment::default(), crate::folder::trust::Owner::me());
    let url = bench.database.server.url(&name);
    let settings = settings::Settings::parse(&url, &env, std::path::Path::new("/"), owner).unwrap();
    let roles = roles(Some(SERVER), Some(READER));
    let done = bench.runtime.block_on(upgrade(&Pool::new(settings), &roles)).unwrap();
    assert_eq!((done.from, done.to), (1, schema::newest()));
    let said = sql(
        "SELECT oldest, cas, cas_mac IS NULL, (SELECT count(*) FROM machine_id.certificates WHERE ca IS NULL)
        FROM machine_id.state",
    );
    assert_eq!(said.trim(), "1|0|t|1");
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

/// What a role has by another way than ours is no less than what it was given.
#[test]
fn a_role_that_could_do_more_is_given_nothing() {
    let bench = Bench::new();
    let refused = |role: &str, why: &str| {
        let error = bench.upgrade(ADMIN, &roles(None, Some(role))).unwrap_err();
        assert!(error.kind() == Kind::Usage && error.to_string().contains(why), "{role}: {error}");
        assert!(!error.hints().is_empty());
    };
    for (nth, more) in
        ["CREATEROLE", "BYPASSRLS", "REPLICATION", "SUPERUSER", "IN ROLE server", "IN ROLE pg_monitor"]
            .iter()
            .enumerate()
    {
        let role = format!("{}_more_{nth}", bench.database.name);
        bench.sql(&format!("CREATE ROLE {role} LOGIN {more}"));
        refused(&role, "is a superuser, the owner, a member of another role");
    }
    // Whom the owner lets grant is another grantor.
    let [between, role] = ["between", "reads"].map(|name| format!("{}_{name}", bench.database.name));
    bench.sql(&format!(
        "CREATE ROLE {between} LOGIN; CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA machine_id TO {between}"
    ));
    for (grant, why) in [
        ("SELECT ON secrets", "can SELECT on `machine_id.secrets`"),
        ("SELECT (key) ON proofs", "can SELECT on `machine_id.proofs`"),
        ("UPDATE (lost) ON state", "can UPDATE on `machine_id.state`"),
    ] {
        bench.sql(&format!("GRANT {grant} TO {between} WITH GRANT OPTION"));
        bench.database.psql(&between, &format!("GRANT {grant} TO {role}")).unwrap();
        refused(&role, why);
        bench.sql(&format!("REVOKE {grant} FROM {between} CASCADE"));
    }
    bench.upgrade(ADMIN, &roles(None, Some(&role))).unwrap();
}

#[test]
fn an_upgrade_says_who_holds_its_lock() {
    let bench = Bench::new();
    bench.runtime.block_on(async {
        let reader = bench.database.pool(READER).get().await.unwrap();
        reader.batch_execute("SELECT pg_advisory_lock(7881693321889736553)").await.unwrap();
        let error = upgrade(&bench.database.pool(ADMIN), &Roles::default()).await.unwrap_err();
        assert!(error.kind() == Kind::Usage && error.to_string().contains("of the role `reader`"), "{error}");
        assert!(error.hints()[0].contains("pg_terminate_backend"));
    });
    bench.upgrade(ADMIN, &Roles::default()).unwrap();
}
