//! The job's own keys: made here, never sent, wiped from memory when they go.

use std::fmt;

use rcgen::{CertificateParams, PublicKeyData, SigningKey};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use ssh_key::private::{Ed25519Keypair, Ed25519PrivateKey, KeypairData};
use ssh_key::public::Ed25519PublicKey;
use ssh_key::{LineEnding, PrivateKey};
use zeroize::Zeroizing;

use crate::error::{Context as _, Error, Kind, Result};
use crate::output::KeyKinds;
use crate::wire::BoundKeys;
use crate::{pem, random};

/// The keys of one output.
#[derive(Debug)]
pub struct OutputKeys {
    /// Ed25519, for SSH.
    pub ssh: Option<SshKey>,
    /// P-256, for TLS.
    pub tls: Option<TlsKey>,
    /// Of an SSH host.
    pub host: Option<HostKey>,
}

/// The key of an SSH host: made here, or given by its public half alone.
#[derive(Debug)]
pub enum HostKey {
    /// Made here.
    New(SshKey),
    /// Somebody else's.
    Given {
        /// The public key's line.
        public_line: String,
        /// The public key as it goes over the wire.
        blob: Vec<u8>,
    },
}

impl HostKey {
    fn given(line: &str) -> Result<Self> {
        let key = ssh_key::PublicKey::from_openssh(line).context(Kind::Usage, "the host's public key")?;
        let failed = "cannot encode the host's public key";
        Ok(Self::Given {
            // Without the comment, which says where it comes from.
            public_line: ssh_key::PublicKey::from(key.key_data().clone())
                .to_openssh()
                .context(Kind::Internal, failed)?,
            blob: key.to_bytes().context(Kind::Internal, failed)?,
        })
    }

    /// The public key's line.
    #[must_use]
    pub fn public_line(&self) -> &str {
        match self {
            Self::New(SshKey { public_line, .. }) | Self::Given { public_line, .. } => public_line,
        }
    }

    /// The public key as it goes over the wire.
    #[must_use]
    pub fn blob(&self) -> &[u8] {
        match self {
            Self::New(SshKey { blob, .. }) | Self::Given { blob, .. } => blob,
        }
    }

    /// The private key, where it was made here.
    #[must_use]
    pub fn private(&self) -> Option<&SshKey> {
        match self {
            Self::New(key) => Some(key),
            Self::Given { .. } => None,
        }
    }
}

impl OutputKeys {
    /// New keys, as the output's type wants them; `given` is the public key
    /// of a host that has one.
    ///
    /// # Errors
    /// `Kind::Internal` where the system gives no random numbers.
    pub fn generate(wanted: KeyKinds, given: Option<&str>) -> Result<Self> {
        let host = || given.map_or_else(|| SshKey::generate().map(HostKey::New), HostKey::given);
        Ok(Self {
            ssh: wanted.ssh.then(SshKey::generate).transpose()?,
            tls: wanted.tls.then(TlsKey::generate).transpose()?,
            host: wanted.host.then(host).transpose()?,
        })
    }

    /// The SSH public key that is certified, a user's or a host's.
    #[must_use]
    pub fn ssh_line(&self) -> Option<&str> {
        let host = self.host.as_ref().map(HostKey::public_line);
        self.ssh.as_ref().map(|key| key.public_line.as_str()).or(host)
    }

    /// The SSH keys of which the private half is here.
    pub fn ssh_private(&self) -> Option<&SshKey> {
        self.ssh.as_ref().or_else(|| self.host.as_ref()?.private())
    }

    /// What a proof is bound to.
    #[must_use]
    pub fn bound<'a>(&'a self, name: &'a str) -> BoundKeys<'a> {
        BoundKeys {
            name,
            ssh_blob: self
                .ssh
                .as_ref()
                .map(|key| key.blob.as_slice())
                .or_else(|| self.host.as_ref().map(HostKey::blob)),
            tls_spki: self.tls.as_ref().map(|key| key.spki.as_slice()),
        }
    }
}

