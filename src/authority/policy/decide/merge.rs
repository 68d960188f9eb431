//! What several roles make of one certificate: the sum of their logins, under
//! the strictest of their restrictions.

use super::grant::SshGrant;
use crate::authority::policy::resources::{Bot, Options, Reach, Role};
use crate::denial::Denial;
use crate::wire::OutputRequest;

/// The most principals that OpenSSH reads in a certificate
/// (`SSHKEY_CERT_MAX_PRINCIPALS`); with more, the whole certificate is refused.
pub(crate) const MAX_CERTIFICATE_PRINCIPALS: usize = 256;

/// The extensions that a role can grant and where it says so, sorted as
/// OpenSSH wants them (PROTOCOL.certkeys). `permit-user-rc` is not among them:
/// it runs a file of the login's own beside any forced command.
type Extension = (&'static str, fn(&Options) -> bool);
static EXTENSIONS: &[Extension] = &[
    ("permit-X11-forwarding", |options| options.x11),
    ("permit-agent-forwarding", |options| options.forward_agent),
    ("permit-port-forwarding", |options| options.port_forwarding),
    ("permit-pty", |options| options.pty),
];

/// The roles of one output, together.
pub(crate) struct Merged<'p, 'r> {
    /// The bot.
    pub(crate) bot: &'p Bot,
    /// What is asked for.
    pub(crate) request: &'r OutputRequest,
    /// The roles, by name; none that needs MFA.
    pub(crate) roles: Vec<&'p Role>,
    /// What the job should know.
    pub(crate) warnings: &'r mut Warnings,
}

/// Warnings, each once however many outputs give rise to it.
#[derive(Debug, Default)]
pub(crate) struct Warnings(pub(crate) Vec<String>);

impl Warnings {
    /// Adds one.
    pub(crate) fn add(&mut self, warning: impl FnOnce() -> String) {
        let warning = warning();
        if !self.0.contains(&warning) {
            self.0.push(warning);
        }
    }
}

impl Merged<'_, '_> {
    /// The shortest of what was asked for, the bot's limit and each role's.
    pub(crate) fn ttl(&self, asked: u64) -> u64 {
        self.roles.iter().map(|role| role.options.max_ttl).fold(asked.min(self.bot.max_ttl), u64::min)
    }

    /// The SSH certificate; none where no login is left.
    pub(crate) fn ssh(&mut self) -> Result<Option<SshGrant>, Denial> {
        let mut principals = Vec::new();
        let mut givers: Vec<&Role> = Vec::new();
        for role in &self.roles {
            let before = principals.len();
            let nowhere = self.principals(role, &mut principals);
            if nowhere {
                let name = &role.name;
                self.warnings.add(|| format!("role `{name}` has no node_labels, so its logins open nothing"));
            }
            if principals.len() > before {
                givers.push(role);
            }
        }
        principals.sort_unstable();
        principals.dedup();
        if principals.is_empty() {
            return Ok(None);
        }
        if principals.len() > MAX_CERTIFICATE_PRINCIPALS {
            return Err(self.invalid(&format!(
                "its roles give {} principals and a certificate holds {MAX_CERTIFICATE_PRINCIPALS}; \
                 ask for fewer roles",
                principals.len()
            )));
        }
        // A certificate's extensions hold for all its principals, so what one
        // role does not permit for its logins, none can have.
        let permitted = |extension: &&Extension| givers.iter().all(|role| extension.1(&role.options));
        let extensions = EXTENSIONS.iter().filter(permitted).map(|(name, _)| *name).collect();
        Ok(Some(SshGrant {
            host: false,
            principals,
            extensions,
            force_command: self.force_command()?.map(str::to_owned),
            pin_source_ip: self.roles.iter().any(|role| role.options.pin_source_ip),
        }))
    }

    /// Adds a role's principals: its logins with the bot's traits in them, but
    /// for those that any role of the bot denies, on the hosts that it names.
    /// Says whether there were logins and no hosts.
    fn principals(&self, role: &Role, into: &mut Vec<String>) -> bool {
        let mut nowhere = false;
        self.bot.each_login(role, |login| {
            if self.bot.login_denier(login).is_some() {
                return;
            }
            match &role.reach {
                Reach::Nowhere => nowhere = true,
                Reach::Everywhere => into.push(login.to_owned()),
                Reach::Labelled(sets) => into.extend(sets.iter().map(|set| format!("{login}@{set}"))),
            }
        });
        nowhere
    }

    /// The command of the role that forces one; it holds for the logins of the
    /// others too.
    fn force_command(&self) -> Result<Option<&str>, Denial> {
        let mut forced: Option<(&Role, &str)> = None;
        for role in &self.roles {
            let Some(command) = role.options.force_command.as_deref() else { continue };
            match forced {
                Some((first, other)) if other != command => {
                    return Err(self.invalid(&format!(
                        "roles `{}` and `{}` force different commands, and a certificate holds one; \
                         ask for them in outputs of their own",
                        first.name, role.name
                    )));
                }
                _ => forced = Some((role, command)),
            }
        }
        Ok(forced.map(|(_, command)| command))
    }
}

#[cfg(test)]
mod tests;
