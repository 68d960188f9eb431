//! What lints find, and the words that they share.

use crate::authority::policy::resources::{Bot, JoinToken, Origin, Policy, Reach, Role};
use crate::document::Place;
use crate::text::listed;

/// What a lint found.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The lint's name.
    pub lint: &'static str,
    /// Where.
    pub origin: Origin,
    /// What.
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
    /// Something in a join token.
    pub(super) fn token(
        &mut self,
        token: &JoinToken,
        place: Place,
        message: String,
        hint: impl Into<String>,
    ) {
        self.add("token", &token.name, token.origin.at(place), message, hint.into());
    }

    /// Something about a bot.
    pub(super) fn bot(&mut self, bot: &Bot, message: String, hint: impl Into<String>) {
        self.bot_at(bot, bot.origin.place, message, hint);
    }

    /// Something in a bot.
    pub(super) fn bot_at(&mut self, bot: &Bot, place: Place, message: String, hint: impl Into<String>) {
        self.add("bot", &bot.name, bot.origin.at(place), message, hint.into());
    }

    /// Something about a role.
    pub(super) fn role(&mut self, role: &Role, message: String, hint: impl Into<String>) {
        self.add("role", &role.name, role.origin.clone(), message, hint.into());
    }

    /// Each resource can silence what is about it.
    fn add(&mut self, kind: &str, name: &str, origin: Origin, message: String, hint: String) {
        let silenced = self.policy.silenced.get(kind).and_then(|names| names.get(name));
        if silenced.is_some_and(|lints| lints.contains(&self.lint)) {
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
            let mut said =
                format!("hosts with {}", sets.iter().take(4).cloned().collect::<Vec<_>>().join(" or "));
            if sets.len() > 4 {
                said.push_str(" or others");
            }
            said
        }
    }
}

/// Names for a message; not all of very many.
pub(super) fn named(names: &[String]) -> String {
    listed(names.iter().map(String::as_str), 4)
}
