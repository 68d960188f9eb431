//! Fields of a role that list names: database users, Kubernetes groups, hosts
//! and what else an output's certificate can carry.
//!
//! A field belongs to the output that issues it. All of them are read, checked
//! and denied in the same way, so that an output's file says only what is its own.

use super::bot::Bot;
use super::login::Template;
use super::role::{Role, template};
use super::section::Section;
use crate::document::{Mistake, Place};
use crate::join::rules::glob;
use crate::text::shown;

/// A field under `allow` and `deny`.
#[derive(Debug)]
pub(super) struct Field {
    /// Its key.
    pub(super) key: &'static str,
    /// What one of its names is: `database user`.
    pub(super) noun: &'static str,
    /// Whether a text can be such a name. Strict, since the names go into
    /// certificates, files and variables; never true of one with `*` or `?`.
    pub(super) shape: fn(&str) -> bool,
    /// What the shape wants, for hints.
    pub(super) hint: &'static str,
    /// Which patterns `allow` takes.
    pub(super) wildcard: Wildcard,
    /// Whether a pattern of `allow` covers a name: [`glob`], or narrower.
    pub(super) covers: fn(&str, &str) -> bool,
    /// The field whose names are the same to a server, since one CA signs both:
    /// what is denied there is denied here.
    pub(super) same_as: Option<&'static Field>,
    /// Whether an entry of `allow` is well formed and yet no such name: it gives nothing.
    pub(super) hollow: fn(&str) -> bool,
    /// Names that may do anything on the servers that know them.
    pub(super) superusers: &'static [&'static str],
    /// Names that begin like this must stand in the role itself; no trait makes one.
    pub(super) literal_only: Option<&'static str>,
    /// Reads the entries at `key`.
    pub(super) entries: fn(&mut Section<'_, '_>, &'static str) -> Vec<(String, Place)>,
}

/// Patterns in `allow`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wildcard {
    /// None.
    Never,
    /// `*` alone: any name that is asked for.
    Alone,
    /// Globs.
    Globs,
}

/// The entries of a field that is a list of texts.
pub(super) fn list(section: &mut Section<'_, '_>, key: &'static str) -> Vec<(String, Place)> {
    section.texts(key).into_iter().map(|(text, place)| (text.to_owned(), place)).collect()
}

