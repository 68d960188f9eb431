//! The CA keys: the only place that signs by them.
//!
//! Three of them: for SSH users, for SSH hosts and for TLS. Certificates are signed for [`Recorded`] plans alone, lists as
//! lists; the TLS CA's own certificate is signed where it is made. A fourth key signs statements and no certificate.
//! Where their private halves are, a [`KeyStore`] knows.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Header;
use rcgen::{CertificateParams, CertificateRevocationListParams};
use ssh_key::HashAlg;
use ssh_key::certificate::{Builder, CertType};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::store::record::Recorded;
use super::validity::Validity;
use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::trust::Owner;
use crate::jws;
use crate::net::pin_of;
use crate::wire::{STATEMENT, Statement, TrustAnchors};

mod crl;
mod file;
mod place;
mod private;
mod signer;
mod ssh;
mod subject;
#[cfg(test)]
pub(in crate::authority) mod tests;
mod tls;

pub use place::KeyPlace;
pub use private::{Algorithm, KeyStore, PrivateKey, is_away};
pub use tls::TlsCaCertificate;
pub(super) use tls::{params, valid_from};

use private::{Public, away};
use ssh::SshCa;
use tls::TlsCa;

/// How long a signature may take where it is made elsewhere.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the keys of `init` are called in a store of keys.
const SSH_USER: &str = "ssh-user";
const SSH_HOST: &str = "ssh-host";
const TLS: &str = "tls";
const STATEMENT_KEY: &str = "statement";
/// What keys that are elsewhere sign to show that they do: it is no certificate, no list and no statement.
const PROBE: &[u8] = b"machine-id: does this key sign?";

/// Every CA of an authority.
#[derive(Clone, Debug)]
pub struct CaKeys {
    store: Arc<dyn KeyStore>,
    ssh_user: SshCa,
    ssh_host: SshCa,
    tls: TlsCa,
    /// None in a data directory from before there were statements, until `serve` makes it.
    statement: Option<StatementKey>,
}

#[derive(Clone, Debug)]
struct StatementKey {
    key: Arc<dyn PrivateKey>,
    public: Public,
}

impl CaKeys {
    /// Makes every CA key of a new authority in a place, and the TLS CA's certificate in `certificate`, where there is none.
    ///
    /// # Errors
    /// `Kind::Usage` where there are keys already, or they cannot be written; [`is_away`] where the place cannot be reached.
    pub fn create(place: &KeyPlace, certificate: &Path, cluster: &str, now: i64) -> Result<()> {
        place.prepare()?;
        let store = place.open(Owner::me())?;
        for name in [SSH_USER, SSH_HOST, STATEMENT_KEY] {
            store.create(name, Algorithm::Ed25519)?;
        }
        let key = store.create(TLS, Algorithm::EcdsaP256)?;
        tls::create(key.as_ref(), certificate, cluster, now)
    }

    /// The keys of an authority.
    ///
    /// # Errors
    /// `Kind::Usage` where one is missing, unreadable, unfit, another user's, or open to others; [`is_away`] where they
    /// cannot be reached.
    pub fn open(place: &KeyPlace, certificate: &Path, cluster: &str, owner: Owner) -> Result<Self> {
        let store = place.open(owner)?;
        let need = |name| {
            store.open(name)?.ok_or_else(|| {
                Error::usage(format!("the CA key {} is missing", store.place(name)))
                    .hint("put it back from the backup: what it has signed is good for nothing without it")
            })
        };
        let ssh = |name, file: &str| SshCa::new(need(name)?, &format!("{file}@{cluster}"));
        Ok(Self {
            ssh_user: ssh(SSH_USER, "ssh_user_ca")?,
            ssh_host: ssh(SSH_HOST, "ssh_host_ca")?,
            tls: TlsCa::new(need(TLS)?, tls::read(certificate, owner)?, certificate)?,
            statement: store.open(STATEMENT_KEY)?.map(StatementKey::new).transpose()?,
            store,
        })
    }

    /// With a new statement key, where these are from before there was one.
    ///
    /// # Errors
    /// Where none can be made.
    pub fn with_statement_key(&self) -> Result<Option<Self>> {
        if self.statement.is_some() {
            return Ok(None);
        }
        let key = StatementKey::new(self.store.create(STATEMENT_KEY, Algorithm::Ed25519)?)?;
        let Self { store, ssh_user, ssh_host, tls, .. } = self.clone();
        Ok(Some(Self { store, ssh_user, ssh_host, tls, statement: Some(key) }))
    }

