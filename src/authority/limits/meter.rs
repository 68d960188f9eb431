//! What is used of limits: here, and by all as far as the store has told.
//!
//! A limit is used in seconds of its rate: what is taken keeps it busy for so
//! long, from the moment that all before is over. So a store need not know
//! rates, and a quota that is changed keeps the part that was used.
//!
//! A limit of which less than a sixteenth was used here is not told, unless
//! the store knows of it already: an ordinary run, or a stranger that goes away
//! again, costs no row. So each authority may let in a sixteenth more, and what
//! it lets in within the second before it hears of the others.

use std::collections::HashMap;
use std::time::Instant;

use ring::digest::{Context, SHA256};

/// What part of a limit is told to the store.
const SHARE: f64 = 1.0 / 16.0;
/// How long the store remembers a limit that is free again, in seconds: others tell of this time a little later.
pub const FREE: f64 = 60.0;
/// Sums of fractions are not exact.
const ROUNDING: f64 = 1e-6;

/// Names a limit: the first half of a SHA-256 over what it is for.
pub type Key = [u8; 16];

/// What was used of a limit since the store was last told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spent {
    /// The limit.
    pub key: Key,
    /// For how many seconds that keeps it busy; below zero where more was given back.
    pub seconds: f64,
    /// How long ago the first of it was.
    pub age: f64,
}

/// How far a limit is used, by all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// The limit.
    pub key: Key,
    /// For how many seconds it is busy; below zero, for how many it has been free.
    pub seconds: f64,
}

/// The key of a limit: parts with their lengths before them.
pub(super) fn key(parts: &[&str]) -> Key {
    let mut hash = Context::new(&SHA256);
    for part in parts {
        hash.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.finish().as_ref().first_chunk().copied().unwrap_or_default()
}

/// What may be used at once, and then each second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    pub(super) burst: f64,
    pub(super) each_second: f64,
}

impl Rate {
    /// How long all of it keeps it busy.
    fn span(self) -> f64 {
        self.burst / self.each_second
    }
}

/// What is known of a limit. Times are in seconds since the meter was made.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    span: f64,
    /// Until when it is busy, by the store; where the store does not know it, for ever past.
    told: f64,
    /// What was used here that the store does not know yet.
    own: f64,
    /// When the first of that was.
    since: f64,
}

impl Bucket {
    /// For how many seconds it is busy.
    fn busy(&self, now: f64) -> f64 {
        self.told.max(self.since) + self.own - now
    }

    /// Whether what was used here is too little for its time to be told: as much would be for each of sixteen.
    fn is_little(&self, now: f64) -> bool {
        (-ROUNDING..=ROUNDING.max((now - self.since) * SHARE)).contains(&self.own)
    }

    fn use_up(&mut self, seconds: f64, now: f64) {
        if self.is_little(now) {
            (self.own, self.since) = (0.0, now);
        }
        self.own += seconds;
    }

    fn give_back(&mut self, seconds: f64) {
        // Where the store knows of it, that is to be told too.
        let least = if self.told.is_finite() { f64::NEG_INFINITY } else { 0.0 };
        self.own = (self.own - seconds).max(least);
    }
}

/// Limits that are used, by their keys.
#[derive(Debug)]
pub(super) struct Meter {
    begun: Instant,
    buckets: HashMap<Key, Bucket>,
    /// Until when limits are busy, as the store has told: those too that nobody has used here.
    heard: HashMap<Key, f64>,
}

impl Default for Meter {
    fn default() -> Self {
        Self { begun: Instant::now(), buckets: HashMap::new(), heard: HashMap::new() }
    }
}

impl Meter {
    fn at(&self, now: Instant) -> f64 {
        now.saturating_duration_since(self.begun).as_secs_f64()
    }

    pub(super) fn len(&self) -> usize {
        self.buckets.len()
    }

    pub(super) fn knows(&self, key: &Key) -> bool {
        self.buckets.contains_key(key)
    }

    /// Forgets those that are free and of which there is nothing to tell.
    pub(super) fn sweep(&mut self, now: Instant) {
        let now = self.at(now);
        self.buckets.retain(|_, bucket| bucket.busy(now) > 0.0 || !bucket.is_little(now));
    }

    /// Takes so much from each of these limits, or from none.
    ///
    /// # Errors
    /// Which has not as much left, and for how many seconds.
    pub(super) fn take(
        &mut self,
        wanted: &[(Key, Rate)],
        count: f64,
        now: Instant,
    ) -> Result<(), (usize, f64)> {
        let now = self.at(now);
        for (nth, (key, rate)) in wanted.iter().enumerate() {
            let told = || self.heard.get(key).copied().unwrap_or(f64::NEG_INFINITY);
            let new = || Bucket { span: rate.span(), told: told(), own: 0.0, since: now };
            let bucket = self.buckets.entry(*key).or_insert_with(new);
            let missing = bucket.busy(now).max(0.0) + count / rate.each_second - rate.span();
            if missing > ROUNDING {
                return Err((nth, missing));
            }
        }
        for (key, rate) in wanted {
            if let Some(bucket) = self.buckets.get_mut(key) {
                bucket.use_up(count / rate.each_second, now);
            }
        }
        Ok(())
    }

    /// Gives back what was taken.
    pub(super) fn give_back(&mut self, taken: &[(Key, Rate)], count: f64) {
        for (key, rate) in taken {
            if let Some(bucket) = self.buckets.get_mut(key) {
                bucket.give_back(count / rate.each_second);
            }
        }
    }

    /// What the store is to be told.
    pub(super) fn spent(&self, now: Instant) -> Vec<Spent> {
        let now = self.at(now);
        let is_told = |bucket: &Bucket| {
            let least = if bucket.told.is_finite() { 0.0 } else { bucket.span * SHARE };
            bucket.own < -ROUNDING || bucket.own > ROUNDING.max(least - ROUNDING)
        };
        let spent = |(key, bucket): (&Key, &Bucket)| Spent {
            key: *key,
            seconds: bucket.own,
            age: now - bucket.since,
        };
        self.buckets.iter().filter(|(_, bucket)| is_told(bucket)).map(spent).collect()
    }

    /// Takes what the store tells of all limits that it knows, now that it was told this.
    pub(super) fn heard(&mut self, spent: &[Spent], levels: &[Level], now: Instant) {
        let now = self.at(now);
        self.heard = levels.iter().map(|level| (level.key, now + level.seconds)).collect();
        for Spent { key, seconds, .. } in spent {
            if let Some(bucket) = self.buckets.get_mut(key) {
                bucket.own -= seconds;
                bucket.since = now;
            }
        }
        for (key, bucket) in &mut self.buckets {
            bucket.told = self.heard.get(key).copied().unwrap_or(f64::NEG_INFINITY);
        }
    }
}
