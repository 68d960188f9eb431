//! Lints over roles and who holds them.

use std::collections::HashSet;

use super::findings::{Findings, hosts};
use crate::authority::policy::resources::{Bot, LOGINS, Policy, Reach, Role, Template, needs_mfa};

/// The longest that a CI job's certificates should live, in seconds: `--ttl`'s default.
const LONG: u64 = 3600;
/// The login that may do anything.
const ROOT: &str = "root";

/// Roles whose certificates outlive the CI job by hours.
pub(super) fn long_ttl(policy: &Policy, findings: &mut Findings<'_>) {
    let ci = policy.tokens().filter(|token| token.method.is_ci);
    let ci: HashSet<&str> = ci.map(|token| token.bot.as_str()).collect();
    let ttl = |role: &Role, bot: &Bot| role.options.max_ttl.min(bot.max_ttl);
    let long = policy.usable().filter(|(bot, role)| ci.contains(bot.name.as_str()) && ttl(role, bot) > LONG);
    // Each role once, however many bots hold it, and by the first of their names.
    let mut long: Vec<(&Bot, &Role)> = long.collect();
    long.sort_unstable_by_key(|&(bot, role)| (role.name.as_str(), bot.name.as_str()));
    long.dedup_by_key(|&mut (_, role)| role.name.as_str());
    for (bot, role) in long {
        let hours = humantime::format_duration(std::time::Duration::from_secs(ttl(role, bot)));
        let what = format!("gives CI jobs of bot `{}` certificates of up to {hours}", bot.name);
        let hint = "set `max_session_ttl: 1h` or less: `once -- COMMAND` renews as long as its job runs";
        findings.role(role, what, hint);
    }
}

/// Roles and traits that log in as root.
pub(super) fn root_login(policy: &Policy, findings: &mut Findings<'_>) {
    let mut roles: HashSet<&str> = HashSet::new();
    let is_root = |(bot, role): &(&Bot, &Role)| role.issues(&LOGINS) && bot.gets(role, &LOGINS, ROOT);
    for (bot, role) in policy.usable().filter(is_root) {
        let on = hosts(&role.reach);
        let hint =
            "log in as a user of its own, with sudo rules for what it does, or `deny: {logins: [root]}`";
        if !role.allowed(&LOGINS).contains(&Template::Literal(ROOT.to_owned())) {
            let (bot_name, role) = (&bot.name, &role.name);
            let message = format!("a trait of bot `{bot_name}` makes role `{role}` log in as root on {on}");
            findings.bot(bot, message, hint);
        } else if roles.insert(&role.name) {
            findings.role(role, format!("logs in as root on {on}"), hint);
        }
    }
}

/// Roles whose logins open nothing.
pub(super) fn no_hosts(policy: &Policy, findings: &mut Findings<'_>) {
    for role in policy.roles.values() {
        if role.reach == Reach::Nowhere && !role.allowed(&LOGINS).is_empty() {
            let hint = "say where they hold: `node_labels: {env: prod}`, or `{'*': '*'}` for every host";
            findings.role(role, "has no node_labels, so its logins open nothing", hint);
        }
    }
}

/// Roles that no bot has, nor another cluster's by a map.
pub(super) fn unused_role(policy: &Policy, findings: &mut Findings<'_>) {
    let mapped = policy.clusters().filter_map(|cluster| cluster.map.as_ref());
    let mapped =
        mapped.flat_map(|map| &map.lines).flat_map(|line| &line.local).map(|(name, _)| name.as_str());
    let held: HashSet<&str> = policy.held().map(|(_, role)| role.name.as_str()).chain(mapped).collect();
    for role in policy.roles.values().filter(|role| !held.contains(role.name.as_str())) {
        let message = format!("no bot has the role `{}`", role.name);
        findings.about_role(role, message, "give it to a bot, or remove it");
    }
}

/// Bots that no join token makes.
pub(super) fn unused_bot(policy: &Policy, findings: &mut Findings<'_>) {
    let made: HashSet<&str> = policy.tokens().map(|token| token.bot.as_str()).collect();
    for bot in policy.bots.values().filter(|bot| !made.contains(bot.name.as_str())) {
        let message = format!("no join token makes a job the bot `{}`", bot.name);
        findings.bot(bot, message, "write a join token with its name in `bot_name`, or remove it");
    }
}

/// Leaf clusters that no job goes to: none whose proof can be bound becomes a bot with a role for it.
pub(super) fn unused_leaf(policy: &Policy, findings: &mut Findings<'_>) {
    let bots: HashSet<&str> =
        policy.tokens().filter(|token| token.method.can_bind).map(|token| token.bot.as_str()).collect();
    let going = bots.into_iter().flat_map(|bot| policy.leaves_of(bot));
    let going: HashSet<&str> = going.map(|(leaf, _)| leaf.name.as_str()).collect();
    for leaf in policy.leaves().filter(|leaf| !going.contains(leaf.name.as_str())) {
        let message = format!("no job goes to the leaf cluster `{}`", leaf.name);
        let hint =
            "give one of its `roles` to a bot of jobs whose tokens `once` can bind to keys, or remove it";
        findings.leaf(leaf, message, hint);
    }
}

/// Bots that hold a role which is never issued to a machine.
pub(super) fn session_mfa(policy: &Policy, findings: &mut Findings<'_>) {
    for (bot, role) in policy.held().filter(|(_, role)| policy.needs_mfa(role)) {
        let by_all = " (`cluster_auth_preference` asks it of every role)";
        let why = if role.options.session_mfa { "" } else { by_all };
        let message = format!("{}, and is never issued{why}", needs_mfa(&bot.name, &[role]));
        let hint = "take the role from the bot, or give the bot one without `require_session_mfa`";
        findings.bot(bot, message, hint);
    }
}
