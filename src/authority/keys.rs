//! The CA keys: the only place that signs by them.
//!
//! Three of them: for SSH users, for SSH hosts and for TLS. Certificates are signed for [`Recorded`] plans alone, lists as
//! lists; the TLS CA's own certificate is signed where it is made. A fourth key signs statements and no certificate, a fifth tokens.
//! Where their private halves are, a [`KeyStore`] knows.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::Header;
use rcgen::{CertificateParams, CertificateRevocationListParams};
use ring::digest::{Context, SHA256, digest};
use ssh_key::certificate::{Builder, CertType};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::ca::{CaKind, CaSet, CaState};
use super::store::record::Recorded;
use super::validity::{Ending, Validity};
use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::trust::Owner;
use crate::jws;
use crate::net::pin_of;
use crate::secret::Secret;
use crate::suite::Suite;
use crate::text::hex;
use crate::wire::{Endorsement, STATEMENT, Statement, TrustAnchors};

mod awskms;
mod crl;
mod cross;
mod family;
mod federation;
mod file;
mod ids;
mod listed;
mod next;
mod opening;
mod passphrase;
pub mod pkcs11;
mod place;
mod private;
mod sealed;
mod signer;
mod ssh;
mod statement;
mod subject;
#[cfg(test)]
pub(in crate::authority) mod tests;
mod tls;
mod tokens;
mod travel;

pub use cross::Cross;
pub use federation::FederationKey;
pub use listed::{ListedCa, Signing};
pub use passphrase::passphrase;
pub use place::{KeyPlace, TLS_CERTIFICATE};
pub use private::{Algorithm, KeyStore, Lack, PrivateKey, is_away};
pub use sealed::is_sealed;
pub use tls::TlsCaCertificate;
pub(super) use tls::{params, valid_from};
pub use travel::{SEALS_CA_KEYS, SealingKey};

use family::{Family, Member};
use private::away;
pub(in crate::authority) use private::lacking;
use ssh::SshCa;
use statement::StatementKey;
use tls::TlsCa;

/// How long a signature may take where it is made elsewhere.
const PATIENCE: Duration = Duration::from_secs(10);

/// What keys that are elsewhere sign to show that they do: it is no certificate, no list and no statement.
const PROBE: &[u8] = b"machine-id: does this key sign?";

/// Where the keys of an authority are, and what else they are opened by.
pub struct KeySource {
    /// Where the private keys are.
    pub place: KeyPlace,
    /// Where the certificate of the first TLS CA is.
    pub certificate: PathBuf,
    /// The cluster.
    pub cluster: String,
    /// Whose all of it is.
    pub owner: Owner,
    /// What new keys are of.
    pub suite: Suite,
    /// What keys in files are sealed with.
    pub passphrase: Option<Secret>,
    /// What keys travel by through the store.
    pub sealing: Option<SealingKey>,
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySource").field("place", &self.place).finish_non_exhaustive()
    }
}

/// Every CA of an authority, as of one [`CaSet`].
#[derive(Clone, Debug)]
pub struct CaKeys {
    store: Arc<dyn KeyStore>,
    set: Arc<CaSet>,
    ssh_user: Family<SshCa>,
    ssh_host: Family<SshCa>,
    tls: Family<TlsCa>,
    /// None in a data directory from before there were statements, until `serve` makes it.
    statement: Option<Family<StatementKey>>,
    /// The same.
    federation: Option<Family<StatementKey>>,
    lacks: Vec<Lack>,
}

/// What keys of a new authority stay where they were made when nothing comes of it.
#[derive(Debug)]
pub struct NewKeys(Vec<String>);

impl NewKeys {
    /// An error, with what is left for the operator to destroy.
    pub fn left_by(&self, error: Error) -> Error {
        if self.0.is_empty() {
            return error;
        }
        error.hint(format!("these were made before that, and are to be destroyed: {}", self.0.join(", ")))
    }
}

/// What a new CA is for.
#[derive(Clone, Copy, Debug)]
pub struct NewCa<'a> {
    /// Which kind.
    pub kind: CaKind,
    /// What else its name hangs on: the same again finds the key of one that was interrupted.
    pub occasion: &'a str,
    /// When, in seconds since 1970.
    pub now: i64,
}

