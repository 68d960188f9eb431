//! What a policy consists of: its resources, read and checked, and what can be
//! asked of them without deciding anything.

use std::collections::HashMap;
use std::sync::Arc;

mod bot;
mod field;
mod fields;
mod labels;
mod names;
mod origin;
mod role;
mod template;
mod token;

pub use origin::Origin;
pub use token::JoinToken;

pub(crate) use bot::{Bot, Trait};
pub(crate) use field::{Field, has_wildcard};
pub(crate) use fields::{
    APPLICATIONS, DB_NAMES, DB_USERS, FIELDS, HOSTS, KUBERNETES_GROUPS, KUBERNETES_USERS,
};
pub(crate) use labels::Reach;
pub(crate) use names::Names;
pub(crate) use role::{MAX_PRINCIPALS, Options, Role, needs_mfa, role_names};
pub(crate) use template::{LOGIN_SHAPE, Template, is_trait_name};

/// Every resource of every file, checked as a whole. It does not change; a new
/// policy is another value.
#[derive(Debug, Default)]
pub struct Policy {
    pub(super) tokens: HashMap<String, JoinToken>,
    pub(super) bots: HashMap<String, Bot>,
    /// Every role, held or not; bots share these.
    pub(super) roles: HashMap<String, Arc<Role>>,
    /// `require_session_mfa` of `cluster_auth_preference`.
    pub(super) mfa_everywhere: bool,
    pub(super) silenced: Silenced,
}

/// The lints that resources silence in their `metadata`, by kind and name.
pub(super) type Silenced = HashMap<&'static str, HashMap<String, Vec<&'static str>>>;

impl Policy {
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

    /// Whether no machine can use that role.
    pub(super) fn needs_mfa(&self, role: &Role) -> bool {
        self.mfa_everywhere || role.options.session_mfa
    }
}
