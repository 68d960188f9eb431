//! Signals to a wrapped `once`, to one that is exchanging, and `kill -9`.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{WAIT, all_revoked, events, files, issuances, world};
use crate::support::issuer::{Endpoint, Fault};
use crate::support::once::{Job, World, walk};
use crate::support::process::Running;
use crate::support::wait_for;

/// A run whose command says when it is there.
fn wrapped(job: &Job, script: &str) -> Running {
    let running = job.start(["--", "sh", "-c", script]);
    wait_for("COMMAND", || job.path("ready").exists().then_some(()));
    running
}

fn destinations(job: &Job) -> usize {
    let mut paths = Vec::new();
    walk(&job.path("temp"), &mut paths);
    paths.iter().filter(|path| path.ends_with("manifest.json")).count()
}

#[test]
fn signals_are_passed_on() {
    let world = world();
    for (name, signal) in [("TERM", Signal::TERM), ("INT", Signal::INT), ("HUP", Signal::HUP)] {
        let job = world.github();
        let script =
            format!("trap 'echo {name} > got; exit 42' {name}; touch ready; while :; do sleep 0.05; done");
        let mut running = wrapped(&job, &script);
        assert_eq!(destinations(&job), 1);
        running.signal(signal);
        assert_eq!(running.wait().code(), Some(42), "{name}: {}", running.stderr());
        assert_eq!(job.said("got"), format!("{name}\n"));
        assert!(job.left().is_empty(), "{name}: {:?}", job.left());
    }
    assert_eq!(all_revoked(&world), 3);
}

#[test]
fn a_command_that_dies_of_it_says_so() {
    let world = world();
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
        let job = world.github();
        let mut running = wrapped(&job, "touch ready; exec sleep 60");
        running.signal(signal);
        assert_eq!(running.wait().code(), Some(code), "{}", running.stderr());
        assert!(job.left().is_empty(), "{:?}", job.left());
    }
    assert_eq!(all_revoked(&world), 3);
}

#[test]
fn a_command_that_goes_on_loses_its_certificates() {
    let world = world();
    let job = world.github();
    let mut running =
        wrapped(&job, "trap '' TERM; touch ready; while ! [ -e end ]; do sleep 0.05; done; exit 9");
    running.signal(Signal::TERM);
    let start = Instant::now();
    wait_for("the wiping", || (destinations(&job) == 0).then_some(()));
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert_eq!(all_revoked(&world), 1, "revoked while it still runs");
    assert!(running.ended().is_none());
    // Before it could be: a CI system kills all of it now.
    std::fs::write(job.path("end"), "").unwrap();
    assert_eq!(running.wait().code(), Some(9));
    assert!(job.left().is_empty());
    assert_eq!(events(&world, "revoked").len(), 1);
}

#[test]
fn a_signal_during_the_exchange_leaves_nothing() {
    let world = world();
    world.issuer.fail(Endpoint::Token, Fault::Hang);
    for (asked, (signal, code)) in
        [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)].into_iter().enumerate()
    {
        for (twice, arguments) in [&["--"][..0], &["--", "true"]].into_iter().enumerate() {
            let job = world.github();
            let mut command = job.command(["once"].iter().chain(arguments));
            let mut running = Running::start(
                command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()),
            );
            let before = asked * 2 + twice;
            wait_for("the request", || (world.issuer.count(Endpoint::Token) > before).then_some(()));
            running.signal(signal);
            assert_eq!(running.wait().code(), Some(code), "{}", running.stderr());
            assert_eq!(running.stdout(), "");
            assert!(job.left().is_empty(), "{:?}", job.left());
        }
    }
    assert!(events(&world, "issued").is_empty());
}

#[test]
fn what_kill_leaves_cleanup_finds() {
    let world = world();
    let job = world.github();
    let mut running = wrapped(&job, "touch ready; while ! [ -e end ]; do sleep 0.05; done");
    running.kill();
    assert_eq!(destinations(&job), 1, "nobody could wipe it");
    std::fs::write(job.path("end"), "").unwrap();
    job.run(["cleanup"]).good();
    assert!(job.left().is_empty(), "{:?}", job.left());
    assert_eq!(all_revoked(&world), 1);
    job.run(["cleanup"]).good();
}

#[test]
fn what_kill_leaves_during_the_exchange_cleanup_finds_too() {
    let world = world();
    world.issuer.fail(Endpoint::Token, Fault::Hang);
    let job = world.github();
    let mut running = job.start(["--", "true"]);
    wait_for("the request", || (world.issuer.count(Endpoint::Token) == 1).then_some(()));
    running.kill();
    job.run(["cleanup"]).good();
    assert!(job.left().is_empty(), "{:?}", job.left());
}

#[test]
fn the_living_are_left_alone() {
    let world = world();
    let job = world.github();
    let mut running =
        wrapped(&job, "touch ready; while ! [ -e end ]; do sleep 0.05; done; ls \"$MACHINE_ID_DESTINATION\"");
    // Of this job it would end it.
    let job = job.env("GITHUB_RUN_ID", "another");
    job.run(["cleanup"]).good().says(&["left alone: the run of process ", " of another job (`kill "]);
    assert_eq!(destinations(&job), 1);
    assert!(events(&world, "revoked").is_empty());
    std::fs::write(job.path("end"), "").unwrap();
    assert!(running.wait().success());
    assert!(running.stdout().contains("manifest.json"));
    let other: &World = &world;
    assert_eq!(all_revoked(other), 1);
}

#[test]
fn an_interrupt_that_is_ignored_takes_the_certificates_away() {
    let world = World::start();
    let job = world.github();
    let mut running = job.start(["--", "sh", "-c", &format!("trap '' INT; {WAIT}; exit 9")]);
    wait_for("COMMAND", || job.path("ready").exists().then_some(()));
    running.signal(Signal::INT);
    // Twice is meant; once would leave it seven seconds.
    std::thread::sleep(Duration::from_millis(50));
    running.signal(Signal::INT);
    wait_for("the wiping", || files(&job.path("temp")).is_empty().then_some(()));
    wait_for("the revocation", || (issuances(&world, "revoked").len() == 1).then_some(()));
    assert!(running.ended().is_none());
    std::fs::write(job.path("end"), "").unwrap();
    assert_eq!(running.wait().code(), Some(9));
    assert!(job.left().is_empty());
}
