//! The table of [`RoleField`]s: which there are, and what a name in each is.

use std::net::IpAddr;

use super::field::{NAMES, RoleField, Wildcard, has_wildcard, plain};
use super::labels::Reach;
use crate::document::{Mapping, Mistakes, Place};
use crate::join::rules::glob;
use crate::principal::{HOST_FORM, is_host, is_login};
use crate::wire::is_name;

/// Every field under `allow` and `deny` that lists names. A new one is a line here.
pub(crate) static FIELDS: &[&RoleField] = &[
    &LOGINS,
    &APPLICATIONS,
    &DB_USERS,
    &DB_NAMES,
    &KUBERNETES_USERS,
    &KUBERNETES_GROUPS,
    &HOSTS,
    &AUDIENCES,
];

/// With `app:` in front an application's must fit a common name.
const MAX_APPLICATION: usize = 60;
/// The longest name that PostgreSQL keeps whole; others take more.
const MAX_DATABASE: usize = 63;
/// What fits a common name and an organization (RFC 5280, `ub-common-name`).
const MAX_KUBERNETES: usize = 64;
/// The longest audience of a token.
const MAX_AUDIENCE: usize = 256;
/// How Kubernetes' own users and groups begin, `system:masters` the first of them.
const SYSTEM: &str = "system:";

/// Logins, on the hosts of `node_labels`.
pub(crate) static LOGINS: RoleField = RoleField {
    key: "logins",
    noun: "login",
    shape: is_login,
    hint: "a login has letters, digits, `.`, `_` and `-`, and begins with a letter, a digit or `_`, at most 64",
    ..NAMES
};

/// Applications are not resources here, so labels can be about their name
/// alone: `{name: orders}`, `{name: [orders, billing]}`, or `{'*': '*'}` for all of them.
pub(crate) static APPLICATIONS: RoleField = RoleField {
    key: "app_labels",
    noun: "application",
    shape: |text| text.len() <= MAX_APPLICATION && is_name(text),
    hint: "an application is known by its `name` alone: lower-case letters, digits, `_`, `.` and `-`, at most 60",
    wildcard: Wildcard::Alone,
    // A set of labels; no name has a `=`.
    gives_nothing: |set| set.contains('='),
    entries: applications,
    ..NAMES
};

/// Users of databases.
pub(crate) static DB_USERS: RoleField = RoleField {
    key: "db_users",
    noun: "database user",
    same_as: Some(&KUBERNETES_USERS),
    // Whom PostgreSQL; MariaDB, MySQL and CockroachDB; and Redis come with.
    superusers: &["postgres", "root", "default"],
    ..DB_NAMES
};

/// Databases.
pub(crate) static DB_NAMES: RoleField = RoleField {
    key: "db_names",
    noun: "database name",
    // No `:`, so that no user is ever another kind's common name (`bot:…`, `app:…`).
    shape: |text| plain(text, "._-", MAX_DATABASE),
    hint: "letters, digits, `.`, `_` and `-`, beginning with a letter, a digit or `_`, at most 63",
    wildcard: Wildcard::Alone,
    ..NAMES
};

/// Users of Kubernetes.
pub(crate) static KUBERNETES_USERS: RoleField = RoleField {
    key: "kubernetes_users",
    noun: "Kubernetes user",
    // Never the common name of another kind of output.
    shape: |text| kubernetes(text) && !text.starts_with("bot:") && !text.starts_with("app:"),
    hint: "letters, digits, `.`, `_`, `-`, `:`, `@` and `/`, at most 64; not `bot:…` or `app:…`; \
           `system:…` only where the role says so itself",
    same_as: Some(&DB_USERS),
    literal_only: Some(SYSTEM),
    ..NAMES
};

/// Groups of Kubernetes.
pub(crate) static KUBERNETES_GROUPS: RoleField = RoleField {
    key: "kubernetes_groups",
    noun: "Kubernetes group",
    shape: kubernetes,
    hint: "letters, digits, `.`, `_`, `-`, `:`, `@` and `/`, at most 64; \
           `system:…` only where the role says so itself",
    // The one that no rule of RBAC binds, and kubeadm's for `cluster-admin`.
    superusers: &["system:masters", "kubeadm:cluster-admins"],
    literal_only: Some(SYSTEM),
    ..NAMES
};

/// Names of hosts.
pub(crate) static HOSTS: RoleField = RoleField {
    key: "ssh_host_principals",
    noun: "host name",
    shape: is_host,
    hint: HOST_FORM,
    wildcard: Wildcard::Globs,
    covers: covers_host,
    ..NAMES
};

