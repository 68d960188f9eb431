//! One time that the files of a folder are brought up to date with what the authority states, or, where it is of a version
//! that states nothing, with what it gives.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::crl::signed_part;
use super::fetch::{Fetcher, STATEMENT_PATH};
use super::gate;
use super::heard::{Heard, InPlace, Moment, sha256};
use super::lists::{CRL, KRL, MAX_FILE, fresh_crl, fresh_krl, useless};
use super::seen::{SSH, Seen};
use super::statement::{Known, believe};
use super::store::{HOST_CA, KNOWN_HOSTS, MAX_TRUST, TLS_CA, USER_CA, holds, put, update};
use super::trust;
use crate::clock::Clock;
use crate::destination::ssh;
use crate::error::{Error, Kind, Result};
use crate::folder::Folder;
use crate::krl;
use crate::wire::{MAX_LIST, Statement, TrustAnchors};

const TRUST_PATH: &str = "/v1/trust";
const KRL_PATH: &str = "/v1/revoked/ssh.krl";
const CRL_PATH: &str = "/v1/revoked/tls.crl";

/// That is not what was stated.
const OTHER_LIST: &str = "it is not the list that the authority states";

/// How often lists are fetched that are later than the statement, each time after a later one.
const ATTEMPTS: usize = 3;

/// What a run did.
#[derive(Debug, Default)]
pub struct Refreshed {
    /// The paths of the files that changed.
    pub changed: Vec<PathBuf>,
    /// What went wrong, each thing once; files that are not of it changed all the same.
    pub errors: Vec<Error>,
}

impl Refreshed {
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

/// Made under the folder's lock, and ended under it.
pub(super) struct Round<'r> {
    fetcher: &'r Fetcher<'r>,
    store: &'r Folder,
    /// What was heard until now; nothing of an authority that states nothing.
    pub(super) heard: Option<Heard>,
    /// Whether something was heard in this round that was not before.
    is_news: bool,
    /// What of that is kept.
    kept: Option<Heard>,
    /// Read when it is needed.
    seen: Option<Seen>,
    /// What has come of it.
    pub(super) done: Refreshed,
    /// Which lists are not those that the statement is about.
    overtaken: Vec<Error>,
}

impl<'r> Round<'r> {
    pub(super) fn begin(fetcher: &'r Fetcher<'r>, store: &'r Folder) -> Result<Self> {
        let heard = Heard::read(store)?;
        let kept = heard.clone();
        Ok(Self {
            is_news: false,
            fetcher,
            store,
            heard,
            kept,
            seen: None,
            done: Refreshed::default(),
            overtaken: Vec::new(),
        })
    }

    /// Keeps what is to be known the next time.
    pub(super) fn end(mut self) -> Refreshed {
        if let Some(mut seen) = self.seen.take() {
            self.done.add(seen.write(self.store, Clock::system().now()).map(|()| None));
        }
        self.keep();
        self.done
    }

    /// The same, and the authority hears what is there by then, where that is another thing than before.
    pub(super) async fn end_and_tell(self) -> Refreshed {
        let fetcher = self.fetcher;
        let done = self.end();
        if !done.changed.is_empty() {
            fetcher.tell().await;
        }
        done
    }

