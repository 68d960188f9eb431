//! Which roles a part of a request is about.

use super::role_set::Warnings;
use crate::authority::policy::resources::{Bot, Policy, Role, needs_mfa};
use crate::denial::{Denial, Reason};
use crate::text::shown_exactly;

/// The roles of what is asked for, by name: those that it asks for, or all of the bot's
/// that a machine can use.
pub(super) fn roles<'p>(
    policy: &Policy,
    bot: &'p Bot,
    (what, names): (&str, &[String]),
    warnings: &mut Warnings,
) -> Result<Vec<&'p Role>, Denial> {
    if names.is_empty() {
        let (left_out, roles): (Vec<&Role>, Vec<&Role>) =
            bot.each_role().partition(|role| policy.needs_mfa(role));
        if roles.is_empty() {
            return Err(mfa_required(bot, what, &left_out));
        }
        for role in left_out {
            warnings.add(format!("{}, and is left out", needs_mfa(&bot.name, &[role])));
        }
        return Ok(roles);
    }
    let mut roles = Vec::with_capacity(names.len().min(bot.roles.len()));
    for name in names {
        // A role of other bots and one that nobody has read the same.
        let role = bot.role(name).ok_or_else(|| {
            let told = format!("{what}: the role `{}` is not one of this bot's", shown_exactly(name));
            Denial::new(Reason::RoleNotHeld, format!("{told} (`{}`)", bot.name)).tell(told)
        })?;
        if policy.needs_mfa(role) {
            return Err(mfa_required(bot, what, &[role]));
        }
        roles.push(role);
    }
    roles.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    roles.dedup_by(|a, b| a.name == b.name);
    Ok(roles)
}

fn mfa_required(bot: &Bot, what: &str, roles: &[&Role]) -> Denial {
    let told = format!("{what}: {}", needs_mfa(&bot.name, roles));
    Denial::open(Reason::MfaRequired, told)
}
