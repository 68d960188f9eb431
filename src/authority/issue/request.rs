//! The public keys of a request, checked: which kinds are certified, and that
//! whoever sends a CSR holds its key.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::PublicKeyData as _;
use ring::digest::SHA256_OUTPUT_LEN;
use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject as _;
use ssh_key::public::KeyData;
use ssh_key::{EcdsaCurve, PublicKey};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey as SubjectKey;

use crate::output::{AUDIENCE, JWT, TTL, jwt_ttl};
use crate::wire::{BoundKeys, LeafRequest, OutputRequest, binding, is_name};

/// The most leaf clusters that one request may name.
const MAX_LEAVES: usize = 16;
/// The shortest RSA key that is certified, in bits.
const MIN_RSA_BITS: usize = 2048;
/// The longest, in bits.
const MAX_RSA_BITS: usize = 8192;

/// The keys of one output.
#[derive(Clone, Debug)]
pub struct OutputKeys {
    /// The output's name.
    pub name: String,
    /// The SSH public key blob.
    pub ssh: Option<Vec<u8>>,
    /// The SubjectPublicKeyInfo in DER.
    pub tls: Option<Vec<u8>>,
    /// The audience of a token, and its life in seconds where one is asked for.
    jwt: Option<(String, Option<u64>)>,
    /// The CSR in DER, whose signature [`OutputKeys::check_possession`] checks.
    csr: Option<Vec<u8>>,
}

impl OutputKeys {
    /// Reads the keys of one output.
    ///
    /// # Errors
    /// What is wrong with them, for the caller.
    pub fn read(request: &OutputRequest) -> Result<Self, String> {
        let said = |why| said_of(&request.name, why);
        let (tls, csr) = match &request.tls {
            Some(tls) => read_csr(&tls.csr).map(|(spki, der)| (Some(spki), Some(der))).map_err(said)?,
            None => (None, None),
        };
        let ssh = request.ssh.as_ref().map(|ssh| ssh_blob(&ssh.public_key)).transpose().map_err(said)?;
        let jwt = read_jwt(request).map_err(|why| said(format!("`{TTL}` {why}")))?;
        Ok(Self { name: request.name.clone(), ssh, tls, jwt, csr })
    }

    /// Checks that whoever sent the CSR holds its key. It costs a signature's
    /// verification, so it comes after the proof's.
    ///
    /// # Errors
    /// That it is not so, for the caller.
    pub fn check_possession(&self) -> Result<(), String> {
        let Some(der) = &self.csr else { return Ok(()) };
        check_signature(der).map_err(|why| said_of(&self.name, why))
    }
}

/// What a proof is bound to of a token, if it is one that is asked for, with a life that is one.
fn read_jwt(request: &OutputRequest) -> Result<Option<(String, Option<u64>)>, String> {
    let audience = request.options.get(AUDIENCE).filter(|_| request.kind == JWT.name);
    let Some(audience) = audience else { return Ok(None) };
    let ttl = request.options.get(TTL).map(|text| jwt_ttl(text)).transpose()?;
    Ok(Some((audience.clone(), ttl)))
}

fn said_of(output: &str, why: String) -> String {
    format!("output `{}`: {why}", crate::text::shown(output))
}

/// What is wrong with the leaf clusters of a request, for the caller.
///
/// # Errors
/// Where there is something.
pub fn check_leaves(leaves: &[LeafRequest]) -> Result<(), String> {
    if leaves.len() > MAX_LEAVES {
        return Err(format!("`leaves` must have at most {MAX_LEAVES} entries"));
    }
    let is_binding =
        |text: &str| URL_SAFE_NO_PAD.decode(text).is_ok_and(|hash| hash.len() == SHA256_OUTPUT_LEN);
    for (index, leaf) in leaves.iter().enumerate() {
        let said = |why: &str| Err(format!("leaf `{}`: {why}", crate::text::shown(&leaf.name)));
        if !is_name(&leaf.name) {
            return said("that cannot be a cluster's name");
        }
        if leaves.iter().take(index).any(|other| other.name == leaf.name) {
            return said("it is named twice");
        }
        if !is_binding(&leaf.binding) {
            return said("`binding` is not the 43 characters of base64url that a hash has");
        }
    }
    Ok(())
}

