//! The clock, as a value, so that tests can hold it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How far the clocks of runner, issuer and authority may be apart, in
/// seconds. JWT validation accepts it, a used token is remembered for it
/// beyond its expiry, and what is signed is valid from that long back.
pub const LEEWAY: i64 = 60;

/// The last second that X.509 and RFC 3339 can say, 9999-12-31T23:59:59Z (RFC 5280, section 4.1.2.5).
pub const LAST_SECOND: i64 = 253_402_300_799;

/// How long something that is good once must be remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Until when by the wall clock, in seconds since 1970.
    pub until: i64,
    /// The longest that it is taken for, from the first second to the last: so
    /// long it is remembered in any case, since the wall clock may be wrong.
    pub lasts: i64,
}

impl Held {
    /// When it was made, as it says itself: it is taken from a leeway before that to one after its end.
    pub fn made(self) -> i64 {
        self.until.saturating_sub(self.lasts).saturating_add(LEEWAY)
    }
}

/// Where the time comes from.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<Hand>>);

/// The hand that holds a clock.
#[derive(Debug, Default)]
struct Hand {
    unix: AtomicI64,
    /// Seconds that seem to have passed beyond those that have.
    passed: AtomicU64,
}

impl Clock {
    /// The system's clock.
    pub const fn system() -> Self {
        Self(None)
    }

    /// A clock that stands at `unix` seconds until [`Clock::set`] moves it.
    pub fn held(unix: i64) -> Self {
        let hand = Hand { unix: unix.into(), ..Hand::default() };
        Self(Some(Arc::new(hand)))
    }

    /// Steps a held clock, and every clone of it, as an operator or NTP does; the system's is left alone.
    pub fn set(&self, unix: i64) {
        if let Some(hand) = &self.0 {
            hand.unix.store(unix, Ordering::Relaxed);
        }
    }

    /// So much time seems to pass for [`Clock::instant`] of a held clock; where it stands is not changed by that.
    pub fn pass(&self, seconds: u32) {
        if let Some(hand) = &self.0 {
            hand.passed.fetch_add(seconds.into(), Ordering::Relaxed);
        }
    }

    /// Seconds since 1970, UTC.
    pub fn now(&self) -> i64 {
        match &self.0 {
            Some(hand) => hand.unix.load(Ordering::Relaxed),
            None => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX)),
        }
    }

    /// For how long something lasts, which no step of the clock changes.
    pub fn instant(&self) -> Instant {
        let passed = self.0.as_ref().map_or(0, |hand| hand.passed.load(Ordering::Relaxed));
        let now = Instant::now();
        now.checked_add(Duration::from_secs(passed)).unwrap_or(now)
    }
}

/// `2026-11-22T12:00:00Z` for seconds since 1970 (RFC 3339); times before 1970 read as 1970.
pub fn rfc3339(unix: i64) -> String {
    let since = Duration::from_secs(u64::try_from(unix.min(LAST_SECOND)).unwrap_or(0));
    humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string()
}

/// Seconds since 1970 of an RFC 3339 time.
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    let time = humantime::parse_rfc3339(text).ok()?;
    i64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_back() {
        assert_eq!(rfc3339(1_795_348_800), "2026-11-22T12:00:00Z");
        assert_eq!(parse_rfc3339("2026-11-22T12:00:00Z"), Some(1_795_348_800));
        assert_eq!(parse_rfc3339("yesterday"), None);
        assert_eq!(rfc3339(i64::MAX), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn a_held_clock_moves_with_its_clones() {
        let clock = Clock::held(7);
        let clone = clock.clone();
        clock.set(9);
        assert_eq!(clone.now(), 9);
        let begun = clone.instant();
        clock.set(-9);
        clock.pass(60);
        assert_eq!(clone.now(), -9);
        assert!(clone.instant() >= begun + Duration::from_secs(60));
    }
}
