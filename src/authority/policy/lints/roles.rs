//! Lints over roles and who holds them.

use std::collections::HashSet;

use super::findings::{Findings, hosts};
use crate::authority::policy::resources::{Bot, Policy, Reach, Role, Template, needs_mfa};

/// The longest that a CI job's certificates should live, in seconds: `--ttl`'s default.
const LONG: u64 = 3600;
/// The login that may do anything.
const ROOT: &str = "root";

/// Every bot and each of its roles that a machine can use.
fn each_usable<'p>(policy: &'p Policy, mut look: impl FnMut(&'p Bot, &'p Role)) {
    for bot in policy.bots.values() {
        bot.roles.iter().filter(|role| !policy.needs_mfa(role)).for_each(|role| look(bot, role));
    }
}

pub(super) fn long_ttl(policy: &Policy, findings: &mut Findings<'_>) {
    let ci: HashSet<&str> =
        policy.tokens().filter(|token| token.method.is_ci).map(|token| token.bot.as_str()).collect();
    // Each role once, however many bots hold it, and by the first of their names.
    let mut long: Vec<(&Role, &Bot)> = Vec::new();
    each_usable(policy, |bot, role| {
        if ci.contains(bot.name.as_str()) && role.options.max_ttl.min(bot.max_ttl) > LONG {
            long.push((role, bot));
        }
    });
    long.sort_unstable_by(|a, b| (&a.0.name, &a.1.name).cmp(&(&b.0.name, &b.1.name)));
    long.dedup_by(|a, b| a.0.name == b.0.name);
    for (role, bot) in long {
        let hours =
            humantime::format_duration(std::time::Duration::from_secs(role.options.max_ttl.min(bot.max_ttl)));
        let message =
            format!("role `{}` gives CI jobs of bot `{}` certificates of up to {hours}", role.name, bot.name);
        let hint = "set `max_session_ttl: 1h` or less: `once -- COMMAND` renews as long as its job runs";
        findings.role(role, message, hint);
    }
}

pub(super) fn root_login(policy: &Policy, findings: &mut Findings<'_>) {
    let mut roles: HashSet<&str> = HashSet::new();
    each_usable(policy, |bot, role| {
        let mut is_root = false;
        bot.each_login(role, |login| is_root |= login == ROOT);
        if !is_root || bot.login_denier(ROOT).is_some() || role.reach == Reach::Nowhere {
            return;
        }
        let on = hosts(&role.reach);
        let literal = role.logins.contains(&Template::Literal(ROOT.to_owned()));
        let hint =
            "log in as a user of its own, with sudo rules for what it does, or `deny: {logins: [root]}`";
        if !literal {
            let message =
                format!("a trait of bot `{}` makes role `{}` log in as root on {on}", bot.name, role.name);
            findings.bot(bot, message, hint);
        } else if roles.insert(&role.name) {
            let message = format!("role `{}` logs in as root on {on}", role.name);
            findings.role(role, message, hint);
        }
    });
}

pub(super) fn no_hosts(policy: &Policy, findings: &mut Findings<'_>) {
    for role in policy.roles.values() {
        if role.reach == Reach::Nowhere && !role.logins.is_empty() {
            let message = format!("role `{}` has no node_labels, so its logins open nothing", role.name);
            let hint = "say where they hold: `node_labels: {env: prod}`, or `{'*': '*'}` for every host";
            findings.role(role, message, hint);
        }
    }
}

pub(super) fn unused_role(policy: &Policy, findings: &mut Findings<'_>) {
    let held: HashSet<&str> =
        policy.bots.values().flat_map(|bot| &bot.roles).map(|role| role.name.as_str()).collect();
    for role in policy.roles.values().filter(|role| !held.contains(role.name.as_str())) {
        let message = format!("no bot has the role `{}`", role.name);
        findings.role(role, message, "give it to a bot, or remove it");
    }
}

pub(super) fn unused_bot(policy: &Policy, findings: &mut Findings<'_>) {
    let made: HashSet<&str> = policy.tokens().map(|token| token.bot.as_str()).collect();
    for bot in policy.bots.values().filter(|bot| !made.contains(bot.name.as_str())) {
        let message = format!("no join token makes a job the bot `{}`", bot.name);
        let hint = "write a join token with its name in `bot_name`, or remove it";
        findings.bot(bot, message, hint);
    }
}

pub(super) fn session_mfa(policy: &Policy, findings: &mut Findings<'_>) {
    for bot in policy.bots.values() {
        for role in bot.roles.iter().filter(|role| policy.needs_mfa(role)) {
            let why = if role.options.session_mfa {
                ""
            } else {
                " (`cluster_auth_preference` asks it of every role)"
            };
            let message = format!("{}, and is never issued{why}", needs_mfa(&bot.name, &[role]));
            let hint = "take the role from the bot, or give the bot one without `require_session_mfa`";
            findings.bot(bot, message, hint);
        }
    }
}
