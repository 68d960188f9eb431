//! Many workers at once, each many times, while the authority is killed and
//! restarted, answers are lost, requests come late, and workers are killed:
//! no honest one is locked. Then a copy of each storage: every one is.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a helper that fails fails its test"
)]

#[allow(dead_code, unreachable_pub, reason = "this crate uses a part of it")]
mod support;

use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use support::authority::Authority;
use support::gateway::{Gateway, Trouble};
use support::once::{Job, Outcome, copy};
use support::process::{Running, read};
use support::random;
use support::workers::{POLICY, SECRET, instances, secret, worker};

const WORKERS: usize = 200;
const JOINS: usize = 20;
/// For the threads that start a worker's runs, which are many.
const STACK: usize = 256 << 10;

fn dice(sides: u16) -> u16 {
    u16::from_le_bytes(random()) % sides
}

/// What happens to requests on their way: a fifth of them goes wrong.
fn weather() -> Option<Trouble> {
    match dice(100) {
        0..10 => Some(Trouble::LostReply),
        10..15 => Some(Trouble::Reset),
        15..20 => Some(Trouble::Late(Duration::from_millis(dice(2000).into()))),
        _ => None,
    }
}

/// What came of the runs.
#[derive(Default)]
struct Count {
    joined: AtomicUsize,
    failed: AtomicUsize,
    killed: AtomicUsize,
}

#[test]
fn no_honest_worker_is_locked_and_every_copy_is() {
    let begun = Instant::now();
    let mut authority = Authority::start(POLICY);
    let gateway = Gateway::start(&authority);
    gateway.weather(weather);
    let jobs: Vec<Job> = (0..WORKERS)
        .map(|_| {
            let job = worker(&authority).env("HTTPS_PROXY", gateway.url());
            job.env(SECRET, secret(&authority))
        })
        .collect();
    println!("{WORKERS} secrets after {:.0?}", begun.elapsed());

    let (count, ended) = (Count::default(), AtomicBool::new(false));
    let restarts = std::thread::scope(|scope| {
        let chaos = scope.spawn(|| {
            let mut restarts = 0;
            while !ended.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(500 + u64::from(dice(2000))));
                authority.restart();
                restarts += 1;
            }
            restarts
        });
        let count = &count;
        let start = |job| {
            let thread = std::thread::Builder::new().stack_size(STACK);
            thread.spawn_scoped(scope, move || work(job, count)).unwrap()
        };
        let workers: Vec<_> = jobs.iter().map(start).collect();
        let done: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        ended.store(true, Ordering::Relaxed);
        let restarts = chaos.join().unwrap();
        assert!(done.iter().all(Result::is_ok), "a worker gave up");
        restarts
    });
    // Whatever is still on its way.
    std::thread::sleep(Duration::from_secs(2));
    authority.restart();
    let accepted = authority.audit().iter().filter(|event| event["event"] == "issued").count();
    let sum = |of: &AtomicUsize| of.load(Ordering::Relaxed);
    println!(
        "{} joins of {WORKERS} workers after {:.0?}: {accepted} accepted, {} runs failed, {} killed, {restarts} restarts",
        sum(&count.joined),
        begun.elapsed(),
        sum(&count.failed),
        sum(&count.killed),
    );
    assert_eq!(sum(&count.joined), WORKERS * JOINS);
    assert!(restarts > 3 && sum(&count.killed) > WORKERS, "no trouble");
    assert!(accepted > WORKERS * JOINS, "no answer was lost");
    let list = instances(&authority);
    assert_eq!(list.len(), WORKERS);
    let locked: Vec<&Value> = list.iter().filter(|one| one["locked"] == true).collect();
    assert!(locked.is_empty(), "{} honest workers are locked: {locked:?}", locked.len());
    let fewest = list.iter().map(|one| one["generation"].as_u64().unwrap()).min().unwrap();
    assert!(fewest >= u64::try_from(JOINS).unwrap(), "one is only at {fewest}");

    let pending = copies(&gateway, &jobs);
    let list = instances(&authority);
    let locked = list.iter().filter(|one| one["locked"] == true).count();
    let events = authority.audit().iter().filter(|event| event["event"] == "locked").count();
    println!(
        "{locked} of {WORKERS} copies found, {pending} of storages with a join under way, after {:.0?}",
        begun.elapsed()
    );
    assert_eq!((list.len(), locked, events), (WORKERS, WORKERS, WORKERS));
}

/// Joins as often as it must; some of its runs are killed.
fn work(job: &Job, count: &Count) {
    let mut joined = 0;
    let end = Instant::now() + Duration::from_secs(240);
    while joined < JOINS {
        assert!(Instant::now() < end, "only {joined} joins");
        let mut command =
            job.command(["once", "--output", "ssh", "--destination", "out", "--timeout", "20s"]);
        let mut running = Running::start(command.stdout(Stdio::null()).stderr(Stdio::piped()));
        if dice(10) == 0 {
            // Anywhere between its start and its end.
            std::thread::sleep(Duration::from_millis(dice(400).into()));
            if running.ended().is_none() {
                running.signal(Signal::KILL);
                count.killed.fetch_add(1, Ordering::Relaxed);
            }
        }
        match running.wait_at_most(Duration::from_secs(60)) {
            Some(status) if status.success() => {
                joined += 1;
                count.joined.fetch_add(1, Ordering::Relaxed);
            }
            Some(_) => {
                let said = running.stderr();
                assert!(
                    !said.contains("locked") && !said.contains("registration secret is not good"),
                    "{said}"
                );
                count.failed.fetch_add(1, Ordering::Relaxed);
            }
            None => panic!("it hangs"),
        }
    }
}

/// Copies every storage, some of them while an answer is missing, and has
/// both sides join; how many were in the middle of a join.
fn copies(gateway: &Gateway, jobs: &[Job]) -> usize {
    gateway.weather(|| Some(Trouble::LostReply));
    let next = AtomicUsize::new(0);
    let pending = AtomicUsize::new(0);
    let each = |run: &(dyn Fn(usize, &Job) + Sync)| {
        next.store(0, Ordering::Relaxed);
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    while let Some((index, job)) = {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        jobs.get(index).map(|job| (index, job))
                    } {
                        run(index, job);
                    }
                });
            }
        });
    };
    let once = |job: &Job, storage: &str, direct: bool, timeout: &str| {
        let mut command =
            job.command(["once", "--output", "ssh", "--timeout", timeout, "--storage", storage]);
        if direct {
            command
                .env_remove("HTTPS_PROXY")
                .env("MACHINE_ID_DESTINATION", job.path(&format!("{storage}-out")));
        }
        Outcome::of(&support::process::run(&mut command))
    };
    each(&|index, job| {
        if index % 4 == 0 {
            once(job, "storage", false, "3s").failed(5);
            let state: Value = serde_json::from_str(&read(job.path("storage/state.json"))).unwrap();
            assert!(!state["current"]["attempt"].is_null(), "{state}");
            pending.fetch_add(1, Ordering::Relaxed);
        }
        copy(&job.path("storage"), &job.path("copy"));
    });
    each(&|index, job| {
        let order = if index % 2 == 0 { ["storage", "copy"] } else { ["copy", "storage"] };
        let first = once(job, order[0], true, "60s");
        assert_eq!(first.code, 0, "{}", first.stderr);
        let second = once(job, order[1], true, "4s");
        // Refused; or, with so many refusals at once, told to come back later.
        assert!(matches!(second.code, 4 | 5), "{} {}", second.code, second.stderr);
    });
    pending.into_inner()
}
