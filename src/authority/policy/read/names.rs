//! The fields of a role that list names, under `allow` and `deny`.

use crate::authority::policy::resources::{FIELDS, Names};
use crate::document::{Mapping, Mistake, Place};
use crate::text::shown;

/// Reads them from `allow`.
pub(super) fn read_allow(names: &mut Names, allow: &mut Mapping<'_>) {
    for field in FIELDS {
        let mut templates = Vec::new();
        for (text, place) in allow.read(field.key, field.entries).unwrap_or_default() {
            if (field.gives_nothing)(&text) {
                names.giving_nothing.push((field.key, text));
            } else {
                templates.extend(allow.mistakes.keep(field.parse(&text, place)));
            }
        }
        if !templates.is_empty() {
            names.allowed.push((field.key, templates));
        }
    }
}

/// Reads them from `deny`. What could match nothing would deny nothing,
/// whatever its author meant.
pub(super) fn read_deny(names: &mut Names, deny: &mut Mapping<'_>) {
    for field in FIELDS {
        let mut globs = Vec::new();
        for (text, place) in deny.read(field.key, field.entries).unwrap_or_default() {
            if field.can_match(&text) {
                globs.push(text);
            } else {
                deny.mistakes.add(denies_nothing(&text, field.key, field.noun, place));
            }
        }
        if !globs.is_empty() {
            names.denied.push((field.key, globs));
        }
    }
}

/// The mistake of an entry under `deny` that no name of its kind matches.
pub(super) fn denies_nothing(text: &str, key: &str, noun: &str, place: Place) -> Mistake {
    let message = format!("`{}` in `deny.{key}` can match no {noun}", shown(text));
    let hint = match key {
        "logins" => "deny takes logins and globs (`*`, `?`), one an entry, and no templates",
        _ => "deny takes names and globs (`*`, `?`), one an entry, and no templates",
    };
    Mistake::new(place, message).hint(hint)
}
