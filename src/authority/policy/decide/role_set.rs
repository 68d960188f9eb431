//! The roles of one output together: the sum of what they allow, under the
//! strictest of their restrictions; and why nothing comes of it.

use std::time::Duration;

use humantime::format_duration;

use super::grant::SshGrant;
use crate::authority::policy::resources::{
    Bot, LOGINS, Options, Reach, Role, RoleField, has_wildcard, role_names,
};
use crate::denial::{Denial, Reason};
use crate::output::JWT;
use crate::principal::MAX_CERTIFICATE_PRINCIPALS;
use crate::text::shown_exactly;
use crate::wire::{OutputRequest, USUAL_TTL, is_name};

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

/// The roles of one output, and what is asked of them.
pub(crate) struct RoleSet<'p, 'r> {
    pub(crate) bot: &'p Bot,
    pub(crate) request: &'r OutputRequest,
    /// How the job has joined.
    pub(crate) join_method: &'r str,
    /// The URLs of authorities, of which no token is the audience.
    pub(crate) urls: &'r [&'r str],
    /// The roles, by name; none that needs MFA.
    pub(crate) roles: Vec<&'p Role>,
    /// What the job should know.
    pub(crate) warnings: &'r mut Warnings,
}

/// Warnings, each once however many outputs give rise to it.
#[derive(Debug, Default)]
pub(crate) struct Warnings(pub(crate) Vec<String>);

impl Warnings {
    pub(crate) fn add(&mut self, warning: String) {
        if !self.0.contains(&warning) {
            self.0.push(warning);
        }
    }
}

