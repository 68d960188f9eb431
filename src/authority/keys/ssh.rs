//! A CA of SSH certificates.

use std::sync::Arc;

use ssh_key::certificate::Builder;
use ssh_key::public::KeyData;
use ssh_key::{HashAlg, PublicKey};

use super::private::{PrivateKey, Public, lacking};
use super::signer::Signer;
use crate::error::{Context as _, Error, Kind, Result};

/// A CA of SSH certificates.
#[derive(Clone, Debug)]
pub(super) struct SshCa {
    /// Its key, where that can be reached.
    pub(super) key: Option<Arc<dyn PrivateKey>>,
    data: KeyData,
    /// The public key on one line.
    pub(super) line: String,
}

impl SshCa {
    /// Of a key.
    pub(super) fn new(key: Arc<dyn PrivateKey>, comment: &str) -> Result<Self> {
        let data = Public::of(key.as_ref())?.ssh()?;
        let line = PublicKey::new(data.clone(), comment).to_openssh().context(Kind::Internal, "SSH CA")?;
        Ok(Self { key: Some(key), data, line })
    }

    /// As it is written down; with its key, if that is it.
    pub(super) fn known(line: &str, key: Option<Arc<dyn PrivateKey>>) -> Result<Self> {
        let public =
            PublicKey::from_openssh(line).context(Kind::Internal, "an SSH CA that is written down")?;
        let data = public.key_data().clone();
        let is_it = |key: &Arc<dyn PrivateKey>| Ok::<_, Error>(Public::of(key.as_ref())?.ssh()? == data);
        if !key.as_ref().map_or(Ok(true), is_it)? {
            return Err(Error::usage("it is another than the store has written down"));
        }
        Ok(Self { key, data, line: line.trim_end().to_owned() })
    }

    /// Its public key (RFC 4253, section 6.6).
    pub(super) fn blob(&self) -> Result<Vec<u8>> {
        PublicKey::from(self.data.clone()).to_bytes().context(Kind::Internal, "SSH CA")
    }

    /// As `ssh-keygen -l` names it.
    pub(super) fn id(&self) -> String {
        self.data.fingerprint(HashAlg::Sha256).to_string()
    }

    /// Signs; on one line.
    pub(super) fn sign(&self, certificate: Builder) -> Result<String> {
        let key = self.key.as_ref().ok_or_else(lacking)?;
        let signer = Signer::new(key.as_ref(), &self.data);
        let signed = certificate.sign(&signer).and_then(|certificate| certificate.to_openssh());
        signed
            .context(Kind::Internal, "cannot sign an SSH certificate")
            .map_err(|error| signer.failure(error))
    }
}
