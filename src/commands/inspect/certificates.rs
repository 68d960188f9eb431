//! Certificates and keys, in words.

use rcgen::PublicKeyData as _;
use ring::digest::{SHA256, digest};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Map, Value};
use ssh_key::certificate::CertType;
use ssh_key::{Certificate, HashAlg, PublicKey};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use super::item::{Item, when};
use crate::openssh;
use crate::pem;
use crate::text::{hex, shown};

pub(super) fn ssh(line: &str, now: i64) -> Result<Item, String> {
    let certificate =
        Certificate::from_openssh(line).map_err(|error| format!("an SSH certificate: {error}"))?;
    let options = |map: &ssh_key::certificate::OptionsMap| -> Value {
        map.iter()
            .map(|(name, value)| (name.clone(), Value::from(value.as_str())))
            .collect::<Map<_, _>>()
            .into()
    };
    let seconds = |time: u64| i64::try_from(time).unwrap_or(i64::MAX);
    Ok(Item::new("SSH certificate")
        .with("type", if certificate.cert_type() == CertType::User { "user" } else { "host" })
        .with("key_id", certificate.key_id())
        .with("serial", certificate.serial().to_string())
        .with("principals", certificate.valid_principals().to_vec())
        .with("valid_from", when(seconds(certificate.valid_after()), now))
        .with("valid_until", when(seconds(certificate.valid_before()), now))
        .with("key", certificate.public_key().algorithm().to_string())
        .with("key_fingerprint", certificate.public_key().fingerprint(HashAlg::Sha256).to_string())
        .with("ca_fingerprint", certificate.signature_key().fingerprint(HashAlg::Sha256).to_string())
        .with("critical_options", options(certificate.critical_options()))
        .with("extensions", options(certificate.extensions())))
}

pub(super) fn ssh_public(line: &str) -> Result<Item, String> {
    let key = PublicKey::from_openssh(line).map_err(|error| format!("an SSH public key: {error}"))?;
    Ok(Item::new("SSH public key")
        .with("type", key.algorithm().to_string())
        .with("fingerprint", key.fingerprint(HashAlg::Sha256).to_string())
        .with("comment", key.comment()))
}

pub(super) fn openssh_private(block: &str) -> Result<Item, String> {
    // The parser's words are about its own format, never about the key.
    let key = openssh::private(block).map_err(|error| format!("an SSH private key: {error}"))?;
    Ok(Item::new("SSH private key")
        .with("type", key.algorithm().to_string())
        .with("fingerprint", key.fingerprint(HashAlg::Sha256).to_string())
        .with("encrypted", key.is_encrypted()))
}

pub(super) fn private(label: &str, block: &str) -> Item {
    let item = Item::new("private key");
    let read = pem::decode(block).filter(|_| label == "PRIVATE KEY").and_then(|der| {
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der.as_slice()));
        rcgen::KeyPair::try_from(&der).ok()
    });
    match read {
        Some(key) => item
            .with("type", algorithm(key.algorithm()))
            .with("fingerprint", fingerprint(&key.subject_public_key_info())),
        None => item.with("type", shown(label)),
    }
}

fn fingerprint(der: &[u8]) -> String {
    format!("sha256:{}", hex(digest(&SHA256, der).as_ref()))
}

fn algorithm(algorithm: &rcgen::SignatureAlgorithm) -> &'static str {
    let known = [
        (&rcgen::PKCS_ECDSA_P256_SHA256, "ECDSA P-256"),
        (&rcgen::PKCS_ECDSA_P384_SHA384, "ECDSA P-384"),
        (&rcgen::PKCS_ED25519, "Ed25519"),
    ];
    known.into_iter().find(|(candidate, _)| *candidate == algorithm).map_or("RSA", |(_, name)| name)
}

pub(super) fn x509(block: &str, now: i64) -> Result<Item, String> {
    let der = pem::decode(block).ok_or("a certificate: its PEM is broken")?;
    let (_, certificate) =
        x509_parser::parse_x509_certificate(&der).map_err(|error| format!("a certificate: {error}"))?;
    let validity = certificate.validity();
    Ok(Item::new("X.509 certificate")
        .with("subject", certificate.subject().to_string())
        .with("issuer", certificate.issuer().to_string())
        .with("serial", certificate.serial.to_string())
        .with("valid_from", when(validity.not_before.timestamp(), now))
        .with("valid_until", when(validity.not_after.timestamp(), now))
        .with("names", names(&certificate))
        .with("uses", uses(&certificate))
        .with("is_ca", certificate.is_ca())
        .with("key_fingerprint", fingerprint(certificate.public_key().raw))
        .with("fingerprint", fingerprint(&der))
        .with("provenance", provenance(&certificate)))
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let names = certificate.subject_alternative_name().ok().flatten();
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => format!("DNS:{name}"),
        GeneralName::URI(uri) => format!("URI:{uri}"),
        GeneralName::IPAddress(bytes) => format!("IP:{}", ip(bytes)),
        other => other.to_string(),
    };
    names.map(|names| names.value.general_names.iter().map(name).collect()).unwrap_or_default()
}

fn ip(bytes: &[u8]) -> String {
    let four = <[u8; 4]>::try_from(bytes).map(|bytes| std::net::Ipv4Addr::from(bytes).to_string());
    let sixteen = || <[u8; 16]>::try_from(bytes).map(|bytes| std::net::Ipv6Addr::from(bytes).to_string());
    four.or_else(|_| sixteen()).unwrap_or_else(|_| hex(bytes))
}

fn uses(certificate: &X509Certificate<'_>) -> Vec<&'static str> {
    let Some(uses) = certificate.extended_key_usage().ok().flatten() else { return Vec::new() };
    let known =
        [(uses.value.client_auth, "client"), (uses.value.server_auth, "server"), (uses.value.any, "any")];
    known.into_iter().filter(|(set, _)| *set).map(|(_, name)| name).collect()
}

/// Fulcio's extensions, as Sigstore's tools read them: which run the certificate is of.
fn provenance(certificate: &X509Certificate<'_>) -> Value {
    let fulcio = |oid: &str| oid.starts_with("1.3.6.1.4.1.57264.1.");
    let extensions =
        certificate.extensions().iter().filter(|extension| fulcio(&extension.oid.to_id_string()));
    let text = |value: &[u8]| {
        // The old ones are bare text, the newer ones a DER UTF8String.
        yasna::parse_der(value, |reader| reader.read_utf8string())
            .unwrap_or_else(|_| String::from_utf8_lossy(value).into_owned())
    };
    extensions
        .map(|extension| (extension.oid.to_id_string(), Value::from(text(extension.value))))
        .collect::<Map<_, _>>()
        .into()
}
