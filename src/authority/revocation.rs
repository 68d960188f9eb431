//! The lists of what was revoked, as servers read them: OpenSSH's key
//! revocation list (`PROTOCOL.krl` of OpenSSH) for `RevokedKeys`, and the
//! X.509 list (RFC 5280, section 5) for TLS servers. Neither says when a
//! certificate ends, so that is told beside them.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use ring::digest::{Context, SHA256, digest};
use tokio::sync::Mutex;
use x509_parser::asn1_rs::{Any, FromDer as _};

use super::keys::{CaKeys, valid_from};
use super::store::{
    CertificateKind, LIST_SERVED, ListNumber, RevokedCertificate, RevokedSince, RevokedUpto, Store,
};
use super::validity::{Ending, Validity};
use crate::clock::LEEWAY;
use crate::error::{Context as _, Error, Kind, Result};
use crate::text::hex;
use crate::wire::{CrlHash, MAX_LIST, RevokedNow};

mod hosts;
mod list;
mod set_hash;

pub use hosts::HostListCache;

use hosts::ASKED;
use list::{RevocationList, ssh_krl, tls_crl};
use set_hash::SetHash;

/// How long they are served, in seconds, where nothing was revoked.
const SERVED: Range<i64> = 0..LIST_SERVED;
/// How long a TLS list says that it is good for, in seconds.
const CRL_VALID: i64 = 24 * 3600;
/// How long the end of a certificate is told that is over, in seconds: for hosts that have not asked before.
const ENDED: i64 = 3600;
/// How many revocations are known as new to a list: who lacks more fetches the whole one.
const MAX_NEW: usize = 2000;
/// Lists are large from as many bytes of [`Lists::ends`] on; then they are made for a tenth of the time at most, or once in so
/// long, unless an operator has revoked something.
const LARGE: usize = 1 << 20;
const REST: Duration = Duration::from_secs(1);
/// How many bytes of lists that are no more are kept for those who are reading them: anybody may ask, on many connections, and
/// read nothing.
const KEPT: usize = 64 << 20;
/// How long they are kept within that for hosts that have heard of them and are about to ask: others may come many times a second.
const NAMED: Duration = Duration::from_secs(10);
/// How [`RevokedEnds`](crate::wire::RevokedEnds) begins in JSON, how long one of it is at most, and how many are told at once.
const ENDS: &str = "{\"expires\":{";
const END: usize = "\"9223372036854775807\":9999999999,".len();
const PART: usize = 2000;
/// How many lists are known by what was new to them.
const MAX_CHANGES: usize = 512;

/// The lists as they are served.
#[derive(Debug)]
pub struct Lists {
    /// What names them.
    pub number: u64,
    /// The SHA-256 of the KRL and of what the CRL's signature is over, in hexadecimal.
    pub hashes: [String; 2],
    /// The same of the CRLs of other TLS CAs that are trusted.
    pub crls: Vec<CrlHash>,
    /// What was new to these, and to those before them, oldest first.
    changes: VecDeque<Arc<Change>>,
    /// OpenSSH's key revocation list.
    pub krl: Vec<u8>,
    /// The X.509 revocation list in DER (RFC 5280, section 5), of the TLS CA that signs.
    pub crl: Vec<u8>,
    /// Those of the others, as `crls` has them.
    others: Vec<Vec<u8>>,
    /// The hash of the key of the CA that signs, in hexadecimal.
    ca: String,
    /// When the X.509 list is good.
    validity: Validity,
    /// How long [`RevokedEnds`](crate::wire::RevokedEnds) is in JSON, at most.
    ends: usize,
}

/// What is on a list and was not on the one before.
#[derive(Debug)]
struct Change {
    since: u64,
    revoked: Vec<RevokedNow>,
}

/// Keeps the lists: anybody may ask for them.
#[derive(Debug, Default)]
pub struct ListCache {
    /// What is revoked, by ascending serial, and was not over an hour ago. There may be a million, and this is their one copy.
    known: RwLock<Vec<RevokedCertificate>>,
    state: Mutex<State>,
    /// When the last ones are good, also while others are being made.
    validity: RwLock<Option<Validity>>,
}

