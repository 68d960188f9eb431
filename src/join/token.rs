//! Workers that stay, such as a self-hosted Jenkins: a secret that is good
//! once registers the worker's own key pair, and each later join is proved by
//! a short-lived assertion that this key signs (in the way of RFC 7523, with
//! our audience, bound to the request's keys, good once).
//!
//! How a copied storage shows is told in [`super::instance`].

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use ring::digest::{SHA256, digest};
use serde_json::{Map, Value};

use super::instance::{Join, MAX_COUNT, MAX_EARLIER, Membership};
use super::jwt::Jwt;
use super::rules::{Field, Rule};
use super::{
    BoxFuture, Desk, Failure, Identity, Job, JoinMethod, Presented, Provenance, Replay, Supposed, Verifier,
};
use crate::clock::{LEEWAY, rfc3339};
use crate::denial::{Denial, Reason};
use crate::document::{Mapping, Mistake};
use crate::environment::Environment;
use crate::error::Result;
use crate::secret::Secret;
use crate::text::{hex, shown};
use crate::wire::{Proof, bound_audience};

mod state;
mod worker;

/// The join method `token`.
#[derive(Debug)]
pub struct Token;

/// The field of a proof that is the assertion.
const ASSERTION: &str = "assertion";
/// The field of a proof that is the registration secret.
const SECRET: &str = "registration_secret";
/// The field of a proof that is another instance's word that the new one takes its place.
const REPLACES: &str = "replaces";
/// The claim of that word: the new one's id.
const REPLACED_BY: &str = "replaced_by";
/// The longest that an assertion lives, in seconds.
const MAX_LIFETIME: i64 = 120;
/// The longest id of a request or an attempt, in bytes.
const MAX_ID: usize = 64;

impl JoinMethod for Token {
    fn name(&self) -> &'static str {
        "token"
    }

    fn summary(&self) -> &'static str {
        "workers that stay, such as a self-hosted Jenkins: registered once, with a key of their own"
    }

    fn detects(&self, _env: &Environment) -> bool {
        false
    }

    fn takes_id_token(&self) -> bool {
        false
    }

    fn registers(&self) -> bool {
        true
    }

    fn is_ci(&self) -> bool {
        false
    }

    fn can_bind(&self) -> bool {
        true
    }

    fn prove<'a>(&'a self, job: &'a Job<'a>) -> BoxFuture<'a, Result<Presented>> {
        Box::pin(worker::prove(job))
    }

    fn unverified(&self, proof: &Proof) -> Result<Map<String, Value>, Denial> {
        Ok(Jwt::parse(assertion(proof)?)?.claims)
    }

    fn telling(&self) -> &'static [&'static str] {
        &["generation"]
    }

    fn fields(&self) -> &'static [Field] {
        &[]
    }

    fn configure(&self, section: Mapping<'_>) -> Result<Box<dyn Verifier>, Mistake> {
        section.finish()?;
        Ok(Box::new(Registered))
    }
}

/// Lets in whoever is registered with the join token.
#[derive(Debug)]
struct Registered;

impl Verifier for Registered {
    fn verify<'a>(&'a self, proof: &'a Proof, at: &'a Desk<'a>) -> BoxFuture<'a, Result<Identity, Failure>> {
        Box::pin(async move {
            let jwt = Jwt::parse(assertion(proof)?)?;
            verify(&jwt, proof, at).await.map_err(|failure| match failure {
                Failure::Denied(denial) if denial.claims.is_none() => {
                    let verified = denial.verified;
                    Failure::Denied(Box::new(denial.with_claims(&jwt.claims, verified)))
                }
                other => other,
            })
        })
    }

    fn rules(&self) -> &[Rule] {
        &[]
    }

    fn admits_all(&self) -> bool {
        true
    }

    fn takes_unbound(&self) -> bool {
        false
    }

    fn suppose(&self, claims: Map<String, Value>) -> Result<Supposed, Denial> {
        match instance_of(&claims).and_then(|_| presented(&claims)) {
            Ok(_) => Ok(Supposed { claims }),
            Err(denial) => Err(denial.with_claims(&claims, false)),
        }
    }
}

