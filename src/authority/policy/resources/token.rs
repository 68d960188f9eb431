//! Join tokens: how jobs of one kind prove who they are, and which bot they become.

use std::fmt;

use super::origin::Origin;
use crate::join::method::Method;
use crate::join::verify::Verifier;

/// A join token.
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