    /// Has something signed: here where the keys are, else on a thread that may wait.
    ///
    /// # Errors
    /// As it says, and [`is_away`] where it takes too long.
    pub async fn work<T: Send + 'static>(
        self: &Arc<Self>,
        what: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if self.store.is_local() {
            return what(self);
        }
        let keys = Arc::clone(self);
        match timeout(PATIENCE, spawn_blocking(move || what(&keys))).await {
            Ok(Ok(done)) => done,
            Ok(Err(error)) => Err(error).context(Kind::Internal, "signing"),
            Err(_) => Err(away("the store of the CA keys does not answer in time")),
        }
    }

    /// Tries each key, where others may have taken it away.
    ///
    /// # Errors
    /// Where one does not sign.
    pub async fn probe(self: &Arc<Self>) -> Result<()> {
        if self.store.is_local() {
            return Ok(());
        }
        self.work(|keys| {
            let statement = keys.statement.iter().map(|one| &one.key);
            let all = [&keys.ssh_user.key, &keys.ssh_host.key, &keys.tls.key];
            all.into_iter().chain(statement).try_for_each(|key| key.sign(PROBE).map(drop))
        })
        .await
    }

    /// What others need to trust these CAs.
    pub fn trust(&self) -> TrustAnchors {
        TrustAnchors {
            ssh_host_cas: vec![self.ssh_host.line.clone()],
            ssh_user_cas: vec![self.ssh_user.line.clone()],
            tls_cas: vec![self.tls.certificate.pem.clone()],
        }
    }

    /// Names the keys for operators, sorted: as `ssh-keygen -l` does, and as `export tls-ca-pin`.
    pub fn names(&self) -> Result<Vec<String>> {
        let ssh = |ca: &SshCa| ca.data.fingerprint(HashAlg::Sha256);
        let mut names =
            vec![format!("ssh-host {}", ssh(&self.ssh_host)), format!("ssh-user {}", ssh(&self.ssh_user))];
        names.extend(self.statement_key().map(|key| format!("statement {key}")));
        names.push(format!("tls {}", pin_of(self.tls_certificate())?));
        Ok(names)
    }

    /// The public key that statements are verified by, in base64url: raw of Ed25519, or a point; none where there is none yet.
    pub fn statement_key(&self) -> Option<String> {
        Some(URL_SAFE_NO_PAD.encode(self.statement.as_ref()?.public.raw()))
    }

    /// Signs a statement, and nothing else; as a JWS.
    pub(in crate::authority) fn sign_statement(&self, statement: &Statement) -> Result<String> {
        let of = self.statement.as_ref().ok_or_else(|| Error::internal("there is no statement key"))?;
        let header = Header { typ: Some(STATEMENT.to_owned()), ..Header::default() };
        let algorithm = of.key.algorithm();
        let named = match algorithm {
            Algorithm::Ed25519 => jsonwebtoken::Algorithm::EdDSA,
            Algorithm::EcdsaP256 => jsonwebtoken::Algorithm::ES256,
            Algorithm::EcdsaP384 => jsonwebtoken::Algorithm::ES384,
            Algorithm::Rsa3072 => return Err(Error::internal("a statement key of RSA")),
        };
        let signed = jws::sign_by(named, header, statement, |message| {
            private::jws_signature(algorithm, of.key.sign(message)?)
        })?;
        Ok(signed.expose().to_owned())
    }

    /// The TLS CA's certificate in DER.
    pub fn tls_certificate(&self) -> &[u8] {
        &self.tls.certificate.der
    }

    /// When the TLS CA's certificate is good. The SSH CAs have no end.
    pub fn tls_validity(&self) -> Validity {
        self.tls.certificate.validity
    }

    /// The public key blobs of the SSH CAs (RFC 4253, section 6.6), as a revocation list names them: of users, and of hosts.
    pub fn ssh_blobs(&self) -> Result<[Vec<u8>; 2]> {
        Ok([self.ssh_user.blob()?, self.ssh_host.blob()?])
    }

    /// Signs an OpenSSH certificate of what is recorded, with the CA of its
    /// kind; on one line.
    pub(in crate::authority) fn sign_ssh<P>(
        &self,
        _: &Recorded<P>,
        kind: CertType,
        certificate: Builder,
    ) -> Result<String> {
        match kind {
            CertType::User => self.ssh_user.sign(certificate),
            CertType::Host => self.ssh_host.sign(certificate),
        }
    }

    /// Signs an X.509 certificate of what is recorded, made of `params` for the
    /// key; `subject`, a DER `Name`, takes the place of one that `params`
    /// cannot say. In PEM, with nothing behind it, since clients hold the root.
    ///
    /// # Errors
    /// Where it would outlive the CA: whoever plans a certificate asks [`CaKeys::tls_validity`].
    pub(in crate::authority) fn sign_tls<P>(
        &self,
        _: &Recorded<P>,
        params: &CertificateParams,
        spki: &[u8],
        subject: Option<&[u8]>,
    ) -> Result<String> {
        self.tls.sign(params, spki, subject)
    }

    /// Signs a revocation list, and nothing else, with these serials on it, each with when it was revoked; in DER.
    pub(in crate::authority) fn sign_crl(
        &self,
        list: &CertificateRevocationListParams,
        revoked: impl ExactSizeIterator<Item = (u64, i64)>,
    ) -> Result<Vec<u8>> {
        self.tls.sign_crl(list, revoked)
    }
}

impl StatementKey {
    fn new(key: Arc<dyn PrivateKey>) -> Result<Self> {
        Ok(Self { public: Public::of(key.as_ref())?, key })
    }
}
