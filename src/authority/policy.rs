//! Policy: the resources that say which jobs are which bot, and what a bot may
//! have; and the decision over one request.
//!
//! [`Policy::parse`] reads the files' text, strictly and with every
//! mistake at its place. [`Policy::decide`] takes a verified
//! [`Identity`] and what it asks for, and gives a [`Grant`] or a
//! [`Denial`]. Nothing here does I/O or knows of HTTP, keys or the store, and
//! no join method is known by name.
//!
//! It fails closed: nothing is allowed by default, deny wins over allow, the
//! shortest time wins, a restriction of any role holds for the certificate,
//! and a field that is not enforced yet is refused rather than ignored.

use serde_json::{Map, Value};

use crate::denial::Denial;
use crate::error::Error;
use crate::join::verify::{AssumedIdentity, Identity};

mod decide;
mod lints;
mod output;
mod read;
mod resources;

#[cfg(test)]
mod tests;

pub use decide::PolicyRequest;
pub use decide::grant::{Grant, OutputGrant, Preview, SshGrant, TlsGrant};
pub use decide::matching::{RuleTrial, Trial};
pub use lints::{Finding, LINTS, Lint, Report};
pub use output::{MAX_OUTPUTS, OUTPUTS, OutputPolicy};
pub use read::Source;
pub use resources::{JoinToken, Origin, Policy};

impl Policy {
    /// Reads policy files: every document of each is one resource.
    ///
    /// # Errors
    /// All mistakes of all files, each `FILE:LINE:COL: message` with what to do
    /// about it, in the order of the files.
    pub fn parse(sources: &[Source]) -> Result<Self, Vec<Error>> {
        read::read(sources)
    }

    /// Decides what a job gets that has proved to be `identity` to `token`'s verifier.
    ///
    /// # Errors
    /// Why it gets nothing; the identity's claims are in it. A request is
    /// granted as a whole or not at all.
    pub fn decide(
        &self,
        token: &JoinToken,
        identity: &Identity,
        request: &PolicyRequest<'_>,
    ) -> Result<Grant, Denial> {
        decide::decide(self, token, identity, request)
            .map_err(|denial| denial.with_claims(identity.claims(), true))
    }

    /// What would become of a job with claims that nobody verified; see
    /// [`Verifier::assume`](crate::join::verify::Verifier::assume). The answer is [`Policy::decide`]'s own.
    ///
    /// # Errors
    /// Why it would get nothing.
    pub fn preview(
        &self,
        token: &JoinToken,
        assumed: &AssumedIdentity,
        request: &PolicyRequest<'_>,
    ) -> Result<Preview, Denial> {
        decide::evaluate(self, token, assumed.claims(), request)
            .map_err(|denial| denial.with_claims(assumed.claims(), false))
    }

    /// Each rule of the token against these claims, condition by condition,
    /// whether a job with them is believed or not.
    #[must_use]
    pub fn trial(token: &JoinToken, claims: &Map<String, Value>) -> Vec<RuleTrial> {
        decide::matching::trials(token, claims)
    }

    /// What is no mistake and yet seldom meant.
    #[must_use]
    pub fn lint(&self) -> Report {
        lints::run(self)
    }
}