/// The assertion of a proof.
fn assertion(proof: &Proof) -> Result<&str, Denial> {
    let missing = || Denial::new(Reason::TokenMalformed, "the proof has no `assertion`");
    proof.field(ASSERTION).map(Secret::expose).ok_or_else(missing)
}

/// An Ed25519 public key's id: the JWK thumbprint (RFC 7638), so that nobody
/// can have the id of another's key.
fn instance_id(key: &[u8]) -> String {
    let jwk = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, URL_SAFE_NO_PAD.encode(key));
    let hash = digest(&SHA256, jwk.as_bytes());
    // As all ids here: a letter, and 128 bits that read the same in any case of letters.
    format!("w-{}", hex(hash.as_ref().get(..16).unwrap_or_default()))
}

async fn verify(jwt: &Jwt<'_>, proof: &Proof, at: &Desk<'_>) -> Result<Identity, Failure> {
    // What costs nothing comes first.
    let id = signer(jwt)?;
    let expires = check_times(&jwt.claims, at)?;
    let shown_key = shown_key(jwt, id)?;
    let secret = proof.field(SECRET).map(|secret| hash_of(secret.expose()));
    // Before the instance is looked up: an earlier request of the same worker may be using the secret up just
    // now. And before the signature is checked, so that only who has one makes us write.
    let admitted = match &secret {
        Some(secret) => at.registry.admits(secret, at.token, at.clock.now()).await?,
        None => false,
    };
    let (key, secret) = match at.registry.instance(id).await? {
        // A worker that never heard of its registration presents the secret again, which is used up by now.
        Some(known) if known.token == at.token => (known.key, None),
        Some(known) => {
            let detail = format!("registered with the join token `{}`", shown(&known.token));
            return Err(Denial::new(Reason::InstanceUnknown, detail).into());
        }
        None => {
            let Some(secret) = secret else {
                return Err(Denial::new(Reason::InstanceUnknown, "no such instance, and no secret").into());
            };
            let key = shown_key.ok_or_else(|| {
                Denial::new(Reason::HeaderRefused, "the header has no `jwk` of the worker to be registered")
            })?;
            if !admitted {
                let detail = "unknown, used up, expired, or of another join token";
                return Err(Denial::new(Reason::RegistrationRefused, detail).into());
            }
            (key, Some(secret))
        }
    };
    check_signature(jwt, &key)?;
    // The claims are the worker's own words from here on.
    let worded = check_audience(&jwt.claims, at).and_then(|()| presented(&jwt.claims));
    let join = worded.map_err(|denial| denial.with_claims(&jwt.claims, true))?;
    let replaces = match (&secret, proof.field(REPLACES)) {
        (Some(_), Some(word)) => replaced(&Jwt::parse(word.expose())?, id, at).await?,
        _ => None,
    };
    let line = format!("token:{} instance {id} generation {}", at.token, join.generation);
    let held_until = at.clock.now().saturating_add(MAX_LIFETIME + 2 * LEEWAY);
    Ok(Identity {
        bound: true,
        replay: Replay {
            issuer: format!("urn:machine-id:instance:{id}"),
            id: join.id.clone(),
            held_until: expires.saturating_add(LEEWAY).max(held_until),
        },
        provenance: Provenance { line: shown(&line), fulcio: Vec::new() },
        membership: Some(Membership { instance: id.to_owned(), key, secret, replaces, join, held_until }),
        claims: jwt.claims.clone(),
    })
}

/// The worker that a JWS says it is of.
fn signer<'j>(jwt: &'j Jwt<'_>) -> Result<&'j str, Denial> {
    if jwt.algorithm != Algorithm::EdDSA {
        let detail = format!("signed with {:?}, workers use EdDSA", jwt.algorithm);
        return Err(Denial::new(Reason::AlgorithmRefused, detail));
    }
    let id = instance_of(&jwt.claims)?;
    if jwt.kid.as_deref() != Some(id) {
        return Err(Denial::new(Reason::HeaderRefused, "the header's `kid` is not the instance's id"));
    }
    Ok(id)
}

fn check_signature(jwt: &Jwt<'_>, key: &[u8]) -> Result<(), Denial> {
    let public = DecodingKey::from_ed_der(key);
    if crate::jws::verify(jwt.signature, jwt.message.as_bytes(), &public, jwt.algorithm) {
        return Ok(());
    }
    Err(Denial::new(Reason::SignatureInvalid, "the signature does not verify"))
}

