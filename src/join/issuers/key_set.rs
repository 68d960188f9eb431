//! Key sets (JWK, RFC 7517), as issuers serve them and operators give them: which of the keys may verify tokens.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind};
use serde_json::Value;

use crate::text::shown_exactly;

/// The most keys of a set that are looked at.
const MAX_KEYS: usize = 64;

/// An issuer's usable keys.
#[derive(Clone, Debug, Default)]
pub struct KeySet(Vec<UsableKey>);

#[derive(Clone, Debug)]
struct UsableKey {
    kid: Option<String>,
    /// The one algorithm that the key is for, where it says so.
    algorithm: Option<KeyAlgorithm>,
    key: DecodingKey,
}

impl KeySet {
    /// Reads a JWK set (RFC 7517, section 5) with a usable key at least. Keys that cannot be read, are
    /// not for signatures, are too weak or [unfit](Self::given) are left out.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        Self::read(json, |_| Ok(()))
    }

    /// The same as an operator gives it: a secret in it, or a key that is none of its curve, is a mistake.
    pub fn given(json: &[u8]) -> Result<Self, String> {
        Self::read(json, |key| unfit(key).map_or(Ok(()), Err))
    }

    fn read(json: &[u8], check: impl Fn(&Value) -> Result<(), String>) -> Result<Self, String> {
        let set: Value = serde_json::from_slice(json).map_err(|_| "it is not JSON")?;
        let keys = set.get("keys").and_then(Value::as_array).ok_or("it has no list `keys`")?;
        keys.iter().try_for_each(check)?;
        let usable: Vec<UsableKey> = keys.iter().take(MAX_KEYS).filter_map(usable).collect();
        if usable.is_empty() {
            return Err("it has no usable key".to_owned());
        }
        Ok(Self(usable))
    }

    /// The keys of that `kid` that may be used with that algorithm: an issuer that publishes two under one means
    /// either. Where token or key has no `kid`, which is optional (RFC 7515, section 4.1.4; RFC 7517, section 4.5),
    /// the one that it can be, and none of several.
    pub fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Vec<&DecodingKey> {
        let fits = |key: &&UsableKey| {
            key.key.family() == algorithm.family()
                && key.algorithm.is_none_or(|named| named == KeyAlgorithm::from(algorithm))
        };
        let fitting = |may_be: &dyn Fn(Option<&str>) -> bool| -> Vec<&DecodingKey> {
            let keys = self.0.iter().filter(fits).filter(|key| may_be(key.kid.as_deref()));
            keys.map(|key| &key.key).collect()
        };
        let named = fitting(&|key| key.is_some() && key == kid);
        let unnamed = fitting(&|key| key.is_none() || kid.is_none());
        match (named.is_empty(), unnamed.len()) {
            (true, 1) => unnamed,
            _ => named,
        }
    }

    /// Whether there is one of that `kid`.
    pub fn has(&self, kid: &str) -> bool {
        self.0.iter().any(|key| key.kid.as_deref() == Some(kid))
    }
}

