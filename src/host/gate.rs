//! Nobody is let in, for want of news of the authority, and everybody again: by the files that `sshd` and TLS servers read.
//! This is the second line behind [`super::heard::within`], by which `sshd` finds out for itself.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose};

use super::lists::{KRL, MAX_FILE, listed};
use super::store::{MAX_TRUST, TLS_CA, USER_CA, put, update};
use super::trust::{self, ARMOUR};
use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::Folder;
use crate::krl;
use crate::net::pin_of;
use crate::pem::{certificates, encode};
use crate::wire::TrustAnchors;

/// Whom TLS servers trust then.
const NOBODY: &str = "machine-id: nobody, until the authority is heard again";

type Put = Result<Option<PathBuf>>;

/// Revokes the CAs of SSH, where that is so for it too, and has TLS servers trust a CA that nobody has.
pub fn close(store: &Folder, for_ssh: bool) -> [Put; 2] {
    let krl = || {
        let cas = store.read(USER_CA, MAX_TRUST).map_err(|why| unreadable(store, USER_CA, why))?;
        let Some(cas) = cas else { return Ok(None) };
        // Without one too, where the last was revoked: the next is trusted when something is heard.
        let blobs = trust::ssh_blobs(&String::from_utf8_lossy(&cas));
        let old = store.read(KRL, MAX_FILE).map_err(|why| unreadable(store, KRL, why))?;
        let open = old.clone().unwrap_or_else(|| krl::write(0, 0, Vec::new()));
        let shut = krl::closed(open, &blobs);
        put(store, KRL, Some(shut).filter(|shut| old.as_ref() != Some(shut)))
    };
    let tls = || {
        if has_nobodys(store) { Ok(None) } else { put(store, TLS_CA, Some(nobody()?.into_bytes())) }
    };
    [if for_ssh { krl() } else { Ok(None) }, tls()]
}

/// Whether the KRL is one that lets nobody in.
pub fn is_closed_to_ssh(store: &Folder) -> bool {
    store.read(KRL, MAX_FILE).ok().flatten().is_some_and(|krl| krl::opened(&krl).is_some())
}

/// Has TLS servers trust those of these CAs again whose lists are there, if they trust nobody.
pub fn open_tls(store: &Folder, cas: &TrustAnchors) -> Put {
    if !has_nobodys(store) {
        return Ok(None);
    }
    match listed(store, cas)? {
        none if none.is_empty() => Ok(None),
        listed => update(store, TLS_CA, listed),
    }
}

/// Takes TLS CAs with such pins out of the file: where none is left, it is a CA that nobody has.
pub fn refuse_tls(store: &Folder, is: impl Fn(&str) -> bool) -> Put {
    without_tls(store, is, || Ok(Some(nobody()?.into_bytes())))
}

/// Takes those out that do not stay, where others do.
pub fn drop_tls(store: &Folder, stays: impl Fn(&str) -> bool) -> Put {
    without_tls(store, |pin| !stays(pin), || Ok(None))
}

fn without_tls(
    store: &Folder,
    is: impl Fn(&str) -> bool,
    nobody: impl Fn() -> Result<Option<Vec<u8>>>,
) -> Put {
    let there = store.read(TLS_CA, MAX_TRUST).map_err(|why| unreadable(store, TLS_CA, why))?;
    let cas = certificates(&String::from_utf8_lossy(&there.unwrap_or_default())).unwrap_or_default();
    let (gone, left): (Vec<_>, Vec<_>) = cas.into_iter().partition(|ca| pin_of(ca).is_ok_and(|pin| is(&pin)));
    match left.as_slice() {
        _ if gone.is_empty() => Ok(None),
        [] => put(store, TLS_CA, nobody()?),
        left => update(store, TLS_CA, left.iter().map(|ca| encode(ARMOUR, ca).to_string()).collect()),
    }
}

/// Whether TLS servers trust nobody.
pub fn has_nobodys(store: &Folder) -> bool {
    store.read(TLS_CA, MAX_TRUST).ok().flatten().is_some_and(|ca| is_nobodys(&ca))
}

fn nobody() -> Result<String> {
    let cannot = "cannot make a CA that nobody has";
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, NOBODY);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // Its key is gone when this returns.
    let key = KeyPair::generate().context(Kind::Internal, cannot)?;
    Ok(params.self_signed(&key).context(Kind::Internal, cannot)?.pem())
}

fn is_nobodys(pem: &[u8]) -> bool {
    let text = std::str::from_utf8(pem).unwrap_or_default();
    let ders = certificates(text).unwrap_or_default();
    ders.iter().any(|der| {
        let Ok((_, ca)) = x509_parser::parse_x509_certificate(der) else { return false };
        ca.subject().iter_common_name().any(|name| name.as_str() == Ok(NOBODY))
    })
}

fn unreadable(store: &Folder, name: &str, why: String) -> Error {
    Error::new(Kind::Destination, why).context(format!("cannot read {}", store.path().join(name).display()))
}
