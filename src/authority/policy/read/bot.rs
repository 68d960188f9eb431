//! A bot's `spec`, and whether its traits and roles fit together.

use super::role::read_ttl;
use crate::authority::policy::resources::{Bot, FIELDS, LOGINS, MAX_PRINCIPALS, Trait, is_trait_name};
use crate::document::{Mapping, Mistake, Mistakes, Node, Place};
use crate::text::shown_exactly;

/// The longest value of a trait.
const MAX_VALUE: usize = 256;

/// The `roles` of a `spec`, to be resolved.
pub(super) type RoleNames = Vec<(String, Place)>;

/// Reads `spec`; what cannot be read is as if it were not there, and a mistake.
pub(super) fn read(bot: &mut Bot, roles: &mut RoleNames, spec: &Node) -> Result<(), Mistakes> {
    let mut spec = spec.mapping("the bot's `spec`")?;
    // Without a role it can have nothing.
    *roles = role_names(&mut spec);
    bot.max_ttl = spec.read("max_session_ttl", read_ttl).unwrap_or(bot.max_ttl);
    for node in spec.read("traits", Node::list).unwrap_or_default() {
        let Some(one) = spec.mistakes.keep(read_trait(node)) else { continue };
        if bot.traits.iter().any(|other| other.name == one.name) {
            let message = format!("the trait `{}` is listed twice", one.name);
            spec.mistakes.add(Mistake::new(node.place, message));
        }
        bot.traits.push(one);
    }
    spec.finish()
}

/// The names in a `spec`'s `roles`, each once.
pub(super) fn role_names(spec: &mut Mapping<'_>) -> RoleNames {
    let mut roles = RoleNames::new();
    for node in spec.require("roles", Node::list).unwrap_or_default() {
        let Some(role) = spec.mistakes.keep(node.text("roles")) else { continue };
        if roles.iter().any(|(name, _)| name == role) {
            let message = format!("the role `{}` is listed twice", shown_exactly(role));
            spec.mistakes.add(Mistake::new(node.place, message));
        } else {
            roles.push((role.to_owned(), node.place));
        }
    }
    roles
}

fn read_trait(node: &Node) -> Result<Trait, Mistakes> {
    let mut mapping = node.mapping("a trait")?;
    let name = mapping.require("name", trait_name);
    let mut values: Vec<(String, Place)> = Vec::new();
    for (value, place) in mapping.texts("values") {
        if value.len() > MAX_VALUE || value.chars().any(char::is_control) {
            let message = format!("`{}` cannot be the value of a trait", shown_exactly(&value));
            let hint = format!("1 to {MAX_VALUE} bytes without control characters");
            mapping.mistakes.add(Mistake::new(place, message).hint(hint));
        } else if !values.iter().any(|(other, _)| *other == value) {
            values.push((value, place));
        }
    }
    mapping.finish()?;
    Ok(Trait { name: name.unwrap_or_default(), values })
}

fn trait_name(node: &Node, key: &str) -> Result<String, Mistake> {
    let name = node.text(key)?;
    if is_trait_name(name) {
        return Ok(name.to_owned());
    }
    let message = format!("`{}` cannot be the name of a trait", shown_exactly(name));
    Err(Mistake::new(node.place, message).hint("letters, digits, `_` and `-`, at most 64"))
}

/// Checks what each role makes of the traits, once the roles are known: after
/// that every name fits its field.
pub(super) fn check(bot: &Bot) -> Result<(), Mistakes> {
    let mut mistakes = Mistakes::default();
    for role in bot.each_role() {
        for field in FIELDS {
            let templates = role.allowed(field).iter();
            for (template, name) in templates.filter_map(|template| Some((template, template.trait_name()?)))
            {
                let wrong = |(value, _): &&(String, _)| field.filled(template, value).is_none();
                for (value, place) in bot.trait_values(name).iter().filter(wrong) {
                    let made =
                        format!("the trait `{name}` makes {} of `{}`", field.a_noun(), shown_exactly(value));
                    let message = format!("{made} in role `{}`, which cannot be one", role.name);
                    mistakes.add(Mistake::new(*place, message).hint(field.hint));
                }
            }
        }
        if bot.given(role, &LOGINS).len().saturating_mul(role.reach.width()) > MAX_PRINCIPALS {
            let (role, name) = (&role.name, &bot.name);
            let message =
                format!("the role `{role}` gives the bot `{name}` more than {MAX_PRINCIPALS} principals");
            let hint = "a certificate holds few: use fewer logins or labels, or split the role";
            mistakes.add(Mistake::new(bot.origin.place, message).hint(hint));
        }
    }
    mistakes.or(())
}
