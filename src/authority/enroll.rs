//! One exchange, from what a job presents to what it gets. The order matters
//! and is said at each step.

use std::net::IpAddr;
use std::sync::Arc;

use super::Authority;
use super::issue::Prepared;
use super::issue::leaf::RequestContext;
use super::issue::request::{OutputKeys, binding_of, check_leaves};
use super::keys;
use super::limits::Exceeded;
use super::policy::{Grant, JoinToken, MAX_OUTPUTS, Policy, PolicyRequest};
use super::store::instances::InstanceRefusal;
use super::store::locks::{self, Lock, LockKind};
use super::store::{Issued, NewIssuance, NewRefusal, Restored, Stranger, record};
use crate::clock::{LEEWAY, rfc3339};
use crate::denial::{Denial, Reason};
use crate::error::{Error, Result};
use crate::join;
use crate::join::issuers::Unavailable;
use crate::join::verify::{Failure, Identity, VerifyContext};
use crate::random;
use crate::wire::{ExchangeRequest, ExchangeResponse, JoinedInstance, MIN_TTL};

/// How often an exchange is planned, where the CAs are others by the time that it is recorded.
const PLANS: usize = 5;

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
    /// The join token, or the run, has been given what it may have in an hour.
    Quota(Exceeded),
    /// Whoever vouches for the proof cannot be asked now.
    Unavailable(Unavailable),
    /// The CA that would sign is not good now.
    CaNotValid(String),
    /// The CAs were changed each time that it was planned.
    CasChange,
    /// Something broke inside.
    Broken(Error),
}

/// One exchange on its way.
struct Exchange<'a> {
    authority: &'a Authority,
    policy: &'a Policy,
    request: &'a ExchangeRequest,
    peer: IpAddr,
    /// When the store was last put back.
    restored: Option<Restored>,
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
    let is_empty = request.outputs.is_empty() && request.leaves.is_empty();
    if is_empty || request.outputs.len() > MAX_OUTPUTS {
        return Err(Refused::Malformed(format!("`outputs` must have one to {MAX_OUTPUTS} entries")));
    }
    check_leaves(&request.leaves).map_err(Refused::Malformed)?;
    let keys: Vec<OutputKeys> =
        request.outputs.iter().map(OutputKeys::read).collect::<Result<_, _>>().map_err(Refused::Malformed)?;

    // 2. The policy as it is now, for the whole exchange.
    let policy = authority.policy();
    let restored = authority.store.restored();
    let exchange = Exchange { authority, policy: &policy, request, peer, restored };
    match exchange.decide(keys).await {
        Ok(response) => Ok(response),
        Err(Ended::Denied(denial)) => Err(exchange.refuse(*denial).await.unwrap_or_else(Refused::Broken)),
        Err(Ended::Otherwise(refused)) => Err(refused),
    }
}

/// How an exchange ends without certificates.
enum Ended {
    /// It is to be recorded yet.
    Denied(Box<Denial>),
    Otherwise(Refused),
}

impl<E: Into<Failure>> From<E> for Ended {
    fn from(failure: E) -> Self {
        match failure.into() {
            Failure::Denied(denial) => Self::Denied(denial),
            Failure::Unavailable(why) => Self::Otherwise(Refused::Unavailable(why)),
            Failure::Broken(error) => Self::Otherwise(Refused::Broken(error)),
        }
    }
}

