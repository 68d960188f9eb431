//! Join methods: how a job proves who it is.
//!
//! Each method is one file with both halves: what the job presents
//! ([`JoinMethod::prove`]) and what the authority believes
//! ([`Verifier::verify`]). The registry [`METHODS`] is all that names them;
//! this module knows neither the client nor the authority.

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::time::Instant;

use serde_json::{Map, Value};

use crate::clock::Clock;
use crate::denial::Denial;
use crate::document::{Mapping, Mistake};
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::net::Platform;
use crate::secret::Secret;
use crate::wire::{ExchangeResponse, Proof};

pub mod any_issuer;
pub mod azure_devops;
pub mod bitbucket;
pub mod buildkite;
pub mod circleci;
mod command;
mod endpoint;
pub mod github;
pub mod gitlab;
pub mod iam;
pub mod instance;
pub mod jwt;
pub mod kubernetes;
pub mod oidc;
pub mod rules;
mod source;
pub mod spacelift;
pub mod terraform_cloud;
pub mod token;

pub use source::Source;

use instance::{Membership, Registry};
use rules::{Field, Guard, Rule};

/// Every join method. A new one is a file and a line here. The first that an
/// environment is of is taken: a CI system's job in a pod is that CI system's.
pub static METHODS: &[&dyn JoinMethod] = &[
    &github::GitHub,
    &circleci::CircleCi,
    &gitlab::GitLab,
    &buildkite::Buildkite,
    &bitbucket::Bitbucket,
    &azure_devops::AzureDevOps,
    &spacelift::Spacelift,
    &terraform_cloud::TerraformCloud,
    &iam::Iam,
    &token::Token,
    &any_issuer::AnyIssuer,
    &kubernetes::Kubernetes,
];

/// A future on the heap, as traits in a registry need it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A way for a job to prove who it is.
pub trait JoinMethod: Sync {
    /// Its name: `--join-method NAME`, `join_method: NAME`, and the key of its section in a join token.
    fn name(&self) -> &'static str;

    /// What it is for, for help and the documentation.
    fn summary(&self) -> &'static str;

    /// Whether this environment is a job of the platform.
    fn detects(&self, env: &Environment) -> bool;

    /// Where the platform put a token for this job, where that is how it
    /// hands them out. The token is the proof then, and nothing is asked for.
    fn source(&self, _env: &Environment) -> Option<Source> {
        None
    }

    /// Whether its proof is an OIDC token, so that one can be handed over by hand.
    fn takes_id_token(&self) -> bool {
        true
    }

    /// The client's half, where there is no [`JoinMethod::source`]: gets a
    /// fresh proof.
    ///
    /// # Errors
    /// `Kind::Proof` where the platform gives none or refuses,
    /// `Kind::Unreachable` where it did not answer in time.
    fn prove<'a>(&'a self, job: &'a Job<'a>) -> BoxFuture<'a, Result<Presented>>;

    /// Whether [`JoinMethod::prove`] can get another proof later in the same
    /// job; if not, why, in words that follow "cannot renew: ".
    ///
    /// # Errors
    /// The reason.
    fn renews(&self, _env: &Environment) -> Result<(), String> {
        Ok(())
    }

    /// What a proof says of its job, believed by nobody: to show callers their own.
    ///
    /// # Errors
    /// Where it is no proof of this method at all.
    fn unverified(&self, proof: &Proof) -> Result<Map<String, Value>, Denial> {
        jwt::unverified(proof)
    }

    /// The claims that tell a job's author most, beside `iss`, `aud` and `sub`.
    fn telling(&self) -> &'static [&'static str] {
        &[]
    }

    /// The fields that its rules may have: what of a job's claims matters.
    fn fields(&self) -> &'static [Field];

    /// Values of claims that let nobody in unless a rule names them.
    fn guards(&self) -> &'static [Guard] {
        &[]
    }

    /// Whether a job can have its proof bound to its keys, so that a join
    /// token may require it.
    fn can_bind(&self) -> bool {
        false
    }

    /// Whether its rules may also stand as `allow` beside the section, as
    /// Teleport's tokens of this method have them.
    fn takes_rules_beside(&self) -> bool {
        false
    }

    /// Whether its workers stay: each registers once, with a secret that the
    /// authority gives out, and keeps a [`Storage`] from then on.
    fn registers(&self) -> bool {
        false
    }

    /// Whether its jobs are runs of a CI system, which end, and not machines that stay.
    fn is_ci(&self) -> bool {
        true
    }

    /// The authority's half: reads the method's section of a join token.
    ///
    /// # Errors
    /// The first mistake in it.
    fn configure(&self, section: Mapping<'_>) -> Result<Box<dyn Verifier>, Mistake>;
}

