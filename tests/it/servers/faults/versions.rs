//! Two neighbouring versions of machine-id over one store: this one, and the next as it may be.

use std::path::Path;
use std::process::Stdio;

use crate::support::authority::Authority;
use crate::support::client::Keys;
use crate::support::cluster::{Cluster, Role};
use crate::support::issuer::Issuer;
use crate::support::neighbour::next_version;
use crate::support::process::{self, MACHINE_ID, Running};
use crate::support::replicas::Replicas;
use crate::support::wait_for;

const REPLICAS: usize = 3;
const JOBS: usize = 24;

fn this_version() -> &'static Path {
    Path::new(MACHINE_ID)
}

/// `authority upgrade`, without the names of any roles.
fn upgrade(operator: &Authority) -> Running {
    Running::start(operator.command(["upgrade"]).stdout(Stdio::piped()).stderr(Stdio::piped()))
}

/// Waits until both have ended well; what they say.
fn both(upgrades: [Running; 2]) -> [String; 2] {
    upgrades.map(|mut one| {
        let status = one.wait();
        assert!(status.success(), "{}", one.stderr());
        one.stdout()
    })
}

#[test]
fn replicas_of_two_versions_share_a_store_and_go_back() {
    let issuer = Issuer::start();
    let cluster = Cluster::start();
    let mut replicas = Replicas::sharing(&issuer, &cluster, REPLICAS);
    let load = replicas.load(&issuer);
    // Where an operator upgrades; it serves no more.
    let mut operator = replicas.one(0).replica();
    assert!(operator.terminate().success());
    operator.set_store(&cluster.url(Role::Owner));
    operator.set_program(next_version());
    let waits_at = |event: &str| {
        let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE wait_event = '{event}'");
        wait_for(event, || (cluster.sql(&sql).trim() == "1").then_some(()));
    };
    let counted = || -> usize {
        cluster.sql("SELECT coalesce(sum(seen), 0) FROM machine_id.next").trim().parse().unwrap()
    };
    load.during(JOBS, || {
        load.goes_on(50);
        // Somebody reads a table meanwhile for long: one upgrade waits for that, the other for the first, and no job.
        let dump = "BEGIN; LOCK TABLE machine_id.events IN ACCESS SHARE MODE; SELECT pg_sleep(60)";
        let _dump =
            Running::start(cluster.psql(Role::Server, dump).stdout(Stdio::piped()).stderr(Stdio::piped()));
        waits_at("PgSleep");
        let upgrades = [upgrade(&operator), upgrade(&operator)];
        waits_at("advisory");
        load.goes_on(100);
        cluster.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
        let mut said = both(upgrades);
        said.sort();
        assert!(said[0].contains("from version 2 to version 3"), "{said:?}");
        assert!(said[1].contains("up to date, of version 3"), "{said:?}");
        for one in &said {
            assert!(one.contains("`machine_id_server` may serve\n"), "{one}");
            assert!(one.contains("`machine_id_reader` may read"), "{one}");
        }
        // This version goes on, and writes to what is new.
        let before = counted();
        load.goes_on(50);
        assert!(counted() >= before + 50);
        for number in 0..REPLICAS {
            replicas.replace(number, next_version());
            load.goes_on(50);
        }
        load.steal_what_was_used();
        // And back, one after the other.
        for number in 0..REPLICAS {
            replicas.replace(number, this_version());
            load.goes_on(50);
        }
        load.steal_what_was_used();
    });
    load.holds(|| replicas.audit());
    let by_next = "SELECT count(*) FROM machine_id.next WHERE length(name) = 32";
    assert_eq!(cluster.sql(by_next).trim(), REPLICAS.to_string(), "each was of the next version once");
    assert_eq!(cluster.sql("SELECT DISTINCT next FROM machine_id.certificates").trim(), "as before");

    // This version changes nothing of what it does not know, and gives nobody other rights.
    operator.set_program(this_version());
    let refused = process::run(&mut operator.command(["upgrade", "--server-role", Role::Server.name()]));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2));
    assert!(said.contains("its schema is version 3, this machine-id knows up to 2"), "{said}");

    // A version later takes away what this one needs: it ends at once, and says what to do.
    cluster.sql("UPDATE machine_id.versions SET oldest = 3; UPDATE machine_id.state SET oldest = 3");
    let one = replicas.one(0);
    wait_for("503", || (one.client().get("/readyz").status == 503).then_some(()));
    one.wait_for_stderr("it takes a newer one");
    let said = one.refuses_to_start();
    assert!(
        said.contains("no way back to this one") && said.contains("use the machine-id that wrote it"),
        "{said}"
    );
    replicas.replace(1, next_version());
    assert_eq!(replicas.one(1).client().get("/readyz").status, 200);
}

#[test]
fn an_authority_of_its_own_is_upgraded_and_goes_back() {
    let issuer = Issuer::start();
    let mut replicas = Replicas::alone(&issuer, &std::env::temp_dir());
    let load = replicas.load(&issuer);
    let next = next_version();
    let before = load.during(JOBS, || {
        load.goes_on(50);
        replicas.replace(0, next);
        let before = load.granted();
        for program in [this_version(), next, this_version()] {
            load.goes_on(50);
            replicas.replace(0, program);
        }
        load.goes_on(50);
        // A command of the next version beside a server of this one.
        let one = replicas.one(0);
        one.set_program(next);
        let key = one.data_dir().join("host.pub");
        std::fs::write(&key, Keys::fresh().ssh).unwrap();
        process::succeed(one.command(["sign-host", "--principal", "web.test"]).arg(key));
        one.set_program(this_version());
        load.goes_on(20);
        load.steal_what_was_used();
        before
    });
    load.holds(|| replicas.audit());
    let one = replicas.one(0);
    let database = one.data_dir().join("authority.db");
    let sql = |sql: &str| {
        process::succeed(process::command("sqlite3").arg("-cmd").arg(".timeout 5000").arg(&database).arg(sql))
    };
    assert_eq!(sql("PRAGMA user_version").trim(), "7");
    assert_eq!(sql("SELECT count(*) FROM next WHERE length(name) = 32").trim(), "2");
    assert_eq!(sql("SELECT DISTINCT next FROM certificates").trim(), "as before");
    let counted: usize = sql("SELECT seen FROM next WHERE name = 'issued'").trim().parse().unwrap();
    assert!(counted + before >= load.granted(), "this version's count too: {counted}");

    // A version later takes away what this one needs, while it is open here.
    sql("PRAGMA user_version = 8; UPDATE state SET oldest = 7");
    let why = "take one that knows version 7 of them";
    let ready = one.client().get("/readyz").problem(503);
    assert!(ready["detail"].as_str().unwrap().contains("a newer machine-id has changed"), "{ready}");
    assert!(ready["detail"].as_str().unwrap().contains(why), "{ready}");
    let said = one.refuses_to_start();
    assert!(said.contains("its schema is version 8, this machine-id knows up to 6"), "{said}");
    assert!(
        said.contains("no way back to this one") && said.contains("use the machine-id that wrote it"),
        "{said}"
    );
    let audit = String::from_utf8(one.run(["audit"]).stderr).unwrap();
    assert!(audit.contains("use the machine-id that wrote it"), "{audit}");
    one.set_program(next);
    one.restart();
    assert_eq!(one.client().get("/readyz").status, 200);
}
