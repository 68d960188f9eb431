//! CAs that are known by the hashes of their public keys.

use std::sync::Arc;

use ring::digest::{SHA256, digest};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::document::{Mistake, Node};
use crate::error::{Context as _, Error, Kind, Result};
use crate::text::{hex, shown};

/// Pins as [`pin_of`] writes them, with commas between them.
///
/// # Errors
/// `Kind::Usage` that names the one which is none.
pub fn ca_pins(pins: &str) -> Result<Vec<String>> {
    let is_hash = |hex: &str| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit());
    let parse = |pin: &str| {
        if pin.strip_prefix("sha256:").is_some_and(is_hash) {
            return Ok(pin.to_ascii_lowercase());
        }
        Err(Error::usage(format!("the CA pin `{}` is not `sha256:` and 64 hexadecimal digits", shown(pin)))
            .hint("`machine-id authority export tls-ca-pin` prints the authority's; several have commas between them"))
    };
    pins.split(',').map(|pin| parse(pin.trim())).collect()
}

/// The same in a document: a field's pins, each in its one form, with commas between them.
///
/// # Errors
/// What is wrong with it, at its place.
pub fn read_pins(node: &Node, key: &str) -> Result<String, Mistake> {
    let pins = ca_pins(node.text(key)?).map_err(|error| {
        let mistake = Mistake::new(node.place, format!("`{key}`: {error}"));
        error.hints().iter().fold(mistake, |mistake, hint| mistake.hint(hint))
    })?;
    Ok(pins.join(","))
}

/// `sha256:HEX` of a certificate's SubjectPublicKeyInfo.
pub fn pin_of(certificate: &[u8]) -> Result<String> {
    let (_, parsed) =
        x509_parser::parse_x509_certificate(certificate).context(Kind::Internal, "not a certificate")?;
    Ok(format!("sha256:{}", hex(digest(&SHA256, parsed.public_key().raw).as_ref())))
}

/// Trusts the CAs with these pins, as found in the chain that the server
/// sends; name, time and signatures are verified as ever. Without one nobody is trusted.
#[derive(Debug)]
pub(super) struct Pinned {
    /// Nothing where each CA of the chain will do.
    pins: Option<Vec<String>>,
    schemes: rustls::crypto::WebPkiSupportedAlgorithms,
}

impl Pinned {
    pub(super) fn new(pins: Vec<String>) -> Self {
        Self::of(Some(pins))
    }

    /// Trusts whichever CA the server says that it is of: for what proves itself, and is nobody's secret.
    pub(super) fn anybody() -> Self {
        Self::of(None)
    }

    fn of(pins: Option<Vec<String>>) -> Self {
        Self { pins, schemes: rustls::crypto::ring::default_provider().signature_verification_algorithms }
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let has_pin = |certificate: &&CertificateDer<'_>| {
            let pins = self.pins.as_ref();
            pins.is_none_or(|pins| pin_of(certificate).is_ok_and(|pin| pins.contains(&pin)))
        };
        let unknown = || rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let mut roots = RootCertStore::empty();
        // Each is the key alone: whoever put the certificate together, what counts is what that key has signed.
        roots.add_parsable_certificates(
            intermediates.iter().filter(has_pin).map(|ca| ca.clone().into_owned()),
        );
        WebPkiServerVerifier::builder(Arc::new(roots)).build().map_err(|_| unknown())?.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.schemes)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.schemes)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
