//! The lint over traits that reach further than one role.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::findings::{Findings, hosts, named};
use crate::authority::policy::output::OUTPUTS;
use crate::authority::policy::resources::{Bot, LOGINS, Policy, Reach, Role, RoleField, Template, Trait};

/// What a role gives beside the names of a field: whole, as a message says it,
/// and as it stands in a role behind them.
struct Beside {
    whole: Vec<String>,
    with: String,
    written: String,
}

/// Traits that give a login on more hosts than one role's, a user with more
/// than one role's databases or groups, or names in outputs of several types.
///
/// A trait belongs to the bot, not to a role: each of its values becomes a
/// login through every role that has the template, on that role's hosts, or a
/// user through every such role, with that role's databases or groups. With two
/// roles that differ in these, a value meant for one opens the other.
pub(super) fn leak(policy: &Policy, findings: &mut Findings<'_>) {
    for bot in policy.bots.values() {
        let usable: Vec<&Role> = bot.each_role().filter(|role| !policy.needs_mfa(role)).collect();
        across_types(bot, &usable, findings);
        let on_hosts = usable.iter().filter(|role| role.issues(&LOGINS));
        across_roles(bot, &LOGINS, on_hosts.map(|role| (*role, on_its_hosts(role))).collect(), findings);
        for kind in OUTPUTS {
            let [user, along] = kind.fields else { continue };
            for (of, beside) in [(user, along), (along, user)] {
                // Without a user, what goes with one is never issued.
                let issued = usable.iter().filter(|role| role.issues(of) && role.issues(user));
                let issued = issued.map(|role| (*role, with_its_names(bot, role, beside)));
                across_roles(bot, of, issued.collect(), findings);
            }
        }
    }
}

/// A trait that names who a job is in outputs of several types: a value meant
/// for a login is a database user too.
fn across_types(bot: &Bot, usable: &[&Role], findings: &mut Findings<'_>) {
    for of in &bot.traits {
        let mut nouns: Vec<&str> = Vec::new();
        let mut given: Vec<String> = Vec::new();
        for role in usable {
            let users = OUTPUTS.iter().filter_map(|kind| kind.fields.first().copied());
            for field in [&LOGINS].into_iter().chain(users).filter(|field| role.issues(field)) {
                let templates = role.allowed(field).iter();
                let templates = templates.filter(|template| template.trait_name() == Some(&of.name));
                let made: Vec<String> =
                    templates.flat_map(|template| made(bot, field, template, of)).collect();
                if !made.is_empty() {
                    given.push(format!("the {} {} through role `{}`", field.noun, named(&made), role.name));
                    nouns.push(field.noun);
                }
            }
        }
        nouns.dedup();
        if nouns.len() > 1 {
            let hint = "if a value that is meant for the one is not meant for the other, use a trait of its own \
                        for each, or write the names into the roles";
            findings.bots_trait(bot, of, format!("gives {}", given.join(" and ")), hint);
        }
    }
}

/// Every name that a template makes of a trait, but for those that are denied.
fn made(bot: &Bot, field: &RoleField, template: &Template, of: &Trait) -> Vec<String> {
    let made = of.values.iter().map(|(value, _)| template.filled(value));
    made.filter(|made| bot.denier(field, made).is_none()).collect()
}

fn on_its_hosts(role: &Role) -> Beside {
    let (whole, labels) = match &role.reach {
        Reach::Labelled(sets) => {
            let first = sets.first().map_or("", String::as_str);
            let pairs: Vec<String> = first.split(',').map(|pair| pair.replacen('=', ": ", 1)).collect();
            (sets.clone(), pairs.join(", "))
        }
        Reach::Everywhere | Reach::Nowhere => (Vec::new(), "'*': '*'".to_owned()),
    };
    let with = format!("on {}", hosts(&role.reach));
    Beside { whole, with, written: format!(", node_labels: {{{labels}}}") }
}

fn with_its_names(bot: &Bot, role: &Role, beside: &RoleField) -> Beside {
    let names = bot.given(role, beside).into_iter().filter(|name| bot.denier(beside, name).is_none());
    let whole: BTreeSet<String> = names.map(Cow::into_owned).collect();
    let whole: Vec<String> = whole.into_iter().collect();
    let (noun, key) = (beside.noun, beside.key);
    let (with, written) = match whole.as_slice() {
        [] => (format!("with no {noun}"), String::new()),
        names => (format!("with the {noun} {}", named(names)), format!(", {key}: [{}]", names.join(", "))),
    };
    Beside { whole, with, written }
}

/// Tells of each template that several roles have which differ in what it goes with.
fn across_roles(bot: &Bot, field: &RoleField, roles: Vec<(&Role, Beside)>, findings: &mut Findings<'_>) {
    let templates: BTreeSet<&Template> = roles.iter().flat_map(|(role, _)| role.allowed(field)).collect();
    for template in templates {
        let through = roles.iter().filter(|(role, _)| role.allowed(field).contains(template));
        let through: Vec<&(&Role, Beside)> = through.collect();
        let Some((_, first)) = through.first() else { continue };
        let Some(of) = bot.traits.iter().find(|of| Some(of.name.as_str()) == template.trait_name()) else {
            continue;
        };
        let made = made(bot, field, template, of);
        let Some(example) =
            made.first().filter(|_| through.iter().any(|(_, other)| other.whole != first.whole))
        else {
            continue;
        };
        let (noun, key) = (field.noun, field.key);
        let the = if field.key == LOGINS.key { String::new() } else { format!("the {noun} ") };
        let places =
            through.iter().map(|(role, beside)| format!("through role `{}` {}", role.name, beside.with));
        let places: Vec<String> = places.collect();
        let what = format!("gives {the}{} {}", named(&made), places.join(" and "));
        let hint = format!(
            "if that is not meant, write each {noun} into a role of its own, such as \
             `allow: {{{key}: [{example}]{}}}`, and take it out of the trait",
            first.written
        );
        findings.bots_trait(bot, of, what, hint);
    }
}

