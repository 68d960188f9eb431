//! One time that the files of a folder are brought up to date with what the authority states, or, where it is of a version
//! that states nothing, with what it gives.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::crl::signed_part;
use super::fetch::{CRL_PATH, Fetched, KRL_PATH, RefreshSettings, STATEMENT_PATH, crl_path};
use super::gate;
use super::heard::{Current, Heard, InPlace, Moment, sha256};
use super::lists::{CRL, FreshCrls, KRL, MAX_FILE, NewCrl, fresh_crls, fresh_krl, useless};
use super::refused::Refused;
use super::seen::{SSH, Seen};
use super::statement::{Known, believe};
use super::store::{self, HOST_CA, KNOWN_HOSTS, MAX_TRUST, TLS_CA, USER_CA, put, update};
use super::trust;
use crate::clock::Clock;
use crate::destination::ssh;
use crate::error::{Error, Kind, Result};
use crate::folder::Folder;
use crate::krl;
use crate::net::pin_of;
use crate::wire::{CrlHash, Statement, TrustAnchors};

/// That is not what was stated.
const OTHER_LIST: &str = "it is not the list that the authority states";

/// How often lists are fetched that are later than the statement, each time after a later one.
pub(super) const ATTEMPTS: usize = 3;
/// How long another run is waited for.
pub(super) const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// What a run did.
#[derive(Debug, Default)]
pub struct Refreshed {
    /// The paths of the files that changed.
    pub changed: Vec<PathBuf>,
    /// What went wrong, each thing once; files that are not of it changed all the same.
    pub errors: Vec<Error>,
}

impl Refreshed {
    /// Adds what another part of the run did.
    pub fn join(&mut self, more: Self) {
        let changed = more.changed.into_iter().map(|path| Ok(Some(path)));
        for put in changed.chain(more.errors.into_iter().map(Err)) {
            self.add(put);
        }
    }

    /// Adds what came of a file, each thing once; returns whether it is good.
    pub fn add(&mut self, put: Result<Option<PathBuf>>) -> bool {
        match put {
            Ok(path) => {
                self.changed.extend(path.filter(|path| !self.changed.contains(path)));
                true
            }
            Err(error) => {
                // The files are fetched one by one, and may all meet the same.
                if self.errors.iter().all(|known| known.to_string() != error.to_string()) {
                    self.errors.push(error);
                }
                false
            }
        }
    }
}

/// A statement that is believed, and the moment that it tells of.
#[derive(Clone, Debug)]
pub(super) struct Believed {
    pub(super) statement: Statement,
    at: Moment,
}

impl Believed {
    /// The last statement by which a list is of now.
    fn current(&self) -> Current {
        let Statement { number, made, .. } = self.statement;
        Current { number, made, at: Some(self.at.clone()) }
    }
}

/// Holds the folder's lock, so nothing is waited for meanwhile.
pub(super) struct Round<'r> {
    settings: &'r RefreshSettings,
    store: &'r Folder,
    _lock: Option<File>,
    /// What was heard until now; nothing of an authority that states nothing.
    pub(super) heard: Option<Heard>,
    /// What of that is kept.
    kept: Option<Heard>,
    /// Read when it is needed.
    seen: Option<Seen>,
    /// What has come of it.
    pub(super) done: Refreshed,
    /// Which lists are not those that the statement is about.
    pub(super) overtaken: Vec<Error>,
}

impl<'r> Round<'r> {
    pub(super) async fn begin(
        settings: &'r RefreshSettings,
        store: &'r Folder,
        deadline: Instant,
    ) -> Result<Self> {
        let lock = store::lock(store, deadline.min(Instant::now() + LOCK_PATIENCE)).await?;
        let heard = Heard::read(store)?;
        let kept = heard.clone();
        let (done, overtaken) = (Refreshed::default(), Vec::new());
        Ok(Self { settings, store, _lock: lock, heard, kept, seen: None, done, overtaken })
    }

    /// Keeps what is to be known the next time.
    pub(super) fn end(mut self) -> Refreshed {
        if let Some(mut seen) = self.seen.take() {
            self.done.add(seen.write(self.store, Clock::system().now()).map(|()| None));
        }
        if let Some(heard) = self.heard.as_ref().filter(|heard| self.kept.as_ref() != Some(heard)) {
            self.done.add(heard.write(self.store).map(|()| None));
        }
        self.done
    }

