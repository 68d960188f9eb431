//! Templates: text of a role with one of the bot's traits in it.

use crate::document::{Mistake, Place};
use crate::text::{did_you_mean, shown_exactly};

/// The traits that `{{internal.NAME}}` can name.
const INTERNAL: &[&str] = &["logins", "db_users", "db_names", "kubernetes_users", "kubernetes_groups"];

/// Whether `text` can name a trait.
pub(crate) fn is_trait_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

/// Text of a role, with at most one template in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Template {
    Literal(String),
    /// `PREFIX{{internal.NAME}}SUFFIX`: once for each value of the bot's trait.
    Trait {
        prefix: String,
        name: String,
        suffix: String,
    },
}

impl Template {
    /// Reads an entry of the list `key`.
    pub(crate) fn parse(text: &str, key: &str, place: Place) -> Result<Self, Mistake> {
        let said = shown_exactly(text);
        let wrong = |message: String| Mistake::new(place, format!("`{key}`: {message}"));
        let malformed = |why: &str| {
            let hint = "a template is `{{internal.NAME}}` or `{{external.NAME}}`";
            Err(wrong(format!("`{said}` {why}")).hint(hint))
        };
        if text.chars().any(char::is_control) {
            return Err(wrong(format!("`{said}` has a control character")));
        }
        let Some((prefix, rest)) = text.split_once("{{") else {
            return match text.contains("}}") {
                true => malformed("closes a template that it does not open"),
                false => Ok(Self::Literal(text.to_owned())),
            };
        };
        let Some((expression, suffix)) = rest.split_once("}}") else {
            return malformed("opens a template and does not close it");
        };
        if suffix.contains("{{") || suffix.contains("}}") {
            return malformed("has more than one template");
        }
        // Functions, brackets and other variables of Teleport's are not taken
        // for text: what is not understood is refused.
        match expression.trim().split_once('.') {
            Some(("internal", name)) if is_trait_name(name) && !INTERNAL.contains(&name) => {
                let others = || {
                    let known = INTERNAL.join(", ");
                    format!("there are: {known}; any other trait is `{{{{external.{name}}}}}`")
                };
                let hint = did_you_mean(name, INTERNAL).unwrap_or_else(others);
                Err(wrong(format!("there is no internal trait `{name}`")).hint(hint))
            }
            Some(("internal" | "external", name)) if is_trait_name(name) => {
                let [prefix, name, suffix] = [prefix, name, suffix].map(str::to_owned);
                Ok(Self::Trait { prefix, name, suffix })
            }
            _ => malformed("is not a template that is known here"),
        }
    }

    /// The trait in it, if there is one.
    pub(crate) fn trait_name(&self) -> Option<&str> {
        match self {
            Self::Literal(_) => None,
            Self::Trait { name, .. } => Some(name),
        }
    }

    /// The text, with `value` in place of the trait if it has one.
    pub(crate) fn filled(&self, value: &str) -> String {
        match self {
            Self::Literal(text) => text.clone(),
            Self::Trait { prefix, suffix, .. } => [prefix, value, suffix].concat(),
        }
    }
}