/// Audiences of tokens: who is to believe them.
pub(crate) static AUDIENCES: RoleField = RoleField {
    key: "jwt_audiences",
    noun: "audience",
    shape: is_audience,
    hint: "an audience is a URL or a name, of printable ASCII without spaces, quotes, backslashes, `*`, `?`, `{` and `}`, at most 256",
    wildcard: Wildcard::Globs,
    covers: covers_audience,
    ..NAMES
};

/// The names that labels stand for. A set with other labels than `name` is no
/// application's and stays as it is; in `deny` that is a mistake, in `allow` it gives nothing.
fn applications(mapping: &mut Mapping<'_>, key: &'static str) -> Vec<(String, Place)> {
    let read = mapping.read(key, |node, key| Ok::<_, Mistakes>((Reach::read(node, key)?, node.place)));
    let (sets, place) = match read {
        None | Some((Reach::Nowhere, _)) => return Vec::new(),
        Some((Reach::Everywhere, place)) => (vec!["*".to_owned()], place),
        Some((Reach::Labelled(sets), place)) => (sets, place),
    };
    let name = |set: String| match set.strip_prefix("name=").filter(|name| !name.contains(',')) {
        Some(name) => (name.to_owned(), place),
        None => (set, place),
    };
    sets.into_iter().map(name).collect()
}

fn kubernetes(text: &str) -> bool {
    plain(text, "._-:@/", MAX_KUBERNETES)
}

/// `*` covers every host. In a name it stays within its label, as in the names of
/// TLS certificates: `web-*` is no `web-1.attacker.example`. A glob of nothing but
/// what addresses have (`10.0.0.*`) covers addresses alone: `10.0.0.evil.example`
/// is a name that anybody can register.
fn covers_host(pattern: &str, name: &str) -> bool {
    let of_addresses = has_wildcard(pattern)
        && pattern.contains(|c: char| c.is_ascii_digit())
        && pattern.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | ':' | '*' | '?'));
    if of_addresses {
        return glob(pattern, name) && name.parse::<IpAddr>().is_ok();
    }
    let same = pattern.split('.').count() == name.split('.').count();
    pattern == "*"
        || same && pattern.split('.').zip(name.split('.')).all(|(pattern, label)| glob(pattern, label))
}

fn is_audience(text: &str) -> bool {
    (1..=MAX_AUDIENCE).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"*?{}\"'`\\".contains(&byte))
}

/// `*` stays between two slashes: `https://*.example.com` covers nothing behind the host.
fn covers_audience(pattern: &str, audience: &str) -> bool {
    pattern.split('/').count() == audience.split('/').count()
        && pattern.split('/').zip(audience.split('/')).all(|(pattern, part)| glob(pattern, part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::policy::resources::template::Template;

    #[test]
    fn a_wildcard_covers_one_label_of_a_host() {
        for (pattern, name, covered) in [
            ("web-*", "web-1", true),
            ("web-*", "web-1.attacker.example", false),
            ("web-?", "web-1", true),
            ("*.example.com", "web.example.com", true),
            ("*.example.com", "a.web.example.com", false),
            ("*.example.com", "example.com", false),
            ("*.*.example.com", "a.web.example.com", true),
            ("**.example.com", "a.web.example.com", false),
            ("web*.example.com", "web.attacker.example.com", false),
            ("*com", "example.com", false),
            ("*", "a.web.example.com", true),
            ("*", "10.0.0.1", true),
            ("10.*", "10.0.0.1", true),
            ("10.*", "10.evil", false),
            ("2001:db8:*", "2001:db8::1", true),
        ] {
            assert_eq!(covers_host(pattern, name), covered, "{pattern} {name}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_pattern_covers_a_host_of_other_labels(pattern in "[a-c*?]{1,4}(\\.[a-c*?]{1,4}){0,2}", name in "[a-c]{1,4}(\\.[a-c]{1,4}){0,3}") {
            let labels = |text: &str| text.split('.').count();
            if covers_host(&pattern, &name) && pattern != "*" {
                proptest::prop_assert_eq!(labels(&pattern), labels(&name));
                proptest::prop_assert!(glob(&pattern, &name));
            }
        }
    }

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
            assert_eq!(LOGINS.parse(text, Place::default()), Ok(template), "{text}");
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
            let mistake = LOGINS.parse(text, Place::default()).unwrap_err();
            assert_eq!(mistake.message, format!("`logins`: {message}"), "{text}");
        }
        let hint = |text: &str| LOGINS.parse(text, Place::default()).unwrap_err().hint.unwrap();
        assert_eq!(hint("{{internal.login}}"), "did you mean `logins`?");
        assert!(hint("{{internal.windows}}").contains("{{external.windows}}"));
    }
}