    fn seen(&mut self) -> &mut Seen {
        if self.seen.is_none() {
            let read = Seen::read(self.store);
            self.seen = Some(read.unwrap_or_else(|error| {
                self.done.add(Err(error));
                // It is made anew of whole lists.
                if let Some(heard) = &mut self.heard {
                    heard.lists.hash.clear();
                }
                Seen::default()
            }));
        }
        self.seen.get_or_insert_default()
    }

    /// The CAs that are believed.
    pub(super) fn trust(&self) -> TrustAnchors {
        self.heard.as_ref().map(|heard| heard.known.trust.clone()).unwrap_or_default()
    }

    /// Believes a statement that came from whom the given options verify, or else what was kept, and keeps what it says of the
    /// authority.
    pub(super) fn hear(&mut self, jws: &str, by_given: bool) -> Result<Believed> {
        let now = Moment::now(&Clock::system());
        let known = self.heard.as_ref().map(|heard| &heard.known);
        let key = self.settings.statement_key.as_deref();
        let statement = believe(jws, known, key, Clock::system().now()).map_err(unbelievable)?;
        let (new, given) = (Known::of(&statement), self.settings.given());
        let heard = self.heard.get_or_insert_with(|| {
            let (known, lists) = (new.clone(), InPlace::default());
            Heard { known, given: given.clone(), lists }
        });
        if by_given {
            heard.given = given;
        }
        // One of a clock that is behind is as good, and nothing new.
        if (new.number, new.made) >= (heard.known.number, heard.known.made) {
            let before = std::mem::replace(&mut heard.known, new);
            heard.known.refuse(&before.refused);
        } else {
            heard.known.refuse(&new.refused);
        }
        self.refuse();
        Ok(Believed { at: Moment::of(&now, statement.made), statement })
    }

    /// Takes what is believed no more out of all files, before anything is fetched for it; the KRL follows with [`Self::step`].
    fn refuse(&mut self) {
        let Some(refused) = self.heard.as_ref().map(|heard| heard.known.refused.clone()) else { return };
        if refused.is_empty() {
            return;
        }
        let store = self.store;
        for name in [USER_CA, HOST_CA, KNOWN_HOSTS] {
            let Ok(Some(there)) = store.read(name, MAX_TRUST) else { continue };
            let more = if name == KNOWN_HOSTS { refused.known_hosts() } else { String::new() };
            let left = refused.lines_without(&String::from_utf8_lossy(&there)) + &more;
            self.done.add(update(store, name, left));
        }
        self.done.add(gate::refuse_tls(store, |pin| refused.has_pin(pin)));
    }

    /// The keys that the KRL never loses.
    fn keys(&self) -> BTreeSet<Vec<u8>> {
        self.heard.as_ref().map(|heard| heard.known.refused.blobs()).unwrap_or_default()
    }

    /// Adds to the KRL what the statement says is new, where that is what it lacks, and trusts whom it names then; whether
    /// the KRL is of the statement's number now. Where it is, and nobody was let in for want of news, they are again.
    /// What is added counts as seen with the next list that is fetched: what was seen may be a million, and this is for each.
    pub(super) fn step(&mut self, told: &Believed) -> bool {
        let statement = &told.statement;
        let (current, store) = (told.current(), self.store);
        if let Some(heard) = self.heard.as_mut().filter(|heard| heard.lists.crl.goes_on(&current))
            && self.done.add(gate::open_tls(store, &heard.known.trust))
            && !gate::has_nobodys(store)
        {
            heard.lists.crl = current.clone();
        }
        let Some((old, is_closed)) = self.krl() else { return false };
        let (length, keys) = (old.len(), self.keys());
        let old = match keys.is_empty() {
            true => Ok(old),
            false => krl::revoking_keys(old, &keys),
        };
        let old = match old.map_err(|why| useless(KRL_PATH, why)) {
            Ok(old) => old,
            Err(error) => return self.done.add(Err(error)),
        };
        let lacks = old.len() > length;
        let Some(krl) = self.heard.as_ref().map(|heard| heard.lists.krl.clone()) else { return false };
        let is_news = krl.order() < current.order();
        let follows = statement.since == Some(krl.number) && is_news;
        if !follows && krl.number != statement.number {
            if lacks && !is_closed {
                self.put_krl(old);
            }
            return false;
        }
        let new = statement.revoked.iter().filter(|revoked| revoked.ssh && follows);
        let mut serials: Vec<u64> = new.map(|revoked| revoked.serial).collect();
        serials.sort_unstable();
        serials.dedup();
        if is_news && is_closed || !is_closed && lacks || is_news && !serials.is_empty() {
            let made = u64::try_from(statement.made).unwrap_or(0);
            let next = match serials.as_slice() {
                [] => Ok(old),
                serials => krl::advanced(old, statement.number, made, serials.iter().copied()),
            };
            let next = next.map_err(|why| useless(KRL_PATH, why));
            let is_put = match next {
                Ok(next) => self.put_krl(next),
                Err(error) => self.done.add(Err(error)),
            };
            if !is_put {
                return false;
            }
        }
        if let Some(heard) = self.heard.as_mut().filter(|_| is_news) {
            heard.lists.krl = current;
        }
        // Nothing new opens nothing.
        if is_news || !is_closed {
            let cas = self.trust();
            self.trust_ssh(&cas);
        }
        true
    }

