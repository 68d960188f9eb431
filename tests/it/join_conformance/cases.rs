//! The cases as they are written, and what they make of a token.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::support::token::{Signing, Token};
use crate::support::{base64url, fixture, keys};

/// A case of the tables.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Case {
    pub name: String,
    pub header: Map<String, Value>,
    pub not_header: Vec<String>,
    pub header_raw: String,
    pub header_text: Option<String>,
    pub claims: Map<String, Value>,
    pub not_claims: Vec<String>,
    pub at: Map<String, Value>,
    pub not_at: Vec<String>,
    pub claims_raw: String,
    pub claims_text: Option<String>,
    pub sign: Sign,
    pub shape: Shape,
    pub proof: Option<Value>,
    pub join_token: Option<String>,
    pub method: Option<String>,
    /// Whose proof it is, where methods have workers: see `token/hostile.yaml`.
    pub worker: String,
    pub secret: Option<String>,
    pub output_type: Option<String>,
    pub status: u16,
    pub reason: String,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sign {
    #[default]
    Issuer,
    Other,
    P256,
    Ed25519,
    HmacPem,
    HmacDer,
    HmacModulus,
    HmacEmpty,
    Rs384,
    Rs512,
    Ps256,
    Copied,
    None,
    Zeros,
    Short,
    Long,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    #[default]
    Compact,
    JsonFlattened,
    JsonGeneral,
    FiveSegments,
    FourSegments,
    TwoSegments,
    OneSegment,
    Empty,
    Dots,
    HeaderPadded,
    PayloadPadded,
    SignaturePadded,
    StandardAlphabet,
    LooseBits,
    SpaceBefore,
    NewlineAfter,
    NewlineInside,
    NulAfter,
    Bearer,
    TwoTokens,
    NotUtf8,
}

/// Sets a claim by name or JSON pointer, or takes it away.
pub fn put(claims: &mut Map<String, Value>, name: &str, value: Option<Value>) {
    let (parent, last) = match name.rsplit_once('/').filter(|_| name.starts_with('/')) {
        Some((parent, last)) => (parent, last.replace("~1", "/").replace("~0", "~")),
        None => ("", name.to_owned()),
    };
    let mut whole = Value::Object(std::mem::take(claims));
    match (whole.pointer_mut(parent), value) {
        (Some(Value::Object(members)), Some(value)) => drop(members.insert(last, value)),
        (Some(Value::Object(members)), None) => drop(members.remove(&last)),
        (Some(Value::Array(items)), Some(value)) => items[last.parse::<usize>().unwrap()] = value,
        (Some(Value::Array(items)), None) => drop(items.remove(last.parse().unwrap())),
        (other, _) => panic!("nothing to change at {name}: {other:?}"),
    }
    let Value::Object(members) = whole else { unreachable!() };
    *claims = members;
}

impl Sign {
    /// How a token is signed that must look like `valid`.
    pub fn signing(self, valid: &Token) -> Signing {
        let pem = || fixture("keys/rsa-a.pub.pem");
        let issuer = |algorithm: &str| Signing::Key(&keys::ISSUER, algorithm.to_owned());
        let good = || {
            use base64::Engine as _;
            let token = valid.mint();
            let signature = token.rsplit('.').next().unwrap();
            base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(signature).unwrap()
        };
        match self {
            Self::Issuer => issuer("RS256"),
            Self::Rs384 => issuer("RS384"),
            Self::Rs512 => issuer("RS512"),
            Self::Ps256 => issuer("PS256"),
            Self::Other => Signing::Key(&keys::SECOND, "RS256".to_owned()),
            Self::P256 => Signing::Key(&keys::P256, "ES256".to_owned()),
            Self::Ed25519 => Signing::Key(&keys::ED25519, "EdDSA".to_owned()),
            Self::HmacPem => Signing::Hmac(pem().into_bytes()),
            Self::HmacDer => Signing::Hmac(spki_of(&pem())),
            Self::HmacModulus => Signing::Hmac(keys::ISSUER.jwk()["n"].as_str().unwrap().as_bytes().to_vec()),
            Self::HmacEmpty => Signing::Hmac(Vec::new()),
            Self::Copied => Signing::Bytes(good()),
            Self::None => Signing::Bytes(Vec::new()),
            Self::Zeros => Signing::Bytes(vec![0; 256]),
            Self::Short => Signing::Bytes(good()[..255].to_vec()),
            Self::Long => Signing::Bytes([good(), vec![0; 3]].concat()),
        }
    }
}

impl Shape {
    /// What becomes of a compact token.
    pub fn of(self, token: String, signing: &Signing) -> String {
        let segments: Vec<&str> = token.split('.').collect();
        let [header, payload, signature] = segments[..] else { panic!("three segments") };
        match self {
            Self::Compact => token,
            Self::JsonFlattened => {
                json!({"protected": header, "payload": payload, "signature": signature}).to_string()
            }
            Self::JsonGeneral => {
                let signature = json!({"protected": header, "signature": signature});
                json!({"payload": payload, "signatures": [signature]}).to_string()
            }
            Self::FiveSegments => format!("{header}.{payload}.{signature}.{signature}.{signature}"),
            Self::FourSegments => format!("{token}.{signature}"),
            Self::TwoSegments => format!("{header}.{payload}"),
            Self::OneSegment => header.to_owned(),
            Self::Empty => String::new(),
            Self::Dots => "..".to_owned(),
            // A signature over what is sent, so that only the form is wrong.
            Self::HeaderPadded => resigned(&format!("{header}=.{payload}"), signing),
            Self::PayloadPadded => resigned(&format!("{header}.{payload}="), signing),
            Self::SignaturePadded => format!("{token}=="),
            Self::StandardAlphabet => {
                let message = format!("{header}.{payload}").replace('-', "+").replace('_', "/");
                // A random signature may do without the letters that differ.
                let signature = signature.replace('-', "+").replace('_', "/");
                format!("{message}.{}+/{}", &signature[..100], &signature[102..])
            }
            Self::LooseBits => {
                // 256 bytes end in a letter whose last four bits say nothing.
                let (rest, last) = token.split_at(token.len() - 1);
                let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
                let place = alphabet.find(last).unwrap();
                format!("{rest}{}", &alphabet[place + 1..place + 2])
            }
            Self::SpaceBefore => format!(" {token}"),
            Self::NewlineAfter => format!("{token}\n"),
            Self::NewlineInside => format!("{header}.{payload}\n.{signature}"),
            Self::NulAfter => format!("{token}\0"),
            Self::Bearer => format!("Bearer {token}"),
            Self::TwoTokens => format!("{token} {token}"),
            Self::NotUtf8 => {
                use base64::Engine as _;
                let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
                let mut bytes = engine.decode(payload).unwrap();
                bytes.splice(1..1, b"\"x\":\"\xff\xfe\",".iter().copied());
                resigned(&format!("{header}.{}", base64url(bytes)), signing)
            }
        }
    }
}

fn resigned(message: &str, signing: &Signing) -> String {
    format!("{message}.{}", base64url(signing.sign(message.as_bytes())))
}

fn spki_of(pem: &str) -> Vec<u8> {
    use rustls::pki_types::SubjectPublicKeyInfoDer;
    use rustls::pki_types::pem::PemObject as _;
    SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
}