/// The method of that name.
#[must_use]
pub fn method(name: &str) -> Option<&'static dyn JoinMethod> {
    METHODS.iter().copied().find(|method| method.name() == name)
}

/// Every method's name, in the order of the registry.
#[must_use]
pub fn names() -> Vec<&'static str> {
    METHODS.iter().map(|method| method.name()).collect()
}

/// The method whose platform this environment is.
#[must_use]
pub fn detect(env: &Environment) -> Option<&'static dyn JoinMethod> {
    METHODS.iter().copied().find(|method| method.detects(env))
}

/// What a client presents to the authority.
pub struct Presented {
    /// The proof.
    pub proof: Proof,
    /// What is to be done once it is accepted; dropped where it is not.
    pub pending: Option<Box<dyn Pending>>,
}

impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presented").field("proof", &self.proof).finish_non_exhaustive()
    }
}

impl From<Proof> for Presented {
    fn from(proof: Proof) -> Self {
        Self { proof, pending: None }
    }
}

/// What a client has still to do when it proved who it is.
pub trait Pending: Send {
    /// The authority believed the proof; before anything is done with its answer.
    ///
    /// # Errors
    /// Where what must be kept for the next time cannot be.
    fn accepted(self: Box<Self>, response: &ExchangeResponse) -> Result<()>;
}

/// A private directory that a worker keeps from one run to the next.
pub trait Storage: Sync + fmt::Debug {
    /// Takes it for one exchange; others wait until the value goes.
    ///
    /// # Errors
    /// `Kind::Usage` where it is none that can be used, `Kind::Proof` where it
    /// is not free before the deadline or cannot be read or written.
    fn hold(&self, deadline: Instant) -> BoxFuture<'_, Result<Box<dyn Held>>>;
}

/// A [`Storage`] that nobody else uses now.
pub trait Held: Send {
    /// What is kept in it; nothing in a new one.
    ///
    /// # Errors
    /// `Kind::Usage` where it is somebody else's or others could read it, `Kind::Proof` where it cannot be read.
    fn read(&self) -> Result<Option<Secret>>;

    /// Replaces what is kept, whole: when this returns it is there whatever
    /// happens next, a power cut included; before, what was kept is.
    ///
    /// # Errors
    /// `Kind::Proof`.
    fn write(&mut self, content: &str) -> Result<()>;

    /// Its path, for messages.
    fn path(&self) -> &Path;
}

/// What a client tells a method about the job's request.
pub struct Job<'a> {
    /// The job's environment.
    pub env: &'a Environment,
    /// The authority's URL.
    pub authority: &'a str,
    /// The join token's name.
    pub token: &'a str,
    /// Where a method that [registers](JoinMethod::registers) keeps its state.
    pub storage: Option<&'a dyn Storage>,
    /// Where its registration secret is, if the user says so.
    pub registration_secret: Option<&'a Source>,
    /// The audience that the proof must carry where it can: `PUBLIC_URL#BINDING`.
    pub audience: &'a str,
    /// The way to the platform's endpoints.
    pub platform: &'a Platform,
    /// When to give up.
    pub deadline: Instant,
    /// Says a step, for `-v`.
    pub say: &'a (dyn Fn(&str) + Sync),
    /// Says what the user should know even where it works.
    pub warn: &'a (dyn Fn(&str) + Sync),
}

impl Job<'_> {
    /// The authority's URL: the audience without the hash of the keys.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.audience.split('#').next().unwrap_or_default()
    }
}

impl fmt::Debug for Job<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("env", self.env).field("audience", &self.audience).finish_non_exhaustive()
    }
}

/// The authority's half of a method, configured by one join token.
pub trait Verifier: Send + Sync + fmt::Debug {
    /// Believes the proof, or says why not.
    fn verify<'a>(&'a self, proof: &'a Proof, at: &'a Desk<'a>) -> BoxFuture<'a, Result<Identity, Failure>>;