    /// Puts it in the folder, of whichever statement it is.
    fn put_krl(&mut self, krl: Vec<u8>) -> bool {
        let hash = sha256(&krl);
        let is_there = self.done.add(put(self.store, KRL, Some(krl)));
        if let Some(heard) = self.heard.as_mut().filter(|_| is_there) {
            heard.lists.hash = hash;
        }
        is_there
    }

    /// The KRL that was put in the folder, where it is there still; whether it is closed.
    pub(super) fn krl(&self) -> Option<(Vec<u8>, bool)> {
        let (heard, there) = (self.heard.as_ref()?, self.store.read(KRL, MAX_FILE).ok()??);
        if heard.has(&there) {
            return Some((there, false));
        }
        let open = krl::opened(&there).filter(|open| heard.has(open))?;
        Some((open.to_vec(), true))
    }

    fn trust_ssh(&mut self, cas: &TrustAnchors) {
        let refused = self.heard.as_ref().map(|heard| heard.known.refused.clone()).unwrap_or_default();
        let cas = refused.without(cas);
        self.done.add(update(self.store, USER_CA, cas.ssh_user_cas.concat()));
        self.done.add(update(self.store, HOST_CA, cas.ssh_host_cas.concat()));
        self.done.add(update(self.store, KNOWN_HOSTS, ssh::known_hosts(&cas) + &refused.known_hosts()));
    }

    /// Puts lists in place that were fetched after the statement was told; without one, those of an authority with these CAs,
    /// which states nothing.
    ///
    /// What is revoked counts most, so each list is
    /// checked and put in place on its own: one that is no good, be it
    /// its own fault or the clock's, does not hold up the other. New CAs are
    /// trusted once the list of what they signed is there.
    pub(super) fn put(&mut self, told: Option<&Believed>, cas: Result<TrustAnchors>, fetched: Fetched) {
        let Fetched { krl, crls, ends } = fetched;
        let there = self.krl().filter(|_| krl.is_none()).and_then(|(krl, _)| krl::read(&krl).ok());
        if let (Some(told), Some(there)) = (told, there) {
            self.seen().add(SSH, there.serials, told.statement.made);
        }
        let krl_is_good = krl.is_some_and(|krl| self.krl_into(told, krl));
        let ends = ends.unwrap_or_else(|error| {
            self.done.add(Err(error));
            Some(BTreeMap::new())
        });
        match cas {
            Ok(cas) => {
                if krl_is_good {
                    self.trust_ssh(&cas);
                }
                self.crls_into(told, crls, &cas, ends.as_ref());
            }
            Err(error) => {
                self.done.add(Err(error));
                for (_, list) in crls {
                    self.done.add(list.map(|_| None));
                }
            }
        }
    }

    /// Whether the list is the authority's of now.
    fn krl_into(&mut self, told: Option<&Believed>, new: Result<Vec<u8>>) -> bool {
        self.seen();
        let new = match new {
            Ok(new) => new,
            Err(error) => return self.done.add(Err(error)),
        };
        let store = self.store;
        if let (Some(told), Some(heard)) = (told, &self.heard) {
            if told.statement.number < heard.lists.krl.number && self.krl().is_some() {
                return true;
            }
            if told.statement.krl != sha256(&new) {
                self.overtaken.push(useless(KRL_PATH, OTHER_LIST));
                return false;
            }
            if heard.lists.krl.order() >= told.current().order() && gate::is_closed_to_ssh(store) {
                return self.done.add(Err(nothing_new()));
            }
        }
        let keys = self.keys();
        match fresh_krl(store, (self.seen(), &keys), new, Clock::system().now(), KRL_PATH) {
            Ok(fresh) => {
                // A CA whose key it has is one that nobody believes again.
                if let Some(heard) = &mut self.heard {
                    heard.known.refuse(&Refused::of_keys(&fresh.keys));
                }
                self.done.add(fresh.wrong.map_or(Ok(None), Err));
                let is_good = self.done.add(put(store, KRL, fresh.content)) && fresh.is_current;
                let there = store.read(KRL, MAX_FILE).ok().flatten().filter(|_| is_good);
                if let (Some(told), Some(heard), Some(there)) = (told, &mut self.heard, there) {
                    heard.lists.hash = sha256(&there);
                    heard.lists.krl.raise(told.current());
                }
                is_good
            }
            Err(error) => self.done.add(Err(error)),
        }
    }