impl Exchange<'_> {
    async fn decide(&self, keys: Vec<OutputKeys>) -> Result<ExchangeResponse, Ended> {
        let Self { authority, request, .. } = *self;
        // 3. Which rules apply. The request names its join token, and that names
        //    the method and the issuer: the proof has no say in how it is judged.
        let token = self.join_token()?;

        // 4. Who it is. From here on the claims are the issuer's words.
        let binding = binding_of(&keys, &request.leaves);
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
        let malformed = |why| Ended::Otherwise(Refused::Malformed(why));
        keys.iter().try_for_each(OutputKeys::check_possession).map_err(malformed)?;

        // 6. to 9., by the CAs as they are: where they are others by the time that it is recorded, once more.
        for _ in 0..PLANS {
            if let Some(response) = self.issue(token, &identity, keys.clone()).await? {
                return Ok(response);
            }
            authority.hear().await?;
        }
        Err(Ended::Otherwise(Refused::CasChange))
    }

    /// Issues by the CAs as they were last heard of; nothing where they are others by now.
    async fn issue(
        &self,
        token: &JoinToken,
        identity: &Identity,
        keys: Vec<OutputKeys>,
    ) -> Result<Option<ExchangeResponse>, Ended> {
        let Self { authority, peer, .. } = *self;
        // 6. What it may have.
        let grant = self.grant(token, identity)?;

        // 7. What will be signed, with serials.
        let now = authority.clock.now();
        let cluster = &authority.config.cluster;
        let ca_keys = authority.keys();
        let tls_ca = ca_keys.tls_validity();
        let wants_tls = grant.outputs.iter().any(|output| output.tls.is_some());
        let logs_in = grant.outputs.iter().any(|output| output.ssh.as_ref().is_some_and(|ssh| !ssh.host));
        if let Some(why) = tls_ca.fault(now).filter(|_| wants_tls) {
            return Err(Ended::Otherwise(Refused::CaNotValid(format!("the TLS CA {why}"))));
        }
        let signing = ca_keys.signing();
        let context = RequestContext {
            cluster,
            issuer: &authority.config.public_url,
            join_method: token.method.name,
            claims: identity.claims(),
            provenance: identity.provenance(),
            peer,
            now,
            tls_ca,
            signing,
        };
        let bot = grant.bot.clone();
        let plan = Prepared::new(grant, keys, &context)?;
        let denied = |denial: Denial| Err(denial.with_claims(identity.claims(), true).into());
        if plan.is_too_long() {
            self.charge(token, identity, 1)?;
            let told = "the claims of this job's token are too long for a proof that leaf clusters read";
            return denied(Denial::open(Reason::LeafNotGranted, told.to_owned()));
        }
        let count = plan.count();
        // Nothing is used up for what could not be signed here.
        if !plan.is_signed_by(&ca_keys) {
            return Err(keys::lacking().into());
        }
        // What a job that logs in somewhere is not to believe; where that cannot be told, nothing is used up.
        let revoked_hosts = match logs_in {
            true => Some(authority.revoked_hosts().await?.as_ref().to_owned()),
            false => None,
        };
        self.charge(token, identity, count)?;

        // 8. The proof is used up and the record durable before anything is signed;
        //    a registered worker moves on, or is found to be two.
        let granted: Vec<i64> = plan.ends().collect();
        let used = |why| denied(Denial::new(Reason::TokenUsed, why));
        let entry = self.entry(token, bot, identity, (now, ca_keys.set().number));
        let recorded = record::exchange(authority.store.as_ref(), entry, plan).await;
        if matches!(recorded, Err(_) | Ok(Issued::Outdated)) {
            authority.issuances.give_back(&token.name, run_of(identity), count);
        }
        let (recorded, generation) = match recorded? {
            Issued::Accepted { plan, generation } => (plan, generation),
            Issued::Used => return used("used before for other keys or outputs, or revoked since"),
            Issued::Refused(refusal) => return denied(denial_of(refusal)),
            Issued::Locked(refused) => {
                let locks::Refused { lock, met } = *refused;
                // First of all, so that another name does not let it in.
                if !met.is_empty() {
                    authority.store.meet(lock.id.clone(), met).await?;
                }
                return denied(locked(&lock));
            }
            Issued::Outdated => return Ok(None),
        };

        // A lost reply: the same certificates once more, if they would still be granted.
        if recorded.is_retry() {
            if recorded.plan().ends().any(|end| end <= now) {
                return used("used before, for certificates that have expired since");
            }
            if recorded.plan().ends().zip(granted).any(|(recorded, granted)| recorded > granted) {
                return used("used before, when certificates were allowed to live longer");
            }
            if !recorded.plan().is_signed_by(&ca_keys) {
                return used("used before, for certificates of a CA that signs no more");
            }
        }

        // 9. Signatures, at last.
        let instance = identity.join().map(|join| join.instance.clone()).zip(generation);
        let instance = instance.map(|(id, generation)| JoinedInstance { id, generation });
        let cluster = cluster.clone();
        let signed = ca_keys.work(move |keys| recorded.sign(keys, &cluster, instance)).await;
        if signed.is_err() {
            // A job asks again and again for what is recorded, and is charged when it gets it.
            authority.issuances.give_back(&token.name, run_of(identity), count);
        }
        Ok(Some(ExchangeResponse { revoked_hosts, ..signed? }))
    }

    /// What the policy gives for this proof, if its use would be remembered.
    fn grant(&self, token: &JoinToken, identity: &Identity) -> Result<Grant, Ended> {
        let Self { policy, request, .. } = *self;
        let asked = PolicyRequest {
            outputs: &request.outputs,
            leaves: &request.leaves,
            ttl_seconds: request.ttl_seconds,
            public_url: Some(&self.authority.config.public_url),
        };
        let decided = policy.decide(token, identity, &asked);
        let denial = match decided.and_then(|grant| self.check_remembered(identity).map(|()| grant)) {
            Ok(grant) => return Ok(grant),
            Err(denial) => denial,
        };
        // A job that is let in and refused all the same is written into the trail each time.
        if denial.reason.is_of_admitted() {
            self.charge(token, identity, 1)?;
        }
        Err(denial.into())
    }

    /// Takes so many certificates from the quotas of the join token and of the run.
    fn charge(&self, token: &JoinToken, identity: &Identity, count: usize) -> Result<(), Ended> {
        let charged = self.authority.issuances.charge(&token.name, run_of(identity), count);
        charged.map_err(|exceeded| Ended::Otherwise(Refused::Quota(exceeded)))
    }

    fn join_token(&self) -> Result<&JoinToken, Denial> {
        let denial = match self.policy.token(&self.request.token) {
            Some(token) if token.method.name == self.request.join_method => return Ok(token),
            Some(token) => Denial::new(
                Reason::MethodMismatch,
                format!("the {} is for {}", token.noun(), token.method.name),
            ),
            None => Denial::new(Reason::TokenUnknown, "no join token of that name"),
        };
        // Garbage is told so whether there is such a join token or not.
        if let Some(method) = join::find(&self.request.join_method) {
            (method.unverified)(&self.request.proof)?;
        }
        Err(denial)
    }

    /// Whether the proof would be remembered if it had been used: not one that
    /// was made before the store was put back. Of a worker's, its generation decides.
    fn check_remembered(&self, identity: &Identity) -> Result<(), Denial> {
        let (Some(restored), None) = (self.restored, identity.join()) else {
            return Ok(());
        };
        // A bound one is of no use to anybody but the job, so that other clocks need not be allowed for.
        let leeway = if identity.is_bound() { 0 } else { LEEWAY };
        let from = restored.remembered_from(self.authority.clock.now()).saturating_add(leeway);
        if identity.replay().held.made() >= from {
            return Ok(());
        }
        let told = format!(
            "it is from before the authority's store was put back at {}, which knows nothing of its use",
            rfc3339(restored.time)
        );
        Err(Denial::new(Reason::TokenUsed, told.clone()).tell(told).with_claims(identity.claims(), true))
    }

    fn entry(
        &self,
        token: &JoinToken,
        bot: String,
        identity: &Identity,
        (now, cas): (i64, i64),
    ) -> NewIssuance {
        NewIssuance {
            time: now,
            bot,
            token: token.name.clone(),
            join_method: token.method.name.to_owned(),
            provenance: identity.provenance().line.clone(),
            claims: Arc::clone(identity.claims()),
            peer: self.peer.to_canonical().to_string(),
            replay: identity.replay().clone(),
            // A proof that is bound to keys is for one request; a platform that binds gives another for another.
            max_uses: if identity.is_bound() { 1 } else { token.max_uses },
            join: identity.join().cloned(),
            restored: self.restored.map(|restored| restored.time),
            cas,
        }
    }

    /// Records a refusal and names it.
    async fn refuse(&self, mut denial: Denial) -> Result<Refused> {
        let Self { authority, policy, request, peer, .. } = *self;
        if let Err(seconds) = authority.refusals.admit(peer, denial.verified) {
            return Ok(Refused::TooMany(seconds));
        }
        // A refusal before the proof was read says the same as one after it.
        if denial.claims.is_none()
            && let Some(method) = join::find(&request.join_method)
        {
            denial.claims = (method.unverified)(&request.proof).map_or_else(|no| no.claims, Some);
        }
        let id = random::id("d")?;
        let entry = NewRefusal {
            id: id.clone(),
            time: authority.clock.now(),
            token: request.token.clone(),
            join_method: request.join_method.clone(),
            bot: policy
                .token(&request.token)
                .and_then(|token| token.bot_of(denial.claims.as_ref().filter(|_| denial.verified))),
            reason: denial.reason.row().code,
            detail: denial.detail.clone(),
            claims: denial.claims.clone(),
            verified: denial.verified,
            peer: peer.to_canonical().to_string(),
            stranger: denial.is_of_stranger().then_some(match denial.verified {
                true => Stranger::Verified,
                false => Stranger::Unverified,
            }),
        };
        authority.store.refuse(entry).await?;
        Ok(Refused::Denied { denial: Box::new(denial), id })
    }
}

