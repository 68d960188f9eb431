//! Fields of a role that list names: logins, database users, Kubernetes groups,
//! hosts and what else an output's certificate can carry.
//!
//! All of them are read, checked and denied in the same way.

use super::template::Template;
use crate::document::{Mapping, Mistake, Place};
use crate::join::rules::glob;
use crate::text::shown_exactly;

/// A field under `allow` and `deny`.
#[derive(Debug)]
pub(crate) struct RoleField {
    pub(crate) key: &'static str,
    /// What one of its names is: `database user`.
    pub(crate) noun: &'static str,
    /// Whether a text can be such a name. Strict, since the names go into
    /// certificates, files and variables; never true of one with `*` or `?`.
    pub(crate) shape: fn(&str) -> bool,
    /// What the shape wants, for hints.
    pub(crate) hint: &'static str,
    /// Which patterns `allow` takes.
    pub(crate) wildcard: Wildcard,
    /// Whether a pattern of `allow` covers a name: a glob, or narrower.
    pub(crate) covers: fn(&str, &str) -> bool,
    /// The field whose names are the same to a server, since one CA signs both:
    /// what is denied there is denied here.
    pub(crate) same_as: Option<&'static RoleField>,
    /// Whether an entry of `allow` is well formed and yet no such name: it gives nothing.
    pub(crate) gives_nothing: fn(&str) -> bool,
    /// Names that may do anything on the servers that know them.
    pub(crate) superusers: &'static [&'static str],
    /// Names that begin like this must stand in the role itself; no trait makes one.
    pub(crate) literal_only: Option<&'static str>,
    /// Reads the entries at the key, with their places.
    pub(crate) entries: fn(&mut Mapping<'_>, &'static str) -> Vec<(String, Place)>,
}

/// A list of names without wildcards; each field says how it differs.
pub(crate) const NAMES: RoleField = RoleField {
    key: "",
    noun: "",
    shape: |_| false,
    hint: "",
    wildcard: Wildcard::Never,
    covers: glob,
    same_as: None,
    gives_nothing: |_| false,
    superusers: &[],
    literal_only: None,
    entries: |mapping, key| mapping.texts(key),
};

/// Patterns in `allow`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wildcard {
    Never,
    /// `*` alone: any name that is asked for.
    Alone,
    Globs,
}

impl RoleField {
    /// The noun with its article.
    pub(crate) fn a_noun(&self) -> String {
        let article = if self.noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
        format!("{article} {}", self.noun)
    }

    /// Reads an entry of `allow`.
    pub(crate) fn parse(&self, text: &str, place: Place) -> Result<Template, Mistake> {
        let parsed = Template::parse(text, self.key, place)?;
        let wrong = |why: String| {
            Mistake::new(place, format!("`{}`: `{}` {why}", self.key, shown_exactly(text))).hint(self.hint)
        };
        let fits = match &parsed {
            Template::Literal(name) if has_wildcard(name) => match self.wildcard {
                Wildcard::Alone if name == "*" => true,
                Wildcard::Globs => self.can_match(name),
                Wildcard::Alone => {
                    return Err(wrong("is a pattern; the only one here is `*` alone".to_owned()));
                }
                Wildcard::Never => {
                    let noun = self.noun;
                    return Err(wrong(format!("has a wildcard, which {} cannot have", self.a_noun()))
                        .hint(format!("name each {noun}; no certificate can say \"any {noun}\"")));
                }
            },
            Template::Literal(name) => (self.shape)(name),
            // Some value must be able to make a name of it.
            Template::Trait { .. } => {
                let made = parsed.filled("x");
                (self.wildcard == Wildcard::Globs || !has_wildcard(&made)) && self.can_match(&made)
            }
        };
        if fits { Ok(parsed) } else { Err(wrong(format!("cannot be {}", self.a_noun()))) }
    }

    /// Whether a pattern could match some name. What stands for a wildcard
    /// here is enough for each of the shapes, IPv6 addresses included.
    pub(crate) fn can_match(&self, pattern: &str) -> bool {
        ["", "x", "1", ":1"].into_iter().any(|run| {
            let one = if run.is_empty() { "x" } else { run };
            (self.shape)(&pattern.replace('*', run).replace('?', one))
        })
    }

    /// What a template makes of a trait's value: a name, or a pattern where
    /// the role itself has one around it. None where that may not be.
    pub(crate) fn filled(&self, template: &Template, value: &str) -> Option<String> {
        let made = template.filled(value);
        let reserved = self.literal_only.is_some_and(|start| made.starts_with(start));
        (!has_wildcard(value) && !reserved && self.can_match(&made)).then_some(made)
    }
}

/// Whether a text is a pattern; no name is one.
pub(crate) fn has_wildcard(text: &str) -> bool {
    text.contains(['*', '?'])
}

/// Letters, digits and these, beginning with a letter, a digit or `_`, at most so many.
pub(crate) fn plain(text: &str, others: &str, most: usize) -> bool {
    text.len() <= most
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(c))
}