/// How far the lists are.
#[derive(Debug, Default)]
struct State {
    last: Option<Cached>,
    /// Those before, which somebody may still be reading or about to, and until when they were the last.
    former: VecDeque<(Arc<Lists>, Instant)>,
    /// How much of the store is known.
    upto: Option<RevokedUpto>,
    /// What of that is not on the last lists yet.
    fresh: Vec<RevokedNow>,
    /// What is known of those that end then or later, hashed.
    hashed: Option<(i64, SetHash)>,
}

#[derive(Debug)]
struct Cached {
    lists: Arc<Lists>,
    /// When the first of those on them ends.
    first_end: i64,
    made: i64,
    asked: i64,
    revocations: u64,
    /// The CAs that they are of, by [`CaKeys::state`].
    cas: (i64, usize),
    /// Until when no others are made for what jobs give back.
    rest: Instant,
}

impl Cached {
    /// They are the ones of now too, where so much was revoked.
    fn again(&mut self, now: i64, revocations: u64) -> (Arc<Lists>, u64) {
        (self.asked, self.revocations) = (now, revocations);
        (Arc::clone(&self.lists), revocations)
    }
}

impl Lists {
    /// What is revoked by these and was not by those of that number; none where that is not known any more.
    pub fn since(&self, number: u64) -> Option<Vec<RevokedNow>> {
        if number == self.number {
            return Some(Vec::new());
        }
        let from = self.changes.iter().position(|change| change.since == number)?;
        Some(self.changes.iter().skip(from).flat_map(|change| change.revoked.iter().copied()).collect())
    }

    /// Some of these bytes.
    #[cfg(test)]
    pub(in crate::authority) fn of(krl: Vec<u8>, crl: Vec<u8>) -> Self {
        Self {
            number: 0,
            hashes: Default::default(),
            crls: Vec::new(),
            changes: VecDeque::new(),
            krl,
            crl,
            others: Vec::new(),
            ca: String::new(),
            validity: Validity { from: 0, until: i64::MAX },
            ends: 0,
        }
    }

    /// When the X.509 list ends, unless it is made again; those of other CAs end with it.
    pub fn ending(&self) -> Ending {
        ending(self.validity)
    }

    fn size(&self) -> usize {
        self.krl.len() + self.crl.len() + self.others.iter().map(Vec::len).sum::<usize>()
    }

    /// The X.509 revocation list of the TLS CA with that key, by its hash in hexadecimal.
    pub fn crl_of(&self, ca: &str) -> Option<&[u8]> {
        if ca == self.ca {
            return Some(&self.crl);
        }
        let mut others = self.crls.iter().zip(&self.others).filter(|(known, _)| known.ca == ca);
        others.next().map(|(_, crl)| crl.as_slice())
    }

    /// What the operator must hear long before servers take the lists no more.
    pub fn alarm(&self) -> Option<String> {
        let largest = self.krl.len().max(self.crl.len()).max(self.ends);
        alarm(largest).map(|(words, hint)| format!("{words}: {hint}"))
    }
}

