//! Join methods: how a job proves who it is.
//!
//! Each method is one file with a [`Method`]: data, and its two halves, what
//! the job presents ([`prove`]) and what the authority believes ([`verify`]).
//! The registry [`METHODS`] is all that names them; nothing here knows the
//! client or the authority.

use method::Method;
use serde_json::{Map, Value};

use crate::environment::Environment;

mod any_issuer;
mod azure_devops;
mod bitbucket;
mod buildkite;
mod circleci;
mod command;
mod endpoint;
pub mod example;
mod github;
mod gitlab;
mod handed_over;
mod iam;
pub mod instance;
pub mod issuers;
pub mod jwt;
mod kubernetes;
pub mod method;
pub mod oidc;
pub mod prove;
pub mod rules;
pub mod source;
mod spacelift;
mod terraform_cloud;
mod token;
pub mod trusted_cluster;
pub mod verify;

/// Every join method. A new one is a file and a line here. The first that an
/// environment is of is taken: a CI system's job in a pod is that CI system's.
pub static METHODS: &[&Method] = &[
    &github::METHOD,
    &circleci::METHOD,
    &gitlab::METHOD,
    &buildkite::METHOD,
    &bitbucket::METHOD,
    &azure_devops::METHOD,
    &spacelift::METHOD,
    &terraform_cloud::METHOD,
    &iam::METHOD,
    &token::METHOD,
    &any_issuer::METHOD,
    &kubernetes::METHOD,
];

/// The method of that name, that of [`trusted_cluster`] among them.
pub fn find(name: &str) -> Option<&'static Method> {
    METHODS.iter().copied().chain([&trusted_cluster::METHOD]).find(|method| method.name == name)
}

/// The platform's method and claims of a job that joined by that method with those claims: its own, or those by which it
/// joined the cluster that vouches for it.
pub fn behind<'c>(
    method: &'static Method,
    claims: &'c Map<String, Value>,
) -> (&'static Method, &'c Map<String, Value>) {
    let platform = trusted_cluster::platform(claims).filter(|_| method.of_cluster);
    platform.and_then(|(name, claims)| Some((find(name)?, claims))).unwrap_or((method, claims))
}

/// The method that knows that issuer's tokens best.
pub fn of_issuer(issuer: &str) -> Option<&'static Method> {
    let issuer = issuer.trim_end_matches('/').to_ascii_lowercase();
    METHODS.iter().copied().find(|method| method.issuers.iter().any(|known| rules::glob(known, &issuer)))
}

/// Every method's name, in the order of the registry.
pub fn names() -> Vec<&'static str> {
    METHODS.iter().map(|method| method.name).collect()
}

/// What is done here by the method that other tools call so.
pub fn elsewhere(name: &str) -> Option<String> {
    let named = |method: &&Method| {
        let (_, how) = method.elsewhere.iter().find(|(other, _)| *other == name)?;
        Some(format!("write `{}`: {how}", method.name))
    };
    METHODS.iter().find_map(named)
}

/// The method whose platform this environment is.
pub fn detect(env: &Environment) -> Option<&'static Method> {
    METHODS.iter().copied().find(|method| (method.detects)(env))
}

/// Which job this environment is of, in the words of its platform; nothing where that has none.
pub fn job(env: &Environment) -> Option<String> {
    let named = |method: &&&Method| method.job.first().is_some_and(|first| env.get(first).is_some());
    let names = METHODS.iter().filter(named).flat_map(|method| method.job);
    let said: Vec<String> = names.filter_map(|name| Some(format!("{name}={:?}", env.get(name)?))).collect();
    (!said.is_empty()).then(|| said.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_told_apart() {
        let of = |pairs: &[(&str, &str)]| job(&Environment::from_pairs(pairs.iter().copied()));
        assert_eq!(of(&[("CI", "true"), ("RUNNER_NAME", "a"), ("NODE_NAME", "a")]), None);
        for method in METHODS.iter().filter(|method| !method.job.is_empty()) {
            let all: Vec<_> = method.job.iter().map(|&name| (name, "1")).collect();
            for changed in 0..all.len() {
                let mut other = all.clone();
                other[changed].1 = "2";
                assert_ne!(of(&all), of(&other), "{}", method.name);
            }
        }
    }

    #[test]
    fn names_are_unique() {
        let mut names = names();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), METHODS.len());
        assert!(METHODS.iter().all(|method| !method.summary.is_empty()));
        // Nor does a method have the name that another has elsewhere.
        let elsewhere: Vec<_> =
            METHODS.iter().flat_map(|method| method.elsewhere).map(|(name, _)| *name).collect();
        let mut unique = [names, elsewhere.clone()].concat();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), METHODS.len() + elsewhere.len());
    }
}
