//! What a role allows and denies in the [`Field`]s that list names.

use super::field::Field;
use super::template::Template;
use crate::join::rules::glob;

/// What a role says in all such fields, by key.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) allowed: Vec<(&'static str, Vec<Template>)>,
    /// Entries of `allow` that give nothing.
    pub(crate) giving_nothing: Vec<(&'static str, String)>,
    /// Globs.
    pub(crate) denied: Vec<(&'static str, Vec<String>)>,
}

impl Names {
    /// What this role allows in a field, before any trait is put in.
    pub(crate) fn allowed(&self, field: &Field) -> &[Template] {
        self.allowed.iter().find(|(key, _)| *key == field.key).map_or(&[], |(_, templates)| templates)
    }

    /// What this role says in a field that gives nothing.
    pub(crate) fn giving_nothing(&self, field: &Field) -> Vec<String> {
        self.giving_nothing
            .iter()
            .filter(|(key, _)| *key == field.key)
            .map(|(_, text)| text.clone())
            .collect()
    }

    /// Whether this role allows anything in a field, whatever traits make of it.
    pub(crate) fn allow_any(&self, field: &Field) -> bool {
        !self.allowed(field).is_empty()
    }

    /// Whether this role denies anything in a field.
    pub(crate) fn deny_any(&self, field: &Field) -> bool {
        self.globs(field).next().is_some()
    }

    /// Whether this role denies that name, here or where it is the same. A
    /// deny is as wide as it is written.
    pub(crate) fn denies(&self, field: &Field, name: &str) -> bool {
        // What cannot be a name there is nothing that a deny there is about.
        let same = field.same_as.filter(|same| (same.shape)(name));
        self.globs(field)
            .chain(same.into_iter().flat_map(|same| self.globs(same)))
            .any(|pattern| glob(pattern, name))
    }

    /// Whether this role denies all that a pattern of `allow` covers. Patterns
    /// stand in `db_users` and in fields that are the same as no other, and each
    /// database user could be a Kubernetes user: `*` denies them there too.
    pub(crate) fn denies_all(&self, field: &Field, pattern: &str) -> bool {
        self.globs(field)
            .chain(field.same_as.into_iter().flat_map(|same| self.globs(same)))
            .any(|denied| denied == "*" || denied == pattern)
    }

    fn globs(&self, field: &Field) -> impl Iterator<Item = &String> {
        self.denied.iter().filter(|(key, _)| *key == field.key).flat_map(|(_, globs)| globs)
    }
}
