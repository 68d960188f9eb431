//! Lints over the rules of join tokens.

use super::findings::Findings;
use crate::authority::policy::resources::{JoinToken, Policy};
use crate::join::method::Method;
use crate::join::rules::{Condition, Constraint, Open, Rule};

/// The most fields that a hint names.
const MOST_FIELDS: usize = 5;

/// One thing that fields can constrain, where they do.
type Aspect = fn(&Constraint) -> Option<Open>;

fn each_rule<'p>(policy: &'p Policy, mut look: impl FnMut(&'p JoinToken, &'p Rule)) {
    for token in policy.tokens() {
        token.verifier.rules().iter().for_each(|rule| look(token, rule));
    }
}

/// Which of a method's fields say something, in the order of its table.
fn fields_of(method: &Method, aspect: Aspect) -> Vec<String> {
    let fields =
        method.fields.iter().filter(|field| field.constrains.iter().any(|one| aspect(one).is_some()));
    fields.take(MOST_FIELDS).map(|field| format!("`{}`", field.name)).collect()
}

fn ref_of(constraint: &Constraint) -> Option<Open> {
    match constraint {
        Constraint::Ref(open) => Some(*open),
        _ => None,
    }
}

fn workflow_of(constraint: &Constraint) -> Option<Open> {
    match constraint {
        Constraint::Workflow(open) => Some(*open),
        _ => None,
    }
}

fn owner_of(constraint: &Constraint) -> Option<Open> {
    match constraint {
        Constraint::Owner(open) => Some(*open),
        _ => None,
    }
}

/// Rules of methods whose issuer others may use too, none of whose conditions
/// says whose jobs it is about. Methods that know their issuer make that a mistake.
pub(super) fn anybody(policy: &Policy, findings: &mut Findings<'_>) {
    each_rule(policy, |token, rule| {
        let closes = |condition: &Condition| {
            condition.constrains.iter().filter_map(owner_of).any(|open| !open(&condition.want.shown()))
        };
        if fields_of(token.method, owner_of).is_empty() || rule.conditions.iter().any(closes) {
            return;
        }
        let message = format!(
            "the rule of join token `{}` does not say whose jobs it lets in, and others may get tokens of its issuer",
            token.name
        );
        let hint = "bind the subject, or another claim that your jobs alone have, by text that does not begin with a wildcard";
        findings.token(token, rule.place, message, hint);
    });
}

pub(super) fn mutable_names(policy: &Policy, findings: &mut Findings<'_>) {
    each_rule(policy, |token, rule| {
        let binds = |name: &str| rule.conditions.iter().any(|condition| condition.field == name);
        let mut loose = Vec::new();
        let mut ids: Vec<&str> = Vec::new();
        for condition in &rule.conditions {
            for constraint in condition.constrains {
                if let Constraint::Name { pinned_by, pins_itself } = constraint
                    && !pinned_by.iter().any(|id| binds(id))
                    && !pins_itself(&condition.want.shown())
                {
                    loose.push(format!("`{}`", condition.field));
                    ids.extend(pinned_by.iter().filter(|id| !ids.contains(id)).copied().collect::<Vec<_>>());
                }
            }
        }
        if !loose.is_empty() {
            let message = format!(
                "the rule of join token `{}` binds {} by name alone, and whoever has that name one day gets in",
                token.name,
                loose.join(" and ")
            );
            let ids: Vec<String> = ids.iter().map(|id| format!("`{id}`")).collect();
            let hint = format!("add {}, which nobody else ever gets", ids.join(" or "));
            findings.token(token, rule.place, message, hint);
        }
    });
}

pub(super) fn any_ref(policy: &Policy, findings: &mut Findings<'_>) {
    left_open(policy, findings, ref_of, "from every branch, tag and pull request");
}

pub(super) fn any_workflow(policy: &Policy, findings: &mut Findings<'_>) {
    left_open(policy, findings, workflow_of, "of every workflow that somebody adds");
}

/// Rules none of whose conditions says a thing that the method's fields could say.
fn left_open(policy: &Policy, findings: &mut Findings<'_>, aspect: Aspect, what: &str) {
    each_rule(policy, |token, rule| {
        let closes = |condition: &Condition| {
            condition.constrains.iter().filter_map(aspect).any(|open| !open(&condition.want.shown()))
        };
        let could = fields_of(token.method, aspect);
        if could.is_empty() || rule.conditions.iter().any(closes) {
            return;
        }
        let message = format!("the rule of join token `{}` lets in jobs {what}", token.name);
        let hint = format!("bind one of {}", could.join(", "));
        findings.token(token, rule.place, message, hint);
    });
}

pub(super) fn risky_event(policy: &Policy, findings: &mut Findings<'_>) {
    each_rule(policy, |token, rule| {
        for guard in token.method.fields.iter().filter_map(|field| field.guard) {
            for condition in rule.conditions.iter().filter(|condition| guard.is_named_by(condition)) {
                let message = format!(
                    "the rule of join token `{}` lets in `{}: {}`, and then {}",
                    token.name,
                    guard.field,
                    condition.want.shown(),
                    guard.risk
                );
                let hint = "split what needs certificates from what strangers can influence, \
                            or silence the lint where that is done"
                    .to_owned();
                findings.token(token, rule.place, message, hint);
            }
        }
    });
}

pub(super) fn no_key_binding(policy: &Policy, findings: &mut Findings<'_>) {
    for token in policy.tokens().filter(|token| token.method.can_bind && token.verifier.takes_unbound()) {
        let message = format!(
            "join token `{}` takes proofs that are not bound to the job's keys, so one read out of a log can be used by whoever has it",
            token.name
        );
        let hint = format!("set `require_key_binding: true` under `{}`", token.method.name);
        findings.token(token, token.origin.place, message, hint);
    }
}

pub(super) fn cannot_bind(policy: &Policy, findings: &mut Findings<'_>) {
    for token in policy.tokens().filter(|token| !token.method.can_bind && !token.verifier.takes_unbound()) {
        let (name, method) = (&token.name, token.method.name);
        let message = format!(
            "join token `{name}` takes no proofs but those that are bound to the job's keys, and `once` cannot bind those of `{method}`: nobody can join"
        );
        let hint = format!(
            "leave `require_key_binding` out under `{method}`: a proof is used up with its first use all the same"
        );
        findings.token(token, token.origin.place, message, hint);
    }
}
