//! Rotations that are interrupted at any moment, that two begin at once, or that an authority was away for.

use std::process::Stdio;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{key_files, rotate, status};
use crate::support::authority::Authority;
use crate::support::client::{Client, Keys};
use crate::support::cluster::Cluster;
use crate::support::issuer::Issuer;
use crate::support::once::World;
use crate::support::process::{Running, command, succeed};
use crate::support::replicas::Replicas;
use crate::support::{PATIENCE, wait_for, wait_slowly_for};

const ALL: [&str; 5] = ["ssh-user", "ssh-host", "tls", "statement", "federation"];
/// How often each step is begun and killed.
const KILLS: u32 = 6;
/// What begins those that take such a step.
const STEPS: [(&str, &str); 6] = [
    ("start", "started"),
    ("activate", "activated"),
    ("rollback", "started"),
    ("rollback", "settled"),
    ("start", "started"),
    ("activate", "activated"),
];

/// The same without what revokes a CA with all that it has signed.
const BACK_AND_ON: [(&str, &str); 4] = [STEPS[0], STEPS[1], STEPS[2], STEPS[5]];

/// It is so far, and everything that is trusted has its key.
#[track_caller]
fn is_at(authority: &Authority, ca: &str) -> String {
    let status = status(authority, ca);
    let notes = status["notes"].to_string();
    assert!(!notes.contains("is not to be had"), "{status}");
    let phase = status["phase"].as_str().unwrap().to_owned();
    assert_eq!(status["next_step"].is_null(), phase == "settled", "{status}");
    phase
}

/// How long a step takes here that is not killed: about as long as `status`, which reads the same.
fn usual(authority: &Authority) -> Duration {
    let begun = std::time::Instant::now();
    status(authority, "tls");
    begun.elapsed() * 2
}

/// Has a step begun and killed after a while, again and again; then it is taken, unless one that was killed has.
#[track_caller]
fn killed(authority: &Authority, ca: &str, (phase, after): (&str, &str), usual: Duration) {
    let before = is_at(authority, ca);
    for kill in 1..=KILLS {
        let mut step = authority.command(["rotate", "--ca", ca, "--phase", phase, "--force"]);
        let mut step = Running::start(step.stdout(Stdio::null()).stderr(Stdio::piped()));
        let ended = step.wait_at_most(usual * kill / KILLS);
        step.kill();
        let at = is_at(authority, ca);
        assert!(at == before || at == after, "{ca} {phase}: {at}");
        if at == after {
            return;
        }
        assert!(ended.is_none(), "{ca} {phase}: {}", step.stderr());
    }
    let output = rotate(authority, ca, phase, &["--force"]);
    assert!(output.status.success(), "{ca} {phase}: {output:?}");
    assert_eq!(is_at(authority, ca), after);
}

