//! What is tried again, and when: a table and a clock, without any network.

use std::time::{Duration, Instant, UNIX_EPOCH};

use http::HeaderMap;
use http::header::RETRY_AFTER;

use crate::net::{ByProxy, RequestError};
use crate::random;

/// The first pause, and the longest that we choose ourselves.
const SHORTEST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// The longest that one attempt may take, so that a hanging connection leaves time for another.
const LONGEST_ATTEMPT: Duration = Duration::from_secs(15);

/// What an attempt's failure means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may pass: try again, not before that long if it is said.
    Again(Option<Duration>),
    /// Another attempt would fail like this one.
    Final,
}

/// Judges an answer that is not 200, by its status and its `Retry-After`.
pub fn of_answer(status: u16, headers: &HeaderMap, now: i64) -> Verdict {
    of_status(status, headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()), now)
}

/// The same token with the same keys gets
/// the same answer, so whatever may pass is tried again; a refusal is final.
fn of_status(status: u16, retry_after: Option<&str>, now: i64) -> Verdict {
    match status {
        408 | 425 | 429 | 500..=599 => {
            Verdict::Again(retry_after.and_then(|text| parse_retry_after(text, now)))
        }
        _ => Verdict::Final,
    }
}

/// Judges a request without an answer. A certificate that is not trusted stays so,
/// and a proxy that refuses does it again.
pub fn of_error(error: &RequestError) -> Verdict {
    match error {
        RequestError::Untrusted(_) | RequestError::Proxy { why: ByProxy::Untrusted(_), .. } => Verdict::Final,
        RequestError::Proxy { why: ByProxy::Answered(status), .. } => of_status(*status, None, 0),
        RequestError::Proxy { why: ByProxy::NoConnection(_), .. }
        | RequestError::Timeout
        | RequestError::Connect(_)
        | RequestError::Other(_) => Verdict::Again(None),
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

/// Seconds since 1970 of an HTTP date (RFC 9110, section 5.6.7).
pub fn parse_http_date(text: &str) -> Option<i64> {
    let since = httpdate::parse_http_date(text.trim()).ok()?.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_secs()).ok()
}

/// Attempts until a deadline, and the pauses between them.
#[derive(Debug)]
pub struct Attempts {
    deadline: Instant,
    backoff: Backoff,
}

impl Attempts {
    /// Attempts until `deadline`.
    pub fn until(deadline: Instant) -> Self {
        Self { deadline, backoff: Backoff::new(SHORTEST_PAUSE, LONGEST_PAUSE) }
    }

    /// How long the next attempt may take; nothing when time is up.
    pub fn next(&self) -> Option<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        (left > Duration::from_millis(1)).then_some(left.min(LONGEST_ATTEMPT))
    }

    /// How long to pause before the next attempt; nothing where it would come too late.
    /// Many were told the same at the same moment, so chance adds up to a quarter to
    /// that, where there is time.
    pub fn pause(&mut self, at_least: Option<Duration>) -> Option<Duration> {
        let told = at_least.unwrap_or_default();
        let pause = self.backoff.pause_after(told);
        let left = self.deadline.saturating_duration_since(Instant::now());
        let soonest = if told < SHORTEST_PAUSE { pause } else { told };
        [pause, soonest].into_iter().find(|pause| *pause < left)
    }
}