impl CaKeys {
    /// Makes every CA key of a new authority in a place, and the TLS CA's certificate in `certificate`, where there is none.
    ///
    /// # Errors
    /// `Kind::Usage` where there are keys already, or they cannot be written; [`is_away`] where the place cannot be reached.
    pub fn create(
        place: &KeyPlace,
        certificate: &Path,
        cluster: &str,
        (suite, passphrase): (Suite, Option<Secret>),
        now: i64,
    ) -> Result<NewKeys> {
        place.prepare()?;
        let store = place.open(Owner::me(), passphrase)?;
        let mut made = NewKeys(Vec::new());
        let mut make = |kind: CaKind, name: &str| {
            let key = store.create(name, algorithm(suite, kind)).map_err(|error| made.left_by(error))?;
            // Files go with the folder that they are made in.
            made.0.extend((!store.is_local()).then(|| store.place(name)));
            Ok::<_, Error>(key)
        };
        for kind in [CaKind::SshUser, CaKind::SshHost, CaKind::Statement, CaKind::Federation] {
            make(kind, kind.name())?;
        }
        make(CaKind::Federation, federation::AHEAD)?;
        let key = make(CaKind::Tls, CaKind::Tls.name())?;
        tls::create(key.as_ref(), certificate, cluster, now).map_err(|error| made.left_by(error))?;
        Ok(made)
    }

