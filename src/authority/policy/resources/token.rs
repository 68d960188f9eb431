//! Join tokens: how jobs of one kind prove who they are, and which bot they become.

use super::origin::Origin;
use crate::join::method::Method;
use crate::join::verify::Verifier;

/// A join token.
#[derive(Debug)]
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
