//! A role's `spec`.

use super::names::{self, denies_nothing};
use super::ttl;
use crate::authority::policy::resources::{Reach, Role, Template};
use crate::document::{Mistake, Mistakes, Node};
use crate::principal::is_login;

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
    options.max_ttl = mapping.read("max_session_ttl", ttl::read).unwrap_or(options.max_ttl);
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
    for (text, place) in allow.texts("logins") {
        role.logins.extend(allow.mistakes.keep(Template::parse_login(text, "logins", place)));
    }
    role.reach = allow.read("node_labels", Reach::read).unwrap_or(Reach::Nowhere);
    names::read_allow(&mut role.names, &mut allow);
    allow.finish()
}

fn read_deny(role: &mut Role, node: &Node) -> Result<(), Mistakes> {
    let mut deny = node.mapping("`deny`")?;
    for (text, place) in deny.texts("logins") {
        // With anything else in it, it would match no login and so deny
        // nothing, whatever its author meant.
        if is_login_glob(text) {
            role.denied_logins.push(text.to_owned());
        } else {
            deny.mistakes.add(denies_nothing(text, "logins", "login", place));
        }
    }
    // A certificate cannot say "not on these hosts" to plain OpenSSH:
    // better no policy than one that seems to deny.
    if let Some(labels) = deny.take("node_labels") {
        let hint = "say in `allow.node_labels` where the role holds, and leave out the rest";
        deny.mistakes.add(Mistake::new(labels.place, "`deny.node_labels` is not supported").hint(hint));
    }
    names::read_deny(&mut role.names, &mut deny);
    deny.finish()
}

/// Whether a pattern could match some login.
fn is_login_glob(text: &str) -> bool {
    let shortest = text.replace('*', "").replace('?', "x");
    is_login(&shortest) || (text.starts_with('*') && is_login(&format!("x{shortest}")))
}
