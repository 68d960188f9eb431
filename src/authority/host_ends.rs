//! Certificates of hosts and servers that end soon, and that no later one has replaced.
//!
//! Operators sign them for months and know them by heart or not at all; workers renew theirs, until they do not. Those of other
//! jobs end with what they are for.

use std::collections::{HashMap, HashSet};

use super::store::CertificateKind;
use super::store::hosts::{HostCertificate, HostTrail, Renewal};
use super::validity::{BY_HAND, BY_ITSELF, Ending, Validity};
use crate::error::Result;
use crate::text::{counted, shown};

/// So many are looked at, those that end first: where there are more, one is told of once it is among them.
const MOST: usize = 50_000;
/// So many at once, between which others read.
const PAGE: usize = 500;
/// A certificate of another key takes the place of one for so long, in seconds, and those are looked at that have ended since twice
/// that: whether its key had one before.
const YEAR: i64 = 366 * 86_400;
/// So many are named.
const NAMED: usize = 10;

/// Those that end soon, as of one look.
#[derive(Debug, Default)]
pub struct HostEnds {
    /// By their ends.
    soon: Vec<Ending>,
    /// Whether there were more than are looked at.
    has_more: bool,
}

impl HostEnds {
    /// Looks for them, by the index of their ends.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn look(trail: &(impl HostTrail + Sync + ?Sized), now: i64) -> Result<Self> {
        let (all, has_more) = read(trail, now, i64::MAX).await?;
        let (ended, has_more_ended) = read(trail, now.saturating_sub(2 * YEAR), now).await?;
        // An end that is told though there is another is better than one that is not told.
        let new_from = if has_more_ended { now } else { now.saturating_sub(YEAR) };
        Ok(Self { soon: soon([ended, all].concat(), new_from, now), has_more })
    }

    fn at(&self, now: i64) -> impl Iterator<Item = &Ending> {
        self.soon.iter().filter(move |one| now < one.validity.until)
    }

    /// Those that end first, and what else there is to say of the others.
    pub fn named(&self, now: i64) -> (Vec<Ending>, Vec<String>) {
        let others = self.at(now).skip(NAMED).count();
        let others = (others > 0)
            .then(|| format!("{} of hosts and servers end soon, too", counted(others, "more certificate")));
        let more = self.has_more.then(|| {
            format!("there are more than {MOST} certificates of hosts, and only of those that end first it is told")
        });
        (self.at(now).take(NAMED).cloned().collect(), others.into_iter().chain(more).collect())
    }

    /// When the first of them ends, and how many they are, without their names: for whoever asks.
    pub fn first(&self, now: i64) -> Option<Ending> {
        let first = self.at(now).next()?;
        let what = match self.at(now).count() {
            1 => "a certificate of a host or server".to_owned(),
            count => format!("the first of {count} certificates of hosts and servers"),
        };
        Some(Ending { what, validity: first.validity })
    }
}

/// Those that end later than `since`, and not later than `until`; and whether there are more.
async fn read(
    trail: &(impl HostTrail + Sync + ?Sized),
    since: i64,
    until: i64,
) -> Result<(Vec<HostCertificate>, bool)> {
    let (mut all, mut after) = (Vec::new(), (since, u64::MAX));
    loop {
        let page = trail.living(after, PAGE).await?;
        let is_last = page.len() < PAGE || page.last().is_some_and(|last| last.until > until);
        after = page.last().map_or(after, |last| (last.until, last.serial));
        all.extend(page.into_iter().filter(|one| one.until <= until));
        if is_last || all.len() >= MOST {
            return Ok((all, !is_last));
        }
    }
}

/// Those that end soon and are not replaced. A later one replaces it that has the same key and one of its names. Of another key
/// each of its names has to be on one that is later than the middle of its life, later than `new_from`, and the first of its key,
/// those that have ended among them: who signs for two servers of one name does so when they are set up, and renews each by its
/// own key.
fn soon(mut all: Vec<HostCertificate>, new_from: i64, now: i64) -> Vec<Ending> {
    all.sort_by_key(|one| one.issuance);
    let (mut keys, mut of_key, mut of_new) = (HashSet::new(), HashMap::new(), HashMap::new());
    for one in &all {
        let is_new = keys.insert(one.key_hash) && one.from > new_from;
        for name in names(one) {
            of_key.insert((name, one.key_hash), one.issuance);
            if is_new {
                let last = of_new.entry(name).or_insert(one.from);
                *last = one.from.max(*last);
            }
        }
    }
    let is_replaced = |one: &HostCertificate| {
        let middle = one.from.midpoint(one.until);
        names(one).any(|name| of_key.get(&(name, one.key_hash)).is_some_and(|last| *last > one.issuance))
            || !one.names.is_empty()
                && names(one).all(|name| of_new.get(&name).is_some_and(|last| *last > middle))
    };
    let ending = |one: &HostCertificate| {
        let (kind, validity) = (words(one.kind), Validity { from: one.from, until: one.until });
        let parts = match one.renewal {
            Renewal::Operator => BY_HAND,
            Renewal::Worker => BY_ITSELF,
            Renewal::Job => return None,
        };
        let name = shown(one.names.first().map_or("no name", String::as_str));
        let what = format!("the {kind} certificate of {name} (serial {})", one.serial);
        (now < one.until && validity.ends_soon(now, parts) && !is_replaced(one))
            .then_some(Ending { what, validity })
    };
    let mut soon: Vec<Ending> = all.iter().filter_map(ending).collect();
    soon.sort_by_key(|one| one.validity.until);
    soon
}

