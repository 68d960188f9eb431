//! The principals of a certificate that let a user in on this host.
//!
//! `sshd` asks once it has verified the certificate: signed by a CA that it
//! trusts, valid now, not revoked. It lets the user in if one of the lines that
//! it gets is a principal of the certificate. So nothing is verified again
//! here, and nothing is ever printed that the certificate does not hold, or
//! that could be anything but one principal on a line of its own.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ssh_key::Certificate;
use ssh_key::certificate::CertType;

use crate::principal::{Labels, holds};

/// The longest certificate that is read, in base64; OpenSSH takes no packet above 256 KiB.
pub(super) const MAX_CERTIFICATE: usize = 256 << 10;

/// The principals of the certificate that hold for `user` on a host with
/// these labels, each once, in the certificate's order.
pub fn of_certificate(base64: &str, user: &str, host: &Labels) -> Result<Vec<String>, String> {
    if base64.len() > MAX_CERTIFICATE {
        return Err(format!("it is longer than {MAX_CERTIFICATE} bytes"));
    }
    let blob = STANDARD.decode(base64).map_err(|error| error.to_string())?;
    let certificate = Certificate::from_bytes(&blob).map_err(|error| error.to_string())?;
    if certificate.cert_type() != CertType::User {
        return Err("it is a host's".to_owned());
    }
    let mut found: Vec<String> = Vec::new();
    for principal in certificate.valid_principals() {
        if holds(principal, user, host) && !found.contains(principal) {
            found.push(principal.clone());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ssh_key::certificate::Builder;
    use ssh_key::private::{Ed25519Keypair, PrivateKey};

    use super::*;

    fn key() -> PrivateKey {
        PrivateKey::from(Ed25519Keypair::from_seed(&[7; 32]))
    }

    fn blob(kind: CertType, principals: &[&str]) -> Vec<u8> {
        let mut builder = Builder::new([1; 32], key().public_key().key_data().clone(), 0, 1 << 40).unwrap();
        builder.cert_type(kind).unwrap().key_id("x").unwrap();
        for principal in principals {
            builder.valid_principal(*principal).unwrap();
        }
        if principals.is_empty() {
            builder.all_principals_valid().unwrap();
        }
        builder.sign(&key()).unwrap().to_bytes().unwrap()
    }

    fn found(principals: &[&str], user: &str, labels: &str) -> Vec<String> {
        let mut host = Labels::default();
        host.add(labels).unwrap();
        of_certificate(&STANDARD.encode(blob(CertType::User, principals)), user, &host).unwrap()
    }

    #[test]
    fn what_holds_here_is_printed_and_nothing_else() {
        let all = ["deploy", "root@env=dev", "deploy@env=prod", "deploy", "x\ndeploy", "restrict deploy"];
        assert_eq!(found(&all, "deploy", "env=prod"), ["deploy", "deploy@env=prod"]);
        assert_eq!(found(&all, "deploy", "env=dev"), ["deploy"]);
        assert_eq!(found(&all, "root", "env=dev"), ["root@env=dev"]);
        assert!(found(&all, "root", "env=prod").is_empty() && found(&all, "x", "").is_empty());
        // Good for everybody, says OpenSSH; not here.
        assert!(found(&[], "deploy", "env=prod").is_empty());
    }

    #[test]
    fn only_user_certificates_are_read() {
        let host = Labels::default();
        let host_certificate = STANDARD.encode(blob(CertType::Host, &["deploy"]));
        assert_eq!(of_certificate(&host_certificate, "deploy", &host).unwrap_err(), "it is a host's");
        let mut longer = blob(CertType::User, &["deploy"]);
        longer.push(0);
        let plain_key = key().public_key().to_bytes().unwrap();
        for bad in [String::new(), "AAAA!".into(), STANDARD.encode(longer), STANDARD.encode(plain_key)] {
            assert!(of_certificate(&bad, "deploy", &host).is_err(), "{bad}");
        }
        assert!(of_certificate(&"A".repeat(MAX_CERTIFICATE + 1), "deploy", &host).is_err());
    }

    proptest! {
        /// Whatever is done to a certificate, nothing panics.
        #[test]
        fn damaged_certificates_do_not_panic(at in any::<prop::sample::Index>(), byte: u8, cut in any::<prop::sample::Index>()) {
            let mut damaged = blob(CertType::User, &["deploy", "deploy@env=prod"]);
            let place = at.index(damaged.len());
            damaged[place] = byte;
            let _ = of_certificate(&STANDARD.encode(&damaged), "deploy", &Labels::default());
            damaged.truncate(cut.index(damaged.len()));
            let _ = of_certificate(&STANDARD.encode(&damaged), "deploy", &Labels::default());
        }

        /// Nor for bytes that were never one.
        #[test]
        fn garbage_does_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "\\PC*") {
            let _ = of_certificate(&STANDARD.encode(bytes), "deploy", &Labels::default());
            let _ = of_certificate(&text, &text, &Labels::default());
        }
    }
}
