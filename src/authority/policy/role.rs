//! Roles: what a bot that holds one may log in as, where, for how long and with which rights.

use super::field::Names;
use super::login::{Template, is_login};
use super::origin::Origin;
use super::section::Section;
use crate::document::{Mistake, Node, Place};
use crate::join::rules::glob;
use crate::principal::is_label;
use crate::text::shown;

/// The shortest and the longest `max_session_ttl`, in seconds: below the first
/// no request is answered, above the second nothing is short-lived.
const TTL_RANGE: std::ops::RangeInclusive<u64> = 10..=7 * 24 * 3600;
/// The `max_session_ttl` of a role that has none, in seconds.
const DEFAULT_TTL: u64 = 3600;
/// The most principals that one role gives a bot.
pub(super) const MAX_PRINCIPALS: usize = 64;
/// The longest `force_command`.
const MAX_COMMAND: usize = 1024;

/// A role.
#[derive(Debug)]
pub(super) struct Role {
    /// Its name.
    pub(super) name: String,
    /// Where it stands.
    pub(super) origin: Origin,
    /// `spec.options`.
    pub(super) options: Options,
    /// `spec.allow.logins`.
    pub(super) logins: Vec<Template>,
    /// `spec.allow.node_labels`.
    pub(super) reach: Reach,
    /// `spec.deny.logins`: globs.
    pub(super) denied_logins: Vec<String>,
    /// The fields of other outputs, under `allow` and `deny`.
    pub(super) names: Names,
}

/// A role's options.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Options {
    /// The longest life of a certificate, in seconds.
    pub(super) max_ttl: u64,
    /// Whether each session needs a second factor, which no machine has.
    pub(super) session_mfa: bool,
    /// Whether the certificate holds only at the address that it was asked for from.
    pub(super) pin_source_ip: bool,
    /// The one command that the certificate can run.
    pub(super) force_command: Option<String>,
    /// Whether the agent may be forwarded.
    pub(super) forward_agent: bool,
    /// Whether ports may be forwarded.
    pub(super) port_forwarding: bool,
    /// Whether there may be a terminal.
    pub(super) pty: bool,
    /// Whether X11 may be forwarded.
    pub(super) x11: bool,
}

/// What a role has without `spec.options`: a terminal and nothing else, since
/// nothing is allowed by default.
impl Default for Options {
    fn default() -> Self {
        Self {
            max_ttl: DEFAULT_TTL,
            session_mfa: false,
            pin_source_ip: false,
            force_command: None,
            forward_agent: false,
            port_forwarding: false,
            pty: true,
            x11: false,
        }
    }
}

/// On which hosts a role's logins hold.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// None: no `node_labels`, so nobody said where.
    Nowhere,
    /// All: `{'*': '*'}`.
    Everywhere,
    /// Those with all labels of one of these, each `k=v,k2=v2`, keys sorted.
    /// What separates them is in no key and no value, so that no two sets of
    /// labels read the same.
    Labelled(Vec<String>),
}

impl Reach {
    /// How many principals a login becomes; one where it is not said, so that
    /// the bound on them is one on logins too.
    pub(super) fn width(&self) -> usize {
        match self {
            Self::Nowhere | Self::Everywhere => 1,
            Self::Labelled(sets) => sets.len(),
        }
    }
}

impl Role {
    /// Whether this role denies that login.
    pub(super) fn denies(&self, login: &str) -> bool {
        self.denied_logins.iter().any(|pattern| glob(pattern, login))
    }

    /// Reads `spec`; what cannot be read is as if it were not there, and a mistake.
    pub(super) fn read(name: String, origin: Origin, spec: &Node, mistakes: &mut Vec<Mistake>) -> Self {
        let mut role = Self {
            name,
            origin,
            options: Options::default(),
            logins: Vec::new(),
            reach: Reach::Nowhere,
            denied_logins: Vec::new(),
            names: Names::default(),
        };
        let Some(mut spec) = Section::open(spec, "the role's `spec`", mistakes) else { return role };
        if let Some(node) = spec.take("options") {
            role.options = read_options(node, spec.mistakes());
        }
        if let Some(node) = spec.take("allow") {
            role.read_allow(node, spec.mistakes());
        }
        if let Some(node) = spec.take("deny") {
            role.read_deny(node, spec.mistakes());
        }
        spec.finish();
        role
    }

