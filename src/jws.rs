//! Compact JWS (RFC 7515), signed and verified by ring: with the algorithms
//! that we take, and no others. The types are `jsonwebtoken`'s.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, Header};
use ring::error::Unspecified;
use ring::rand::SystemRandom;
use ring::signature::{
    self as algorithms, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, RsaKeyPair,
    RsaPublicKeyComponents, Signature, UnparsedPublicKey, VerificationAlgorithm,
};
use serde::Serialize;

use crate::error::{Context as _, Kind, Result};
use crate::secret::Secret;

/// What a failure to sign was.
const CANNOT: &str = "cannot sign a JWS";

/// The curves of ECDSA, and how each signs.
static ECDSA: [(Algorithm, &EcdsaSigningAlgorithm); 2] = [
    (Algorithm::ES256, &algorithms::ECDSA_P256_SHA256_FIXED_SIGNING),
    (Algorithm::ES384, &algorithms::ECDSA_P384_SHA384_FIXED_SIGNING),
];

/// Signs with the algorithm that the key is for: ES256, ES384, EdDSA or PS256; the key is PKCS#8 in DER.
pub fn sign_pkcs8(pkcs8: &[u8], header: Header, claims: &impl Serialize) -> Result<Secret> {
    let random = SystemRandom::new();
    for (algorithm, curve) in ECDSA {
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(curve, pkcs8, &random) {
            return sign(algorithm, header, claims, |message| bytes(pair.sign(&random, message)?));
        }
    }
    if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8) {
        return sign(Algorithm::EdDSA, header, claims, |message| bytes(pair.sign(message)));
    }
    sign_rsa(&RsaKeyPair::from_pkcs8(pkcs8).context(Kind::Internal, CANNOT)?, header, claims)
}

/// Signs with PS256.
pub fn sign_rsa(pair: &RsaKeyPair, header: Header, claims: &impl Serialize) -> Result<Secret> {
    let random = SystemRandom::new();
    sign(Algorithm::PS256, header, claims, |message| {
        let mut signature = vec![0; pair.public().modulus_len()];
        pair.sign(&algorithms::RSA_PSS_SHA256, &random, message, &mut signature)?;
        Ok(signature)
    })
}

/// Signs with ECDSA, ES256 or ES384; the key is its scalar and its public point.
pub fn sign_ecdsa(
    algorithm: Algorithm,
    (private, public): (&[u8], &[u8]),
    header: Header,
    claims: &impl Serialize,
) -> Result<Secret> {
    let random = SystemRandom::new();
    let curve = ECDSA.iter().find(|(known, _)| *known == algorithm).map(|(_, curve)| *curve);
    let curve = curve.ok_or(Unspecified).context(Kind::Internal, CANNOT)?;
    let pair = EcdsaKeyPair::from_private_key_and_public_key(curve, private, public, &random)
        .context(Kind::Internal, CANNOT)?;
    sign(algorithm, header, claims, |message| bytes(pair.sign(&random, message)?))
}

fn bytes(signature: Signature) -> Result<Vec<u8>, Unspecified> {
    Ok(signature.as_ref().to_vec())
}

/// Signs with EdDSA (RFC 8037); the key is an Ed25519 seed of 32 bytes.
pub fn sign_eddsa(seed: &[u8], header: Header, claims: &impl Serialize) -> Result<Secret> {
    sign_ed25519(&Ed25519KeyPair::from_seed_unchecked(seed).context(Kind::Internal, CANNOT)?, header, claims)
}

/// The same by a key that is read already.
pub fn sign_ed25519(pair: &Ed25519KeyPair, header: Header, claims: &impl Serialize) -> Result<Secret> {
    sign(Algorithm::EdDSA, header, claims, |message| bytes(pair.sign(message)))
}

fn sign(
    algorithm: Algorithm,
    header: Header,
    claims: &impl Serialize,
    by_key: impl FnOnce(&[u8]) -> Result<Vec<u8>, Unspecified>,
) -> Result<Secret> {
    sign_by(algorithm, header, claims, |message| by_key(message).context(Kind::Internal, CANNOT))
}

/// Signs by whatever signs, in the form of that algorithm (RFC 7518, section 3).
pub fn sign_by(
    algorithm: Algorithm,
    header: Header,
    claims: &impl Serialize,
    by_key: impl FnOnce(&[u8]) -> Result<Vec<u8>>,
) -> Result<Secret> {
    let part = |json: serde_json::Result<Vec<u8>>| {
        json.map(|json| URL_SAFE_NO_PAD.encode(json)).context(Kind::Internal, CANNOT)
    };
    let header = part(serde_json::to_vec(&Header { alg: algorithm, ..header }))?;
    let message = format!("{header}.{}", part(serde_json::to_vec(claims))?);
    let signature = by_key(message.as_bytes())?;
    Ok(Secret::new(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))))
}

/// Whether `signature` (base64url) is that of `message` by the key.
pub fn verify(signature: &str, message: &[u8], key: &DecodingKey, algorithm: Algorithm) -> bool {
    let Ok(signature) = URL_SAFE_NO_PAD.decode(signature) else { return false };
    if key.family() != algorithm.family() {
        return false;
    }
    let verified = match key.kind() {
        DecodingKeyKind::RsaModulusExponent { n, e } => {
            // ring's own floor is 2048 bits.
            let parameters = match algorithm {
                Algorithm::RS256 => &algorithms::RSA_PKCS1_2048_8192_SHA256,
                Algorithm::RS384 => &algorithms::RSA_PKCS1_2048_8192_SHA384,
                Algorithm::RS512 => &algorithms::RSA_PKCS1_2048_8192_SHA512,
                Algorithm::PS256 => &algorithms::RSA_PSS_2048_8192_SHA256,
                Algorithm::PS384 => &algorithms::RSA_PSS_2048_8192_SHA384,
                Algorithm::PS512 => &algorithms::RSA_PSS_2048_8192_SHA512,
                _ => return false,
            };
            RsaPublicKeyComponents { n, e }.verify(parameters, message, &signature)
        }
        DecodingKeyKind::SecretOrDer(key) => {
            let parameters: &dyn VerificationAlgorithm = match algorithm {
                Algorithm::ES256 => &algorithms::ECDSA_P256_SHA256_FIXED,
                Algorithm::ES384 => &algorithms::ECDSA_P384_SHA384_FIXED,
                Algorithm::EdDSA => &algorithms::ED25519,
                _ => return false,
            };
            UnparsedPublicKey::new(parameters, key).verify(message, &signature)
        }
    };
    verified.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::KeyPair as _;

    #[test]
    fn what_is_signed_verifies_and_nothing_else() {
        let random = SystemRandom::new();
        let fixed = &algorithms::ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(fixed, &random).unwrap();
        let public = EcdsaKeyPair::from_pkcs8(fixed, pkcs8.as_ref(), &random).unwrap();
        let token = sign_pkcs8(pkcs8.as_ref(), Header::default(), &serde_json::json!({"a": 1})).unwrap();
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
