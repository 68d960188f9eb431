//! HTTPS clients: whom they trust, and why a connection failed.
//!
//! The authority is reached with `--ca-file` or `--ca-pin` where given;
//! everything else with the system's trust store, which is only read when it
//! is needed. Proxies come from the environment; redirects are never followed.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::CertificateDer;
use rustls::{CertificateError, ClientConfig, RootCertStore};

use crate::document::parse_duration;
use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::read::{self, Limit, Trust};
use crate::pem;
use crate::text::shown;

mod authority;
mod pin;

pub use authority::{AuthorityTrust, authority_client, authority_origin, authority_url, unreachable};
use pin::Pinned;
pub use pin::pin_of;

/// How long a connection may take to be made, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What every client of ours calls itself.
pub const USER_AGENT: &str = concat!("machine-id/", env!("CARGO_PKG_VERSION"));

/// The one provider of cryptography, for rustls and for JWTs. To be called
/// before anything else; calling it again does nothing.
pub fn install_crypto() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    crate::jws::install();
}

/// The way to a CI platform's endpoints, made when it is first needed:
/// reading the system's trust store costs a millisecond.
#[derive(Debug, Default)]
pub struct Platform(OnceLock<reqwest::Client>);

impl Platform {
    /// Not connected yet, nothing read yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// The client.
    ///
    /// # Errors
    /// Where the system has no trust store.
    pub fn client(&self) -> Result<&reqwest::Client> {
        if let Some(client) = self.0.get() {
            return Ok(client);
        }
        let client = client(system_roots()?)?;
        Ok(self.0.get_or_init(|| client))
    }
}

/// A whole system's certificate authorities are a quarter of it.
const CA_FILE: Limit = Limit::bytes(1 << 20);

/// A client for the issuers of an authority: the system's roots and those of `extra`.
///
/// # Errors
/// `Kind::Usage` where `extra` cannot be read.
pub fn issuer_client(extra: Option<&PathBuf>) -> Result<reqwest::Client> {
    let mut roots = RootCertStore::empty();
    // An authority with its own issuer CA, or with static key sets alone, needs no system roots.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = extra {
        roots.extend(roots_of_file(path, Trust::Operators, CA_FILE)?.roots);
    }
    if roots.is_empty() {
        // Nothing can be verified, which each fetch will say.
        return client_of(Arc::new(Pinned::new([0; 32])));
    }
    client(roots)
}

/// How long a connection to an endpoint of this machine may take to be made.
const MACHINE_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// A client for plain HTTP to endpoints of this very machine, such as a
/// cloud's metadata service: no proxy is asked for them, whatever the
/// environment says, and no server is trusted over TLS.
///
/// # Errors
/// Where it cannot be set up.
pub fn machine_client() -> Result<reqwest::Client> {
    build(builder(Arc::new(Pinned::new([0; 32]))).no_proxy().connect_timeout(MACHINE_CONNECT_TIMEOUT))
}

fn client(roots: RootCertStore) -> Result<reqwest::Client> {
    let verifier =
        WebPkiServerVerifier::builder(Arc::new(roots)).build().context(Kind::Internal, "trust store")?;
    client_of(verifier)
}

fn client_of(verifier: Arc<dyn ServerCertVerifier>) -> Result<reqwest::Client> {
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

fn system_roots() -> Result<RootCertStore> {
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

fn roots_of_file(path: &Path, trust: Trust, limit: Limit) -> Result<RootCertStore> {
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

/// Why a request did not get an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// The server's certificate is not trusted.
    Untrusted(Untrusted),
    /// It took too long.
    Timeout,
    /// No connection.
    Connect(String),
    /// Anything else, such as an answer that broke off.
    Other(String),
}

/// Why a server's certificate is not trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Untrusted {
    /// No CA that we trust signed it.
    UnknownIssuer,
    /// It has expired, by our clock.
    Expired,
    /// It is not valid yet, by our clock.
    NotValidYet,
    /// It is for another name than that of the URL.
    OtherName,
    /// Anything else, in the words of the TLS library.
    Other(String),
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Untrusted(why) => write!(f, "its certificate is not trusted: {why}"),
            Self::Timeout => f.write_str("no answer in time"),
            Self::Connect(why) | Self::Other(why) => f.write_str(&shown(why)),
        }
    }
}

