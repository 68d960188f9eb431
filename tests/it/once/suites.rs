//! Which keys a job makes, how it learns it, and what that costs.

use std::time::Duration;

use super::{events, manifest};
use crate::support::gateway::{Gateway, Trouble};
use crate::support::issuer::{Endpoint, Fault};
use crate::support::once::{Job, World};
use crate::support::process::{read, succeed};
use crate::support::workers;

const EXCHANGE: &str = "/v1/exchange";

/// How often it was asked for certificates, and before that whether it is there.
fn asked(gateway: &Gateway) -> (usize, usize) {
    (gateway.times(EXCHANGE).len(), gateway.times("/healthz").len())
}

#[track_caller]
fn has(job: &Job, options: &[&str], algorithm: &str) {
    let outcome = job.run([&["once", "-v"], options].concat()).good();
    let key = read(outcome.destination().join("key.pub"));
    assert!(key.starts_with(&format!("{algorithm} ")), "{key}\n{}", outcome.stderr);
}

const NONE: &[&str] = &[];
const ED25519: &str = "ssh-ed25519";
const P256: &str = "ecdsa-sha2-nistp256";

/// The platform takes longer than the connection, as platforms do.
#[test]
fn no_round_trip_is_added() {
    for (suite, options, algorithm) in [
        ("modern", NONE, ED25519),
        ("modern", &["--key-type", "ecdsa-p256"], P256),
        ("compatible", NONE, P256),
        ("compatible", &["--key-type", "ed25519"], ED25519),
    ] {
        let world = World::of_suite(suite, |policy| policy);
        world.issuer.fail(Endpoint::Token, Fault::Delay(Duration::from_secs(2)));
        let gateway = Gateway::with(&world.authority, &[]);
        let job = world.github().env("HTTPS_PROXY", gateway.url());
        has(&job, options, algorithm);
        // The connection is opened again where keys are made anew, while the platform is at work.
        let changes = usize::from((suite, options) == ("compatible", NONE));
        assert_eq!(asked(&gateway), (1, 1 + changes), "{suite} {options:?}");
        assert_eq!((events(&world, "issued").len(), events(&world, "refused").len()), (1, 0));
    }
}

/// A token that is there already is sent at once.
#[test]
fn a_token_that_was_handed_over_asks_twice_where_the_suite_is_another_and_is_used_once() {
    for (suite, options, algorithm, asks) in [
        ("modern", NONE, ED25519, 1),
        ("modern", &["--key-type", "ecdsa-p256"], P256, 1),
        ("compatible", NONE, P256, 2),
        ("compatible", &["--key-type", "ecdsa-p256"], P256, 1),
        // Its keys are the same in each suite.
        ("compatible", &["--output", "application,app=grafana"], "", 1),
    ] {
        let world = World::of_suite(suite, |policy| policy);
        let gateway = Gateway::with(&world.authority, &[]);
        let token = world.issuer.token("github", &world.authority.url()).mint();
        let job = world.github().env("HTTPS_PROXY", gateway.url()).env("GIVEN", token);
        let options = [&["--id-token-env", "GIVEN"], options].concat();
        if algorithm.is_empty() {
            job.run([&["once"], options.as_slice()].concat());
        } else {
            has(&job, &options, algorithm);
            assert_eq!((events(&world, "issued").len(), events(&world, "refused").len()), (1, 0));
        }
        assert_eq!(asked(&gateway), (asks, 0), "{suite} {options:?}");
    }
}

/// Whose answer comes first, the platform's or the authority's, does not matter.
#[test]
fn a_proof_that_was_there_first_is_not_used_up() {
    let world = World::of_suite("compatible", |policy| policy);
    let job = world.github();
    has(&job, NONE, P256);
    let file = job.path("once.yaml");
    std::fs::write(&file, "version: v1\nkey_type: ed25519\n").unwrap();
    has(&job, &["--config", file.to_str().unwrap()], ED25519);
    let two = job.once(["--output", "identity", "--output", "ssh"]).good().destination();
    assert_eq!(manifest(&two)["outputs"].as_array().unwrap().len(), 2);
    for folder in ["identity", "ssh"] {
        assert!(read(two.join(folder).join("key.pub")).starts_with(P256));
    }
    assert_eq!((events(&world, "issued").len(), events(&world, "refused").len()), (3, 0));
}

/// A platform's command that is quicker than the connection: its token is not even sent with keys of the other suite.
#[test]
fn a_token_of_the_environment_waits_for_the_suite() {
    for (suite, algorithm) in [("modern", ED25519), ("compatible", P256)] {
        let world = World::of_suite(suite, |policy| policy);
        let gateway = Gateway::with(&world.authority, &[]);
        let job = world.circleci(false).env("HTTPS_PROXY", gateway.url());
        has(&job, NONE, algorithm);
        assert_eq!(gateway.times(EXCHANGE).len(), 1, "{suite}");
    }
}

/// One that names no suite that this client knows: a person is told what to do.
#[test]
fn a_suite_that_is_not_known_is_for_a_person_to_answer() {
    let world = World::of_suite("modern", |policy| policy);
    let body = r#"{"type": "urn:machine-id:other-suite", "title": "other keys", "status": 409, "hint": "say which"}"#;
    let gateway = Gateway::with(
        &world.authority,
        &[Trouble::Answer(409, "machine-id-suite: of-tomorrow".into(), body.into())],
    );
    let job = world.github().env("HTTPS_PROXY", gateway.url());
    job.once([]).failed(4).says(&["other keys", "hint: say which"]);
    assert_eq!(gateway.times(EXCHANGE).len(), 1);
    // Replicas that do not agree: whichever answers, it ends.
    let told = |suite: &str| Trouble::Answer(409, format!("machine-id-suite: {suite}"), body.into());
    gateway.meet(&[told("compatible"), told("modern"), told("compatible")]);
    job.once([]).failed(4).says(&["other keys"]);
    assert_eq!(gateway.times(EXCHANGE).len(), 3, "twice, and not again");
}

/// What a worker has said is taken back where it is said again with other keys.
#[test]
fn a_worker_registers_and_joins_with_keys_of_the_suite() {
    use crate::support::authority::Authority;
    let authority = Authority::with_policy(workers::POLICY).init(["--suite", "compatible"]).start();
    let job = workers::worker(&authority).env(workers::SECRET, workers::secret(&authority));
    for generation in 1..=3 {
        has(&job, NONE, P256);
        assert_eq!(workers::instances(&authority)[0]["generation"], generation);
    }
    assert!(!succeed(&mut authority.command(["audit"])).contains("refused"));
}
