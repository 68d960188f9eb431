//! Authorities that share a store, as one of them sees the others: whether they
//! have the same CA keys, without which this one issues nothing, and the same
//! policy, which is told.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::store::Store;
use super::store::replicas::{Announced, Replica};
use crate::error::{Error, Result};
use crate::text::{counted, shown};

/// How long policies may differ before it is told: they are changed one after the other.
const GRACE: Duration = Duration::from_secs(30);
/// How long one counts as running after it was last heard of: its row stays for longer.
const RUNS: Duration = Duration::from_secs(15);
/// What to do about CA keys that are others.
const OTHER_KEYS: [&str; 2] = [
    "all authorities of a store have the same CA keys: copy the folder of the keys from one that is right",
    "where the keys are right, `store` in authority.yaml names the store of another authority",
];
/// The same, of a file, and of a database.
const NEW_CA: [&str; 2] = [
    "where the CA was made anew, what the old one issued is of no use to it: move the store away, and `machine-id authority new-store` begins another",
    "where the CA was made anew, what the old one issued is of no use to it: its owner makes another store, with `machine-id authority upgrade` in another database, which `store` in authority.yaml names then; remove store.mark",
];

/// What is known of the others.
#[derive(Debug, Default)]
pub struct Replicas(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Why this one issues nothing.
    stopped: Option<String>,
    /// When each was last seen, by the store's clock, and when that last was news here.
    seen: BTreeMap<String, (i64, Option<Instant>)>,
    /// Since when some have another policy, and whether that was told.
    differ: Option<(Instant, bool)>,
    /// Whether it was told that there are others where one is enough.
    crowded: bool,
}

impl Replicas {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why this authority issues nothing: its CA keys are others than those of the store.
    pub fn stopped(&self) -> Option<String> {
        self.known().stopped.clone()
    }

    /// What whoever watches must know. Names are for the log: anybody may ask.
    pub fn warning(&self) -> Option<String> {
        let differ = self.known().differ.is_some_and(|(_, told)| told);
        differ.then(|| "another replica has another policy than this one: its log names it".to_owned())
    }

    /// Says that this authority is there, at the start.
    ///
    /// # Errors
    /// `Kind::Usage` where the store is of other CA keys.
    pub async fn join(&self, store: &dyn Store, me: Replica) -> Result<()> {
        let announced = store.announce(me.clone()).await?;
        self.known().hear(&me, &announced, Instant::now(), store.is_shared());
        match other_keys(&me, &announced) {
            Some(why) => {
                let [file, database] = NEW_CA;
                let hints = OTHER_KEYS.into_iter().chain([if store.is_shared() { database } else { file }]);
                Err(hints.fold(Error::usage(why), Error::hint))
            }
            None => Ok(()),
        }
    }

    /// Says it again; what the log is to say.
    pub async fn stay(&self, store: &dyn Store, me: Replica) -> Result<Vec<String>> {
        let announced = store.announce(me.clone()).await?;
        Ok(self.known().hear(&me, &announced, Instant::now(), store.is_shared()))
    }
}

impl Known {
    fn hear(&mut self, me: &Replica, announced: &Announced, now: Instant, shared: bool) -> Vec<String> {
        let mut news = Vec::new();
        let stopped = other_keys(me, announced);
        if self.stopped != stopped {
            let goes_on = || "the CA keys are those of the store again".to_owned();
            news.push(stopped.as_ref().map_or_else(goes_on, |why| format!("nothing is issued: {why}")));
            self.stopped = stopped;
        }
        // One that was there before and is not seen again may have ended, or been killed.
        self.seen.retain(|id, _| announced.others.iter().any(|other| other.id == *id));
        let mut runs = |other: &&Replica| {
            let (seen, news) = self.seen.entry(other.id.clone()).or_insert((other.seen, None));
            if std::mem::replace(seen, other.seen) != other.seen {
                *news = Some(now);
            }
            news.is_some_and(|since| now.saturating_duration_since(since) < RUNS)
        };
        let mut alive: Vec<&Replica> = announced.others.iter().filter(&mut runs).collect();
        if !shared && !std::mem::replace(&mut self.crowded, !alive.is_empty()) && !alive.is_empty() {
            let names = names(&alive);
            news.push(format!("warning: {names} serves this store too, which is made for one authority"));
        }
        alive.retain(|other| other.policy != me.policy);
        match &mut self.differ {
            _ if alive.is_empty() => {
                if self.differ.take().is_some_and(|(_, told)| told) {
                    news.push("all replicas have the same policy again".to_owned());
                }
            }
            Some((since, told)) if !*told && now.saturating_duration_since(*since) >= GRACE => {
                *told = true;
                let names = names(&alive);
                news.push(format!(
                    "warning: another policy, `public_url` or `limits` than here: {names}; jobs are judged by whichever they come to"
                ));
            }
            Some(_) => {}
            differ @ None => *differ = Some((now, false)),
        }
        news
    }
}

/// The first of them by name, and how many more.
fn names(replicas: &[&Replica]) -> String {
    let first = replicas.first().map_or_else(String::new, |one| shown(&one.name));
    match replicas.len().saturating_sub(1) {
        0 => first,
        more => format!("{first} and {} more", counted(more, "replica")),
    }
}

/// Which CA keys are others than those of the store, and who has those.
fn other_keys(me: &Replica, announced: &Announced) -> Option<String> {
    let lacks = |some: &[String], others: &[String]| -> Vec<String> {
        some.iter().filter(|key| !others.contains(key)).map(|key| shown(key)).collect()
    };
    let kind = |key: &str| key.split(' ').next().map(str::to_owned);
    // None of that kind is there where nothing can be written: on a full disk, or to a store that has lost something.
    let is_known = |key: &&String| announced.keys.iter().any(|known| kind(known) == kind(key));
    let ours: Vec<String> = me.keys.iter().filter(is_known).cloned().collect();
    let (ours, theirs) = (lacks(&ours, &announced.keys), lacks(&announced.keys, &me.keys));
    if ours.is_empty() && theirs.is_empty() {
        return None;
    }
    let holder = announced.others.iter().find(|other| other.keys == announced.keys);
    let holder = holder.map_or_else(String::new, |other| format!(", as {} has", shown(&other.name)));
    let words = |keys: Vec<String>| if keys.is_empty() { "none".to_owned() } else { keys.join(", ") };
    Some(format!(
        "the CA keys here are others than those of the store: {} here, {} there{holder}",
        words(ours),
        words(theirs)
    ))
}

#[cfg(test)]
mod tests;
