//! Three authorities over one PostgreSQL under load: replicas are killed and restarted; PostgreSQL is restarted, stopped
//! at once, killed and paused; one replica is cut off, and replies to its commits are lost; at random, for as many
//! minutes as `tests/soak` says. No test command runs it but that.

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

use std::time::{Duration, Instant};

use support::cluster::Cluster;
use support::cut::Way;
use support::issuer::Issuer;
use support::random;
use support::replicas::Replicas;

const REPLICAS: usize = 3;

#[test]
fn all_of_it_for_a_long_time() {
    let minutes: u64 = std::env::var("SOAK_MINUTES").expect("`tests/soak` says").parse().unwrap();
    let end = Instant::now() + Duration::from_secs(minutes * 60);
    let issuer = Issuer::start();
    let cluster = Cluster::start();
    let (mut replicas, way) = Replicas::sharing_by_a_cut(&issuer, &cluster, REPLICAS);
    let load = replicas.load(&issuer);
    let pause = |milliseconds: u64| std::thread::sleep(Duration::from_millis(milliseconds));
    while Instant::now() < end {
        load.during(64, || {
            for _ in 0..20 {
                load.goes_on(100);
                match random::<1>()[0] % 10 {
                    0 | 1 => replicas.kill_one(),
                    2 => replicas.restart_one(),
                    3 => cluster.restart("fast"),
                    4 => cluster.restart("immediate"),
                    5 => {
                        cluster.kill();
                        cluster.start_again();
                    }
                    6 => {
                        cluster.pause();
                        pause(3000);
                        cluster.resume();
                    }
                    7 => way.lose_commits(3),
                    bad => {
                        way.set(if bad == 8 { Way::Cut } else { Way::Stopped });
                        pause(3000);
                        way.set(Way::Open);
                    }
                }
            }
            load.steal_what_was_used();
        });
        load.holds(|| replicas.audit());
    }
}
