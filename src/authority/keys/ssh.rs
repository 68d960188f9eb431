//! A CA of SSH certificates.

use std::sync::Arc;

use ssh_key::PublicKey;
use ssh_key::certificate::Builder;
use ssh_key::public::KeyData;

use super::private::{PrivateKey, Public};
use super::signer::Signer;
use crate::error::{Context as _, Kind, Result};

/// A CA of SSH certificates.
#[derive(Clone, Debug)]
pub(super) struct SshCa {
    pub(super) key: Arc<dyn PrivateKey>,
    public: Public,
    pub(super) data: KeyData,
    /// The public key on one line.
    pub(super) line: String,
}

impl SshCa {
    pub(super) fn new(key: Arc<dyn PrivateKey>, comment: &str) -> Result<Self> {
        let public = Public::of(key.as_ref())?;
        let data = public.ssh()?;
        let line = PublicKey::new(data.clone(), comment).to_openssh().context(Kind::Internal, "SSH CA")?;
        Ok(Self { key, public, data, line })
    }

    /// Its public key (RFC 4253, section 6.6).
    pub(super) fn blob(&self) -> Result<Vec<u8>> {
        PublicKey::from(self.data.clone()).to_bytes().context(Kind::Internal, "SSH CA")
    }

    /// Signs; on one line.
    pub(super) fn sign(&self, certificate: Builder) -> Result<String> {
        let signer = Signer::ssh(self.key.as_ref(), &self.public, self.data.clone());
        let signed = certificate.sign(&signer).and_then(|certificate| certificate.to_openssh());
        signed
            .context(Kind::Internal, "cannot sign an SSH certificate")
            .map_err(|error| signer.failure(error))
    }
}
