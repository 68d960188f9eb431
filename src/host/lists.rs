//! Whether a revocation list that was fetched is to replace the one that is
//! there: it must be one that servers take, of now, none from before, and must
//! not lack what this host has [`Seen`] revoked.
//!
//! `Kind::Unreachable` is that the new one is no good, or from before;
//! `Kind::Destination`, that the old one cannot be read.

use std::collections::{BTreeMap, BTreeSet};

use ssh_key::HashAlg;

use super::crl::{ARMOUR, Crl};
use super::heard::HEARD;
use super::seen::{End, SEEN, SSH, Seen};
use super::trust;
use crate::clock::{LEEWAY, rfc3339};
use crate::error::{Error, Kind, Result};
use crate::folder::Folder;
use crate::krl::{self, Krl};
use crate::net::pin_of;
use crate::pem;
use crate::text::shown;
use crate::wire::{MAX_LIST, TrustAnchors};

/// `RevokedKeys` of `sshd`.
pub const KRL: &str = "revoked.krl";
/// The revocation list of TLS servers, in PEM as nginx and PostgreSQL want it.
pub const CRL: &str = "tls.crl";
/// The longest of them that is read again, in bytes: PEM is a third longer than what is fetched, and a KRL gets what it lacks.
pub const MAX_FILE: usize = 2 * MAX_LIST;

/// What the authority gives is no good.
pub(super) fn useless(path: &str, why: &str) -> Error {
    refused(path, why)
        .hint("the files of it stay as they are; check that --authority is the right one, and see its log")
}

fn refused(path: &str, why: &str) -> Error {
    Error::new(Kind::Unreachable, why.to_owned())
        .context(format!("what the authority gives at {path} cannot be used"))
}

/// What is to become of a file, and what is wrong all the same.
#[derive(Debug, Default)]
pub struct Fresh {
    /// What is to be put in its place, if anything.
    pub content: Option<Vec<u8>>,
    /// What is wrong with the list that was fetched, if anything.
    pub wrong: Option<Error>,
    /// Whether it is of now all the same, and stands there with what it lacked.
    pub is_current: bool,
    /// The keys that it revokes.
    pub keys: Vec<Vec<u8>>,
}

/// The new list, or the one that is there where the new one is of another time;
/// and in either what this host has seen revoked, in the new one too, since
/// there is no harm in revoking more; and the keys of CAs that are believed no more, which never end.
pub fn fresh_krl(
    store: &Folder,
    (seen, keys): (&mut Seen, &BTreeSet<Vec<u8>>),
    new: Vec<u8>,
    now: i64,
    path: &str,
) -> Result<Fresh> {
    let list = krl::read(&new).map_err(|why| useless(path, why))?;
    let old = read_old(store, KRL)?;
    let known = old.as_deref().map(krl::read).transpose().map_err(|why| unreadable(store, KRL, why))?;
    // `sshd` does not look at the date, so the leeway is for the authority's clock.
    let made = |list: &Krl| i64::try_from(list.date).unwrap_or(i64::MAX);
    let is_early = |list: &Krl| made(list) > now.saturating_add(LEEWAY);
    let older_than = known.as_ref().filter(|known| !is_early(known) && list.number < known.number);
    let wrong = if is_early(&list) {
        Some(early(path, made(&list), now))
    } else {
        // An authority that is ahead by as much as this lets it drops a certificate that much early.
        let (then, lists) =
            (now.saturating_add(LEEWAY), |serial| list.serials.binary_search(&serial).is_ok());
        let lacks = forgotten(seen, SSH, then, lists, path);
        let key = keys.iter().find(|key| list.keys.binary_search(key).is_err());
        lacks.or_else(|| key.map(|key| forgotten_key(key, path))).or_else(|| {
            let known = older_than?.number;
            let why = format!("its number is {}, and that of the list here is {known}", list.number);
            Some(refused(path, &older(KRL, &why)).hint(format!("what it revokes is added to {KRL}")))
        })
    };
    let is_current = !is_early(&list) && older_than.is_none();
    let base = if is_current { Some(new) } else { old.clone() };
    for list in known.iter().chain([&list]) {
        seen.add(SSH, list.serials.iter().copied(), made(list).min(now));
    }
    let Some(base) = base else {
        return Ok(Fresh { content: None, wrong, is_current, keys: list.keys });
    };
    let content = krl::adding(base, seen.still(SSH, now).map(|(serial, _)| serial))
        .and_then(|content| krl::revoking_keys(content, keys.iter().chain(&list.keys)))
        .map_err(|why| useless(path, why))?;
    let is_new = old.is_none_or(|old| !krl::same(&old, &content));
    Ok(Fresh { content: is_new.then_some(content), wrong, is_current, keys: list.keys })
}

