//! From when until when a certificate is good; and when its end is worth a word.

use serde_json::{Value, json};

use crate::clock::rfc3339;
use crate::text::counted;

const DAY: i64 = 86_400;

/// How long before a certificate ends that is told, in seconds: what trusts a CA takes a while to be told of another.
const WARN_BEFORE: i64 = 90 * DAY;
/// For a short-lived certificate it is the last sixth of its life: whoever
/// renews it when a third is left, as ACME clients and workers do, is never warned.
pub const BY_ITSELF: i64 = 6;
/// Of one that is renewed by hand it is the last third: somebody has to find the time.
pub const BY_HAND: i64 = 3;

/// What the TLS CA that signs is called among what ends.
pub const TLS_CA: &str = "the TLS CA";
/// And what the other one is, while two are trusted.
pub const NEXT_TLS_CA: &str = "the next TLS CA";
/// The same of one that signed before.
pub const FORMER_TLS_CA: &str = "the former TLS CA";

/// From when, and until when not any more, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first second of it.
    pub from: i64,
    /// The first second after it.
    pub until: i64,
}

impl Validity {
    /// Of a certificate in DER.
    ///
    /// # Errors
    /// Where it is none, in words that follow the file's name.
    pub fn of(der: &[u8]) -> Result<Self, String> {
        let (_, read) = x509_parser::parse_x509_certificate(der)
            .map_err(|error| format!("is not a certificate: {error}"))?;
        let validity = read.validity();
        Ok(Self { from: validity.not_before.timestamp(), until: validity.not_after.timestamp() })
    }

    /// Why it is not good at `now`, in words that follow the certificate's name.
    pub fn fault(self, now: i64) -> Option<String> {
        if now < self.from {
            return Some(format!("is not valid before {}", rfc3339(self.from)));
        }
        (now >= self.until).then(|| format!("ended at {}", rfc3339(self.until)))
    }

    /// That it ends soon, or why it is not good at `now`.
    pub fn warning(self, now: i64) -> Option<String> {
        self.warning_in(now, BY_ITSELF)
    }

    /// The same of a CA, which nobody renews by the way.
    pub fn ca_warning(self, now: i64) -> Option<String> {
        self.warning_in(now, 1)
    }

    fn warning_in(self, now: i64, parts: i64) -> Option<String> {
        let ends = || format!("ends at {}", rfc3339(self.until));
        self.fault(now).or_else(|| self.ends_soon(now, parts).then(ends))
    }

    /// Whether it is in the last of so many parts of its life, and has 90 days left at most.
    pub fn ends_soon(self, now: i64, parts: i64) -> bool {
        let part = self.until.saturating_sub(self.from).checked_div(parts).unwrap_or(WARN_BEFORE);
        now >= self.until.saturating_sub(WARN_BEFORE.min(part))
    }

    /// When both are good.
    pub fn both(self, other: Self) -> Self {
        Self { from: self.from.max(other.from), until: self.until.min(other.until) }
    }

    /// How many whole days are left of it; fewer than none where it has ended.
    pub fn days_left(self, now: i64) -> i64 {
        self.until.saturating_sub(now).div_euclid(DAY)
    }
}

/// What ends, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// What it is.
    pub what: String,
    /// When it is good.
    pub validity: Validity,
}

impl Ending {
    /// For programs that watch it.
    pub fn json(&self, now: i64) -> Value {
        let Validity { until, .. } = self.validity;
        json!({"what": self.what, "at": rfc3339(until), "days_left": self.validity.days_left(now)})
    }

    /// On a line.
    pub fn line(&self, now: i64) -> String {
        let Self { what, validity } = self;
        let end = rfc3339(validity.until);
        match usize::try_from(validity.days_left(now)) {
            Ok(days) => format!("{what} ends at {end}: {} left", counted(days, "day")),
            Err(_) => format!("{what} ended at {end}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_count() {
        let one = Validity { from: 100, until: 200 };
        assert_eq!(one.fault(99).unwrap(), "is not valid before 1970-01-01T00:01:40Z");
        assert_eq!((one.fault(100), one.fault(199)), (None, None));
        assert_eq!(one.fault(200).unwrap(), "ended at 1970-01-01T00:03:20Z");
    }

    #[test]
    fn an_end_is_told_in_good_time() {
        for (life, before) in [(3650 * DAY, 90 * DAY), (398 * DAY, 398 * DAY / 6), (90 * DAY, 15 * DAY)] {
            let one = Validity { from: 0, until: life };
            assert_eq!(one.warning(life - before - 1), None, "{life}");
            assert!(one.warning(life - before).unwrap().starts_with("ends at "), "{life}");
            assert!(one.warning(life).unwrap().starts_with("ended at "), "{life}");
            assert_eq!(
                (one.ca_warning(life - 90 * DAY - 1).is_some(), one.ca_warning(life - 90 * DAY).is_some()),
                (life == 90 * DAY, true)
            );
        }
    }

    #[test]
    fn days_that_are_left_are_whole() {
        let one = Ending { what: "it".to_owned(), validity: Validity { from: 0, until: 100 * DAY } };
        for (now, days, line) in [
            (0, 100, "it ends at 1970-04-11T00:00:00Z: 100 days left"),
            (1, 99, "it ends at 1970-04-11T00:00:00Z: 99 days left"),
            (100 * DAY - 1, 0, "it ends at 1970-04-11T00:00:00Z: 0 days left"),
            (100 * DAY + 1, -1, "it ended at 1970-04-11T00:00:00Z"),
        ] {
            assert_eq!((one.json(now)["days_left"].as_i64(), one.line(now).as_str()), (Some(days), line));
        }
    }
}
