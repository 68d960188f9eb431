//! The authority's half: believes an assertion by the key of an instance, or
//! registers a new one.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::{BoxFuture, FutureExt as _};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize as _;
use serde_json::{Map, Value};

use super::super::instance::{
    BEGINNING, InstanceJoin, JoinClaims, MAX_COUNT, MAX_EARLIER, MAX_OLDER, is_id, secret_hash,
};
use super::super::jwt::{self, AudienceRules, Jwt, TimeRules, need_text, text};
use super::super::verify::{Failure, Identity, Provenance, Replay, Verifier, VerifyContext};
use super::proof::{ASSERTION, MAX_LIFETIME, REPLACED_BY, REPLACES, SECRET, instance_id};
use crate::clock::{Held, LEEWAY};
use crate::denial::{Denial, Reason};
use crate::text::{shown, word};
use crate::wire::Proof;

/// The longest id of a request or an attempt, in bytes.
const MAX_ID: usize = 64;

/// Lets in whoever is registered with the join token.
#[derive(Debug)]
pub(super) struct InstanceVerifier;

impl Verifier for InstanceVerifier {
    fn verify<'a>(
        &'a self,
        proof: &'a Proof,
        context: &'a VerifyContext<'a>,
    ) -> BoxFuture<'a, Result<Identity, Failure>> {
        async move {
            let jwt = Jwt::of_proof(proof, ASSERTION)?;
            verify(&jwt, proof, context).await.map_err(|mut failure| {
                if let Failure::Denied(denial) = &mut failure {
                    denial.claims.get_or_insert_with(|| jwt.claims.clone());
                }
                failure
            })
        }
        .boxed()
    }

    fn admits_all(&self) -> bool {
        true
    }

    fn takes_unbound(&self) -> bool {
        false
    }

    fn provenance(&self, claims: &Map<String, Value>, join_token: &str) -> Provenance {
        let generation = claims.get("generation").and_then(Value::as_i64).unwrap_or_default();
        let (token, id) = (word(join_token), word(text(claims, "iss")));
        let line = format!("token:{token} instance {id} generation {generation}");
        Provenance { line, fulcio: Vec::new() }
    }

    fn check_claims(&self, claims: &Map<String, Value>) -> Result<(), Denial> {
        instance_of(claims)?;
        join_claims(claims).map(drop)
    }
}