/// Pauses that double up to the longest. Half of each is chance, so that jobs
/// that failed together do not come back together.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    /// With pauses between these two.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { next: first, longest }
    }

    /// The next pause.
    pub fn pause(&mut self) -> Duration {
        self.pause_after(Duration::ZERO)
    }

    /// The next pause, after what others were told as well.
    pub fn pause_after(&mut self, told: Duration) -> Duration {
        // Without random numbers, the whole of it.
        self.after(told, random::bytes().map_or(u32::MAX, u32::from_le_bytes))
    }

    fn after(&mut self, told: Duration, chance: u32) -> Duration {
        let half = self.next / 2;
        self.next = self.next.saturating_mul(2).min(self.longest);
        // What is told may be years; what is added to it is of no more than our own longest.
        let spread = half + (told / 4).min(self.longest);
        told.saturating_add(half + spread.mul_f64(f64::from(chance) / f64::from(u32::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Untrusted;

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
        assert_eq!(of_error(&RequestError::Untrusted(Untrusted::Expired)), Verdict::Final);
        for passing in
            [RequestError::Timeout, RequestError::Connect(String::new()), RequestError::Other(String::new())]
        {
            assert_eq!(of_error(&passing), Verdict::Again(None));
        }
    }

    #[test]
    fn pauses_double_up_to_a_limit() {
        let pauses = |chance| {
            let mut backoff = Backoff::new(SHORTEST_PAUSE, LONGEST_PAUSE);
            (0..60).map(|_| backoff.after(Duration::ZERO, chance)).collect::<Vec<_>>()
        };
        assert_eq!(pauses(0)[0], Duration::from_millis(125));
        assert_eq!(pauses(u32::MAX)[..3], [250, 500, 1000].map(Duration::from_millis));
        assert_eq!(pauses(u32::MAX)[59], LONGEST_PAUSE);
    }

    #[test]
    fn those_that_were_told_the_same_do_not_come_back_together() {
        let told = Duration::from_secs(5);
        let after = |chance| Backoff::new(SHORTEST_PAUSE, LONGEST_PAUSE).after(told, chance);
        assert_eq!(after(0), told + Duration::from_millis(125));
        assert_eq!(after(u32::MAX), told + Duration::from_millis(1500));
        assert!(Backoff::new(SHORTEST_PAUSE, LONGEST_PAUSE).after(Duration::MAX, u32::MAX) == Duration::MAX);
        let mut attempts = Attempts::until(Instant::now() + Duration::from_secs(60));
        let pauses: Vec<_> = (0..8).map(|_| attempts.pause(Some(told)).unwrap()).collect();
        assert!(pauses.iter().all(|pause| *pause > told), "{pauses:?}");
        assert!(
            pauses.windows(2).any(|pair| pair[0].abs_diff(pair[1]) > Duration::from_millis(10)),
            "{pauses:?}"
        );
        // Where there is no time for chance, at the moment that was told.
        let mut attempts = Attempts::until(Instant::now() + Duration::from_millis(5020));
        assert_eq!(attempts.pause(Some(told)), Some(told));
        // And without a word of when, no pause is made shorter.
        let mut attempts = Attempts::until(Instant::now() + Duration::from_millis(60));
        assert_eq!((attempts.pause(None), attempts.pause(Some(Duration::ZERO))), (None, None));
    }

    #[test]
    fn a_proxys_refusal_is_final() {
        let by = |why| of_error(&RequestError::Proxy { proxy: "p:3128".to_owned(), why });
        for status in [400, 401, 403, 405, 407] {
            assert_eq!(by(ByProxy::Answered(status)), Verdict::Final, "{status}");
        }
        for status in [429, 502, 503, 504] {
            assert_eq!(by(ByProxy::Answered(status)), Verdict::Again(None), "{status}");
        }
        assert_eq!(by(ByProxy::Untrusted(Untrusted::Expired)), Verdict::Final);
        assert_eq!(by(ByProxy::NoConnection(String::new())), Verdict::Again(None));
    }

    #[test]
    fn attempts_end() {
        let mut attempts = Attempts::until(Instant::now() + Duration::from_secs(2));
        assert!(attempts.next().unwrap() <= Duration::from_secs(2));
        assert!(attempts.pause(None).is_some());
        assert_eq!(attempts.pause(Some(Duration::from_secs(60))), None);
        assert_eq!(Attempts::until(Instant::now()).next(), None);
    }

    #[test]
    fn dates_in_each_form_that_http_has() {
        for text in
            ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
        {
            assert_eq!(parse_http_date(text), Some(784_111_777), "{text}");
        }
        for bad in ["", "yesterday", "Sun, 06 Foo 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37"] {
            assert_eq!(parse_http_date(bad), None, "{bad}");
        }
    }
}
