//! Lints over the names that certificates of other outputs carry, and over
//! what cannot be said in them.

use std::collections::{BTreeMap, BTreeSet};

use super::{Findings, Subject, named};
use crate::authority::policy::Policy;
use crate::authority::policy::bot::Bot;
use crate::authority::policy::field::{self, Field, has_wildcard};
use crate::authority::policy::output::{self, OUTPUTS};
use crate::authority::policy::role::{Role, listed};

/// Every bot and each of its roles that gives such names: none that needs MFA,
/// and none that pins the source address.
fn each_giver<'p>(policy: &'p Policy, mut look: impl FnMut(&'p Bot, &'p Role)) {
    for bot in policy.bots.values() {
        let gives = |role: &&Role| !policy.needs_mfa(role) && !role.options.pin_source_ip;
        bot.roles.iter().map(AsRef::as_ref).filter(gives).for_each(|role| look(bot, role));
    }
}

pub(super) fn no_user(policy: &Policy, findings: &mut Findings<'_>) {
    for kind in OUTPUTS {
        let [user, along] = kind.fields else { continue };
        let lacks = |role: &&std::sync::Arc<Role>| role.names.allow_any(along) && !role.names.allow_any(user);
        for role in policy.roles.values().filter(lacks) {
            let (name, noun, key) = (&role.name, user.noun, user.key);
            let message =
                format!("role `{name}` has `{}` and no `{key}`, so they are never issued", along.key);
            let hint = format!(
                "name in the same role each {noun} that they go with: what one role gives is not added \
                 to another's {noun}"
            );
            findings.add(Subject::Role(role), role.origin.clone(), message, hint);
        }
    }
}

/// One CA signs for databases and clusters, and a server reads no more than
/// the common name: the certificate of the one is the other.
pub(super) fn shared_user(policy: &Policy, findings: &mut Findings<'_>) {
    // Of two fields whose names are the same, the first.
    let pairs = output::fields().filter_map(|one| Some((one, one.same_as?)));
    for (one, other) in pairs.filter(|(one, other)| one.key < other.key) {
        let known = holders(policy, other);
        let mut shared: BTreeMap<&str, (&Role, BTreeSet<&String>)> = BTreeMap::new();
        each_giver(policy, |bot, role| {
            let given = known.keys().filter(|name| {
                field::allows(bot, role, one, name) && field::denier(bot, one, name).is_none()
            });
            for name in given {
                shared.entry(&role.name).or_insert_with(|| (role, BTreeSet::new())).1.insert(name);
            }
        });
        for (role, names) in shared.into_values() {
            let mut roles: Vec<&Role> =
                names.iter().filter_map(|name| known.get(*name)).flatten().copied().collect();
            roles.sort_unstable_by(|a, b| a.name.cmp(&b.name));
            roles.dedup_by(|a, b| a.name == b.name);
            let names: Vec<String> = names.into_iter().cloned().collect();
            let (noun, same, count) = (one.noun, other.noun, names.len());
            let (s, is) = if count == 1 { ("", "is also a") } else { ("s", "are also") };
            let same_s = if count == 1 { "" } else { "s" };
            let message = format!(
                "the {noun}{s} {} of role `{}` {is} {same}{same_s} (role {}), and a certificate for one is good for the other",
                named(&names),
                role.name,
                listed(&roles)
            );
            let first = names.first().map_or("", String::as_str);
            let hint = format!(
                "give the {same} a name with `:`, such as `ci:{first}`, which no {noun} can have, or deny that name to one of them"
            );
            findings.add(Subject::Role(role), role.origin.clone(), message, hint);
        }
    }
}

/// Every plain name that some bot can have in a field, with the roles that give it.
fn holders<'p>(policy: &'p Policy, field: &Field) -> BTreeMap<String, Vec<&'p Role>> {
    let mut known: BTreeMap<String, Vec<&Role>> = BTreeMap::new();
    each_giver(policy, |bot, role| {
        field::each(bot, role, field, |name| {
            if !has_wildcard(name) && field::denier(bot, field, name).is_none() {
                known.entry(name.to_owned()).or_default().push(role);
            }
        });
    });
    known
}

pub(super) fn source_pin(policy: &Policy, findings: &mut Findings<'_>) {
    for role in policy.roles.values().filter(|role| role.options.pin_source_ip) {
        let keys: Vec<String> = output::fields()
            .filter(|field| role.names.allow_any(field))
            .map(|field| field.key.to_owned())
            .collect();
        if !keys.is_empty() {
            let message = format!(
                "role `{}` pins the source address, so what it allows in {} is never issued",
                role.name,
                named(&keys)
            );
            let hint = "nothing but an SSH user certificate can be bound to an address: move the rest to a role \
                        without `pin_source_ip`";
            findings.add(Subject::Role(role), role.origin.clone(), message, hint.to_owned());
        }
    }
    for bot in policy.bots.values() {
        let usable = bot.roles.iter().map(AsRef::as_ref).filter(|role| !policy.needs_mfa(role));
        let (pinned, others): (Vec<&Role>, Vec<&Role>) = usable.partition(|role| role.options.pin_source_ip);
        if pinned.is_empty() {
            continue;
        }
        let (name, roles) = (&bot.name, listed(&pinned));
        let (message, hint) = if others.is_empty() {
            (
                format!(
                    "bot `{name}` never gets an `identity`: its roles ({roles}) pin the source address, which an X.509 certificate cannot"
                ),
                "let its jobs ask for the output `ssh`, and silence this where they do",
            )
        } else {
            (
                format!(
                    "the X.509 certificate in an `identity` of bot `{name}` is good from any address, though its roles ({roles}) pin it"
                ),
                "if servers let it in by that certificate, make a bot of its own of the roles that pin, whose jobs ask for the output `ssh`",
            )
        };
        findings.add(Subject::Bot(bot), bot.origin.clone(), message, hint.to_owned());
    }
}