async fn verify(jwt: &Jwt<'_>, proof: &Proof, context: &VerifyContext<'_>) -> Result<Identity, Failure> {
    // What costs nothing comes first.
    let id = signer(jwt)?;
    let good = check_times(&jwt.claims, context)?;
    let shown_key = shown_key(jwt, id)?;
    let secret = proof.field(SECRET).map(|secret| secret_hash(secret.expose()));
    // Before the instance is looked up: an earlier request of the same worker may be using the secret up just
    // now. And before the signature is checked, so that only who has one makes us write.
    let admitted = match &secret {
        Some(secret) => context.instances.admits(secret, context.join_token, context.clock.now()).await?,
        None => false,
    };
    let (key, secret) = match (context.instances.instance(id).await?, secret) {
        // A worker that never heard of its registration presents the secret again, which is used up by now.
        (Some(known), _) if known.join_token == context.join_token => (known.key, None),
        (Some(known), _) => {
            let detail = format!("registered with the join token `{}`", shown(&known.join_token));
            return Err(Denial::new(Reason::InstanceUnknown, detail).into());
        }
        (None, None) => {
            return Err(Denial::new(Reason::InstanceUnknown, "no such instance, and no secret").into());
        }
        (None, Some(secret)) => {
            let key = shown_key.ok_or_else(|| {
                Denial::new(Reason::HeaderRefused, "the header has no `jwk` of the worker to be registered")
            })?;
            if !admitted {
                let detail = "unknown, used up, expired, not good yet, or of another join token";
                return Err(Denial::new(Reason::RegistrationRefused, detail).into());
            }
            (key, Some(secret))
        }
    };
    check_signature(jwt, &key)?;
    // The claims are the worker's own words from here on.
    let worded = check_audience(&jwt.claims, context).and_then(|()| join_claims(&jwt.claims));
    let join = worded.map_err(|denial| denial.with_claims(&jwt.claims, true))?;
    let replaces = match (&secret, proof.field(REPLACES)) {
        (Some(_), Some(word)) => replaced(&Jwt::parse(word.expose())?, id, context).await?,
        _ => None,
    };
    let lasts = MAX_LIFETIME + 2 * LEEWAY;
    let held = Held { until: context.clock.now().saturating_add(lasts), lasts };
    Ok(Identity {
        bound: true,
        replay: Replay {
            issuer: format!("urn:machine-id:instance:{id}"),
            id: join.id.clone(),
            held: Held { until: good.until.max(held.until), lasts },
        },
        provenance: InstanceVerifier.provenance(&jwt.claims, context.join_token),
        join: Some(InstanceJoin { instance: id.to_owned(), key, secret, replaces, claims: join, held }),
        claims: jwt.claims.clone().into(),
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
    let wrong = || Denial::new(Reason::SignatureInvalid, "the signature does not verify");
    jwt.is_signed_by(&DecodingKey::from_ed_der(key)).then_some(()).ok_or_else(wrong)
}

/// The instance that gives its place to the worker `id`: a rotated key is good
/// for nothing more. One that this authority does not know has none to give.
async fn replaced(jwt: &Jwt<'_>, id: &str, context: &VerifyContext<'_>) -> Result<Option<String>, Failure> {
    let old = signer(jwt)?;
    check_times(&jwt.claims, context)?;
    let Some(known) =
        context.instances.instance(old).await?.filter(|known| known.join_token == context.join_token)
    else {
        return Ok(None);
    };
    check_signature(jwt, &known.key)?;
    check_audience(&jwt.claims, context)?;
    if need_text(&jwt.claims, REPLACED_BY)? != id {
        return Err(Denial::new(Reason::ClaimInvalid, format!("{REPLACED_BY} is another worker")).into());
    }
    Ok(Some(old.to_owned()))
}

/// The instance that the claims are of: `iss` and `sub` both say it.
fn instance_of(claims: &Map<String, Value>) -> Result<&str, Denial> {
    let (issuer, subject) = (need_text(claims, "iss")?, need_text(claims, "sub")?);
    if !is_id(issuer) || subject != issuer {
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

/// Until when the assertion is good.
fn check_times(claims: &Map<String, Value>, context: &VerifyContext<'_>) -> Result<Held, Denial> {
    let rules = TimeRules { lifetime: 0..=MAX_LIFETIME, not_before: false };
    jwt::check_times(claims, &rules, context.clock.now())
}

/// The audience is this authority's URL with the hash of the request's keys.
fn check_audience(claims: &Map<String, Value>, context: &VerifyContext<'_>) -> Result<(), Denial> {
    let rules = AudienceRules::bound(context.public_url, context.binding);
    jwt::check_audience(jwt::audience(claims)?, &rules).map(drop)
}

/// What the claims say of the worker's past.
fn join_claims(claims: &Map<String, Value>) -> Result<JoinClaims, Denial> {
    let invalid = |detail: String| Denial::new(Reason::ClaimInvalid, detail);
    let join = JoinClaims::deserialize(claims).map_err(|error| invalid(shown(&error.to_string())))?;
    for (name, id) in [("jti", &join.id), ("attempt", &join.attempt)] {
        if !(1..=MAX_ID).contains(&id.len()) {
            return Err(invalid(format!("{name} is not of 1 to {MAX_ID} bytes")));
        }
    }
    for (name, count) in [("generation", join.generation), ("tries", join.tries)] {
        if !(0..=MAX_COUNT).contains(&count) {
            return Err(invalid(format!("{name} is out of range")));
        }
    }
    if join.earlier.len() > MAX_EARLIER || join.earlier.iter().any(|id| id.len() > MAX_ID) {
        return Err(invalid(format!("earlier is not a list of at most {MAX_EARLIER} ids")));
    }
    if join.older.len() > MAX_OLDER * BEGINNING || !join.older.len().is_multiple_of(BEGINNING) {
        return Err(invalid(format!("older is not at most {MAX_OLDER} times {BEGINNING} bytes")));
    }
    if usize::try_from(join.tries).is_ok_and(|tries| tries < join.named()) {
        return Err(invalid("tries is less than what earlier and older name".to_owned()));
    }
    Ok(join)
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
        assert_eq!(join_claims(good).unwrap().earlier, ["c"]);
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
            ("older", json!("abc")),
            ("older", json!("abcdefgh")),
            ("older", json!("x".repeat(4100))),
            ("older", json!(["abcd"])),
            ("jti", json!("")),
            ("attempt", json!("x".repeat(65))),
        ] {
            let mut claims = good.clone();
            claims.insert(name.to_owned(), value);
            assert_eq!(join_claims(&claims).unwrap_err().reason, Reason::ClaimInvalid, "{name}");
        }
    }
}
