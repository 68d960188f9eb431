//! From a file into PostgreSQL, and out of it again, with the real binary and jobs that go on meanwhile.

use std::process::Command;

use tempfile::TempDir;

use crate::support::cluster::{Cluster, Role};
use crate::support::issuer::Issuer;
use crate::support::process::{machine_id, run, succeed};
use crate::support::replicas::Replicas;
use crate::support::wait_for;

/// A store's URL as it stands on a command line, and the password beside it.
fn as_role(command: &mut Command, cluster: &Cluster, role: Role, options: &[&str]) {
    let url = cluster.url(role).replace(&format!(":{}@", role.password()), "@");
    for option in options {
        command.args([*option, &url]);
    }
    command.env("PGPASSWORD", role.password());
}

/// What a command says that has nothing to do but refuse.
#[track_caller]
fn refused(command: &mut Command) -> String {
    let output = run(command);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn records_move_into_postgresql_and_out_of_it_under_load() {
    let (issuer, cluster) = (Issuer::start(), Cluster::start());
    let mut replicas = Replicas::alone(&issuer, &std::env::temp_dir());
    let load = replicas.load(&issuer);
    let first = replicas.one(0);
    let config = first.data_dir().join("authority.yaml");
    std::fs::write(&config, std::fs::read_to_string(&config).unwrap() + "retain: 30d\n").unwrap();
    load.during(16, || {
        load.goes_on(30);
        let into = |role| {
            let mut command = first.command(["migrate", "--from", "sqlite:authority.db"]);
            as_role(&mut command, &cluster, role, &["--to"]);
            command
        };
        let told = refused(&mut into(Role::Owner));
        assert!(told.contains("the database holds no store") && told.contains("authority upgrade"), "{told}");
        let roles = [Role::Server, Role::Reader].map(Role::name);
        let mut upgrade = first.command(["upgrade", "--server-role", roles[0], "--reader-role", roles[1]]);
        as_role(&mut upgrade, &cluster, Role::Owner, &["--store"]);
        succeed(&mut upgrade);
        // It knows nothing of what was used: where `migrate` failed, nobody goes on with it.
        first.set_store(&cluster.url(Role::Server));
        let serve = ["serve", "--listen", "192.0.2.1:1"];
        for told in [refused(&mut first.command(serve)), refused(&mut first.command(["resume"]))] {
            assert!(told.contains("nothing was ever recorded in the store"), "{told}");
            for word in
                ["authority.db.mark is the mark of another", "`machine-id authority migrate`", "remove /"]
            {
                assert!(told.contains(word), "{told}");
            }
        }
        first.set_store("sqlite:authority.db");
        // No server can fill a store, nor a role that may only read.
        let told = refused(&mut into(Role::Server));
        assert!(told.contains("this connection is `machine_id_server`'s"), "{told}");
        load.goes_on(10);
        let told = succeed(&mut into(Role::Owner));
        assert!(told.contains("write `store: postgres://ROLE@127.0.0.1:"), "{told}");
        load.fails_with("urn:machine-id:store-moved");
        let told = run(&mut first.command(["audit", "--event", "registered"]));
        let told = String::from_utf8(told.stderr).unwrap();
        assert!(told.contains("warning: the store has moved to postgres://127.0.0.1:"), "{told}");
    });
    first.set_store(&cluster.url(Role::Server));
    first.terminate();
    first.restart();
    assert!(first.stderr().contains("`retain` does nothing by itself"), "{}", first.stderr());
    let mut second = first.replica();
    load.during(16, || {
        load.goes_on(30);
        prune(first, &cluster);
        let out_of = |role| {
            let mut command = first.command(["migrate", "--to", "sqlite:back.db"]);
            as_role(&mut command, &cluster, role, &["--from"]);
            command
        };
        let told = refused(&mut out_of(Role::Server));
        assert!(told.contains("this connection is `machine_id_server`'s"), "{told}");
        load.goes_on(10);
        let told = succeed(&mut out_of(Role::Owner));
        assert!(told.contains("write `store: sqlite:back.db`"), "{told}");
        load.fails_with("urn:machine-id:store-moved");
        // Not this replica alone.
        wait_for("the other replica", || {
            let ready = second.client().get("/readyz");
            (ready.status == 503 && ready.text().contains("store-moved")).then_some(())
        });
        assert_eq!(second.client().get("/v1/revoked/tls.crl").status, 503);
    });
    second.kill();
    first.set_store("sqlite:back.db");
    first.terminate();
    first.restart();
    load.during(16, || {
        load.goes_on(30);
        load.steal_what_was_used();
    });
    load.holds(|| first.audit());
}

/// What `retain` says, by the owner alone.
fn prune(authority: &crate::support::authority::Authority, cluster: &Cluster) {
    let checked = succeed(&mut authority.command(["check"]));
    assert!(checked.contains("warning: `retain` does nothing by itself"), "{checked}");
    let told = refused(&mut authority.command(["prune"]));
    assert!(told.contains("this connection is `machine_id_server`'s"), "{told}");
    // As if what was signed first was long ago, and over. What replicas have heard of last stays as it is.
    let signed = "SELECT sequence FROM events WHERE event = 'signed' AND sequence < 20";
    cluster.sql(&format!(
        "SET search_path = machine_id; ALTER TABLE events DISABLE TRIGGER ALL; ALTER TABLE certificates DISABLE TRIGGER ALL;
         UPDATE certificates SET expires = expires - 900000000 WHERE issuance IN ({signed});
         UPDATE events SET time = time - 9000000 WHERE sequence IN ({signed});
         ALTER TABLE events ENABLE TRIGGER ALL; ALTER TABLE certificates ENABLE TRIGGER ALL;"
    ));
    // Where the owner's password is, there are no keys.
    let folder = TempDir::new().unwrap();
    let text = format!(
        "version: v1\ncluster: id.test\npublic_url: https://id.test\nretain: 30d\nstore: '{}'\n",
        cluster.url(Role::Owner)
    );
    std::fs::write(folder.path().join("authority.yaml"), text).unwrap();
    let told = succeed(machine_id(["authority", "prune", "--data-dir"]).arg(folder.path()));
    assert!(told.contains("let go 1 event from before "), "{told}");
    assert!(!folder.path().join("store.key").exists());
    let mut pruned = authority.command(["prune"]);
    as_role(&mut pruned, cluster, Role::Owner, &["--store"]);
    assert!(succeed(&mut pruned).contains("let go 0 events"));
    let audit = run(&mut authority.command(["audit"]));
    assert!(String::from_utf8(audit.stderr).unwrap().contains("is not kept any more"));
    let trail = authority.audit();
    assert!(trail.iter().any(|event| event["event"] == "pruned"));
    assert_ne!(trail[0]["event"], "signed");
}
