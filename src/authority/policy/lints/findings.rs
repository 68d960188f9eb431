//! What lints find, and the words that they share.

use std::fmt::Display;

use crate::authority::policy::resources::{Bot, JoinToken, LeafCluster, Origin, Policy, Reach, Role, Trait};
use crate::document::Place;
use crate::join::rules::Rule;
use crate::join::trusted_cluster;
use crate::text::listed;

/// What a lint found.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The lint's name.
    pub lint: &'static str,
    /// The place of what it is about.
    pub origin: Origin,
    /// What is seldom meant, in a sentence.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

/// What all lints found, in the order of files and lines.
#[derive(Debug, Default)]
pub struct Report {
    /// What nobody silenced.
    pub findings: Vec<Finding>,
    /// How much was silenced by `metadata.allow_lints`.
    pub silenced: usize,
}

/// Where a lint puts what it finds.
pub(super) struct Findings<'p> {
    pub(super) policy: &'p Policy,
    pub(super) lint: &'static str,
    pub(super) report: Report,
}

impl Findings<'_> {
    /// Of a rule; `what` follows its name in the message.
    pub(super) fn rule(
        &mut self,
        (token, rule): (&JoinToken, &Rule),
        what: impl Display,
        hint: impl Into<String>,
    ) {
        let message = format!("the rule of join token `{}` {what}", token.name);
        self.add("token", &token.name, token.origin.at(rule.place), message, hint.into());
    }

    /// Of a join token; `what` follows its name in the message.
    pub(super) fn token(&mut self, token: &JoinToken, what: impl Display, hint: impl Into<String>) {
        let message = format!("join token `{}` {what}", token.name);
        self.add("token", &token.name, token.origin.clone(), message, hint.into());
    }

    /// Of a trusted cluster, by a place in it; `what` follows its name in the message.
    pub(super) fn cluster(
        &mut self,
        cluster: &JoinToken,
        place: Place,
        what: impl Display,
        hint: impl Into<String>,
    ) {
        let message = format!("trusted cluster `{}` {what}", cluster.name);
        self.add(trusted_cluster::NAME, &cluster.name, cluster.origin.at(place), message, hint.into());
    }

    /// Of a bot.
    pub(super) fn bot(&mut self, bot: &Bot, message: String, hint: impl Into<String>) {
        self.add("bot", &bot.name, bot.origin.clone(), message, hint.into());
    }

    /// Of a bot, by one of its traits; `what` follows that in the message.
    pub(super) fn bots_trait(&mut self, bot: &Bot, of: &Trait, what: impl Display, hint: impl Into<String>) {
        let place = of.values.first().map_or(bot.origin.place, |(_, place)| *place);
        let message = format!("the trait `{}` of bot `{}` {what}", of.name, bot.name);
        self.add("bot", &bot.name, bot.origin.at(place), message, hint.into());
    }

    /// Of a role; `what` follows its name in the message.
    pub(super) fn role(&mut self, role: &Role, what: impl Display, hint: impl Into<String>) {
        self.about_role(role, format!("role `{}` {what}", role.name), hint);
    }

    /// Of a role, in words of their own.
    pub(super) fn about_role(&mut self, role: &Role, message: String, hint: impl Into<String>) {
        self.add("role", &role.name, role.origin.clone(), message, hint.into());
    }

    /// Of a leaf cluster.
    pub(super) fn leaf(&mut self, leaf: &LeafCluster, message: String, hint: impl Into<String>) {
        self.add("leaf_cluster", &leaf.name, leaf.origin.clone(), message, hint.into());
    }

    /// Each resource can silence what is about it.
    fn add(&mut self, kind: &'static str, name: &str, origin: Origin, message: String, hint: String) {
        if self.policy.silenced.contains(&(kind, name.to_owned(), self.lint)) {
            self.report.silenced += 1;
        } else {
            self.report.findings.push(Finding { lint: self.lint, origin, message, hint });
        }
    }
}

/// On which hosts, in words; what separates several is "or".
pub(super) fn hosts(reach: &Reach) -> String {
    match reach {
        Reach::Nowhere => "no host".to_owned(),
        Reach::Everywhere => "every host".to_owned(),
        Reach::Labelled(sets) => {
            let some: Vec<&str> = sets.iter().take(4).map(String::as_str).collect();
            let others = if sets.len() > 4 { " or others" } else { "" };
            format!("hosts with {}{others}", some.join(" or "))
        }
    }
}

/// Names for a message; not all of very many.
pub(super) fn named(names: &[impl AsRef<str>]) -> String {
    listed(names.iter().map(AsRef::as_ref), 4)
}
