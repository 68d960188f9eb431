//! What several roles make of one certificate: the sum of their logins, under
//! the strictest of their restrictions.

use super::grant::SshGrant;
use crate::authority::policy::resources::{Bot, Options, Reach, Role, listed};
use crate::denial::{Denial, Reason};
use crate::wire::OutputRequest;

/// The most principals that OpenSSH reads in a certificate
/// (`SSHKEY_CERT_MAX_PRINCIPALS`); with more, the whole certificate is refused.
pub(in crate::authority::policy) const MAX_CERTIFICATE_PRINCIPALS: usize = 256;

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
pub(in crate::authority::policy) struct Merged<'p, 'r> {
    /// The bot.
    pub(in crate::authority::policy) bot: &'p Bot,
    /// What is asked for.
    pub(in crate::authority::policy) request: &'r OutputRequest,
    /// The roles, by name; none that needs MFA.
    pub(in crate::authority::policy) roles: Vec<&'p Role>,
    /// What the job should know.
    pub(in crate::authority::policy) warnings: &'r mut Warnings,
}

/// Warnings, each once however many outputs give rise to it.
#[derive(Debug, Default)]
pub(in crate::authority::policy) struct Warnings(pub(in crate::authority::policy) Vec<String>);

impl Warnings {
    /// Adds one.
    pub(in crate::authority::policy) fn add(&mut self, warning: impl FnOnce() -> String) {
        let warning = warning();
        if !self.0.contains(&warning) {
            self.0.push(warning);
        }
    }
}

impl Merged<'_, '_> {
    /// The shortest of what was asked for, the bot's limit and each role's.
    pub(in crate::authority::policy) fn ttl(&self, asked: u64) -> u64 {
        self.roles.iter().map(|role| role.options.max_ttl).fold(asked.min(self.bot.max_ttl), u64::min)
    }

    /// The SSH certificate; none where no login is left.
    pub(in crate::authority::policy) fn ssh(&mut self) -> Result<Option<SshGrant>, Denial> {
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

    /// The refusal of an output whose roles give no `what`.
    pub(in crate::authority::policy) fn nothing_granted(&self, what: &str) -> Denial {
        let names = listed(&self.roles);
        let mut told =
            format!("output `{}`: no {what} is granted by its roles ({})", self.request.name, names);
        for warning in &self.warnings.0 {
            told.push_str("; ");
            told.push_str(warning);
        }
        let mut detail = told.clone();
        for role in &self.roles {
            self.bot.each_login(role, |login| {
                if let Some(denier) = self.bot.login_denier(login) {
                    let (role, denier, origin) = (&role.name, &denier.name, &denier.origin);
                    let denied = format!(
                        "; login `{login}` of role `{role}` is denied by role `{denier}` at {origin}"
                    );
                    detail.push_str(&denied);
                }
            });
        }
        Denial::new(Reason::NothingGranted, detail).tell(told)
    }

    /// The refusal of an X.509 certificate whose roles all pin the source address.
    pub(in crate::authority::policy) fn unpinnable(&self) -> Denial {
        let (output, roles) = (&self.request.name, listed(&self.roles));
        let told = format!(
            "output `{output}`: its roles ({roles}) pin the source address, which its X.509 certificate \
             cannot; ask for the output `ssh` instead"
        );
        Denial::new(Reason::NothingGranted, told.clone()).tell(told)
    }

    /// The refusal of an output that cannot be issued as it is asked for.
    pub(in crate::authority::policy) fn invalid(&self, why: &str) -> Denial {
        let told = format!("output `{}`: {why}", self.request.name);
        Denial::new(Reason::OutputInvalid, told.clone()).tell(told)
    }
}

#[cfg(test)]
mod tests;
