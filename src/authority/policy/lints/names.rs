//! Lints over the names that certificates of other outputs carry, and over
//! what cannot be said in them.

use std::collections::{BTreeMap, BTreeSet};

use super::findings::{Findings, named};
use crate::authority::policy::output::{OUTPUTS, OutputPolicy};
use crate::authority::policy::resources::{
    Bot, FIELDS, Field, Policy, Role, Template, has_wildcard, role_names,
};

/// Every bot and each of its roles, and whether the names of that role are
/// issued: not where it needs MFA, or pins the source address.
fn each_role<'p>(policy: &'p Policy, mut look: impl FnMut(&'p Bot, &'p Role, bool)) {
    for bot in policy.bots.values() {
        for role in &bot.roles {
            look(bot, role, !policy.needs_mfa(role) && !role.options.pin_source_ip);
        }
    }
}

/// Names that may do anything, by what gives them: the names of a role, of its
/// field, and of the bot where they come by its traits.
type Given<'p> =
    BTreeMap<(&'p str, &'p str, Option<&'p str>), (&'p Role, Option<&'p Bot>, &'p Field, BTreeSet<&'p str>)>;

/// Like `root` on a host. What goes with a user is issued with one alone.
pub(super) fn superuser(policy: &Policy, findings: &mut Findings<'_>) {
    // By what is said of: a role, whose own names they are, or a bot through its traits.
    let mut given = Given::new();
    each_role(policy, |bot, role, issued| {
        let with_user = |kind: &&&OutputPolicy| {
            issued && kind.fields.first().is_some_and(|user| role.names.allow_any(user))
        };
        for field in OUTPUTS.iter().filter(with_user).flat_map(|kind| kind.fields.iter().copied()) {
            let literal = |name: &str| {
                role.names.allowed(field).iter().any(
                    |allowed| matches!(allowed, Template::Literal(pattern) if (field.covers)(pattern, name)),
                )
            };
            for name in field
                .superusers
                .iter()
                .copied()
                .filter(|name| bot.allows(role, field, name) && bot.denier(field, name).is_none())
            {
                let through = if literal(name) { None } else { Some(bot) };
                let key = (role.name.as_str(), field.key, through.map(|bot| bot.name.as_str()));
                given.entry(key).or_insert_with(|| (role, through, field, BTreeSet::new())).3.insert(name);
            }
        }
    });
    for (role, through, field, names) in given.into_values() {
        let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
        let (noun, s, they) =
            if names.len() == 1 { (field.noun, "", "it is") } else { (field.noun, "s", "they are") };
        let what = format!("the {noun}{s} {}, which may do anything where {they} known", named(&names));
        let denied: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
        let hint = format!(
            "give {} that may do what the job does and no more, or `deny: {{{}: [{}]}}`",
            field.a_noun(),
            field.key,
            denied.join(", ")
        );
        let role_name = &role.name;
        match through {
            Some(bot) => {
                let message = format!("a trait of bot `{}` makes role `{role_name}` give {what}", bot.name);
                findings.bot(bot, message, hint);
            }
            None => findings.role(role, format!("role `{role_name}` gives {what}"), hint),
        }
    }
}

/// What goes with a user, in a role that allows none.
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
            findings.role(role, message, hint);
        }
    }
}

/// One CA signs for databases and clusters, and a server reads no more than
/// the common name: the certificate of the one is the other. It is enough that
/// one of the two is issued: a role that needs MFA for its users, or an address,
/// is not asked where another gives the same name.
pub(super) fn shared_user(policy: &Policy, findings: &mut Findings<'_>) {
    // Of two fields whose names are the same, the first.
    let pairs = FIELDS.iter().copied().filter_map(|one| Some((one, one.same_as?)));
    for (one, other) in pairs.filter(|(one, other)| one.key < other.key) {
        let known = holders(policy, other);
        let mut shared: BTreeMap<&str, (&Role, BTreeSet<&String>)> = BTreeMap::new();
        each_role(policy, |bot, role, issued| {
            let given = known.iter().filter(|(name, holders)| {
                (issued || holders.iter().any(|(_, issued)| *issued))
                    && bot.allows(role, one, name)
                    && bot.denier(one, name).is_none()
            });
            for (name, _) in given {
                shared.entry(&role.name).or_insert_with(|| (role, BTreeSet::new())).1.insert(name);
            }
        });
        for (role, names) in shared.into_values() {
            let mut roles: Vec<&Role> =
                names.iter().filter_map(|name| known.get(*name)).flatten().map(|(role, _)| *role).collect();
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
                role_names(&roles)
            );
            let first = names.first().map_or("", String::as_str);
            let hint = format!(
                "give the {same} a name with `:`, such as `ci:{first}`, which no {noun} can have, or deny that name to one of them"
            );
            findings.role(role, message, hint);
        }
    }
}

/// Every plain name that a role gives some bot in a field, with these roles and
/// whether they issue it.
fn holders<'p>(policy: &'p Policy, field: &Field) -> BTreeMap<String, Vec<(&'p Role, bool)>> {
    let mut known: BTreeMap<String, Vec<(&Role, bool)>> = BTreeMap::new();
    each_role(policy, |bot, role, issued| {
        bot.each_name(role, field, |name| {
            if !has_wildcard(name) && bot.denier(field, name).is_none() {
                known.entry(name.to_owned()).or_default().push((role, issued));
            }
        });
    });
    known
}

pub(super) fn source_pin(policy: &Policy, findings: &mut Findings<'_>) {
    for role in policy.roles.values().filter(|role| role.options.pin_source_ip) {
        let keys: Vec<String> = FIELDS
            .iter()
            .copied()
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
            findings.role(role, message, hint);
        }
    }
    for bot in policy.bots.values() {
        let usable = bot.each_role().filter(|role| !policy.needs_mfa(role));
        let (pinned, others): (Vec<&Role>, Vec<&Role>) = usable.partition(|role| role.options.pin_source_ip);
        if pinned.is_empty() {
            continue;
        }
        let (name, roles) = (&bot.name, role_names(&pinned));
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
        findings.bot(bot, message, hint);
    }
}