/// A list of TLS servers that was fetched, and the CAs in DER one of which is to have signed it.
pub struct NewCrl<'l> {
    /// The list in DER.
    pub list: &'l [u8],
    /// The CAs.
    pub cas: Vec<Vec<u8>>,
    /// Where it is from.
    pub path: &'l str,
}

/// What is to become of the lists of TLS servers, which stand in one file.
#[derive(Debug, Default)]
pub struct FreshCrls {
    /// What is to be put in its place, if anything.
    pub content: Option<Vec<u8>>,
    /// The pins of the CAs whose list is in it then.
    pub listed: BTreeSet<String>,
    /// What is wrong with those that were fetched.
    pub wrong: Vec<Error>,
}

/// The new lists in PEM, each in place of the one that is there of its CA if it is to replace that; of each of `cas`, which
/// are the TLS CAs in DER, one at most. `ends` is when certificates end, where the authority is of a version that tells.
pub fn fresh_crls(
    store: &Folder,
    seen: &mut Seen,
    new: &[NewCrl<'_>],
    cas: &[Vec<u8>],
    (ends, now): (Option<&BTreeMap<u64, i64>>, i64),
) -> FreshCrls {
    let mut fresh = FreshCrls::default();
    let (file, old) = match old_crls(store, cas) {
        Ok(there) => there,
        Err(error) => {
            fresh.wrong.push(error);
            return fresh;
        }
    };
    let mut lists = BTreeMap::new();
    for new in new {
        match fresh_crl(store, seen, new, &old, (ends, now)) {
            Ok((signer, list)) => drop(lists.insert(signer, list)),
            Err(error) => fresh.wrong.push(error),
        }
    }
    let mut content = String::new();
    for pin in cas.iter().filter_map(|ca| pin_of(ca).ok()) {
        // One that is no good leaves the one that is there.
        let known = || old.iter().find(|(_, list)| list.as_ref().is_ok_and(|list| list.signer == pin));
        if let Some(list) = lists.remove(&pin).or_else(|| Some(known()?.0.clone()))
            && fresh.listed.insert(pin)
        {
            content.push_str(&pem::encode(ARMOUR, &list));
        }
    }
    let is_new = !content.is_empty() && file.as_deref() != Some(content.as_bytes());
    fresh.content = is_new.then(|| content.into_bytes());
    fresh
}

/// The pin of the CA that has signed the new list, and that list, or the one that is there where that still serves.
fn fresh_crl(
    store: &Folder,
    seen: &mut Seen,
    new: &NewCrl<'_>,
    old: &[OldCrl],
    (ends, now): (Option<&BTreeMap<u64, i64>>, i64),
) -> Result<(String, Vec<u8>)> {
    let path = new.path;
    let list = Crl::parse(new.list, &new.cas).map_err(|why| useless(path, &why))?;
    if list.until <= now {
        return Err(useless(path, "it is no longer good by this machine's clock"));
    }
    let known = known_crl(old, &list).map_err(|why| unreadable(store, CRL, &why))?;
    let ca = list.ca();
    // What ends nobody knows when would keep out every list without it for a week.
    if let Some(ends) = ends {
        for list in known.iter().map(|(_, known)| *known).chain([&list]).filter(|list| list.ca() == ca) {
            seen.add(&ca, list.serials.iter().copied(), list.made.min(now));
        }
        seen.learn(ends);
    }
    // A server of this machine's clock would refuse everybody: the leeway is in what the authority signs.
    if list.made > now {
        return Err(early(path, list.made, now));
    }
    if let Some(lacks) = forgotten(seen, &ca, now, |serial| list.serials.contains(&serial), path) {
        return Err(lacks);
    }
    match known {
        Some((_, known)) if known.made <= now && list.is_before(known) => {
            Err(useless(path, &older(CRL, "its number is lower than that of the list here")))
        }
        Some((der, known)) if known.made <= now && known.serves_like(&list, now) => {
            Ok((list.signer, der.clone()))
        }
        _ => Ok((list.signer, new.list.to_vec())),
    }
}

/// That the list lacks a certificate which was revoked and is not over.
fn forgotten(seen: &Seen, ca: &str, now: i64, lists: impl Fn(u64) -> bool, path: &str) -> Option<Error> {
    // A KRL is completed in any case. Whether it lacks what may be over long since, nobody can say.
    let counts = |end: End| matches!(end, End::Told(_)) || ca != SSH;
    let mut missing = seen.still(ca, now).filter(|(serial, end)| counts(*end) && !lists(*serial));
    let (serial, end) = missing.next()?;
    let more = match missing.count() {
        0 => String::new(),
        count => format!(" (and {count} more)"),
    };
    let latest = if matches!(end, End::Told(_)) { "" } else { " at the latest" };
    let end = rfc3339(end.at());
    let why = format!(
        "it does not revoke the certificate {serial}{more} any more, which is good until {end}{latest}: the authority \
         has forgotten that, as one does that was put back from a backup"
    );
    let error = refused(path, &why);
    Some(if ca == SSH {
        error.hint(format!(
            "what this host has seen revoked stays so in {KRL}; with another authority in its place, remove that and {SEEN}"
        ))
    } else {
        error.hint(format!(
            "such a list is taken once the certificate has ended; to let it in again before, remove {SEEN} and {CRL}"
        ))
    })
}

/// That it lacks the key of a CA that was believed no more.
fn forgotten_key(key: &[u8], path: &str) -> Error {
    let key = ssh_key::PublicKey::from_bytes(key);
    let key = key.map_or_else(|_| "a key".to_owned(), |key| key.fingerprint(HashAlg::Sha256).to_string());
    let why = format!("it does not revoke the CA {key} any more, which does not end");
    refused(path, &why).hint(format!(
        "what this host has seen revoked stays so in {KRL}; with another authority in its place, remove that and {HEARD}"
    ))
}

/// A list of a clock that is ahead: once it is right again, everything would be older.
fn early(path: &str, made: i64, now: i64) -> Error {
    let why = format!(
        "it is from the future: made at {}, by this machine's clock it is {}",
        rfc3339(made),
        rfc3339(now)
    );
    refused(path, &why).hint("check the clocks of the authority and of this machine")
}

/// A list that is there, in DER, and what it says, where one of the TLS CAs has signed it.
type OldCrl = (Vec<u8>, std::result::Result<Crl, String>);

/// The file, and the lists in it.
fn old_crls(store: &Folder, cas: &[Vec<u8>]) -> Result<(Option<Vec<u8>>, Vec<OldCrl>)> {
    let Some(file) = read_old(store, CRL)? else { return Ok((None, Vec::new())) };
    let lists = std::str::from_utf8(&file).ok().and_then(|text| pem::decode_all(text, ARMOUR));
    let lists = lists.filter(|lists| !lists.is_empty());
    let lists = lists.ok_or_else(|| unreadable(store, CRL, "it is no list in PEM"))?;
    let read = |der: zeroize::Zeroizing<Vec<u8>>| (der.to_vec(), Crl::parse(&der, cas));
    Ok((Some(file), lists.into_iter().map(read).collect()))
}

/// The TLS CAs in PEM whose lists are there: of the others a server would refuse everybody, or nobody.
pub fn listed(store: &Folder, cas: &TrustAnchors) -> Result<String> {
    let ders = trust::tls_ders(cas);
    let (_, lists) = old_crls(store, &ders)?;
    let signers: BTreeSet<String> =
        lists.into_iter().filter_map(|(_, list)| Some(list.ok()?.signer)).collect();
    Ok(trust::tls_of(cas, |pin| signers.contains(pin)))
}

/// The list of the same CA that is there; none where that is not trusted any
/// more, and so says nothing of the new one.
fn known_crl<'o>(
    old: &'o [OldCrl],
    new: &Crl,
) -> std::result::Result<Option<(&'o Vec<u8>, &'o Crl)>, String> {
    for (der, list) in old {
        match list {
            Ok(list) if list.signer == new.signer => return Ok(Some((der, list))),
            Err(why) if new.is_of_same(der)? => return Err(why.clone()),
            _ => {}
        }
    }
    Ok(None)
}

fn read_old(store: &Folder, name: &str) -> Result<Option<Vec<u8>>> {
    store.read(name, MAX_FILE).map_err(|why| unreadable(store, name, &why))
}

fn unreadable(store: &Folder, name: &str, why: &str) -> Error {
    let path = store.path().join(name);
    Error::new(Kind::Destination, why.to_owned()).context(format!("cannot read {}", path.display())).hint(
        "without it nothing tells whether the authority's list is newer: make it readable, or, if it is damaged, \
         remove it and refresh again",
    )
}

/// Taking it would let in again what was revoked.
fn older(name: &str, why: &str) -> String {
    format!(
        "it is older than {name}: {}; if the authority was restored from a backup, remove that file: what this host has \
         seen revoked stays so",
        shown(why)
    )
}

#[cfg(test)]
mod tests;
