//! What clients are made of: whom the system or a file trusts, and TLS with that.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

use super::pin::pin_of;
use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::read::{self, Limit, Trust};
use crate::pem;

/// What every client of ours calls itself.
pub const USER_AGENT: &str = concat!("machine-id/", env!("CARGO_PKG_VERSION"));

pub(super) fn verifier(roots: RootCertStore) -> Result<Arc<dyn ServerCertVerifier>> {
    let verifier = WebPkiServerVerifier::builder(Arc::new(roots)).build();
    Ok(verifier.context(Kind::Internal, "trust store")?)
}

pub(super) fn config(verifier: Arc<dyn ServerCertVerifier>) -> ClientConfig {
    let mut config = ClientConfig::builder()
        .dangerous() // the name of the method; every verifier that is handed in verifies
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config
}

/// Those of the system, or of `SSL_CERT_FILE` and `SSL_CERT_DIR`.
pub fn system_roots() -> Result<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if !roots.is_empty() {
        return Ok(roots);
    }
    let why = found.errors.first().map_or_else(String::new, |error| format!(": {error}"));
    Err(Error::new(Kind::Unreachable, format!("this machine has no trusted certificate authorities{why}"))
        .hint("install the package `ca-certificates`, or point SSL_CERT_FILE at a bundle")
        .hint("an authority with its own certificate is trusted with --ca-file or --ca-pin"))
}

/// The certificates of a file, all of them.
pub fn roots_of_file(path: &Path, trust: Trust, limit: Limit) -> Result<RootCertStore> {
    Ok(read_roots(path, trust, limit)?.0)
}

/// The same, and their pins.
pub(super) fn read_roots(path: &Path, trust: Trust, limit: Limit) -> Result<(RootCertStore, Vec<String>)> {
    let cannot = format!("cannot read the CA file {}", path.display());
    let text = read::raw(path, trust, limit).map_err(|unfit| unfit.error(Kind::Usage, cannot.clone()))?;
    let certificates = pem::decode_all(&String::from_utf8_lossy(&text), "CERTIFICATE")
        .ok_or_else(|| Error::usage(format!("{cannot}: its PEM is broken")))?;
    let (mut roots, mut pins) = (RootCertStore::empty(), Vec::new());
    for certificate in certificates {
        pins.extend(pin_of(&certificate));
        roots.add(CertificateDer::from(certificate.to_vec())).context(Kind::Usage, cannot.clone())?;
    }
    if roots.is_empty() {
        return Err(Error::usage(format!("{cannot}: it holds no certificate"))
            .hint("`machine-id authority export tls-ca` prints the authority's"));
    }
    Ok((roots, pins))
}