/// An SSH key.
pub struct SshKey {
    /// The Ed25519 seed.
    pub seed: Zeroizing<[u8; 32]>,
    /// The private key in OpenSSH's format, which every version reads (RFC 8410's only since 9.6).
    pub openssh: Zeroizing<String>,
    /// The public key's line.
    pub public_line: String,
    /// The public key as it goes over the wire (RFC 4253, section 6.6).
    pub blob: Vec<u8>,
}

impl SshKey {
    fn generate() -> Result<Self> {
        let failed = "cannot make an SSH key";
        let mut seed = Zeroizing::new([0; 32]);
        random::fill(seed.as_mut()).map_err(|error| error.context(failed))?;
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_ref()).context(Kind::Internal, failed)?;
        let public =
            Ed25519PublicKey::try_from(pair.public_key().as_ref()).context(Kind::Internal, failed)?;
        let pair = Ed25519Keypair { public, private: Ed25519PrivateKey::from_bytes(&seed) };
        let key =
            PrivateKey::new(KeypairData::Ed25519(pair), "machine-id").context(Kind::Internal, failed)?;
        Ok(Self {
            openssh: key.to_openssh(LineEnding::LF).context(Kind::Internal, failed)?,
            public_line: key.public_key().to_openssh().context(Kind::Internal, failed)?,
            blob: key.public_key().to_bytes().context(Kind::Internal, failed)?,
            seed,
        })
    }
}

impl fmt::Debug for SshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SshKey").field("public", &self.public_line).finish_non_exhaustive()
    }
}

/// A TLS key.
pub struct TlsKey {
    /// The private key (PKCS#8, DER).
    pub pkcs8: Zeroizing<Vec<u8>>,
    /// The SubjectPublicKeyInfo (DER).
    pub spki: Vec<u8>,
    /// The certificate signing request (PEM).
    pub csr: String,
}

impl TlsKey {
    fn generate() -> Result<Self> {
        let failed = "cannot make a TLS key";
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random)
            .map_err(|_| Error::internal("the system gives no random numbers").context(failed))?;
        let pkcs8 = Zeroizing::new(document.as_ref().to_vec());
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, &pkcs8, &random)
            .map_err(|error| Error::internal(error.to_string()).context(failed))?;
        let signer = CsrSigner { pair, random };
        // The authority takes only the public key from it.
        let csr = CertificateParams::default()
            .serialize_request(&signer)
            .and_then(|csr| csr.pem())
            .context(Kind::Internal, failed)?;
        Ok(Self { spki: signer.subject_public_key_info(), pkcs8, csr })
    }

    /// The private key in PEM.
    #[must_use]
    pub fn pem(&self) -> Zeroizing<String> {
        pem::encode("PRIVATE KEY", &self.pkcs8)
    }
}

impl fmt::Debug for TlsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsKey").finish_non_exhaustive()
    }
}

/// rcgen's own key type keeps a copy of the private key that is not wiped; this one keeps none.
struct CsrSigner {
    pair: EcdsaKeyPair,
    random: SystemRandom,
}

impl PublicKeyData for CsrSigner {
    fn der_bytes(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for CsrSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature = self.pair.sign(&self.random, message).map_err(|_| rcgen::Error::RingUnspecified)?;
        Ok(signature.as_ref().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::CertificateSigningRequestParams;

    #[test]
    fn keys_read_back_and_do_not_print() {
        let keys = OutputKeys::generate(KeyKinds { ssh: true, tls: true, host: true }, None).unwrap();
        let (ssh, tls) = (keys.ssh.as_ref().unwrap(), keys.tls.as_ref().unwrap());
        let read = PrivateKey::from_openssh(&*ssh.openssh).unwrap();
        assert_eq!(read.public_key().to_bytes().unwrap(), ssh.blob);
        let csr = CertificateSigningRequestParams::from_pem(&tls.csr).unwrap();
        assert_eq!(csr.public_key.subject_public_key_info(), tls.spki);
        let read = rcgen::KeyPair::from_pem(&tls.pem()).unwrap();
        assert_eq!(read.subject_public_key_info(), tls.spki);
        let debug = format!("{keys:?} {keys:#?}");
        assert!(!debug.contains("PRIVATE") && !debug.contains("seed") && !debug.contains("pkcs8"), "{debug}");
    }
}
