//! The lint over conditions of one rule that no job meets together.

use super::findings::Findings;
use super::never::{field, wrong};
use super::rules::each_rule;
use crate::authority::policy::resources::{JoinToken, Policy};
use crate::join::method::Method;
use crate::join::rules::{Condition, Rule, Want, overlap};
use crate::text::shown_exactly;

/// What a condition says of a field: of its own, or of another.
struct Statement<'r> {
    by: &'r Condition,
    field: &'r str,
    one_of: Vec<String>,
}

/// Rules two of whose conditions say what is never true of one job.
pub(super) fn contradiction(policy: &Policy, findings: &mut Findings<'_>) {
    // What no job has is told by itself, and once.
    let alone = |(token, rule): &(&JoinToken, &Rule)| {
        rule.conditions.iter().all(|one| wrong(token.method, one).is_none())
    };
    for (token, rule) in each_rule(policy).filter(alone) {
        let fixed = token.verifier.fixed();
        let wanted = rule.conditions.iter().filter_map(|condition| Some((condition, condition.want.text()?)));
        let unlike = wanted.filter_map(|(condition, text)| {
            let fixed = fixed.iter().find(|(claim, _)| *claim == condition.claim)?;
            (!overlap(text, &fixed.1)).then_some((condition, text, &fixed.1))
        });
        for (condition, text, fixed) in unlike {
            let (field, text) = (shown_exactly(&condition.field), shown_exactly(text));
            let what = format!(
                "never matches: `{field}` is `{text}`, and its join token takes `{fixed}` alone there"
            );
            findings.rule(
                (token, rule),
                what,
                format!("write a join token for each, or correct one of the two in `{}`", token.method.name),
            );
        }
        let statements = statements(token.method, rule);
        let mut pairs = statements
            .iter()
            .enumerate()
            .flat_map(|(index, one)| statements.iter().skip(index + 1).map(move |other| (one, other)));
        // The others of a rule mostly follow from the first.
        if let Some((one, other)) = pairs.find(|(one, other)| one.excludes(other)) {
            let what =
                format!("never matches: {}, and {}", one.words(token.method), other.words(token.method));
            let hint = "no job has both: take one of them out, or write a rule for each";
            findings.rule((token, rule), what, hint);
        }
    }
}

fn statements<'r>(method: &'static Method, rule: &'r Rule) -> Vec<Statement<'r>> {
    // What stands in the rule comes first: a pair with one of these says most.
    let own = |by: &'r Condition| Statement { by, field: &by.field, one_of: vec![by.want.shown()] };
    let said = |by: &'r Condition| {
        let said = field(method, &by.field).map(|field| (field.says)(&by.want.shown())).unwrap_or_default();
        said.into_iter().map(move |said| Statement { by, field: said.field, one_of: said.one_of })
    };
    rule.conditions.iter().map(own).chain(rule.conditions.iter().flat_map(said)).collect()
}

impl Statement<'_> {
    fn excludes(&self, other: &Self) -> bool {
        let (one, two) = (self.by, other.by);
        if one.field == two.field {
            return false;
        }
        if self.field == other.field {
            let neither = self.one_of.is_empty() && other.one_of.is_empty();
            let agree = self.one_of.iter().any(|one| other.one_of.iter().any(|two| overlap(one, two)));
            return !neither && !agree;
        }
        // Two fields of one claim, which is one text.
        let whole = |one: &Self| {
            one.is_own() && matches!(one.by.want, Want::Glob(_) | Want::Parts(_) | Want::Exact(_))
        };
        whole(self)
            && whole(other)
            && one.claim == two.claim
            && !overlap(&one.want.shown(), &two.want.shown())
    }

    fn is_own(&self) -> bool {
        self.field == self.by.field
    }

    fn words(&self, method: &'static Method) -> String {
        let by = shown_exactly(&self.by.field);
        if self.is_own() {
            let value = self.by.want.shown();
            let written = field(method, &self.by.field).map_or(value.as_str(), |field| field.written(&value));
            return format!("`{by}` is `{}`", shown_exactly(written));
        }
        let texts: Vec<String> =
            self.one_of.iter().map(|text| format!("`{}`", shown_exactly(text))).collect();
        match texts.as_slice() {
            [] => format!("`{by}` is of jobs that have no `{}`", self.field),
            texts => format!("`{by}` is of jobs whose `{}` is {}", self.field, texts.join(" or ")),
        }
    }
}
