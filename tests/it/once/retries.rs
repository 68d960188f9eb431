//! What the platform says about when to ask again, and proofs that age while nobody answers.

use std::time::{Duration, Instant};

use super::{events, world};
use crate::support::client::timed;
use crate::support::gateway::{Gateway, Trouble};
use crate::support::issuer::{Endpoint, Fault};
use crate::support::now;
use crate::support::once::World;

fn told(status: u16, seconds: u32) -> Fault {
    Fault::Answer(status, format!("Retry-After: {seconds}"), "{}".into())
}

#[test]
fn the_platform_is_asked_again_when_it_says() {
    let world = world();
    for status in [429, 503] {
        world.issuer.fail_times(Endpoint::Token, 1, told(status, 2));
        let (outcome, took) = timed(|| world.github().once(["-v"]));
        outcome.good().says(&[&format!("GitHub gave no token (status {status}), trying again in 2.")]);
        assert!(took >= Duration::from_secs(2), "{took:?}");
    }
    // Longer than there is time: not waited for, and said.
    world.issuer.fail_times(Endpoint::Token, 1, told(429, 3600));
    let start = Instant::now();
    let outcome = world.github().once(["--timeout", "20s"]).failed(5);
    outcome.says(&["status 429, and is to be asked again in 3600 s: --timeout waits longer"]);
    assert!(start.elapsed() < Duration::from_secs(10));
    let azure = crate::support::once::Job::new()
        .envs(world.issuer.azure_environment())
        .told(&world.authority, "github-deploy");
    world.issuer.fail_times(Endpoint::Token, 1, told(503, 3600));
    azure.once(["--timeout", "20s"]).failed(5).says(&["Azure DevOps", "is to be asked again in 3600 s"]);
}

/// From now on, GitHub's tokens live so long.
fn lives(world: &World, seconds: i64) {
    world.issuer.change_claims("github", |claims| {
        claims.insert("iat".into(), now().into());
        claims.insert("exp".into(), (now() + seconds).into());
    });
}

#[test]
fn a_proof_that_has_aged_makes_room_for_another() {
    let world = world();
    // An attempt may take 15 s: none begun a second from now would end in time.
    lives(&world, 16);
    let busy = [Trouble::Answer(503, "Retry-After: 2".into(), "{}".into())];
    let gateway = Gateway::with(&world.authority, &busy);
    let outcome = world.github().env("HTTPS_PROXY", gateway.url()).once([]).good();
    outcome.says(&["the proof has aged without an answer"]);
    assert_eq!((world.issuer.count(Endpoint::Token), events(&world, "issued").len()), (2, 1));
    // One that is handed over stays what it is, which is said.
    let token = world.issuer.token("github", &world.authority.url()).mint();
    let job = world.github().env("HTTPS_PROXY", gateway.url()).env("GIVEN", token);
    gateway.meet(&busy);
    let outcome = job.once(["--id-token-env", "GIVEN"]).good();
    outcome.says(&["there is no other: the token in GIVEN stays the same for the whole job"]);
    assert_eq!(world.issuer.count(Endpoint::Token), 2);
}
