//! The jobs that know the old TLS CA alone, while a new one is trusted beside it: by what they say in a header, and who says
//! nothing knows no other. They are counted, so that an operator knows whom `finish` would break.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// How long they count, in hours.
const HOURS: i64 = 24;

/// How many came lately.
#[derive(Debug, Default)]
pub(super) struct OldTrust(Mutex<Counted>);

#[derive(Debug, Default)]
struct Counted {
    /// The new CA that they did not know.
    ca: String,
    /// How many, by the hour.
    hours: VecDeque<(i64, u64)>,
}

impl OldTrust {
    /// Notes a job that was answered: what it says that it trusts, and the new CA, by the hash of its key in hexadecimal.
    pub(super) fn note(&self, said: Option<&str>, new: &str, now: i64) {
        let knows = said.is_some_and(|said| said.split(',').any(|ca| ca.trim().eq_ignore_ascii_case(new)));
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.ca != new {
            *counted = Counted { ca: new.to_owned(), hours: VecDeque::new() };
        }
        let hour = now.div_euclid(3600);
        counted.hours.retain(|(then, _)| (0..HOURS).contains(&hour.saturating_sub(*then)));
        match counted.hours.back_mut() {
            _ if knows => {}
            Some((then, count)) if *then == hour => *count = count.saturating_add(1),
            _ => counted.hours.push_back((hour, 1)),
        }
    }

    /// How many did not know it, in the last day.
    pub(super) fn count(&self, new: &str, now: i64) -> u64 {
        let counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let hour = now.div_euclid(3600);
        let of_day =
            counted.hours.iter().filter(|(then, _)| (0..HOURS).contains(&hour.saturating_sub(*then)));
        if counted.ca == new { of_day.map(|(_, count)| count).sum() } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_name_the_new_ca_counts_for_a_day() {
        let old = OldTrust::default();
        for (said, now) in
            [(None, 0), (Some("aa"), 10), (Some("aa, BB"), 20), (Some("bb"), 30), (Some(""), 3600)]
        {
            old.note(said, "bb", now);
        }
        assert_eq!((old.count("bb", 3600), old.count("cc", 3600)), (3, 0));
        assert_eq!((old.count("bb", 24 * 3600), old.count("bb", 25 * 3600)), (1, 0));
        old.note(None, "cc", 3600);
        assert_eq!((old.count("bb", 3600), old.count("cc", 3600)), (0, 1), "of another rotation");
    }
}
