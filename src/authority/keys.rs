//! The CA keys: the only place that sees them.
//!
//! Three of them: for SSH users, for SSH hosts (Ed25519) and for TLS (ECDSA
//! P-256). What is signed comes from [`super::issue`] alone.

use std::fmt;

use rcgen::{CertificateParams, Issuer, KeyPair as TlsKey};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use ssh_key::public::{Ed25519PublicKey, KeyData};
use ssh_key::{Algorithm, Signature};

use crate::error::{Context as _, Error, Kind, Result};
use crate::wire::Trust;

pub mod file;
mod subject;

/// Every CA of an authority.
#[derive(Debug)]
pub struct CaKeys {
    pub(in crate::authority) ssh_user: SshCa,
    pub(in crate::authority) ssh_host: SshCa,
    pub(in crate::authority) tls: TlsCa,
}

impl CaKeys {
    /// What others need to trust these CAs.
    #[must_use]
    pub fn trust(&self) -> Trust {
        Trust {
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
}

/// A CA of SSH certificates.
pub struct SshCa {
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
    #[must_use]
    pub fn openssh(&self) -> String {
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

impl jsonwebtoken::signature::Signer<Signature> for SshCa {
    fn try_sign(&self, message: &[u8]) -> Result<Signature, jsonwebtoken::signature::Error> {
        Signature::new(Algorithm::Ed25519, self.pair.sign(message).as_ref())
            .map_err(|_| jsonwebtoken::signature::Error::new())
    }
}

impl fmt::Debug for SshCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.openssh())
    }
}

/// The CA of X.509 certificates.
pub struct TlsCa {
    issuer: Issuer<'static, TlsKey>,
    der: Vec<u8>,
    pem: String,
}

impl TlsCa {
    /// Signs a certificate made of `params` for `public_key`; leaf first, with
    /// nothing behind it, since clients hold the root.
    pub(in crate::authority) fn sign(
        &self,
        params: &CertificateParams,
        public_key: &impl rcgen::PublicKeyData,
    ) -> Result<rcgen::Certificate> {
        params.signed_by(public_key, &self.issuer).context(Kind::Internal, "cannot sign an X.509 certificate")
    }

    /// The same with another subject, a DER `Name`, where `params` cannot say it; in DER.
    pub(in crate::authority) fn sign_for(
        &self,
        params: &CertificateParams,
        public_key: &impl rcgen::PublicKeyData,
        subject: &[u8],
    ) -> Result<Vec<u8>> {
        subject::exchange(self.sign(params, public_key)?.der(), subject, self.issuer.key())
    }

    /// For [`super::revocation`].
    pub(in crate::authority) fn issuer(&self) -> &Issuer<'static, TlsKey> {
        &self.issuer
    }

    /// The CA's own certificate in DER.
    pub(in crate::authority) fn der(&self) -> &[u8] {
        &self.der
    }
}

impl fmt::Debug for TlsCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TLS CA")
    }
}