/// What the quota of a run counts by: the line that names it, or the worker that stays.
fn run_of(identity: &Identity) -> &str {
    identity.join().map_or(&identity.provenance().line, |join| &join.instance)
}

/// What the lock says is for the job; whom it is about, for the operator alone, unless that is what the job asked for.
fn locked(lock: &Lock) -> Denial {
    let message = lock.message.as_deref();
    let why = message.map_or_else(String::new, |message| format!(": {message}"));
    let denial = Denial::new(Reason::Locked, format!("lock {} of {}{why}", lock.id, lock.words()));
    if lock.kind == LockKind::Host {
        return denial.tell(format!("the host {} was thrown out, and gets no certificate{why}", lock.value));
    }
    message.map(str::to_owned).into_iter().fold(denial, Denial::tell)
}

fn denial_of(refusal: InstanceRefusal) -> Denial {
    match refusal {
        InstanceRefusal::Unknown => {
            Denial::new(Reason::InstanceUnknown, "no such instance with this key and join token")
        }
        InstanceRefusal::Secret => Denial::new(
            Reason::RegistrationRefused,
            "the secret is unknown, used up, expired, not good yet, or of another join token",
        ),
        InstanceRefusal::Ahead { expected } => {
            let detail = format!(
                "the generation expected is {expected}, and this one was never given out, unless by a store that this \
                 one is an older copy of"
            );
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
