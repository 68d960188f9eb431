//! Bots: who a job becomes; the roles it holds and the traits that fill their templates.

use std::borrow::Cow;
use std::sync::Arc;

use super::field::{RoleField, has_wildcard};
use super::origin::Origin;
use super::role::Role;
use super::template::Template;
use crate::document::Place;

/// The `max_session_ttl` of a bot that has none, in seconds.
const DEFAULT_TTL: u64 = 12 * 3600;

/// A bot.
#[derive(Debug)]
pub(crate) struct Bot {
    pub(crate) name: String,
    pub(crate) origin: Origin,
    /// The roles that it holds, by name; filled once all files are read.
    pub(crate) roles: Vec<Arc<Role>>,
    /// The longest life of its certificates, in seconds.
    pub(crate) max_ttl: u64,
    /// Its traits, each name once.
    pub(crate) traits: Vec<Trait>,
}

/// A trait: what stands in for its name in templates.
#[derive(Debug)]
pub(crate) struct Trait {
    pub(crate) name: String,
    pub(crate) values: Vec<(String, Place)>,
}

impl Bot {
    /// One with nothing yet.
    pub(crate) fn new(name: String, origin: Origin) -> Self {
        Self { name, origin, roles: Vec::new(), max_ttl: DEFAULT_TTL, traits: Vec::new() }
    }

    /// The role of that name, if the bot holds it.
    pub(crate) fn role(&self, name: &str) -> Option<&Role> {
        let index = self.roles.binary_search_by(|role| role.name.as_str().cmp(name)).ok()?;
        self.roles.get(index).map(AsRef::as_ref)
    }

    /// Each role that it holds, by name.
    pub(crate) fn each_role(&self) -> impl Iterator<Item = &Role> {
        self.roles.iter().map(AsRef::as_ref)
    }

    /// The values of a trait and their places; none where the bot does not have it.
    pub(crate) fn trait_values(&self, name: &str) -> &[(String, Place)] {
        self.traits.iter().find(|one| one.name == name).map_or(&[], |one| &one.values)
    }

    /// The names and patterns that a role gives this bot in a field, before
    /// anything is denied. A trait that the bot does not have gives none.
    pub(crate) fn given<'b>(&'b self, role: &'b Role, field: &RoleField) -> Vec<Cow<'b, str>> {
        let mut given = Vec::new();
        for template in role.allowed(field) {
            match template {
                Template::Literal(name) => given.push(Cow::Borrowed(name.as_str())),
                Template::Trait { name, .. } => {
                    let values = self.trait_values(name).iter();
                    // Checked when the policy was read; once more where it counts.
                    given.extend(
                        values.filter_map(|(value, _)| field.filled(template, value)).map(Cow::Owned),
                    );
                }
            }
        }
        given
    }

    /// Whether a role gives this bot that name, which none of its roles denies.
    pub(crate) fn gets(&self, role: &Role, field: &RoleField, name: &str) -> bool {
        // The shape once more: a name that is none of its kind matches no pattern.
        (field.shape)(name)
            && self.given(role, field).iter().any(|pattern| (field.covers)(pattern, name))
            && self.denier(field, name).is_none()
    }

    /// The role that denies this bot a name. Any of its roles counts, asked for
    /// or not: if only those asked for did, a job could shed a deny by not
    /// asking for its role.
    pub(crate) fn denier(&self, field: &RoleField, name: &str) -> Option<&Role> {
        self.each_role().find(|role| role.denies(field, name))
    }

    /// The role that denies this bot all of a name or pattern that a role allows.
    pub(crate) fn denier_of_all(&self, field: &RoleField, allowed: &str) -> Option<&Role> {
        if !has_wildcard(allowed) {
            return self.denier(field, allowed);
        }
        self.each_role().find(|role| role.denies_all(field, allowed))
    }

    /// Every plain name that these roles give this bot: sorted, each once. What
    /// a pattern would match is not among them.
    pub(crate) fn names(&self, roles: &[&Role], field: &RoleField) -> Vec<String> {
        let given = roles.iter().flat_map(|role| self.given(role, field));
        let issued = given
            .filter(|name| !has_wildcard(name) && (field.shape)(name) && self.denier(field, name).is_none());
        let mut names: Vec<String> = issued.map(Cow::into_owned).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}
