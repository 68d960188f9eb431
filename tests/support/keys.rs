//! Fixed test keys (see `tests/fixtures/keys/README.md`): they protect nothing.

use std::path::Path;
use std::sync::LazyLock;

use ring::hmac;
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{self as algorithms, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};

use super::{base64url, fixture};

/// The key that the loopback issuer signs with.
pub static ISSUER: LazyLock<Key> = LazyLock::new(|| Key::load("test-issuer-1", "rsa-a.pem"));
/// Its next key, or a stranger's.
pub static SECOND: LazyLock<Key> = LazyLock::new(|| Key::load("test-issuer-2", "rsa-b.pem"));
/// An ECDSA key on P-256.
pub static P256: LazyLock<Key> = LazyLock::new(|| Key::load("test-p256", "p256.pem"));
/// Another on P-256, which presents itself under the same name.
pub static P256_OTHER: LazyLock<Key> = LazyLock::new(|| {
    let fixed = &algorithms::ECDSA_P256_SHA256_FIXED_SIGNING;
    let der = EcdsaKeyPair::generate_pkcs8(fixed, &SystemRandom::new()).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(fixed, der.as_ref(), &SystemRandom::new()).unwrap();
    Key { kid: "test-p256", pair: Pair::P256(pair) }
});
/// An Ed25519 key.
pub static ED25519: LazyLock<Key> = LazyLock::new(|| Key::load("test-ed25519", "ed25519.pem"));

/// A key that signs tokens.
pub struct Key {
    /// Its name in key sets.
    pub kid: &'static str,
    pair: Pair,
}

enum Pair {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// The PKCS#8 of a fixed key, in DER.
pub fn pkcs8(file: &str) -> Vec<u8> {
    let pem = fixture(&format!("keys/{file}"));
    PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).unwrap().secret_pkcs8_der().to_vec()
}

impl Key {
    fn load(kid: &'static str, file: &str) -> Self {
        let der = pkcs8(file);
        let fixed = &algorithms::ECDSA_P256_SHA256_FIXED_SIGNING;
        let pair = if file.starts_with("rsa") {
            Pair::Rsa(RsaKeyPair::from_pkcs8(&der).unwrap())
        } else if file.starts_with("p256") {
            Pair::P256(EcdsaKeyPair::from_pkcs8(fixed, &der, &SystemRandom::new()).unwrap())
        } else {
            Pair::Ed25519(Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).unwrap())
        };
        Self { kid, pair }
    }

    /// A P-256 key from a file of an authority, which a thief of it has.
    pub fn stolen(kid: &str, file: &Path) -> &'static Self {
        let pem = std::fs::read(file).unwrap();
        let der = PrivatePkcs8KeyDer::from_pem_slice(&pem).unwrap();
        let fixed = &algorithms::ECDSA_P256_SHA256_FIXED_SIGNING;
        let pair = EcdsaKeyPair::from_pkcs8(fixed, der.secret_pkcs8_der(), &SystemRandom::new()).unwrap();
        let kid = Box::leak(kid.to_owned().into_boxed_str());
        Box::leak(Box::new(Self { kid, pair: Pair::P256(pair) }))
    }

    /// The algorithm it signs with when nothing else is asked for.
    pub fn algorithm(&self) -> &'static str {
        match self.pair {
            Pair::Rsa(_) => "RS256",
            Pair::P256(_) => "ES256",
            Pair::Ed25519(_) => "EdDSA",
        }
    }

    /// The signature of a JWS by this key.
    pub fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        match &self.pair {
            Pair::Rsa(pair) => {
                let padding: &dyn algorithms::RsaEncoding = match algorithm {
                    "RS384" => &algorithms::RSA_PKCS1_SHA384,
                    "RS512" => &algorithms::RSA_PKCS1_SHA512,
                    "PS256" => &algorithms::RSA_PSS_SHA256,
                    _ => &algorithms::RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(padding, &SystemRandom::new(), message, &mut signature).unwrap();
                signature
            }
            Pair::P256(pair) => pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    /// The public key as a JWK (RFC 7517), with `kid`, `alg` and `use`.
    pub fn jwk(&self) -> Value {
        match &self.pair {
            Pair::Rsa(pair) => {
                let public: PublicKeyComponents<Vec<u8>> = pair.public().into();
                json!({
                    "kty": "RSA", "kid": self.kid, "alg": "RS256", "use": "sig",
                    "n": base64url(public.n), "e": base64url(public.e),
                })
            }
            Pair::P256(pair) => {
                let point = pair.public_key().as_ref();
                json!({
                    "kty": "EC", "crv": "P-256", "kid": self.kid, "alg": "ES256", "use": "sig",
                    "x": base64url(&point[1..33]), "y": base64url(&point[33..]),
                })
            }
            Pair::Ed25519(pair) => json!({
                "kty": "OKP", "crv": "Ed25519", "kid": self.kid, "alg": "EdDSA", "use": "sig",
                "x": base64url(pair.public_key()),
            }),
        }
    }
}

/// HMAC-SHA-256, for tokens that take a public key for a shared secret.
pub fn hmac_sha256(secret: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message).as_ref().to_vec()
}
