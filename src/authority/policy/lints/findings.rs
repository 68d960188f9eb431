//! What lints find, and the words that they share.

use crate::authority::policy::resources::{Bot, JoinToken, Origin, Policy, Reach, Role};

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

/// The resource that a finding is about, and that can silence it.
#[derive(Clone, Copy)]
pub(super) enum Subject<'p> {
    Token(&'p JoinToken),
    Bot(&'p Bot),
    Role(&'p Role),
}

/// Where a lint puts what it finds.
pub(super) struct Findings<'p> {
    pub(super) policy: &'p Policy,
    pub(super) lint: &'static str,
    pub(super) report: Report,
}

impl Findings<'_> {
    pub(super) fn add(&mut self, about: Subject<'_>, origin: Origin, message: String, hint: String) {
        let (kind, name) = match about {
            Subject::Token(token) => ("token", &token.name),
            Subject::Bot(bot) => ("bot", &bot.name),
            Subject::Role(role) => ("role", &role.name),
        };
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
    const MOST: usize = 4;
    let some: Vec<String> = names.iter().take(MOST).map(|name| format!("`{name}`")).collect();
    match names.len().saturating_sub(MOST) {
        0 => some.join(", "),
        more => format!("{} and {more} more", some.join(", ")),
    }
}
