//! How long this authority has been running, by a clock that nobody can set.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

/// Seconds over all runs. What a run had not written down when it ended is
/// lost, so it never says more than was: whatever waits for it waits longer.
#[derive(Debug)]
pub(super) struct Odometer {
    before: AtomicI64,
    since: Instant,
}

impl Odometer {
    /// Which said so much when the store last heard of it.
    pub(super) fn new(before: i64) -> Self {
        Self { before: AtomicI64::new(before), since: Instant::now() }
    }

    /// What it says now, in whole seconds: what it said then and so many more are over once it says more than that.
    pub(super) fn now(&self) -> i64 {
        let run = i64::try_from(self.since.elapsed().as_secs()).unwrap_or(i64::MAX);
        self.before.load(Ordering::Relaxed).saturating_add(run)
    }

    /// What it says now, in milliseconds.
    pub(super) fn millis(&self) -> i64 {
        let run = i64::try_from(self.since.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.before.load(Ordering::Relaxed).saturating_mul(1000).saturating_add(run)
    }

    /// Runs for so many seconds.
    #[cfg(test)]
    pub(super) fn advance(&self, seconds: i64) {
        self.before.fetch_add(seconds, Ordering::Relaxed);
    }
}
