//! The shape of a JWT (RFC 7519, compact JWS of RFC 7515), read more strictly
//! than the RFCs ask: whatever two readers could read differently is refused.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use ring::digest::{Context, Digest, SHA256};
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::denial::{Denial, Reason};
use crate::jws;
use crate::secret::Secret;
use crate::wire::{ID_TOKEN, MAX_TOKEN, Proof};

mod claims;

pub use claims::{
    AudienceRules, MAX_JTI, TimeRules, audience, check_audience, check_end, check_start, check_times,
    need_number, need_text, require_texts, text, time,
};

/// The deepest nesting of a header or payload.
const MAX_DEPTH: usize = 8;

/// A JWT taken apart. Nothing of it is verified yet.
#[derive(Debug)]
pub struct Jwt<'t> {
    /// What the signature is over.
    pub message: &'t str,
    /// The signature, in base64url.
    pub signature: &'t str,
    /// The header's `alg`.
    pub algorithm: Algorithm,
    /// The header's `kid`, if it has one.
    pub kid: Option<String>,
    /// The header, whole.
    pub header: Map<String, Value>,
    /// The payload.
    pub claims: Map<String, Value>,
    content: Digest,
}

impl<'t> Jwt<'t> {
    /// Takes a token apart: three segments of canonical base64url without padding, JSON objects without
    /// duplicate members, a known `alg`, a `kid` that is text if any, a `typ` of `JWT` if any, no `crit`,
    /// no `b64`. Headers that carry or point to keys (`jwk`, `jku`, `x5c`, `x5u`) are not looked at.
    pub fn parse(token: &'t str) -> Result<Self, Denial> {
        Self::parse_as(token, None)
    }

    /// The same of another type than `JWT`, which its `typ` must say.
    pub fn parse_as(token: &'t str, typ: Option<&str>) -> Result<Self, Denial> {
        let malformed = |detail: &str| Denial::new(Reason::TokenMalformed, detail);
        if token.len() > MAX_TOKEN {
            return Err(malformed(&format!(
                "{} bytes long, and {MAX_TOKEN} (16 KiB) are the most",
                token.len()
            )));
        }
        let mut segments = token.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (segments.next(), segments.next(), segments.next(), segments.next())
        else {
            return Err(malformed("not three segments"));
        };
        let decode = |segment: &str, what: &str| {
            URL_SAFE_NO_PAD
                .decode(segment)
                .map_err(|error| malformed(&format!("the {what} is not base64url: {error}")))
        };
        let (header_bytes, payload_bytes) = (decode(header, "header")?, decode(payload, "payload")?);
        decode(signature, "signature")?;
        let object = |bytes: &[u8], what: &str| {
            strict_object(bytes).map_err(|error| malformed(&format!("the {what}: {error}")))
        };
        let claims = object(&payload_bytes, "payload")?;
        let header_object = object(&header_bytes, "header");
        let checked =
            header_object.and_then(|header| check_header(&header, typ).map(|parts| (header, parts)));
        let (header_object, (algorithm, kid)) =
            checked.map_err(|denial| denial.with_claims(&claims, false))?;
        let mut content = Context::new(&SHA256);
        // A length in front keeps header and payload from running into each other.
        content.update(&u64::try_from(header_bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
        content.update(&header_bytes);
        content.update(&payload_bytes);
        let content = content.finish();
        let message = token.get(..header.len() + 1 + payload.len()).unwrap_or_default();
        Ok(Self { message, signature, algorithm, kid, header: header_object, claims, content })
    }

    /// The one in that field of a proof.
    pub fn of_proof(proof: &'t Proof, field: &str) -> Result<Self, Denial> {
        Self::of_proof_as(proof, field, None)
    }

    /// The same of another type: see [`Jwt::parse_as`].
    pub fn of_proof_as(proof: &'t Proof, field: &str, typ: Option<&str>) -> Result<Self, Denial> {
        let missing = || Denial::new(Reason::TokenMalformed, format!("the proof has no `{field}`"));
        Self::parse_as(proof.field(field).map(Secret::expose).ok_or_else(missing)?, typ)
    }

    /// Whether the key has signed it.
    pub fn is_signed_by(&self, key: &DecodingKey) -> bool {
        jws::verify(self.signature, self.message.as_bytes(), key, self.algorithm)
    }

    /// A name for the token's content, where it has no `jti`: a hash over the
    /// decoded header and payload, which no re-encoding changes.
    pub fn content_id(&self) -> String {
        format!("sha256:{}", URL_SAFE_NO_PAD.encode(self.content))
    }
}

/// The claims of a proof that is a JWT, believed by nobody.
pub fn unverified(proof: &Proof) -> Result<Map<String, Value>, Denial> {
    Ok(Jwt::of_proof(proof, ID_TOKEN)?.claims)
}

fn check_header(
    header: &Map<String, Value>,
    typ: Option<&str>,
) -> Result<(Algorithm, Option<String>), Denial> {
    let refused = |detail: String| Denial::new(Reason::HeaderRefused, detail);
    for name in ["crit", "b64", "zip"] {
        if header.contains_key(name) {
            return Err(refused(format!("the header has `{name}`")));
        }
    }
    let is_jwt = |typ: &Value| typ.as_str().is_some_and(|typ| typ.eq_ignore_ascii_case("JWT"));
    let said = header.get("typ");
    let is_right =
        typ.map_or_else(|| said.is_none_or(is_jwt), |typ| said.and_then(Value::as_str) == Some(typ));
    if !is_right {
        return Err(refused(format!("the header's `typ` is not `{}`", typ.unwrap_or("JWT"))));
    }
    let Some(algorithm) = header.get("alg").and_then(|name| name.as_str()?.parse().ok()) else {
        return Err(Denial::new(Reason::AlgorithmRefused, "the header's `alg` is missing or unknown"));
    };
    let kid = match header.get("kid") {
        None => None,
        Some(Value::String(kid)) if !kid.is_empty() && kid.len() <= 256 => Some(kid.clone()),
        Some(_) => return Err(refused("the header has no usable `kid`".to_owned())),
    };
    Ok((algorithm, kid))
}

/// A JSON object with nothing behind it, whose members are unique at each level, of which there are at most eight.
pub fn strict_object(bytes: &[u8]) -> Result<Map<String, Value>, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Strict(MAX_DEPTH).deserialize(&mut deserializer)?;
    deserializer.end()?;
    match value {
        Value::Object(map) => Ok(map),
        _ => Err(serde_json::Error::custom("not an object")),
    }
}

/// Any JSON, nested at most that deep.
#[derive(Clone, Copy)]
struct Strict(usize);

impl Strict {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        self.0.checked_sub(1).map(Self).ok_or_else(|| E::custom("nested too deeply"))
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let deeper = self.deeper()?;
        let mut list = Vec::new();
        while let Some(item) = seq.next_element_seed(deeper)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let deeper = self.deeper()?;
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value_seed(deeper)?;
            if object.insert(key, value).is_some() {
                return Err(A::Error::custom("a member stands twice"));
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn token(header: &str, payload: &str) -> String {
        format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload))
    }

