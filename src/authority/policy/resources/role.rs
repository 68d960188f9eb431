//! Roles: what a bot that holds one may be called, where, for how long and with which rights.

use std::collections::{BTreeMap, BTreeSet};

use super::field::RoleField;
use super::fields::LOGINS;
use super::labels::Reach;
use super::origin::Origin;
use super::template::Template;
use crate::join::rules::glob;
use crate::text::listed;

/// The `max_session_ttl` of a role that has none, in seconds.
const DEFAULT_TTL: u64 = 3600;
/// The most principals that one role gives a bot.
pub(crate) const MAX_PRINCIPALS: usize = 64;

/// A role.
#[derive(Debug)]
pub(crate) struct Role {
    pub(crate) name: String,
    pub(crate) origin: Origin,
    pub(crate) options: Options,
    /// `spec.allow.node_labels`.
    pub(crate) reach: Reach,
    /// `spec.allow`: what stands in each [`RoleField`], by its key.
    pub(crate) allow: BTreeMap<&'static str, Vec<Template>>,
    /// Entries of `spec.allow` that give nothing.
    pub(crate) gives_nothing: BTreeMap<&'static str, Vec<String>>,
    /// `spec.deny`: globs, by the key of their [`RoleField`].
    pub(crate) deny: BTreeMap<&'static str, Vec<String>>,
}

/// `spec.options`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// The longest life of a certificate, in seconds.
    pub(crate) max_ttl: u64,
    /// Whether each session needs a second factor, which no machine has.
    pub(crate) session_mfa: bool,
    /// Whether the certificate holds only at the address that it was asked for from.
    pub(crate) pin_source_ip: bool,
    /// The one command that the certificate can run.
    pub(crate) force_command: Option<String>,
    pub(crate) forward_agent: bool,
    pub(crate) port_forwarding: bool,
    pub(crate) pty: bool,
    pub(crate) x11: bool,
}

/// What a role has without `spec.options`: a terminal and nothing else, since
/// nothing is allowed by default.
impl Default for Options {
    fn default() -> Self {
        Self {
            max_ttl: DEFAULT_TTL,
            session_mfa: false,
            pin_source_ip: false,
            force_command: None,
            forward_agent: false,
            port_forwarding: false,
            pty: true,
            x11: false,
        }
    }
}

impl Role {
    /// One that says nothing yet.
    pub(crate) fn new(name: String, origin: Origin) -> Self {
        Self {
            name,
            origin,
            options: Options::default(),
            reach: Reach::Nowhere,
            allow: BTreeMap::new(),
            gives_nothing: BTreeMap::new(),
            deny: BTreeMap::new(),
        }
    }

    /// What this role allows in a field, before any trait is put in.
    pub(crate) fn allowed(&self, field: &RoleField) -> &[Template] {
        self.allow.get(field.key).map_or(&[], Vec::as_slice)
    }

    /// Whether certificates can carry what this role allows in a field, if it
    /// allows anything: logins open nothing without hosts, and nothing but an
    /// SSH user certificate can be bound to an address.
    pub(crate) fn issues(&self, field: &RoleField) -> bool {
        let is_login = field.key == LOGINS.key;
        let can_be = if is_login { self.reach != Reach::Nowhere } else { !self.options.pin_source_ip };
        can_be && !self.allowed(field).is_empty()
    }

    /// Whether this role denies that name, here or where it is the same. A
    /// deny is as wide as it is written.
    pub(crate) fn denies(&self, field: &RoleField, name: &str) -> bool {
        // What cannot be a name there is nothing that a deny there is about.
        let same = field.same_as.filter(|same| (same.shape)(name));
        let mut globs = self.globs(field).chain(same.into_iter().flat_map(|same| self.globs(same)));
        globs.any(|pattern| glob(pattern, name))
    }

    /// Whether this role denies all that a pattern of `allow` covers. Patterns
    /// stand in `db_users` and in fields that are the same as no other, and each
    /// database user could be a Kubernetes user: `*` denies them there too.
    pub(crate) fn denies_all(&self, field: &RoleField, pattern: &str) -> bool {
        let mut globs = self.globs(field).chain(field.same_as.into_iter().flat_map(|same| self.globs(same)));
        globs.any(|denied| denied == "*" || denied == pattern)
    }

    fn globs(&self, field: &RoleField) -> impl Iterator<Item = &String> {
        self.deny.get(field.key).into_iter().flatten()
    }
}

/// Roles by name, each once, for a message; not all of very many.
pub(crate) fn role_names<'r>(roles: impl IntoIterator<Item = &'r &'r Role>) -> String {
    let names: BTreeSet<&str> = roles.into_iter().map(|role| role.name.as_str()).collect();
    listed(names.into_iter(), 8)
}

/// What every refusal and warning says of roles that need MFA: an operator
/// reads the same words in `check` as the job does.
pub(crate) fn needs_mfa(bot: &str, roles: &[&Role]) -> String {
    let (needs, noun) = if roles.len() == 1 { ("needs", "role") } else { ("need", "roles") };
    let names = role_names(roles);
    format!("{noun} {names} of bot `{bot}` {needs} per-session MFA, which a machine cannot pass")
}
