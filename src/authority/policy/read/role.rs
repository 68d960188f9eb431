//! A role's `spec`.

use crate::authority::policy::resources::{FIELDS, Reach, Role};
use crate::document::{Mistake, Mistakes, Node};
use crate::text::shown_exactly;
use crate::wire::{MAX_TTL, MIN_TTL};

/// The longest `force_command`.
const MAX_COMMAND: usize = 1024;

/// Reads it; what cannot be read is as if it were not there, and a mistake.
pub(super) fn read(role: &mut Role, spec: &Node) -> Result<(), Mistakes> {
    let mut spec = spec.mapping("the role's `spec`")?;
    spec.read("options", |node, _| read_options(role, node));
    spec.read("allow", |node, _| read_allow(role, node));
    spec.read("deny", |node, _| read_deny(role, node));
    spec.finish()
}

fn read_options(role: &mut Role, node: &Node) -> Result<(), Mistakes> {
    let options = &mut role.options;
    let mut mapping = node.mapping("`options`")?;
    options.max_ttl = mapping.read("max_session_ttl", read_ttl).unwrap_or(options.max_ttl);
    options.force_command = mapping.read("force_command", read_command);
    for (key, option) in [
        ("require_session_mfa", &mut options.session_mfa),
        ("forward_agent", &mut options.forward_agent),
        ("port_forwarding", &mut options.port_forwarding),
        ("permit_x11_forwarding", &mut options.x11),
        ("permit_pty", &mut options.pty),
        ("pin_source_ip", &mut options.pin_source_ip),
    ] {
        *option = mapping.read(key, Node::boolean).unwrap_or(*option);
    }
    mapping.finish()
}

fn read_command(node: &Node, key: &str) -> Result<String, Mistake> {
    let command = node.text(key)?;
    let wrong = |why: &str| Err(Mistake::new(node.place, format!("`{key}` {why}")));
    match command {
        _ if command.trim().is_empty() => wrong("is empty"),
        _ if command.len() > MAX_COMMAND => wrong(&format!("is longer than {MAX_COMMAND} bytes")),
        _ if command.chars().any(char::is_control) => wrong("must be one line without control characters"),
        _ => Ok(command.to_owned()),
    }
}

fn read_allow(role: &mut Role, node: &Node) -> Result<(), Mistakes> {
    let mut allow = node.mapping("`allow`")?;
    role.reach = allow.read("node_labels", Reach::read).unwrap_or(Reach::Nowhere);
    for field in FIELDS {
        for (text, place) in (field.entries)(&mut allow, field.key) {
            if (field.gives_nothing)(&text) {
                role.gives_nothing.entry(field.key).or_default().push(text);
            } else if let Some(template) = allow.mistakes.keep(field.parse(&text, place)) {
                role.allow.entry(field.key).or_default().push(template);
            }
        }
    }
    allow.finish()
}

fn read_deny(role: &mut Role, node: &Node) -> Result<(), Mistakes> {
    let mut deny = node.mapping("`deny`")?;
    // A certificate cannot say "not on these hosts" to plain OpenSSH:
    // better no policy than one that seems to deny.
    if let Some(labels) = deny.take("node_labels") {
        let hint = "say in `allow.node_labels` where the role holds, and leave out the rest";
        deny.mistakes.add(Mistake::new(labels.place, "`deny.node_labels` is not supported").hint(hint));
    }
    for field in FIELDS {
        for (text, place) in (field.entries)(&mut deny, field.key) {
            // What could match nothing would deny nothing, whatever its author meant.
            if field.can_match(&text) {
                role.deny.entry(field.key).or_default().push(text);
            } else {
                let (key, noun) = (field.key, field.noun);
                let message = format!("`{}` in `deny.{key}` can match no {noun}", shown_exactly(&text));
                let hint = format!("deny takes {noun}s and globs (`*`, `?`), one an entry, and no templates");
                deny.mistakes.add(Mistake::new(place, message).hint(hint));
            }
        }
    }
    deny.finish()
}

/// A `max_session_ttl`, in seconds: no shorter than what can be asked for.
pub(super) fn read_ttl(node: &Node, key: &'static str) -> Result<u64, Mistake> {
    let seconds = node.duration(key)?;
    if (u64::from(MIN_TTL)..=u64::from(MAX_TTL)).contains(&seconds) {
        return Ok(seconds);
    }
    Err(Mistake::new(node.place, format!("`{key}` must be between {MIN_TTL}s and 7 days")))
}
