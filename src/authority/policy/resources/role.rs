//! Roles: what a bot that holds one may log in as, where, for how long and with which rights.

use super::labels::Reach;
use super::names::Names;
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
    /// Its name.
    pub(crate) name: String,
    /// Where it stands.
    pub(crate) origin: Origin,
    /// `spec.options`.
    pub(crate) options: Options,
    /// `spec.allow.logins`.
    pub(crate) logins: Vec<Template>,
    /// `spec.allow.node_labels`.
    pub(crate) reach: Reach,
    /// `spec.deny.logins`: globs.
    pub(crate) denied_logins: Vec<String>,
    /// The fields of other outputs, under `allow` and `deny`.
    pub(crate) names: Names,
}

/// A role's options.
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
    /// Whether the agent may be forwarded.
    pub(crate) forward_agent: bool,
    /// Whether ports may be forwarded.
    pub(crate) port_forwarding: bool,
    /// Whether there may be a terminal.
    pub(crate) pty: bool,
    /// Whether X11 may be forwarded.
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
            logins: Vec::new(),
            reach: Reach::Nowhere,
            denied_logins: Vec::new(),
            names: Names::default(),
        }
    }

    /// Whether this role denies that login.
    pub(crate) fn denies(&self, login: &str) -> bool {
        self.denied_logins.iter().any(|pattern| glob(pattern, login))
    }
}

/// Roles by name, for a message; not all of very many.
pub(crate) fn role_names(roles: &[&Role]) -> String {
    listed(roles.iter().map(|role| role.name.as_str()), 8)
}

/// What every refusal and warning says of roles that need MFA: an operator
/// reads the same words in `check` as the job does.
pub(crate) fn needs_mfa(bot: &str, roles: &[&Role]) -> String {
    let (needs, noun) = if roles.len() == 1 { ("needs", "role") } else { ("need", "roles") };
    let names = role_names(roles);
    format!("{noun} {names} of bot `{bot}` {needs} per-session MFA, which a machine cannot pass")
}
