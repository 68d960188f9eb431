//! The table of [`Field`]s: which there are, and what a name in each is.

use std::net::IpAddr;

use super::field::{Entries, Field, Wildcard, has_wildcard, plain};
use super::labels::Reach;
use crate::document::{Mistakes, Node};
use crate::join::rules::glob;
use crate::wire::is_name;

/// Every field under `allow` and `deny` that lists names. A new one is a line here.
pub(crate) static FIELDS: &[&Field] =
    &[&APPLICATIONS, &DB_USERS, &DB_NAMES, &KUBERNETES_USERS, &KUBERNETES_GROUPS, &HOSTS];

/// With `app:` in front an application's must fit a common name.
const MAX_APPLICATION: usize = 60;
/// The longest name that PostgreSQL keeps whole; others take more.
const MAX_DATABASE: usize = 63;
/// What fits a common name and an organization (RFC 5280, `ub-common-name`).
const MAX_KUBERNETES: usize = 64;
/// How Kubernetes' own users and groups begin, `system:masters` the first of them.
const SYSTEM: &str = "system:";

/// Applications are not resources here, so labels can be about their name
/// alone: `{name: orders}`, `{name: [orders, billing]}`, or `{'*': '*'}` for all of them.
pub(crate) static APPLICATIONS: Field = Field {
    key: "app_labels",
    noun: "application",
    shape: |text| text.len() <= MAX_APPLICATION && is_name(text),
    hint: "an application is known by its `name` alone: lower-case letters, digits, `_`, `.` and `-`, at most 60",
    wildcard: Wildcard::Alone,
    covers: glob,
    same_as: None,
    // A set of labels; no name has a `=`.
    gives_nothing: |set| set.contains('='),
    superusers: &[],
    literal_only: None,
    entries: applications,
};

/// Users of databases.
pub(crate) static DB_USERS: Field = Field {
    key: "db_users",
    noun: "database user",
    // No `:`, so that none is ever another kind's common name (`bot:…`, `app:…`).
    shape: |text| plain(text, "._-", MAX_DATABASE),
    hint: "letters, digits, `.`, `_` and `-`, beginning with a letter, a digit or `_`, at most 63",
    wildcard: Wildcard::Alone,
    covers: glob,
    same_as: Some(&KUBERNETES_USERS),
    gives_nothing: |_| false,
    // Whom PostgreSQL; MariaDB, MySQL and CockroachDB; and Redis come with.
    superusers: &["postgres", "root", "default"],
    literal_only: None,
    entries: texts,
};

/// Databases.
pub(crate) static DB_NAMES: Field =
    Field { key: "db_names", noun: "database name", same_as: None, superusers: &[], ..DB_USERS };

/// Users of Kubernetes.
pub(crate) static KUBERNETES_USERS: Field = Field {
    key: "kubernetes_users",
    noun: "Kubernetes user",
    // Never the common name of another kind of output.
    shape: |text| kubernetes(text) && !text.starts_with("bot:") && !text.starts_with("app:"),
    hint: "letters, digits, `.`, `_`, `-`, `:`, `@` and `/`, at most 64; not `bot:…` or `app:…`; \
           `system:…` only where the role says so itself",
    wildcard: Wildcard::Never,
    covers: glob,
    same_as: Some(&DB_USERS),
    gives_nothing: |_| false,
    superusers: &[],
    literal_only: Some(SYSTEM),
    entries: texts,
};

/// Groups of Kubernetes.
pub(crate) static KUBERNETES_GROUPS: Field = Field {
    key: "kubernetes_groups",
    noun: "Kubernetes group",
    shape: kubernetes,
    hint: "letters, digits, `.`, `_`, `-`, `:`, `@` and `/`, at most 64; \
           `system:…` only where the role says so itself",
    same_as: None,
    // The one that no rule of RBAC binds, and kubeadm's for `cluster-admin`.
    superusers: &["system:masters", "kubeadm:cluster-admins"],
    ..KUBERNETES_USERS
};

/// Names of hosts.
pub(crate) static HOSTS: Field = Field {
    key: "ssh_host_principals",
    noun: "host name",
    shape: is_host,
    hint: "a DNS name in lower case without a dot at its end, or an IP address in its usual form",
    wildcard: Wildcard::Globs,
    covers: covers_host,
    same_as: None,
    gives_nothing: |_| false,
    superusers: &[],
    literal_only: None,
    entries: texts,
};

/// The entries of a list of texts.
fn texts(node: &Node, key: &'static str) -> Result<Entries, Mistakes> {
    let mut mistakes = Mistakes::default();
    let items = node.list(key)?.iter();
    let entries =
        items.filter_map(|item| Some((mistakes.keep(item.text(key))?.to_owned(), item.place))).collect();
    mistakes.or(entries)
}

/// The names that labels stand for. A set with other labels than `name` is no
/// application's and stays as it is; in `deny` that is a mistake, in `allow` it gives nothing.
fn applications(node: &Node, key: &'static str) -> Result<Entries, Mistakes> {
    let sets = match Reach::read(node, key)? {
        Reach::Nowhere => Vec::new(),
        Reach::Everywhere => vec!["*".to_owned()],
        Reach::Labelled(sets) => sets,
    };
    let name = |set: String| match set.strip_prefix("name=").filter(|name| !name.contains(',')) {
        Some(name) => (name.to_owned(), node.place),
        None => (set, node.place),
    };
    Ok(sets.into_iter().map(name).collect())
}

fn kubernetes(text: &str) -> bool {
    plain(text, "._-:@/", MAX_KUBERNETES)
}

/// A host has one name here, so that no other spelling of it gets past a
/// `deny`. OpenSSH takes `*` in a host's principal for a pattern: it is none of
/// a name's characters.
fn is_host(text: &str) -> bool {
    if let Ok(address) = text.parse::<IpAddr>() {
        return address.to_string() == text;
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
    };
    // `127.1` and `0x7f000001` are addresses to some programs.
    let last = text.rsplit('.').next().unwrap_or_default();
    let numeric = last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x");
    text.len() <= 253 && !numeric && text.split('.').all(label)
}

/// A glob of nothing but what addresses have (`10.0.0.*`) covers addresses
/// alone: `10.0.0.evil.example` is a name that anybody can register.
fn covers_host(pattern: &str, name: &str) -> bool {
    let of_addresses = has_wildcard(pattern)
        && pattern.contains(|c: char| c.is_ascii_digit())
        && pattern.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | ':' | '*' | '?'));
    glob(pattern, name) && (!of_addresses || name.parse::<IpAddr>().is_ok())
}
