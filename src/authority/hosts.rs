//! The hosts that have proved lately which they are, until the store hears of them: each at most once a minute, those of a second
//! in one commit.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::store::hosts::{HostSeen, MAX_HOSTS};

/// How often the store hears of a host at most.
const EVERY: Duration = Duration::from_secs(60);

/// What is known of them.
#[derive(Debug, Default)]
pub struct Heard(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// When each was last put among those that wait.
    told: BTreeMap<String, Instant>,
    waiting: BTreeMap<String, HostSeen>,
}

impl Heard {
    /// Notes a host, unless that was done less than a minute ago.
    pub fn note(&self, host: HostSeen, now: Instant) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = |told: &Instant| now.saturating_duration_since(*told) < EVERY;
        if known.told.get(&host.name).is_some_and(is_recent) {
            return;
        }
        if known.told.len() >= MAX_HOSTS {
            known.told.retain(|_, told| is_recent(told));
        }
        // Who finds no place is heard of again.
        if known.told.len() < MAX_HOSTS {
            known.told.insert(host.name.clone(), now);
            known.waiting.insert(host.name.clone(), host);
        }
    }

    /// Those that the store is to hear of.
    pub fn take(&self) -> Vec<HostSeen> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut known.waiting).into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, list: u64) -> HostSeen {
        HostSeen { name: name.to_owned(), seen: 1, list: Some(list), cas: Vec::new(), serial: 7 }
    }

    #[test]
    fn the_store_hears_of_a_host_once_a_minute() {
        let (heard, start) = (Heard::default(), Instant::now());
        for second in 0..180 {
            for name in ["web-1", "web-2"] {
                heard.note(host(name, second), start + Duration::from_secs(second));
            }
            let lists: Vec<_> = heard.take().iter().map(|host| (host.name.clone(), host.list)).collect();
            let all = ["web-1", "web-2"].map(|name| (name.to_owned(), Some(second)));
            assert_eq!(lists, if second % 60 == 0 { all.to_vec() } else { vec![] }, "{second}");
        }
    }

    #[test]
    fn so_many_are_known_and_no_more() {
        let (heard, start) = (Heard::default(), Instant::now());
        for n in 0..MAX_HOSTS + 10 {
            heard.note(host(&format!("ci-{n}"), 1), start);
        }
        assert_eq!(heard.take().len(), MAX_HOSTS);
        heard.note(host("web-1", 1), start + EVERY);
        assert_eq!(heard.take().len(), 1);
    }
}
