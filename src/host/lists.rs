//! Whether a revocation list that was fetched is to replace the one that is
//! there: it must be one that servers take, of now, none from before, and must
//! not lack what this host has [`Seen`] revoked.
//!
//! `Kind::Unreachable` is that the new one is no good, or from before;
//! `Kind::Destination`, that the old one cannot be read.

use std::collections::BTreeMap;

use super::crl::{ARMOUR, Crl};
use super::seen::{End, SEEN, SSH, Seen};
use crate::clock::{LEEWAY, rfc3339};
use crate::error::{Error, Kind, Result};
use crate::folder::Folder;
use crate::krl::{self, Krl};
use crate::pem;
use crate::text::shown;
use crate::wire::MAX_LIST;

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
}

/// The new list, or the one that is there where the new one is of another time;
/// and in either what this host has seen revoked, in the new one too, since
/// there is no harm in revoking more.
pub fn fresh_krl(store: &Folder, seen: &mut Seen, new: Vec<u8>, now: i64, path: &str) -> Result<Fresh> {
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
        forgotten(seen, SSH, then, lists, path).or_else(|| {
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
    let Some(base) = base else { return Ok(Fresh { content: None, wrong, is_current }) };
    let content = krl::adding(base, seen.still(SSH, now).map(|(serial, _)| serial))
        .map_err(|why| useless(path, why))?;
    let is_new = old.is_none_or(|old| !krl::same(&old, &content));
    Ok(Fresh { content: is_new.then_some(content), wrong, is_current })
}

/// The new list in PEM, if it is to replace the one that is there; `cas` are
/// the TLS CAs in DER, `ends` when certificates end, where the authority is of a version that tells.
pub fn fresh_crl(
    store: &Folder,
    seen: &mut Seen,
    new: &[u8],
    cas: &[Vec<u8>],
    ends: Option<&BTreeMap<u64, i64>>,
    now: i64,
    path: &str,
) -> Result<Option<Vec<u8>>> {
    let list = Crl::parse(new, cas).map_err(|why| useless(path, &why))?;
    if list.until <= now {
        return Err(useless(path, "it is no longer good by this machine's clock"));
    }
    let old = read_old(store, CRL)?;
    let known = old.map(|old| known_crl(&old, &list, cas)).transpose();
    let known = known.map_err(|why| unreadable(store, CRL, &why))?.flatten();
    let ca = list.ca();
    // What ends nobody knows when would keep out every list without it for a week.
    if let Some(ends) = ends {
        for list in known.iter().chain([&list]).filter(|list| list.ca() == ca) {
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
        Some(known) if known.made <= now && list.is_before(&known) => {
            Err(useless(path, &older(CRL, "its number is lower than that of the list here")))
        }
        Some(known) if known.made <= now && known.serves_like(&list, now) => Ok(None),
        _ => Ok(Some(pem::encode(ARMOUR, new).as_bytes().to_vec())),
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

/// A list of a clock that is ahead: once it is right again, everything would be older.
fn early(path: &str, made: i64, now: i64) -> Error {
    let why = format!(
        "it is from the future: made at {}, by this machine's clock it is {}",
        rfc3339(made),
        rfc3339(now)
    );
    refused(path, &why).hint("check the clocks of the authority and of this machine")
}

/// The list that is there; none where it is of a CA that is not trusted any
/// more, and so says nothing of the new one.
fn known_crl(old: &[u8], new: &Crl, cas: &[Vec<u8>]) -> Result<Option<Crl>, String> {
    let text = std::str::from_utf8(old).ok();
    let der = text.and_then(|old| pem::decode_all(old, ARMOUR)?.pop()).ok_or("it is no list in PEM")?;
    match Crl::parse(&der, cas) {
        Ok(known) => Ok(Some(known)),
        Err(why) if new.is_of_same(&der)? => Err(why),
        Err(_) => Ok(None),
    }
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
mod tests {
    use super::super::crl::tests::{ca, list};
    use super::super::store;
    use super::*;

    /// 1 January 2026, 12:00.
    const NOON: i64 = 1_767_268_800;

    fn store() -> (tempfile::TempDir, Folder) {
        let folder = tempfile::tempdir().unwrap();
        let store = store::open(&folder.path().join("trust")).unwrap();
        (folder, store)
    }

    fn krl(number: u64) -> Vec<u8> {
        krl_of(number, NOON, &[])
    }

    fn krl_of(number: u64, date: i64, serials: &[u64]) -> Vec<u8> {
        krl::write(number, u64::try_from(date).unwrap(), vec![(vec![], serials.to_vec())])
    }

    #[test]
    fn only_where_there_is_no_list_is_any_one_good() {
        let (_folder, store) = store();
        let fresh = |list| fresh_krl(&store, &mut Seen::default(), list, NOON, "/krl");
        let content = |number| fresh(krl(number)).unwrap().content;
        assert_eq!(content(7), Some(krl(7)));
        store::write(&store, KRL, &krl(7)).unwrap();
        assert_eq!(
            (content(7), content(8), fresh(krl_of(8, NOON - 5, &[])).unwrap().content),
            (None, None, None)
        );
        let revoking = krl_of(8, NOON, &[5]);
        assert_eq!(fresh(revoking.clone()).unwrap().content, Some(revoking));
        let older = fresh(krl(6)).unwrap();
        let error = older.wrong.unwrap();
        assert!(error.kind() == Kind::Unreachable && error.to_string().contains("older than revoked.krl"));
        assert_eq!(older.content, None);
        store::write(&store, KRL, b"damaged").unwrap();
        let error = fresh(krl(9)).unwrap_err();
        assert_eq!(error.kind(), Kind::Destination);
        assert!(
            error.to_string().contains("cannot read") && error.hints()[0].contains("remove it"),
            "{error:?}"
        );
        // What the authority gives is judged first.
        let error = fresh(b"<html>".to_vec()).unwrap_err();
        assert_eq!(error.kind(), Kind::Unreachable);
    }

    /// Puts a list in place as `host refresh` does; what is wrong, and the serials that are revoked then.
    fn take(store: &Folder, seen: &mut Seen, list: Vec<u8>, now: i64) -> (String, Vec<u64>) {
        let fresh = fresh_krl(store, seen, list, now, "/krl").unwrap();
        fresh.content.map(|content| store::write(store, KRL, &content).unwrap());
        let there = store.read(KRL, MAX_LIST).unwrap();
        let wrong = fresh.wrong.map(|error| format!("{error:#} {:?}", error.hints()));
        (wrong.unwrap_or_default(), there.map_or(vec![], |list| krl::read(&list).unwrap().serials))
    }

    #[test]
    fn what_was_seen_revoked_stays_in_the_krl() {
        let (_folder, store) = store();
        let seen = &mut Seen::default();
        let week = 7 * 86_400 + 60;
        // From a version before, which kept nothing beside the list: a certificate may be good for a week yet.
        store::write(&store, KRL, &krl_of(7, NOON - 100, &[1])).unwrap();
        assert_eq!(take(&store, seen, krl_of(8, NOON, &[2, 3]), NOON), (String::new(), vec![1, 2, 3]));
        seen.learn(&BTreeMap::from([(2, NOON + 500), (3, NOON + 500)]));
        // The authority that has forgotten some is told of; one that is right in that it is over, is not.
        let (wrong, serials) = take(&store, seen, krl_of(9, NOON, &[3, 4]), NOON);
        assert_eq!(serials, [1, 2, 3, 4]);
        assert!(wrong.contains("it does not revoke the certificate 2 any more, which is good until 2026-01-01T12:08:20Z: the authority has forgotten that, as one does that was put back from a backup"), "{wrong}");
        assert!(wrong.contains("stays so in revoked.krl"), "{wrong}");
        let (wrong, _) = take(&store, seen, krl_of(9, NOON, &[]), NOON);
        assert!(wrong.contains("the certificate 2 (and 1 more) any more"), "{wrong}");
        assert_eq!(
            take(&store, seen, krl_of(9, NOON + 441, &[]), NOON + 441),
            (String::new(), vec![1, 2, 3, 4])
        );
        assert_eq!(take(&store, seen, krl_of(9, NOON + 501, &[]), NOON + 501), (String::new(), vec![1, 4]));
        assert_eq!(
            take(&store, seen, krl_of(9, NOON + week - 99, &[]), NOON + week - 99),
            (String::new(), vec![4])
        );
        assert_eq!(take(&store, seen, krl_of(9, NOON + week, &[]), NOON + week + 1), (String::new(), vec![]));
    }

    #[test]
    fn of_a_krl_of_another_time_what_it_revokes_is_added() {
        let (_folder, store) = store();
        let seen = &mut Seen::default();
        // None is there, and this one is no good.
        let (wrong, serials) = take(&store, seen, krl_of(7, NOON + 61, &[1]), NOON);
        assert!(serials.is_empty() && !store.path().join(KRL).exists());
        assert!(wrong.contains("from the future: made at 2026-01-01T12:01:01Z, by this machine's clock it is 2026-01-01T12:00:00Z"), "{wrong}");
        assert!(wrong.contains("check the clocks"), "{wrong}");
        assert_eq!(take(&store, seen, krl_of(7, NOON + 60, &[2]), NOON), (String::new(), vec![1, 2]));
        for (list, why) in
            [(krl_of(9, NOON + 61, &[3]), "from the future"), (krl_of(6, NOON, &[4]), "older than")]
        {
            let number = |list: Vec<u8>| krl::read(&list).unwrap().number;
            let (wrong, serials) = take(&store, seen, list, NOON);
            assert!(wrong.contains(why) && serials.len() >= 3, "{wrong} {serials:?}");
            assert_eq!(number(store.read(KRL, MAX_LIST).unwrap().unwrap()), 7);
        }
        // One that is there already gives way to any of now; what it revoked stays.
        store::write(&store, KRL, &krl_of(1 << 40, NOON + 7200, &[5])).unwrap();
        assert_eq!(take(&store, seen, krl_of(8, NOON, &[6]), NOON), (String::new(), vec![1, 2, 3, 4, 5, 6]));
    }

    #[test]
    fn lists_of_another_ca_are_not_compared() {
        let (_folder, store) = store();
        let (ours, theirs) = (ca(), ca());
        let both = [ours.2.clone(), theirs.2.clone()];
        let fresh = |der: &[u8], cas: &[Vec<u8>], now| {
            fresh_crl(&store, &mut Seen::default(), der, cas, Some(&BTreeMap::new()), now, "/crl")
        };
        let put = |der: &[u8]| store::write(&store, CRL, pem::encode(ARMOUR, der).as_bytes()).unwrap();
        assert!(fresh(&list(&ours, 7, &[]), &both, NOON).unwrap().is_some());
        let late = fresh(&list(&ours, 7, &[]), &both, NOON + 3 * 86_400).unwrap_err();
        assert!(late.to_string().contains("by this machine's clock"), "{late}");
        put(&list(&theirs, 9, &[]));
        // Of another that is trusted too, and of one that is not any more.
        assert!(fresh(&list(&ours, 7, &[]), &both, NOON).unwrap().is_some());
        assert!(fresh(&list(&ours, 7, &[]), std::slice::from_ref(&ours.2), NOON).unwrap().is_some());
        // Of the same.
        put(&list(&ours, 9, &[]));
        let older = fresh(&list(&ours, 7, &[]), &both, NOON).unwrap_err();
        assert!(older.to_string().contains("older than tls.crl"), "{older}");
        assert!(fresh(&list(&ours, 9, &[]), &both, NOON).unwrap().is_none());
        // Of the same, it says, and is not: nothing to go by.
        let mut damaged = list(&ours, 9, &[]);
        *damaged.last_mut().unwrap() ^= 1;
        put(&damaged);
        let error = fresh(&list(&ours, 10, &[]), &both, NOON).unwrap_err();
        assert!(error.kind() == Kind::Destination && error.to_string().contains("has signed it"), "{error}");
        store::write(&store, CRL, b"damaged").unwrap();
        let error = fresh(&list(&ours, 10, &[]), &both, NOON).unwrap_err();
        assert!(error.to_string().ends_with("it is no list in PEM"), "{error}");
    }

    #[test]
    fn a_crl_that_lacks_what_was_seen_revoked_is_refused() {
        let (_folder, store) = store();
        let ours = ca();
        let cas = std::slice::from_ref(&ours.2);
        let none = BTreeMap::new();
        let put = |der: &[u8]| store::write(&store, CRL, pem::encode(ARMOUR, der).as_bytes()).unwrap();
        let take = |seen: &mut Seen, number, serials: &[u64], ends, now| {
            let der = list(&ours, number, serials);
            match fresh_crl(&store, seen, &der, cas, ends, now, "/crl") {
                Ok(content) => drop(content.map(|_| put(&der))),
                Err(error) => return format!("{error:#} {:?}", error.hints()),
            }
            String::new()
        };
        let seen = &mut Seen::default();
        let told = BTreeMap::from([(5, NOON + 10), (6, NOON + 100)]);
        assert_eq!(take(seen, 7, &[5, 6], Some(&told), NOON), "");
        // Over by this machine's clock, not by that of the authority.
        let wrong = take(seen, 8, &[6], Some(&none), NOON + 10);
        assert!(
            wrong.contains(
                "the certificate 5 any more, which is good until 2026-01-01T12:00:10Z: the authority has"
            ),
            "{wrong}"
        );
        assert!(wrong.contains("remove revoked.seen and tls.crl"), "{wrong}");
        assert_eq!(take(seen, 8, &[6], Some(&none), NOON + 11), "");
        // Also where the list that is there is removed, and whatever the authority tells.
        std::fs::remove_file(store.path().join(CRL)).unwrap();
        assert!(take(seen, 9, &[], None, NOON + 11).contains("the certificate 6 any more"));
        // Without what was kept, the list that is there counts, until a certificate of it cannot be good any more;
        // but not with an authority of a version before, of which nobody would know.
        put(&list(&ours, 7, &[6]));
        let wrong = take(&mut Seen::default(), 9, &[], Some(&none), NOON);
        assert!(wrong.contains("is good until 2026-01-08T00:01:00Z at the latest"), "{wrong}");
        assert_eq!(take(&mut Seen::default(), 9, &[], None, NOON), "");
    }

    #[test]
    fn a_crl_that_is_not_yet_good_is_refused_and_gives_way() {
        let (_folder, store) = store();
        let ours = ca();
        let seen = &mut Seen::default();
        let ends = BTreeMap::from([(5, NOON + 86_400)]);
        let made = NOON - 12 * 3600;
        let mut fresh = |number, serials: &[u64], now| {
            fresh_crl(
                &store,
                seen,
                &list(&ours, number, serials),
                std::slice::from_ref(&ours.2),
                Some(&ends),
                now,
                "/crl",
            )
        };
        let error = fresh(9, &[5], made - 1).unwrap_err();
        assert!(error.to_string().contains("it is from the future"), "{error}");
        // It is there, of an earlier version that took it; it does not hold up a lower number, but its serials count.
        store::write(&store, CRL, pem::encode(ARMOUR, &list(&ours, 9, &[5])).as_bytes()).unwrap();
        assert!(fresh(8, &[5], made).unwrap_err().to_string().contains("older than tls.crl"));
        assert!(fresh(8, &[], made).unwrap_err().to_string().contains("does not revoke the certificate 5"));
    }
}
