//! A bot's `spec`, and whether its traits and roles fit together.

use super::ttl;
use crate::authority::policy::resources::{
    Bot, FIELDS, LOGIN_SHAPE, MAX_PRINCIPALS, Role, Template, Trait, is_trait_name,
};
use crate::document::{Mistake, Mistakes, Node, Place};
use crate::principal::is_login;
use crate::text::shown;

/// The longest value of a trait.
const MAX_VALUE: usize = 256;

/// A bot's `spec.roles`, to be resolved.
pub(super) type RoleNames = Vec<(String, Place)>;

/// Reads `spec`; what cannot be read is as if it were not there, and a mistake.
pub(super) fn read(bot: &mut Bot, roles: &mut RoleNames, spec: &Node) -> Result<(), Mistakes> {
    let mut spec = spec.mapping("the bot's `spec`")?;
    // Without a role it can have nothing.
    let listed = spec.require("roles", Node::list).unwrap_or_default();
    for node in listed {
        let Some(role) = spec.mistakes.keep(node.text("roles")) else { continue };
        if roles.iter().any(|(name, _)| name == role) {
            let message = format!("the role `{}` is listed twice", shown(role));
            spec.mistakes.add(Mistake::new(node.place, message));
        } else {
            roles.push((role.to_owned(), node.place));
        }
    }
    bot.max_ttl = spec.read("max_session_ttl", ttl::read).unwrap_or(bot.max_ttl);
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

fn read_trait(node: &Node) -> Result<Trait, Mistakes> {
    let mut mapping = node.mapping("a trait")?;
    let name = mapping.require("name", trait_name);
    let mut values: Vec<(String, Place)> = Vec::new();
    for (value, place) in mapping.texts("values") {
        if value.len() > MAX_VALUE || value.chars().any(char::is_control) {
            let message = format!("`{}` cannot be the value of a trait", shown(value));
            let hint = format!("1 to {MAX_VALUE} bytes without control characters");
            mapping.mistakes.add(Mistake::new(place, message).hint(hint));
        } else if !values.iter().any(|(other, _)| other == value) {
            values.push((value.to_owned(), place));
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
    let message = format!("`{}` cannot be the name of a trait", shown(name));
    Err(Mistake::new(node.place, message).hint("letters, digits, `_` and `-`, at most 64"))
}

/// Checks what each role makes of the traits, once the roles are known: after
/// that every login is one, and every name fits its field.
pub(super) fn check(bot: &Bot) -> Result<(), Mistakes> {
    let mut mistakes = Mistakes::default();
    for role in bot.each_role() {
        check_names(bot, role, &mut mistakes);
        let mut logins = 0_usize;
        for (template, name, value, place) in filled(bot, &role.logins) {
            logins += 1;
            if !is_login(&template.filled(value)) {
                let made = format!("the trait `{name}` makes a login of `{}`", shown(value));
                let message = format!("{made} in role `{}`, which cannot be one", role.name);
                mistakes.add(Mistake::new(place, message).hint(LOGIN_SHAPE));
            }
        }
        logins += role.logins.iter().filter(|login| login.trait_name().is_none()).count();
        if logins.saturating_mul(role.reach.width()) > MAX_PRINCIPALS {
            let message = format!(
                "the role `{}` gives the bot `{}` more than {MAX_PRINCIPALS} principals",
                role.name, bot.name
            );
            let hint = "a certificate holds few: use fewer logins or labels, or split the role";
            mistakes.add(Mistake::new(bot.origin.place, message).hint(hint));
        }
    }
    mistakes.or(())
}

fn check_names(bot: &Bot, role: &Role, mistakes: &mut Mistakes) {
    for field in FIELDS {
        for (template, name, value, place) in filled(bot, role.names.allowed(field)) {
            if field.filled(template, value).is_none() {
                let message = format!(
                    "the trait `{name}` makes {} of `{}` in role `{}`, which cannot be one",
                    field.a_noun(),
                    shown(value),
                    role.name
                );
                mistakes.add(Mistake::new(place, message).hint(field.hint));
            }
        }
    }
}

/// Each template with a trait in it, and each value that the bot has for that.
fn filled<'b>(
    bot: &'b Bot,
    templates: &'b [Template],
) -> impl Iterator<Item = (&'b Template, &'b str, &'b str, Place)> {
    templates.iter().flat_map(move |template| {
        let name = template.trait_name().unwrap_or_default();
        bot.trait_values(name).iter().map(move |(value, place)| (template, name, value.as_str(), *place))
    })
}
