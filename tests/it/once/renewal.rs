//! Long commands: whoever can mint another proof renews again and again,
//! whatever one attempt meets. Who has one token is told at the beginning: see
//! `variables.rs` and `handed.rs`.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use super::{WAIT, all_revoked, events, joined_by, world};
use crate::support::once::{Job, World};
use crate::support::process::Running;
use crate::support::wait_for;

fn start(job: &Job) -> Running {
    let running = job.start(["--ttl", "10s", "--", "sh", "-c", WAIT]);
    wait_for("the certificates", || job.path("ready").exists().then_some(()));
    running
}

fn end(job: &Job, mut running: Running) -> String {
    std::fs::write(job.path("end"), "").unwrap();
    assert!(running.wait().success());
    running.stderr()
}

/// A Buildkite job, with the agent's command in a folder of its own.
fn buildkite(world: &World) -> Job {
    let job = Job::new().told(&world.authority, "here").env("BUILDKITE", "true");
    std::fs::create_dir(job.path("bin")).unwrap();
    world.issuer.write_minter(&job.path("bin/buildkite-agent"), "buildkite");
    let path = format!("{}:{}", job.text_path("bin"), std::env::var("PATH").unwrap());
    job.env("PATH", path)
}

fn buildkite_world() -> World {
    joined_by("buildkite", "", "require_key_binding: true, allow: [{organization_slug: acme-inc}]")
}

fn renews_twice(method: &str, world: &World, job: &Job) {
    let running = start(job);
    for renewals in 1..=2 {
        wait_for("a renewal", || {
            let said = running.stderr().matches("renewed the certificates").count();
            (said >= renewals).then_some(())
        });
    }
    let stderr = end(job, running);
    assert!(!stderr.contains("cannot renew"), "{method}: {stderr}");
    let issued = events(world, "issued");
    assert!(issued.len() >= 3, "{method}: {issued:?}");
    assert!(issued.iter().all(|event| event["join_method"] == method), "{issued:?}");
    assert_eq!(events(world, "refused"), Vec::<serde_json::Value>::new(), "{method}");
    let mut minted = world.issuer.minted();
    minted.sort_unstable();
    minted.dedup();
    assert_eq!(minted.len(), issued.len(), "{method}: a token of its own for each");
    assert_eq!(all_revoked(world), issued.len());
}

#[test]
fn every_platform_that_mints_renews_again_and_again() {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let world = world();
            renews_twice("github", &world, &world.github());
        });
        scope.spawn(|| {
            let world = world();
            renews_twice("circleci", &world, &world.circleci(true));
        });
        scope.spawn(|| {
            let world = buildkite_world();
            renews_twice("buildkite", &world, &buildkite(&world));
        });
        scope.spawn(|| {
            let section = "organization_id: 0ca3ddd9-f0b0-4635-a98c-5866526961b6, accept_default_audience: true, \
                           allow: [{project_name: octo-project}]";
            let world = joined_by("azure-devops", "", section);
            let job = Job::new().told(&world.authority, "here").envs(world.issuer.azure_environment());
            renews_twice("azure-devops", &world, &job);
        });
    });
}