    fn read_allow(&mut self, node: &Node, mistakes: &mut Vec<Mistake>) {
        let Some(mut allow) = Section::open(node, "`allow`", mistakes) else { return };
        for (text, place) in allow.texts("logins") {
            let login = template(Template::parse_login(text), "logins", place);
            self.logins.extend(allow.keep(login));
        }
        if let Some(labels) = allow.take("node_labels") {
            self.reach = read_labels(labels, "node_labels", allow.mistakes());
        }
        self.names.read_allow(&mut allow);
        allow.finish();
    }

    fn read_deny(&mut self, node: &Node, mistakes: &mut Vec<Mistake>) {
        let Some(mut deny) = Section::open(node, "`deny`", mistakes) else { return };
        for (text, place) in deny.texts("logins") {
            // With anything else in it, it would match no login and so deny
            // nothing, whatever its author meant.
            if is_login_glob(text) {
                self.denied_logins.push(text.to_owned());
            } else {
                let message = format!("`{}` in `deny.logins` can match no login", shown(text));
                deny.mistake(
                    Mistake::new(place, message)
                        .hint("deny takes logins and globs (`*`, `?`), one an entry, and no templates"),
                );
            }
        }
        // A certificate cannot say "not on these hosts" to plain OpenSSH:
        // better no policy than one that seems to deny.
        if let Some(labels) = deny.take("node_labels") {
            deny.mistake(
                Mistake::new(labels.place, "`deny.node_labels` is not supported")
                    .hint("say in `allow.node_labels` where the role holds, and leave out the rest"),
            );
        }
        self.names.read_deny(&mut deny);
        deny.finish();
    }
}

