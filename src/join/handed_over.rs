//! Platforms that put a job's token into a variable.

use futures_util::future::{BoxFuture, FutureExt as _, ready};

use super::prove::{Job, Presented};
use super::source::TokenSource;
use crate::environment::Environment;
use crate::error::{Error, Kind, Result};
use crate::text::shown;

/// Such a platform, and what to say where no token is there.
#[derive(Debug)]
pub(super) struct HandedOver {
    /// What its jobs are called, with an article.
    pub(super) job: &'static str,
    /// The variable that marks one.
    pub(super) marker: &'static str,
    /// The variables that may hold the token, the best first.
    pub(super) variables: &'static [&'static str],
    /// How a job is given one, for `{authority}`.
    pub(super) hints: &'static [&'static str],
}

impl HandedOver {
    pub(super) fn detects(&self, env: &Environment) -> bool {
        env.get(self.marker).is_some() || self.source(env).is_some()
    }

    pub(super) fn source(&self, env: &Environment) -> Option<TokenSource> {
        let name = self.variables.iter().find(|name| env.get(name).is_some())?;
        Some(TokenSource::variable(*name))
    }

    /// Why there is none: this is no job of the platform, or one that was not given a token.
    pub(super) fn none<'a>(&self, job: &'a Job<'a>) -> BoxFuture<'a, Result<Presented>> {
        let Self { job: named, marker, variables, hints } = self;
        let error = if job.env.get(marker).is_some() {
            let variable = variables.first().unwrap_or(marker);
            let cause = format!("this is {named} without an OIDC token: {variable} is not set");
            let hints = hints.iter().map(|hint| hint.replace("{authority}", &shown(job.authority)));
            hints.fold(Error::new(Kind::Proof, cause), Error::hint)
        } else {
            Error::new(Kind::Proof, format!("this is not {named}: {marker} is not set"))
                .hint("choose another --join-method, or run this in such a job")
        };
        ready(Err(error)).boxed()
    }
}