    /// Each list on its own; and the CAs whose lists are there then. Those that are not go first.
    fn crls_into(
        &mut self,
        told: Option<&Believed>,
        crls: Vec<(Option<CrlHash>, Result<Vec<u8>>)>,
        cas: &TrustAnchors,
        ends: Option<&BTreeMap<u64, i64>>,
    ) {
        let (store, now, ders) = (self.store, Clock::system().now(), trust::tls_ders(cas));
        if let (Some(told), Some(heard)) = (told, &self.heard)
            && told.statement.number < heard.lists.crl.number
        {
            return;
        }
        let others: BTreeSet<String> =
            crls.iter().filter_map(|(of, _)| Some(format!("sha256:{}", of.as_ref()?.ca))).collect();
        let (mut lists, mut is_good) = (Vec::new(), true);
        for (other, list) in crls {
            let path = crl_path(other.as_ref());
            let stated = told.map(|told| other.as_ref().map_or(&told.statement.crl, |other| &other.hash));
            let is_stated = |list: &[u8]| {
                let part = signed_part(list).ok();
                part.zip(stated).is_none_or(|(part, stated)| sha256(&part) == *stated)
            };
            match list {
                Ok(list) if is_stated(&list) => lists.push((other, list, path)),
                Ok(_) => {
                    self.overtaken.push(useless(&path, OTHER_LIST));
                    is_good = false;
                }
                Err(error) => is_good = self.done.add(Err(error)),
            }
        }
        if let (Some(told), Some(heard)) = (told, &self.heard) {
            let is_known = heard.lists.crl.order() >= told.current().order();
            if is_good && gate::has_nobodys(store) && (is_known || gate::is_closed_to_ssh(store)) {
                self.done.add(Err(nothing_new()));
                return;
            }
        }
        let new = lists.iter().map(|(other, list, path)| {
            let is = |pin: String| match other {
                Some(other) => pin.ends_with(&other.ca),
                None => !others.contains(&pin),
            };
            let cas = ders.iter().filter(|ca| pin_of(ca).is_ok_and(is)).cloned().collect();
            NewCrl { list, cas, path }
        });
        let new: Vec<NewCrl<'_>> = new.collect();
        let FreshCrls { content, listed, wrong } = fresh_crls(store, self.seen(), &new, &ders, (ends, now));
        wrong.into_iter().for_each(|error| is_good = self.done.add(Err(error)));
        for pin in ders.iter().filter_map(|ca| pin_of(ca).ok()) {
            if is_good && !listed.contains(&pin) {
                let why = format!("none is of the TLS CA {pin}, and without its list it is not trusted");
                is_good = self.done.add(Err(useless(CRL_PATH, &why)));
            }
        }
        self.done.add(gate::drop_tls(store, |pin| listed.contains(pin)));
        if !self.done.add(put(store, CRL, content)) {
            return;
        }
        if listed.is_empty() || !is_good && gate::has_nobodys(store) {
            return;
        }
        if !self.done.add(update(store, TLS_CA, trust::tls_of(cas, |pin| listed.contains(pin)))) {
            return;
        }
        if let (Some(told), Some(heard), true) = (told, &mut self.heard, is_good) {
            heard.lists.crl.raise(told.current());
        }
    }
}

/// Lists may pass where news does not.
fn nothing_new() -> Error {
    useless(STATEMENT_PATH, "it is nothing new, and nobody is let in until something is")
}

fn unbelievable(why: String) -> Error {
    Error::new(Kind::Unreachable, why).context("what the authority states cannot be believed").hint(
        "the files of it stay as they are; where the clocks are right, something on the way repeats or swaps answers, or \
         it is another authority: to begin anew with that, remove authority.heard",
    )
}
