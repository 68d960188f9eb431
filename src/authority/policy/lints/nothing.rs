//! The lint over parts of roles that give nothing.

use super::findings::{Findings, named};
use crate::authority::policy::resources::{Bot, FIELDS, Policy, Reach, Role, Template, role_names};

/// What is allowed and never comes of it: what is written for something else
/// than names here, what is denied to the bot that has it, and what is made of
/// traits that it does not have. Roles that need MFA, pin the address, have no
/// hosts or no user have lints of their own.
pub(super) fn gives_nothing(policy: &Policy, findings: &mut Findings<'_>) {
    for role in policy.roles.values() {
        for field in FIELDS.iter().copied() {
            let said = role.names.giving_nothing(field);
            if !said.is_empty() {
                let message = format!(
                    "role `{}` gives no {}: its `{}` say {}",
                    role.name,
                    field.noun,
                    field.key,
                    named(&said)
                );
                findings.role(role, message, field.hint);
            }
        }
    }
    for bot in policy.bots.values() {
        for role in bot.roles.iter().filter(|role| !policy.needs_mfa(role)) {
            denied(bot, role, findings);
            without_traits(bot, role, findings);
        }
    }
}

/// Tells of each part whose every name some role of the bot denies.
fn denied(bot: &Bot, role: &Role, findings: &mut Findings<'_>) {
    let mut tell = |noun: &str, names: Vec<String>, deniers: Option<Vec<&Role>>, too: String| {
        // Where one is not denied, there are none.
        let Some(mut deniers) = deniers.filter(|_| !names.is_empty()) else { return };
        deniers.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        deniers.dedup_by(|a, b| a.name == b.name);
        let message = format!(
            "role `{}` gives bot `{}` no {noun}: all that it allows ({}) is denied (role {})",
            role.name,
            bot.name,
            named(&names),
            role_names(&deniers)
        );
        let hint = format!("take them out of the role, or deny less{too}");
        findings.bot(bot, message, hint);
    };
    if role.reach != Reach::Nowhere {
        let mut logins = Vec::new();
        bot.each_login(role, |login| logins.push(login.to_owned()));
        let denier = |login: &String| bot.login_denier(login);
        let deniers = logins.iter().map(denier).collect();
        tell("login", logins, deniers, String::new());
    }
    if role.options.pin_source_ip {
        return;
    }
    for field in FIELDS.iter().copied() {
        let mut names = Vec::new();
        bot.each_name(role, field, |name| names.push(name.to_owned()));
        let deniers = names.iter().map(|name| bot.denier_of_all(field, name)).collect();
        let too = field
            .same_as
            .map_or_else(String::new, |same| format!("; what `deny.{}` names is denied here too", same.key));
        tell(field.noun, names, deniers, too);
    }
}

/// Tells of a role that is nothing but templates, none of which the bot has a
/// trait for. Where it gives something, the others may be for other bots.
fn without_traits(bot: &Bot, role: &Role, findings: &mut Findings<'_>) {
    let mut lacking: Vec<String> = Vec::new();
    let fields = FIELDS.iter().copied().flat_map(|field| role.names.allowed(field));
    for template in role.logins.iter().chain(fields) {
        match template {
            Template::Trait { name, .. } if bot.trait_values(name).is_empty() => lacking.push(name.clone()),
            _ => return,
        }
    }
    lacking.sort_unstable();
    lacking.dedup();
    if !lacking.is_empty() {
        let (s, them) = if lacking.len() == 1 { ("", "it") } else { ("s", "them") };
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
