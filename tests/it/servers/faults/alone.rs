//! One authority with SQLite.

use std::fs;
use std::time::Duration;

use crate::support::disk::SmallDisk;
use crate::support::issuer::Issuer;
use crate::support::load::Load;
use crate::support::replicas::Replicas;
use crate::support::{keys, now, policies};

const JOBS: usize = 24;
const DAY: i64 = 86_400;

fn alone(issuer: &Issuer) -> Replicas {
    Replicas::alone(issuer, &std::env::temp_dir())
}

#[test]
fn one_token_of_fifty_clients_is_used_once() {
    let issuer = Issuer::start();
    let replicas = alone(&issuer);
    let load = replicas.load(&issuer);
    load.during(JOBS, || {
        load.goes_on(1);
        load.replay(50);
        load.goes_on(100);
    });
    load.holds(|| replicas.audit());
}

#[test]
fn a_full_disk_loses_nothing() {
    let disk = SmallDisk::mount(48);
    let issuer = Issuer::start();
    let mut replicas = Replicas::alone(&issuer, disk.path());
    let load = replicas.load(&issuer);
    load.during(JOBS, || {
        load.goes_on(50);
        for round in 0..2 {
            let filler = disk.fill("filler");
            load.fails_with("disk-full");
            if round == 1 {
                // Killed while there is no room.
                replicas.one(0).kill();
                load.fails_with("no answer");
                replicas.one(0).restart();
                load.fails_with("disk-full");
            }
            fs::remove_file(filler).unwrap();
            load.goes_on(50);
        }
        load.steal_what_was_used();
    });
    load.holds(|| replicas.audit());
}

/// An hour in which the issuer is not there, and then comes back with other keys.
#[test]
fn an_issuer_may_be_down_for_an_hour_and_come_back_with_other_keys() {
    let mut issuer = Issuer::start();
    let mut replicas = alone(&issuer);
    // Its jobs' tokens are of now; what counts is how old the issuer's keys are.
    replicas.one(0).restart_with_clock(now());
    let under_load = |issuer: &Issuer, replicas: &mut Replicas, work: &dyn Fn(&mut Replicas, &Load)| {
        let load = replicas.load(issuer);
        load.during(JOBS, || work(replicas, &load));
        load.holds(|| replicas.audit());
    };
    under_load(&issuer, &mut replicas, &|_, load| load.goes_on(50));
    issuer.stop();
    under_load(&issuer, &mut replicas, &|replicas, load| {
        for _ in 0..12 {
            replicas.one(0).pass(300);
            load.goes_on(10);
        }
    });
    issuer.set_keys(vec![keys::SECOND.jwk()]);
    issuer.set_signer(&keys::SECOND);
    issuer.resume();
    under_load(&issuer, &mut replicas, &|replicas, load| {
        load.fails_with("issuer-unavailable");
        replicas.one(0).pass(11);
        load.goes_on(50);
    });
    // What the old keys have signed is good no more.
    issuer.set_signer(&keys::ISSUER);
    let authority = replicas.one(0);
    let job = crate::support::client::Keys::fresh();
    let token = issuer.token("github", &authority.url()).mint();
    let request = job.request("github-deploy", "github", &token);
    authority.pass(11);
    let ask = || authority.client().exchange(&request);
    let refused = crate::support::wait_for("a refusal", || Some(ask()).filter(|answer| answer.status == 401));
    assert_eq!(authority.refusal(&refused.denial(401))["reason"], "key_unknown");
}

/// Ahead, behind and right again, while it forgets what it thinks has expired.
#[test]
fn a_clock_that_is_stepped_makes_no_token_new() {
    let issuer = Issuer::start();
    let mut replicas = alone(&issuer);
    replicas.one(0).restart_with_clock(now());
    let load = replicas.load(&issuer);
    load.during(JOBS, || {
        load.goes_on(100);
        for away in [2 * DAY, -2 * DAY, 400 * DAY] {
            load.may_refuse(true);
            replicas.one(0).set_clock(now() + away);
            replicas.one(0).forget();
            std::thread::sleep(Duration::from_millis(100));
            replicas.one(0).set_clock(now());
            replicas.one(0).forget();
            load.steal_what_was_used();
            load.goes_on(50);
        }
        load.may_refuse(false);
        load.goes_on(50);
    });
    load.holds(|| replicas.audit());
}

/// Cut in the middle, no policy, no file at all: the old policy serves on. What is whole is taken.
#[test]
fn a_broken_policy_refuses_nobody() {
    let issuer = Issuer::start();
    let mut replicas = alone(&issuer);
    let load = replicas.load(&issuer);
    let good = policies::basic(&issuer);
    load.during(JOBS, || {
        let authority = replicas.one(0);
        let file = authority.data_dir().join("policy/test.yaml");
        for broken in [&good[..good.len() / 2], "kind: [\n", ""] {
            let before = authority.stderr().matches("policy not taken, the old one stays").count();
            fs::write(&file, broken).unwrap();
            let refused =
                || authority.stderr().matches("policy not taken, the old one stays").count() > before;
            crate::support::wait_for("the refusal of a policy", || refused().then_some(()));
            load.goes_on(20);
            assert_eq!(authority.client().get("/readyz").status, 200);
        }
        fs::remove_file(&file).unwrap();
        load.goes_on(20);
        authority.write_policy(&good.replace("octo-org/octo-repo", "octo-org/*"));
        authority.wait_for_stderr("policy read anew");
        load.goes_on(20);
    });
    load.holds(|| replicas.audit());
}
