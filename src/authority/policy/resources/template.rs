//! Templates: text of a role with one of the bot's traits in it.

use crate::document::{Mistake, Place};
use crate::principal::{MAX_LOGIN, is_login};
use crate::text::{did_you_mean, shown};

/// The traits that `{{internal.NAME}}` can name.
const INTERNAL: &[&str] = &["logins", "db_users", "db_names", "kubernetes_users", "kubernetes_groups"];

/// Whether `text` can name a trait.
pub(crate) fn is_trait_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

/// Text of a role, with at most one template in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Template {
    /// The text itself.
    Literal(String),
    /// `PREFIX{{internal.NAME}}SUFFIX`: once for each value of the bot's trait.
    Trait {
        /// What stands before.
        prefix: String,
        /// The trait.
        name: String,
        /// What stands behind.
        suffix: String,
    },
}

impl Template {
    /// Reads an entry of the list `key`.
    pub(crate) fn parse(text: &str, key: &str, place: Place) -> Result<Self, Mistake> {
        let said = shown(text);
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

    /// Reads one that makes logins.
    pub(crate) fn parse_login(text: &str, key: &str, place: Place) -> Result<Self, Mistake> {
        let wrong = |why: &str| Mistake::new(place, format!("`{key}`: `{}` {why}", shown(text)));
        if text.contains('*') && !text.contains("{{") {
            let hint = "name each login; no certificate can say \"any login\"";
            return Err(wrong("has a wildcard, which a login cannot have").hint(hint));
        }
        let template = Self::parse(text, key, place)?;
        // Some value must be able to make a login of it.
        if is_login(&template.filled("x")) {
            return Ok(template);
        }
        Err(wrong("cannot be a login").hint(format!("{LOGIN_SHAPE}, at most {MAX_LOGIN}")))
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

/// What [`is_login`] wants, for hints.
pub(crate) const LOGIN_SHAPE: &str =
    "a login has letters, digits, `.`, `_` and `-`, and begins with a letter, a digit or `_`";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_are_plain() {
        for good in ["root", "a", "_apt", "Deploy.prod-1", "0", &"x".repeat(64)] {
            assert!(is_login(good), "{good}");
        }
        for bad in [
            "",
            "-x",
            ".x",
            "a b",
            "a,b",
            "a\n",
            "a@b",
            "a=b",
            "*",
            "a?",
            "é",
            "a/b",
            "a:b",
            "a$",
            "\0",
            &"x".repeat(65),
        ] {
            assert!(!is_login(bad), "{bad:?}");
        }
    }

    #[test]
    fn templates() {
        let filled = |prefix: &str, name: &str, suffix: &str| Template::Trait {
            prefix: prefix.into(),
            name: name.into(),
            suffix: suffix.into(),
        };
        for (text, template) in [
            ("deploy", Template::Literal("deploy".into())),
            ("{{internal.logins}}", filled("", "logins", "")),
            ("{{ internal.logins }}", filled("", "logins", "")),
            ("ci-{{external.team}}.x", filled("ci-", "team", ".x")),
            ("{{external.logins}}", filled("", "logins", "")),
        ] {
            assert_eq!(Template::parse_login(text, "logins", Place::default()), Ok(template), "{text}");
        }
    }

    #[test]
    fn other_forms_are_mistakes() {
        for (text, message) in [
            ("a\tb", "`a\\u{9}b` has a control character"),
            ("*", "`*` has a wildcard, which a login cannot have"),
            ("web*", "`web*` has a wildcard, which a login cannot have"),
            ("a b", "`a b` cannot be a login"),
            ("a,b", "`a,b` cannot be a login"),
            ("{x}", "`{x}` cannot be a login"),
            ("@{{internal.logins}}", "`@{{internal.logins}}` cannot be a login"),
            ("{{internal.logins}}*", "`{{internal.logins}}*` cannot be a login"),
            ("-{{internal.logins}}", "`-{{internal.logins}}` cannot be a login"),
            ("{{internal.logins", "`{{internal.logins` opens a template and does not close it"),
            ("internal.logins}}", "`internal.logins}}` closes a template that it does not open"),
            (
                "{{internal.logins}}{{external.x}}",
                "`{{internal.logins}}{{external.x}}` has more than one template",
            ),
            ("{{internal.login}}", "there is no internal trait `login`"),
            ("{{internal.windows}}", "there is no internal trait `windows`"),
            ("{{internal[\"logins\"]}}", "`{{internal[\"logins\"]}}` is not a template that is known here"),
            ("{{logins}}", "`{{logins}}` is not a template that is known here"),
            ("{{user.name}}", "`{{user.name}}` is not a template that is known here"),
            (
                "{{email.local(external.email)}}",
                "`{{email.local(external.email)}}` is not a template that is known here",
            ),
            ("{{external.}}", "`{{external.}}` is not a template that is known here"),
            ("{{}}", "`{{}}` is not a template that is known here"),
            ("{{{internal.logins}}}", "`{{{internal.logins}}}` is not a template that is known here"),
        ] {
            let mistake = Template::parse_login(text, "logins", Place::default()).unwrap_err();
            assert_eq!(mistake.message, format!("`logins`: {message}"), "{text}");
        }
        let hint = |text: &str| Template::parse_login(text, "x", Place::default()).unwrap_err().hint.unwrap();
        assert_eq!(hint("{{internal.login}}"), "did you mean `logins`?");
        assert!(hint("{{internal.windows}}").contains("{{external.windows}}"));
    }
}
