//! A certificate that can be served, the one that is, and what there is to say of it.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::CipherSuite;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::authority::Authority;
use crate::authority::host_ends::HostEnds;
use crate::authority::validity::{Ending, FORMER_TLS_CA, NEXT_TLS_CA, TLS_CA, Validity};
use crate::clock::rfc3339;
use crate::error::{Context as _, Kind, Result};
use crate::text::counted;

/// What certificates are called.
const OWN: &str = "the authority's own certificate";
const FILE: &str = "the certificate in `cert_file`";
const CHAIN: &str = "a certificate in the chain of `cert_file`";

/// What an operator should know of a certificate, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateWarning {
    /// What it is.
    pub message: String,
    /// What to do.
    pub hint: String,
    /// Whether nobody can connect, or nothing be signed, because of it.
    pub is_fault: bool,
    /// How many whole days are left, where it is about an end.
    pub days_left: Option<i64>,
}

impl CertificateWarning {
    /// What it is, and how long there is.
    pub fn told(&self) -> String {
        match self.days_left.map(usize::try_from) {
            Some(Ok(days)) => format!("{}: {} left", self.message, counted(days, "day")),
            _ => self.message.clone(),
        }
    }

    /// Whether it says the same as another, be it of another day.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.message == other.message && self.is_fault == other.is_fault && self.hint == other.hint
    }
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
                let untimely = |why: String| untimely(OWN, &why, self.validity, now);
                self.validity.fault(now).map(untimely).into_iter().collect()
            }
        }
    }

    /// When it ends, and each behind it from files.
    pub(super) fn endings(&self) -> Vec<Ending> {
        let ending = |what: &str, validity| Ending { what: what.to_owned(), validity };
        let leaf = ending(if self.files.is_some() { FILE } else { OWN }, self.validity);
        let chain = self.files.iter().flat_map(|files| &files.chain);
        [leaf].into_iter().chain(chain.map(|one| ending(CHAIN, *one))).collect()
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
        let timely = leaf.warning(now).map(|why| untimely(FILE, &why, leaf, now));
        let other_name = self.other_name.as_ref().map(|message| CertificateWarning {
            message: message.clone(),
            hint: "jobs that reach the authority without a proxy in between refuse it: have it issued for that name too".to_owned(),
            is_fault: false,
            days_left: None,
        });
        let chain_fault = self.chain_fault.map(|message| CertificateWarning {
            message: message.to_owned(),
            hint: "clients that know the root alone refuse it: put the whole chain into the file, each certificate \
                   before its issuer's, as `fullchain.pem` has it"
                .to_owned(),
            is_fault: false,
            days_left: None,
        });
        let ended = self.chain.iter().find_map(|one| one.fault(now)).map(|why| CertificateWarning {
            message: format!("{CHAIN} {why}"),
            hint: "most clients refuse it: put its issuer's present chain into the file".to_owned(),
            is_fault: false,
            days_left: None,
        });
        [timely, other_name, chain_fault, ended].into_iter().flatten().collect()
    }
}

/// That a certificate to be served is good at another time, or not for long.
fn untimely(which: &str, why: &str, when: Validity, now: i64) -> CertificateWarning {
    let hint = "every client refuses one outside its time: have it renewed, and look at this machine's clock";
    warning(format!("{which} {why}"), hint, when, now)
}

fn warning(message: String, hint: &str, when: Validity, now: i64) -> CertificateWarning {
    let fault = when.fault(now);
    let days_left = fault.is_none().then(|| when.days_left(now));
    CertificateWarning { message, hint: hint.to_owned(), is_fault: fault.is_some(), days_left }
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
    fn own_warnings(&self, authority: &Authority) -> Vec<CertificateWarning> {
        let now = authority.clock.now();
        let mut warnings = ca_warnings(&authority.keys().tls_endings(), now);
        warnings.extend(self.served().warnings(now));
        warnings
    }

    /// The same, and that certificates of hosts end soon: for anybody, who is not told which hosts there are.
    pub fn warnings(&self, authority: &Authority) -> Vec<CertificateWarning> {
        let now = authority.clock.now();
        let hint = "the log and `machine-id authority check` name them";
        let first = authority.host_ends().first(now).map(|first| soon(&first, hint, now));
        self.own_warnings(authority).into_iter().chain(first).collect()
    }

    /// The same for the log, which names them; and of the last list.
    pub(super) fn log_warnings(&self, authority: &Authority) -> Vec<CertificateWarning> {
        let (ends, list) = (authority.host_ends(), authority.list_ending());
        let store = store_warnings(&ends, list.as_ref(), authority.clock.now());
        self.own_warnings(authority).into_iter().chain(store).collect()
    }

    /// When each of them ends, and the first certificate of hosts that does so soon.
    pub fn endings(&self, authority: &Authority) -> Vec<Ending> {
        let first = authority.host_ends().first(authority.clock.now());
        let own = [authority.keys().tls_endings(), self.served().endings()].concat();
        own.into_iter().chain(first).collect()
    }
}

/// What there is to say of the ends of what a store knows: certificates of hosts and servers, and the last list. None of them
/// keeps an authority from issuing.
pub fn store_warnings(ends: &HostEnds, list: Option<&Ending>, now: i64) -> Vec<CertificateWarning> {
    let no_list = "no other was made since: the authority's log says why, if it runs; servers that read it let nobody in once \
                   it has ended";
    let sign = "sign it anew (`sign-host`, `sign-server`), or see why the host has not renewed it; where nobody uses it, revoke \
                it: `machine-id authority lock --serial`";
    let list = list.and_then(|list| Some((list, list.validity.warning(now)?)));
    let list = list.map(|(list, why)| CertificateWarning {
        message: format!("{} {why}", list.what),
        ..soon(list, no_list, now)
    });
    let (named, more) = ends.named(now);
    let more = more.into_iter().map(|message| CertificateWarning {
        message,
        hint: sign.to_owned(),
        is_fault: false,
        days_left: None,
    });
    list.into_iter().chain(named.iter().map(|one| soon(one, sign, now))).chain(more).collect()
}

/// That it ends soon, or has.
fn soon(ending: &Ending, hint: &str, now: i64) -> CertificateWarning {
    let Ending { what, validity } = ending;
    CertificateWarning {
        message: format!("{what} ends at {}", rfc3339(validity.until)),
        hint: hint.to_owned(),
        is_fault: false,
        days_left: (now < validity.until).then(|| validity.days_left(now)),
    }
}

/// What there is to say of the TLS CA, and of what certifies it.
pub fn ca_warnings(endings: &[Ending], now: i64) -> Vec<CertificateWarning> {
    let own = "X.509 certificates end with it at the latest: `machine-id authority rotate --ca tls` has another take its place, and \
               ends trust in this one (docs/rotation.md); if this is too early, look at this machine's clock";
    let others = "X.509 certificates end with it at the latest: have the request of `init --tls-ca-csr` certified again, and \
                  run `machine-id authority import --tls-ca` with it";
    let told = |Ending { what, validity }: &Ending| {
        let message = format!("{what} {}", validity.ca_warning(now)?);
        let is_own = [TLS_CA, NEXT_TLS_CA, FORMER_TLS_CA].contains(&what.as_str());
        Some(warning(message, if is_own { own } else { others }, *validity, now))
    };
    endings.iter().filter_map(told).collect()
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