#[cfg(test)]
mod tests {
    use crate::authority::policy::tests::fixture::{TOKEN, bot, parse, role};

    fn leaks(traits: &str, one: &str, other: &str) -> Vec<(String, String)> {
        let traits = if traits.is_empty() { String::new() } else { format!(", traits: [{traits}]") };
        let bot = bot(&format!("{{roles: [a, b]{traits}}}"));
        let text = [bot, role("a", one), role("b", other), TOKEN.to_owned()].concat();
        let found = parse(&text).unwrap().lint().findings.into_iter().filter(|one| one.lint == "trait-leak");
        found.map(|finding| (finding.message, finding.hint)).collect()
    }

    #[test]
    fn users_and_what_goes_with_them() {
        for (key, one, other, message, example) in [
            (
                "db_users",
                "db_names: [one]",
                "db_names: [two]",
                "the trait `db_users` of bot `deployer` gives the database user `x` through role `a` with the \
                 database name `one` and through role `b` with the database name `two`",
                "`allow: {db_users: [x], db_names: [one]}`",
            ),
            (
                "db_names",
                "db_users: [one]",
                "db_users: [two]",
                "the trait `db_names` of bot `deployer` gives the database name `x` through role `a` with the \
                 database user `one` and through role `b` with the database user `two`",
                "`allow: {db_names: [x], db_users: [one]}`",
            ),
            (
                "kubernetes_users",
                "db_names: [other]",
                "kubernetes_groups: [admins]",
                "the trait `kubernetes_users` of bot `deployer` gives the Kubernetes user `x` through role `a` \
                 with no Kubernetes group and through role `b` with the Kubernetes group `admins`",
                "`allow: {kubernetes_users: [x]}`",
            ),
            (
                "kubernetes_groups",
                "kubernetes_users: [one]",
                "kubernetes_users: [two]",
                "the trait `kubernetes_groups` of bot `deployer` gives the Kubernetes group `x` through role `a` \
                 with the Kubernetes user `one` and through role `b` with the Kubernetes user `two`",
                "`allow: {kubernetes_groups: [x], kubernetes_users: [one]}`",
            ),
        ] {
            let traits = format!("{{name: {key}, values: [x]}}");
            let spec = |with: &str| format!("{{allow: {{{key}: ['{{{{internal.{key}}}}}'], {with}}}}}");
            let found = leaks(&traits, &spec(one), &spec(other));
            assert_eq!(found.len(), 1, "{key}: {found:?}");
            assert_eq!(found[0].0, message);
            assert!(found[0].1.contains(example), "{}", found[0].1);
            // The same beside it, nothing made of it, or denied: no leak.
            assert!(leaks(&traits, &spec(one), &spec(one)).is_empty(), "{key}");
            assert!(leaks("", &spec(one), &spec(other)).is_empty(), "{key}");
            let body = spec(other);
            let denied = format!("{}, deny: {{{key}: [x]}}}}", body.strip_suffix('}').unwrap());
            assert!(leaks(&traits, &spec(one), &denied).is_empty(), "{key}");
        }
        // The same trait for another type of output.
        let traits = "{name: logins, values: [x, w]}, {name: other, values: [z]}";
        let login = "allow: {logins: ['{{internal.logins}}'], node_labels: {'*': '*'}}";
        let one = format!("{{{login}}}");
        let user = |template: &str, rest: &str| format!("{{allow: {{db_users: ['{template}']}}{rest}}}");
        let found = leaks(traits, &one, &user("{{internal.logins}}", ", deny: {db_users: [w]}"));
        assert_eq!(
            found.iter().map(|(message, _)| message.as_str()).collect::<Vec<_>>(),
            [
                "the trait `logins` of bot `deployer` gives the login `x`, `w` through role `a` and the database user \
              `x` through role `b`"
            ]
        );
        for rest in [
            ", deny: {db_users: ['*']}",
            ", options: {pin_source_ip: true}",
            ", options: {require_session_mfa: true}",
        ] {
            assert!(leaks(traits, &one, &user("{{internal.logins}}", rest)).is_empty(), "{rest}");
        }
        assert!(leaks(traits, &one, &user("{{external.other}}", "")).is_empty());
        // What is never issued leaks nothing.
        let (group, user) = ("kubernetes_groups: ['{{external.g}}']", "kubernetes_users: [u]");
        let traits = "{name: g, values: [x]}";
        let with_user = format!("{{allow: {{{group}, {user}}}}}");
        assert!(leaks(traits, &format!("{{allow: {{{group}}}}}"), &with_user).is_empty());
        let pinned =
            format!("{{options: {{pin_source_ip: true}}, allow: {{{group}, kubernetes_users: [v]}}}}");
        assert!(leaks(traits, &pinned, &with_user).is_empty());
    }
}
