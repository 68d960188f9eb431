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

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::denial::Denial;
use crate::error::Error;
use crate::join::method::Method;
use crate::join::verify::{AssumedIdentity, Identity, Verifier};
use crate::wire::OutputRequest;

mod bot;
mod decide;
mod field;
mod grant;
mod lints;
mod load;
mod login;
mod matching;
mod merge;
mod origin;
mod output;
mod role;
mod section;
mod select;
mod token;

#[cfg(test)]
mod apart_tests;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod names_properties;
#[cfg(test)]
mod names_tests;
#[cfg(test)]
mod properties;

pub use grant::{Grant, OutputGrant, Prospect, SshGrant, TlsGrant};
pub use lints::{Finding, LINTS, Lint, Report};
pub use matching::{RuleTrial, Trial};
pub use origin::Origin;
pub use output::{MAX_OUTPUTS, OUTPUTS, OutputKind};

use bot::Bot;
use role::Role;

/// A policy file's text.
#[derive(Clone, Debug)]
pub struct Source {
    /// The file's name, for messages.
    pub name: String,
    /// What is in it.
    pub text: String,
}

/// Every resource of every file, checked as a whole. It does not change; a new
/// policy is another value.
#[derive(Debug, Default)]
pub struct Policy {
    tokens: HashMap<String, JoinToken>,
    bots: HashMap<String, Bot>,
    /// Every role, held or not; bots share these.
    roles: HashMap<String, Arc<Role>>,
    /// `require_session_mfa` of `cluster_auth_preference`.
    mfa_everywhere: bool,
    /// The lints that a resource silences in its `metadata`, by its kind and name.
    silenced: lints::Silenced,
}

/// A join token: how jobs of one kind prove who they are, and which bot they become.
pub struct JoinToken {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub origin: Origin,
    /// The bot that a job becomes.
    pub bot: String,
    /// Its join method.
    pub method: &'static Method,
    /// The method, configured by this token's section; holds the rules.
    pub verifier: Box<dyn Verifier>,
    /// How many requests may use one proof that is not bound to their keys.
    pub max_uses: u32,
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("name", &self.name)
            .field("origin", &self.origin)
            .field("bot", &self.bot)
            .field("method", &self.method.name)
            .field("verifier", &self.verifier)
            .field("max_uses", &self.max_uses)
            .finish()
    }
}

/// What a job asks for.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The outputs.
    pub outputs: &'a [OutputRequest],
    /// How long the certificates should live, in seconds.
    pub ttl_seconds: i64,
}

impl Policy {
    /// Reads policy files: every document of each is one resource.
    ///
    /// # Errors
    /// All mistakes of all files, each `FILE:LINE:COL: message` with what to do
    /// about it, in the order of the files.
    pub fn parse(sources: &[Source]) -> Result<Self, Vec<Error>> {
        load::load(sources)
    }

    /// The join token of that name.
    #[must_use]
    pub fn token(&self, name: &str) -> Option<&JoinToken> {
        self.tokens.get(name)
    }

    /// How many bots, roles and join tokens there are.
    #[must_use]
    pub fn counts(&self) -> [usize; 3] {
        [self.bots.len(), self.roles.len(), self.tokens.len()]
    }

    /// Every join token, in no particular order.
    pub fn tokens(&self) -> impl Iterator<Item = &JoinToken> {
        self.tokens.values()
    }

    /// Decides what a job gets that has proved to be `identity` to `token`'s verifier.
    ///
    /// # Errors
    /// Why it gets nothing; the identity's claims are in it. A request is
    /// granted as a whole or not at all.
    pub fn decide(&self, token: &JoinToken, identity: &Identity, asked: &Asked<'_>) -> Result<Grant, Denial> {
        decide::decide(self, token, identity, asked)
            .map_err(|denial| denial.with_claims(identity.claims(), true))
    }

    /// What would become of a job with claims that nobody verified; see
    /// [`Verifier::assume`]. The answer is [`Policy::decide`]'s own.
    ///
    /// # Errors
    /// Why it would get nothing.
    pub fn foresee(
        &self,
        token: &JoinToken,
        assumed: &AssumedIdentity,
        asked: &Asked<'_>,
    ) -> Result<Prospect, Denial> {
        decide::settle(self, token, assumed.claims(), asked)
            .map_err(|denial| denial.with_claims(assumed.claims(), false))
    }

    /// Each rule of the token against these claims, condition by condition,
    /// whether a job with them is believed or not.
    #[must_use]
    pub fn trial(token: &JoinToken, claims: &Map<String, Value>) -> Vec<RuleTrial> {
        matching::trials(token, claims)
    }

    /// What is no mistake and yet seldom meant.
    #[must_use]
    pub fn lint(&self) -> Report {
        lints::run(self)
    }

    /// Whether no machine can use that role.
    fn needs_mfa(&self, role: &Role) -> bool {
        self.mfa_everywhere || role.options.session_mfa
    }
}
