//! The authority's half of a join method: what a verifier is told about the
//! request, and who it says that the job is.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::{Map, Value};

use super::instance::{InstanceJoin, InstanceLookup};
use super::issuers::{Issuers, Unavailable};
use super::rules::Rule;
use crate::clock::{Clock, Held};
use crate::denial::Denial;
use crate::error::{Error, Result};
use crate::wire::Proof;

/// The authority's half of a method, configured by one join token.
pub trait Verifier: Send + Sync + fmt::Debug {
    /// Believes the proof, or says why not.
    fn verify<'a>(
        &'a self,
        proof: &'a Proof,
        context: &'a VerifyContext<'a>,
    ) -> BoxFuture<'a, Result<Identity, Failure>>;

    /// The join token's rules: one of them must match.
    fn rules(&self) -> &[Rule] {
        &[]
    }

    /// Whose tokens it takes, where they are OIDC tokens.
    fn issuer(&self) -> Option<&str> {
        None
    }

    /// The same issuer, where it is asked for its keys, and the pins of its CA where it has some.
    fn asks(&self) -> Option<(&str, Option<&str>)> {
        None
    }

    /// The rules of which none may match.
    fn denials(&self) -> &[Rule] {
        &[]
    }

    /// What every proof that it believes has in a claim, beside the rules: a claim's name, and a glob.
    fn fixed(&self) -> Vec<(&str, String)> {
        Vec::new()
    }

    /// Whether everybody whom it believes is let in, and it has no rules.
    fn admits_all(&self) -> bool {
        false
    }

    /// Whether a proof that is not bound to the request's keys is believed too.
    fn takes_unbound(&self) -> bool {
        true
    }

    /// Which run the claims of a verified proof are of; `join_token` is the one that the request names.
    fn provenance(&self, _claims: &Map<String, Value>, _join_token: &str) -> Provenance {
        Provenance::default()
    }

    /// What [`Verifier::verify`] asks of claims, beside the rules: all that can
    /// be told without the proof's signature, audience and time.
    fn check_claims(&self, claims: &Map<String, Value>) -> Result<(), Denial>;

    /// Assumes that the claims are of a proof that is good in itself.
    fn assume(&self, claims: Map<String, Value>) -> Result<AssumedIdentity, Denial> {
        self.check_claims(&claims).map_err(|denial| denial.with_claims(&claims, false))?;
        Ok(AssumedIdentity { claims })
    }
}

/// Who a job would be, by claims that nobody verified. Nothing is issued for
/// one: it answers "would this job get in?" and no more. Only
/// [`Verifier::assume`] makes one.
#[derive(Clone, Debug)]
pub struct AssumedIdentity {
    claims: Map<String, Value>,
}

impl AssumedIdentity {
    /// The claims.
    pub fn claims(&self) -> &Map<String, Value> {
        &self.claims
    }
}

/// What the authority tells a verifier about the request.
#[derive(Debug)]
pub struct VerifyContext<'a> {
    /// The authority's own URL: the audience that proofs must carry.
    pub public_url: &'a str,
    /// The join token that the request names.
    pub join_token: &'a str,
    /// The hash over the request's public keys.
    pub binding: &'a str,
    /// The time.
    pub clock: &'a Clock,
    /// The issuers' key sets.
    pub issuers: &'a Issuers,
    /// The registered instances.
    pub instances: &'a dyn InstanceLookup,
}

/// Why there is no [`Identity`].
#[derive(Debug)]
pub enum Failure {
    /// The proof is no good.
    Denied(Box<Denial>),
    /// It could not be judged: the issuer's keys cannot be had. Not a refusal;
    /// the job may try again.
    Unavailable(Unavailable),
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
    pub(super) claims: Arc<Map<String, Value>>,
    pub(super) bound: bool,
    pub(super) replay: Replay,
    pub(super) provenance: Provenance,
    pub(super) join: Option<InstanceJoin>,
}

/// What keeps a proof from being used twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// Who issued the proof.
    pub issuer: String,
    /// What names it among the issuer's: its `jti`, or a hash of its content.
    pub id: String,
    /// How long it must be remembered.
    pub held: Held,
}

/// Which run the proof is of, for certificates, logs and the audit trail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Provenance {
    /// One line: `github:octo-org/app@refs/heads/main run 123 attempt 1`. Each claim in it is one
    /// [`word`](crate::text::word), so that none says anything of another.
    pub line: String,
    /// Fulcio's extensions: the last arc of 1.3.6.1.4.1.57264.1 and the text.
    pub fulcio: Vec<(u64, String)>,
}

impl Identity {
    /// The verified claims.
    pub fn claims(&self) -> &Arc<Map<String, Value>> {
        &self.claims
    }

    /// Whether the proof is bound to the request's keys.
    pub fn is_bound(&self) -> bool {
        self.bound
    }

    /// What keeps it from being used twice.
    pub fn replay(&self) -> &Replay {
        &self.replay
    }

    /// Which run it is of.
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// Which registered instance it is, where it is one, and what of it must
    /// hold in the transaction that uses the proof up.
    pub fn join(&self) -> Option<&InstanceJoin> {
        self.join.as_ref()
    }

    /// One of given claims, for tests of what comes after verification.
    #[cfg(test)]
    pub(crate) fn for_test(claims: Map<String, Value>) -> Self {
        let replay = Replay {
            issuer: "https://issuer.test".to_owned(),
            id: "test".to_owned(),
            held: Held { until: 0, lasts: 0 },
        };
        let provenance = Provenance { line: "test:run 1".to_owned(), fulcio: Vec::new() };
        Self { claims: claims.into(), bound: true, replay, provenance, join: None }
    }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
