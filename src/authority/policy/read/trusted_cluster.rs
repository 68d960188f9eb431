//! A trusted cluster's `spec`: whom it believes, its join method reads; here is what comes of it.

use super::bot;
use super::role::read_ttl;
use crate::authority::policy::resources::{Bot, JoinToken, MapLine, Origin, Policy, RoleMap};
use crate::document::{Mistake, Mistakes, Node, unknown};
use crate::join::{self, trusted_cluster};
use crate::text::shown_exactly;

/// The shortest `stale_after`, in seconds.
const MIN_STALE: u64 = 30;

/// All that a `spec` may have.
const KEYS: [&str; 9] = [
    "enabled",
    "url",
    "ca_pin",
    "static_jwks",
    "role_map",
    "max_session_ttl",
    "stale_after",
    "allow",
    "deny",
];

/// What Teleport has beside.
const ELSEWHERE: [(&str, &str); 5] = [
    (
        "token",
        "leave it out: nothing secret is exchanged; `ca_pin` and `url`, or `static_jwks`, say whom to believe",
    ),
    ("web_proxy_addr", "it is `url` here, the `public_url` of the root's own authority"),
    (
        "tunnel_addr",
        "leave it out: there is no tunnel; jobs reach this authority and its hosts by themselves",
    ),
    ("roles", "it is `role_map` here: which of the root's roles is which of these"),
    ("status", "leave it out: `tctl get` writes it, and it says nothing here"),
];

/// Reads it, as a join token of its method.
pub(super) fn read(name: String, origin: Origin, spec: &Node) -> Result<JoinToken, Mistakes> {
    let mut spec = spec.mapping("the `spec` of `trusted_cluster`")?;
    let verifier = trusted_cluster::read(&name, &mut spec);
    let lines = spec.require("role_map", read_map).unwrap_or_default();
    let max_ttl = spec.read("max_session_ttl", read_ttl);
    spec.read("stale_after", read_stale);
    for (key, _) in spec.rest() {
        let hint = ELSEWHERE.iter().find(|(other, _)| *other == key.text).map(|(_, hint)| *hint);
        let mistake = unknown(key, "the `spec` of `trusted_cluster`", &KEYS);
        spec.mistakes.add(hint.map_or_else(|| mistake.clone(), |hint| mistake.clone().hint(hint)));
    }
    let place = spec.place;
    spec.finish()?;
    let (Some(verifier), Some(method)) = (verifier, join::find(trusted_cluster::NAME)) else {
        return Err(Mistake::new(place, "the trusted cluster cannot be read").into());
    };
    let map = Some(RoleMap { lines, max_ttl });
    Ok(JoinToken { name, origin, bot: String::new(), method, verifier, max_uses: 1, map })
}

fn read_map(node: &Node, key: &'static str) -> Result<Vec<MapLine>, Mistakes> {
    let mut mistakes = Mistakes::default();
    let lines = node.list(key)?.iter();
    let lines = lines.filter_map(|line| mistakes.keep(read_line(line))).collect();
    mistakes.or(lines)
}

fn read_line(node: &Node) -> Result<MapLine, Mistakes> {
    let mut line = node.mapping("a line of `role_map`")?;
    let remote = line.require("remote", read_remote);
    let listed = line.require("local", Node::list).unwrap_or_default();
    let mut local = Vec::new();
    for node in listed {
        let Some(role) = line.mistakes.keep(node.text("local")) else { continue };
        if local.iter().any(|(name, _)| name == role) {
            let message = format!("the role `{}` is listed twice", shown_exactly(role));
            line.mistakes.add(Mistake::new(node.place, message));
        } else {
            local.push((role.to_owned(), node.place));
        }
    }
    line.finish()?;
    Ok(MapLine { place: node.place, remote: remote.unwrap_or_default(), local })
}

/// What could take no role would give nobody anything, whatever its author meant.
fn read_remote(node: &Node, key: &str) -> Result<String, Mistake> {
    let text = node.text(key)?;
    let is_letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_.-*?".contains(&b);
    if text.len() <= 64 && text.bytes().all(is_letter) {
        return Ok(text.to_owned());
    }
    let message = format!("`{}` can take no role of another cluster", shown_exactly(text));
    Err(Mistake::new(node.place, message)
        .hint("name a role, with the globs `*` and `?`; there are no regular expressions here"))
}

/// A field that is not obeyed is refused.
fn read_stale(node: &Node, key: &'static str) -> Result<(), Mistake> {
    if node.duration(key)? < MIN_STALE {
        return Err(Mistake::new(node.place, format!("`{key}` must be at least {MIN_STALE}s")));
    }
    Err(Mistake::new(node.place, format!("`{key}` is not supported yet")).hint(
        "leave it out: a lock at the root is not heard of here until its passports are no longer given",
    ))
}

/// Checks what the mapped roles give a bot that has no traits, once they are known.
pub(super) fn check(policy: &Policy, cluster: &JoinToken) -> Result<(), Mistakes> {
    let mut bot = Bot::new(format!("*@{}", cluster.name), cluster.origin.clone());
    let names = cluster.map.iter().flat_map(|map| &map.lines).flat_map(|line| &line.local);
    bot.roles.extend(names.filter_map(|(name, _)| policy.roles.get(name)).cloned());
    bot.roles.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    bot.roles.dedup_by(|a, b| a.name == b.name);
    bot::check(&bot)
}
