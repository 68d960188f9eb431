//! What the roles of one output give in a [`Field`]: one name that is asked
//! for, or all of them; denied names never.

use super::merge::Merged;
use crate::authority::policy::resources::{Field, Role, has_wildcard, listed};
use crate::denial::{Denial, Reason};
use crate::text::shown;

impl<'p> Merged<'p, '_> {
    /// An option's value.
    pub(in crate::authority::policy) fn option(&self, name: &str) -> Option<&str> {
        self.request.options.get(name).map(String::as_str)
    }

    /// An option's value that is a name of that kind, if it is asked for.
    pub(in crate::authority::policy) fn named(
        &self,
        field: &Field,
        option: &str,
    ) -> Result<Option<String>, Denial> {
        match self.option(option) {
            Some(name) if !(field.shape)(name) => {
                Err(self.invalid(&format!("`{}` cannot be {}: {}", shown(name), field.a_noun(), field.hint)))
            }
            found => Ok(found.map(str::to_owned)),
        }
    }

    /// Leaves out roles whose certificates are bound to an address: nothing
    /// but an SSH user certificate can say so.
    pub(in crate::authority::policy) fn leave_out_pinned(&mut self) {
        for role in self.pinned() {
            let (name, kind) = (&role.name, &self.request.kind);
            self.warnings.add(|| {
                format!("role `{name}` is left out: it pins the source address, which a certificate for `{kind}` cannot")
            });
        }
        self.roles.retain(|role| !role.options.pin_source_ip);
    }

    /// The roles whose certificates are bound to an address.
    pub(in crate::authority::policy) fn pinned(&self) -> Vec<&'p Role> {
        self.roles.iter().copied().filter(|role| role.options.pin_source_ip).collect()
    }

    /// The roles that give a name: allowed by that role, denied by none of the bot's.
    pub(in crate::authority::policy) fn granting(&self, field: &Field, name: &str) -> Vec<&'p Role> {
        if self.bot.denier(field, name).is_some() {
            return Vec::new();
        }
        self.roles.iter().copied().filter(|role| self.bot.allows(role, field, name)).collect()
    }

    /// The role of the bot that denies something in a field.
    pub(in crate::authority::policy) fn restricted(&self, field: &Field) -> Option<&'p Role> {
        self.bot.each_role().find(|role| role.names.deny_any(field))
    }

    /// The name that is asked for, if one of these roles gives it; without
    /// one, the only one that they give.
    pub(in crate::authority::policy) fn choose(
        &self,
        field: &Field,
        option: &str,
        asked: Option<String>,
        roles: &[&Role],
    ) -> Result<String, Denial> {
        if let Some(name) = asked {
            let given = self.granting(field, &name).iter().any(|giver| {
                // The same role, by its name.
                roles.iter().any(|role| role.name == giver.name)
            });
            return if given { Ok(name) } else { Err(self.refused(field, &name)) };
        }
        let mut names = self.bot.names(roles, field);
        match (names.pop(), names.is_empty()) {
            (Some(only), true) => Ok(only),
            (Some(_), false) => {
                let count = names.len() + 1;
                let why =
                    format!("its roles grant {count} {}s; say which with `{option}={}`", field.noun, "…");
                Err(self.invalid(&why))
            }
            (None, _) => Err(self.nothing_of(field, option, roles)),
        }
    }

    /// The refusal of a name; who denies it, only the operator hears.
    pub(in crate::authority::policy) fn refused(&self, field: &Field, name: &str) -> Denial {
        let (output, noun, roles) = (&self.request.name, field.noun, self.by_roles());
        let told = format!("output `{output}`: the {noun} `{name}` is not granted by {roles}");
        let mut detail = told.clone();
        if let Some(denier) = self.bot.denier(field, name) {
            let (role, origin) = (&denier.name, &denier.origin);
            detail.push_str(&format!("; it is denied by role `{role}` at {origin}"));
        }
        self.warned(Denial::new(Reason::NothingGranted, detail).tell(told))
    }

    fn nothing_of(&self, field: &Field, option: &str, roles: &[&Role]) -> Denial {
        let mut any = false;
        for role in roles {
            self.bot.each_name(role, field, |name| any |= has_wildcard(name));
        }
        if any {
            return self.invalid(&format!(
                "its roles grant more than one {}: say which with `{option}=…`",
                field.noun
            ));
        }
        let (output, noun) = (&self.request.name, field.noun);
        let told = format!("output `{output}`: no {noun} is granted by {}", self.by_roles());
        let mut detail = told.clone();
        for role in roles {
            self.bot.each_name(role, field, |name| {
                if let Some(denier) = self.bot.denier(field, name) {
                    let (role, denier, origin) = (&role.name, &denier.name, &denier.origin);
                    detail.push_str(&format!(
                        "; {noun} `{name}` of role `{role}` is denied by role `{denier}` at {origin}"
                    ));
                }
            });
        }
        self.warned(Denial::new(Reason::NothingGranted, detail).tell(told))
    }

    /// The roles that are left; the warnings name those that are not.
    fn by_roles(&self) -> String {
        match self.roles.as_slice() {
            [] => "any role that is left".to_owned(),
            roles => format!("its roles ({})", listed(roles)),
        }
    }

    /// With the warnings so far, which may say why there is nothing.
    fn warned(&self, mut denial: Denial) -> Denial {
        for warning in &self.warnings.0 {
            denial.detail.push_str(&format!("; {warning}"));
            if let Some(told) = &mut denial.told {
                told.push_str(&format!("; {warning}"));
            }
        }
        denial
    }
}
