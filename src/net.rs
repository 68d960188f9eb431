//! HTTPS clients: whom they trust, and why a connection failed.
//!
//! The authority is reached with `--ca-file` or `--ca-pin` where given;
//! everything else with the system's trust store, which is only read when it
//! is needed. Proxies come from the environment; redirects are never followed.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ring::digest::{SHA256, digest};
use rustls::client::Resumption;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::read::{self, Limit, Trust};

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

/// How the authority's certificate is judged.
#[derive(Clone, Debug, Default)]
pub struct AuthorityTrust {
    /// Roots in PEM, in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// `sha256:HEX` of the SubjectPublicKeyInfo of a CA in the authority's chain.
    pub ca_pin: Option<String>,
}

/// A whole system's certificate authorities are a quarter of it.
const CA_FILE: Limit = Limit::bytes(1 << 20);

/// A client for the authority. `patience` is for a CA file that is a pipe.
///
/// # Errors
/// `Kind::Usage` for a CA file that cannot be read or holds no certificate,
/// and for a malformed pin.
pub fn authority_client(trust: &AuthorityTrust, patience: Duration) -> Result<reqwest::Client> {
    match (&trust.ca_file, &trust.ca_pin) {
        (Some(_), Some(_)) => {
            Err(Error::usage("both a CA file and a CA pin are given").hint("give one of them"))
        }
        (Some(path), None) => client(roots_of_file(path, Trust::Anyone, CA_FILE.within(patience))?),
        (None, Some(pin)) => client_of(Arc::new(Pinned::new(parse_pin(pin)?))),
        (None, None) => client(system_roots()?),
    }
}

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
    let pem = read::raw(path, trust, limit).map_err(|unfit| unfit.error(Kind::Usage, cannot.clone()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.context(Kind::Usage, cannot.clone())?;
        roots.add(certificate).context(Kind::Usage, cannot.clone())?;
    }
    if roots.is_empty() {
        return Err(Error::usage(format!("{cannot}: it holds no certificate"))
            .hint("`machine-id authority export tls-ca` prints the authority's"));
    }
    Ok(roots)
}

fn parse_pin(pin: &str) -> Result<[u8; 32]> {
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
///
/// # Errors
/// Where it is not a certificate.
pub fn pin_of(certificate: &[u8]) -> Result<String> {
    let hash = spki_hash(certificate).ok_or_else(|| Error::internal("not a certificate"))?;
    Ok(format!("sha256:{}", hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>()))
}

fn spki_hash(certificate: &[u8]) -> Option<[u8; 32]> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    digest(&SHA256, parsed.public_key().raw).as_ref().try_into().ok()
}

/// Trusts the one CA whose public key has this hash, as found in the chain
/// that the server sends; name, time and signatures are verified as ever.
#[derive(Debug)]
struct Pinned {
    hash: [u8; 32],
    schemes: rustls::crypto::WebPkiSupportedAlgorithms,
}

impl Pinned {
    fn new(hash: [u8; 32]) -> Self {
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

/// Why a request did not get an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The server's certificate is not trusted.
    Untrusted(String),
    /// It took too long.
    Timeout,
    /// No connection.
    Connect(String),
    /// Anything else, such as an answer that broke off.
    Other(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Untrusted(why) => write!(f, "its certificate is not trusted: {why}"),
            Self::Timeout => f.write_str("no answer in time"),
            Self::Connect(why) | Self::Other(why) => f.write_str(&crate::text::shown(why)),
        }
    }
}

/// Judges a failed request.
#[must_use]
pub fn trouble(error: &reqwest::Error) -> Trouble {
    type Cause<'e> = &'e (dyn std::error::Error + 'static);
    let mut next: Option<Cause<'_>> = Some(error);
    let mut deepest = String::new();
    while let Some(current) = next {
        if let Some(rustls::Error::InvalidCertificate(why)) = current.downcast_ref() {
            return Trouble::Untrusted(certificate_words(why));
        }
        deepest = current.to_string();
        // An `io::Error` hides what it wraps from `source`.
        next = match current.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => current.source(),
        };
    }
    if error.is_timeout() {
        Trouble::Timeout
    } else if error.is_connect() {
        Trouble::Connect(deepest)
    } else {
        Trouble::Other(deepest)
    }
}

fn certificate_words(why: &CertificateError) -> String {
    match why {
        CertificateError::UnknownIssuer => "it is signed by an unknown authority".to_owned(),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired".to_owned(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet by this machine's clock".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is for another name".to_owned()
        }
        other => other.to_string(),
    }
}

/// Reads an answer's body, at most `limit` bytes of it.
///
/// # Errors
/// Where it is longer, or breaks off.
pub async fn body(mut response: reqwest::Response, limit: usize) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > limit => {
                return Err(format!("the answer is longer than {limit} bytes"));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(error) => return Err(format!("the answer broke off: {}", trouble(&error))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_exact() {
        assert_eq!(parse_pin(&format!("sha256:{}", "0f".repeat(32))).unwrap(), [15; 32]);
        for bad in [
            "",
            "sha256:",
            "0f",
            &format!("sha256:{}", "+f".repeat(32)),
            &format!("sha1:{}", "0f".repeat(32)),
        ] {
            assert_eq!(parse_pin(bad).unwrap_err().kind(), Kind::Usage, "{bad}");
        }
    }

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
}
