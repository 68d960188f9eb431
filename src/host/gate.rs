//! Nobody is let in, for want of news of the authority, and everybody again: by the files that `sshd` and TLS servers read.
//! This is the second line behind [`super::heard::within`], by which `sshd` finds out for itself.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose};

use super::heard::{Heard, sha256};
use super::lists::{KRL, MAX_FILE};
use super::store::{MAX_TRUST, TLS_CA, USER_CA, put, update};
use super::trust;
use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::Folder;
use crate::krl;

/// Whom TLS servers trust then.
const NOBODY: &str = "machine-id: nobody, until the authority is heard again";

type Put = Result<Option<PathBuf>>;

/// Revokes the CAs of SSH, and has TLS servers trust a CA that nobody has.
pub fn close(store: &Folder) -> [Put; 2] {
    let krl = || {
        let cas = store.read(USER_CA, MAX_TRUST).map_err(|why| unreadable(store, USER_CA, why))?;
        let blobs = trust::ssh_blobs(&String::from_utf8_lossy(&cas.unwrap_or_default()));
        if blobs.is_empty() {
            return Ok(None);
        }
        let old = store.read(KRL, MAX_FILE).map_err(|why| unreadable(store, KRL, why))?;
        let open = old.clone().unwrap_or_else(|| krl::write(0, 0, Vec::new()));
        let shut = krl::closed(open, &blobs);
        put(store, KRL, Some(shut).filter(|shut| old.as_ref() != Some(shut)))
    };
    let tls = || {
        if has_nobodys(store) { Ok(None) } else { put(store, TLS_CA, Some(nobody()?.into_bytes())) }
    };
    [krl(), tls()]
}

/// Whether nobody is let in, as far as what was heard says how it was before.
pub fn is_closed(store: &Folder, heard: &Heard) -> bool {
    has_nobodys(store) || open_krl(store, heard).is_some()
}

/// Takes that back; what else is not as it should be is fetched whole.
pub fn open(store: &Folder, heard: &Heard) -> Vec<Put> {
    let krl = open_krl(store, heard).map(|krl| put(store, KRL, Some(krl)));
    let tls = has_nobodys(store).then(|| update(store, TLS_CA, heard.known.trust.tls_cas.concat()));
    krl.into_iter().chain(tls).collect()
}

/// The KRL as it was before it was closed, if it is.
fn open_krl(store: &Folder, heard: &Heard) -> Option<Vec<u8>> {
    let shut = store.read(KRL, MAX_FILE).ok()??;
    krl::opened(&shut).filter(|krl| sha256(krl) == heard.lists.hash).map(<[u8]>::to_vec)
}

fn has_nobodys(store: &Folder) -> bool {
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
    let ders = crate::pem::certificates(text).unwrap_or_default();
    ders.iter().any(|der| {
        let Ok((_, ca)) = x509_parser::parse_x509_certificate(der) else { return false };
        ca.subject().iter_common_name().any(|name| name.as_str() == Ok(NOBODY))
    })
}

fn unreadable(store: &Folder, name: &str, why: String) -> Error {
    Error::new(Kind::Destination, why).context(format!("cannot read {}", store.path().join(name).display()))
}
