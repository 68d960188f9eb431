//! Why an output is refused. Who denies something, only the operator hears.

use super::merge::Merged;
use crate::authority::policy::resources::{Field, Role, role_names};
use crate::denial::{Denial, Reason};

impl Merged<'_, '_> {
    /// An output that cannot be issued as it is asked for.
    pub(crate) fn invalid(&self, why: &str) -> Denial {
        Denial::open(Reason::OutputInvalid, format!("output `{}`: {why}", self.request.name))
    }

    /// An X.509 certificate whose roles all pin the source address.
    pub(crate) fn unpinnable(&self) -> Denial {
        let (output, roles) = (&self.request.name, role_names(&self.roles));
        let told = format!(
            "output `{output}`: its roles ({roles}) pin the source address, which its X.509 certificate \
             cannot; ask for the output `ssh` instead"
        );
        Denial::open(Reason::NothingGranted, told)
    }

    /// A name that is asked for.
    pub(crate) fn refused(&self, field: &Field, name: &str) -> Denial {
        let told = format!("the {} `{name}` is not granted by {}", field.noun, self.by_roles());
        let denier = self.bot.denier(field, name);
        let denied = denier.map(|role| format!("; it is denied by role `{}` at {}", role.name, role.origin));
        self.not_granted(&told, &denied.unwrap_or_default())
    }

    /// An output without an SSH login.
    pub(crate) fn no_login(&self) -> Denial {
        let mut denied = Vec::new();
        for role in &self.roles {
            self.bot.each_login(role, |login| {
                denied.extend(self.bot.login_denier(login).map(|denier| (login.to_owned(), *role, denier)));
            });
        }
        self.nothing_granted("SSH login", "login", &denied)
    }

    /// An output whose roles give no `what`: each `noun` that they would give
    /// is denied, by the role behind its own.
    pub(super) fn nothing_granted(
        &self,
        what: &str,
        noun: &str,
        denied: &[(String, &Role, &Role)],
    ) -> Denial {
        let denied: String = denied
            .iter()
            .map(|(name, role, denier)| {
                let (role, denier, origin) = (&role.name, &denier.name, &denier.origin);
                format!("; {noun} `{name}` of role `{role}` is denied by role `{denier}` at {origin}")
            })
            .collect();
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
