//! What the roles of one output give in a [`Field`]: one name that is asked
//! for, or all of them; denied names never.

use super::merge::Merged;
use crate::authority::policy::resources::{Field, Role, has_wildcard};
use crate::denial::Denial;
use crate::text::shown;

impl<'p> Merged<'p, '_> {
    /// An option's value.
    pub(crate) fn option(&self, name: &str) -> Option<&str> {
        self.request.options.get(name).map(String::as_str)
    }

    /// An option's value that is a name of that kind, if it is asked for.
    pub(crate) fn named(&self, field: &Field, option: &str) -> Result<Option<String>, Denial> {
        match self.option(option) {
            Some(name) if !(field.shape)(name) => {
                Err(self.invalid(&format!("`{}` cannot be {}: {}", shown(name), field.a_noun(), field.hint)))
            }
            found => Ok(found.map(str::to_owned)),
        }
    }

    /// Leaves out roles whose certificates are bound to an address: nothing
    /// but an SSH user certificate can say so.
    pub(crate) fn leave_out_pinned(&mut self) {
        for role in self.pinned() {
            let (name, kind) = (&role.name, &self.request.kind);
            self.warnings.add(|| {
                format!("role `{name}` is left out: it pins the source address, which a certificate for `{kind}` cannot")
            });
        }
        self.roles.retain(|role| !role.options.pin_source_ip);
    }

    /// The roles whose certificates are bound to an address.
    pub(crate) fn pinned(&self) -> Vec<&'p Role> {
        self.roles.iter().copied().filter(|role| role.options.pin_source_ip).collect()
    }

    /// The roles that give a name: allowed by that role, denied by none of the bot's.
    pub(crate) fn granting(&self, field: &Field, name: &str) -> Vec<&'p Role> {
        if self.bot.denier(field, name).is_some() {
            return Vec::new();
        }
        self.roles.iter().copied().filter(|role| self.bot.allows(role, field, name)).collect()
    }

    /// The role of the bot that denies something in a field.
    pub(crate) fn restricted(&self, field: &Field) -> Option<&'p Role> {
        self.bot.each_role().find(|role| role.names.deny_any(field))
    }

    /// The name that is asked for, if one of these roles gives it; without
    /// one, the only one that they give.
    pub(crate) fn choose(
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
                let why = format!("its roles grant {count} {}s; say which with `{option}=…`", field.noun);
                Err(self.invalid(&why))
            }
            (None, _) => Err(self.nothing_of(field, option, roles)),
        }
    }

    fn nothing_of(&self, field: &Field, option: &str, roles: &[&Role]) -> Denial {
        let noun = field.noun;
        let mut any = false;
        let mut denied = Vec::new();
        for role in roles {
            self.bot.each_name(role, field, |name| {
                any |= has_wildcard(name);
                denied.extend(self.bot.denier(field, name).map(|denier| (name.to_owned(), *role, denier)));
            });
        }
        if any {
            return self
                .invalid(&format!("its roles grant more than one {noun}: say which with `{option}=…`"));
        }
        self.nothing_granted(noun, noun, &denied)
    }
}
