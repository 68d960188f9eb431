//! Platforms that put a job's token into a variable: what to say where none is there.

use futures_util::future::{BoxFuture, FutureExt as _, ready};

use super::prove::{Job, Presented};
use crate::environment::Environment;
use crate::error::{Error, Kind, Result};

/// Such a platform.
#[derive(Debug)]
pub(super) struct HandedOver {
    /// What its jobs are called, with an article.
    pub(super) job: &'static str,
    /// The variable that marks one.
    pub(super) marker: &'static str,
    /// Whether this environment is one.
    pub(super) is_one: fn(&Environment) -> bool,
    /// The variable that holds the token.
    pub(super) variable: &'static str,
    /// How a job is given one.
    pub(super) hints: fn(&Job<'_>) -> Vec<String>,
}

impl HandedOver {
    /// Why there is none: this is no job of the platform, or one that was not given a token.
    pub(super) fn none<'a>(&self, job: &'a Job<'a>) -> BoxFuture<'a, Result<Presented>> {
        let Self { job: named, marker, variable, .. } = self;
        let error = if (self.is_one)(job.env) {
            let cause = format!("this is {named} without an OIDC token: {variable} is not set");
            (self.hints)(job).into_iter().fold(Error::new(Kind::Proof, cause), Error::hint)
        } else {
            Error::new(Kind::Proof, format!("this is not {named}: {marker} is not set"))
                .hint("choose another --join-method, or run this in such a job")
        };
        ready(Err(error)).boxed()
    }
}
