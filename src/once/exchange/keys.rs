//! The job's own keys: made here, never sent, wiped from memory when they go.

use std::fmt;

use der::asn1::OctetStringRef;
use der::{AnyRef, Decode as _, Reader as _, SliceReader};
use pkcs8::PrivateKeyInfo;
use rcgen::{CertificateParams, PublicKeyData, SigningKey};
use ring::rand::SystemRandom;
use ring::signature::{self as algorithms, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair as _};
use ssh_key::certificate::CertType;
use ssh_key::private::{EcdsaKeypair, Ed25519Keypair, KeypairData};
use ssh_key::{LineEnding, PrivateKey, PublicKey};
use zeroize::Zeroizing;

use crate::error::{Context as _, Error, Kind, Result};
use crate::output::{KeyKinds, USUAL_JWT_TTL};
use crate::rfc4251::put_string;
use crate::suite::KeyType;
use crate::wire::BoundKeys;
use crate::{pem, random};

/// A curve of ECDSA: as ring has it, as X.509 has it, and its name in SSH (RFC 5656, section 10.1).
struct Curve(&'static EcdsaSigningAlgorithm, &'static rcgen::SignatureAlgorithm, &'static str);

const P256: Curve =
    Curve(&algorithms::ECDSA_P256_SHA256_ASN1_SIGNING, &rcgen::PKCS_ECDSA_P256_SHA256, "nistp256");
const P384: Curve =
    Curve(&algorithms::ECDSA_P384_SHA384_ASN1_SIGNING, &rcgen::PKCS_ECDSA_P384_SHA384, "nistp384");

/// The keys of one output.
#[derive(Debug)]
pub struct JobKeys {
    /// The output's name.
    pub output: String,
    /// A user's or a host's.
    pub ssh: Option<SshKey>,
    /// Of which of the two.
    pub ssh_type: CertType,
    /// For TLS.
    pub tls: Option<TlsKey>,
    /// The audience of a token that is asked for in place of a certificate, and its life in seconds where somebody says.
    pub jwt: Option<(String, Option<u64>)>,
}

impl JobKeys {
    /// New keys, as the output's type wants them; `given` is the public key
    /// of a host that has one.
    pub fn generate(output: &str, wanted: KeyKinds, key_type: KeyType, given: Option<&str>) -> Result<Self> {
        let ssh = || given.map_or_else(|| SshKey::generate(key_type), SshKey::given);
        Ok(Self {
            output: output.to_owned(),
            ssh: (wanted.ssh || wanted.host).then(ssh).transpose()?,
            ssh_type: if wanted.host { CertType::Host } else { CertType::User },
            tls: wanted.tls.then(|| TlsKey::generate(key_type)).transpose()?,
            jwt: None,
        })
    }

    /// Whether there is an SSH key that was made here.
    pub fn has_own_ssh(&self) -> bool {
        self.ssh.as_ref().is_some_and(|key| key.private.is_some())
    }

    /// How long a token that is asked for lives at most, in seconds.
    pub fn jwt_seconds(&self) -> Option<i64> {
        let (_, ttl) = self.jwt.as_ref()?;
        i64::try_from(ttl.unwrap_or(USUAL_JWT_TTL)).ok()
    }

    /// What a proof is bound to.
    pub fn bound(&self) -> BoundKeys<'_> {
        BoundKeys {
            name: &self.output,
            ssh_blob: self.ssh.as_ref().map(|key| key.blob.as_slice()),
            tls_spki: self.tls.as_ref().map(|key| key.spki.as_slice()),
            jwt: self.jwt.as_ref().map(|(audience, ttl)| (audience.as_str(), *ttl)),
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
    fn generate(key_type: KeyType) -> Result<Self> {
        let failed = "cannot make an SSH key";
        let pair = match key_type {
            KeyType::Ed25519 => {
                let mut seed = Zeroizing::new([0; 32]);
                random::fill(seed.as_mut()).map_err(|error| error.context(failed))?;
                KeypairData::Ed25519(Ed25519Keypair::from_seed(&seed))
            }
            KeyType::EcdsaP256 => KeypairData::Ecdsa(P256.ssh_pair()?),
            KeyType::EcdsaP384 => KeypairData::Ecdsa(P384.ssh_pair()?),
        };
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
    fn generate(key_type: KeyType) -> Result<Self> {
        let failed = "cannot make a TLS key";
        let curve = if key_type == KeyType::EcdsaP384 { P384 } else { P256 };
        let (pkcs8, pair) = curve.generate().map_err(|error| error.context(failed))?;
        let signer = CsrSigner { pair, algorithm: curve.1, random: SystemRandom::new() };
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

impl Curve {
    /// A new key, and the same as PKCS#8 in DER.
    fn generate(&self) -> Result<(Zeroizing<Vec<u8>>, EcdsaKeyPair)> {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(self.0, &random)
            .map_err(|_| Error::internal("the system gives no random numbers"))?;
        let pkcs8 = Zeroizing::new(document.as_ref().to_vec());
        let pair = EcdsaKeyPair::from_pkcs8(self.0, &pkcs8, &random)
            .map_err(|error| Error::internal(error.to_string()))?;
        Ok((pkcs8, pair))
    }

    /// A new key as SSH has it.
    fn ssh_pair(&self) -> Result<EcdsaKeypair> {
        let failed = "cannot make an SSH key";
        let (pkcs8, pair) = self.generate().map_err(|error| error.context(failed))?;
        let scalar = scalar(&pkcs8).context(Kind::Internal, failed)?;
        let mut encoded = Zeroizing::new(Vec::new());
        for part in [self.2.as_bytes(), pair.public_key().as_ref(), &scalar] {
            put_string(&mut encoded, part);
        }
        ssh_encoding::Decode::decode(&mut encoded.as_slice()).context(Kind::Internal, failed)
    }
}

/// The private number of an ECDSA key in PKCS#8 (RFC 5915, section 3).
fn scalar(pkcs8: &[u8]) -> der::Result<Zeroizing<Vec<u8>>> {
    let key = PrivateKeyInfo::from_der(pkcs8)?.private_key;
    SliceReader::new(key)?.sequence(|parts| {
        let _version = u8::decode(parts)?;
        let scalar = OctetStringRef::decode(parts)?.as_bytes().to_vec();
        while !parts.is_finished() {
            AnyRef::decode(parts)?;
        }
        Ok(Zeroizing::new(scalar))
    })
}

/// rcgen's own key type keeps a copy of the private key that is not wiped; this one keeps none.
struct CsrSigner {
    pair: EcdsaKeyPair,
    algorithm: &'static rcgen::SignatureAlgorithm,
    random: SystemRandom,
}

impl PublicKeyData for CsrSigner {
    fn der_bytes(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.algorithm
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
        let wanted = KeyKinds { ssh: true, tls: true, host: true };
        for ((_, key_type), begins) in KeyType::ALL.into_iter().zip([
            ("ssh-ed25519 ", &rcgen::PKCS_ECDSA_P256_SHA256),
            ("ecdsa-sha2-nistp256 ", &rcgen::PKCS_ECDSA_P256_SHA256),
            ("ecdsa-sha2-nistp384 ", &rcgen::PKCS_ECDSA_P384_SHA384),
        ]) {
            let keys = JobKeys::generate("x", wanted, key_type, None).unwrap();
            let (ssh, tls) = (keys.ssh.as_ref().unwrap(), keys.tls.as_ref().unwrap());
            assert!(ssh.public_line.starts_with(begins.0), "{}", ssh.public_line);
            let read = PrivateKey::from_openssh(&*ssh.openssh().unwrap().unwrap()).unwrap();
            assert_eq!(read.public_key().to_bytes().unwrap(), ssh.blob);
            let csr = CertificateSigningRequestParams::from_pem(&tls.csr).unwrap();
            assert_eq!(csr.public_key.subject_public_key_info(), tls.spki);
            let read = rcgen::KeyPair::from_pem(&tls.pem()).unwrap();
            assert_eq!((read.subject_public_key_info(), read.algorithm()), (tls.spki.clone(), begins.1));
            let debug = format!("{keys:?} {keys:#?}");
            let is_open = ["PRIVATE", "seed", "pkcs8"].into_iter().any(|word| debug.contains(word));
            assert!(!is_open, "{debug}");
        }
    }
}