impl ListCache {
    /// The lists as of `now`: those that were made last, byte for byte, as long as they say what is true, and how much was
    /// revoked by then, by [`Store::revocations`]. Where they are large, what jobs give back is on them a second later at
    /// most; what is `urgent` at once.
    pub async fn lists(
        &self,
        store: &dyn Store,
        keys: &Arc<CaKeys>,
        now: i64,
        urgent: bool,
    ) -> Result<(Arc<Lists>, u64)> {
        // A clock that was put back is asked about too: what was made before is from the future.
        let is_within = |since: i64, age: &Range<i64>| age.contains(&now.saturating_sub(since));
        let mut state = self.state.lock().await;
        // Taken first, so that lists read before a revocation are not kept after it.
        let revocations = store.revocations();
        if let Some(last) = &state.last {
            let is_known = last.revocations == revocations && is_within(last.asked, &ASKED);
            let is_of_these = last.cas == keys.state();
            if is_of_these
                && (is_known || !urgent && Instant::now() < last.rest && is_within(last.made, &SERVED))
            {
                return Ok((Arc::clone(&last.lists), last.revocations));
            }
        }
        let was_put_back = state.last.as_ref().is_some_and(|last| now < last.asked);
        // Now and then, and of another time, all is read.
        if was_put_back || !state.last.as_ref().is_some_and(|last| is_within(last.made, &SERVED)) {
            state.upto = None;
        }
        let from = listed_from(now);
        let ListNumber { number, made, .. } = loop {
            self.hear(&mut state, store, now).await?;
            let State { last, fresh, hashed, upto, .. } = &mut *state;
            let has_all = |last: &&mut Cached| {
                let is_of_these = last.cas == keys.state();
                let is_good = from <= last.first_end && !was_put_back && is_within(last.made, &SERVED);
                fresh.is_empty() && is_of_these && is_good
            };
            if let Some(last) = last.as_mut().filter(has_all) {
                return Ok(last.again(now, revocations));
            }
            let what = self.what(hashed, keys, from)?;
            let number = store.list_number(now, what).await?;
            // What was revoked before it had its number may be on another's list, which has a lower one. There is little
            // between this and what was heard, so that it comes to an end however much jobs give back.
            if !number.is_of(*upto) {
                continue;
            }
            // What says the same as the last ones has another number where others said another thing in between.
            if let Some(last) =
                last.as_mut().filter(|last| last.lists.number == number.number && last.cas == keys.state())
            {
                fresh.clear();
                return Ok(last.again(now, revocations));
            }
            break number;
        };
        let begun = Instant::now();
        let before = state.last.as_ref().filter(|_| !was_put_back);
        let changes =
            before.map(|last| changes(&last.lists, number, state.fresh.clone())).unwrap_or_default();
        let (lists, first_end) = self.make(keys, number, made, from, changes).await?;
        let lists = Arc::new(lists);
        *self.validity.write().unwrap_or_else(PoisonError::into_inner) = Some(lists.validity);
        let rest = if lists.ends > LARGE { REST.min(begun.elapsed() * 10) } else { Duration::ZERO };
        let cached = Cached {
            lists: Arc::clone(&lists),
            first_end,
            made,
            asked: now,
            revocations,
            cas: keys.state(),
            rest: Instant::now() + rest,
        };
        let former = state.last.replace(cached);
        former.into_iter().for_each(|former| keep(&mut state.former, former.lists, Instant::now()));
        state.fresh.clear();
        Ok((lists, revocations))
    }

    /// When the last ones end that were made, unless others are; nobody makes any for this.
    pub fn ending(&self) -> Option<Ending> {
        self.validity.read().unwrap_or_else(PoisonError::into_inner).map(ending)
    }

    /// Those of that number, where they are kept.
    pub async fn of_number(&self, number: u64) -> Option<Arc<Lists>> {
        let state = self.state.lock().await;
        let last = state.last.iter().map(|last| &last.lists);
        let all = last.chain(state.former.iter().rev().map(|(lists, _)| lists));
        all.into_iter().find(|lists| lists.number == number).cloned()
    }

    /// Takes in what was revoked since, for little where that is little.
    async fn hear(&self, state: &mut State, store: &dyn Store, now: i64) -> Result<()> {
        let since = now.saturating_sub(ENDED);
        let RevokedSince { mut certificates, upto, is_all } = store.revoked_since(since, state.upto).await?;
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let is_new = |one: &RevokedCertificate| place(&known, one.serial).is_err();
        // Of more it is not told what is new.
        let fresh = certificates.iter().filter(|one| is_new(one)).map(|one| RevokedNow {
            serial: one.serial,
            ssh: one.kind == CertificateKind::Ssh,
            expires: one.expires,
        });
        let (before, room) = (state.fresh.len(), (MAX_NEW + 1).saturating_sub(state.fresh.len()));
        state.fresh.extend(fresh.take(room));
        let is_news = state.fresh.len() > before || room == 0 && certificates.iter().any(is_new);
        // By the sort that is quick where nearly all is in order.
        let in_order = |certificates: &mut Vec<RevokedCertificate>| {
            certificates.sort_by_key(|one| one.serial);
            certificates.dedup_by_key(|one| one.serial);
        };
        if is_all {
            *known = certificates;
            in_order(&mut known);
            state.hashed = None;
        } else if is_news {
            certificates.retain(is_new);
            in_order(&mut certificates);
            known.retain(|one| one.expires >= since);
            state.hashed = state.hashed.filter(|(from, _)| *from >= since);
            if let Some((from, hash)) = &mut state.hashed {
                let listed = certificates.iter().filter(|one| one.expires >= *from);
                listed.for_each(|one| hash.change(one, u64::wrapping_add));
            }
            known.extend(certificates);
            in_order(&mut known);
        }
        state.upto = Some(upto);
        Ok(())
    }