/// Puts a command in its place that says what the real one does when its platform does not answer.
fn fail(job: &Job, program: &str) {
    let (path, failing) = (job.path(&format!("bin/{program}")), job.path("failing"));
    std::fs::copy(&path, job.path("good")).unwrap();
    std::fs::write(&failing, "#!/bin/sh\necho 'fatal: POST 502 Bad Gateway' >&2; exit 1\n").unwrap();
    std::fs::set_permissions(&failing, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(&failing, &path).unwrap();
}

fn heals(world: &World, job: Job, program: &str, says: &str) {
    let running = start(&job);
    fail(&job, program);
    wait_for("a warning", || running.stderr().contains("cannot renew the certificates").then_some(()));
    std::fs::rename(job.path("good"), job.path(&format!("bin/{program}"))).unwrap();
    wait_for("a renewal", || running.stderr().contains("renewed the certificates").then_some(()));
    let stderr = end(&job, running);
    for words in ["502 Bad Gateway", says, "trying again in"] {
        assert!(stderr.contains(words), "{words}: {stderr}");
    }
    let issued = events(world, "issued").len();
    assert_eq!(stderr.matches("renewed the certificates").count(), issued - 1, "{stderr}");
    assert_eq!(all_revoked(world), issued);
}

#[test]
fn a_platform_that_gives_no_proof_once_is_asked_again() {
    let world = buildkite_world();
    let job = buildkite(&world);
    heals(&world, job, "buildkite-agent", "this Buildkite job has no OIDC token");
}

#[test]
fn the_same_certificates_again_are_no_renewal() {
    // Without its command CircleCI has one token for the whole job, and the same request gets the same answer.
    let world = world();
    let job = world.circleci(true);
    let running = start(&job);
    fail(&job, "circleci");
    // The first renewal takes the variable, which is good once; the next one cannot.
    wait_for("the same again", || running.stderr().contains("the proof is the one of before").then_some(()));
    std::fs::rename(job.path("good"), job.path("bin/circleci")).unwrap();
    wait_for("a renewal", || {
        (running.stderr().matches("renewed the certificates").count() == 2).then_some(())
    });
    let stderr = end(&job, running);
    assert!(stderr.matches("the proof is the one of before").count() <= 4, "{stderr}");
    assert_eq!(events(&world, "issued").len(), 3, "{stderr}");
}

#[test]
fn a_pipe_that_nobody_writes_into_ends_at_the_timeout() {
    let world = world();
    let job = Job::new().told(&world.authority, "github-deploy");
    rustix::fs::mkfifoat(rustix::fs::CWD, job.path("pipe"), rustix::fs::Mode::RWXU).unwrap();
    let pipe = job.text_path("pipe");
    let outcome = job.once(["--join-method", "github", "--id-token-file", &pipe, "--timeout", "1s"]);
    outcome.failed(2).says(&["--id-token-file", "nothing was written into it in time"]);
    // A shell's `<(…)` is one that somebody does.
    let token = world.issuer.token("github", &world.authority.url()).mint();
    let job = job.env("JWT", token);
    let line = format!(
        "exec '{}' once --join-method github --id-token-file <(sleep 0.3; echo \"$JWT\") -- true",
        env!("CARGO_BIN_EXE_machine-id")
    );
    let mut bash = crate::support::process::command("bash");
    bash.args(["-c", &line]).env_clear().envs(job.environment()).env("PATH", "/usr/bin:/bin");
    let output = crate::support::process::run(&mut bash);
    assert!(output.status.success(), "{output:?}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("cannot renew: the token came through a pipe, /dev/fd/"), "{stderr}");
}

#[test]
fn a_refused_renewal_is_not_tried_again() {
    let world = World::start();
    let job = world.github();
    let mut running = job.start(["--ttl", "12s", "--", "sh", "-c", WAIT]);
    wait_for("COMMAND", || job.path("ready").exists().then_some(()));
    world.issuer.change_claims("github", |claims| {
        claims.insert("repository".into(), "octo-org/another".into());
    });
    let said = "cannot renew the certificates, which end at 20";
    wait_for("the warning", || running.stderr().contains(said).then_some(()));
    // The next attempt would have come a second later.
    std::thread::sleep(Duration::from_secs(3));
    std::fs::write(job.path("end"), "").unwrap();
    assert!(running.wait().success());
    let stderr = running.stderr();
    assert_eq!(stderr.matches("cannot renew").count(), 1, "{stderr}");
    assert!(!stderr.contains("trying again"), "{stderr}");
    let refusals = world.authority.audit().into_iter().filter(|event| event["event"] == "refused");
    assert_eq!(refusals.count(), 1);
}

#[test]
fn a_token_in_a_file_is_waited_for() {
    let world = World::start();
    let token = || world.issuer.token("github", &world.authority.url()).mint();
    let job = Job::new().told(&world.authority, "github-deploy");
    std::fs::write(job.path("jwt"), token()).unwrap();
    let arguments =
        ["--ttl", "12s", "--join-method", "github", "--id-token-file", "jwt", "--", "sh", "-c", WAIT];
    let mut running = job.start(arguments);
    wait_for("the wait", || running.stderr().contains("waiting for another token").then_some(()));
    std::fs::write(job.path("new"), token()).unwrap();
    std::fs::rename(job.path("new"), job.path("jwt")).unwrap();
    wait_for("a renewal", || running.stderr().contains("renewed the certificates").then_some(()));
    std::fs::write(job.path("end"), "").unwrap();
    assert!(running.wait().success());
    assert!(!running.stderr().contains("warning"), "{}", running.stderr());
}
