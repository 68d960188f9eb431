//! Lints: what is no mistake, loads and is obeyed, and is seldom what its
//! author meant.
//!
//! Each is a line of [`LINTS`], a function in a file below, a section of
//! `docs/lints.md` and two policies under `tests/fixtures/lints/NAME/`: one that
//! it finds something in, and one that it does not. No lint names a join method
//! or a claim: methods say what their fields mean ([`Constraint`](crate::join::rules::Constraint)),
//! what their claims look like and what they say of one another.

use super::resources::Policy;

mod audiences;
mod contradictions;
mod findings;
mod mapped;
mod names;
mod never;
mod nothing;
mod roles;
mod rules;
mod traits;

pub use findings::{Finding, Report};

use findings::Findings;

/// A lint.
#[derive(Debug)]
pub struct Lint {
    /// Its name, for `metadata.allow_lints`; also its heading in `docs/lints.md`.
    pub name: &'static str,
    run: fn(&Policy, &mut Findings<'_>),
}

/// Every lint. A new one is a line here, its function, its page and its two policies.
pub static LINTS: &[Lint] = &[
    Lint { name: "anybody", run: rules::anybody },
    Lint { name: "mutable-names", run: rules::mutable_names },
    Lint { name: "any-ref", run: rules::any_ref },
    Lint { name: "any-workflow", run: rules::any_workflow },
    Lint { name: "risky-event", run: rules::risky_event },
    Lint { name: "no-key-binding", run: rules::no_key_binding },
    Lint { name: "cannot-bind", run: rules::cannot_bind },
    Lint { name: "never-matches", run: never::never_matches },
    Lint { name: "contradiction", run: contradictions::contradiction },
    Lint { name: "long-ttl", run: roles::long_ttl },
    Lint { name: "root-login", run: roles::root_login },
    Lint { name: "superuser", run: names::superuser },
    Lint { name: "trait-leak", run: traits::leak },
    Lint { name: "no-hosts", run: roles::no_hosts },
    Lint { name: "gives-nothing", run: nothing::gives_nothing },
    Lint { name: "no-user", run: names::no_user },
    Lint { name: "shared-user", run: names::shared_user },
    Lint { name: "source-pin", run: names::source_pin },
    Lint { name: "mapped-traits", run: mapped::traits },
    Lint { name: "any-audience", run: audiences::any_audience },
    Lint { name: "unused-role", run: roles::unused_role },
    Lint { name: "unused-bot", run: roles::unused_bot },
    Lint { name: "unused-leaf", run: roles::unused_leaf },
    Lint { name: "session-mfa", run: roles::session_mfa },
];

impl Policy {
    /// What is no mistake and yet seldom meant.
    pub fn lint(&self) -> Report {
        let mut findings = Findings { policy: self, lint: "", report: Report::default() };
        for lint in LINTS {
            findings.lint = lint.name;
            (lint.run)(self, &mut findings);
        }
        let mut report = findings.report;
        // The policy's maps have no order of their own.
        report.findings.sort_by(|a, b| (&a.origin, a.lint, &a.message).cmp(&(&b.origin, b.lint, &b.message)));
        report
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::fixture::{NOTHING, TOKEN, bot, parse, role};
    use super::*;

    fn found(parts: &[String]) -> Vec<(&'static str, String)> {
        let report = parse(&parts.concat()).unwrap().lint();
        report.findings.into_iter().map(|finding| (finding.lint, finding.message)).collect()
    }

    #[test]
    fn names_are_unique_and_kebab() {
        for (index, lint) in LINTS.iter().enumerate() {
            assert!(LINTS.iter().skip(index + 1).all(|other| other.name != lint.name));
            assert!(lint.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{}", lint.name);
        }
    }

    #[test]
    fn a_resource_silences_its_own_lints_alone() {
        let hosts = "{allow: {logins: [root], node_labels: {'*': '*'}}}";
        let parts = [bot("{roles: [a, b]}"), role("a", hosts), role("b", hosts), TOKEN.to_owned()];
        let all = found(&parts);
        let quiet = role("a", hosts).replace("{name: a}", "{name: a, allow_lints: [root-login]}");
        let report =
            parse(&[parts[0].clone(), quiet, parts[2].clone(), TOKEN.to_owned()].concat()).unwrap().lint();
        assert_eq!(report.silenced, 1);
        assert_eq!(report.findings.len(), all.len() - 1);
        assert!(report.findings.iter().any(|finding| finding.message.contains("role `b`")));
    }

    #[test]
    fn a_lint_that_is_not_is_a_mistake() {
        let text = role("a", NOTHING).replace("{name: a}", "{name: a, allow_lints: [rot-login, x]}");
        let mistakes = parse(&text).unwrap_err();
        assert_eq!(mistakes[0], "p.yaml:5:35: there is no lint `rot-login` | did you mean `root-login`?");
        assert!(mistakes[1].contains("there is no lint `x` | there are: anybody, "), "{}", mistakes[1]);
    }
}
