//! What a replica knows of the store: how far it had come, and how long authorities have been running with it.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::super::locks::Locks;
use super::super::loss::{self, GoneOnWith, Loss};
use super::super::seal::Seal;

/// How far a replica's odometer may be from the store's, in seconds.
pub(super) const APART: i64 = 30;

/// So many seconds late at most is the odometer's progress written down.
const WRITTEN: i64 = 5;

/// What a replica knows of the store that it writes to.
#[derive(Debug)]
pub(super) struct Known {
    /// Its identity.
    pub(super) store: String,
    /// What its rows are sealed with; none where nothing that is sealed is asked for.
    seal: Option<Arc<Seal>>,
    /// How far it surely had come.
    loss: Mutex<loss::Known>,
    /// Whom operators have shut out, as last seen.
    locks: Mutex<Arc<Locks>>,
    /// The number of the CAs, as last heard.
    cas: AtomicI64,
    /// Another once something was revoked by anybody.
    revocations: AtomicU64,
    odometer: Mutex<Odometer>,
    /// By how much tests have put the odometer ahead of the time that passed.
    #[cfg(test)]
    ahead: AtomicI64,
}

/// How long authorities have been running with this store: what the store said, and since when it has; and
/// when it was last asked.
#[derive(Debug)]
struct Odometer {
    run: i64,
    since: Instant,
    asked: Instant,
}

impl Known {
    /// A store that is only begun to be known, by its mark.
    pub(super) fn new(store: String, seal: Option<Arc<Seal>>, known: loss::Known, run: i64) -> Self {
        let now = Instant::now();
        Self {
            store,
            seal,
            loss: Mutex::new(known),
            // A number that no store has.
            locks: Mutex::new(Arc::new(Locks { number: -1, ..Locks::default() })),
            cas: AtomicI64::new(-1),
            revocations: AtomicU64::new(0),
            odometer: Mutex::new(Odometer { run, since: now, asked: now }),
            #[cfg(test)]
            ahead: AtomicI64::new(0),
        }
    }

    /// The number of revocations as last seen.
    pub(super) fn revocations(&self) -> u64 {
        self.revocations.load(Ordering::SeqCst)
    }

    /// How far it surely had come, and when it was put back.
    pub(super) fn loss(&self) -> MutexGuard<'_, loss::Known> {
        self.loss.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When it was put back last.
    pub(super) fn restored(&self) -> Option<i64> {
        self.loss().reached.restored
    }

    /// Whether it was an authority that wrote when the store was gone on with last.
    pub(super) fn believes(&self, restored: Option<i64>, mac: Option<&[u8]>) -> bool {
        let (Some(seal), Some(time)) = (&self.seal, restored) else { return true };
        seal.holds(&GoneOnWith(&self.store, time), mac)
    }

    /// What rows are sealed with, if they are judged.
    pub(super) fn seal(&self) -> Option<&Seal> {
        self.seal.as_deref()
    }

    /// The seal of that it is gone on with at that time.
    pub(super) fn gone_on_with(&self, time: i64) -> Option<Vec<u8>> {
        Some(self.seal.as_ref()?.of(&GoneOnWith(&self.store, time)).to_vec())
    }

    /// Whom operators have shut out, as last seen: what is judged by it is written where that is so still.
    pub(super) fn locks(&self) -> Arc<Locks> {
        Arc::clone(&self.locks.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// They have, as was read.
    pub(super) fn hear_locks(&self, locks: Locks) {
        *self.locks.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(locks);
    }

    /// The number of the CAs as last heard: what is to be signed by them is recorded where that is so still.
    pub(super) fn cas(&self) -> i64 {
        self.cas.load(Ordering::SeqCst)
    }

    /// They are those, as was read.
    pub(super) fn hear_cas(&self, number: i64) {
        self.cas.store(number, Ordering::SeqCst);
    }

    /// Whether the store is the one that it was when somebody's proof was judged.
    pub(super) fn check(&self, restored: Option<i64>) -> Result<(), Loss> {
        if self.restored() == restored { Ok(()) } else { Err(Loss::meanwhile()) }
    }

    /// What the odometer says, at least: the time since the store was last asked counts only where that is not long ago, since
    /// others may have had none of it.
    pub(super) fn run(&self) -> i64 {
        let Ok(odometer) = self.odometer.lock() else { return 0 };
        let passed = |since: Instant| i64::try_from(since.elapsed().as_secs()).unwrap_or(i64::MAX);
        if passed(odometer.asked) > APART {
            odometer.run
        } else {
            odometer.run.saturating_add(passed(odometer.since))
        }
    }

    /// The same in milliseconds.
    pub(super) fn millis(&self) -> i64 {
        let Ok(odometer) = self.odometer.lock() else { return 0 };
        let passed = i64::try_from(odometer.since.elapsed().as_millis()).unwrap_or(i64::MAX);
        let run = odometer.run;
        #[cfg(test)]
        let run = run - self.ahead.load(Ordering::SeqCst);
        run.saturating_mul(1000).saturating_add(passed)
    }

    /// Until when by the odometer something is held that is good for `lasts` seconds from now on. The
    /// store's may be behind by as much as this one is.
    pub(super) fn held(&self, lasts: i64) -> i64 {
        self.run().saturating_add(lasts).saturating_add(2 * APART)
    }

    /// Whether others should hear what the odometer says.
    pub(super) fn run_is_late(&self) -> bool {
        let said = self.odometer.lock().map_or(0, |odometer| odometer.run);
        self.run().saturating_sub(said) >= WRITTEN
    }

    /// Has the authority run for so many seconds.
    #[cfg(test)]
    pub(super) fn advance(&self, seconds: i64) {
        // What is held is held for longer than it must be.
        self.odometer.lock().unwrap().run += seconds + 2 * APART;
        self.ahead.fetch_add(2 * APART, Ordering::SeqCst);
    }

    /// Something was revoked, and that was counted.
    pub(super) fn revoked(&self, revocations: i64) {
        self.revocations.fetch_max(u64::try_from(revocations).unwrap_or(0), Ordering::SeqCst);
    }

    /// Takes in what the store says.
    pub(super) fn hear(&self, run: i64, revocations: i64) {
        self.revoked(revocations);
        if let Ok(mut odometer) = self.odometer.lock() {
            let now = Instant::now();
            let was_away = now.duration_since(odometer.asked).as_secs() > APART.unsigned_abs();
            if run > odometer.run || was_away {
                (odometer.run, odometer.since) = (run, now);
            }
            odometer.asked = now;
        }
    }
}
