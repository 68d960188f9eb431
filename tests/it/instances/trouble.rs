//! Lost replies, kills and crowds: no honest worker is locked.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::authority::Authority;
use crate::support::gateway::{Gateway, Trouble};
use crate::support::once::{Job, copy};
use crate::support::process::read;
use crate::support::wait_for;
use crate::support::workers::{POLICY, SECRET, instance, instances, registered, secret, worker};

/// Whether an attempt is under way in the storage.
fn is_pending(job: &Job) -> bool {
    let state: Value = serde_json::from_str(&read(job.path("storage/state.json"))).unwrap();
    !state["current"]["attempt"].is_null() || !state["next"].is_null()
}

#[test]
fn a_registration_whose_answer_is_lost_is_made_again() {
    let authority = Authority::start(POLICY);
    let gateway = Gateway::with(&authority, &[]);
    let job = worker(&authority).env(SECRET, secret(&authority)).env("HTTPS_PROXY", gateway.url());
    // Within one run the same request is sent again.
    gateway.meet(&[Trouble::LostReply, Trouble::Reset]);
    job.once([]).good();
    assert_eq!(instances(&authority)[0]["generation"], 1);
    // Over runs, with the secret and without.
    for with_secret in [true, false] {
        let job = worker(&authority).env(SECRET, secret(&authority)).env("HTTPS_PROXY", gateway.url());
        gateway.meet(&[const { Trouble::LostReply }; 8]);
        job.once(["--timeout", "1s"]).failed(5);
        assert!(is_pending(&job));
        gateway.meet(&[]);
        let job = if with_secret { job } else { job.without(SECRET) };
        job.once([]).good();
        let mine = instances(&authority).into_iter().find(|one| one["instance"] == instance(&job).as_str());
        assert_eq!(mine.unwrap()["generation"], 2, "accepted twice");
    }
    assert!(instances(&authority).iter().all(|one| one["locked"] == false));
}

/// A rotation whose answer is lost: the worker goes on with its old key where
/// the secret is not there any more, and carries on where it is.
#[test]
fn a_rotation_whose_answer_is_lost_locks_nobody_out() {
    let authority = Authority::start(POLICY);
    let gateway = Gateway::with(&authority, &[const { Trouble::LostReply }; 8]);
    let job = registered(&authority).env("HTTPS_PROXY", gateway.url());
    let old = instance(&job);
    let rotation = secret(&authority);
    let job = job.env(SECRET, &rotation);
    job.once(["--timeout", "1s"]).failed(5);
    gateway.meet(&[]);
    let job = job.without(SECRET);
    for _ in 0..2 {
        job.once([]).good();
        assert_eq!(instance(&job), old);
    }
    let job = job.env(SECRET, &rotation);
    for _ in 0..2 {
        job.once([]).good();
        assert_ne!(instance(&job), old);
    }
    let state = |one: &Value| (one["locked"].as_bool().unwrap(), one["reason"].as_str().map(str::to_owned));
    let all: Vec<_> = instances(&authority).iter().map(state).collect();
    assert_eq!(all, [(true, Some("replaced".to_owned())), (false, None)]);
}

#[test]
fn lost_replies_and_kills_never_lock() {
    let authority = Authority::start(POLICY);
    let gateway = Gateway::with(&authority, &[]);
    let job = registered(&authority).env("HTTPS_PROXY", gateway.url());
    for _ in 0..3 {
        gateway.meet(&[const { Trouble::LostReply }; 8]);
        job.once(["--timeout", "1s"]).failed(5);
    }
    // Killed while it waits for an answer.
    for _ in 0..2 {
        gateway.meet(&[Trouble::Hang]);
        let before = gateway.times("/v1/exchange").len();
        let running = job.start([]);
        wait_for("the request", || (gateway.times("/v1/exchange").len() > before).then_some(()));
        running.signal(Signal::KILL);
        drop(running);
        assert!(is_pending(&job));
    }
    gateway.meet(&[]);
    job.once([]).good();
    assert!(!is_pending(&job));
    job.once([]).good();
    // A copy of the storage while an answer is missing: one of both is found out.
    gateway.meet(&[const { Trouble::LostReply }; 8]);
    job.once(["--timeout", "1s"]).failed(5);
    gateway.meet(&[]);
    copy(&job.path("storage"), &job.path("copy"));
    job.once([]).good();
    job.once(["--storage", &job.text_path("copy")]).failed(4).says(&["instance is locked"]);
}

