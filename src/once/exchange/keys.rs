//! The job's own keys: made here, never sent, wiped from memory when they go.

use std::fmt;

use rcgen::{CertificateParams, PublicKeyData, SigningKey};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use ssh_key::certificate::CertType;
use ssh_key::private::{Ed25519Keypair, KeypairData};
use ssh_key::{LineEnding, PrivateKey, PublicKey};
use zeroize::Zeroizing;

use crate::error::{Context as _, Error, Kind, Result};
use crate::output::KeyKinds;
use crate::wire::BoundKeys;
use crate::{pem, random};

/// The keys of one output.
#[derive(Debug)]
pub struct JobKeys {
    /// The output's name.
    pub output: String,
    /// Ed25519, a user's or a host's.
    pub ssh: Option<SshKey>,
    /// Of which of the two.
    pub ssh_type: CertType,
    /// P-256, for TLS.
    pub tls: Option<TlsKey>,
}

impl JobKeys {
    /// New keys, as the output's type wants them; `given` is the public key
    /// of a host that has one.
    pub fn generate(output: &str, wanted: KeyKinds, given: Option<&str>) -> Result<Self> {
        let ssh = || given.map_or_else(SshKey::generate, SshKey::given);
        Ok(Self {
            output: output.to_owned(),
            ssh: (wanted.ssh || wanted.host).then(ssh).transpose()?,
            ssh_type: if wanted.host { CertType::Host } else { CertType::User },
            tls: wanted.tls.then(TlsKey::generate).transpose()?,
        })
    }

    /// What a proof is bound to.
    pub fn bound(&self) -> BoundKeys<'_> {
        BoundKeys {
            name: &self.output,
            ssh_blob: self.ssh.as_ref().map(|key| key.blob.as_slice()),
            tls_spki: self.tls.as_ref().map(|key| key.spki.as_slice()),
        }
    }
}

/// An SSH key.
pub struct SshKey {
    /// The private key; none where somebody else has it.
    pub private: Option<PrivateKey>,
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
        let pair = KeypairData::Ed25519(Ed25519Keypair::from_seed(&seed));
        let key = PrivateKey::new(pair, "machine-id").context(Kind::Internal, failed)?;
        let public = Self::of_public(key.public_key()).context(Kind::Internal, failed)?;
        Ok(Self { private: Some(key), ..public })
    }

    fn given(line: &str) -> Result<Self> {
        let key = PublicKey::from_openssh(line).context(Kind::Usage, "the host's public key")?;
        // Without the comment, which says where it comes from.
        Self::of_public(&PublicKey::from(key.key_data().clone()))
            .context(Kind::Internal, "cannot encode the host's public key")
    }

    fn of_public(key: &PublicKey) -> Result<Self, ssh_key::Error> {
        Ok(Self { private: None, public_line: key.to_openssh()?, blob: key.to_bytes()? })
    }

    /// The private key in OpenSSH's format, which every version reads (RFC 8410's only since 9.6).
    pub fn openssh(&self) -> Result<Option<Zeroizing<String>>> {
        let private = self.private.as_ref().map(|key| key.to_openssh(LineEnding::LF));
        private.transpose().context(Kind::Internal, "cannot write an SSH key")
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
        let keys = JobKeys::generate("x", KeyKinds { ssh: true, tls: true, host: true }, None).unwrap();
        let (ssh, tls) = (keys.ssh.as_ref().unwrap(), keys.tls.as_ref().unwrap());
        let read = PrivateKey::from_openssh(&*ssh.openssh().unwrap().unwrap()).unwrap();
        assert_eq!(read.public_key().to_bytes().unwrap(), ssh.blob);
        let csr = CertificateSigningRequestParams::from_pem(&tls.csr).unwrap();
        assert_eq!(csr.public_key.subject_public_key_info(), tls.spki);
        let read = rcgen::KeyPair::from_pem(&tls.pem()).unwrap();
        assert_eq!(read.subject_public_key_info(), tls.spki);
        let debug = format!("{keys:?} {keys:#?}");
        assert!(!debug.contains("PRIVATE") && !debug.contains("seed") && !debug.contains("pkcs8"), "{debug}");
    }
}