/// The binding of a request's keys and leaves; see [`crate::wire::binding`].
pub fn binding_of(keys: &[OutputKeys], leaves: &[LeafRequest]) -> String {
    fn bound(keys: &OutputKeys) -> BoundKeys<'_> {
        BoundKeys {
            name: &keys.name,
            ssh_blob: keys.ssh.as_deref(),
            tls_spki: keys.tls.as_deref(),
            jwt: keys.jwt.as_ref().map(|(audience, ttl)| (audience.as_str(), *ttl)),
        }
    }
    binding(&keys.iter().map(bound).collect::<Vec<_>>(), leaves)
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
            let invalid = "the SSH key is not a valid RSA key";
            let modulus = rsa.n.as_positive_bytes().ok_or(invalid)?;
            let exponent = rsa.e.as_positive_bytes().ok_or(invalid)?;
            check_rsa(modulus, exponent).map_err(|why| format!("the SSH key {why}"))?;
        }
        _ => return Err("the SSH key is neither Ed25519, ECDSA of P-256 or P-384, nor RSA".to_owned()),
    }
    key.to_bytes().map_err(|_| "the SSH key cannot be encoded".to_owned())
}

/// RSA as OpenSSH and browsers take it: 2048 to 8192 bits, an odd exponent of at least 65537.
fn check_rsa(modulus: &[u8], exponent: &[u8]) -> Result<(), String> {
    if bits(modulus) < MIN_RSA_BITS {
        return Err(format!("has fewer than {MIN_RSA_BITS} bits"));
    }
    if bits(modulus) > MAX_RSA_BITS {
        return Err(format!("has more than {MAX_RSA_BITS} bits"));
    }
    let odd = exponent.last().is_some_and(|byte| byte % 2 == 1);
    if !odd || bits(exponent) < 17 || bits(exponent) > 64 {
        return Err("has an RSA exponent that is not used".to_owned());
    }
    Ok(())
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
    let (spki, der) = read_csr(pem)?;
    check_signature(&der)?;
    Ok(spki)
}

/// The SubjectPublicKeyInfo of a CSR, and the CSR in DER.
fn read_csr(pem: &str) -> Result<(Vec<u8>, Vec<u8>), String> {
    let der =
        CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).map_err(|_| "the CSR is not PEM")?;
    let csr = parse_csr(&der)?;
    let spki = &csr.certification_request_info.subject_pki;
    match spki.parsed() {
        Ok(SubjectKey::EC(point)) if matches!(point.data().len(), 65 | 97) => {}
        Ok(SubjectKey::RSA(rsa)) => {
            check_rsa(rsa.modulus, rsa.exponent).map_err(|why| format!("the CSR's key {why}"))?;
        }
        Ok(SubjectKey::Unknown(raw)) if raw.len() == 32 && is_ed25519(spki) => {}
        _ => return Err("the CSR's key is neither ECDSA of P-256 or P-384, Ed25519, nor RSA".to_owned()),
    }
    // What is recorded is what will stand in the certificate, byte for byte.
    let written = rcgen::SubjectPublicKeyInfo::from_der(spki.raw).map(|key| key.subject_public_key_info());
    if written.ok().as_deref() != Some(spki.raw) {
        return Err("the CSR's key is not encoded as RFC 5280 has it".to_owned());
    }
    Ok((spki.raw.to_vec(), der.to_vec()))
}

fn parse_csr(der: &[u8]) -> Result<X509CertificationRequest<'_>, String> {
    let (rest, csr) =
        X509CertificationRequest::from_der(der).map_err(|_| "the CSR is not a PKCS#10 request")?;
    if rest.is_empty() { Ok(csr) } else { Err("the CSR has something behind it".to_owned()) }
}

fn check_signature(der: &[u8]) -> Result<(), String> {
    parse_csr(der)?.verify_signature().map_err(|_| "the CSR is not signed with its own key".to_owned())
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
    fn rsa_is_of_common_sizes() {
        let modulus = |bits: usize| [vec![0x80], vec![1; bits / 8 - 1]].concat();
        assert!(check_rsa(&modulus(2048), &[1, 0, 1]).is_ok());
        for (modulus, exponent) in [
            (modulus(1024), &[1, 0, 1][..]),
            (modulus(16384), &[1, 0, 1]),
            (modulus(2048), &[3]),
            (modulus(2048), &[1, 0, 0]),
            (modulus(2048), &[1; 9]),
        ] {
            assert!(check_rsa(&modulus, exponent).is_err());
        }
    }

    #[test]
    fn bits_are_counted() {
        assert_eq!(bits(&[]), 0);
        assert_eq!(bits(&[0, 1]), 1);
        assert_eq!(bits(&[0x80, 0]), 16);
    }
}
