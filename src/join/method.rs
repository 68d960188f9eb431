//! What there is to know of a join method: data, and a function for each side.

use futures_util::future::BoxFuture;
use serde_json::{Map, Value};

use super::example::Example;
use super::jwt;
use super::prove::{Job, Presented};
use super::rules::{Field, claim};
use super::source::TokenSource;
use super::verify::Verifier;
use crate::denial::Denial;
use crate::document::{Mapping, Mistakes};
use crate::environment::Environment;
use crate::error::Result;
use crate::wire::Proof;

/// The client's half: gets a fresh proof, where there is no [`Method::source`].
/// `Kind::Proof` where the platform gives none or refuses, `Kind::Unreachable`
/// where it did not answer in time.
pub type Prove = for<'a> fn(&'a Job<'a>) -> BoxFuture<'a, Result<Presented>>;

/// The authority's half: what the method's section of a join token configures.
pub type Configure = fn(Mapping<'_>) -> Configured;

/// See [`Configure`].
pub type Configured = Result<Box<dyn Verifier>, Mistakes>;

/// A way for a job to prove who it is. [`Method::new`] has what most methods
/// have; each names only what differs.
#[derive(Debug)]
pub struct Method {
    /// Its name: `--join-method NAME`, `join_method: NAME`, and the key of its section in a join token.
    pub name: &'static str,
    /// What other tools call it, or what comes near it, and how that is done here.
    pub elsewhere: &'static [(&'static str, &'static str)],
    /// What it is for, for help and the documentation.
    pub summary: &'static str,
    /// Whether this environment is a job of the platform.
    pub detects: fn(&Environment) -> bool,
    /// Where the platform put a token for this job, where that is how it
    /// hands them out. The token is the proof then, and nothing is asked for.
    pub source: fn(&Environment) -> Option<TokenSource>,
    /// The variables with secrets that are for machine-id alone, which COMMAND does not get.
    pub private_variables: &'static [&'static str],
    /// Whether its proof is an OIDC token, so that one can be handed over by hand.
    pub takes_id_token: bool,
    /// See [`Prove`].
    pub prove: Prove,
    /// Whether [`Method::prove`] can get another proof later in the same job;
    /// if not, why, in words that follow "cannot renew: ".
    pub renews: fn(&Environment) -> Result<(), String>,
    /// What a proof says of its job, believed by nobody: to show callers their
    /// own. An error where it is no proof of this method at all.
    pub unverified: fn(&Proof) -> Result<Map<String, Value>, Denial>,
    /// The claims that tell a job's author most, beside `iss`, `aud` and `sub`.
    pub telling: &'static [&'static str],
    /// The fields that its rules may have: what of a job's claims matters.
    pub fields: &'static [Field],
    /// Which of the platform's forms a job's `sub` has, and what a rule binds
    /// in its place: for whoever is refused and for operators. None where there is one form.
    pub subject: fn(&str) -> Option<String>,
    /// The issuers whose tokens it knows best, as globs. No other method takes them, or
    /// its anchors and guards could be gone round.
    pub issuers: &'static [&'static str],
    /// Whether a job can have its proof bound to its keys, so that a join
    /// token may require it.
    pub can_bind: bool,
    /// Whether its rules may also stand as `allow` beside the section, as
    /// Teleport's tokens of this method have them.
    pub takes_rules_beside: bool,
    /// Whether its jobs are instances that stay: each registers once, with a
    /// secret that the authority gives out, and keeps a
    /// [`Storage`](super::prove::Storage) from then on.
    pub registers: bool,
    /// Whether its jobs are runs of a CI system, which end, and not machines that stay.
    pub is_ci: bool,
    /// The variables that tell its jobs apart, also two at once on one machine:
    /// the same in all steps of a job. Without the first one there is no job.
    pub job: &'static [&'static str],
    /// The claims that name what a job belongs to as people call it: a repository, a project, a pipeline.
    pub repositories: &'static [&'static str],
    /// The claims with the ids of the same, which a new name does not change.
    pub repository_ids: &'static [&'static str],
    /// The claims that each name a run, or a job of one.
    pub runs: &'static [&'static str],
    /// How a rule for one project's jobs is written from a few words, where that can be.
    pub example: Option<&'static Example>,
    /// Whether its jobs are another cluster's, and a trusted cluster of the policy stands where others have a join token.
    pub of_cluster: bool,
    /// See [`Configure`].
    pub configure: Configure,
}

impl Method {
    /// One whose proofs are OIDC tokens of a CI system that has to be asked for them.
    pub const fn new(name: &'static str, summary: &'static str, prove: Prove, configure: Configure) -> Self {
        Self {
            name,
            elsewhere: &[],
            summary,
            detects: |_| false,
            source: |_| None,
            private_variables: &[],
            takes_id_token: true,
            prove,
            renews: |_| Ok(()),
            unverified: jwt::unverified,
            telling: &[],
            fields: &[],
            subject: |_| None,
            issuers: &[],
            can_bind: false,
            takes_rules_beside: false,
            registers: false,
            is_ci: true,
            job: &[],
            repositories: &[],
            repository_ids: &[],
            runs: &[],
            example: None,
            of_cluster: false,
            configure,
        }
    }

    /// Whether that claim names a job's repository or its run.
    pub fn tells_by(&self, claim: &str) -> bool {
        [self.repositories, self.repository_ids, self.runs].iter().any(|names| names.contains(&claim))
    }

    /// What a job says in those of its claims: texts, and numbers as texts.
    pub fn texts(&self, names: &[&str], claims: &Map<String, Value>) -> Vec<String> {
        let text = |name: &&str| match claim(claims, name)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        names.iter().filter_map(text).filter(|text| !text.is_empty()).collect()
    }

    /// Configured with a section of YAML.
    #[cfg(test)]
    pub(super) fn configured(&self, section: &str) -> Result<Box<dyn Verifier>, crate::document::Mistake> {
        let nodes = crate::document::parse(section).unwrap();
        Ok((self.configure)(nodes[0].mapping_or_empty(self.name).unwrap())?)
    }
}