    /// With new keys of those kinds that came later, where these are from before there were any; and their names.
    ///
    /// # Errors
    /// Where none can be made.
    pub fn with_later_keys(&self, suite: Suite) -> Result<(Self, Vec<&'static str>)> {
        let (mut keys, mut made) = (self.clone(), Vec::new());
        let mut make = |kind: CaKind, name: &'static str| {
            made.push(name);
            // Another of this folder may have made it meanwhile.
            let key = match self.store.open(name)? {
                Some(key) => key,
                None => self.store.create(name, algorithm(suite, kind))?,
            };
            StatementKey::new(key)
        };
        if keys.statement.is_none() {
            keys.statement = Some(Family::of_one(make(CaKind::Statement, CaKind::Statement.name())?));
        }
        if keys.federation.is_none() {
            let current = make(CaKind::Federation, CaKind::Federation.name())?;
            keys.federation = Some(Family::with_ahead(current, make(CaKind::Federation, federation::AHEAD)?));
        }
        Ok((keys, made))
    }

    /// The CAs that these are of.
    pub fn set(&self) -> &Arc<CaSet> {
        &self.set
    }

    /// Another where anything of what they say or can sign is another: the number of the CAs, and how many keys are lacking.
    pub fn state(&self) -> (i64, usize) {
        (self.set.number, self.lacks.len())
    }

    /// The private keys that they ought to have, and have not.
    pub fn lacks(&self) -> &[Lack] {
        &self.lacks
    }

    /// The keys that are of an algorithm which the suite is to do without, by name.
    pub fn unlike(&self, suite: Suite) -> Vec<&'static str> {
        let is_unlike = |kind: &CaKind| {
            suite == Suite::Compatible
                && self.private(*kind).is_ok_and(|key| key.algorithm() == Algorithm::Ed25519)
        };
        CaKind::ALL.into_iter().filter(is_unlike).map(CaKind::name).collect()
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
        if self.store.is_local() && self.lacks.is_empty() {
            return Ok(());
        }
        self.work(|keys| {
            let is_there = |kind: &CaKind| match kind {
                CaKind::Statement => keys.statement.is_some(),
                CaKind::Federation => keys.federation.is_some(),
                _ => true,
            };
            CaKind::ALL.into_iter().filter(is_there).try_for_each(|kind| {
                keys.private(kind)?.sign(PROBE)?;
                Ok(())
            })
        })
        .await
    }

    /// What others need to trust these CAs.
    pub fn trust(&self) -> TrustAnchors {
        let lines = |all: &Family<SshCa>| all.trusted().map(|ca| ca.line.clone()).collect();
        TrustAnchors {
            ssh_host_cas: lines(&self.ssh_host),
            ssh_user_cas: lines(&self.ssh_user),
            tls_cas: self.tls.trusted().map(|ca| ca.certificate.pem.clone()).collect(),
        }
    }

    /// Who says that CAs are to be believed that came after others.
    pub fn endorsements(&self) -> Vec<Endorsement> {
        let trusted = self.set.keys.iter().filter(|key| key.state.is_trusted());
        trusted.flat_map(|key| key.endorsements.iter().cloned()).collect()
    }

    /// CAs that are believed no more, whatever they have signed: SSH ones on one line, TLS ones in PEM.
    pub fn revoked_cas(&self) -> Vec<String> {
        let ssh = self.ssh_user.revoked().chain(self.ssh_host.revoked()).map(|ca| ca.line.clone());
        ssh.chain(self.tls.revoked().map(|ca| ca.certificate.pem.clone())).collect()
    }

    /// The public key that statements are verified by, in base64url: raw of Ed25519, or a point; none where there is none yet.
    pub fn statement_key(&self) -> Option<String> {
        Some(self.statement.as_ref()?.current().ca.public.clone())
    }

    /// All that are believed.
    pub fn statement_keys(&self) -> Vec<String> {
        self.statement.iter().flat_map(Family::trusted).map(|key| key.public.clone()).collect()
    }

    /// Signs a statement, and nothing else; as a JWS.
    pub(in crate::authority) fn sign_statement(&self, statement: &Statement) -> Result<String> {
        let of = self.statement.as_ref().ok_or_else(|| Error::internal("there is no statement key"))?;
        let key = of.current().ca.key.as_ref().ok_or_else(lacking)?;
        let header = Header { typ: Some(STATEMENT.to_owned()), ..Header::default() };
        let algorithm = key.algorithm();
        let named = match algorithm {
            Algorithm::Ed25519 => jsonwebtoken::Algorithm::EdDSA,
            Algorithm::EcdsaP256 => jsonwebtoken::Algorithm::ES256,
            Algorithm::EcdsaP384 => jsonwebtoken::Algorithm::ES384,
            Algorithm::Rsa3072 => return Err(Error::internal("a statement key of RSA")),
        };
        let signed = jws::sign_by(named, header, statement, |message| {
            private::jws_signature(algorithm, key.sign(message)?)
        })?;
        Ok(signed.expose().to_owned())
    }

    fn tls_ca(&self) -> &TlsCa {
        &self.tls.current().ca
    }

    /// The certificate of the TLS CA that signs, in DER.
    pub fn tls_certificate(&self) -> &[u8] {
        &self.tls_ca().certificate.der
    }

    /// The pins of the TLS CAs, as `--ca-pin` takes them.
    pub fn tls_pins(&self) -> Result<String> {
        let pins: Result<Vec<_>> = self.tls.trusted().map(|ca| pin_of(&ca.certificate.der)).collect();
        Ok(pins?.join(","))
    }

    /// When each certificate ends that a TLS CA is verified by.
    pub fn tls_endings(&self) -> Vec<Ending> {
        let trusted = self.tls.all().filter(|one| one.state.is_trusted());
        trusted.flat_map(|one| one.ca.endings(one.state)).collect()
    }

    /// What another CA is asked to certify the TLS CA by: a certificate request in PEM.
    pub fn tls_request(&self) -> Result<String> {
        self.tls_ca().request()
    }

    /// While two TLS CAs are trusted, the SHA-256 of the newer one's SubjectPublicKeyInfo, in hexadecimal.
    pub fn newer_tls_ca(&self) -> Option<String> {
        let newer = self.tls.trusted().skip(1).last()?;
        Some(hex(&newer.certificate.key_hash().ok()?))
    }

    /// What stands behind a server's certificate, in PEM: the CA's own, and while one before it is trusted, its certificate by
    /// that, and that one's, for those that know no other.
    pub fn tls_chain(&self) -> String {
        let of = self.tls_ca();
        let mut former = self.tls.all().filter(|one| one.state == CaState::Former);
        match (of.cross.as_slice(), former.next()) {
            ([], _) | (_, None) => of.chain().to_owned(),
            (cross, Some(former)) => {
                let root = of.root.as_ref().map(|root| root.sent.as_str()).unwrap_or_default();
                // OpenSSL follows the first that fits: whoever has that root has no other.
                root.to_owned() + &cross.concat() + &former.ca.certificate.pem
            }
        }
    }

    /// When the certificate of the TLS CA that signs is good. The SSH CAs have no end.
    pub fn tls_validity(&self) -> Validity {
        self.tls_ca().validity()
    }

    /// The TLS CA that signs now: when it is good, and its number.
    pub fn tls_signer(&self) -> (Validity, Option<i64>) {
        (self.tls_validity(), self.signing().tls)
    }

    /// Which CAs sign now.
    pub fn signing(&self) -> Signing {
        let ssh = |all: &Family<SshCa>| all.current().number;
        Signing {
            ssh_user: ssh(&self.ssh_user),
            ssh_host: ssh(&self.ssh_host),
            tls: self.tls.current().number,
        }
    }

    /// Whether the CA of that kind and number can sign again what it has signed; of tokens, whichever key signs them now.
    pub fn signs_again(&self, kind: CaKind, number: Option<i64>) -> bool {
        let key = match kind {
            CaKind::SshUser => trusted(self.ssh_user.named(number)).map(|ca| ca.key.is_some()),
            CaKind::SshHost => trusted(self.ssh_host.named(number)).map(|ca| ca.key.is_some()),
            CaKind::Tls => trusted(self.tls.named(number)).map(|ca| ca.key.is_some()),
            CaKind::Federation => {
                Ok(self.federation.as_ref().is_some_and(|all| all.current().ca.key.is_some()))
            }
            CaKind::Statement => Ok(false),
        };
        key.unwrap_or(false)
    }

    /// The SSH CAs, as a revocation list has them: those that were, too.
    pub fn ssh_cas(&self) -> Result<Vec<ListedCa>> {
        let listed = |one: &Member<SshCa>, is_host| {
            let Member { number, is_first, state, ca } = one;
            let (key, is_revoked) = (ca.blob()?, *state == CaState::Revoked);
            let (number, is_first) = (*number, *is_first);
            Ok(ListedCa { key, number, is_first, is_host, is_revoked, has_list: false })
        };
        let users = self.ssh_user.all().map(|one| listed(one, false));
        users.chain(self.ssh_host.all().map(|one| listed(one, true))).collect()
    }

    /// The TLS CAs, the one first that signs certificates.
    pub fn tls_cas(&self) -> Result<Vec<ListedCa>> {
        let current = std::iter::once(self.tls.current());
        let others = self.tls.all().filter(|one| one.state != CaState::Current);
        let listed = |one: &Member<TlsCa>| {
            let key = one.ca.certificate.key_hash()?;
            let Member { number, is_first, .. } = *one;
            let has_list = one.state.is_trusted() && one.ca.key.is_some();
            Ok(ListedCa { key, number, is_first, is_host: false, is_revoked: false, has_list })
        };
        current.chain(others).map(listed).collect()
    }

    /// A hash of all CAs of certificates, and of what each is good for.
    pub fn hash(&self) -> Result<[u8; 32]> {
        let mut hash = Context::new(&SHA256);
        let mut part = |bytes: &[u8], state: CaState| {
            hash.update(digest(&SHA256, bytes).as_ref());
            // As it was before there were others: stores go on with the lists that they have.
            if state != CaState::Current {
                hash.update(state.name().as_bytes());
            }
        };
        for one in self.ssh_user.all().chain(self.ssh_host.all()) {
            part(&one.ca.blob()?, one.state);
        }
        self.tls.all().for_each(|one| part(&one.ca.certificate.der, one.state));
        hash.finish().as_ref().try_into().context(Kind::Internal, "SHA-256")
    }

    /// Signs an OpenSSH certificate of what is recorded, with the CA of its
    /// kind and that number; on one line.
    pub(in crate::authority) fn sign_ssh<P>(
        &self,
        _: &Recorded<P>,
        (kind, ca): (CertType, Option<i64>),
        certificate: Builder,
    ) -> Result<String> {
        let family = match kind {
            CertType::User => &self.ssh_user,
            CertType::Host => &self.ssh_host,
        };
        trusted(family.named(ca))?.sign(certificate)
    }

    /// Signs an X.509 certificate of what is recorded, made of `params` for the
    /// key, with the CA of that number; `subject`, a DER `Name`, takes the place of one that `params`
    /// cannot say. In PEM, with nothing behind it, since clients hold the root.
    ///
    /// # Errors
    /// Where it would outlive the CA: whoever plans a certificate asks [`CaKeys::tls_validity`].
    pub(in crate::authority) fn sign_tls<P>(
        &self,
        _: &Recorded<P>,
        ca: Option<i64>,
        (params, spki): (&CertificateParams, &[u8]),
        subject: Option<&[u8]>,
    ) -> Result<String> {
        trusted(self.tls.named(ca))?.sign(params, spki, subject)
    }

    /// Signs a revocation list with the TLS CA of that number, and nothing else, with these serials on it, each with when it
    /// was revoked; in DER.
    pub(in crate::authority) fn sign_crl(
        &self,
        ca: Option<i64>,
        list: &CertificateRevocationListParams,
        revoked: impl ExactSizeIterator<Item = (u64, i64)>,
    ) -> Result<Vec<u8>> {
        trusted(self.tls.named(ca))?.sign_crl(list, revoked)
    }
}

/// What a suite makes such a key of.
fn algorithm(suite: Suite, kind: CaKind) -> Algorithm {
    match suite {
        // Clouds take ES256, and not EdDSA.
        _ if matches!(kind, CaKind::Tls | CaKind::Federation) => Algorithm::EcdsaP256,
        Suite::Modern => Algorithm::Ed25519,
        Suite::Compatible => Algorithm::EcdsaP256,
    }
}

/// The CA, where its word still counts.
fn trusted<T>(member: Option<&Member<T>>) -> Result<&T> {
    let trusted = member.filter(|one| one.state.is_trusted()).map(|one| &one.ca);
    trusted.ok_or_else(|| Error::internal("a signature by a CA that signs no more"))
}
