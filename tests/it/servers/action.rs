//! The GitHub Action with the real binary: main gets certificates, a step
//! uses them, post takes them away.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::support::once::{Job, Outcome, World, copy, heredocs, manifest};
use crate::support::process::{self, MACHINE_ID, command};
use crate::support::sshd::{Sshd, login};
use crate::support::{repository, wait_for};

fn world() -> World {
    World::with_policy(|policy| policy.replace("values: [ubuntu]", &format!("values: ['{}']", login())))
}

/// A step with the action, before it has run.
struct Step {
    job: Job,
    inputs: BTreeMap<&'static str, String>,
}

impl Step {
    fn new(world: &World) -> Self {
        // The action's inputs are all that it is told.
        let job = world.github();
        let job =
            job.without("MACHINE_ID_AUTHORITY").without("MACHINE_ID_CA_FILE").without("MACHINE_ID_TOKEN");
        let inputs = BTreeMap::from([
            ("AUTHORITY", world.authority.url()),
            ("TOKEN", "github-deploy".to_owned()),
            ("CA-FILE", world.authority.ca_file().display().to_string()),
            ("BINARY", MACHINE_ID.to_owned()),
            ("OUTPUT", "identity\nssh,name=second".to_owned()),
            ("ROLE", "deploy".to_owned()),
            ("TTL", "10m".to_owned()),
        ]);
        Self { job, inputs }
    }

    fn with(mut self, input: &'static str, value: impl Into<String>) -> Self {
        self.inputs.insert(input, value.into());
        self
    }

    fn node(&self, variables: impl Iterator<Item = (String, String)>) -> Outcome {
        assert!(process::installed("node"), "node is not installed; tests/run installs it");
        let mut node = command("node");
        node.arg(repository("ci-examples/github/machine-id.mjs")).current_dir(self.job.path(""));
        node.envs(self.job.environment()).env("RUNNER_OS", "Linux").env("RUNNER_ARCH", "X64").envs(variables);
        Outcome::of(&process::run(&mut node))
    }

    fn main(&self) -> Outcome {
        self.node(self.inputs.iter().map(|(name, value)| (format!("INPUT_{name}"), value.clone())))
    }

    fn post(&self) -> Outcome {
        let state = heredocs(&self.job.said("GITHUB_STATE"));
        self.node(state.into_iter().map(|(name, value)| (format!("STATE_{name}"), value)))
    }
}

fn events(world: &World, kind: &str) -> usize {
    world.authority.audit().iter().filter(|event| event["event"] == kind).count()
}

#[test]
fn certificates_are_there_for_the_job_and_gone_after_it() {
    let world = world();
    let sshd = Sshd::start(&world.authority);
    let step = Step::new(&world);
    let main = step.main().good();
    let outputs = heredocs(&step.job.said("GITHUB_OUTPUT"));
    let destination = PathBuf::from(outputs.get("destination").unwrap());
    assert!(destination.starts_with(step.job.path("temp")), "{}", destination.display());
    assert_eq!(outputs.get("issuance-id").unwrap(), &manifest(&destination)["issuance_id"]);
    assert!(heredocs(&step.job.said("GITHUB_ENV")).contains_key("MACHINE_ID_IDENTITY_FILE"));
    assert!(step.job.said("GITHUB_STEP_SUMMARY").contains("deployer"));
    assert!(
        !main.stdout.contains(outputs.get("destination").unwrap()),
        "what a log would be searched for commands in"
    );
    sshd.logs_in(&destination.join("identity"));
    sshd.logs_in(&destination.join("second"));

    let kept = step.job.path("kept");
    copy(&destination, &kept);
    let post = step.post();
    assert_eq!(post.code, 0, "{}{}", post.stdout, post.stderr);
    assert!(
        !post.stdout.contains("::warning") && !post.stderr.contains("::warning"),
        "{}{}",
        post.stdout,
        post.stderr
    );
    assert!(step.job.left().is_empty(), "{:?}", step.job.left());
    assert_eq!((events(&world, "issued"), events(&world, "revoked")), (1, 1));
    // Somebody who kept them has nothing.
    sshd.refresh_revoked(&world.authority);
    let config = kept.join("second/ssh_config");
    let moved =
        process::read(&config).replace(&destination.display().to_string(), &kept.display().to_string());
    std::fs::write(&config, moved).unwrap();
    sshd.refuses(&kept.join("second"), "revoked");
    // A second post, or one of a job that was cancelled before, finds nothing to do.
    assert_eq!(step.post().code, 0);
}

#[test]
fn a_refusal_fails_the_step_and_leaves_nothing() {
    let world = world();
    let step = Step::new(&world).with("ROLE", "nobody");
    let main = step.main();
    assert_eq!(main.code, 4, "{}{}", main.stdout, main.stderr);
    assert!(
        main.stdout.contains("::error title=machine-id::machine-id once failed with exit code 4"),
        "{}",
        main.stdout
    );
    assert!(main.stderr.contains("::error title=machine-id::the authority refused"), "{}", main.stderr);
    assert_eq!(step.post().code, 0);
    assert!(step.job.left().is_empty(), "{:?}", step.job.left());
    assert_eq!(step.job.said("GITHUB_ENV"), "");
}

#[test]
fn an_authority_that_is_gone_at_the_end_fails_nobody() {
    let mut world = world();
    let step = Step::new(&world);
    step.main().good();
    world.authority.kill();
    let post = step.post();
    assert_eq!(post.code, 0, "{}{}", post.stdout, post.stderr);
    assert!(post.stderr.contains("::warning title=machine-id::could not revoke"), "{}", post.stderr);
    assert!(step.job.left().is_empty(), "{:?}", step.job.left());
}

#[test]
fn the_actions_own_tests_pass_with_the_real_binary() {
    let world = world();
    let job = world.github();
    let mut node = command("node");
    node.args(["--test", "--test-reporter=tap"]).arg(repository("tests/examples/action.test.mjs"));
    node.envs(job.environment()).env("MACHINE_ID_BINARY", MACHINE_ID);
    let outcome = Outcome::of(&process::run(&mut node));
    assert_eq!(outcome.code, 0, "{}{}", outcome.stdout, outcome.stderr);
    assert!(
        outcome.stdout.contains("ok 1 - main gets certificates, post takes them away\n"),
        "{}",
        outcome.stdout
    );
    wait_for("a revocation", || (events(&world, "revoked") > 0).then_some(()));
}
