//! Whether a join token's rules let verified claims in; if not, the explanation for the operator.

use serde_json::{Map, Value};

use crate::authority::policy::resources::{JoinToken, Origin};
use crate::denial::{Denial, Reason};
use crate::join::rules::{self, Condition, Guard, Rule, Want};
use crate::text::shown;

/// One rule of the token must match: all its conditions hold and none of its
/// guards strikes. What the denial tells says nothing of the rules.
pub(crate) fn admit(token: &JoinToken, claims: &Map<String, Value>) -> Result<(), Denial> {
    if token.verifier.admits_all() {
        return Ok(());
    }
    let rules = token.verifier.rules();
    if rules.iter().any(|rule| holds(rule, claims) && !guarded(rule, claims)) {
        return Ok(());
    }
    // The nearest: the first of those that lack the fewest conditions, and of
    // these of those with the most met.
    let nearest = rules.iter().min_by_key(|rule| {
        let met = rule.conditions.iter().filter(|condition| condition.holds(claims)).count();
        (rule.conditions.len() - met, std::cmp::Reverse(met))
    });
    let Some(rule) = nearest else {
        return Err(Denial::new(Reason::NoRuleMatches, format!("join token `{}` has no rules", token.name)));
    };
    // A rule that holds but for its guards lacks no condition, so it is the nearest.
    let reason = if holds(rule, claims) { Reason::RiskyEvent } else { Reason::NoRuleMatches };
    Err(Denial::new(reason, explanation(token, rule, claims)))
}

/// One rule against a job's claims.
#[derive(Clone, Debug)]
pub struct RuleTrial {
    /// Where the rule stands.
    pub origin: Origin,
    /// Whether it lets the job in.
    pub admits: bool,
    /// Its conditions, then its guards that strike.
    pub trials: Vec<Trial>,
}

/// One condition against a job's claims.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The field.
    pub field: String,
    /// The claim, with its type visible where it is not text; fit to be shown.
    pub got: String,
    /// What the rule wants; fit to be shown.
    pub wanted: String,
    /// Whether it holds.
    pub met: bool,
}

/// Every rule against the claims, in the order of the file.
pub(crate) fn trials(token: &JoinToken, claims: &Map<String, Value>) -> Vec<RuleTrial> {
    let one = |rule: &Rule| RuleTrial {
        origin: token.origin.at(rule.place),
        admits: holds(rule, claims) && !guarded(rule, claims),
        trials: rule
            .conditions
            .iter()
            .map(|condition| Trial {
                field: shown(&condition.field),
                got: got(claims, &condition.claim),
                wanted: wanted(&condition.want),
                met: condition.holds(claims),
            })
            .chain(rule.guards.iter().filter(|guard| guard.strikes(claims)).map(|guard| Trial {
                field: guard.field.to_owned(),
                got: got(claims, guard.claim),
                wanted: format!("anything but {}, since the rule does not name it", got(claims, guard.claim)),
                met: false,
            }))
            .collect(),
    };
    token.verifier.rules().iter().map(one).collect()
}

/// Whether all conditions hold. A rule without any would hold for everybody,
/// and so holds for nobody.
fn holds(rule: &Rule, claims: &Map<String, Value>) -> bool {
    !rule.conditions.is_empty() && rule.conditions.iter().all(|condition| condition.holds(claims))
}

fn guarded(rule: &Rule, claims: &Map<String, Value>) -> bool {
    rule.guards.iter().any(|guard| guard.strikes(claims))
}

/// Which rule came nearest, and what it wanted.
fn explanation(token: &JoinToken, rule: &Rule, claims: &Map<String, Value>) -> String {
    let unmet: Vec<&Condition> =
        rule.conditions.iter().filter(|condition| !condition.holds(claims)).collect();
    let met = rule.conditions.len() - unmet.len();
    let mut parts = vec![format!(
        "no rule of join token `{}` matches; the nearest is at {}, with {met} of {} conditions met",
        token.name,
        token.origin.at(rule.place),
        rule.conditions.len(),
    )];
    parts.extend(unmet.iter().map(|condition| {
        let (got, wanted) = (got(claims, &condition.claim), wanted(&condition.want));
        format!("`{}`: got {got}, wanted {wanted}", shown(&condition.field))
    }));
    let strike = |guard: &&Guard| guard.strikes(claims);
    parts.extend(rule.guards.iter().filter(strike).map(|guard| {
        let (field, got) = (guard.field, got(claims, guard.claim));
        format!("`{field}`: got {got}, which a rule lets in only if it names it")
    }));
    // One thing a line; whatever claims hold is escaped and has none.
    parts.join("\n")
}

fn got(claims: &Map<String, Value>, claim: &str) -> String {
    match rules::claim(claims, claim) {
        None => "nothing".to_owned(),
        Some(Value::String(text)) => format!("`{}`", shown(text)),
        // With its type visible: a number is not the text of that number.
        Some(other) => format!("the {} `{}`", kind(other), shown(&other.to_string())),
    }
}

/// What is wanted, with its type visible like what was got.
fn wanted(want: &Want) -> String {
    match want {
        Want::Value(value) => format!("the {} `{value}`", kind(value)),
        other => format!("`{}`", shown(&other.shown())),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "value",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "text",
        Value::Array(_) => "list",
        Value::Object(_) => "mapping",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::BoxFuture;

    use crate::document::Place;
    use crate::join;
    use crate::join::verify::{Failure, Identity, Verifier, VerifyContext};
    use crate::wire::Proof;

    #[derive(Debug)]
    struct Rules(Vec<Rule>);

    impl Verifier for Rules {
        fn verify<'a>(
            &'a self,
            _: &'a Proof,
            _: &'a VerifyContext<'a>,
        ) -> BoxFuture<'a, Result<Identity, Failure>> {
            Box::pin(async { Err(Failure::Unavailable("not asked".to_owned())) })
        }

        fn rules(&self) -> &[Rule] {
            &self.0
        }

        fn check_claims(&self, _: &Map<String, Value>) -> Result<(), Denial> {
            Ok(())
        }
    }

    /// No method's `configure` gives these; whatever gives them lets nobody in.
    #[test]
    fn no_rules_and_rules_without_conditions_let_nobody_in() {
        let empty = || Rule { place: Place::default(), conditions: Vec::new(), guards: Vec::new() };
        for (rules, explanation) in [
            (Vec::new(), "join token `t` has no rules"),
            (
                vec![empty(), empty()],
                "no rule of join token `t` matches; the nearest is at p.yaml:0:0, with 0 of 0 conditions met",
            ),
        ] {
            let token = JoinToken {
                name: "t".to_owned(),
                origin: Origin { file: "p.yaml".into(), place: Place::default() },
                bot: "deployer".to_owned(),
                method: join::METHODS[0],
                verifier: Box::new(Rules(rules)),
                max_uses: 1,
            };
            let denial = admit(&token, &Map::new()).unwrap_err();
            assert_eq!(
                (denial.reason, denial.detail.as_str(), denial.told),
                (Reason::NoRuleMatches, explanation, None)
            );
        }
    }
}
