//! Values of claims that let nobody in unless a rule names them.

use serde_json::{Map, Value};

use super::glob::glob;

/// A value of a claim that a rule must name to let it in, such as
/// `event_name: pull_request_target`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    /// The field that would name it.
    pub field: &'static str,
    /// The claim.
    pub claim: &'static str,
    /// The values that need naming, as globs; booleans by name.
    pub values: &'static [&'static str],
    /// What is risky about them, in words that follow "then".
    pub risk: &'static str,
}

impl Guard {
    /// Of the field and the claim of that name.
    pub const fn new(field: &'static str, values: &'static [&'static str], risk: &'static str) -> Self {
        Self { field, claim: field, values, risk }
    }

    /// The claim, where it has another name.
    pub const fn claim(mut self, claim: &'static str) -> Self {
        self.claim = claim;
        self
    }

    /// The same where rules name claims and no fields.
    pub const fn by_claim(mut self) -> Self {
        self.field = self.claim;
        self
    }

    /// Whether the claims have one of the values.
    pub fn strikes(&self, claims: &Map<String, Value>) -> bool {
        match claims.get(self.claim) {
            Some(Value::String(text)) => self.has(text),
            Some(Value::Bool(value)) => self.has(&value.to_string()),
            _ => false,
        }
    }

    /// Whether it is one of the values.
    pub(super) fn has(&self, value: &str) -> bool {
        self.values.iter().any(|pattern| glob(pattern, value))
    }
}

/// Events that run with the repository's rights.
pub const EVENT_NAME: Guard = Guard::new(
    "event_name",
    &["pull_request_target", "workflow_run"],
    "the job has the rights of the repository and may run the code or data of strangers",
);
/// Pipelines of merge requests.
pub const PIPELINE_SOURCE: Guard = Guard::new(
    "pipeline_source",
    &["merge_request_event", "external_pull_request_event"],
    "the job may run code that nobody has merged, of a fork even, with the rights of the project",
);
/// Jobs that were started again with SSH.
pub const SSH_RERUN: Guard = Guard::new("ssh_rerun", &["true"], "somebody sits at a shell in the job")
    .claim("oidc.circleci.com/ssh-rerun");
/// Runs of pull requests, and tests of modules.
pub const RUN_TYPE: Guard = Guard::new(
    "run_type",
    &["PROPOSED", "TESTING"],
    "the run may be of a pull request that nobody has merged",
)
.claim("runType");
/// Plans: anybody who opens a pull request has its code planned.
pub const RUN_PHASE: Guard = Guard::new(
    "run_phase",
    &["plan"],
    "the run may be a speculative plan, of a pull request that nobody has merged",
)
.claim("terraform_run_phase");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guards_strike_by_pattern() {
        let guard = Guard::new("ref", &["refs/pull/*", "true"], "");
        let strikes = |value: Value| guard.strikes(&Map::from_iter([("ref".to_owned(), value)]));
        for (value, struck) in [
            ("refs/pull/7/merge".into(), true),
            ("refs/heads/refs/pull/7".into(), false),
            (true.into(), true),
            (false.into(), false),
            (7.into(), false),
        ] {
            assert_eq!(strikes(value), struck);
        }
    }
}
