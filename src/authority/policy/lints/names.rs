//! Lints over the names that certificates of other outputs carry, and over
//! what cannot be said in them.

use std::collections::{BTreeMap, BTreeSet};

use super::findings::{Findings, named};
use crate::authority::policy::output::OUTPUTS;
use crate::authority::policy::resources::{
    DB_USERS, FIELDS, KUBERNETES_USERS, LOGINS, Policy, Role, RoleField, Template, role_names,
};

/// Roles and traits that give a database user or a Kubernetes group which may
/// do anything, like `root` on a host. What goes with a user is issued with one alone.
pub(super) fn superuser(policy: &Policy, findings: &mut Findings<'_>) {
    // What roles say themselves, for all of their bots together.
    let mut own: BTreeMap<(&str, &str), (&Role, &RoleField, BTreeSet<&str>)> = BTreeMap::new();
    for (bot, role) in policy.usable() {
        let kinds = OUTPUTS.iter().filter(|kind| kind.fields.first().is_some_and(|user| role.issues(user)));
        for field in kinds.flat_map(|kind| kind.fields) {
            let is_own = |name: &&str| {
                role.allowed(field).iter().any(
                    |allowed| matches!(allowed, Template::Literal(pattern) if (field.covers)(pattern, name)),
                )
            };
            let given = field.superusers.iter().filter(|name| bot.gets(role, field, name));
            let (said, made): (BTreeSet<&str>, BTreeSet<&str>) = given.partition(|name| is_own(name));
            if !made.is_empty() {
                let (what, hint) = may_do_anything(field, &made);
                let (name, role) = (&bot.name, &role.name);
                findings.bot(bot, format!("a trait of bot `{name}` makes role `{role}` give {what}"), hint);
            }
            if !said.is_empty() {
                own.entry((&role.name, field.key)).or_insert((role, field, BTreeSet::new())).2.extend(said);
            }
        }
    }
    for (role, field, names) in own.into_values() {
        let (what, hint) = may_do_anything(field, &names);
        findings.role(role, format!("gives {what}"), hint);
    }
}

/// What such names are, and what to do about them.
fn may_do_anything(field: &RoleField, names: &BTreeSet<&str>) -> (String, String) {
    let names: Vec<&str> = names.iter().copied().collect();
    let (s, they) = if names.len() == 1 { ("", "it is") } else { ("s", "they are") };
    let what = format!("the {}{s} {}, which may do anything where {they} known", field.noun, named(&names));
    let (a_noun, key, names) = (field.a_noun(), field.key, names.join("', '"));
    let hint =
        format!("give {a_noun} that may do what the job does and no more, or `deny: {{{key}: ['{names}']}}`");
    (what, hint)
}

/// Roles whose Kubernetes groups or databases come with no user.
pub(super) fn no_user(policy: &Policy, findings: &mut Findings<'_>) {
    for kind in OUTPUTS {
        let [user, along] = kind.fields else { continue };
        let lacks = |role: &&Role| !role.allowed(along).is_empty() && role.allowed(user).is_empty();
        for role in policy.roles.values().map(AsRef::as_ref).filter(lacks) {
            let (noun, key) = (user.noun, user.key);
            let what = format!("has `{}` and no `{key}`, so they are never issued", along.key);
            let hint = format!(
                "name in the same role each {noun} that they go with: what one role gives is not added \
                 to another's {noun}"
            );
            findings.role(role, what, hint);
        }
    }
}

/// Database users that are Kubernetes users too: one CA signs for both, and a
/// server reads no more than the common name, so the certificate of the one is
/// the other. It is enough that one of the two is issued: a role that needs MFA
/// for its users, or an address, is not asked where another gives the same name.
pub(super) fn shared_user(policy: &Policy, findings: &mut Findings<'_>) {
    let issued = |role: &Role| !policy.needs_mfa(role) && !role.options.pin_source_ip;
    let mut known: BTreeMap<String, Vec<&Role>> = BTreeMap::new();
    for (bot, role) in policy.held() {
        for name in bot.names(&[role], &KUBERNETES_USERS) {
            known.entry(name).or_default().push(role);
        }
    }
    let mut shared: BTreeMap<&str, (&Role, BTreeSet<&str>)> = BTreeMap::new();
    for (bot, role) in policy.held() {
        let both = known.iter().filter(|(name, others)| {
            (issued(role) || others.iter().any(|other| issued(other))) && bot.gets(role, &DB_USERS, name)
        });
        for (name, _) in both {
            shared.entry(&role.name).or_insert((role, BTreeSet::new())).1.insert(name);
        }
    }
    for (role, names) in shared.into_values() {
        let others = role_names(names.iter().filter_map(|name| known.get(*name)).flatten());
        let names: Vec<&str> = names.into_iter().collect();
        let (user, other) = (DB_USERS.noun, KUBERNETES_USERS.noun);
        let (s, is) = if names.len() == 1 { ("", "is also a") } else { ("s", "are also") };
        let message = format!(
            "the {user}{s} {} of role `{}` {is} {other}{s} (role {others}), and a certificate for one is good for the other",
            named(&names),
            role.name
        );
        let first = names.first().unwrap_or(&"");
        let hint = format!(
            "give the {other} a name with `:`, such as `ci:{first}`, which no {user} can have, or deny that name to one of them"
        );
        findings.about_role(role, message, hint);
    }
}

/// Roles that pin the source address, and what of them no certificate can pin.
pub(super) fn source_pin(policy: &Policy, findings: &mut Findings<'_>) {
    for role in policy.roles.values().filter(|role| role.options.pin_source_ip) {
        let others = FIELDS.iter().filter(|field| field.key != LOGINS.key && !role.allowed(field).is_empty());
        let keys: Vec<&str> = others.map(|field| field.key).collect();
        if !keys.is_empty() {
            let keys = named(&keys);
            let what = format!("pins the source address, so what it allows in {keys} is never issued");
            let hint = "nothing but an SSH user certificate can be bound to an address: move the rest to a role \
                        without `pin_source_ip`";
            findings.role(role, what, hint);
        }
    }
    for bot in policy.bots.values() {
        let usable = bot.each_role().filter(|role| !policy.needs_mfa(role));
        let (pinned, others): (Vec<&Role>, Vec<&Role>) = usable.partition(|role| role.options.pin_source_ip);
        let (name, roles) = (&bot.name, role_names(&pinned));
        if pinned.is_empty() {
            continue;
        } else if others.is_empty() {
            let message = format!(
                "bot `{name}` never gets an `identity`: its roles ({roles}) pin the source address, which an X.509 certificate cannot"
            );
            findings.bot(
                bot,
                message,
                "let its jobs ask for the output `ssh`, and silence this where they do",
            );
        } else {
            let message = format!(
                "the X.509 certificate in an `identity` of bot `{name}` is good from any address, though its roles ({roles}) pin it"
            );
            let hint = "if servers let it in by that certificate, make a bot of its own of the roles that pin, whose jobs ask for the output `ssh`";
            findings.bot(bot, message, hint);
        }
    }
}
