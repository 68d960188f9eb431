//! A certificate that can be served, the one that is, and what there is to say of it.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::CipherSuite;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::authority::Authority;
use crate::authority::validity::Validity;
use crate::error::{Context as _, Kind, Result};

/// What an operator should know of a certificate, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateWarning {
    /// What it is.
    pub message: String,
    /// What to do.
    pub hint: String,
    /// Whether nobody can connect, or nothing be signed, because of it.
    pub is_fault: bool,
}

/// A certificate that can be served.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) key: Arc<CertifiedKey>,
    pub(super) validity: Validity,
    /// Of one from files.
    pub(super) files: Option<FileFacts>,
}

impl Served {
    pub(super) fn warnings(&self, now: i64) -> Vec<CertificateWarning> {
        match &self.files {
            Some(files) => files.warnings(self.validity, now),
            // It is renewed long before its end, which is no news.
            None => {
                let untimely = |why: String| untimely("the authority's own certificate", &why, true);
                self.validity.fault(now).map(untimely).into_iter().collect()
            }
        }
    }

    /// How bad it is to serve it: not at all, under another name, or at a time that is not its own.
    pub(super) fn badness(&self, now: i64) -> u8 {
        let other_name = self.files.as_ref().is_some_and(|files| files.other_name.is_some());
        if self.validity.fault(now).is_some() { 2 } else { u8::from(other_name) }
    }
}

/// What is known of one from files beside its time.
#[derive(Debug)]
pub(super) struct FileFacts {
    /// That it is not for the public URL's host.
    pub(super) other_name: Option<String>,
    /// That its issuer ought to stand behind it, and does not.
    pub(super) chain_fault: Option<&'static str>,
    /// When those behind it are good.
    pub(super) chain: Vec<Validity>,
}

impl FileFacts {
    fn warnings(&self, leaf: Validity, now: i64) -> Vec<CertificateWarning> {
        let timely = leaf
            .warning(now)
            .map(|why| untimely("the certificate in `cert_file`", &why, leaf.fault(now).is_some()));
        let other_name = self.other_name.as_ref().map(|message| CertificateWarning {
            message: message.clone(),
            hint: "jobs that reach the authority without a proxy in between refuse it: have it issued for that name too".to_owned(),
            is_fault: false,
        });
        let chain_fault = self.chain_fault.map(|message| CertificateWarning {
            message: message.to_owned(),
            hint: "clients that know the root alone refuse it: put the whole chain into the file, each certificate \
                   before its issuer's, as `fullchain.pem` has it"
                .to_owned(),
            is_fault: false,
        });
        let ended = self.chain.iter().find_map(|one| one.fault(now)).map(|why| CertificateWarning {
            message: format!("a certificate in the chain of `cert_file` {why}"),
            hint: "most clients refuse it: put its issuer's present chain into the file".to_owned(),
            is_fault: false,
        });
        [timely, other_name, chain_fault, ended].into_iter().flatten().collect()
    }
}

/// That a certificate to be served is good at another time, or not for long.
fn untimely(which: &str, why: &str, is_fault: bool) -> CertificateWarning {
    let hint = "every client refuses one outside its time: have it renewed, and look at this machine's clock";
    CertificateWarning { message: format!("{which} {why}"), hint: hint.to_owned(), is_fault }
}

/// The certificate that is served now.
#[derive(Debug)]
pub struct CurrentCertificate(RwLock<Arc<Served>>);

impl ResolvesServerCert for CurrentCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.served().key))
    }
}

impl CurrentCertificate {
    pub(super) fn new(served: Served) -> Self {
        Self(RwLock::new(Arc::new(served)))
    }

    pub(super) fn served(&self) -> Arc<Served> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn replace(&self, served: Served) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(served);
    }

    /// What there is to say now of it, and of the CA of an authority's certificates.
    pub fn warnings(&self, authority: &Authority) -> Vec<CertificateWarning> {
        let now = authority.clock.now();
        ca_warning(authority.keys().tls_validity(), now)
            .into_iter()
            .chain(self.served().warnings(now))
            .collect()
    }
}

/// What there is to say of the TLS CA.
pub fn ca_warning(ca: Validity, now: i64) -> Option<CertificateWarning> {
    let message = format!("the TLS CA {}", ca.warning(now)?);
    let hint = "X.509 certificates end with it at the latest: make another authority in good time, and have servers and \
                jobs trust both; if this is too early, look at this machine's clock";
    Some(CertificateWarning { message, hint: hint.to_owned(), is_fault: ca.fault(now).is_some() })
}

pub(super) fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey> {
    CertifiedKey::from_der(chain, key, &provider())
        .context(Kind::Internal, "the TLS certificate and its key do not fit each other")
}

/// ring, with the cheapest of the strong suites first: a handshake is most of an exchange's cost.
pub(super) fn provider() -> CryptoProvider {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
}
