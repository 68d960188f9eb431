//! Three authorities over one PostgreSQL.

use std::time::{Duration, Instant};

use crate::support::cluster::{Cluster, Role};
use crate::support::cut::Way;
use crate::support::issuer::Issuer;
use crate::support::load::Load;
use crate::support::replicas::Replicas;
use crate::support::{now, wait_for};

const REPLICAS: usize = 3;
const JOBS: usize = 24;
const DAY: i64 = 86_400;

/// Replicas over this cluster under load while `trouble` lasts; what holds is looked at afterwards.
fn under_load(cluster: &mut Cluster, trouble: impl FnOnce(&mut Cluster, &mut Replicas, &Load)) {
    let issuer = Issuer::start();
    let mut replicas = Replicas::sharing(&issuer, cluster, REPLICAS);
    let load = replicas.load(&issuer);
    load.during(JOBS, || {
        load.goes_on(50);
        trouble(cluster, &mut replicas, &load);
        load.goes_on(50);
    });
    load.holds(|| replicas.audit());
}

#[test]
fn one_token_of_fifty_clients_over_three_replicas_is_used_once() {
    let issuer = Issuer::start();
    let cluster = Cluster::start();
    let replicas = Replicas::sharing(&issuer, &cluster, REPLICAS);
    let load = replicas.load(&issuer);
    load.during(JOBS, || {
        load.goes_on(REPLICAS);
        load.replay(50);
        load.goes_on(100);
    });
    load.holds(|| replicas.audit());
}

#[test]
fn replicas_that_are_killed_lose_nothing() {
    under_load(&mut Cluster::start(), |_, replicas, load| {
        for round in 0..6 {
            if round % 3 == 2 {
                replicas.restart_one();
            } else {
                replicas.kill_one();
            }
            load.goes_on(10);
        }
        load.steal_what_was_used();
    });
}

#[test]
fn a_database_that_is_restarted_loses_nothing() {
    under_load(&mut Cluster::start(), |cluster, _, load| {
        for mode in ["fast", "immediate"] {
            cluster.restart(mode);
            load.goes_on(50);
        }
        cluster.kill();
        load.fails_with("urn:machine-id:");
        cluster.start_again();
        load.goes_on(50);
        load.steal_what_was_used();
    });
}

#[test]
fn a_database_that_is_paused_loses_nothing() {
    under_load(&mut Cluster::start(), |cluster, replicas, load| {
        cluster.pause();
        wait_for("a replica to say so", || {
            (replicas.one(0).client().get("/readyz").status == 503).then_some(())
        });
        cluster.resume();
        load.goes_on(100);
    });
}

#[test]
fn a_failover_to_a_synchronous_standby_loses_nothing() {
    under_load(&mut Cluster::with_standby(), |cluster, _, load| {
        cluster.fail_over();
        load.goes_on(100);
        load.steal_what_was_used();
    });
}

/// No commit is acknowledged that one server alone has.
#[test]
fn a_synchronous_standby_that_is_away_holds_commits_up_and_loses_nothing() {
    let mut cluster = Cluster::with_standby();
    // Whoever has the password can say so for all who come after.
    cluster.sql("ALTER ROLE machine_id_server SET synchronous_commit = off");
    under_load(&mut cluster, |cluster, replicas, load| {
        cluster.pause_standby(true);
        load.fails_with("urn:machine-id:");
        assert_eq!(replicas.one(0).client().get("/readyz").status, 503);
        cluster.pause_standby(false);
        load.goes_on(100);
        load.steal_what_was_used();
    });
}

#[test]
fn a_database_whose_disk_is_full_loses_nothing() {
    under_load(&mut Cluster::on_small_disk(128), |cluster, _, load| {
        let filler = cluster.fill_disk();
        load.fails_with("urn:machine-id:");
        std::fs::remove_file(filler).unwrap();
        if !cluster.is_up() {
            cluster.start_again();
        }
        load.goes_on(100);
    });
}

