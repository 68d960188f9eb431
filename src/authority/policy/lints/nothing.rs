//! The lint over parts of roles that give nothing.

use std::collections::BTreeSet;

use super::findings::{Findings, named};
use crate::authority::policy::resources::{Bot, FIELDS, Policy, Role, role_names};

/// What is allowed and never comes of it: what is written for something else
/// than names here, what is denied to the bot that has it, and what is made of
/// traits that it does not have. Roles that need MFA, pin the address, have no
/// hosts or no user have lints of their own.
pub(super) fn gives_nothing(policy: &Policy, findings: &mut Findings<'_>) {
    for role in policy.roles.values() {
        for field in FIELDS {
            if let Some(said) = role.gives_nothing.get(field.key) {
                let (noun, key) = (field.noun, field.key);
                findings.role(role, format!("gives no {noun}: its `{key}` say {}", named(said)), field.hint);
            }
        }
    }
    for (bot, role) in policy.usable() {
        denied(bot, role, findings);
        without_traits(bot, role, findings);
    }
}

/// Tells of each part whose every name some role of the bot denies.
fn denied(bot: &Bot, role: &Role, findings: &mut Findings<'_>) {
    for field in FIELDS.iter().filter(|field| role.issues(field)) {
        let names = bot.given(role, field);
        let deniers: Option<Vec<&Role>> = names.iter().map(|name| bot.denier_of_all(field, name)).collect();
        // Where one is not denied, there are none.
        let Some(deniers) = deniers.filter(|deniers| !deniers.is_empty()) else { continue };
        let message = format!(
            "role `{}` gives bot `{}` no {}: all that it allows ({}) is denied (role {})",
            role.name,
            bot.name,
            field.noun,
            named(&names),
            role_names(&deniers)
        );
        let mut hint = "take them out of the role, or deny less".to_owned();
        if let Some(same) = field.same_as {
            hint.push_str(&format!("; what `deny.{}` names is denied here too", same.key));
        }
        findings.bot(bot, message, hint);
    }
}

/// Tells of a role that is nothing but templates, none of which the bot has a
/// trait for. Where it gives something, the others may be for other bots.
fn without_traits(bot: &Bot, role: &Role, findings: &mut Findings<'_>) {
    let mut lacking: BTreeSet<&str> = BTreeSet::new();
    for template in role.allow.values().flatten() {
        match template.trait_name() {
            Some(name) if bot.trait_values(name).is_empty() => lacking.insert(name),
            _ => return,
        };
    }
    if !lacking.is_empty() {
        let (s, them) = if lacking.len() == 1 { ("", "it") } else { ("s", "them") };
        let lacking: Vec<&str> = lacking.into_iter().collect();
        let message = format!(
            "role `{}` gives bot `{}` nothing: the bot has no values of the trait{s} {}",
            role.name,
            bot.name,
            named(&lacking)
        );
        let hint = format!("give the bot {them} in `traits`, or write names into the role");
        findings.bot(bot, message, hint);
    }
}