    /// The lists of that number, and when the first of those on them ends.
    async fn make(
        &self,
        keys: &Arc<CaKeys>,
        number: u64,
        made: i64,
        from: i64,
        changes: VecDeque<Arc<Change>>,
    ) -> Result<(Lists, i64)> {
        let (ssh, tls) = (keys.ssh_cas()?, keys.tls_cas()?);
        let (krl, crls, first_end, count) = {
            let known = self.known();
            let list = RevocationList { number, certificates: &known, from };
            let first_end = list.all().map(|one| one.expires).min().unwrap_or(i64::MAX);
            let crls = tls.iter().filter(|ca| ca.has_list).map(|ca| {
                let crl = tls_crl(ca, &tls, list, (made, CRL_VALID));
                (hex(&ca.key), crl)
            });
            (ssh_krl(&ssh, list, made)?, crls.collect::<Vec<_>>(), first_end, known.len())
        };
        let sign = |keys: &CaKeys| -> Result<Vec<_>> {
            crls.into_iter().map(|(ca, crl)| Ok((ca, crl.sign(keys)?))).collect()
        };
        let mut crls = keys.work(sign).await?.into_iter();
        let (ca, crl) = crls.next().ok_or_else(|| Error::internal("no TLS CA signs a list"))?;
        let (others, crls): (Vec<_>, Vec<_>) = crls
            .map(|(ca, crl)| {
                let hash = hex(digest(&SHA256, to_be_signed(&crl)?).as_ref());
                Ok((crl, CrlHash { ca, hash }))
            })
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .unzip();
        let lists = Lists {
            number,
            hashes: [&*krl, to_be_signed(&crl)?].map(|list| hex(digest(&SHA256, list).as_ref())),
            crls,
            changes,
            krl,
            crl,
            others,
            ca,
            validity: validity(made),
            ends: ENDS.len() + count * END,
        };
        Ok((lists, first_end))
    }

    /// A hash of what lists say of which CAs, without those that end before.
    fn what(&self, hashed: &mut Option<(i64, SetHash)>, keys: &CaKeys, from: i64) -> Result<[u8; 32]> {
        let known = self.known();
        let (before, mut set) = hashed.filter(|(before, _)| *before <= from).unwrap_or_else(|| {
            let mut all = SetHash::default();
            known.iter().for_each(|one| all.change(one, u64::wrapping_add));
            (i64::MIN, all)
        });
        let ended = known.iter().filter(|one| (before..from).contains(&one.expires));
        ended.for_each(|one| set.change(one, u64::wrapping_sub));
        *hashed = Some((from, set));
        let mut hash = Context::new(&SHA256);
        hash.update(&keys.hash()?);
        set.0.iter().for_each(|part| hash.update(&part.to_be_bytes()));
        hash.finish().as_ref().try_into().context(Kind::Internal, "SHA-256")
    }

    /// A part of [`RevokedEnds`](crate::wire::RevokedEnds) in JSON, behind that serial, and by which serial it goes on, if it
    /// does. The whole is longer than both lists, so nobody keeps it: what is revoked while somebody reads may be told or not.
    pub fn ends(&self, after: Option<u64>) -> (String, Option<u64>) {
        let known = self.known();
        let from = after.map_or(0, |serial| place(&known, serial).map_or_else(|at| at, |at| at + 1));
        let some = known.get(from..).unwrap_or_default().chunks(PART).next().unwrap_or_default();
        let mut json = String::with_capacity(ENDS.len() + some.len() * END);
        let mut before = if after.is_none() { ENDS } else { "," };
        for RevokedCertificate { serial, expires, .. } in some {
            json.push_str(&format!("{before}\"{serial}\":{expires}"));
            before = ",";
        }
        let last = some.last().filter(|_| some.len() == PART).map(|one| one.serial);
        if last.is_none() {
            json.push_str(if after.is_none() && some.is_empty() { ENDS } else { "" });
            json.push_str("}}");
        }
        (json, last)
    }

