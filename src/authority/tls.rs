//! The authority's own TLS: a certificate from its own CA, renewed by itself,
//! or one from files, read anew on SIGHUP.

use std::sync::{Arc, PoisonError, RwLock};

use rcgen::PublicKeyData as _;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, ServerConfig};

use super::Authority;
use super::issue::x509::ServerPlan;
use super::store::record;
use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::read::{self, Limit, Trust};
use crate::pem;

/// How long our own certificate is valid, in seconds.
const LIFETIME: i64 = 7 * 86_400;
/// When it is renewed: with a third of its time left.
const RENEW_BEFORE: i64 = LIFETIME / 3;

/// The certificate that is served now.
#[derive(Debug)]
pub struct CurrentCertificate(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for CurrentCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl CurrentCertificate {
    /// Serves this one to begin with.
    pub fn new(key: CertifiedKey) -> Self {
        Self(RwLock::new(Arc::new(key)))
    }

    /// Serves another one from now on.
    pub fn replace(&self, key: CertifiedKey) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
    }
}

/// The certificate from the configured files, or a new one of our own; and when
/// to renew it, in seconds since 1970: never one from files.
///
/// # Errors
/// Where the files cannot be used, or the store does not take the record.
pub async fn certificate(authority: &Authority) -> Result<(CertifiedKey, i64)> {
    match &authority.config.tls {
        Some((certificate, key)) => {
            let text = read::text(certificate, Trust::Operators(authority.config.owner), Limit::FILE)?;
            let chain = pem::decode_all(&text, "CERTIFICATE").filter(|chain| !chain.is_empty());
            let chain = chain.ok_or_else(|| {
                Error::usage(format!("{} is not a certificate chain in PEM", certificate.display()))
            })?;
            let chain = chain.into_iter().map(|der| CertificateDer::from(der.to_vec())).collect();
            let private = read::text(key, Trust::ServerKey(authority.config.owner), Limit::FILE)?;
            let private = PrivateKeyDer::from_pem_slice(private.as_bytes())
                .context(Kind::Usage, format!("{} is not a private key in PEM", key.display()))?;
            Ok((certified(chain, private)?, i64::MAX))
        }
        None => own(authority).await,
    }
}

/// A certificate from our own CA for the public URL's host. The CA's follows
/// it in the chain, so that `--ca-pin` has something to be compared with.
async fn own(authority: &Authority) -> Result<(CertifiedKey, i64)> {
    let url = reqwest::Url::parse(&authority.config.public_url).context(Kind::Usage, "public_url")?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let pair = rcgen::KeyPair::generate().context(Kind::Internal, "cannot make a TLS key")?;
    let now = authority.clock.now();
    let plan = ServerPlan::new(pair.subject_public_key_info(), vec![host], now, LIFETIME)?;
    let leaf = record::command(authority.store.as_ref(), "serve", now, plan).await?.sign(&authority.keys)?;
    let leaf = pem::decode(&leaf).ok_or_else(|| Error::internal("own certificate"))?;
    let chain = vec![
        CertificateDer::from(leaf.to_vec()),
        CertificateDer::from(authority.keys.tls_certificate().to_vec()),
    ];
    let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(pair.serialize_der()));
    Ok((certified(chain, private)?, now + LIFETIME - RENEW_BEFORE))
}

fn certified(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<CertifiedKey> {
    CertifiedKey::from_der(chain, key, &provider())
        .context(Kind::Usage, "the TLS certificate and its key do not fit each other")
}

/// ring, with the cheapest of the strong suites first: a handshake is most of an exchange's cost.
fn provider() -> CryptoProvider {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
}

/// TLS 1.2 and 1.3 with that certificate. Nothing is kept between connections:
/// a job comes once.
pub fn server_config(current: Arc<CurrentCertificate>) -> Result<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()
        .context(Kind::Internal, "TLS")?
        .with_no_client_auth()
        .with_cert_resolver(current);
    config.ignore_client_order = true;
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