/// The way of one replica: nothing passes, it is reset, it is slow, and the replies to commits are lost on it.
#[test]
fn a_replica_that_is_cut_off_answers_nothing_wrong_and_the_others_go_on() {
    let issuer = Issuer::start();
    let cluster = Cluster::start();
    let (mut replicas, way) = Replicas::sharing_by_a_cut(&issuer, &cluster, REPLICAS);
    let load = replicas.load(&issuer);
    load.during(JOBS, || {
        load.goes_on(50);
        way.set(Way::Slow(Duration::from_millis(50)));
        load.goes_on(50);
        way.set(Way::Open);
        way.lose_commits(5);
        wait_for("five commits whose reply is lost", || (way.commits_to_lose() == 0).then_some(()));
        load.goes_on(50);
        for bad in [Way::Cut, Way::Stopped] {
            way.set(bad);
            let cut_off = replicas.one(2);
            wait_for("the replica to say so", || {
                (cut_off.client().get("/readyz").status == 503).then_some(())
            });
            // The others have it no worse; jobs that ask this one wait for it first.
            load.goes_on(20);
            way.set(Way::Open);
            let cut_off = replicas.one(2);
            wait_for("the replica to go on", || {
                (cut_off.client().get("/readyz").status == 200).then_some(())
            });
        }
        load.goes_on(50);
        load.steal_what_was_used();
    });
    load.holds(|| replicas.audit());
}

/// Under load, with all that waits for the database; and each outage is told once, and that it is over.
#[test]
fn readyz_says_within_five_seconds_that_the_database_is_out_of_reach() {
    let issuer = Issuer::start();
    let cluster = Cluster::start();
    let (mut replicas, way) = Replicas::sharing_by_a_cut(&issuer, &cluster, 2);
    let load = replicas.load(&issuer);
    let cut_off = &*replicas.one(1);
    let ready = |_| {
        let since = Instant::now();
        (cut_off.client().get("/readyz").status == 200, since.elapsed())
    };
    // Several ask at once, as a balancer's machines do; how long the slowest answer took, and when they said so.
    let told = || {
        let since = Instant::now();
        let slowest = |_| {
            let mut answers = std::iter::repeat(()).map(ready);
            let mut slowest = Duration::ZERO;
            while answers.next().is_some_and(|(is_ready, took)| {
                slowest = slowest.max(took);
                is_ready
            }) {}
            slowest
        };
        let all: Vec<Duration> = std::thread::scope(|scope| {
            let asking: Vec<_> = (0..4).map(|n| scope.spawn(move || slowest(n))).collect();
            asking.into_iter().map(|one| one.join().unwrap()).collect()
        });
        (all.into_iter().max().unwrap(), since.elapsed())
    };
    load.during(JOBS, || {
        for (bad, at_most) in [(Way::Stopped, 5000), (Way::Cut, 3000)] {
            load.goes_on(20);
            way.set(bad);
            let (slowest, after) = told();
            println!("{bad:?}: told after {after:.1?}, the slowest answer after {slowest:.1?}");
            assert!(slowest < Duration::from_millis(at_most), "{bad:?}: {slowest:?}");
            way.set(Way::Open);
            wait_for("the replica to go on", || ready(()).0.then_some(()));
        }
    });
    let said = |what: &str| cut_off.stderr().matches(what).count();
    wait_for("the end of the outage", || {
        (said("limits are counted here alone") == said("limits are counted with other replicas again"))
            .then_some(())
    });
    assert!(said("limits are counted here alone") <= 2, "{}", cut_off.stderr());
    load.holds(|| replicas.audit());
}

/// Ahead, behind and right again, while it forgets for all of them what it thinks has expired.
#[test]
fn a_replica_with_a_wrong_clock_makes_no_token_new() {
    under_load(&mut Cluster::start(), |_, replicas, load| {
        load.may_refuse(true);
        replicas.one(1).restart_with_clock(now());
        for away in [2 * DAY, -2 * DAY, 400 * DAY] {
            replicas.one(1).set_clock(now() + away);
            replicas.one(1).forget();
            load.goes_on(50);
            load.steal_what_was_used();
            replicas.one(1).set_clock(now());
            replicas.one(1).forget();
            load.steal_what_was_used();
        }
        load.may_refuse(false);
    });
}

/// PgBouncer as its page has it, which gives each transaction another connection.
#[test]
fn replicas_behind_pgbouncer_lose_nothing() {
    let issuer = Issuer::start();
    let cluster = Cluster::start();
    let bouncer = cluster.bouncer();
    let mut replicas = Replicas::sharing(&issuer, &cluster, REPLICAS);
    for number in 0..REPLICAS {
        replicas.one(number).set_store(&cluster.url_through(Role::Server, &[bouncer.address()]));
        replicas.one(number).restart();
    }
    let load = replicas.load(&issuer);
    load.during(JOBS, || {
        load.goes_on(100);
        cluster.restart("fast");
        load.goes_on(100);
        load.steal_what_was_used();
    });
    load.holds(|| replicas.audit());
}
