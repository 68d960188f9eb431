//! Whether a revocation list that was fetched is to replace the one that is
//! there: it must be one that servers take, and none from before. Without the
//! old one nothing tells, so only where there is none is any list good.
//!
//! `Kind::Unreachable` is that the new one is no good, or from before;
//! `Kind::Destination`, that the old one cannot be read.

use super::crl::Crl;
use crate::error::{Error, Kind, Result};
use crate::folder::Folder;
use crate::krl;
use crate::pem;
use crate::text::shown;

/// `RevokedKeys` of `sshd`.
pub const KRL: &str = "revoked.krl";
/// The revocation list of TLS servers, in PEM as nginx and PostgreSQL want it.
pub const CRL: &str = "tls.crl";
/// The largest list that is fetched, in bytes; it grows by tens of bytes a revocation.
pub const MAX_LIST: usize = 64 << 20;

/// The line of a CRL's armour.
const ARMOUR: &str = "X509 CRL";

/// What the authority gives is no good.
pub(super) fn useless(path: &str, why: &str) -> Error {
    Error::new(Kind::Unreachable, why.to_owned())
        .context(format!("what the authority gives at {path} cannot be used"))
        .hint("the files of it stay as they are; check that --authority is the right one, and see its log")
}

/// The new list, if it is to replace the one that is there.
pub fn fresh_krl(store: &Folder, new: Vec<u8>, path: &str) -> Result<Option<Vec<u8>>> {
    let number = krl::number(&new).map_err(|why| useless(path, why))?;
    let Some(old) = read_old(store, KRL)? else { return Ok(Some(new)) };
    let known = krl::number(&old).map_err(|why| unreadable(store, KRL, why))?;
    if number < known {
        let why = format!("its number is {number}, and that of the list here is {known}");
        return Err(useless(path, &older(KRL, &why)));
    }
    Ok((!krl::same(&old, &new)).then_some(new))
}

/// The new list in PEM, if it is to replace the one that is there; `cas` are
/// the TLS CAs in DER.
pub fn fresh_crl(
    store: &Folder,
    new: &[u8],
    cas: &[Vec<u8>],
    now: i64,
    path: &str,
) -> Result<Option<Vec<u8>>> {
    let read = Crl::parse(new, cas).map_err(|why| useless(path, &why))?;
    if read.until <= now {
        return Err(useless(path, "it is no longer good by this machine's clock"));
    }
    let armoured = || Some(pem::encode(ARMOUR, new).as_bytes().to_vec());
    let Some(old) = read_old(store, CRL)? else { return Ok(armoured()) };
    match known_crl(&old, &read, cas).map_err(|why| unreadable(store, CRL, &why))? {
        Some(known) if read.is_before(&known) => {
            Err(useless(path, &older(CRL, "its number is lower than that of the list here")))
        }
        Some(known) if known.serves_like(&read, now) => Ok(None),
        _ => Ok(armoured()),
    }
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
    // PEM is a third longer.
    store.read(name, MAX_LIST * 2).map_err(|why| unreadable(store, name, &why))
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
        "it is older than {name}: {}; if the authority was restored from a backup, remove that file",
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
        let mut list = b"SSHKRL\n\0\0\0\0\x01".to_vec();
        list.extend(number.to_be_bytes());
        list.extend([0; 24]); // date, flags, two empty strings
        list
    }

    #[test]
    fn only_where_there_is_no_list_is_any_one_good() {
        let (_folder, store) = store();
        let fresh = |number| fresh_krl(&store, krl(number), "/krl");
        assert_eq!(fresh(7).unwrap(), Some(krl(7)));
        store::write(&store, KRL, &krl(7)).unwrap();
        assert_eq!((fresh(7).unwrap(), fresh(8).unwrap()), (None, Some(krl(8))));
        let error = fresh(6).unwrap_err();
        assert!(error.kind() == Kind::Unreachable && error.to_string().contains("older than revoked.krl"));
        store::write(&store, KRL, b"damaged").unwrap();
        let error = fresh(9).unwrap_err();
        assert_eq!(error.kind(), Kind::Destination);
        assert!(
            error.to_string().contains("cannot read") && error.hints()[0].contains("remove it"),
            "{error:?}"
        );
        // What the authority gives is judged first.
        let error = fresh_krl(&store, b"<html>".to_vec(), "/krl").unwrap_err();
        assert_eq!(error.kind(), Kind::Unreachable);
    }

    #[test]
    fn lists_of_another_ca_are_not_compared() {
        let (_folder, store) = store();
        let (ours, theirs) = (ca(), ca());
        let both = [ours.2.clone(), theirs.2.clone()];
        let fresh = |der: &[u8], cas: &[Vec<u8>], now| fresh_crl(&store, der, cas, now, "/crl");
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
}