/// An outage of any length leaves nothing to account for; what may have arrived stays.
#[test]
fn what_was_not_sent_or_refused_is_not_accounted_for() {
    let mut authority = Authority::start(POLICY);
    let gateway = Gateway::with(&authority, &[]);
    let job = registered(&authority);
    let asked = || {
        let state: Value = serde_json::from_str(&read(job.path("storage/state.json"))).unwrap();
        let attempt = &state["current"]["attempt"];
        (attempt["tries"].as_i64(), attempt["recent"].as_array().map(Vec::len))
    };
    authority.kill();
    job.once(["--timeout", "1s"]).failed(5);
    assert_eq!(asked(), (Some(0), Some(0)));
    authority.restart();
    job.once(["--role", "nobody"]).failed(4);
    assert_eq!(asked(), (Some(0), Some(0)), "the authority said no");
    let behind = job.once([]).good();
    drop(behind);
    let job = job.env("HTTPS_PROXY", gateway.url());
    gateway.meet(&[const { Trouble::LostReply }; 8]);
    job.once(["--timeout", "1s"]).failed(5);
    let state: Value = serde_json::from_str(&read(job.path("storage/state.json"))).unwrap();
    assert_eq!(state["current"]["attempt"]["tries"], 1, "this one may have been accepted");
    gateway.meet(&[]);
    job.once([]).good();
}

#[test]
fn an_authority_that_is_killed_at_the_wrong_moment_locks_nobody() {
    let mut authority = Authority::start(POLICY);
    let job = registered(&authority);
    for _ in 0..5 {
        let mut running = job.start(["--timeout", "20s"]);
        std::thread::sleep(Duration::from_millis(u64::from(crate::support::random::<1>()[0]) / 5));
        authority.restart();
        running.wait();
        job.once([]).good();
    }
    assert_eq!(instances(&authority)[0]["locked"], false);
}

#[test]
fn runs_with_one_storage_wait_for_each_other() {
    let authority = Authority::start(POLICY);
    let job = registered(&authority);
    let all: Vec<_> = (0..8).map(|_| job.start([])).collect();
    for mut one in all {
        assert!(one.wait().success(), "{}", one.stderr());
    }
    assert_eq!(instances(&authority)[0]["generation"], 9);
    // One that hangs keeps it to itself, until time is up.
    let gateway = Gateway::with(&authority, &[Trouble::Hang]);
    let before = gateway.times("/v1/exchange").len();
    let slow = registered(&authority).env("HTTPS_PROXY", gateway.url());
    let running = slow.start([]);
    wait_for("the request", || (gateway.times("/v1/exchange").len() > before).then_some(()));
    let waited = slow.once(["--timeout", "1s"]).failed(3);
    waited.says(&["is in use by another machine-id", "--timeout waits longer"]);
    drop(running);
    gateway.meet(&[]);
    slow.once([]).good();
}

/// A long job outlives what keeps it from renewing for a while: a storage that
/// another run holds, or that cannot be written.
#[test]
fn a_renewal_that_cannot_use_the_storage_is_made_later() {
    let authority = Authority::start(POLICY);
    let job = registered(&authority);
    let script = "touch ready; while ! [ -e end ]; do sleep 0.05; done";
    let mut running = job.start(["--ttl", "12s", "--timeout", "3s", "--", "sh", "-c", script]);
    wait_for("COMMAND", || job.path("ready").exists().then_some(()));
    let lock = std::fs::File::open(job.path("storage/lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let said = |what: &str| running.stderr().contains(what).then_some(());
    wait_for("the warning", || said("is in use by another machine-id"));
    drop(lock);
    wait_for("the renewal", || said("renewed the certificates"));
    std::fs::write(job.path("end"), "").unwrap();
    assert!(running.wait().success());
    assert!(running.stderr().contains("cannot renew the certificates, trying again"), "{}", running.stderr());
    assert_eq!(instances(&authority)[0]["locked"], false);
}
