//! HTTPS clients. Proxies come from the environment; redirects are never followed.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

use super::pin::Pinned;
use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::read::{self, Limit, Trust};
use crate::folder::trust::Owner;
use crate::pem;

/// How long a connection may take to be made, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What every client of ours calls itself.
pub const USER_AGENT: &str = concat!("machine-id/", env!("CARGO_PKG_VERSION"));

/// The way to a CI platform's endpoints, made when it is first needed:
/// reading the system's trust store costs a millisecond.
#[derive(Debug, Default)]
pub struct Platform(OnceLock<reqwest::Client>);

impl Platform {
    /// The client.
    pub fn client(&self) -> Result<&reqwest::Client> {
        if let Some(client) = self.0.get() {
            return Ok(client);
        }
        let client = client(system_roots()?)?;
        Ok(self.0.get_or_init(|| client))
    }
}

/// A client for the issuers of an authority: the system's roots and those of `extra`.
pub fn issuer_client(extra: Option<&PathBuf>, owner: Owner) -> Result<reqwest::Client> {
    let mut roots = RootCertStore::empty();
    // An authority with its own issuer CA, or with static key sets alone, needs no system roots.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = extra {
        roots.extend(roots_of_file(path, Trust::Operators(owner), Limit::FILE)?.roots);
    }
    if roots.is_empty() {
        // Nothing can be verified, which each fetch will say.
        return client_of(Arc::new(Pinned::new(String::new())));
    }
    client(roots)
}

/// How long a connection to an endpoint of this machine may take to be made.
const MACHINE_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// A client for plain HTTP to endpoints of this very machine, such as a
/// cloud's metadata service: no proxy is asked for them, whatever the
/// environment says, and no server is trusted over TLS.
pub fn machine_client() -> Result<reqwest::Client> {
    build(builder(Arc::new(Pinned::new(String::new()))).no_proxy().connect_timeout(MACHINE_CONNECT_TIMEOUT))
}

pub(super) fn client(roots: RootCertStore) -> Result<reqwest::Client> {
    let verifier =
        WebPkiServerVerifier::builder(Arc::new(roots)).build().context(Kind::Internal, "trust store")?;
    client_of(verifier)
}

pub(super) fn client_of(verifier: Arc<dyn ServerCertVerifier>) -> Result<reqwest::Client> {
    build(builder(verifier))
}

fn builder(verifier: Arc<dyn ServerCertVerifier>) -> reqwest::ClientBuilder {
    let mut config = ClientConfig::builder()
        .dangerous() // the name of the method; every verifier that is handed in verifies
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    reqwest::Client::builder()
        .tls_backend_preconfigured(config)
        .user_agent(USER_AGENT)
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
}

fn build(builder: reqwest::ClientBuilder) -> Result<reqwest::Client> {
    builder.build().context(Kind::Internal, "cannot set up the HTTP client")
}

pub(super) fn system_roots() -> Result<RootCertStore> {
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

pub(super) fn roots_of_file(path: &Path, trust: Trust, limit: Limit) -> Result<RootCertStore> {
    let cannot = format!("cannot read the CA file {}", path.display());
    let text = read::raw(path, trust, limit).map_err(|unfit| unfit.error(Kind::Usage, cannot.clone()))?;
    let certificates = pem::decode_all(&String::from_utf8_lossy(&text), "CERTIFICATE")
        .ok_or_else(|| Error::usage(format!("{cannot}: its PEM is broken")))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(CertificateDer::from(certificate.to_vec())).context(Kind::Usage, cannot.clone())?;
    }
    if roots.is_empty() {
        return Err(Error::usage(format!("{cannot}: it holds no certificate"))
            .hint("`machine-id authority export tls-ca` prints the authority's"));
    }
    Ok(roots)
}
