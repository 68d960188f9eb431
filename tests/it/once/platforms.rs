//! How a job proves who it is: both platforms, and their endpoints' troubles.

use std::time::Duration;

use super::{events, world};
use crate::support::client::timed;
use crate::support::issuer::{Endpoint, Fault};
use crate::support::once::{Job, World, manifest};
use crate::support::token::claims_of;
use crate::support::wait_for;

#[test]
fn circleci_mints_tokens_for_our_audience() {
    let world = world();
    let job = world.circleci(true);
    let destination = job.once([]).good().destination();
    assert_eq!(manifest(&destination)["join_method"], "circleci");
    let audience = claims_of(&world.issuer.minted().pop().unwrap())["aud"].as_str().unwrap().to_owned();
    assert!(audience.starts_with(&format!("{}#", world.authority.url())), "{audience}");
}

#[test]
fn circleci_falls_back_to_the_jobs_own_token() {
    let world = world();
    // The command is not there; both variables are.
    let job = world.circleci(false);
    job.once(["-v"])
        .good()
        .says(&["warning: ", "taking CIRCLE_OIDC_TOKEN_V2, whose audience CircleCI chose"]);
    let job = world.circleci(false).without("CIRCLE_OIDC_TOKEN_V2");
    job.once(["-v"]).good().says(&["taking CIRCLE_OIDC_TOKEN, whose audience CircleCI chose"]);
    let job = world.circleci(false).without("CIRCLE_OIDC_TOKEN_V2").without("CIRCLE_OIDC_TOKEN");
    let outcome = job.once([]).failed(3);
    outcome.says(&["this CircleCI job has no OIDC token", "could not be run", "hint: "]);
    assert!(job.left().is_empty());
}

#[test]
fn a_circleci_command_that_fails_once_is_asked_again() {
    let world = world();
    let job = world.circleci(true);
    let (program, good) = (job.path("bin/circleci"), job.text_path("good"));
    std::fs::copy(&program, &good).unwrap();
    let script = format!(
        "#!/bin/sh\n[ -e '{good}.asked' ] && exec '{good}' \"$@\"\n: > '{good}.asked'; echo busy >&2; exit 1\n"
    );
    std::fs::write(&program, script).unwrap();
    let outcome = job.once(["-v"]).good();
    outcome.says(&["failed (busy), trying again"]);
    // The variable's token is there too, and worth less.
    assert!(!outcome.stderr.contains("taking CIRCLE_OIDC_TOKEN"), "{}", outcome.stderr);
}

#[test]
fn a_failing_circleci_command_is_told() {
    let world = world();
    // Each job has a token of its own, which can be used once.
    let job = |script: &str| {
        let job = world.circleci(true);
        std::fs::write(job.path("bin/circleci"), format!("#!/bin/sh\n{script}\n")).unwrap();
        job
    };
    let failing = job("echo 'no context here' >&2; exit 3");
    failing.once(["-v"]).good().says(&["failed (no context here)", "taking CIRCLE_OIDC_TOKEN_V2"]);
    let (outcome, took) = timed(|| job("exec sleep 60").once(["--timeout", "6s"]));
    outcome.good().says(&["took too long", "taking CIRCLE_OIDC_TOKEN_V2"]);
    assert!(took < Duration::from_secs(6), "{took:?}");
    let bare = |script: &str| job(script).without("CIRCLE_OIDC_TOKEN_V2").without("CIRCLE_OIDC_TOKEN");
    bare("echo 'Usage: circleci'").once([]).failed(3).says(&["printed something else than a token"]);
    let (outcome, took) = timed(|| bare("exec sleep 60").once(["--timeout", "1s"]));
    outcome.failed(3).says(&["took too long"]);
    assert!(took < Duration::from_secs(6), "{took:?}");
}

#[test]
fn detection_and_its_limits() {
    let world = world();
    let nowhere = Job::new().told(&world.authority, "github-deploy");
    nowhere.once([]).failed(2).says(&["--join-method", "MACHINE_ID_JOIN_METHOD", "github, circleci"]);
    let other = world.github().env("MACHINE_ID_JOIN_METHOD", "circleci");
    other.once([]).failed(3).says(&["this is not a CircleCI job"]);
    nowhere.once(["--join-method", "github"]).failed(3).says(&["this is not a GitHub Actions job"]);
    world.github().without("GITHUB_ACTIONS").once(["--join-method", "github"]).good();
}

#[test]
fn github_is_asked_again_while_it_is_not_ready() {
    let pending = r#"{"message":"Can't issue ID_TOKEN: job is in 'Pending' state"}"#.to_owned();
    for (what, fault, times) in [
        ("pending", Fault::Answer(403, String::new(), pending), 2),
        ("too many", Fault::Status(429), 1),
        ("broken", Fault::Status(500), 2),
        ("dropped", Fault::Drop, 1),
    ] {
        let world = world();
        world.issuer.fail_times(Endpoint::Token, times, fault);
        world.github().once([]).good();
        assert_eq!(world.issuer.count(Endpoint::Token), times + 1, "{what}");
    }
}

#[test]
fn one_request_that_hangs_leaves_time_for_another() {
    let world = world();
    world.issuer.fail_times(Endpoint::Token, 1, Fault::Hang);
    world.github().once([]).good();
    assert_eq!(world.issuer.count(Endpoint::Token), 2);
}

#[test]
fn github_that_refuses_is_not_asked_again() {
    let world = world();
    let refusals = [
        (Fault::Status(403), "status 403"),
        (Fault::Status(401), "status 401"),
        (Fault::Body("{}".into()), "without a token"),
        (Fault::Body("<html>".into()), "without a token"),
        (Fault::Redirect("https://example.com/".into()), "status 302"),
    ];
    for (asked, (fault, words)) in refusals.into_iter().enumerate() {
        world.issuer.fail(Endpoint::Token, fault);
        let job = world.github();
        job.once([]).failed(3).says(&[words]);
        assert_eq!(world.issuer.count(Endpoint::Token), asked + 1, "{words}");
        assert!(job.left().is_empty());
    }
    assert!(events(&world, "issued").is_empty() && events(&world, "refused").is_empty());
}

#[test]
fn github_that_stays_broken_ends_at_the_timeout() {
    for fault in [Fault::Status(503), Fault::Hang, Fault::Huge(1 << 20)] {
        let world = world();
        world.issuer.fail(Endpoint::Token, fault.clone());
        let job = world.github();
        let (outcome, took) = timed(|| job.once(["--timeout", "2s"]));
        outcome.failed(5).says(&["gave no token in time", "hint: "]);
        assert!(took < Duration::from_secs(8), "{fault:?}: {took:?}");
        assert!(job.left().is_empty());
    }
}

#[test]
fn a_job_that_waits_is_one_thread() {
    let world = world();
    world.issuer.fail(Endpoint::Token, Fault::Hang);
    let job = world.github();
    let running = job.start(["--timeout", "30s"]);
    wait_for("the request", || (world.issuer.count(Endpoint::Token) == 1).then_some(()));
    let threads = std::fs::read_dir(format!("/proc/{}/task", running.id())).unwrap().count();
    assert_eq!(threads, 1);
}

#[test]
fn a_token_for_nobody_of_ours_is_named_as_such() {
    let world = World::with_policy(|policy| {
        policy.replace("accept_default_audience: true\n", "require_key_binding: false\n")
    });
    let job = world.circleci(false);
    let outcome = job.once([]).failed(4);
    outcome.says(&["which the platform chose", "accept_default_audience"]);
    assert!(!outcome.stderr.contains("was asked for"), "{}", outcome.stderr);
}