/// The instance that gives its place to the worker `id`: a rotated key is good
/// for nothing more. One that this authority does not know has none to give.
async fn replaced(jwt: &Jwt<'_>, id: &str, at: &Desk<'_>) -> Result<Option<String>, Failure> {
    let old = signer(jwt)?;
    check_times(&jwt.claims, at)?;
    let Some(known) = at.registry.instance(old).await?.filter(|known| known.token == at.token) else {
        return Ok(None);
    };
    check_signature(jwt, &known.key)?;
    check_audience(&jwt.claims, at)?;
    if text(&jwt.claims, REPLACED_BY)? != id {
        return Err(Denial::new(Reason::ClaimInvalid, format!("{REPLACED_BY} is another worker")).into());
    }
    Ok(Some(old.to_owned()))
}

fn hash_of(secret: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, secret.as_bytes()).as_ref());
    hash
}

/// The instance that the claims are of: `iss` and `sub` both say it.
fn instance_of(claims: &Map<String, Value>) -> Result<&str, Denial> {
    let (issuer, subject) = (text(claims, "iss")?, text(claims, "sub")?);
    let digits = issuer.strip_prefix("w-").unwrap_or_default();
    let is_id =
        digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if !is_id || subject != issuer {
        let detail = format!("issuer is {}, subject {}", shown(issuer), shown(subject));
        return Err(Denial::new(Reason::IssuerWrong, detail));
    }
    Ok(issuer)
}

/// The public key in the header (`jwk`, RFC 7517), where there is one: it must
/// be that of the instance's id, so that it never stands for another's.
fn shown_key(jwt: &Jwt<'_>, id: &str) -> Result<Option<Vec<u8>>, Denial> {
    let Some(jwk) = jwt.header.get("jwk") else { return Ok(None) };
    let refused = |why| Denial::new(Reason::HeaderRefused, format!("the header's `jwk` {why}"));
    let member = |name: &str| jwk.get(name).and_then(Value::as_str).unwrap_or_default();
    if jwk.get("d").is_some() {
        return Err(refused("holds a private key"));
    }
    if member("kty") != "OKP" || member("crv") != "Ed25519" {
        return Err(refused("is not an Ed25519 key"));
    }
    let key = URL_SAFE_NO_PAD.decode(member("x")).ok().filter(|key| key.len() == 32);
    let key = key.ok_or_else(|| refused("is not an Ed25519 key"))?;
    if instance_id(&key) != id {
        return Err(refused("is not the instance's key"));
    }
    Ok(Some(key))
}

/// `iat` and `exp` must be there; when it expires.
fn check_times(claims: &Map<String, Value>, at: &Desk<'_>) -> Result<i64, Denial> {
    let now = at.clock.now();
    let (issued, expires) = (number(claims, "iat")?, number(claims, "exp")?);
    let told =
        |what: &str, time| format!("{what} {}, the authority's clock says {}", rfc3339(time), rfc3339(now));
    if expires.saturating_add(LEEWAY) <= now {
        let told = told("it expired at", expires);
        return Err(Denial::new(Reason::TokenExpired, told.clone()).tell(told));
    }
    if issued > now.saturating_add(LEEWAY) {
        let told = told("it was issued at", issued);
        return Err(Denial::new(Reason::TokenNotYetValid, told.clone()).tell(told));
    }
    let lifetime = expires.saturating_sub(issued);
    if !(0..=MAX_LIFETIME).contains(&lifetime) {
        let detail = format!("lives {lifetime} s, at most {MAX_LIFETIME} s are accepted");
        return Err(Denial::new(Reason::LifetimeTooLong, detail));
    }
    Ok(expires)
}

