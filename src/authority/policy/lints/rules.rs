//! Lints over the rules of join tokens.

use std::collections::HashSet;

use super::findings::Findings;
use crate::authority::policy::resources::{JoinToken, Policy};
use crate::join::rules::{Condition, Constraint, Open, Rule, is_pattern};
use crate::text::shown;

/// The most fields that a hint names.
const MOST_FIELDS: usize = 5;

pub(super) fn each_rule(policy: &Policy) -> impl Iterator<Item = (&JoinToken, &Rule)> {
    policy.tokens().flat_map(|token| token.verifier.rules().iter().map(move |rule| (token, rule)))
}

/// Each rule that leaves open what some fields of its method could say, and
/// these fields. An `aspect` is one thing that fields can constrain, where they do.
fn open_rules(
    policy: &Policy,
    aspect: fn(&Constraint, &Rule) -> Option<Open>,
) -> impl Iterator<Item = (&JoinToken, &Rule, Vec<String>)> {
    let open = each_rule(policy).filter(move |(_, rule)| {
        !rule.conditions.iter().any(|condition| {
            let opens = condition.constrains.iter().filter_map(|constraint| aspect(constraint, rule));
            opens.into_iter().any(|open| !open(&condition.want.shown()))
        })
    });
    open.filter_map(move |(token, rule)| {
        let could = token
            .method
            .fields
            .iter()
            .filter(|field| field.constrains.iter().any(|constraint| aspect(constraint, rule).is_some()));
        let could: Vec<String> = could.take(MOST_FIELDS).map(|field| format!("`{}`", field.name)).collect();
        (!could.is_empty()).then_some((token, rule, could))
    })
}

/// Rules that do not say whose jobs they let in, at an issuer that others may
/// use too. Methods that know their issuer make that a mistake.
pub(super) fn anybody(policy: &Policy, findings: &mut Findings<'_>) {
    let owner = |c: &Constraint, _: &Rule| if let Constraint::Owner(open) = c { Some(*open) } else { None };
    for (token, rule, _) in open_rules(policy, owner) {
        let what = "does not say whose jobs it lets in, and others may get tokens of its issuer";
        let hint = "bind the subject, or another claim that your jobs alone have, by text that does not begin with a wildcard";
        findings.rule((token, rule), what, hint);
    }
}

/// Rules that bind a name which somebody else can have one day, and no id.
pub(super) fn mutable_names(policy: &Policy, findings: &mut Findings<'_>) {
    for (token, rule) in each_rule(policy) {
        let binds = |name: &str| rule.conditions.iter().any(|condition| condition.field == name);
        let mut loose = Vec::new();
        let mut ids: Vec<String> = Vec::new();
        for condition in &rule.conditions {
            for constraint in condition.constrains {
                if let Constraint::Name { pinned_by, pins_itself } = constraint
                    && !pinned_by.iter().any(|id| binds(id))
                    && !pins_itself(&condition.want.shown())
                {
                    loose.push(format!("`{}`", condition.field));
                    ids.extend(pinned_by.iter().map(|id| format!("`{id}`")));
                }
            }
        }
        if !loose.is_empty() {
            let mut seen = HashSet::new();
            ids.retain(|id| seen.insert(id.clone()));
            let loose = loose.join(" and ");
            let what = format!("binds {loose} by name alone, and whoever has that name one day gets in");
            findings.rule(
                (token, rule),
                what,
                format!("add {}, which nobody else ever gets", ids.join(" or ")),
            );
        }
    }
}

/// Which ref, and whether a value leaves it open.
fn git_ref(constraint: &Constraint, rule: &Rule) -> Option<Open> {
    match constraint {
        Constraint::Ref(open) => Some(*open),
        Constraint::RefName(kind) if rule.conditions.iter().any(|beside| beside.field == *kind) => {
            Some(is_pattern)
        }
        Constraint::RefName(_) => Some(|_| true),
        _ => None,
    }
}

/// Rules that every branch and tag meets, or one that whoever may push it names so.
pub(super) fn any_ref(policy: &Policy, findings: &mut Findings<'_>) {
    for (token, rule, could) in open_rules(policy, git_ref) {
        let could = could.join(", ");
        let chosen = names_to_choose(rule);
        if chosen.is_empty() {
            let what = "lets in jobs from every branch, tag and pull request";
            findings.rule((token, rule), what, format!("bind one of {could}"));
            continue;
        }
        let what = format!(
            "lets in whoever may push a branch or tag, or open a pull request: what fits {chosen} is theirs to choose"
        );
        let hint = format!(
            "bind one of {could}, without wildcards, and beside a name whether it is a branch's; \
             or protect such names on the platform, and silence the lint"
        );
        findings.rule((token, rule), what, hint);
    }
}

/// The conditions on refs that somebody can make a ref for.
fn names_to_choose(rule: &Rule) -> String {
    let is_chosen = |condition: &&Condition| {
        let is_pattern = is_pattern(&condition.want.shown());
        condition.constrains.iter().any(|constraint| match constraint {
            Constraint::Ref(_) => is_pattern,
            Constraint::RefName(_) => true,
            _ => false,
        })
    };
    let chosen = rule.conditions.iter().filter(is_chosen);
    let chosen: Vec<String> =
        chosen.map(|one| format!("`{}: {}`", shown(&one.field), shown(&one.want.shown()))).collect();
    chosen.join(" and ")
}

/// Rules that every workflow meets.
pub(super) fn any_workflow(policy: &Policy, findings: &mut Findings<'_>) {
    let workflow =
        |c: &Constraint, _: &Rule| if let Constraint::Workflow(open) = c { Some(*open) } else { None };
    for (token, rule, could) in open_rules(policy, workflow) {
        let what = "lets in jobs of every workflow that somebody adds";
        findings.rule((token, rule), what, format!("bind one of {}", could.join(", ")));
    }
}

/// Rules that let in runs which strangers can influence.
pub(super) fn risky_event(policy: &Policy, findings: &mut Findings<'_>) {
    for (token, rule) in each_rule(policy) {
        for guard in token.method.fields.iter().flat_map(|field| field.guards) {
            for condition in rule.conditions.iter().filter(|condition| condition.names(guard)) {
                let (field, value) = (guard.field, condition.want.shown());
                let hint = "split what needs certificates from what strangers can influence, \
                            or silence the lint where that is done";
                findings.rule(
                    (token, rule),
                    format!("lets in `{field}: {value}`, and then {}", guard.risk),
                    hint,
                );
            }
        }
    }
}

/// Join tokens that take a stolen proof, where the platform can bind it to the job's keys.
pub(super) fn no_key_binding(policy: &Policy, findings: &mut Findings<'_>) {
    for token in policy.tokens().filter(|token| token.method.can_bind && token.verifier.takes_unbound()) {
        let what = "takes proofs that are not bound to the job's keys, so one read out of a log can be used by whoever has it";
        findings.token(token, what, format!("set `require_key_binding: true` under `{}`", token.method.name));
    }
}

/// Join tokens that take bound proofs alone, where the platform cannot bind them.
pub(super) fn cannot_bind(policy: &Policy, findings: &mut Findings<'_>) {
    for token in policy.tokens().filter(|token| !token.method.can_bind && !token.verifier.takes_unbound()) {
        let method = token.method.name;
        let what = format!(
            "takes no proofs but those that are bound to the job's keys, and `once` cannot bind those of `{method}`: nobody can join"
        );
        let hint = format!(
            "leave `require_key_binding` out under `{method}`: a proof is used up with its first use all the same"
        );
        findings.token(token, what, hint);
    }
}
