//! One exchange, from what a job presents to what it gets. The order matters
//! and is said at each step.

use std::net::IpAddr;

use super::Authority;
use super::issue::leaf::RequestContext;
use super::issue::request::{OutputKeys, binding_of};
use super::issue::{Prepared, Signed};
use super::policy::{JoinToken, Policy, PolicyRequest};
use super::store::instances::InstanceRefusal;
use super::store::{Issued, NewIssuance, NewRefusal, record};
use crate::clock::rfc3339;
use crate::denial::{Denial, Reason};
use crate::error::Error;
use crate::join;
use crate::join::verify::{Failure, Identity, VerifyContext};
use crate::random;
use crate::wire::{ExchangeRequest, ExchangeResponse, JoinedInstance, MIN_TTL};

/// The longest text of a caller's that a refusal keeps for a name, in bytes.
const MAX_NAME: usize = 128;

/// The most claims that are kept of a proof that was not verified, in bytes of JSON.
const MAX_UNVERIFIED: usize = 4096;

/// Why an exchange has no answer.
#[derive(Debug)]
pub enum Refused {
    /// The request itself is wrong.
    Malformed(String),
    /// The proof, or what is asked for, is refused and recorded.
    Denied {
        /// Why, and what may be told.
        denial: Box<Denial>,
        /// The name of the record.
        id: String,
    },
    /// Too many refusals: try again after so many seconds.
    TooMany(u64),
    /// The issuer's keys cannot be had.
    Unavailable(String),
    /// Something broke inside.
    Broken(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Broken(error)
    }
}

/// Answers an exchange.
///
/// # Errors
/// [`Refused`]; a refusal has been recorded when this returns.
pub async fn exchange(
    authority: &Authority,
    request: &ExchangeRequest,
    peer: IpAddr,
) -> Result<ExchangeResponse, Refused> {
    // 1. The request's own shape. Nothing is looked up for a malformed one.
    if request.ttl_seconds < i64::from(MIN_TTL) {
        return Err(Refused::Malformed(format!("`ttl_seconds` must be at least {MIN_TTL}")));
    }
    if request.outputs.is_empty() || request.outputs.len() > super::policy::MAX_OUTPUTS {
        let most = super::policy::MAX_OUTPUTS;
        return Err(Refused::Malformed(format!("`outputs` must have one to {most} entries")));
    }
    let keys: Vec<OutputKeys> =
        request.outputs.iter().map(OutputKeys::read).collect::<Result<_, _>>().map_err(Refused::Malformed)?;

    // 2. The policy as it is now, for the whole exchange.
    let policy = authority.policy();
    match decide(authority, &policy, request, keys, peer).await {
        Ok((signed, instance)) => Ok(ExchangeResponse {
            issuance_id: signed.issuance_id,
            cluster: authority.config.cluster.clone(),
            bot: signed.bot,
            expires_at: rfc3339(signed.expires),
            outputs: signed.outputs,
            trust: authority.keys.trust(),
            warnings: signed.warnings,
            instance,
        }),
        Err(Decision::Denied(denial)) => Err(refuse(authority, &policy, request, *denial, peer).await),
        Err(Decision::Malformed(why)) => Err(Refused::Malformed(why)),
        Err(Decision::Unavailable(why)) => Err(Refused::Unavailable(why)),
        Err(Decision::Broken(error)) => Err(Refused::Broken(error)),
    }
}

enum Decision {
    Malformed(String),
    Denied(Box<Denial>),
    Unavailable(String),
    Broken(Error),
}

impl From<Denial> for Decision {
    fn from(denial: Denial) -> Self {
        Self::Denied(Box::new(denial))
    }
}

impl From<Error> for Decision {
    fn from(error: Error) -> Self {
        Self::Broken(error)
    }
}

impl From<Failure> for Decision {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Denied(denial) => Self::Denied(denial),
            Failure::Unavailable(why) => Self::Unavailable(why),
            Failure::Broken(error) => Self::Broken(error),
        }
    }
}

async fn decide(
    authority: &Authority,
    policy: &Policy,
    request: &ExchangeRequest,
    keys: Vec<OutputKeys>,
    peer: IpAddr,
) -> Result<(Signed, Option<JoinedInstance>), Decision> {
    // 3. Which rules apply. The request names its join token, and that names
    //    the method and the issuer: the proof has no say in how it is judged.
    let token = join_token(policy, request)?;

    // 4. Who it is. From here on the claims are the issuer's words.
    let binding = binding_of(&keys);
    let context = VerifyContext {
        public_url: &authority.config.public_url,
        join_token: &token.name,
        binding: &binding,
        clock: &authority.clock,
        issuers: &authority.issuers,
        instances: authority.store.as_ref(),
    };
    let identity = token.verifier.verify(&request.proof, &context).await?;

    // 5. That it holds the keys it wants certified: dear, so not for strangers.
    keys.iter().try_for_each(OutputKeys::check_possession).map_err(Decision::Malformed)?;

    // 6. What it may have.
    let asked = PolicyRequest { outputs: &request.outputs, ttl_seconds: request.ttl_seconds };
    let grant = policy.decide(token, &identity, &asked)?;

    // 7. What will be signed, with serials.
    let now = authority.clock.now();
    let cluster = &authority.config.cluster;
    let context = RequestContext { cluster, provenance: identity.provenance(), peer, now };
    let plan = Prepared::new(grant, keys, &context)?;

    // 8. The proof is used up and the record durable before anything is signed;
    //    a registered worker moves on, or is found to be two.
    let granted_until = plan.expires();
    let used = |why| Denial::new(Reason::TokenUsed, why).with_claims(identity.claims(), true);
    let entry = entry(plan, token, &identity, peer, now);
    let (recorded, generation) = match record::exchange(authority.store.as_ref(), entry).await? {
        Issued::Accepted { plan, generation } => (plan, generation),
        Issued::Used => return Err(used("used before for other keys or outputs, or revoked since").into()),
        Issued::Refused(refusal) => {
            if matches!(refusal, InstanceRefusal::LockedNow { .. } | InstanceRefusal::Ahead { .. }) {
                authority.lists.forget().await;
            }
            return Err(denial_of(refusal).with_claims(identity.claims(), true).into());
        }
    };

    // A lost reply: the same certificates once more, if they would still be granted.
    if recorded.is_retry() {
        let expires = recorded.plan().expires();
        if expires <= now {
            return Err(used("used before, for certificates that have expired since").into());
        }
        if expires > granted_until {
            return Err(used("used before, when certificates were allowed to live longer").into());
        }
    }

    // 9. Signatures, at last.
    let signed = recorded.sign(&authority.keys)?;
    let instance = identity.join().map(|join| join.instance.clone());
    Ok((signed, instance.zip(generation).map(|(id, generation)| JoinedInstance { id, generation })))
}

