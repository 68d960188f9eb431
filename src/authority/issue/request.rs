//! The public keys of a request, checked: which kinds are certified, and that
//! whoever sends a CSR holds its key.

use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject as _;
use ssh_key::public::KeyData;
use ssh_key::{EcdsaCurve, PublicKey};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey as SubjectKey;

use crate::wire::{BoundKeys, OutputRequest, binding};

/// The shortest RSA key that is certified, in bits.
const MIN_RSA_BITS: usize = 2048;

/// The keys of one output.
#[derive(Clone, Debug)]
pub struct OutputKeys {
    /// The output's name.
    pub name: String,
    /// The SSH public key blob.
    pub ssh: Option<Vec<u8>>,
    /// The SubjectPublicKeyInfo in DER.
    pub tls: Option<Vec<u8>>,
}

impl OutputKeys {
    /// Reads the keys of one output.
    ///
    /// # Errors
    /// What is wrong with them, for the caller.
    pub fn read(request: &OutputRequest) -> Result<Self, String> {
        let said = |why: String| format!("output `{}`: {why}", crate::text::shown(&request.name));
        Ok(Self {
            name: request.name.clone(),
            ssh: request.ssh.as_ref().map(|ssh| ssh_blob(&ssh.public_key)).transpose().map_err(said)?,
            tls: request.tls.as_ref().map(|tls| csr_key(&tls.csr)).transpose().map_err(said)?,
        })
    }
}

/// The binding of a request's keys; see [`crate::wire::binding`].
#[must_use]
pub fn binding_of(keys: &[OutputKeys]) -> String {
    fn bound(keys: &OutputKeys) -> BoundKeys<'_> {
        BoundKeys { name: &keys.name, ssh_blob: keys.ssh.as_deref(), tls_spki: keys.tls.as_deref() }
    }
    binding(&keys.iter().map(bound).collect::<Vec<_>>())
}

/// The blob of an SSH public key that may be certified.
///
/// # Errors
/// What is wrong with it.
pub fn ssh_blob(line: &str) -> Result<Vec<u8>, String> {
    let key =
        PublicKey::from_openssh(line.trim_end()).map_err(|_| "the SSH key is not an OpenSSH public key")?;
    match key.key_data() {
        KeyData::Ed25519(_) => {}
        KeyData::Ecdsa(ecdsa) if matches!(ecdsa.curve(), EcdsaCurve::NistP256 | EcdsaCurve::NistP384) => {}
        KeyData::Rsa(rsa) => {
            let modulus = rsa.n.as_positive_bytes().ok_or("the SSH key is not a valid RSA key")?;
            if bits(modulus) < MIN_RSA_BITS {
                return Err(format!("the SSH key has fewer than {MIN_RSA_BITS} bits"));
            }
        }
        _ => return Err("the SSH key is neither Ed25519, ECDSA of P-256 or P-384, nor RSA".to_owned()),
    }
    key.to_bytes().map_err(|_| "the SSH key cannot be encoded".to_owned())
}

fn bits(big_endian: &[u8]) -> usize {
    let bytes = big_endian.iter().skip_while(|byte| **byte == 0);
    let leading = bytes.clone().next().map_or(8, |byte| usize::try_from(byte.leading_zeros()).unwrap_or(8));
    (bytes.count() * 8).saturating_sub(leading)
}

/// The SubjectPublicKeyInfo of a CSR whose signature is its key's. Nothing
/// else is taken from it: no subject, no names, no extensions.
///
/// # Errors
/// What is wrong with it.
pub fn csr_key(pem: &str) -> Result<Vec<u8>, String> {
    let der =
        CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).map_err(|_| "the CSR is not PEM")?;
    let (rest, csr) =
        X509CertificationRequest::from_der(&der).map_err(|_| "the CSR is not a PKCS#10 request")?;
    if !rest.is_empty() {
        return Err("the CSR has something behind it".to_owned());
    }
    let spki = &csr.certification_request_info.subject_pki;
    match spki.parsed() {
        Ok(SubjectKey::EC(point)) if matches!(point.data().len(), 65 | 97) => {}
        Ok(SubjectKey::RSA(rsa)) if bits(rsa.modulus) >= MIN_RSA_BITS => {}
        Ok(SubjectKey::RSA(_)) => return Err(format!("the CSR's key has fewer than {MIN_RSA_BITS} bits")),
        Ok(SubjectKey::Unknown(raw)) if raw.len() == 32 && is_ed25519(spki) => {}
        _ => return Err("the CSR's key is neither ECDSA of P-256 or P-384, Ed25519, nor RSA".to_owned()),
    }
    csr.verify_signature().map_err(|_| "the CSR is not signed with its own key")?;
    Ok(spki.raw.to_vec())
}

/// The algorithm must say Ed25519, whatever the key's length.
fn is_ed25519(spki: &x509_parser::x509::SubjectPublicKeyInfo<'_>) -> bool {
    spki.algorithm.algorithm == x509_parser::oid_registry::OID_SIG_ED25519
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

    fn csr(key: &KeyPair) -> String {
        CertificateParams::default().serialize_request(key).unwrap().pem().unwrap()
    }

    #[test]
    fn the_key_is_taken_and_nothing_else() {
        use rcgen::PublicKeyData as _;
        for key in [
            KeyPair::generate().unwrap(),
            KeyPair::generate_for(&PKCS_ED25519).unwrap(),
            KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap(),
        ] {
            assert_eq!(csr_key(&csr(&key)).unwrap(), key.subject_public_key_info());
        }
        let mut params = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        assert_eq!(csr_key(&pem).unwrap(), key.subject_public_key_info());
    }

    #[test]
    fn bad_csrs_are_told_apart() {
        let (one, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let params = CertificateParams::default();
        let der = |key| params.serialize_request(key).unwrap().der().to_vec();
        // The body of one with the signature of the other.
        let (mut forged, donor) = (der(&one), der(&other));
        let end = forged.len() - 40;
        forged.splice(end.., donor[donor.len() - 40..].iter().copied());
        let pem = |der: &[u8]| {
            use base64::Engine as _;
            let text = base64::engine::general_purpose::STANDARD.encode(der);
            format!("-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n")
        };
        let mut trailing = der(&one);
        trailing.push(0);
        for (text, why) in [
            (pem(&forged), "the CSR is not signed with its own key"),
            (pem(&trailing), "the CSR has something behind it"),
            (pem(b"junk"), "the CSR is not a PKCS#10 request"),
            ("junk".to_owned(), "the CSR is not PEM"),
        ] {
            assert_eq!(csr_key(&text).unwrap_err(), why);
        }
    }

    #[test]
    fn ssh_keys_are_of_good_kinds() {
        let bad = [
            "",
            "ssh-ed25519",
            "ssh-ed25519 AAAA",
            // A certificate is no key.
            "ssh-ed25519-cert-v01@openssh.com AAAA",
            "ssh-dss AAAAB3NzaC1kc3M=",
        ];
        for line in bad {
            assert!(ssh_blob(line).is_err(), "{line}");
        }
        let key = ssh_key::private::Ed25519Keypair::from_seed(&[3; 32]);
        let line = PublicKey::from(key.public).to_openssh().unwrap();
        assert_eq!(ssh_blob(&line).unwrap().len(), 51);
    }

    #[test]
    fn bits_are_counted() {
        assert_eq!(bits(&[]), 0);
        assert_eq!(bits(&[0, 1]), 1);
        assert_eq!(bits(&[0x80, 0]), 16);
    }
}
