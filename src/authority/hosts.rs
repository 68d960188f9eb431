//! The hosts that have proved lately which they are, until the store hears of them: of each what it said last, once a minute at
//! most unless its CAs are others, those of a second in one commit.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::store::hosts::{HostNews, MAX_HOSTS};

/// How often the store hears of a host at most.
const EVERY: Duration = Duration::from_secs(60);

/// What is known of them.
#[derive(Debug, Default)]
pub struct Heard(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// When the store heard of each, and a hash of the CAs that it had.
    told: BTreeMap<String, (Instant, u64)>,
    /// What it is to hear next.
    waiting: BTreeMap<String, HostNews>,
}

impl Known {
    fn put(&mut self, news: HostNews) {
        match (self.waiting.get_mut(news.name()), news) {
            (Some(HostNews::Said(host)), HostNews::There(_, seen)) => host.seen = seen,
            (_, news) => drop(self.waiting.insert(news.name().to_owned(), news)),
        }
    }
}

impl Heard {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a host.
    pub fn note(&self, news: HostNews) {
        let mut known = self.known();
        // Who finds no place comes again.
        if known.waiting.len() < MAX_HOSTS || known.waiting.contains_key(news.name()) {
            known.put(news);
        }
    }

    /// Notes those again of which the store could not hear.
    pub fn put_back(&self, hosts: Vec<HostNews>) {
        let mut known = self.known();
        for news in hosts {
            // What it has said since counts.
            let later = known.waiting.remove(news.name());
            known.put(news);
            later.into_iter().for_each(|later| known.put(later));
        }
    }

    /// Whether a host's name was not noted for so long that it should be, if it is there.
    pub fn wants(&self, name: &str, now: Instant) -> bool {
        let known = self.known();
        !known.waiting.contains_key(name)
            && known.told.get(name).is_none_or(|(told, _)| !is_recent(*told, now))
    }

    /// Those of which the store is to hear now.
    pub fn take(&self, now: Instant) -> Vec<HostNews> {
        let mut known = self.known();
        known.told.retain(|_, (told, _)| is_recent(*told, now));
        let mut due = Vec::new();
        for (name, host) in std::mem::take(&mut known.waiting) {
            let cas = match &host {
                HostNews::Said(host) => Some(hash(&host.cas)),
                HostNews::There(..) => None,
            };
            let told = known.told.get(&name).map(|(_, cas)| *cas);
            // Other CAs are told at once: a rotation waits for them.
            let is_due = told.map_or(known.told.len() < MAX_HOSTS, |told| cas.is_some_and(|cas| cas != told));
            if is_due {
                known.told.insert(name, (now, cas.or(told).unwrap_or_default()));
                due.push(host);
            } else {
                known.waiting.insert(name, host);
            }
        }
        due
    }
}

fn hash(cas: &[String]) -> u64 {
    let mut hasher = DefaultHasher::new();
    cas.hash(&mut hasher);
    hasher.finish()
}

fn is_recent(told: Instant, now: Instant) -> bool {
    now.saturating_duration_since(told) < EVERY
}

#[cfg(test)]
mod tests {
    use super::super::store::hosts::HostSeen;
    use super::*;

    fn host(name: &str, list: u64) -> HostNews {
        HostNews::Said(HostSeen {
            name: name.to_owned(),
            seen: 1,
            list: Some(list),
            cas: Vec::new(),
            serial: 7,
        })
    }

    /// Name, list and when it was seen.
    fn taken(heard: &Heard, now: Instant) -> Vec<(String, Option<u64>, i64)> {
        let taken = heard.take(now).into_iter();
        taken
            .map(|news| match news {
                HostNews::Said(host) => (host.name, host.list, host.seen),
                HostNews::There(name, seen) => (name, None, seen),
            })
            .collect()
    }

    #[test]
    fn the_store_hears_of_a_host_once_a_minute_and_of_what_it_said_last() {
        let (heard, start) = (Heard::default(), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        for second in 0..150 {
            for name in ["web-1", "web-2"] {
                heard.note(host(name, second));
            }
            let all = ["web-1", "web-2"].map(|name| (name.to_owned(), Some(second), 1));
            let told = taken(&heard, at(second));
            assert_eq!(told, if second % 60 == 0 { all.to_vec() } else { vec![] }, "{second}");
        }
        // Nothing of that is lost, though nothing follows but that one of them is there.
        assert!(!heard.wants("web-1", at(150)), "it waits");
        heard.note(HostNews::There("web-2".into(), 5));
        assert!(taken(&heard, at(179)).is_empty());
        let both = [("web-1".to_owned(), Some(149), 1), ("web-2".to_owned(), Some(149), 5)];
        assert_eq!(taken(&heard, at(180)), both);
        assert!(
            !heard.wants("web-1", at(239)) && heard.wants("web-1", at(240)) && heard.wants("web-3", at(180))
        );
        heard.note(HostNews::There("web-1".into(), 6));
        assert_eq!(taken(&heard, at(240)), [("web-1".to_owned(), None, 6)]);
    }

    #[test]
    fn what_the_store_could_not_hear_it_hears_later_unless_another_was_said() {
        let (heard, start) = (Heard::default(), Instant::now());
        for name in ["web-1", "web-2", "web-3"] {
            heard.note(host(name, 1));
        }
        let lost = heard.take(start);
        heard.note(host("web-2", 2));
        heard.note(HostNews::There("web-3".into(), 5));
        heard.put_back(lost);
        let all = [("web-1", 1, 1), ("web-2", 2, 1), ("web-3", 1, 5)];
        let all = all.map(|(name, list, seen)| (name.to_owned(), Some(list), seen));
        assert_eq!(taken(&heard, start + EVERY), all);
    }

    #[test]
    fn of_other_cas_the_store_hears_at_once() {
        let (heard, start) = (Heard::default(), Instant::now());
        let with = |cas: &str| match host("web-1", 1) {
            HostNews::Said(host) => HostNews::Said(HostSeen { cas: vec![cas.into()], ..host }),
            other => other,
        };
        let count = |news| {
            heard.note(news);
            heard.take(start).len()
        };
        let told =
            [with("a"), with("a"), with("b"), HostNews::There("web-1".into(), 2), with("a")].map(count);
        assert_eq!(told, [1, 0, 1, 0, 1]);
    }

    #[test]
    fn so_many_are_known_and_no_more() {
        let (heard, start) = (Heard::default(), Instant::now());
        for n in 0..MAX_HOSTS + 10 {
            heard.note(host(&format!("ci-{n}"), 1));
        }
        assert_eq!(heard.take(start).len(), MAX_HOSTS);
        heard.note(host("web-1", 1));
        assert!(heard.take(start).is_empty(), "nobody is forgotten for it");
        assert_eq!(heard.take(start + EVERY).len(), 1);
    }
}