fn denial_of(refusal: InstanceRefusal) -> Denial {
    match refusal {
        InstanceRefusal::Unknown => {
            Denial::new(Reason::InstanceUnknown, "no such instance with this key and join token")
        }
        InstanceRefusal::Secret => Denial::new(
            Reason::RegistrationRefused,
            "the secret is unknown, used up, expired, or of another join token",
        ),
        InstanceRefusal::Ahead { expected } => {
            let detail = format!("the generation expected is {expected}, and this one was never given out");
            Denial::new(Reason::GenerationAhead, detail)
        }
        InstanceRefusal::Locked => Denial::new(Reason::InstanceLocked, "it was locked before"),
        InstanceRefusal::LockedNow { expected } => {
            let told = format!(
                "it presents an old generation ({expected} was expected), as a copy of its storage would"
            );
            Denial::new(Reason::InstanceLocked, format!("locked now: {told}")).tell(told)
        }
    }
}

fn join_token<'p>(policy: &'p Policy, request: &ExchangeRequest) -> Result<&'p JoinToken, Denial> {
    let denial = match policy.token(&request.token) {
        Some(token) if token.method.name == request.join_method => return Ok(token),
        Some(token) => {
            Denial::new(Reason::MethodMismatch, format!("the join token is for {}", token.method.name))
        }
        None => Denial::new(Reason::TokenUnknown, "no join token of that name"),
    };
    // Garbage is told so whether there is such a join token or not.
    if let Some(method) = join::find(&request.join_method) {
        (method.unverified)(&request.proof)?;
    }
    Err(denial)
}

fn entry(
    plan: Prepared,
    token: &JoinToken,
    identity: &Identity,
    peer: IpAddr,
    now: i64,
) -> NewIssuance<Prepared> {
    NewIssuance {
        time: now,
        bot: token.bot.clone(),
        token: token.name.clone(),
        join_method: token.method.name.to_owned(),
        provenance: identity.provenance().line.clone(),
        claims: serde_json::Value::from(identity.claims().clone()).to_string(),
        peer: peer.to_canonical().to_string(),
        replay: identity.replay().clone(),
        // A proof that is bound to keys is for one request; a platform that binds gives another for another.
        max_uses: if identity.is_bound() { 1 } else { token.max_uses },
        join: identity.join().cloned(),
        plan,
    }
}

/// Records a refusal and names it.
async fn refuse(
    authority: &Authority,
    policy: &Policy,
    request: &ExchangeRequest,
    mut denial: Denial,
    peer: IpAddr,
) -> Refused {
    if let Err(seconds) = authority.refusals.admit(peer, denial.verified) {
        return Refused::TooMany(seconds);
    }
    // A refusal before the proof was read says the same as one after it.
    if denial.claims.is_none()
        && let Some(method) = join::find(&request.join_method)
    {
        denial.claims = (method.unverified)(&request.proof).map_or_else(|no| no.claims, Some);
    }
    let id = match random::id("d") {
        Ok(id) => id,
        Err(error) => return Refused::Broken(error),
    };
    let claims = denial.claims.clone().map(|claims| serde_json::Value::from(claims).to_string());
    let entry = NewRefusal {
        id: id.clone(),
        time: authority.clock.now(),
        token: cut(&request.token),
        join_method: cut(&request.join_method),
        bot: policy.token(&request.token).map(|token| token.bot.clone()),
        reason: denial.reason.row().code,
        detail: denial.detail.clone(),
        // A stranger's words are kept only where they are few: the trail is for ever.
        claims: claims.filter(|claims| denial.verified || claims.len() <= MAX_UNVERIFIED),
        verified: denial.verified,
        peer: peer.to_canonical().to_string(),
    };
    match authority.store.refuse(entry).await {
        Ok(()) => Refused::Denied { denial: Box::new(denial), id },
        Err(error) => Refused::Broken(error),
    }
}

/// A caller's word for a name, short enough to keep.
fn cut(text: &str) -> String {
    let end = (0..=MAX_NAME.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or_default().to_owned()
}