    /// The join token's rules: one of them must match.
    fn rules(&self) -> &[Rule];

    /// Whether everybody whom it believes is let in, and it has no rules.
    fn admits_all(&self) -> bool {
        false
    }

    /// Whether a proof that is not bound to the request's keys is believed too.
    fn takes_unbound(&self) -> bool {
        true
    }

    /// Supposes that the claims are of a proof that is good in itself: its
    /// signature, audience and time are not judged. What else
    /// [`Verifier::verify`] asks of claims is.
    ///
    /// # Errors
    /// Why no job with these claims is believed.
    fn suppose(&self, claims: Map<String, Value>) -> Result<Supposed, Denial> {
        Ok(Supposed { claims })
    }
}

/// Who a job would be, by claims that nobody verified. Nothing is issued for
/// one: it answers "would this job get in?" and no more. Only
/// [`Verifier::suppose`] makes one.
#[derive(Clone, Debug)]
pub struct Supposed {
    claims: Map<String, Value>,
}

impl Supposed {
    /// The claims.
    #[must_use]
    pub fn claims(&self) -> &Map<String, Value> {
        &self.claims
    }
}

/// What the authority tells a verifier about the request.
#[derive(Debug)]
pub struct Desk<'a> {
    /// The authority's own URL: the audience that tokens must carry.
    pub public_url: &'a str,
    /// The join token that the request names.
    pub token: &'a str,
    /// The hash over the request's public keys.
    pub binding: &'a str,
    /// The time.
    pub clock: &'a Clock,
    /// The issuers' key sets.
    pub issuers: &'a oidc::Issuers,
    /// The registered workers.
    pub registry: &'a dyn Registry,
}

/// Why there is no [`Identity`].
#[derive(Debug)]
pub enum Failure {
    /// The proof is no good.
    Denied(Box<Denial>),
    /// It could not be judged: the issuer's keys cannot be had. Not a refusal;
    /// the job may try again.
    Unavailable(String),
    /// Something broke inside.
    Broken(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Broken(error)
    }
}

impl From<Denial> for Failure {
    fn from(denial: Denial) -> Self {
        Self::Denied(Box::new(denial))
    }
}

/// Who a job is, once verified. Only [`Verifier::verify`] makes one.
#[derive(Clone, Debug)]
pub struct Identity {
    claims: Map<String, Value>,
    bound: bool,
    replay: Replay,
    provenance: Provenance,
    membership: Option<Membership>,
}

/// What keeps a proof from being used twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// Who issued the proof.
    pub issuer: String,
    /// What names it among the issuer's: its `jti`, or a hash of its content.
    pub id: String,
    /// Until when it must be remembered, in seconds since 1970.
    pub held_until: i64,
}

/// Which run the proof is of, for certificates, logs and the audit trail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Provenance {
    /// One line: `github:octo-org/app@refs/heads/main run 123 attempt 1`.
    pub line: String,
    /// Fulcio's extensions: the last arc of 1.3.6.1.4.1.57264.1 and the text.
    pub fulcio: Vec<(u64, String)>,
}

impl Identity {
    /// The verified claims.
    #[must_use]
    pub fn claims(&self) -> &Map<String, Value> {
        &self.claims
    }

    /// Whether the proof is bound to the request's keys.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        self.bound
    }

    /// What keeps it from being used twice.
    #[must_use]
    pub fn replay(&self) -> &Replay {
        &self.replay
    }

    /// Which run it is of.
    #[must_use]
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// Which registered worker it is, where it is one, and what of it must
    /// hold in the transaction that uses the proof up.
    #[must_use]
    pub fn membership(&self) -> Option<&Membership> {
        self.membership.as_ref()
    }

    /// One of given claims, for tests of what comes after verification.
    #[cfg(test)]
    pub(crate) fn for_test(claims: Map<String, Value>) -> Self {
        let replay =
            Replay { issuer: "https://issuer.test".to_owned(), id: "test".to_owned(), held_until: 0 };
        let provenance = Provenance { line: "test:run 1".to_owned(), fulcio: Vec::new() };
        Self { claims, bound: true, replay, provenance, membership: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names = names();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), METHODS.len());
        assert!(METHODS.iter().all(|method| !method.summary().is_empty()));
    }
}