impl<'p> RoleSet<'p, '_> {
    /// The shortest of what was asked for, the bot's limit and each role's. Who asks
    /// for more than clients do by themselves is told of what cuts it.
    pub(crate) fn ttl(&mut self, asked: u64) -> u64 {
        let of_roles = self.roles.iter().map(|role| (role.options.max_ttl, "role", &role.name));
        let limits = of_roles.chain([(self.bot.max_ttl, "bot", &self.bot.name)]);
        let Some((most, kind, name)) = limits.min_by_key(|limit| limit.0).filter(|limit| limit.0 < asked)
        else {
            return asked;
        };
        if asked > u64::from(USUAL_TTL) {
            let [asked, most] = [asked, most].map(|seconds| format_duration(Duration::from_secs(seconds)));
            self.warnings.add(format!(
                "certificates are good for {most}, not {asked} as was asked for: `max_session_ttl` of {kind} `{name}` \
                 allows no more"
            ));
        }
        most
    }

    /// The SSH certificate; none where no login is left.
    pub(crate) fn ssh(&mut self) -> Result<Option<SshGrant>, Denial> {
        let mut principals = Vec::new();
        let mut givers: Vec<&Role> = Vec::new();
        for role in &self.roles {
            let logins = self.bot.names(&[role], &LOGINS);
            match &role.reach {
                _ if logins.is_empty() => continue,
                Reach::Nowhere => {
                    let name = &role.name;
                    self.warnings
                        .add(format!("role `{name}` has no node_labels, so its logins open nothing"));
                    continue;
                }
                Reach::Everywhere => principals.extend(logins),
                Reach::Labelled(sets) => {
                    let on_each = |login| sets.iter().map(move |set| format!("{login}@{set}"));
                    principals.extend(logins.iter().flat_map(on_each));
                }
            }
            givers.push(role);
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
        Ok(Some(SshGrant {
            host: false,
            principals,
            extensions: EXTENSIONS.iter().filter(permitted).map(|(name, _)| *name).collect(),
            force_command: self.force_command()?,
            pin_source_ip: !self.pinned().is_empty(),
        }))
    }

    /// The command of the role that forces one; it holds for the logins of the
    /// others too.
    fn force_command(&self) -> Result<Option<String>, Denial> {
        let mut forced =
            self.roles.iter().filter_map(|role| Some((role, role.options.force_command.as_ref()?)));
        let Some((first, command)) = forced.next() else { return Ok(None) };
        match forced.find(|(_, other)| *other != command) {
            Some((role, _)) => Err(self.invalid(&format!(
                "roles `{}` and `{}` force different commands, and a certificate holds one; \
                 ask for them in outputs of their own",
                first.name, role.name
            ))),
            None => Ok(Some(command.clone())),
        }
    }

    /// An option's value.
    pub(crate) fn option(&self, name: &str) -> Option<&str> {
        self.request.options.get(name).map(String::as_str)
    }

    /// The value of an option that is whatever the job calls a service.
    pub(crate) fn check_name(&self, option: &str) -> Result<(), Denial> {
        if self.option(option).is_some_and(is_name) {
            return Ok(());
        }
        let shape = "is lower-case letters, digits, `_`, `.` and `-`, at most 64 of them";
        Err(self.invalid(&format!("`{option}` {shape}")))
    }

    /// An option's value that is a name of that kind, if it is asked for.
    pub(crate) fn named(&self, field: &RoleField, option: &str) -> Result<Option<String>, Denial> {
        match self.option(option) {
            Some(name) if !(field.shape)(name) => Err(self.invalid(&format!(
                "`{}` cannot be {}: {}",
                shown_exactly(name),
                field.a_noun(),
                field.hint
            ))),
            found => Ok(found.map(str::to_owned)),
        }
    }

    /// Leaves out roles whose certificates are bound to an address: nothing
    /// but an SSH user certificate can say so.
    pub(crate) fn leave_out_pinned(&mut self) {
        for role in self.pinned() {
            let (name, kind) = (&role.name, &self.request.kind);
            let what =
                if kind == JWT.name { "a token".to_owned() } else { format!("a certificate for `{kind}`") };
            self.warnings
                .add(format!("role `{name}` is left out: it pins the source address, which {what} cannot"));
        }
        self.roles.retain(|role| !role.options.pin_source_ip);
    }

    /// The roles whose certificates are bound to an address.
    pub(crate) fn pinned(&self) -> Vec<&'p Role> {
        self.roles.iter().copied().filter(|role| role.options.pin_source_ip).collect()
    }

    /// The roles that give a name: allowed by that role, denied by none of the bot's.
    pub(crate) fn granting(&self, field: &RoleField, name: &str) -> Vec<&'p Role> {
        self.roles.iter().copied().filter(|role| self.bot.gets(role, field, name)).collect()
    }

    /// The name that is asked for, if one of these roles gives it; without
    /// one, the only one that they give.
    pub(crate) fn choose(
        &self,
        field: &RoleField,
        option: &str,
        asked: Option<String>,
        roles: &[&Role],
    ) -> Result<String, Denial> {
        if let Some(name) = asked {
            let given = roles.iter().any(|role| self.bot.gets(role, field, &name));
            return if given { Ok(name) } else { Err(self.refused(field, &name)) };
        }
        let mut names = self.bot.names(roles, field);
        let noun = field.noun;
        match (names.pop(), names.len()) {
            (Some(only), 0) => Ok(only),
            (Some(_), others) => {
                let count = others + 1;
                Err(self.invalid(&format!("its roles grant {count} {noun}s; say which with `{option}=…`")))
            }
            (None, _)
                if roles.iter().any(|role| self.bot.given(role, field).iter().any(|n| has_wildcard(n))) =>
            {
                Err(self
                    .invalid(&format!("its roles grant more than one {noun}: say which with `{option}=…`")))
            }
            (None, _) => Err(self.nothing_of(field, noun, roles)),
        }
    }

    /// An output that cannot be issued as it is asked for.
    pub(crate) fn invalid(&self, why: &str) -> Denial {
        Denial::open(Reason::OutputInvalid, format!("output `{}`: {why}", self.request.name))
    }

    /// A name that is asked for. Who denies it, only the operator hears.
    pub(crate) fn refused(&self, field: &RoleField, name: &str) -> Denial {
        let told = format!("the {} `{name}` is not granted by {}", field.noun, self.by_roles());
        let denier = self.bot.denier(field, name);
        let denied = denier.map(|role| format!("; it is denied by role `{}` at {}", role.name, role.origin));
        self.not_granted(&told, &denied.unwrap_or_default())
    }

    /// An output whose roles give no `what`, since each name in the field is
    /// denied or there is none. Who denies them, only the operator hears.
    pub(crate) fn nothing_of(&self, field: &RoleField, what: &str, roles: &[&Role]) -> Denial {
        let mut denied = String::new();
        for role in roles {
            for name in self.bot.given(role, field) {
                if let Some(Role { name: denier, origin, .. }) = self.bot.denier(field, &name) {
                    let (noun, role) = (field.noun, &role.name);
                    denied.push_str(&format!(
                        "; {noun} `{name}` of role `{role}` is denied by role `{denier}` at {origin}"
                    ));
                }
            }
        }
        self.not_granted(&format!("no {what} is granted by {}", self.by_roles()), &denied)
    }

    /// With the warnings so far, which may say why there is nothing.
    fn not_granted(&self, what: &str, denied: &str) -> Denial {
        let told = format!("output `{}`: {what}", self.request.name);
        let warnings: String = self.warnings.0.iter().map(|warning| format!("; {warning}")).collect();
        Denial::new(Reason::NothingGranted, format!("{told}{warnings}{denied}"))
            .tell(format!("{told}{warnings}"))
    }

    /// The roles that are left; the warnings name those that are not.
    fn by_roles(&self) -> String {
        match self.roles.as_slice() {
            [] => "any role that is left".to_owned(),
            roles => format!("its roles ({})", role_names(roles)),
        }
    }
}

#[cfg(test)]
mod tests;
