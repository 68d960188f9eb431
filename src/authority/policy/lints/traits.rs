//! The lint over traits that reach further than one role.

use super::{Findings, Subject, hosts};
use crate::authority::policy::Policy;
use crate::authority::policy::bot::Bot;
use crate::authority::policy::login::Template;
use crate::authority::policy::role::{Reach, Role};

/// The most logins that a message names.
const MOST_LOGINS: usize = 4;

/// A trait belongs to the bot, not to a role: each of its values becomes a
/// login through every role that has the template, on that role's hosts. With
/// two such roles for different hosts, a login meant for one opens the other.
pub(super) fn leak(policy: &Policy, findings: &mut Findings<'_>) {
    for bot in policy.bots.values() {
        let usable: Vec<&Role> = bot
            .roles
            .iter()
            .map(AsRef::as_ref)
            .filter(|role| !policy.needs_mfa(role) && role.reach != Reach::Nowhere)
            .collect();
        let mut seen: Vec<&Template> = Vec::new();
        for template in usable.iter().flat_map(|role| &role.logins) {
            if !matches!(template, Template::Trait { .. }) || seen.contains(&template) {
                continue;
            }
            seen.push(template);
            let through: Vec<&Role> =
                usable.iter().copied().filter(|role| role.logins.contains(template)).collect();
            let apart = through.windows(2).any(|two| matches!(two, [a, b] if a.reach != b.reach));
            if apart {
                tell(bot, template, &through, findings);
            }
        }
    }
}

fn tell(bot: &Bot, template: &Template, through: &[&Role], findings: &mut Findings<'_>) {
    let Template::Trait { prefix, name, suffix } = template else { return };
    let values = bot.trait_values(name);
    let Some((_, place)) = values.first() else { return };
    let made = values.iter().map(|(value, _)| Template::fill(prefix, value, suffix));
    let logins: Vec<String> = made.filter(|login| !bot.denies(login)).collect();
    let Some(first) = logins.first() else { return };
    let mut named =
        logins.iter().take(MOST_LOGINS).map(|login| format!("`{login}`")).collect::<Vec<_>>().join(", ");
    if logins.len() > MOST_LOGINS {
        named.push_str(&format!(" and {} more", logins.len() - MOST_LOGINS));
    }
    let places: Vec<String> = through
        .iter()
        .map(|role| format!("through role `{}` on {}", role.name, hosts(&role.reach)))
        .collect();
    let message = format!("the trait `{name}` of bot `{}` gives {named} {}", bot.name, places.join(" and "));
    let example = through.first().map_or_else(String::new, |role| {
        format!("`allow: {{logins: [{first}], node_labels: {}}}`", labels(&role.reach))
    });
    let hint = format!(
        "if that is not meant, write each login into a role of its own, such as {example}, and take it out of the trait"
    );
    findings.add(Subject::Bot(bot), bot.origin.at(*place), message, hint);
}

/// Labels as they are written in a role.
fn labels(reach: &Reach) -> String {
    match reach {
        Reach::Labelled(sets) => {
            let first = sets.first().map_or("", String::as_str);
            let pairs: Vec<String> = first.split(',').map(|pair| pair.replacen('=', ": ", 1)).collect();
            format!("{{{}}}", pairs.join(", "))
        }
        _ => "{'*': '*'}".to_owned(),
    }
}
