//! The hosts that have proved lately which they are, until the store hears of them: of each what it said last, once a minute at
//! most, those of a second in one commit.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::store::hosts::{HostSeen, MAX_HOSTS};

/// How often the store hears of a host at most.
const EVERY: Duration = Duration::from_secs(60);

/// What is known of them.
#[derive(Debug, Default)]
pub struct Heard(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// When the store heard of each.
    told: BTreeMap<String, Instant>,
    /// What it is to hear next.
    waiting: BTreeMap<String, HostSeen>,
}

impl Heard {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a host.
    pub fn note(&self, host: HostSeen) {
        let mut known = self.known();
        // Who finds no place comes again.
        if known.waiting.len() < MAX_HOSTS || known.waiting.contains_key(&host.name) {
            known.waiting.insert(host.name.clone(), host);
        }
    }

    /// Notes those again of which the store could not hear, where they have not said another thing since.
    pub fn put_back(&self, hosts: Vec<HostSeen>) {
        let mut known = self.known();
        for host in hosts {
            known.waiting.entry(host.name.clone()).or_insert(host);
        }
    }

    /// Whether a host's name was not noted for so long that it should be, if it is there.
    pub fn wants(&self, name: &str, now: Instant) -> bool {
        let known = self.known();
        !known.waiting.contains_key(name) && known.told.get(name).is_none_or(|told| !is_recent(*told, now))
    }

    /// Those of which the store is to hear now.
    pub fn take(&self, now: Instant) -> Vec<HostSeen> {
        let mut known = self.known();
        known.told.retain(|_, told| is_recent(*told, now));
        let mut due = Vec::new();
        for (name, host) in std::mem::take(&mut known.waiting) {
            if known.told.contains_key(&name) || known.told.len() >= MAX_HOSTS {
                known.waiting.insert(name, host);
            } else {
                known.told.insert(name, now);
                due.push(host);
            }
        }
        due
    }
}

fn is_recent(told: Instant, now: Instant) -> bool {
    now.saturating_duration_since(told) < EVERY
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, list: u64) -> HostSeen {
        HostSeen { name: name.to_owned(), seen: 1, list: Some(list), cas: Vec::new(), serial: 7 }
    }

    #[test]
    fn the_store_hears_of_a_host_once_a_minute_and_of_what_it_said_last() {
        let (heard, start) = (Heard::default(), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        let taken = |second| -> Vec<_> {
            let taken = heard.take(at(second)).into_iter();
            taken.map(|host| (host.name, host.list.unwrap())).collect()
        };
        for second in 0..150 {
            // What was said a second ago is written now.
            for name in ["web-1", "web-2"] {
                heard.note(host(name, second));
            }
            let all = ["web-1", "web-2"].map(|name| (name.to_owned(), second));
            assert_eq!(taken(second), if second % 60 == 0 { all.to_vec() } else { vec![] }, "{second}");
        }
        // Nothing of that is lost, though nothing follows.
        assert!(!heard.wants("web-1", at(150)), "it waits");
        assert!(taken(179).is_empty());
        assert_eq!(taken(180), [("web-1".to_owned(), 149), ("web-2".to_owned(), 149)]);
        assert!(
            !heard.wants("web-1", at(239)) && heard.wants("web-1", at(240)) && heard.wants("web-3", at(180))
        );
    }

    #[test]
    fn what_the_store_could_not_hear_it_hears_later_unless_another_was_said() {
        let (heard, start) = (Heard::default(), Instant::now());
        heard.note(host("web-1", 1));
        heard.note(host("web-2", 1));
        let lost = heard.take(start);
        heard.note(host("web-2", 2));
        heard.put_back(lost);
        let lists = heard.take(start + EVERY).into_iter().map(|host| host.list.unwrap());
        assert_eq!(lists.collect::<Vec<_>>(), [1, 2]);
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
