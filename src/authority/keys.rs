//! The CA keys: the only place that sees them.
//!
//! Three of them: for SSH users, for SSH hosts (Ed25519) and for TLS (ECDSA
//! P-256). Certificates are signed for [`Recorded`] plans alone, lists as
//! lists; the CA's own certificate is signed in [`file`], where it is made.

use std::fmt;

use rcgen::{
    CertificateParams, CertificateRevocationListParams, Issuer, KeyPair as TlsKey, SubjectPublicKeyInfo,
};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use ssh_key::certificate::{Builder, CertType};
use ssh_key::public::{Ed25519PublicKey, KeyData};
use ssh_key::{Algorithm, Signature};

use super::store::record::Recorded;
use crate::error::{Context as _, Error, Kind, Result};
use crate::wire::TrustAnchors;

pub mod file;
mod subject;

/// Every CA of an authority.
#[derive(Debug)]
pub struct CaKeys {
    ssh_user: SshCa,
    ssh_host: SshCa,
    tls: TlsCa,
}

impl CaKeys {
    /// What others need to trust these CAs.
    #[must_use]
    pub fn trust(&self) -> TrustAnchors {
        TrustAnchors {
            ssh_host_cas: vec![self.ssh_host.openssh()],
            ssh_user_cas: vec![self.ssh_user.openssh()],
            tls_cas: vec![self.tls.pem.clone()],
        }
    }

    /// The TLS CA's certificate in DER.
    #[must_use]
    pub fn tls_certificate(&self) -> &[u8] {
        &self.tls.der
    }

    /// The public key blobs of the SSH CAs (RFC 4253, section 6.6), as a revocation list names them.
    ///
    /// # Errors
    /// Never for Ed25519 keys.
    pub fn ssh_blobs(&self) -> Result<Vec<Vec<u8>>> {
        let blob = |ca: &SshCa| ssh_key::PublicKey::from(ca.key_data()).to_bytes();
        [&self.ssh_user, &self.ssh_host]
            .map(blob)
            .into_iter()
            .collect::<Result<_, _>>()
            .context(Kind::Internal, "SSH CA")
    }

    /// Signs an OpenSSH certificate of what is recorded, with the CA of its
    /// kind; on one line.
    pub(in crate::authority) fn sign_ssh<P>(
        &self,
        _: &Recorded<P>,
        kind: CertType,
        certificate: Builder,
    ) -> Result<String> {
        let ca = match kind {
            CertType::User => &self.ssh_user,
            CertType::Host => &self.ssh_host,
        };
        certificate
            .sign(ca)
            .and_then(|certificate| certificate.to_openssh())
            .context(Kind::Internal, "cannot sign an SSH certificate")
    }

    /// Signs an X.509 certificate of what is recorded, made of `params` for the
    /// key; `subject`, a DER `Name`, takes the place of one that `params`
    /// cannot say. In DER, with nothing behind it, since clients hold the root.
    pub(in crate::authority) fn sign_tls<P>(
        &self,
        _: &Recorded<P>,
        params: &CertificateParams,
        spki: &[u8],
        subject: Option<&[u8]>,
    ) -> Result<Vec<u8>> {
        let key = SubjectPublicKeyInfo::from_der(spki).context(Kind::Internal, "a planned TLS key")?;
        let certificate = params
            .signed_by(&key, &self.tls.issuer)
            .context(Kind::Internal, "cannot sign an X.509 certificate")?;
        match subject {
            Some(subject) => subject::exchange(certificate.der(), subject, self.tls.issuer.key()),
            None => Ok(certificate.der().to_vec()),
        }
    }

    /// Signs a revocation list, and nothing else; in DER.
    pub(in crate::authority) fn sign_crl(&self, list: &CertificateRevocationListParams) -> Result<Vec<u8>> {
        let crl =
            list.signed_by(&self.tls.issuer).context(Kind::Internal, "cannot sign the revocation list")?;
        Ok(crl.der().to_vec())
    }
}

/// A CA of SSH certificates.
struct SshCa {
    pair: Ed25519KeyPair,
    comment: String,
}

impl SshCa {
    /// From an Ed25519 seed and the public key that belongs to it.
    fn new(seed: &[u8], public: &[u8], comment: &str) -> Result<Self> {
        let pair = Ed25519KeyPair::from_seed_and_public_key(seed, public)
            .map_err(|_| Error::usage("private and public key do not belong together"))?;
        Ok(Self { pair, comment: comment.to_owned() })
    }

    fn key_data(&self) -> KeyData {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.pair.public_key().as_ref());
        KeyData::Ed25519(Ed25519PublicKey(bytes))
    }

    /// The public key on one line.
    fn openssh(&self) -> String {
        // An Ed25519 key always encodes.
        ssh_key::PublicKey::new(self.key_data(), self.comment.clone()).to_openssh().unwrap_or_default()
    }
}

/// Lets `ssh-key` build certificates while ring signs: a third of the time of its own Ed25519.
impl ssh_key::SigningKey for SshCa {
    fn public_key(&self) -> KeyData {
        self.key_data()
    }
}

impl signature::Signer<Signature> for SshCa {
    fn try_sign(&self, message: &[u8]) -> Result<Signature, signature::Error> {
        Signature::new(Algorithm::Ed25519, self.pair.sign(message).as_ref())
            .map_err(|_| signature::Error::new())
    }
}

impl fmt::Debug for SshCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.openssh())
    }
}

/// The CA of X.509 certificates.
struct TlsCa {
    issuer: Issuer<'static, TlsKey>,
    der: Vec<u8>,
    pem: String,
}

impl fmt::Debug for TlsCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TLS CA")
    }
}
