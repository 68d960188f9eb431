//! From when until when a certificate is good; and when its end is worth a word.

use crate::clock::rfc3339;

/// How long before a certificate ends that is told, in seconds: what trusts a CA takes a while to be told of another.
const WARN_BEFORE: i64 = 90 * 86_400;
/// For a short-lived certificate it is the last sixth of its life: whoever
/// renews it when a third is left, as ACME clients do, is never warned.
const LAST_PART: i64 = 6;

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
        let near = WARN_BEFORE.min(self.until.saturating_sub(self.from) / LAST_PART);
        let ends = || format!("ends at {}", rfc3339(self.until));
        self.fault(now).or_else(|| (now >= self.until.saturating_sub(near)).then(ends))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;

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
        }
    }
}