/// What a role says in all such fields, by key.
#[derive(Debug, Default)]
pub(super) struct Names {
    allowed: Vec<(&'static str, Vec<Template>)>,
    /// Entries of `allow` that give nothing.
    hollow: Vec<(&'static str, String)>,
    /// Globs.
    denied: Vec<(&'static str, Vec<String>)>,
}

impl Names {
    /// Reads them from `allow`.
    pub(super) fn read_allow(&mut self, allow: &mut Section<'_, '_>) {
        for field in super::output::fields() {
            let mut templates = Vec::new();
            for (text, place) in (field.entries)(allow, field.key) {
                if (field.hollow)(&text) {
                    self.hollow.push((field.key, text));
                    continue;
                }
                let read = template(field.parse(&text), field.key, place);
                templates.extend(allow.keep(read));
            }
            if !templates.is_empty() {
                self.allowed.push((field.key, templates));
            }
        }
    }

    /// Reads them from `deny`. What could match nothing would deny nothing,
    /// whatever its author meant.
    pub(super) fn read_deny(&mut self, deny: &mut Section<'_, '_>) {
        for field in super::output::fields() {
            let mut globs = Vec::new();
            for (text, place) in (field.entries)(deny, field.key) {
                if field.can_match(&text) {
                    globs.push(text);
                } else {
                    let said = shown(&text);
                    let message = format!("`{said}` in `deny.{}` can match no {}", field.key, field.noun);
                    let hint = "deny takes names and globs (`*`, `?`), one an entry, and no templates";
                    deny.mistake(Mistake::new(place, message).hint(hint));
                }
            }
            if !globs.is_empty() {
                self.denied.push((field.key, globs));
            }
        }
    }

    /// What this role allows in a field, before any trait is put in.
    pub(super) fn allowed(&self, field: &Field) -> &[Template] {
        self.allowed.iter().find(|(key, _)| *key == field.key).map_or(&[], |(_, templates)| templates)
    }

    /// What this role says in a field that gives nothing.
    pub(super) fn hollow(&self, field: &Field) -> Vec<String> {
        self.hollow.iter().filter(|(key, _)| *key == field.key).map(|(_, text)| text.clone()).collect()
    }

    /// Whether this role allows anything in a field, whatever traits make of it.
    pub(super) fn allow_any(&self, field: &Field) -> bool {
        !self.allowed(field).is_empty()
    }

    /// Whether this role denies anything in a field.
    pub(super) fn deny_any(&self, field: &Field) -> bool {
        self.globs(field).next().is_some()
    }

    /// Whether this role denies that name, here or where it is the same. A
    /// deny is as wide as it is written.
    fn denies(&self, field: &Field, name: &str) -> bool {
        // What cannot be a name there is nothing that a deny there is about.
        let same = field.same_as.filter(|same| (same.shape)(name));
        self.globs(field)
            .chain(same.into_iter().flat_map(|same| self.globs(same)))
            .any(|pattern| glob(pattern, name))
    }

    /// Whether this role denies all that a pattern of `allow` covers. Patterns
    /// stand in `db_users` and in fields that are the same as no other, and each
    /// database user could be a Kubernetes user: `*` denies them there too.
    fn denies_all(&self, field: &Field, pattern: &str) -> bool {
        self.globs(field)
            .chain(field.same_as.into_iter().flat_map(|same| self.globs(same)))
            .any(|denied| denied == "*" || denied == pattern)
    }

    fn globs(&self, field: &Field) -> impl Iterator<Item = &String> {
        self.denied.iter().filter(|(key, _)| *key == field.key).flat_map(|(_, globs)| globs)
    }
}

impl Field {
    /// The noun with its article.
    pub(super) fn a_noun(&self) -> String {
        let article = if self.noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
        format!("{article} {}", self.noun)
    }

    fn parse(&self, text: &str) -> Result<Template, (String, Option<String>)> {
        let parsed = Template::parse(text)?;
        let said = shown(text);
        let wrong = |why: String| Err((why, Some(self.hint.to_owned())));
        let fits = match &parsed {
            Template::Literal(name) if has_wildcard(name) => match self.wildcard {
                Wildcard::Alone if name == "*" => true,
                Wildcard::Globs => self.can_match(name),
                Wildcard::Alone => {
                    return wrong(format!("`{said}` is a pattern; the only one here is `*` alone"));
                }
                Wildcard::Never => {
                    return wrong(format!("`{said}` has a wildcard, which {} cannot have", self.a_noun()));
                }
            },
            Template::Literal(name) => (self.shape)(name),
            // Some value must be able to make a name of it.
            Template::Trait { prefix, suffix, .. } => {
                let made = format!("{prefix}x{suffix}");
                (self.wildcard == Wildcard::Globs || !has_wildcard(&made)) && self.can_match(&made)
            }
        };
        if fits { Ok(parsed) } else { wrong(format!("`{said}` cannot be {}", self.a_noun())) }
    }

    /// Whether a pattern could match some name. What stands for a wildcard
    /// here is enough for each of the shapes, IPv6 addresses included.
    fn can_match(&self, pattern: &str) -> bool {
        ["", "x", "1", ":1"].into_iter().any(|run| {
            let one = if run.is_empty() { "x" } else { run };
            (self.shape)(&pattern.replace('*', run).replace('?', one))
        })
    }

    /// What a template makes of a trait's value: a name, or a pattern where
    /// the role itself has one around it. None where that may not be.
    fn filled(&self, prefix: &str, value: &str, suffix: &str) -> Option<String> {
        let made = Template::fill(prefix, value, suffix);
        let reserved = self.literal_only.is_some_and(|start| made.starts_with(start));
        (!has_wildcard(value) && !reserved && self.can_match(&made)).then_some(made)
    }
}

/// Whether a text is a pattern; no name is one.
pub(super) fn has_wildcard(text: &str) -> bool {
    text.contains(['*', '?'])
}

/// The names and patterns that a role gives a bot in a field, before anything
/// is denied. A trait that the bot does not have gives none.
pub(super) fn each(bot: &Bot, role: &Role, field: &Field, mut found: impl FnMut(&str)) {
    for template in role.names.allowed(field) {
        match template {
            Template::Literal(name) => found(name),
            Template::Trait { prefix, name, suffix } => {
                for (value, _) in bot.trait_values(name) {
                    // Checked when the policy was read; once more where it counts.
                    if let Some(made) = field.filled(prefix, value, suffix) {
                        found(&made);
                    }
                }
            }
        }
    }
}

/// Whether a role gives a bot that name, denied or not.
pub(super) fn allows(bot: &Bot, role: &Role, field: &Field, name: &str) -> bool {
    let mut allowed = false;
    // The shape once more: a name that is none of its kind matches no pattern.
    if (field.shape)(name) {
        each(bot, role, field, |pattern| allowed |= (field.covers)(pattern, name));
    }
    allowed
}

/// The role that denies a bot that name. Any role of the bot counts, asked for
/// or not: if only those asked for did, a job could shed a deny by not asking
/// for its role.
pub(super) fn denier<'b>(bot: &'b Bot, field: &Field, name: &str) -> Option<&'b Role> {
    bot.roles.iter().map(AsRef::as_ref).find(|role| role.names.denies(field, name))
}

/// The role that denies a bot all of a name or pattern that a role allows.
pub(super) fn denier_of_all<'b>(bot: &'b Bot, field: &Field, allowed: &str) -> Option<&'b Role> {
    if !has_wildcard(allowed) {
        return denier(bot, field, allowed);
    }
    bot.roles.iter().map(AsRef::as_ref).find(|role| role.names.denies_all(field, allowed))
}

/// Every plain name that these roles give a bot: sorted, each once. What a
/// pattern would match is not among them.
pub(super) fn names(bot: &Bot, roles: &[&Role], field: &Field) -> Vec<String> {
    let mut names = Vec::new();
    for role in roles {
        each(bot, role, field, |name| {
            if !has_wildcard(name) && (field.shape)(name) && denier(bot, field, name).is_none() {
                names.push(name.to_owned());
            }
        });
    }
    names.sort_unstable();
    names.dedup();
    names
}

/// Checks what a role's templates make of the bot's traits.
pub(super) fn check(bot: &Bot, role: &Role, mistakes: &mut Vec<Mistake>) {
    for field in super::output::fields() {
        for template in role.names.allowed(field) {
            let Template::Trait { prefix, name, suffix } = template else { continue };
            for (value, place) in bot.trait_values(name) {
                if field.filled(prefix, value, suffix).is_none() {
                    let message = format!(
                        "the trait `{name}` makes {} of `{}` in role `{}`, which cannot be one",
                        field.a_noun(),
                        shown(value),
                        role.name
                    );
                    mistakes.push(Mistake::new(*place, message).hint(field.hint));
                }
            }
        }
    }
}

/// Letters, digits and these, beginning with a letter, a digit or `_`, at most so many.
pub(super) fn plain(text: &str, others: &str, most: usize) -> bool {
    text.len() <= most
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(c))
}
