//! `kill -9` of the authority at any moment under load: whatever a client
//! holds afterwards is in the audit trail.

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

use support::issuer::Issuer;
use support::replicas::Replicas;

const ROUNDS: usize = 10;
const JOBS: usize = 16;

#[test]
fn what_a_client_holds_is_recorded() {
    let issuer = Issuer::start();
    let mut authority = Replicas::alone(&issuer, &std::env::temp_dir());
    let load = authority.load(&issuer);
    for _ in 0..ROUNDS {
        // What had no answer is asked again after each kill, and then the next.
        load.during(JOBS, || {
            load.goes_on(JOBS);
            authority.kill_one();
        });
        load.holds(|| authority.audit());
    }
    load.steal_what_was_used();
}