    fn known(&self) -> RwLockReadGuard<'_, Vec<RevokedCertificate>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When the X.509 lists end that were made then, by whichever authority of a store.
pub fn ending_of(made: i64) -> Ending {
    ending(validity(made))
}

fn ending(validity: Validity) -> Ending {
    Ending { what: "the list of revoked X.509 certificates".to_owned(), validity }
}

fn validity(made: i64) -> Validity {
    Validity { from: valid_from(made), until: made.saturating_add(CRL_VALID) }
}

/// Keeps lists that are no more for those who are reading them or about to: the last ones, as long as they are no more than
/// [`KEPT`]. Those that somebody reads stay the longest: a large one takes a while, and he would begin anew with the next.
fn keep(former: &mut VecDeque<(Arc<Lists>, Instant)>, lists: Arc<Lists>, now: Instant) {
    let is_read = |lists: &Arc<Lists>| Arc::strong_count(lists) > 1 || Arc::weak_count(lists) > 0;
    former.push_back((lists, now));
    former.retain(|(lists, last)| is_read(lists) || now.saturating_duration_since(*last) < NAMED);
    let size =
        |all: &VecDeque<(Arc<Lists>, Instant)>| all.iter().map(|(lists, _)| lists.size()).sum::<usize>();
    while size(former) > KEPT {
        former.remove(former.iter().position(|(lists, _)| !is_read(lists)).unwrap_or(0));
    }
}

/// What the operator must hear of lists of so many certificates, and what to do about it.
pub fn alarm_of(count: usize) -> Option<(String, &'static str)> {
    alarm(ENDS.len() + count.saturating_mul(END))
}

fn alarm(largest: usize) -> Option<(String, &'static str)> {
    let [has, most] = [largest, MAX_LIST].map(|bytes| bytes >> 20);
    let words =
        format!("a revocation list has {has} MiB, and beyond {most} MiB servers keep the old one for ever");
    let hint = "shorten `max_session_ttl`, lower `limits`, and see who gives so much back";
    (largest > MAX_LIST / 2).then_some((words, hint))
}

/// Where a serial is, or would be.
fn place(known: &[RevokedCertificate], serial: u64) -> Result<usize, usize> {
    known.binary_search_by_key(&serial, |one| one.serial)
}

/// Lists are of certificates that end then or later: what a clock within the leeway may still take for valid. In whole minutes,
/// so that what merely ends makes no new list each second, and of two authorities both make the same. One with less than a
/// minute left that is revoked is listed too: what was locked is refused within a second, however soon it ends.
fn listed_from(now: i64) -> i64 {
    now.saturating_sub(LEEWAY).div_euclid(60).saturating_mul(60)
}

/// What the signature of a CRL is over, which is the same of all who share a store. Without reading all that is on it.
fn to_be_signed(crl: &[u8]) -> Result<&[u8]> {
    let (_, list) = Any::from_der(crl).context(Kind::Internal, "a CRL")?;
    let (rest, _) = Any::from_der(list.data).context(Kind::Internal, "a CRL")?;
    Ok(list.data.strip_suffix(rest).unwrap_or(list.data))
}

/// What is known to be new to the list of that number, and to those before it, where it has these that the one before had not.
fn changes(before: &Lists, number: u64, fresh: Vec<RevokedNow>) -> VecDeque<Arc<Change>> {
    let mut changes = before.changes.clone();
    if before.number != number {
        changes.push_back(Arc::new(Change { since: before.number, revoked: fresh }));
    }
    let count =
        |changes: &VecDeque<Arc<Change>>| changes.iter().map(|change| change.revoked.len()).sum::<usize>();
    while changes.len() > MAX_CHANGES || count(&changes) > MAX_NEW {
        changes.pop_front();
    }
    changes
}

#[cfg(test)]
pub(super) mod tests;
