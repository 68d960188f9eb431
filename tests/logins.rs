//! How long it takes until whoever was shut out is out: as often as `tests/logins` says. No test command runs it but that.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a helper that fails fails its test"
)]

#[allow(dead_code, unreachable_pub, reason = "this crate uses a part of it")]
mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use support::shut_out::{Stage, Way};

const PROMISED: Duration = Duration::from_secs(1);
/// Half of them are the job's.
const WAYS: [Way; 4] = [Way::Cleanup, Way::LockAtOne, Way::Cleanup, Way::LockAtOther];

#[test]
fn so_many_are_shut_out() {
    let count: usize = std::env::var("LOGINS").expect("`tests/logins` says").parse().unwrap();
    let mut stage = Stage::start();
    let mut times: BTreeMap<String, Vec<Duration>> = BTreeMap::new();
    for number in 0..count {
        let way = WAYS[number % WAYS.len()];
        let took = stage.shut_out(way);
        let longest = took.iter().map(|(_, time)| *time).max().unwrap();
        if longest > PROMISED {
            println!("run {number}, {way:?}: {took:?}");
        }
        for (what, time) in took {
            times.entry(what.to_owned()).or_default().push(time);
        }
        times.entry(format!("all of it, {way:?}")).or_default().push(longest);
        times.entry("all of it".to_owned()).or_default().push(longest);
    }
    for (what, mut times) in times {
        times.sort();
        let within = times.iter().filter(|time| **time <= PROMISED).count();
        let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)].as_millis();
        let (p50, p99, max) = (at(50), at(99), times.last().unwrap().as_millis());
        println!(
            "{what:32} {within} of {} within 1 s; p50 {p50} ms, p99 {p99} ms, at most {max} ms",
            times.len()
        );
    }
}
