//! Logins: what may be a principal of an SSH certificate, and the templates
//! that put a bot's traits in.

use crate::document;
use crate::principal::MAX_LOGIN;
pub(super) use crate::principal::is_login;
use crate::text::shown;

/// The traits that `{{internal.NAME}}` can name.
const INTERNAL: &[&str] = &["logins", "db_users", "db_names", "kubernetes_users", "kubernetes_groups"];

/// Whether `text` can name a trait.
pub(super) fn is_trait_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

/// Text of a role, with at most one template in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Template {
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
    /// Reads it; says what is wrong, and what to do about it, if anything is.
    pub(super) fn parse(text: &str) -> Result<Self, (String, Option<String>)> {
        let said = shown(text);
        if text.is_empty() {
            return Err(("is empty".to_owned(), None));
        }
        if text.chars().any(char::is_control) {
            return Err((format!("`{said}` has a control character"), None));
        }
        let forms = || Some("a template is `{{internal.NAME}}` or `{{external.NAME}}`".to_owned());
        let Some((prefix, rest)) = text.split_once("{{") else {
            return match text.contains("}}") {
                true => Err((format!("`{said}` closes a template that it does not open"), forms())),
                false => Ok(Self::Literal(text.to_owned())),
            };
        };
        let Some((expression, suffix)) = rest.split_once("}}") else {
            return Err((format!("`{said}` opens a template and does not close it"), forms()));
        };
        if suffix.contains("{{") || suffix.contains("}}") {
            return Err((format!("`{said}` has more than one template"), forms()));
        }
        // Functions, brackets and other variables of Teleport's are not taken
        // for text: what is not understood is refused.
        let unknown = || Err((format!("`{said}` is not a template that is known here"), forms()));
        let Some((space, name)) = expression.trim().split_once('.') else { return unknown() };
        match space {
            "internal" if INTERNAL.contains(&name) => {}
            "internal" if is_trait_name(name) => {
                let hint = match document::nearest(name, INTERNAL) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!(
                        "there are: {}; any other trait is `{{{{external.{name}}}}}`",
                        INTERNAL.join(", ")
                    ),
                };
                return Err((format!("there is no internal trait `{name}`"), Some(hint)));
            }
            "external" if is_trait_name(name) => {}
            _ => return unknown(),
        }
        Ok(Self::Trait { prefix: prefix.to_owned(), name: name.to_owned(), suffix: suffix.to_owned() })
    }

    /// Reads one that makes logins.
    pub(super) fn parse_login(text: &str) -> Result<Self, (String, Option<String>)> {
        if text.contains('*') && !text.contains("{{") {
            let hint = "name each login; no certificate can say \"any login\"".to_owned();
            return Err((format!("`{}` has a wildcard, which a login cannot have", shown(text)), Some(hint)));
        }
        let template = Self::parse(text)?;
        let fits = match &template {
            Self::Literal(login) => is_login(login),
            // Some value must be able to make a login of it.
            Self::Trait { prefix, suffix, .. } => is_login(&format!("{prefix}x{suffix}")),
        };
        match fits {
            true => Ok(template),
            false => Err((
                format!("`{}` cannot be a login", shown(text)),
                Some(format!("{LOGIN_SHAPE}, at most {MAX_LOGIN}")),
            )),
        }
    }

    /// What it makes of the value of a trait.
    pub(super) fn fill(prefix: &str, value: &str, suffix: &str) -> String {
        [prefix, value, suffix].concat()
    }
}

/// What [`is_login`] wants, for hints.
pub(super) const LOGIN_SHAPE: &str =
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
            assert_eq!(Template::parse_login(text), Ok(template), "{text}");
        }
    }

    #[test]
    fn other_forms_are_mistakes() {
        for (text, message) in [
            ("", "is empty"),
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
            assert_eq!(Template::parse_login(text).unwrap_err().0, message, "{text}");
        }
        let hint = |text: &str| Template::parse_login(text).unwrap_err().1.unwrap();
        assert_eq!(hint("{{internal.login}}"), "did you mean `logins`?");
        assert!(hint("{{internal.windows}}").contains("{{external.windows}}"));
    }
}