/// What servers are known by: of SSH and TLS apart.
fn names(one: &HostCertificate) -> impl Iterator<Item = (&'static str, &str)> {
    one.names.iter().map(|name| (words(one.kind), name.as_str()))
}

fn words(kind: CertificateKind) -> &'static str {
    match kind {
        CertificateKind::Ssh => "SSH host",
        CertificateKind::Tls => "TLS server",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;

    /// One that an operator has signed on that day, of that key, for a year.
    fn one(day: i64, key: u8, name: &str) -> HostCertificate {
        HostCertificate {
            serial: u64::try_from(day).unwrap() * 100 + u64::from(key),
            kind: CertificateKind::Tls,
            names: vec![name.to_owned(), format!("{name}.example.com")],
            key_hash: [key; 32],
            issuance: day * 100 + i64::from(key),
            from: day * DAY,
            until: (day + 360) * DAY,
            renewal: Renewal::Operator,
        }
    }

    /// The serials of those that are told on that day.
    fn told(all: &[HostCertificate], day: i64) -> Vec<String> {
        let serial = |one: &Ending| one.what.split(['(', ')']).nth(1).unwrap().replace("serial ", "");
        soon(all.to_vec(), 0, day * DAY).iter().map(serial).collect()
    }

    #[test]
    fn a_certificate_is_replaced_by_a_later_one_of_its_key_or_by_a_new_key_when_it_was_time() {
        let (old, ssh) = (one(0, 1, "db"), HostCertificate { kind: CertificateKind::Ssh, ..one(0, 2, "db") });
        let fewer = |day, key| HostCertificate { names: vec!["db".to_owned()], ..one(day, key, "db") };
        for (what, other, is_told) in [
            ("nothing", ssh, true),
            ("the same key", one(10, 1, "db"), false),
            ("the same key for some of it", fewer(10, 1), false),
            ("the same key elsewhere", one(10, 1, "web"), true),
            ("another server of that name", one(10, 3, "db"), true),
            ("a new key", one(200, 3, "db"), false),
            ("a new key for some of it", fewer(200, 3), true),
            ("another host", one(200, 3, "web"), true),
            ("a job", HostCertificate { renewal: Renewal::Job, ..one(200, 3, "db") }, false),
        ] {
            let all = [other.clone(), old.clone()];
            let of_old = told(&all, 300).contains(&"1".to_owned());
            assert_eq!(of_old, is_told, "{what}");
        }
        // Of two servers of one name, each is renewed by its own.
        let both = [old, one(10, 3, "db"), one(300, 3, "db")];
        assert_eq!(told(&both, 350), ["1"]);
        // Nor does one take the other's place whose own one before has ended by now.
        let both = [one(0, 1, "db"), one(100, 2, "db"), one(350, 1, "db")];
        assert_eq!(told(&both, 380), ["10002"]);
        // Where it is not known which keys are new, none is.
        let replaced = [one(0, 1, "db"), one(200, 3, "db")].to_vec();
        let count = |new_from| soon(replaced.clone(), new_from * DAY, 300 * DAY).len();
        assert_eq!((count(199), count(200)), (0, 1));
    }

    #[test]
    fn who_renews_by_hand_is_told_before_who_renews_by_itself_is() {
        let short = |renewal| HostCertificate { until: 90 * DAY, renewal, ..one(0, 1, "db") };
        for (renewal, first) in
            [(Renewal::Operator, Some(60)), (Renewal::Worker, Some(75)), (Renewal::Job, None)]
        {
            let mut days = (0..90).filter(|day| !told(&[short(renewal)], *day).is_empty());
            assert_eq!(days.next(), first, "{renewal:?}");
        }
        // Nobody is told of a year's before 90 days.
        assert_eq!((told(&[one(0, 1, "db")], 269).len(), told(&[one(0, 1, "db")], 270).len()), (0, 1));
    }

    #[test]
    fn the_first_are_named_and_the_others_counted() {
        let all: Vec<_> = (0..13).map(|n| one(n, u8::try_from(n).unwrap(), &format!("db-{n}"))).collect();
        let ends = HostEnds { soon: soon(all, 0, 300 * DAY), has_more: true };
        let (named, more) = ends.named(300 * DAY);
        assert_eq!((named.len(), more.len()), (NAMED, 2));
        assert_eq!(more[0], "3 more certificates of hosts and servers end soon, too");
        let first = ends.first(300 * DAY).unwrap();
        assert_eq!(
            first.line(300 * DAY),
            "the first of 13 certificates of hosts and servers ends at 1970-12-27T00:00:00Z: 60 days left"
        );
        // What has ended is told no more.
        assert_eq!(ends.named(361 * DAY).0[0].what, "the TLS server certificate of db-2 (serial 202)");
        assert_eq!(ends.first(372 * DAY - 1).unwrap().what, "a certificate of a host or server");
        assert!(ends.first(372 * DAY).is_none());
    }
}
