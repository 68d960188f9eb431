//! The stage itself: that what the other tests do to PostgreSQL happens, and that what holds of all of them is looked at.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use serde_json::Value;

use crate::support::cluster::{Cluster, Role};
use crate::support::cut::{Cut, Way};
use crate::support::issuer::Issuer;
use crate::support::process::{self, command, installed};
use crate::support::replicas::Replicas;
use crate::support::wait_for;

/// `psql` through there, as the server's role, to run this within two seconds.
fn answers(cluster: &Cluster, through: std::net::SocketAddr, sql: &str) -> bool {
    answers_at(&cluster.plain_url(Role::Server, &[through]), sql)
}

fn answers_at(url: &str, sql: &str) -> bool {
    let url = format!("{url}&connect_timeout=2");
    let mut psql = command("timeout");
    psql.args(["2", "psql", "-XAtq", &url, "-c", sql]);
    process::run(&mut psql).status.success()
}

#[test]
fn a_server_can_be_reached_cut_off_paused_and_killed() {
    assert!(installed("pgbouncer"), "tests/run installs it");
    let cluster = Cluster::start();
    let user = |role| process::succeed(&mut cluster.psql(role, "SELECT current_user, ssl FROM pg_stat_ssl"));
    for role in [Role::Owner, Role::Server, Role::Reader] {
        assert_eq!(user(role).trim(), format!("{}|t", role.name()), "by TLS, with its password");
    }
    let (bouncer, way) = (cluster.bouncer(), Cut::before(cluster.addresses()[0]));
    let through = way.address();
    assert!(answers_at(&cluster.url_through(Role::Server, &[bouncer.address()]), "SELECT 1"));
    assert!(!answers(&cluster, bouncer.address(), "SELECT 1"), "without TLS");
    assert!(answers(&cluster, through, "SELECT 1"));
    for bad in [Way::Stopped, Way::Cut, Way::Slow(Duration::from_secs(3))] {
        way.set(bad);
        assert!(!answers(&cluster, through, "SELECT 1"), "{bad:?}");
    }
    way.set(Way::Open);
    way.lose_commits(1);
    cluster.sql("CREATE TABLE seen (x int); GRANT INSERT ON seen TO PUBLIC");
    let insert = "BEGIN; INSERT INTO seen VALUES (1); COMMIT";
    assert!(!answers(&cluster, through, insert), "its reply is lost");
    assert_eq!((way.commits_to_lose(), cluster.sql("SELECT count(*) FROM seen").trim()), (0, "1"));
    assert!(answers(&cluster, through, insert));
    cluster.pause();
    assert!(!answers(&cluster, cluster.addresses()[0], "SELECT 1"));
    cluster.resume();
    cluster.restart("immediate");
    assert!(answers(&cluster, through, "SELECT 1"));
    cluster.kill();
    assert!(!cluster.is_up());
    cluster.start_again();
    assert_eq!(cluster.sql("SELECT count(*) FROM seen").trim(), "2", "nothing committed is lost");
}

#[test]
fn a_standby_has_every_commit_and_takes_over() {
    let mut cluster = Cluster::with_standby();
    cluster.sql("CREATE TABLE seen AS SELECT 1 AS x");
    let url = cluster.url(Role::Server) + "&target_session_attrs=read-write";
    cluster.fail_over();
    assert_eq!(cluster.sql("SELECT count(*) FROM seen").trim(), "1");
    let mut psql = command("psql");
    psql.args(["-XAtq", &url, "-c", "SELECT pg_is_in_recovery()"]);
    wait_for("the standby to take writes", || {
        let output = process::run(&mut psql);
        (output.stdout == b"f\n").then_some(())
    });
}

#[test]
fn a_small_disk_fills_and_empties() {
    let cluster = Cluster::on_small_disk(128);
    cluster.sql("CREATE TABLE seen (x text)");
    let filler = cluster.fill_disk();
    let insert = "INSERT INTO seen SELECT repeat(md5(x::text), 1000) FROM generate_series(1, 4000) AS x";
    cluster.sql("GRANT INSERT ON seen TO PUBLIC");
    let output = process::run(&mut cluster.psql(Role::Server, insert));
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("No space left") || said.contains("server closed the connection"), "{said}");
    std::fs::remove_file(filler).unwrap();
    if !cluster.is_up() {
        cluster.start_again();
    }
    wait_for("room", || {
        process::run(&mut cluster.psql(Role::Server, "INSERT INTO seen VALUES ('x')"))
            .status
            .success()
            .then_some(())
    });
}

/// A trail that lacks something, or has something twice, is found out.
#[test]
fn what_is_lost_or_used_twice_is_found() {
    let issuer = Issuer::start();
    let authority = Replicas::alone(&issuer, &std::env::temp_dir());
    let load = authority.load(&issuer);
    load.during(4, || load.goes_on(60));
    load.holds(|| authority.audit());
    let whole = authority.audit();
    let is_found = |trail: Vec<Value>| {
        let looked = catch_unwind(AssertUnwindSafe(|| load.holds(|| trail)));
        looked.map_err(|why| why.downcast_ref::<String>().cloned().unwrap_or_default())
    };
    assert_eq!(is_found(whole.clone()), Ok(()));
    let first = |event: &str| whole.iter().position(|one| one["event"] == event).unwrap();
    let without = |event: &str| {
        let mut trail = whole.clone();
        trail.remove(first(event));
        is_found(trail).unwrap_err()
    };
    assert!(without("issued").contains("was acknowledged and is not recorded"));
    assert!(without("refused").contains("refusals acknowledged and not recorded"));
    assert!(without("revoked").contains("revocations acknowledged and not recorded"));
    let again = |change: &dyn Fn(&mut Value)| {
        let mut trail = whole.clone();
        let mut event = trail[first("issued")].clone();
        change(&mut event);
        trail.push(event);
        is_found(trail).unwrap_err()
    };
    assert!(again(&|_| ()).contains("stands twice"));
    let other = |event: &mut Value| {
        event["issuance_id"] = "another".into();
        event["serials"] = serde_json::json!(["1", "2"]);
    };
    assert!(again(&other).contains("a token was used twice"));
    let mut changed = whole.clone();
    changed[first("issued")]["serials"][0] = "7".into();
    assert!(is_found(changed).unwrap_err().contains("the serials of"));
}