/// Beside an authority that runs, and goes on.
#[test]
fn a_step_that_is_killed_goes_on_or_back() {
    let world = World::start();
    let authority = &world.authority;
    let usual = usual(authority);
    for ca in ALL {
        for step in STEPS {
            killed(authority, ca, step, usual);
        }
        let exported = succeed(&mut authority.command(["export", "tls-ca"]));
        std::fs::write(authority.ca_file(), exported).unwrap();
        wait_for("a job", || (world.github().once([]).code == 0).then_some(()));
        killed(authority, ca, ("finish", "settled"), usual);
        wait_for("a job", || (world.github().once([]).code == 0).then_some(()));
    }
    // Of keys that nobody uses, none is left, whoever began to make it.
    let (end, names) = (Instant::now() + PATIENCE, || key_files(&authority.data_dir()));
    // What the killed had begun to write is taken away with a later key.
    let count = || names().iter().filter(|name| !name.starts_with('.')).count();
    // One of each, the federation key that is ahead, and a certificate.
    while count() != ALL.len() + 2 {
        assert!(Instant::now() < end, "{:?}\n{}", names(), authority.stderr());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(authority.audit().iter().filter(|event| event["event"] == "rotated").count() == 7 * ALL.len());
}

/// Any of the authorities, at any moment of any step.
#[test]
fn authorities_that_are_killed_meanwhile_lose_nothing() {
    let (issuer, cluster) = (Issuer::start(), Cluster::start());
    let mut replicas = Replicas::sharing(&issuer, &cluster, 2);
    let load = replicas.load(&issuer);
    load.during(4, || {
        load.goes_on(4);
        for ca in ["ssh-user", "tls"] {
            for (phase, after) in BACK_AND_ON {
                let mut step = replicas.one(0).command(["rotate", "--ca", ca, "--phase", phase, "--force"]);
                let mut step = Running::start(step.stdout(Stdio::null()).stderr(Stdio::piped()));
                replicas.kill_one();
                assert!(step.wait().success(), "{ca} {phase}: {}", step.stderr());
                assert_eq!(is_at(replicas.one(0), ca), after);
                load.goes_on(2);
            }
        }
    });
    load.holds(|| replicas.audit());
}

/// Both are told to do the same; one does it, and the keys of both are those that the store has.
#[test]
fn of_two_operators_at_once_one_takes_the_step() {
    let (issuer, cluster) = (Issuer::start(), Cluster::start());
    let mut replicas = Replicas::sharing(&issuer, &cluster, 2);
    let load = replicas.load(&issuer);
    load.during(2, || {
        for ca in ALL {
            let mut is_taken = false;
            for (phase, after) in STEPS {
                if std::mem::take(&mut is_taken) {
                    continue;
                }
                let steps = [0, 1].map(|number| {
                    let mut step =
                        replicas.one(number).command(["rotate", "--ca", ca, "--phase", phase, "--force"]);
                    Running::start(step.stdout(Stdio::null()).stderr(Stdio::piped()))
                });
                let steps = steps.map(|mut step| (step.wait().code(), step.stderr()));
                let took = steps.iter().filter(|(code, _)| *code == Some(0)).count();
                // What goes back twice is back by two steps.
                let twice = if phase == "rollback" && after == "started" { 2 } else { 1 };
                assert!((1..=twice).contains(&took), "{ca} {phase}: {steps:?}");
                assert!(steps.iter().all(|(code, _)| matches!(code, Some(0 | 2))), "{ca} {phase}: {steps:?}");
                is_taken = took == 2;
                if is_taken {
                    continue;
                }
                wait_for(&format!("both to have it: {ca} {phase}"), || {
                    let waits = status(replicas.one(0), ca)["waiting_for"].to_string();
                    (!waits.contains("has not heard") && !waits.contains("lacks the key")).then_some(())
                });
                [0, 1].iter().for_each(|number| assert_eq!(is_at(replicas.one(*number), ca), after));
            }
            load.goes_on(4);
        }
    });
    assert!(load.troubles().is_empty(), "{:?}", load.troubles());
    let keys = [0, 1].map(|number| key_files(&replicas.one(number).data_dir()));
    assert_eq!(keys[0], keys[1]);
}

/// One that did not run meanwhile, and one that begins from a copy of the folder of before.
#[test]
fn an_authority_that_was_away_for_all_of_it_comes_back() {
    let (issuer, cluster) = (Issuer::start(), Cluster::start());
    let mut replicas = Replicas::sharing(&issuer, &cluster, 2);
    let copy = TempDir::new().unwrap();
    succeed(command("cp").arg("-a").arg(replicas.one(1).data_dir()).arg(copy.path()));
    let issues = |authority: &Authority| {
        let both = succeed(&mut authority.command(["export", "tls-ca"]));
        let client = Client::trusting(authority.address(), &both);
        let token = issuer.token("github", &authority.url()).mint();
        client.exchange(&Keys::fresh().request("github-deploy", "github", &token)).granted();
    };
    let away = |replicas: &mut Replicas| assert!(replicas.one(1).terminate().success());
    let comes_back = |replicas: &mut Replicas| {
        let first = key_files(&replicas.one(0).data_dir());
        replicas.one(1).restart();
        wait_slowly_for("the same keys", Duration::from_millis(50), || {
            (key_files(&replicas.one(1).data_dir()) == first).then_some(())
        });
        ALL.iter().for_each(|ca| drop(is_at(replicas.one(1), ca)));
        issues(replicas.one(1));
    };
    let take = |replicas: &mut Replicas, phase: &str| {
        for ca in ALL {
            let output = rotate(replicas.one(0), ca, phase, &["--force"]);
            assert!(output.status.success(), "{ca} {phase}: {output:?}");
        }
    };
    // A second time round all at once.
    for phases in [&["start"][..], &["activate"], &["finish"], &["start", "activate", "finish"]] {
        away(&mut replicas);
        phases.iter().for_each(|phase| take(&mut replicas, phase));
        comes_back(&mut replicas);
    }
    away(&mut replicas);
    let address = replicas.one(1).address();
    let mut old = replicas.one(0).replica_in(copy, address);
    old.restart();
    let first = key_files(&replicas.one(0).data_dir());
    wait_for("the keys of now", || (key_files(&old.data_dir()) == first).then_some(()));
    issues(&old);
}
