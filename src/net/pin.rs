//! A CA that is known by the hash of its public key.

use std::sync::Arc;

use ring::digest::{SHA256, digest};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::error::{Error, Result};
use crate::text::hex;

/// The hash in `sha256:HEX`.
pub(super) fn parse(pin: &str) -> Result<[u8; 32]> {
    let wrong = || {
        Error::usage("the CA pin is not `sha256:` and 64 hexadecimal digits")
            .hint("`machine-id authority export tls-ca-pin` prints the authority's")
    };
    let hex =
        pin.strip_prefix("sha256:").filter(|hex| hex.len() == 64 && hex.is_ascii()).ok_or_else(wrong)?;
    let mut bytes = [0; 32];
    for (byte, digits) in bytes.iter_mut().zip(hex.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits).map_err(|_| wrong())?;
        // `from_str_radix` takes a sign.
        *byte = u8::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+')).ok_or_else(wrong)?;
    }
    Ok(bytes)
}

/// `sha256:HEX` of a certificate's SubjectPublicKeyInfo.
pub fn pin_of(certificate: &[u8]) -> Result<String> {
    let hash = spki_hash(certificate).ok_or_else(|| Error::internal("not a certificate"))?;
    Ok(format!("sha256:{}", hex(&hash)))
}

fn spki_hash(certificate: &[u8]) -> Option<[u8; 32]> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    digest(&SHA256, parsed.public_key().raw).as_ref().try_into().ok()
}

/// Trusts the one CA whose public key has this hash, as found in the chain
/// that the server sends; name, time and signatures are verified as ever.
#[derive(Debug)]
pub(super) struct Pinned {
    hash: [u8; 32],
    schemes: rustls::crypto::WebPkiSupportedAlgorithms,
}

impl Pinned {
    pub(super) fn new(hash: [u8; 32]) -> Self {
        Self { hash, schemes: rustls::crypto::ring::default_provider().signature_verification_algorithms }
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
        let pinned = intermediates.iter().find(|certificate| spki_hash(certificate) == Some(self.hash));
        let unknown = || rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let mut roots = RootCertStore::empty();
        roots.add(pinned.ok_or_else(unknown)?.clone().into_owned())?;
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
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn pins_are_exact() {
        assert_eq!(parse(&format!("sha256:{}", "0f".repeat(32))).unwrap(), [15; 32]);
        for bad in [
            "",
            "sha256:",
            "0f",
            &format!("sha256:{}", "+f".repeat(32)),
            &format!("sha1:{}", "0f".repeat(32)),
        ] {
            assert_eq!(parse(bad).unwrap_err().kind(), Kind::Usage, "{bad}");
        }
    }
}
