//! One time that the files of a folder are brought up to date with what the authority states, or, where it is of a version
//! that states nothing, with what it gives.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::crl::signed_part;
use super::fetch::{CRL_PATH, Fetched, KRL_PATH, RefreshSettings, STATEMENT_PATH};
use super::gate;
use super::heard::{Current, Heard, InPlace, Moment, sha256};
use super::lists::{CRL, KRL, MAX_FILE, fresh_crl, fresh_krl, useless};
use super::seen::{SSH, Seen};
use super::statement::{Known, believe};
use super::store::{self, HOST_CA, KNOWN_HOSTS, TLS_CA, USER_CA, put, update};
use super::trust;
use crate::clock::Clock;
use crate::destination::ssh;
use crate::error::{Error, Kind, Result};
use crate::folder::Folder;
use crate::krl;
use crate::wire::{Statement, TrustAnchors};

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
            heard.known = new;
        }
        Ok(Believed { at: Moment::of(&now, statement.made), statement })
    }

    /// Adds to the KRL what the statement says is new, where that is what it lacks, and trusts whom it names then; whether
    /// the KRL is of the statement's number now. Where it is, and nobody was let in for want of news, they are again.
    /// What is added counts as seen with the next list that is fetched: what was seen may be a million, and this is for each.
    pub(super) fn step(&mut self, told: &Believed) -> bool {
        let statement = &told.statement;
        let (current, store) = (told.current(), self.store);
        if let Some(heard) = self.heard.as_mut().filter(|heard| heard.lists.crl.goes_on(&current))
            && self.done.add(gate::open_tls(store, &heard.known.trust))
        {
            heard.lists.crl = current.clone();
        }
        let Some((old, is_closed)) = self.krl() else { return false };
        let Some(krl) = self.heard.as_ref().map(|heard| heard.lists.krl.clone()) else { return false };
        let is_news = krl.order() < current.order();
        let follows = statement.since == Some(krl.number) && is_news;
        if !follows && krl.number != statement.number {
            return false;
        }
        let new = statement.revoked.iter().filter(|revoked| revoked.ssh && follows);
        let mut serials: Vec<u64> = new.map(|revoked| revoked.serial).collect();
        serials.sort_unstable();
        serials.dedup();
        let mut hash = None;
        if is_news && (is_closed || !serials.is_empty()) {
            let made = u64::try_from(statement.made).unwrap_or(0);
            let next = match serials.as_slice() {
                [] => Ok(old),
                serials => krl::advanced(old, statement.number, made, serials.iter().copied()),
            };
            hash = next.as_deref().ok().map(sha256);
            let next = next.map_err(|why| useless(KRL_PATH, why));
            if !self.done.add(next.and_then(|next| put(store, KRL, Some(next)))) {
                return false;
            }
        }
        if let Some(heard) = self.heard.as_mut().filter(|_| is_news) {
            heard.lists.krl = current;
            heard.lists.hash = hash.unwrap_or_else(|| std::mem::take(&mut heard.lists.hash));
        }
        let cas = self.trust();
        self.trust_ssh(&cas);
        true
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
        self.done.add(update(self.store, USER_CA, cas.ssh_user_cas.concat()));
        self.done.add(update(self.store, HOST_CA, cas.ssh_host_cas.concat()));
        self.done.add(update(self.store, KNOWN_HOSTS, ssh::known_hosts(cas)));
    }

    /// Puts lists in place that were fetched after the statement was told; without one, those of an authority with these CAs,
    /// which states nothing.
    ///
    /// What is revoked counts most, so each list is
    /// checked and put in place on its own: one that is no good, be it
    /// its own fault or the clock's, does not hold up the other. New CAs are
    /// trusted once the list of what they signed is there.
    pub(super) fn put(&mut self, told: Option<&Believed>, cas: Result<TrustAnchors>, fetched: Fetched) {
        let Fetched { krl, crl, ends } = fetched;
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
                self.crl_into(told, crl, &cas, ends.as_ref());
            }
            Err(error) => {
                self.done.add(Err(error));
                self.done.add(crl.map(|_| None));
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
        match fresh_krl(store, self.seen(), new, Clock::system().now(), KRL_PATH) {
            Ok(fresh) => {
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

    fn crl_into(
        &mut self,
        told: Option<&Believed>,
        crl: Result<Vec<u8>>,
        cas: &TrustAnchors,
        ends: Option<&BTreeMap<u64, i64>>,
    ) {
        let (store, now, ders) = (self.store, Clock::system().now(), trust::tls_ders(cas));
        let crl = match crl {
            Ok(crl) => crl,
            Err(error) => {
                self.done.add(Err(error));
                return;
            }
        };
        if let (Some(told), Some(heard)) = (told, &self.heard) {
            if told.statement.number < heard.lists.crl.number {
                return;
            }
            if signed_part(&crl).is_ok_and(|part| sha256(&part) != told.statement.crl) {
                self.overtaken.push(useless(CRL_PATH, OTHER_LIST));
                return;
            }
            let is_known = heard.lists.crl.order() >= told.current().order();
            if gate::has_nobodys(store) && (is_known || gate::is_closed_to_ssh(store)) {
                self.done.add(Err(nothing_new()));
                return;
            }
        }
        let fresh = fresh_crl(store, self.seen(), &crl, &ders, ends, now, CRL_PATH);
        if !self.done.add(fresh.and_then(|crl| put(store, CRL, crl))) {
            return;
        }
        if !self.done.add(update(store, TLS_CA, cas.tls_cas.concat())) {
            return;
        }
        if let (Some(told), Some(heard)) = (told, &mut self.heard) {
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
