//! What a policy consists of: its resources, read and checked, and what can be
//! asked of them without deciding anything.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

mod bot;
mod field;
mod fields;
mod labels;
mod leaf_cluster;
mod origin;
mod role;
mod role_map;
mod template;

pub use leaf_cluster::LeafCluster;
pub use origin::Origin;

pub(crate) use bot::{Bot, Trait};
pub(crate) use field::{RoleField, has_wildcard};
pub(crate) use fields::{
    APPLICATIONS, AUDIENCES, DB_NAMES, DB_USERS, FIELDS, HOSTS, KUBERNETES_GROUPS, KUBERNETES_USERS, LOGINS,
};
pub(crate) use labels::Reach;
pub(crate) use role::{MAX_PRINCIPALS, Options, Role, needs_mfa, role_names};
pub(crate) use role_map::{MapLine, RoleMap};
pub(crate) use template::{Template, is_trait_name};

use crate::error::Error;
use crate::join::method::Method;
use crate::join::verify::Verifier;
use crate::text::counted;

/// Every resource of every file, checked as a whole. It does not change; a new
/// policy is another value.
#[derive(Debug, Default)]
pub struct Policy {
    /// What its text is known by, where it is from files: the same for the same.
    pub text: String,
    /// How many files it is from.
    pub(super) files: usize,
    pub(super) tokens: HashMap<String, JoinToken>,
    /// The trusted clusters, each as a join token of its method.
    pub(super) clusters: HashMap<String, JoinToken>,
    pub(super) bots: HashMap<String, Bot>,
    /// Every role, held or not; bots share these.
    pub(super) roles: HashMap<String, Arc<Role>>,
    pub(super) leaves: HashMap<String, LeafCluster>,
    /// `require_session_mfa` of `cluster_auth_preference`.
    pub(super) mfa_everywhere: bool,
    /// The lints that resources silence in their `metadata`: kind, name, lint.
    pub(super) silenced: HashSet<(&'static str, String, &'static str)>,
}

/// A join token: how jobs of one kind prove who they are, and which bot they become.
#[derive(Debug)]
pub struct JoinToken {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub origin: Origin,
    /// The bot that a job becomes; see [`JoinToken::bot_of`].
    pub bot: String,
    /// Its join method.
    pub method: &'static Method,
    /// The method, configured by this token's section; holds the rules.
    pub verifier: Box<dyn Verifier>,
    /// How many requests may use one proof that is not bound to their keys.
    pub max_uses: u32,
    /// What the roles of its jobs are here, where it is a trusted cluster; then it has no bot.
    pub(crate) map: Option<RoleMap>,
}

impl Policy {
    /// The join token of that name, or the trusted cluster, which stands for one.
    pub fn token(&self, name: &str) -> Option<&JoinToken> {
        self.tokens.get(name).or_else(|| self.clusters.get(name))
    }

    /// Whether a bot, a role, a join token, a trusted cluster or a leaf cluster has that name.
    pub fn has(&self, name: &str) -> bool {
        let is_leaf = self.leaves.contains_key(name);
        self.token(name).is_some() || self.bots.contains_key(name) || self.roles.contains_key(name) || is_leaf
    }

    /// How much there is: `3 bots, 4 roles, 5 join tokens from 2 files`; clusters where there are any.
    pub fn summary(&self) -> String {
        let [bots, roles, tokens, files] = [
            (self.bots.len(), "bot"),
            (self.roles.len(), "role"),
            (self.tokens.len(), "join token"),
            (self.files, "file"),
        ]
        .map(|(count, what)| counted(count, what));
        let clusters = [(self.clusters.len(), "trusted cluster"), (self.leaves.len(), "leaf cluster")];
        let clusters = clusters.into_iter().filter(|(count, _)| *count > 0);
        let clusters: String = clusters.map(|(count, what)| format!(", {}", counted(count, what))).collect();
        format!("{bots}, {roles}, {tokens}{clusters} from {files}")
    }

    /// Every leaf cluster, in no particular order.
    pub fn leaves(&self) -> impl Iterator<Item = &LeafCluster> {
        self.leaves.values()
    }

    /// What keeps the authority of that cluster and URL from having this policy: a leaf or a root that it is itself.
    pub fn mistakes_at(&self, cluster: &str, public_url: &str) -> Vec<Error> {
        let own = |leaf: &&LeafCluster| leaf.name == cluster || leaf.url == public_url;
        let mut leaves: Vec<&LeafCluster> = self.leaves().filter(own).collect();
        leaves.sort_unstable_by(|a, b| a.origin.cmp(&b.origin));
        let mistake = |leaf: &LeafCluster| {
            let what = if leaf.name == cluster { "cluster" } else { "`public_url`" };
            Error::usage(format!(
                "{}: the leaf cluster `{}` has this authority's own {what}",
                leaf.origin, leaf.name
            ))
            .hint("a leaf cluster is another authority: remove it here, or name that one")
        };
        let mut mistakes: Vec<Error> = leaves.into_iter().map(mistake).collect();
        let own = |root: &&JoinToken| root.name == cluster || root.verifier.issuer() == Some(public_url);
        let mut roots: Vec<&JoinToken> = self.clusters().filter(own).collect();
        roots.sort_unstable_by(|a, b| a.origin.cmp(&b.origin));
        mistakes.extend(roots.into_iter().map(|root| {
            let what = if root.name == cluster { "cluster" } else { "`public_url`" };
            Error::usage(format!("{}: the trusted cluster `{}` is this authority's own {what}", root.origin, root.name))
                .hint("a trusted cluster is another authority: its jobs come by join tokens there, its own by those here")
        }));
        mistakes
    }

    /// Every trusted cluster, in no particular order.
    pub fn clusters(&self) -> impl Iterator<Item = &JoinToken> {
        self.clusters.values()
    }

    /// Every join token, in no particular order.
    pub fn tokens(&self) -> impl Iterator<Item = &JoinToken> {
        self.tokens.values()
    }

    /// Every bot with each of its roles.
    pub(super) fn held(&self) -> impl Iterator<Item = (&Bot, &Role)> {
        self.bots.values().flat_map(|bot| bot.each_role().map(move |role| (bot, role)))
    }

    /// Every bot with each of its roles that a machine can use.
    pub(super) fn usable(&self) -> impl Iterator<Item = (&Bot, &Role)> {
        self.held().filter(|(_, role)| !self.needs_mfa(role))
    }

    /// Whether no machine can use that role.
    pub(super) fn needs_mfa(&self, role: &Role) -> bool {
        self.mfa_everywhere || role.options.session_mfa
    }
}
