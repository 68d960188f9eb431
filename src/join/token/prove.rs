//! The instance's half: signs an assertion, once it is written down that it does.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, Header};
use serde::Serialize;
use serde_json::json;

use super::super::prove::{Job, LockedStorage, Presented};
use super::proof::{ASSERTION, MAX_LIFETIME, REPLACED_BY, REPLACES, SECRET};
use super::state::{KeptInstance, StorageState};
use crate::clock::Clock;
use crate::error::{Context as _, Error, Kind, Result};
use crate::jws;
use crate::secret::Secret;
use crate::text::shown;
use crate::wire::{ExchangeResponse, Proof};

/// How much longer than the exchange may last an assertion is good, in seconds.
const MARGIN: i64 = 5;

/// What every JWT of an instance says, and what this one says beyond that.
#[derive(Serialize)]
struct Claims<'a, T> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    iat: i64,
    exp: i64,
    #[serde(flatten)]
    more: T,
}

/// Gets a proof: the next assertion of the worker's key.
pub(super) async fn prove(job: &Job<'_>) -> Result<Presented> {
    let storage = job.storage.ok_or_else(|| Error::usage("the join method needs a storage"))?;
    let mut storage = storage.acquire(job.deadline).await?;
    let mut state = read(storage.as_ref(), job)?;
    let secret = registration_secret(&state, job).await?;
    let now = Clock::system().now();
    let (instance, is_new) = match (&secret, state.current.is_some()) {
        (Some(secret), _) => (Some(state.registering(secret)?), true),
        (None, true) => (state.current.as_mut(), false),
        // Its registration may have been accepted, and the answer lost.
        (None, false) => (state.next.as_mut(), true),
    };
    let instance = instance.ok_or_else(|| not_registered(storage.as_ref()))?;
    let join = instance.ask(now)?;
    let assertion = sign(instance, job, now, is_new, &join)?;
    let id = instance.id.clone();
    let what = if is_new { "registering" } else { "joining" };
    (job.say)(&format!("{what} as instance {id}, generation {}", join.generation));
    // Whatever happens to the request, this worker knows that it made it.
    storage.write(&state.text()?)?;
    let mut proof = Proof::default();
    proof.0.insert(ASSERTION.to_owned(), assertion);
    if let (Some(old), true) = (&state.current, secret.is_some()) {
        let word = sign(old, job, now, false, json!({ REPLACED_BY: id }))?;
        proof.0.insert(REPLACES.to_owned(), word);
    }
    if let Some(secret) = secret {
        proof.0.insert(SECRET.to_owned(), secret);
    }
    let settle = move |answer: Option<&ExchangeResponse>| {
        let Some(response) = answer else {
            state.take_back(&id, &join.id);
            return storage.write(&state.text()?);
        };
        let wrong =
            |why: String| Error::new(Kind::Unreachable, why).context("the authority's answer is no good");
        let joined = response.instance.as_ref().filter(|joined| joined.id == id);
        let joined = joined.ok_or_else(|| wrong("it is about another worker".to_owned()))?;
        state.settle(&joined.id, joined.generation).map_err(wrong)?;
        storage.write(&state.text()?)
    };
    let lasts = u64::try_from(MAX_LIFETIME).ok().map(Duration::from_secs);
    Ok(Presented { proof, lasts, settle: Some(Box::new(settle)) })
}

fn read(storage: &dyn LockedStorage, job: &Job<'_>) -> Result<StorageState> {
    let Some(text) = storage.read()? else { return Ok(StorageState::new(job.authority, job.join_token)) };
    let path = storage.path().display();
    let state = StorageState::parse(&text).map_err(|why| {
        Error::usage(format!("cannot use the storage {path}: {why}")).hint(
            "move it away, and register the worker anew with a secret from `machine-id authority token add`",
        )
    })?;
    for (what, kept, asked) in
        [("authority", &state.authority, job.authority), ("join token", &state.join_token, job.join_token)]
    {
        if kept != asked {
            return Err(Error::usage(format!(
                "the storage {path} is of a worker of the {what} {}, not of {}",
                shown(kept),
                shown(asked)
            ))
            .hint("give each authority and join token a --storage of its own"));
        }
    }
    Ok(state)
}

/// A secret that has not registered this worker yet. One that has may lie
/// around for as long as it likes, and its file may be gone.
async fn registration_secret(state: &StorageState, job: &Job<'_>) -> Result<Option<Secret>> {
    let Some(source) = job.registration_secret else { return Ok(None) };
    match source.read(job.env, job.deadline).await {
        Ok(secret) if state.has_spent(&secret) => {
            (job.say)("this worker is registered, so its registration secret is not needed any more");
            Ok(None)
        }
        Ok(secret) => Ok(Some(secret)),
        Err(error) if state.current.is_some() => {
            (job.say)(&format!("this worker is registered, so it goes on without the secret: {error}"));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn not_registered(storage: &dyn LockedStorage) -> Error {
    Error::new(Kind::Proof, format!("no worker is registered in {}", storage.path().display()))
        .hint("ask the authority's operator for a registration secret (`machine-id authority token add`)")
        .hint("the first time, give it in MACHINE_ID_REGISTRATION_SECRET or with --registration-secret-file")
}

/// Signs a JWT of the instance, with its public key where the authority does not know it yet.
fn sign(
    instance: &KeptInstance,
    job: &Job<'_>,
    now: i64,
    is_new: bool,
    more: impl Serialize,
) -> Result<Secret> {
    let (seed, public) = instance.key()?;
    let id = instance.id.as_str();
    let mut header = Header { kid: Some(id.to_owned()), ..Header::new(Algorithm::EdDSA) };
    if is_new {
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(public)});
        header.jwk = serde_json::from_value(jwk).context(Kind::Internal, "the instance's key")?;
    }
    let claims = Claims { iss: id, sub: id, aud: job.audience, iat: now, exp: expiry(job, now), more };
    jws::sign_eddsa(&seed, header, &claims)
}

/// As long as the exchange may last, and no longer than is accepted.
fn expiry(job: &Job<'_>, now: i64) -> i64 {
    let left = job.deadline.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
    let lifetime = i64::try_from(left.as_secs()).unwrap_or(MAX_LIFETIME).saturating_add(MARGIN);
    now.saturating_add(lifetime.min(MAX_LIFETIME))
}