    const GOOD: &str = r#"{"alg":"RS256","kid":"1","typ":"JWT"}"#;

    #[test]
    fn a_token_comes_apart() {
        let text = token(GOOD, r#"{"a":{"b":[1]}}"#);
        let jwt = Jwt::parse(&text).unwrap();
        assert_eq!((jwt.algorithm, jwt.kid.as_deref(), jwt.signature), (Algorithm::RS256, Some("1"), "c2ln"));
        assert_eq!(format!("{}.{}", jwt.message, jwt.signature), text);
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        use Reason::{AlgorithmRefused, HeaderRefused, TokenMalformed};
        let cases = [
            (String::new(), TokenMalformed),
            ("a.b".into(), TokenMalformed),
            ("a.b.c.d".into(), TokenMalformed),
            (token(GOOD, "{}") + "=", TokenMalformed),
            (token(GOOD, "{}").replace("c2ln", "c2lo+"), TokenMalformed),
            (token(GOOD, "{}").replace("c2ln", "c2l"), TokenMalformed),
            (format!(" {}", token(GOOD, "{}")), TokenMalformed),
            (token(GOOD, r#"{"a":1,"a":1}"#), TokenMalformed),
            (token(GOOD, r#"{"a":{"b":1,"\u0062":2}}"#), TokenMalformed),
            (token(r#"{"alg":"RS256","alg":"none","kid":"1"}"#, "{}"), TokenMalformed),
            (token(GOOD, "{} {}"), TokenMalformed),
            (token(GOOD, "[]"), TokenMalformed),
            (token(GOOD, &format!("{{\"a\":{}{}}}", "[".repeat(9), "]".repeat(9))), TokenMalformed),
            (token(GOOD, &format!("{{\"a\":\"{}\"}}", "x".repeat(MAX_TOKEN))), TokenMalformed),
            (token(r#"{"alg":"none","kid":"1"}"#, "{}"), AlgorithmRefused),
            (token(r#"{"kid":"1"}"#, "{}"), AlgorithmRefused),
            (token(r#"{"alg":["RS256"],"kid":"1"}"#, "{}"), AlgorithmRefused),
            (token(r#"{"alg":"RS256","kid":1}"#, "{}"), HeaderRefused),
            (token(r#"{"alg":"RS256","kid":""}"#, "{}"), HeaderRefused),
            (token(r#"{"alg":"RS256","kid":"1","crit":["b64"]}"#, "{}"), HeaderRefused),
            (token(r#"{"alg":"RS256","kid":"1","b64":false}"#, "{}"), HeaderRefused),
            (token(r#"{"alg":"RS256","kid":"1","typ":"at+jwt"}"#, "{}"), HeaderRefused),
        ];
        for (text, reason) in cases {
            assert_eq!(Jwt::parse(&text).unwrap_err().reason, reason, "{text:.60}");
        }
    }

    #[test]
    fn content_id_is_of_the_content() {
        let (one, two) = (token(GOOD, r#"{"a":1}"#), token(GOOD, r#"{"a":2}"#));
        let id = |text: &str| Jwt::parse(text).unwrap().content_id();
        assert_ne!(id(&one), id(&two));
        assert_eq!(id(&one), id(&one.replace("c2ln", "AAAA")));
    }

    proptest! {
        #[test]
        fn nothing_panics(text in ".{0,200}") {
            let _ = Jwt::parse(&text);
            let _ = strict_object(text.as_bytes());
        }
    }
}
