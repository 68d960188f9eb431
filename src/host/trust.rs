//! The CAs of an authority, checked as the servers would and brought into one form.

use crate::net::pin_of;
use crate::pem;
use crate::wire::TrustAnchors;

/// The line of a certificate's armour.
pub(super) const ARMOUR: &str = "CERTIFICATE";

/// The CAs without comments, each key on a line of its own with its end, each certificate on its own.
///
/// # Errors
/// Why servers could not use them.
pub fn plain(trust: &TrustAnchors) -> Result<TrustAnchors, String> {
    let keys = |what: &str, lines: &[String]| match lines {
        // A file without keys locks everybody out.
        [] => Err(format!("it has no {what}")),
        lines => lines
            .iter()
            .map(|line| Ok(plain_key(line).map_err(|why| format!("{what}: {why}"))? + "\n"))
            .collect(),
    };
    let mut tls = Vec::new();
    for ca in &trust.tls_cas {
        tls.extend(pem::certificates(ca).map_err(|why| format!("TLS CA: {why}"))?);
    }
    let is_ca = |der: &Vec<u8>| x509_parser::parse_x509_certificate(der).is_ok_and(|(_, ca)| ca.is_ca());
    if tls.is_empty() || !tls.iter().all(is_ca) {
        return Err("it has no TLS CA, or one that is not a CA's certificate".to_owned());
    }
    Ok(TrustAnchors {
        ssh_host_cas: keys("SSH host CA", &trust.ssh_host_cas)?,
        ssh_user_cas: keys("SSH user CA", &trust.ssh_user_cas)?,
        tls_cas: tls.iter().map(|der| pem::encode(ARMOUR, der).to_string()).collect(),
    })
}

/// The TLS CAs in DER.
pub fn tls_ders(trust: &TrustAnchors) -> Vec<Vec<u8>> {
    trust.tls_cas.iter().flat_map(|ca| pem::certificates(ca).unwrap_or_default()).collect()
}

/// The certificates in PEM whose pins are such.
pub fn tls_of(trust: &TrustAnchors, is: impl Fn(&str) -> bool) -> String {
    let is =
        |ca: &&String| pem::certificates(ca).iter().flatten().any(|ca| pin_of(ca).is_ok_and(|pin| is(&pin)));
    trust.tls_cas.iter().filter(is).map(String::as_str).collect()
}

/// The keys of a file's lines as blobs (RFC 4253, section 6.6).
pub fn ssh_blobs(lines: &str) -> Vec<Vec<u8>> {
    lines.lines().filter_map(|line| ssh_key::PublicKey::from_openssh(line).ok()?.to_bytes().ok()).collect()
}

/// Type and key alone: what stands before or behind them in `sshd`'s files has meaning.
pub(super) fn plain_key(line: &str) -> Result<String, String> {
    let key = ssh_key::PublicKey::from_openssh(line.trim()).map_err(|error| error.to_string())?;
    if line.trim().contains(['\n', '\r']) {
        return Err("it is more than one line".to_owned());
    }
    ssh_key::PublicKey::from(key.key_data().clone()).to_openssh().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

    #[test]
    fn keys_lose_what_stands_around_them() {
        assert_eq!(plain_key(&format!("{KEY} some comment\n")).unwrap(), KEY);
        for bad in [
            String::new(),
            "ssh-ed25519 AAAA".into(),
            format!("restrict {KEY}"),
            format!("cert-authority {KEY}"),
            format!("{KEY}\n{KEY}"),
            format!("{KEY} a\n{KEY} b"),
        ] {
            assert!(plain_key(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_trust_without_cas_is_refused() {
        crate::net::install_crypto();
        let trust = |ssh: &[&str], tls: &[String]| {
            let ssh: Vec<String> = ssh.iter().map(|key| (*key).to_owned()).collect();
            TrustAnchors { ssh_host_cas: ssh.clone(), ssh_user_cas: ssh, tls_cas: tls.to_vec() }
        };
        let params = rcgen::CertificateParams::new(vec!["x".into()]).unwrap();
        let leaf = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem();
        assert!(plain(&trust(&[KEY], &[])).unwrap_err().contains("no TLS CA"));
        assert!(plain(&trust(&[KEY], &[leaf])).unwrap_err().contains("not a CA's"));
        let ca = pem::encode(ARMOUR, &crate::host::crl::tests::ca().2).to_string();
        assert_eq!(plain(&trust(&[], std::slice::from_ref(&ca))).unwrap_err(), "it has no SSH host CA");
        let both = plain(&trust(&[&format!("{KEY} comment")], &[format!("{ca}{ca}")])).unwrap();
        assert_eq!((both.ssh_user_cas, both.tls_cas.len()), (vec![format!("{KEY}\n")], 2));
    }
}