/// Roles by name, for a message; not all of very many.
pub(super) fn listed(roles: &[&Role]) -> String {
    const MOST: usize = 8;
    let names: Vec<String> = roles.iter().take(MOST).map(|role| format!("`{}`", role.name)).collect();
    match roles.len().saturating_sub(MOST) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

/// What every refusal and warning says of roles that need MFA: an operator
/// reads the same words in `check` as the job does.
pub(super) fn needs_mfa(bot: &str, roles: &[&Role]) -> String {
    let (needs, noun) = if roles.len() == 1 { ("needs", "role") } else { ("need", "roles") };
    let names = listed(roles);
    format!("{noun} {names} of bot `{bot}` {needs} per-session MFA, which a machine cannot pass")
}

/// A template, or what is wrong with it at its place.
pub(super) fn template(
    read: Result<Template, (String, Option<String>)>,
    key: &str,
    place: Place,
) -> Result<Template, Mistake> {
    read.map_err(|(message, hint)| {
        let mistake = Mistake::new(place, format!("`{key}`: {message}"));
        match hint {
            Some(hint) => mistake.hint(hint),
            None => mistake,
        }
    })
}

/// Whether a pattern could match some login.
fn is_login_glob(text: &str) -> bool {
    let shortest = text.replace('*', "").replace('?', "x");
    is_login(&shortest) || (text.starts_with('*') && is_login(&format!("x{shortest}")))
}

/// A `max_session_ttl`, in seconds.
pub(super) fn read_ttl(node: &Node, key: &'static str) -> Result<u64, Mistake> {
    let seconds = node.duration(key)?;
    if TTL_RANGE.contains(&seconds) {
        return Ok(seconds);
    }
    Err(Mistake::new(node.place, format!("`{key}` must be between 10s and 7 days")))
}

fn read_options(node: &Node, mistakes: &mut Vec<Mistake>) -> Options {
    let mut options = Options::default();
    let Some(mut section) = Section::open(node, "`options`", mistakes) else { return options };
    options.max_ttl = section.read("max_session_ttl", read_ttl).unwrap_or(options.max_ttl);
    options.force_command = section.read("force_command", read_command);
    for (key, option) in [
        ("require_session_mfa", &mut options.session_mfa),
        ("forward_agent", &mut options.forward_agent),
        ("port_forwarding", &mut options.port_forwarding),
        ("permit_x11_forwarding", &mut options.x11),
        ("permit_pty", &mut options.pty),
        ("pin_source_ip", &mut options.pin_source_ip),
    ] {
        *option = section.boolean(key).unwrap_or(*option);
    }
    section.finish();
    options
}

fn read_command(node: &Node, key: &'static str) -> Result<String, Mistake> {
    let command = node.text(key)?;
    let wrong = |why: String| Err(Mistake::new(node.place, format!("`{key}` {why}")));
    match command {
        _ if command.trim().is_empty() => wrong("is empty".to_owned()),
        _ if command.len() > MAX_COMMAND => wrong(format!("is longer than {MAX_COMMAND} bytes")),
        _ if command.chars().any(char::is_control) => {
            wrong("must be one line without control characters".to_owned())
        }
        _ => Ok(command.to_owned()),
    }
}

/// Labels: a mapping of texts or lists of texts, or `{'*': '*'}`.
pub(super) fn read_labels(node: &Node, what: &'static str, mistakes: &mut Vec<Mistake>) -> Reach {
    let Some(mut section) = Section::open(node, format!("`{what}`"), mistakes) else { return Reach::Nowhere };
    let entries = section.rest();
    let mut labels: Vec<(&str, Vec<&str>)> = Vec::new();
    let mut everywhere = false;
    for (key, node) in &entries {
        let values = match section.keep(label_values(node, &key.text)) {
            Some(values) => values,
            None => continue,
        };
        if key.text == "*" {
            let star = matches!(values.as_slice(), [("*", _)]);
            everywhere = star && entries.len() == 1;
            if !everywhere {
                let message = format!("`*` in `{what}` stands alone, as `{{'*': '*'}}`");
                section
                    .mistake(Mistake::new(key.place, message).hint("name the labels, or allow every host"));
            }
            continue;
        }
        if !is_label(&key.text) {
            section.mistake(not_a_label(&format!("the key `{}`", shown(&key.text)), what, key.place));
        }
        for (value, place) in &values {
            if !is_label(value) {
                section.mistake(not_a_label(&format!("the value `{}`", shown(value)), what, *place));
            }
        }
        let mut values: Vec<&str> = values.into_iter().map(|(value, _)| value).collect();
        values.sort_unstable();
        values.dedup();
        labels.push((&key.text, values));
    }
    if everywhere {
        return Reach::Everywhere;
    }
    labels.sort_unstable();
    let sets = labels.iter().try_fold(1_usize, |sets, (_, values)| sets.checked_mul(values.len()));
    if sets.is_none_or(|sets| sets > MAX_PRINCIPALS) {
        let message = format!("`{what}` stands for more than {MAX_PRINCIPALS} sets of labels");
        section.mistake(
            Mistake::new(section.place(), message).hint("split the role, or use one label for them"),
        );
        return Reach::Nowhere;
    }
    if labels.is_empty() {
        return Reach::Nowhere;
    }
    Reach::Labelled(label_sets(&labels))
}

fn label_values<'a>(node: &'a Node, key: &str) -> Result<Vec<(&'a str, Place)>, Mistake> {
    let key = &shown(key);
    let Ok(list) = node.list(key) else { return Ok(vec![(node.text(key)?, node.place)]) };
    if list.is_empty() {
        return Err(Mistake::new(node.place, format!("the label `{key}` has no value")));
    }
    list.iter().map(|item| Ok((item.text(key)?, item.place))).collect()
}

fn not_a_label(which: &str, what: &str, place: Place) -> Mistake {
    Mistake::new(place, format!("{which} in `{what}` cannot be part of a label"))
        .hint("a label has letters, digits, `_`, `.`, `/`, `:` and `-`; wildcards only as `{'*': '*'}`")
}

/// Every combination of one value of each label.
fn label_sets(labels: &[(&str, Vec<&str>)]) -> Vec<String> {
    labels.iter().fold(vec![String::new()], |sets, (key, values)| {
        let longer = |set: &String, value: &&str| match set.as_str() {
            "" => format!("{key}={value}"),
            _ => format!("{set},{key}={value}"),
        };
        sets.iter().flat_map(|set| values.iter().map(move |value| longer(set, value))).collect()
    })
}
