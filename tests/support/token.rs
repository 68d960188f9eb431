//! Tokens, honest and hostile.

use serde_json::{Map, Value, json};

use super::base64url;
use super::keys::{self, Key};

/// A JWT before it is signed.
#[derive(Clone)]
pub struct Token {
    /// Its header.
    pub header: Map<String, Value>,
    /// Its claims.
    pub claims: Map<String, Value>,
    /// Raw text put in front of the header's members: `"alg":"none",`.
    pub header_raw: String,
    /// Raw text put in front of the claims' members.
    pub claims_raw: String,
    /// Who signs it, and how.
    pub signing: Signing,
}

/// How a token is signed.
#[derive(Clone)]
pub enum Signing {
    /// By a key, with an algorithm that need not be the header's.
    Key(&'static Key, String),
    /// By the Ed25519 key of this seed.
    Seed([u8; 32]),
    /// With HMAC-SHA-256 under this secret.
    Hmac(Vec<u8>),
    /// With these bytes for a signature.
    Bytes(Vec<u8>),
}

impl Token {
    /// An honest token: RS256 by the loopback issuer's key.
    pub fn new(claims: Map<String, Value>) -> Self {
        Self::by(&keys::ISSUER, claims)
    }

    /// A token by this key, which its header names.
    pub fn by(key: &'static Key, claims: Map<String, Value>) -> Self {
        let header = json!({"typ": "JWT", "alg": key.algorithm(), "kid": key.kid});
        let Value::Object(header) = header else { unreachable!() };
        let signing = Signing::Key(key, key.algorithm().to_owned());
        Self { header, claims, header_raw: String::new(), claims_raw: String::new(), signing }
    }

    /// With this member in its header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.header.insert(name.to_owned(), value.into());
        self
    }

    /// With this claim.
    #[must_use]
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.to_owned(), value.into());
        self
    }

    /// Without this claim.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.claims.remove(name);
        self
    }

    /// The compact serialisation (RFC 7515, section 7.1).
    pub fn mint(&self) -> String {
        compact(&text(&self.header_raw, &self.header), &text(&self.claims_raw, &self.claims), &self.signing)
    }
}

fn text(raw: &str, members: &Map<String, Value>) -> String {
    let json = serde_json::to_string(members).unwrap();
    format!("{{{raw}{}", json.strip_prefix('{').unwrap())
}

/// Signs any two texts as if they were a header and claims.
pub fn compact(header: &str, claims: &str, signing: &Signing) -> String {
    let message = format!("{}.{}", base64url(header), base64url(claims));
    format!("{message}.{}", base64url(signing.sign(message.as_bytes())))
}

impl Signing {
    /// The signature of this message.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Key(key, algorithm) => key.sign(algorithm, message),
            Self::Seed(seed) => {
                let pair = ring::signature::Ed25519KeyPair::from_seed_unchecked(seed).unwrap();
                pair.sign(message).as_ref().to_vec()
            }
            Self::Hmac(secret) => keys::hmac_sha256(secret, message),
            Self::Bytes(bytes) => bytes.clone(),
        }
    }
}

/// The claims of a compact JWT, whoever signed it.
pub fn claims_of(token: &str) -> Map<String, Value> {
    use base64::Engine as _;
    let payload = token.split('.').nth(1).expect("a payload");
    let json = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap();
    serde_json::from_slice(&json).unwrap()
}
