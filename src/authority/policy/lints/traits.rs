//! The lint over traits that reach further than one role.

use super::findings::{Findings, hosts, named};
use crate::authority::policy::output::OUTPUTS;
use crate::authority::policy::resources::{Bot, Field, Policy, Reach, Role, Template, Trait};

/// What a template of a role makes, and what it goes with there.
struct TemplateUse<'p> {
    role: &'p Role,
    template: &'p Template,
    /// What it goes with: whole, as a message says it, and as a role does behind the template.
    whole: Vec<String>,
    with: String,
    written: String,
}

/// A trait belongs to the bot, not to a role: each of its values becomes a
/// login through every role that has the template, on that role's hosts, or a
/// user through every such role, with that role's databases or groups. With two
/// roles that differ in these, a value meant for one opens the other.
pub(super) fn leak(policy: &Policy, findings: &mut Findings<'_>) {
    for bot in policy.bots.values() {
        let usable: Vec<&Role> = bot.each_role().filter(|role| !policy.needs_mfa(role)).collect();
        across_types(bot, &usable, findings);
        let on_hosts = usable.iter().filter(|role| role.reach != Reach::Nowhere).flat_map(|role| {
            let through = |template| TemplateUse {
                role,
                template,
                whole: match &role.reach {
                    Reach::Labelled(sets) => sets.clone(),
                    Reach::Everywhere | Reach::Nowhere => Vec::new(),
                },
                with: format!("on {}", hosts(&role.reach)),
                written: format!(", node_labels: {}", labels(&role.reach)),
            };
            role.logins.iter().map(through)
        });
        let denied = |login: &str| bot.login_denier(login).is_some();
        across_roles(bot, ("", "login", "logins"), on_hosts.collect(), &denied, findings);
        for kind in OUTPUTS {
            let [user, along] = kind.fields else { continue };
            for (of, beside) in [(user, along), (along, user)] {
                let through = usable.iter().flat_map(|role| beside_each(bot, role, of, beside));
                // Without a user, what goes with one is never issued.
                let issued = through.filter(|one| of.key == user.key || one.role.names.allow_any(user));
                let denied = |name: &str| bot.denier(of, name).is_some();
                let noun = format!("the {} ", of.noun);
                across_roles(bot, (&noun, of.noun, of.key), issued.collect(), &denied, findings);
            }
        }
    }
}

/// A trait that names who a job is in outputs of several types: a value meant
/// for a login is a database user too.
fn across_types(bot: &Bot, usable: &[&Role], findings: &mut Findings<'_>) {
    for Trait { name, values } in &bot.traits {
        let Some((_, place)) = values.first() else { continue };
        let mut nouns: Vec<&str> = Vec::new();
        let mut given: Vec<String> = Vec::new();
        let mut add =
            |noun: &'static str, role: &Role, templates: &[Template], denied: &dyn Fn(&str) -> bool| {
                let made = templates.iter().filter(|template| template.trait_name() == Some(name));
                let made = made.flat_map(|template| values.iter().map(|(value, _)| template.filled(value)));
                let made: Vec<String> = made.filter(|made| !denied(made)).collect();
                if !made.is_empty() {
                    given.push(format!("the {noun} {} through role `{}`", named(&made), role.name));
                    if !nouns.contains(&noun) {
                        nouns.push(noun);
                    }
                }
            };
        for role in usable {
            if role.reach != Reach::Nowhere {
                add("login", role, &role.logins, &|login| bot.login_denier(login).is_some());
            }
            // Nothing else can be pinned, and so none of it is issued.
            for field in OUTPUTS.iter().filter_map(|kind| kind.fields.first()) {
                if !role.options.pin_source_ip {
                    let denied = |name: &str| bot.denier(field, name).is_some();
                    add(field.noun, role, role.names.allowed(field), &denied);
                }
            }
        }
        if nouns.len() > 1 {
            let message = format!("the trait `{name}` of bot `{}` gives {}", bot.name, given.join(" and "));
            let hint = "if a value that is meant for the one is not meant for the other, use a trait of its own \
                        for each, or write the names into the roles";
            findings.bot_at(bot, *place, message, hint);
        }
    }
}

/// What a role allows in a field, with what it gives beside it. A role that
/// pins the source address gives none of it.
fn beside_each<'p>(bot: &Bot, role: &'p Role, of: &Field, beside: &Field) -> Vec<TemplateUse<'p>> {
    let mut names = Vec::new();
    bot.each_name(role, beside, |name| {
        if bot.denier(beside, name).is_none() {
            names.push(name.to_owned());
        }
    });
    names.sort_unstable();
    names.dedup();
    let (with, written) = match names.as_slice() {
        [] => (format!("with no {}", beside.noun), String::new()),
        names => (
            format!("with the {} {}", beside.noun, named(names)),
            format!(", {}: [{}]", beside.key, names.join(", ")),
        ),
    };
    let through = |template| TemplateUse {
        role,
        template,
        whole: names.clone(),
        with: with.clone(),
        written: written.clone(),
    };
    let templates = if role.options.pin_source_ip { &[] } else { role.names.allowed(of) };
    templates.iter().map(through).collect()
}

/// Tells of each template that several roles have which differ in what it goes with.
fn across_roles(
    bot: &Bot,
    words: (&str, &str, &str),
    all: Vec<TemplateUse<'_>>,
    denied: &dyn Fn(&str) -> bool,
    findings: &mut Findings<'_>,
) {
    let mut seen: Vec<&Template> = Vec::new();
    for one in &all {
        if one.template.trait_name().is_none() || seen.contains(&one.template) {
            continue;
        }
        seen.push(one.template);
        let through: Vec<&TemplateUse<'_>> =
            all.iter().filter(|other| other.template == one.template).collect();
        if through.iter().any(|other| other.whole != one.whole) {
            report(bot, words, &through, denied, findings);
        }
    }
}

/// `words`: what stands before a name, what one is, and the key of their list.
fn report(
    bot: &Bot,
    (the, noun, key): (&str, &str, &str),
    through: &[&TemplateUse<'_>],
    denied: &dyn Fn(&str) -> bool,
    findings: &mut Findings<'_>,
) {
    let Some(TemplateUse { template, written, .. }) = through.first() else { return };
    let Some(name) = template.trait_name() else { return };
    let values = bot.trait_values(name);
    let Some((_, place)) = values.first() else { return };
    let made = values.iter().map(|(value, _)| template.filled(value));
    let made: Vec<String> = made.filter(|made| !denied(made)).collect();
    let Some(first) = made.first() else { return };
    let places: Vec<String> =
        through.iter().map(|one| format!("through role `{}` {}", one.role.name, one.with)).collect();
    let message = format!(
        "the trait `{name}` of bot `{}` gives {the}{} {}",
        bot.name,
        named(&made),
        places.join(" and ")
    );
    let hint = format!(
        "if that is not meant, write each {noun} into a role of its own, such as \
         `allow: {{{key}: [{first}]{written}}}`, and take it out of the trait"
    );
    findings.bot_at(bot, *place, message, hint);
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
