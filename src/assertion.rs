//! Assertions: what the holder of a certificate says to the authority, as a JWS by its key with the certificate in the
//! header (`docs/protocol.md`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{Algorithm, Header};
use serde::Serialize;
use ssh_key::PrivateKey;
use ssh_key::private::{EcdsaKeypair, KeypairData};
use zeroize::Zeroizing;

use crate::error::Result;
use crate::jws;
use crate::pem;
use crate::secret::Secret;

/// How long an assertion holds, in seconds; the authority takes no more.
pub const LIFETIME: i64 = 60;

/// A private key and its certificate, as the header has it.
pub enum AssertionKey {
    /// Of TLS: PKCS#8, and the certificate's chain, both in DER.
    Tls {
        /// The key.
        pkcs8: Zeroizing<Vec<u8>>,
        /// The chain, leaf first.
        chain: Vec<Zeroizing<Vec<u8>>>,
    },
    /// Of SSH.
    Ssh {
        /// The key.
        key: SshSigner,
        /// The certificate: type and base64.
        certificate: String,
    },
}

/// The private numbers of an SSH key.
pub enum SshSigner {
    /// The seed of Ed25519.
    Ed25519(Zeroizing<[u8; 32]>),
    /// Of ECDSA: with which algorithm it signs, the scalar, and the public point.
    Ecdsa(Algorithm, Zeroizing<Vec<u8>>, Vec<u8>),
}

impl AssertionKey {
    /// Of a key in DER and its chain in PEM.
    pub fn tls(pkcs8: Zeroizing<Vec<u8>>, chain: &str) -> Option<Self> {
        Some(Self::Tls { pkcs8, chain: pem::decode_all(chain, "CERTIFICATE")? })
    }

    /// Of the certificate's line, type and base64 are sent, without its comment. None where no algorithm of ours is for the key.
    pub fn ssh(key: &PrivateKey, certificate: &str) -> Option<Self> {
        let ecdsa = |algorithm, private: &[u8], public: &[u8]| {
            SshSigner::Ecdsa(algorithm, Zeroizing::new(private.to_vec()), public.to_vec())
        };
        let key = match key.key_data() {
            KeypairData::Ed25519(pair) => SshSigner::Ed25519(Zeroizing::new(pair.private.to_bytes())),
            KeypairData::Ecdsa(EcdsaKeypair::NistP256 { public, private }) => {
                ecdsa(Algorithm::ES256, private.as_slice(), public.as_bytes())
            }
            KeypairData::Ecdsa(EcdsaKeypair::NistP384 { public, private }) => {
                ecdsa(Algorithm::ES384, private.as_slice(), public.as_bytes())
            }
            _ => return None,
        };
        let mut words = certificate.split_whitespace();
        Some(Self::Ssh { key, certificate: format!("{} {}", words.next()?, words.next()?) })
    }

    /// Says these claims.
    pub fn sign(&self, claims: &impl Serialize) -> Result<Secret> {
        match self {
            Self::Tls { pkcs8, chain } => {
                let x5c = chain.iter().map(|certificate| STANDARD.encode(certificate)).collect();
                jws::sign_pkcs8(pkcs8, Header { x5c: Some(x5c), ..Header::default() }, claims)
            }
            Self::Ssh { key, certificate } => {
                let mut header = Header::default();
                header.extras.insert("ssh_certificate", certificate.as_str());
                match key {
                    SshSigner::Ed25519(seed) => jws::sign_eddsa(seed.as_ref(), header, claims),
                    SshSigner::Ecdsa(algorithm, private, public) => {
                        jws::sign_ecdsa(*algorithm, (private, public), header, claims)
                    }
                }
            }
        }
    }
}
