//! What is tried again, and when: a table and a clock, without any network.

use std::time::{Duration, Instant};

use crate::net::Trouble;
use crate::random;

/// The longest pause that we choose ourselves.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// The longest that one attempt may take, so that a hanging connection leaves time for another.
const LONGEST_ATTEMPT: Duration = Duration::from_secs(15);

/// What an attempt's failure means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may pass: try again, not before that long if it is said.
    Again(Option<Duration>),
    /// It will not.
    Final,
}

/// Judges an answer that is not 200. The same token with the same keys gets
/// the same answer, so whatever may pass is tried again; a refusal is final.
#[must_use]
pub fn of_status(status: u16, retry_after: Option<&str>, now: i64) -> Verdict {
    match status {
        408 | 425 | 429 | 500..=599 => {
            Verdict::Again(retry_after.and_then(|text| parse_retry_after(text, now)))
        }
        _ => Verdict::Final,
    }
}

/// Judges a request without an answer. A certificate that is not trusted stays so.
#[must_use]
pub fn of_trouble(trouble: &Trouble) -> Verdict {
    match trouble {
        Trouble::Untrusted(_) => Verdict::Final,
        Trouble::Timeout | Trouble::Connect(_) | Trouble::Other(_) => Verdict::Again(None),
    }
}

/// Seconds, or a date (RFC 9110, section 10.2.3).
fn parse_retry_after(text: &str, now: i64) -> Option<Duration> {
    let seconds = match text.trim().parse::<u64>() {
        Ok(seconds) => seconds,
        Err(_) => u64::try_from(parse_http_date(text)? - now).unwrap_or(0),
    };
    Some(Duration::from_secs(seconds))
}

/// Seconds since 1970 of an HTTP date such as `Sun, 06 Nov 1994 08:49:37 GMT`
/// (RFC 9110, section 5.6.7; its obsolete forms are not read).
#[must_use]
pub fn parse_http_date(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = text.trim().strip_suffix(" GMT")?.split_once(", ")?.1.split(' ');
    let (day, month, year, time) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    crate::clock::parse_rfc3339(&format!("{year}-{month:02}-{day}T{time}Z"))
}

/// When to give up, and how long to wait until then.
#[derive(Debug)]
pub struct Patience {
    deadline: Instant,
    attempts: u32,
}

impl Patience {
    /// Patience until `deadline`.
    #[must_use]
    pub fn until(deadline: Instant) -> Self {
        Self { deadline, attempts: 0 }
    }

    /// How long the next attempt may take; nothing when time is up.
    #[must_use]
    pub fn attempt(&mut self) -> Option<Duration> {
        self.attempts += 1;
        let left = self.deadline.saturating_duration_since(Instant::now());
        (left > Duration::from_millis(1)).then_some(left.min(LONGEST_ATTEMPT))
    }

    /// How long to pause before the next attempt; nothing where it would come too late.
    #[must_use]
    pub fn pause(&self, at_least: Option<Duration>) -> Option<Duration> {
        let pause =
            backoff(self.attempts, u32::from_le_bytes(random::bytes())).max(at_least.unwrap_or_default());
        let left = self.deadline.saturating_duration_since(Instant::now());
        (pause < left).then_some(pause)
    }
}

/// A quarter of a second, doubled each time, of which half is chance, so that
/// jobs that failed together do not come back together.
#[must_use]
pub fn backoff(attempts: u32, chance: u32) -> Duration {
    let whole = Duration::from_millis(250)
        .saturating_mul(1u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX))
        .min(LONGEST_PAUSE);
    whole / 2 + (whole / 2).mul_f64(f64::from(chance) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_final_and_trouble_passes() {
        for status in [400, 401, 403, 404, 409, 413, 422, 301, 204] {
            assert_eq!(of_status(status, Some("1"), 0), Verdict::Final, "{status}");
        }
        for status in [408, 429, 500, 502, 503, 504] {
            assert_eq!(of_status(status, None, 0), Verdict::Again(None), "{status}");
        }
        assert_eq!(of_status(429, Some("7"), 0), Verdict::Again(Some(Duration::from_secs(7))));
        let date = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(of_status(503, date, 784_111_770), Verdict::Again(Some(Duration::from_secs(7))));
        assert_eq!(of_status(503, date, 999_999_999), Verdict::Again(Some(Duration::ZERO)));
        assert_eq!(of_status(503, Some("later"), 0), Verdict::Again(None));
        assert_eq!(of_trouble(&Trouble::Untrusted(String::new())), Verdict::Final);
        for passing in [Trouble::Timeout, Trouble::Connect(String::new()), Trouble::Other(String::new())] {
            assert_eq!(of_trouble(&passing), Verdict::Again(None));
        }
    }

    #[test]
    fn pauses_double_up_to_a_limit() {
        assert_eq!(backoff(1, 0), Duration::from_millis(125));
        assert_eq!(backoff(1, u32::MAX), Duration::from_millis(250));
        assert_eq!(backoff(3, u32::MAX), Duration::from_secs(1));
        assert_eq!(backoff(60, u32::MAX), LONGEST_PAUSE);
    }

    #[test]
    fn patience_ends() {
        let mut patience = Patience::until(Instant::now() + Duration::from_secs(2));
        assert!(patience.attempt().unwrap() <= Duration::from_secs(2));
        assert!(patience.pause(None).is_some());
        assert_eq!(patience.pause(Some(Duration::from_secs(60))), None);
        assert_eq!(Patience::until(Instant::now()).attempt(), None);
    }

    #[test]
    fn dates() {
        assert_eq!(parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        for bad in ["", "yesterday", "Sun, 06 Foo 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT"] {
            assert_eq!(parse_http_date(bad), None, "{bad}");
        }
    }
}