impl fmt::Display for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownIssuer => "it is signed by an unknown authority",
            Self::Expired => "it has expired",
            Self::NotValidYet => "it is not valid yet by this machine's clock",
            Self::OtherName => "it is for another name",
            Self::Other(why) => return f.write_str(&shown(why)),
        })
    }
}

impl From<&CertificateError> for Untrusted {
    fn from(error: &CertificateError) -> Self {
        use CertificateError as E;
        match error {
            E::UnknownIssuer => Self::UnknownIssuer,
            E::Expired | E::ExpiredContext { .. } => Self::Expired,
            E::NotValidYet | E::NotValidYetContext { .. } => Self::NotValidYet,
            E::NotValidForName | E::NotValidForNameContext { .. } => Self::OtherName,
            other => Self::Other(other.to_string()),
        }
    }
}

impl From<reqwest::Error> for RequestError {
    fn from(error: reqwest::Error) -> Self {
        type Cause<'e> = &'e (dyn std::error::Error + 'static);
        let mut next: Option<Cause<'_>> = Some(&error);
        let mut deepest = String::new();
        while let Some(current) = next {
            if let Some(rustls::Error::InvalidCertificate(why)) = current.downcast_ref() {
                return Self::Untrusted(why.into());
            }
            deepest = current.to_string();
            // An `io::Error` hides what it wraps from `source`.
            next = match current.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
                Some(inner) => Some(inner),
                None => current.source(),
            };
        }
        if error.is_timeout() {
            Self::Timeout
        } else if error.is_connect() {
            Self::Connect(deepest)
        } else {
            Self::Other(deepest)
        }
    }
}

/// The value of a `--timeout`.
///
/// # Errors
/// `Kind::Usage`.
pub fn timeout(text: &str) -> Result<Duration> {
    // Beyond a day, sums of it with the clock might not hold.
    match parse_duration(text) {
        Ok(seconds) if seconds <= 86_400 => Ok(Duration::from_secs(seconds)),
        Ok(_) => Err(Error::usage("--timeout: must be at most 24h")),
        Err(why) => Err(Error::usage(format!("--timeout: {why}"))),
    }
}
/// Reads an answer's body, at most `limit` bytes of it.
///
/// # Errors
/// Where it is longer, or breaks off.
pub async fn body(mut response: reqwest::Response, limit: usize) -> Result<Vec<u8>, RequestError> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > limit => {
                return Err(RequestError::Other(format!("the answer is longer than {limit} bytes")));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(error) => {
                let why = RequestError::from(error);
                return Err(RequestError::Other(format!("the answer broke off: {why}")));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ca_files_must_hold_a_certificate() {
        install_crypto();
        let file = tempfile::NamedTempFile::new().unwrap();
        let trust = |path| AuthorityTrust { ca_file: Some(path), ca_pin: None };
        let error = authority_client(&trust(file.path().into()), CONNECT_TIMEOUT).unwrap_err();
        assert!(error.to_string().ends_with("it holds no certificate"), "{error}");
        assert_eq!(
            authority_client(&trust("/nowhere/ca.pem".into()), CONNECT_TIMEOUT).unwrap_err().kind(),
            Kind::Usage
        );
    }

    #[test]
    fn what_a_certificate_is_not_trusted_for_is_told_apart() {
        for (error, untrusted) in [
            (CertificateError::UnknownIssuer, Untrusted::UnknownIssuer),
            (CertificateError::Expired, Untrusted::Expired),
            (CertificateError::NotValidYet, Untrusted::NotValidYet),
            (CertificateError::NotValidForName, Untrusted::OtherName),
            (CertificateError::Revoked, Untrusted::Other(CertificateError::Revoked.to_string())),
        ] {
            assert_eq!(Untrusted::from(&error), untrusted);
        }
    }
}