/// The audience is this authority's URL with the hash of the request's keys.
fn check_audience(claims: &Map<String, Value>, at: &Desk<'_>) -> Result<(), Denial> {
    let audience =
        text(claims, "aud").map_err(|denial| Denial { reason: Reason::AudienceWrong, ..denial })?;
    if audience == bound_audience(at.public_url, at.binding) {
        return Ok(());
    }
    match audience.strip_prefix(at.public_url) {
        Some("") => Err(Denial::new(Reason::BindingRequired, "not bound to the request's keys")),
        Some(rest) if rest.starts_with('#') => {
            Err(Denial::new(Reason::BindingWrong, "the audience carries the hash of other keys"))
        }
        _ => {
            let detail = format!("audience is {}, expected {}", shown(audience), at.public_url);
            let told = format!("the audience must be {}", at.public_url);
            Err(Denial::new(Reason::AudienceWrong, detail).tell(told))
        }
    }
}

/// What the claims say of the worker's past.
fn presented(claims: &Map<String, Value>) -> Result<Join, Denial> {
    let invalid = |detail: String| Denial::new(Reason::ClaimInvalid, detail);
    let id = |name: &str| {
        let id = text(claims, name)?;
        let fits = !id.is_empty() && id.len() <= MAX_ID;
        fits.then(|| id.to_owned()).ok_or_else(|| invalid(format!("{name} is not of 1 to {MAX_ID} bytes")))
    };
    let count = |name: &str| {
        let count = number(claims, name)?;
        let fits = (0..=MAX_COUNT).contains(&count);
        fits.then_some(count).ok_or_else(|| invalid(format!("{name} is out of range")))
    };
    let list = claims.get("earlier").and_then(Value::as_array).filter(|list| list.len() <= MAX_EARLIER);
    let earlier: Option<Vec<String>> = list.and_then(|list| {
        let id = |item: &Value| item.as_str().filter(|id| id.len() <= MAX_ID).map(str::to_owned);
        list.iter().map(id).collect()
    });
    let earlier =
        earlier.ok_or_else(|| invalid(format!("earlier is not a list of at most {MAX_EARLIER} ids")))?;
    let join = Join {
        id: id("jti")?,
        generation: count("generation")?,
        attempt: id("attempt")?,
        tries: count("tries")?,
        earlier,
    };
    if usize::try_from(join.tries).is_ok_and(|tries| tries < join.earlier.len()) {
        return Err(invalid("tries is less than what earlier names".to_owned()));
    }
    Ok(join)
}

fn text<'c>(claims: &'c Map<String, Value>, name: &str) -> Result<&'c str, Denial> {
    let wrong = || Denial::new(Reason::ClaimInvalid, format!("{name} is missing or not text"));
    claims.get(name).and_then(Value::as_str).ok_or_else(wrong)
}

fn number(claims: &Map<String, Value>, name: &str) -> Result<i64, Denial> {
    let wrong = || Denial::new(Reason::ClaimInvalid, format!("{name} is missing or not a whole number"));
    claims.get(name).and_then(Value::as_i64).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ids_are_of_the_key_alone() {
        // printf '{"crv":"Ed25519","kty":"OKP","x":"AAAA…"}' | sha256sum, the first half.
        assert_eq!(instance_id(&[0; 32]).len(), 34);
        assert_ne!(instance_id(&[0; 32]), instance_id(&[1; 32]));
        let claims = json!({"iss": instance_id(&[0; 32]), "sub": instance_id(&[0; 32])});
        assert!(instance_of(claims.as_object().unwrap()).is_ok());
    }

    #[test]
    fn a_past_that_cannot_be_is_refused() {
        let good = json!({"jti": "a", "generation": 3, "attempt": "b", "tries": 1, "earlier": ["c"]});
        let good = good.as_object().unwrap();
        assert_eq!(presented(good).unwrap().earlier, ["c"]);
        for (name, value) in [
            ("generation", json!(-1)),
            ("generation", json!(1i64 << 53)),
            ("generation", json!(1.5)),
            ("generation", json!("3")),
            ("tries", json!(0)),
            ("tries", json!(null)),
            ("earlier", json!("c")),
            ("earlier", json!([7])),
            ("earlier", json!(vec!["x"; 257])),
            ("jti", json!("")),
            ("attempt", json!("x".repeat(65))),
        ] {
            let mut claims = good.clone();
            claims.insert(name.to_owned(), value);
            assert_eq!(presented(&claims).unwrap_err().reason, Reason::ClaimInvalid, "{name}");
        }
    }
}
