//! `jsonwebtoken`'s cryptography, done by ring: the algorithms that we sign
//! and verify with, and no others.

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result as JwtResult, new_error};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, EncodingKey, Header};
use ring::rand::SystemRandom;
use ring::signature::{self as algorithms, EcdsaKeyPair, Ed25519KeyPair, RsaPublicKeyComponents};
use ring::signature::{UnparsedPublicKey, VerificationAlgorithm};
use serde::Serialize;
use signature::{Error as SignatureError, Signer, Verifier};

use crate::error::{Context as _, Kind, Result};
use crate::secret::Secret;

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory,
    verifier_factory,
    // Only thumbprints and JWKs made from private keys need these; we use neither.
    key_utils: KeyUtils::new_unimplemented(),
};

/// Makes ring the provider; see [`crate::net::install_crypto`].
pub(crate) fn install() {
    let _ = PROVIDER.install_default();
}

/// Signs a compact JWS (RFC 7515) with ES256; the key is PKCS#8 in DER.
pub fn sign_es256(pkcs8: &[u8], mut header: Header, claims: &impl Serialize) -> Result<Secret> {
    header.alg = Algorithm::ES256;
    sign(&header, claims, &EncodingKey::from_ec_der(pkcs8))
}

/// Signs a compact JWS with EdDSA (RFC 8037); the key is an Ed25519 seed of 32 bytes.
pub fn sign_eddsa(seed: &[u8], mut header: Header, claims: &impl Serialize) -> Result<Secret> {
    header.alg = Algorithm::EdDSA;
    sign(&header, claims, &EncodingKey::from_ed_der(seed))
}

fn sign(header: &Header, claims: &impl Serialize, key: &EncodingKey) -> Result<Secret> {
    jsonwebtoken::encode(header, claims, key).map(Secret::new).context(Kind::Internal, "cannot sign a JWS")
}

/// Whether `signature` (base64url) is that of `message` by the key.
pub fn verify(signature: &str, message: &[u8], key: &DecodingKey, algorithm: Algorithm) -> bool {
    matches!(jsonwebtoken::crypto::verify(signature, message, key, algorithm), Ok(true))
}

enum RingSigner {
    Es256(EcdsaKeyPair, SystemRandom),
    EdDsa(Ed25519KeyPair),
}

fn signer_factory(algorithm: &Algorithm, key: &EncodingKey) -> JwtResult<Box<dyn JwtSigner>> {
    Ok(Box::new(match algorithm {
        Algorithm::ES256 => {
            let random = SystemRandom::new();
            let fixed = &algorithms::ECDSA_P256_SHA256_FIXED_SIGNING;
            let pair = EcdsaKeyPair::from_pkcs8(fixed, key.as_bytes(), &random)
                .map_err(|_| new_error(ErrorKind::InvalidEcdsaKey))?;
            RingSigner::Es256(pair, random)
        }
        Algorithm::EdDSA => RingSigner::EdDsa(
            Ed25519KeyPair::from_seed_unchecked(key.as_bytes())
                .map_err(|_| new_error(ErrorKind::InvalidEddsaKey))?,
        ),
        _ => return Err(new_error(ErrorKind::UnsupportedAlgorithm)),
    }))
}

impl Signer<Vec<u8>> for RingSigner {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, SignatureError> {
        match self {
            Self::Es256(pair, random) => {
                let signature = pair.sign(random, message).map_err(|_| SignatureError::new())?;
                Ok(signature.as_ref().to_vec())
            }
            Self::EdDsa(pair) => Ok(pair.sign(message).as_ref().to_vec()),
        }
    }
}

impl JwtSigner for RingSigner {
    fn algorithm(&self) -> Algorithm {
        match self {
            Self::Es256(..) => Algorithm::ES256,
            Self::EdDsa(_) => Algorithm::EdDSA,
        }
    }
}

struct RingVerifier {
    algorithm: Algorithm,
    key: DecodingKeyKind,
}

fn verifier_factory(algorithm: &Algorithm, key: &DecodingKey) -> JwtResult<Box<dyn JwtVerifier>> {
    if key.family() != algorithm.family() {
        return Err(new_error(ErrorKind::InvalidKeyFormat));
    }
    Ok(Box::new(RingVerifier { algorithm: *algorithm, key: key.kind().clone() }))
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), SignatureError> {
        let verified = match (&self.key, self.algorithm) {
            (DecodingKeyKind::RsaModulusExponent { n, e }, algorithm) => {
                // ring's own floor is 2048 bits.
                let parameters = match algorithm {
                    Algorithm::RS256 => &algorithms::RSA_PKCS1_2048_8192_SHA256,
                    Algorithm::RS384 => &algorithms::RSA_PKCS1_2048_8192_SHA384,
                    Algorithm::RS512 => &algorithms::RSA_PKCS1_2048_8192_SHA512,
                    Algorithm::PS256 => &algorithms::RSA_PSS_2048_8192_SHA256,
                    Algorithm::PS384 => &algorithms::RSA_PSS_2048_8192_SHA384,
                    Algorithm::PS512 => &algorithms::RSA_PSS_2048_8192_SHA512,
                    _ => return Err(SignatureError::new()),
                };
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signature)
            }
            (DecodingKeyKind::SecretOrDer(key), algorithm) => {
                let parameters: &dyn VerificationAlgorithm = match algorithm {
                    Algorithm::ES256 => &algorithms::ECDSA_P256_SHA256_FIXED,
                    Algorithm::ES384 => &algorithms::ECDSA_P384_SHA384_FIXED,
                    Algorithm::EdDSA => &algorithms::ED25519,
                    _ => return Err(SignatureError::new()),
                };
                UnparsedPublicKey::new(parameters, key).verify(message, signature)
            }
        };
        verified.map_err(|_| SignatureError::new())
    }
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::KeyPair as _;

    #[test]
    fn what_is_signed_verifies_and_nothing_else() {
        install();
        let random = SystemRandom::new();
        let fixed = &algorithms::ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(fixed, &random).unwrap();
        let public = EcdsaKeyPair::from_pkcs8(fixed, pkcs8.as_ref(), &random).unwrap();
        let token = sign_es256(pkcs8.as_ref(), Header::default(), &serde_json::json!({"a": 1})).unwrap();
        let (message, signature) = token.expose().rsplit_once('.').unwrap();
        let key = DecodingKey::from_ec_der(public.public_key().as_ref());
        assert!(verify(signature, message.as_bytes(), &key, Algorithm::ES256));
        assert!(!verify(signature, b"else", &key, Algorithm::ES256));
        assert!(!verify(signature, message.as_bytes(), &key, Algorithm::ES384));
        assert!(!verify(signature, message.as_bytes(), &key, Algorithm::HS256));
        assert!(!verify(signature, message.as_bytes(), &DecodingKey::from_secret(b"x"), Algorithm::HS256));
        let seed = [7; 32];
        let token = sign_eddsa(&seed, Header::default(), &serde_json::json!({})).unwrap();
        let (message, signature) = token.expose().rsplit_once('.').unwrap();
        let public = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
        let key = DecodingKey::from_ed_der(public.public_key().as_ref());
        assert!(verify(signature, message.as_bytes(), &key, Algorithm::EdDSA));
    }
}