/// The members of a JWK that nobody but its owner may have (RFC 7518, sections 6.2.2, 6.3.2 and 6.4; RFC 8037, section 2).
const PRIVATE: &[&str] = &["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// What is wrong with a key, whatever else is in the set; it says nothing of a secret but where that is.
fn unfit(json: &Value) -> Option<String> {
    let key = match json.get("kid").and_then(Value::as_str) {
        Some(kid) => format!("its key `{}`", shown_exactly(kid)),
        None => "its key without `kid`".to_owned(),
    };
    if let Some(member) = PRIVATE.iter().find(|member| json.get(**member).is_some()) {
        return Some(format!(
            "{key} has a secret in it (`{member}`), by which whoever reads it can sign; give the public members alone, and \
             have the issuer replace that key"
        ));
    }
    let jwk: Jwk = serde_json::from_value(json.clone()).ok()?;
    let bytes = |text: &String| URL_SAFE_NO_PAD.decode(text).ok().map(|bytes| bytes.len());
    let (curve, coordinates) = match &jwk.algorithm {
        AlgorithmParameters::EllipticCurve(key) => (&key.curve, [&key.x, &key.y].map(bytes).to_vec()),
        AlgorithmParameters::OctetKeyPair(key) => (&key.curve, vec![bytes(&key.x)]),
        _ => return None,
    };
    let fits = match curve {
        EllipticCurve::P256 => coordinates == [Some(32); 2],
        EllipticCurve::P384 => coordinates == [Some(48); 2],
        EllipticCurve::Ed25519 => coordinates == [Some(32)],
        // Left out, as other kinds of keys are.
        _ => return None,
    };
    (!fits).then(|| format!("{key} is none of the curve in its `crv`"))
}

/// The key, if it may verify signatures (RFC 7517, sections 4.2 to 4.5).
fn usable(json: &Value) -> Option<UsableKey> {
    if unfit(json).is_some() {
        return None;
    }
    let jwk: Jwk = serde_json::from_value(json.clone()).ok()?;
    if matches!(&jwk.algorithm, AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P521) {
        return None;
    }
    let common = &jwk.common;
    let for_signatures = common.public_key_use.as_ref().is_none_or(|used| *used == PublicKeyUse::Signature)
        && common.key_operations.as_ref().is_none_or(|ops| ops.contains(&KeyOperations::Verify));
    let kid = common.key_id.clone();
    let is_named_well = kid.as_ref().is_none_or(|kid| !kid.is_empty() && kid.len() <= 256);
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    let strong = match key.kind() {
        // A modulus of 2048 bits has its highest bit in the 256th byte from the end.
        DecodingKeyKind::RsaModulusExponent { n, .. } => {
            n.iter().position(|byte| *byte != 0).is_some_and(|zeros| n.len() - zeros >= 256)
        }
        DecodingKeyKind::SecretOrDer(_) => key.family() != AlgorithmFamily::Hmac,
    };
    (for_signatures && strong && is_named_well).then(|| UsableKey {
        kid,
        algorithm: common.key_algorithm,
        key,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ec(extra: &str) -> String {
        // A point of P-256 (RFC 7517, appendix A.1).
        format!(
            r#"{{"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
               "y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"{extra}}}"#
        )
    }

    fn set(keys: &[String]) -> Result<KeySet, String> {
        KeySet::parse(format!(r#"{{"keys":[{}]}}"#, keys.join(",")).as_bytes())
    }

    #[test]
    fn unusable_keys_are_left_out_and_do_not_take_others_along() {
        let good = ec(r#","kid":"good","use":"sig","alg":"ES256""#);
        let weak =
            r#"{"kty":"RSA","kid":"weak","n":"sXchDaQebHnPiGvyDOAT4saGEUetSyo9MKLOoWFsueri","e":"AQAB"}"#;
        let bad = [
            ec(r#","kid":"enc","use":"enc""#),
            ec(r#","kid":"ops","key_ops":["sign"]"#),
            r#"{"kty":"oct","kid":"hmac","k":"AAAA"}"#.to_owned(),
            weak.to_owned(),
            r#"{"kty":"new","kid":"x"}"#.to_owned(),
            "7".to_owned(),
        ];
        assert!(set(&bad).is_err());
        let mut all = bad.to_vec();
        all.push(good);
        let set = set(&all).unwrap();
        assert_eq!(set.0.len(), 1);
        assert_eq!(set.find(Some("good"), Algorithm::ES256).len(), 1);
        assert_eq!(set.find(Some("good"), Algorithm::ES384).len(), 0);
        assert_eq!(set.find(Some("good"), Algorithm::HS256).len(), 0);
        assert_eq!(set.find(Some("other"), Algorithm::ES256).len(), 0);
    }

    #[test]
    fn without_a_kid_it_is_the_only_key_that_it_can_be() {
        let found = |keys: &[&str], kid| {
            let keys: Vec<String> = keys.iter().map(|kid| ec(kid)).collect();
            set(&keys).unwrap().find(kid, Algorithm::ES256).len()
        };
        let (a, b, none) = (r#","kid":"a""#, r#","kid":"b""#, "");
        for (keys, of_none, of_a, of_other) in [
            (vec![none], 1, 1, 1),
            (vec![a], 1, 1, 0),
            (vec![a, none], 0, 1, 1),
            (vec![a, b], 0, 1, 0),
            (vec![none, none], 0, 0, 0),
            (vec![a, a], 0, 2, 0),
            (vec![r#","alg":"ES384""#, none], 1, 1, 1),
        ] {
            let counts = [None, Some("a"), Some("other")].map(|kid| found(&keys, kid));
            assert_eq!(counts, [of_none, of_a, of_other], "{keys:?}");
        }
        assert!(set(&[ec(r#","kid":"""#)]).is_err());
    }

    /// A key that names its algorithm is for that one, by its name in RFC 7518
    /// and 8037, and for no other of its family.
    #[test]
    fn a_key_is_for_the_algorithm_that_it_names() {
        let rsa = format!(r#""kty":"RSA","n":"{}","e":"AQAB""#, "u".repeat(341) + "w");
        let p256 = r#""kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM""#;
        let ed25519 = r#""kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo""#;
        let all = [
            ("HS256", Algorithm::HS256),
            ("HS384", Algorithm::HS384),
            ("HS512", Algorithm::HS512),
            ("RS256", Algorithm::RS256),
            ("RS384", Algorithm::RS384),
            ("RS512", Algorithm::RS512),
            ("PS256", Algorithm::PS256),
            ("PS384", Algorithm::PS384),
            ("PS512", Algorithm::PS512),
            ("ES256", Algorithm::ES256),
            ("ES384", Algorithm::ES384),
            ("EdDSA", Algorithm::EdDSA),
        ];
        for (key, family) in [
            (rsa.as_str(), AlgorithmFamily::Rsa),
            (p256, AlgorithmFamily::Ec),
            (ed25519, AlgorithmFamily::Ed),
        ] {
            for (name, named) in all {
                let set = set(&[format!(r#"{{{key},"kid":"k","alg":"{name}"}}"#)]).unwrap();
                for (_, algorithm) in all {
                    let fits = algorithm == named && algorithm.family() == family;
                    assert_eq!(
                        set.find(Some("k"), algorithm).len(),
                        usize::from(fits),
                        "{name} {algorithm:?}"
                    );
                }
            }
            let other = |alg: &str| {
                let set = set(&[format!(r#"{{{key},"kid":"k"{alg}}}"#)]).unwrap();
                all.iter().filter(|(_, algorithm)| set.find(Some("k"), *algorithm).len() == 1).count()
            };
            assert_eq!(other(""), family.algorithms().len(), "one that names none is for its whole family");
            for unknown in ["RSA-OAEP", "RSA1_5", "ES512", "none", "rs256"] {
                assert_eq!(other(&format!(r#","alg":"{unknown}""#)), 0, "{unknown}");
            }
        }
    }

    /// What an issuer serves is left out; in what an operator gives it is a mistake, which names the key and no secret.
    #[test]
    fn keys_with_a_secret_or_of_another_curve_are_refused() {
        let (x, y) =
            ("MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM");
        let long = "A".repeat(64);
        let n = "u".repeat(341) + "w";
        let ed = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        let secret = "(`d`), by which whoever reads it can sign";
        let cases = [
            (format!(r#""kty":"EC","crv":"P-256","x":"{x}","y":"{y}","d":"c2VjcmV0""#), secret),
            (format!(r#""kty":"RSA","n":"{n}","e":"AQAB","d":"c2VjcmV0""#), secret),
            (format!(r#""kty":"RSA","n":"{n}","e":"AQAB","p":"c2VjcmV0""#), "(`p`)"),
            (format!(r#""kty":"OKP","crv":"Ed25519","x":"{ed}","d":"c2VjcmV0""#), secret),
            (r#""kty":"oct","k":"c2VjcmV0""#.to_owned(), "(`k`)"),
            (format!(r#""kty":"EC","crv":"P-256","x":"{long}","y":"{long}""#), "none of the curve"),
            (format!(r#""kty":"EC","crv":"P-384","x":"{x}","y":"{y}""#), "none of the curve"),
            (format!(r#""kty":"EC","crv":"Ed25519","x":"{x}","y":"{y}""#), "none of the curve"),
            (format!(r#""kty":"OKP","crv":"P-256","x":"{ed}""#), "none of the curve"),
            (format!(r#""kty":"OKP","crv":"Ed25519","x":"{ed}AAAA""#), "none of the curve"),
        ];
        let good = ec(r#","kid":"good""#);
        for (key, said) in cases {
            let set = format!(r#"{{"keys":[{good},{{"kid":"bad",{key}}}]}}"#);
            let why = KeySet::given(set.as_bytes()).unwrap_err();
            assert!(why.contains("its key `bad`") && why.contains(said) && !why.contains("c2Vj"), "{why}");
            let served = KeySet::parse(set.as_bytes()).unwrap();
            assert!(served.has("good") && !served.has("bad"), "{key}");
        }
        // A key of a kind that nobody here uses is none, as one for encryption is.
        for (curve, kty) in [("X25519", "OKP"), ("P-521", "EC")] {
            let set = format!(
                r#"{{"keys":[{good},{{"kid":"bad","kty":"{kty}","crv":"{curve}","x":"{ed}","y":"{ed}"}}]}}"#
            );
            assert!(!KeySet::given(set.as_bytes()).unwrap().has("bad"), "{curve}");
        }
    }

    #[test]
    fn no_set_is_an_error() {
        for bad in ["", "{}", r#"{"keys":{}}"#, r#"{"keys":[]}"#] {
            assert!(KeySet::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
