//! CAs that are believed no more, whatever else says so: stolen ones, and those that were rolled back away.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use ssh_key::PublicKey;

use super::trust::{plain_key, tls_of};
use crate::net::pin_of;
use crate::pem;
use crate::wire::TrustAnchors;

/// What the pin of a TLS CA begins with, and no key of SSH.
const PIN: &str = "sha256:";

/// SSH ones by type and key as OpenSSH writes them, TLS ones by their pin: of whatever certificate, it is the key that nobody
/// believes. They never end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Refused(BTreeSet<String>);

impl Refused {
    /// Of a statement's. What cannot be read is none that could be trusted here.
    pub fn of(cas: &[String]) -> Self {
        let names = |ca: &String| match pem::certificates(ca) {
            Ok(certificates) => certificates.iter().filter_map(|ca| pin_of(ca).ok()).collect(),
            Err(_) => plain_key(ca).into_iter().collect::<Vec<_>>(),
        };
        Self(cas.iter().flat_map(names).collect())
    }

    /// Of the keys (blobs of RFC 4253, section 6.6) that a list revokes.
    pub fn of_keys(blobs: &[Vec<u8>]) -> Self {
        let line = |blob: &Vec<u8>| PublicKey::from_bytes(blob).ok()?.to_openssh().ok();
        Self(blobs.iter().filter_map(line).collect())
    }

    /// These as well.
    pub fn add(&mut self, more: &Self) {
        self.0.extend(more.0.iter().cloned());
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one is the TLS CA with that pin.
    pub fn has_pin(&self, pin: &str) -> bool {
        self.0.contains(pin)
    }

    /// The others, in their one form.
    pub fn without(&self, trust: &TrustAnchors) -> TrustAnchors {
        let keys = |lines: &[String]| {
            lines.iter().filter(|line| !self.0.contains(line.trim_end())).cloned().collect()
        };
        let tls = trust.tls_cas.iter().map(|ca| {
            let one = TrustAnchors { tls_cas: vec![ca.clone()], ..TrustAnchors::default() };
            tls_of(&one, |pin| !self.has_pin(pin))
        });
        TrustAnchors {
            ssh_host_cas: keys(&trust.ssh_host_cas),
            ssh_user_cas: keys(&trust.ssh_user_cas),
            tls_cas: tls.filter(|ca| !ca.is_empty()).collect(),
        }
    }

    /// The keys of SSH as blobs.
    pub fn blobs(&self) -> BTreeSet<Vec<u8>> {
        self.keys().filter_map(|line| PublicKey::from_openssh(line).ok()?.to_bytes().ok()).collect()
    }

    /// The lines of a file of keys, or of known hosts, without those that trust one of them.
    pub fn lines_without(&self, text: &str) -> String {
        let trusts =
            |line: &&str| !self.keys().any(|key| line.ends_with(key)) && !line.starts_with("@revoked ");
        text.lines().filter(trusts).map(|line| format!("{line}\n")).collect()
    }

    /// Lines for known hosts: `ssh` believes no host whose certificate is by one of these.
    pub fn known_hosts(&self) -> String {
        self.keys().map(|key| format!("@revoked * {key}\n")).collect()
    }

    fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str).filter(|name| !name.starts_with(PIN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";
    const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

    #[test]
    fn a_ca_is_refused_by_its_key_however_it_is_written() {
        crate::net::install_crypto();
        let (one, other) = (crate::host::crl::tests::ca(), crate::host::crl::tests::ca());
        let text = |der: &[u8]| pem::encode("CERTIFICATE", der).to_string();
        // Another certificate for the same key.
        let again = text(one.0.self_signed(&one.1).unwrap().der());
        let refused =
            Refused::of(&[format!("{KEY} comment\n"), again.clone(), "sk-of-tomorrow AAAA".to_owned()]);
        assert!(refused.has_pin(&pin_of(&one.2).unwrap()) && !refused.has_pin(&pin_of(&other.2).unwrap()));
        let line = |key: &str| format!("{key}\n");
        let trust = TrustAnchors {
            ssh_user_cas: vec![line(KEY), line(OTHER)],
            ssh_host_cas: vec![line(KEY)],
            tls_cas: vec![text(&one.2), again, text(&other.2)],
        };
        let left = TrustAnchors {
            ssh_user_cas: vec![line(OTHER)],
            ssh_host_cas: vec![],
            tls_cas: vec![text(&other.2)],
        };
        assert_eq!((refused.without(&trust), refused.without(&left)), (left.clone(), left));
        assert_eq!(Refused::default().without(&trust), trust);
        // Of a list, it is the same.
        let [blob] = <[_; 1]>::try_from(refused.blobs().into_iter().collect::<Vec<_>>()).unwrap();
        let mut both = Refused::of_keys(&[blob, b"no key".to_vec()]);
        assert_eq!(both, Refused::of(&[KEY.to_owned()]));
        both.add(&refused);
        assert_eq!(both, refused);
        assert_eq!(
            serde_json::from_str::<Refused>(&serde_json::to_string(&refused).unwrap()).unwrap(),
            refused
        );
    }

    #[test]
    fn its_lines_go() {
        let refused = Refused::of(&[KEY.to_owned()]);
        assert_eq!(refused.lines_without(&format!("{KEY}\n{OTHER}\n")), format!("{OTHER}\n"));
        let hosts = format!("@cert-authority * {KEY}\n@cert-authority * {OTHER}\n");
        let left = format!("@cert-authority * {OTHER}\n");
        let there = refused.lines_without(&hosts) + &refused.known_hosts();
        assert_eq!(there, format!("{left}@revoked * {KEY}\n"));
        assert_eq!(refused.lines_without(&there), left);
        assert_eq!(
            (refused.lines_without(KEY), Refused::default().known_hosts()),
            (String::new(), String::new())
        );
    }
}