    fn keep(&mut self) {
        if let Some(heard) = self.heard.as_ref().filter(|heard| self.kept.as_ref() != Some(heard)) {
            let written = heard.write(self.store);
            if self.done.add(written.map(|()| None)) {
                self.kept = self.heard.clone();
            }
        }
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

    /// Asks for the present statement; none of an authority that never made one.
    pub(super) async fn ask(&mut self) -> Result<Option<Statement>> {
        match self.fetcher.statement().await? {
            Some(jws) => self.hear(&jws, self.fetcher.is_by_given()).map(Some),
            None if self.heard.is_none() => Ok(None),
            // Whoever leaves it out could give any lists.
            None => Err(useless(STATEMENT_PATH, "it is not there any more")),
        }
    }

    /// Believes a statement that came from whom the given options verify, or else what was kept, and keeps what it says of the
    /// authority. Where it is news, nobody is kept out any more for want of it.
    pub(super) fn hear(&mut self, jws: &str, by_given: bool) -> Result<Statement> {
        let now = Moment::now(&Clock::system());
        let known = self.heard.as_ref().map(|heard| &heard.known);
        let given = self.fetcher.settings.statement_key.as_deref();
        let statement = believe(jws, known, given, Clock::system().now()).map_err(unbelievable)?;
        let is_later =
            |heard: &Heard| (statement.number, statement.made) > (heard.known.number, heard.known.made);
        self.is_news |= self.heard.as_ref().is_none_or(is_later);
        if let Some(heard) = self.heard.as_ref().filter(|_| self.is_news) {
            for opened in gate::open(self.store, heard) {
                self.done.add(opened);
            }
        }
        let (new, at) = (Known::of(&statement), Moment::of(&now, statement.made));
        let given = self.fetcher.settings.given();
        match &mut self.heard {
            Some(heard) => {
                if by_given {
                    heard.given = given;
                }
                if (new.number, new.made) > (heard.known.number, heard.known.made) {
                    heard.at = at;
                }
                heard.known = new;
            }
            None => self.heard = Some(Heard { known: new, given, lists: InPlace::default(), at }),
        }
        self.keep();
        Ok(statement)
    }

    /// Adds to the KRL what the statement says is new, where that is what it lacks; whether it is of the statement's number
    /// now. It counts as seen with the next list that is fetched: what was seen may be a million, and this is for each.
    pub(super) fn step(&mut self, statement: &Statement) -> bool {
        let Some(lists) = self.heard.as_ref().map(|heard| &heard.lists) else { return false };
        if lists.krl == statement.number {
            return true;
        }
        let Some(old) = self.krl().filter(|_| statement.since == Some(lists.krl)) else { return false };
        let new = statement.revoked.iter().filter(|revoked| revoked.ssh);
        let mut serials: Vec<u64> = new.map(|revoked| revoked.serial).collect();
        serials.sort_unstable();
        serials.dedup();
        let mut hash = lists.hash.clone();
        if !serials.is_empty() {
            let made = u64::try_from(statement.made).unwrap_or(0);
            let next = krl::advanced(old, statement.number, made, serials.iter().copied());
            let next = next.map_err(|why| useless(KRL_PATH, why)).inspect(|next| hash = sha256(next));
            if !self.done.add(next.and_then(|next| put(self.store, KRL, Some(next)))) {
                return false;
            }
        }
        self.has_krl(statement.number, hash);
        true
    }

    /// The KRL in the folder, where it is what was put there.
    pub(super) fn krl(&self) -> Option<Vec<u8>> {
        let there = self.store.read(KRL, MAX_FILE).ok()??;
        self.heard.as_ref().is_some_and(|heard| heard.has(&there)).then_some(there)
    }

    /// Notes that the KRL in the folder is of that number.
    fn has_krl(&mut self, number: u64, hash: String) {
        if let Some(heard) = &mut self.heard {
            (heard.lists.krl, heard.lists.hash) = (number, hash);
        }
    }

    /// Brings everything up to date with the statement, or with a later one where the lists are already of that. `ends` is
    /// when what was revoked since the CRL ends, where that is known.
    pub(super) async fn follow(
        &mut self,
        mut statement: Option<Statement>,
        ends: Option<&BTreeMap<u64, i64>>,
    ) {
        // Lists may pass where news does not.
        if self.heard.as_ref().is_some_and(|heard| !self.is_news && gate::is_closed(self.store, heard)) {
            self.done.add(Err(useless(
                STATEMENT_PATH,
                "it is nothing new, and nobody is let in until something is",
            )));
            return;
        }
        for _ in 0..ATTEMPTS {
            self.overtaken.clear();
            self.bring(statement.as_ref(), ends).await;
            if self.overtaken.is_empty() {
                return;
            }
            match self.ask().await {
                Ok(later) => statement = later,
                Err(error) => {
                    self.done.add(Err(error));
                }
            }
        }
        for error in std::mem::take(&mut self.overtaken) {
            self.done.add(Err(error));
        }
    }

    /// What is revoked counts most, so each list is
    /// fetched, checked and put in place on its own: one that is no good, be it
    /// its own fault or the clock's, does not hold up the other. New CAs are
    /// trusted once the list of what they signed is there.
    async fn bring(&mut self, statement: Option<&Statement>, ends: Option<&BTreeMap<u64, i64>>) {
        let fetcher = self.fetcher;
        let cas = async {
            match statement {
                Some(statement) => Ok(statement.trust.clone()),
                None => {
                    let json = fetcher.get(TRUST_PATH, MAX_TRUST).await?;
                    read_trust(&json).map_err(|why| useless(TRUST_PATH, &why))
                }
            }
        };
        // In this order, so that what the list has is told.
        let tls = async {
            let crl = fetcher.get(CRL_PATH, MAX_LIST).await;
            (crl, if ends.is_some() { Ok(ends.cloned()) } else { fetcher.ends().await })
        };
        let (mut ssh_is_good, cas, (crl, ends)) = tokio::join!(self.krl_into(statement), cas, tls);
        let ends = ends.unwrap_or_else(|error| {
            self.done.add(Err(error));
            Some(BTreeMap::new())
        });
        let cas = match cas {
            Ok(cas) => cas,
            Err(error) => {
                self.done.add(Err(error));
                self.done.add(crl.map(|_| None));
                return;
            }
        };
        let (store, user_cas) = (self.store, cas.ssh_user_cas.concat());
        if ssh_is_good && statement.is_none() && !holds(store, USER_CA, &user_cas) {
            // The list may be from before this CA, and then says nothing of what it signed.
            ssh_is_good = self.krl_into(None).await;
        }
        if ssh_is_good {
            self.done.add(update(store, USER_CA, user_cas));
            self.done.add(update(store, HOST_CA, cas.ssh_host_cas.concat()));
            self.done.add(update(store, KNOWN_HOSTS, ssh::known_hosts(&cas)));
        }
        self.crl_into(statement, crl, &cas, ends.as_ref());
    }

    /// Whether the list is the authority's of now.
    async fn krl_into(&mut self, statement: Option<&Statement>) -> bool {
        self.seen();
        if let (Some(statement), Some(heard)) = (statement, &self.heard)
            && heard.lists.krl == statement.number
            && let Some(there) = self.krl().and_then(|krl| krl::read(&krl).ok())
        {
            self.seen().add(SSH, there.serials, statement.made);
            return true;
        }
        let new = match self.fetcher.get(KRL_PATH, MAX_LIST).await {
            Ok(new) => new,
            Err(error) => return self.done.add(Err(error)),
        };
        if statement.is_some_and(|statement| statement.krl != sha256(&new)) {
            self.overtaken.push(useless(KRL_PATH, OTHER_LIST));
            return false;
        }
        let store = self.store;
        match fresh_krl(store, self.seen(), new, Clock::system().now(), KRL_PATH) {
            Ok(fresh) => {
                self.done.add(fresh.wrong.map_or(Ok(None), Err));
                let is_good = self.done.add(put(store, KRL, fresh.content)) && fresh.is_current;
                if let Some(statement) = statement.filter(|_| is_good)
                    && let Ok(Some(there)) = store.read(KRL, MAX_FILE)
                {
                    self.has_krl(statement.number, sha256(&there));
                }
                is_good
            }
            Err(error) => self.done.add(Err(error)),
        }
    }

    fn crl_into(
        &mut self,
        statement: Option<&Statement>,
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
        if let Some(statement) = statement
            && signed_part(&crl).is_ok_and(|part| sha256(&part) != statement.crl)
        {
            self.overtaken.push(useless(CRL_PATH, OTHER_LIST));
            return;
        }
        let fresh = fresh_crl(store, self.seen(), &crl, &ders, ends, now, CRL_PATH);
        if !self.done.add(fresh.and_then(|crl| put(store, CRL, crl))) {
            return;
        }
        if let (Some(statement), Some(heard)) = (statement, &mut self.heard) {
            heard.lists.crl = statement.number;
        }
        self.done.add(update(store, TLS_CA, cas.tls_cas.concat()));
    }
}

/// The CAs, checked and brought into one form.
fn read_trust(json: &[u8]) -> Result<TrustAnchors, String> {
    let cas: TrustAnchors = serde_json::from_slice(json).map_err(|_| "it is not the JSON of an authority")?;
    trust::plain(&cas)
}

fn unbelievable(why: String) -> Error {
    Error::new(Kind::Unreachable, why).context("what the authority states cannot be believed").hint(
        "the files of it stay as they are; where the clocks are right, something on the way repeats or swaps answers, or \
         it is another authority: to begin anew with that, remove authority.heard",
    )
}
