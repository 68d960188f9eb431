//! Whether a join token's rules let verified claims in; if not, the explanation for the operator.

use serde_json::{Map, Value};

use crate::authority::policy::resources::{JoinToken, Origin, Policy};
use crate::denial::{Denial, Reason};
use crate::join::rules::{self, Condition, Guard, Rule, Want};
use crate::text::shown_exactly;

/// One rule of the token must match: all its conditions hold and none of its
/// guards strikes. What the denial tells says nothing of the rules.
pub(crate) fn admit(token: &JoinToken, claims: &Map<String, Value>) -> Result<(), Denial> {
    if let Some(rule) = token.verifier.denials().iter().find(|rule| holds(rule, claims)) {
        let at = token.origin.at(rule.place);
        let told = format!("`deny` of {} `{}` keeps it out, at {at}", token.noun(), token.name);
        return Err(Denial::new(Reason::NoRuleMatches, told));
    }
    if token.verifier.admits_all() {
        return Ok(());
    }
    let rules = token.verifier.rules();
    if rules.iter().any(|rule| admits(rule, claims)) {
        return Ok(());
    }
    // The nearest: the first of those that lack the fewest conditions, and of
    // these of those with the most met.
    let nearest = rules.iter().min_by_key(|rule| {
        let met = rule.conditions.iter().filter(|condition| condition.holds(claims)).count();
        (rule.conditions.len() - met, std::cmp::Reverse(met))
    });
    let Some(rule) = nearest else {
        return Err(Denial::new(
            Reason::NoRuleMatches,
            format!("{} `{}` has no rules", token.noun(), token.name),
        ));
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
    /// Which form the claim has, where that may be why it does not hold.
    pub form: Option<String>,
}

impl Policy {
    /// Each rule of the token against these claims, condition by condition,
    /// whether a job with them is believed or not; in the order of the file.
    pub fn trial(token: &JoinToken, claims: &Map<String, Value>) -> Vec<RuleTrial> {
        token.verifier.rules().iter().map(|rule| trial(token, rule, claims)).collect()
    }

    /// The same of the entries of `deny`, each of which keeps the job out where it lets it in.
    pub fn denials(token: &JoinToken, claims: &Map<String, Value>) -> Vec<RuleTrial> {
        token.verifier.denials().iter().map(|rule| trial(token, rule, claims)).collect()
    }
}

fn trial(token: &JoinToken, rule: &Rule, claims: &Map<String, Value>) -> RuleTrial {
    let conditions = rule.conditions.iter().map(|condition| Trial {
        field: shown_exactly(&condition.field),
        got: got(claims, &condition.claim),
        wanted: wanted(condition, claims),
        met: condition.holds(claims),
        form: form(token, condition, claims),
    });
    let guards = struck(rule, claims).map(|guard| {
        let got = got(claims, guard.claim);
        let wanted = format!("anything but {got}, since the rule does not name it");
        Trial { field: guard.field.to_owned(), got, wanted, met: false, form: None }
    });
    RuleTrial {
        origin: token.origin.at(rule.place),
        admits: admits(rule, claims),
        trials: conditions.chain(guards).collect(),
    }
}

fn admits(rule: &Rule, claims: &Map<String, Value>) -> bool {
    holds(rule, claims) && struck(rule, claims).next().is_none()
}

/// Whether all conditions hold. A rule without any would hold for everybody,
/// and so holds for nobody.
fn holds(rule: &Rule, claims: &Map<String, Value>) -> bool {
    !rule.conditions.is_empty() && rule.conditions.iter().all(|condition| condition.holds(claims))
}

/// The guards that strike.
fn struck<'r>(rule: &'r Rule, claims: &Map<String, Value>) -> impl Iterator<Item = &'r Guard> {
    rule.guards.iter().filter(|guard| guard.strikes(claims))
}

/// Which rule came nearest, and what it wanted: one thing a line. Whatever
/// claims hold is escaped and has no line of its own.
fn explanation(token: &JoinToken, rule: &Rule, claims: &Map<String, Value>) -> String {
    let (met, unmet): (Vec<&Condition>, Vec<&Condition>) =
        rule.conditions.iter().partition(|condition| condition.holds(claims));
    let mut told = format!(
        "no rule of {} `{}` matches; the nearest is at {}, with {} of {} conditions met",
        token.noun(),
        token.name,
        token.origin.at(rule.place),
        met.len(),
        rule.conditions.len(),
    );
    for condition in unmet {
        let (got, wanted) = (got(claims, &condition.claim), wanted(condition, claims));
        told.push_str(&format!("\n`{}`: got {got}, wanted {wanted}", shown_exactly(&condition.field)));
        told.extend(form(token, condition, claims).map(|form| format!("\n{form}")));
    }
    for Guard { field, claim, .. } in struck(rule, claims) {
        let got = got(claims, claim);
        told.push_str(&format!("\n`{field}`: got {got}, which a rule lets in only if it names it"));
    }
    told
}

/// Which form the job's subject has, where a condition wants another.
fn form(token: &JoinToken, condition: &Condition, claims: &Map<String, Value>) -> Option<String> {
    let unmet = condition.claim == "sub" && !condition.holds(claims);
    let subject = claims.get("sub").and_then(Value::as_str).filter(|_| unmet)?;
    (token.method.subject)(subject)
}

fn got(claims: &Map<String, Value>, claim: &str) -> String {
    match rules::claim(claims, claim) {
        None => "nothing".to_owned(),
        Some(Value::String(text)) => format!("`{}`", shown_exactly(text)),
        // With its type visible: a number is not the text of that number.
        Some(other) => format!("the {} `{}`", kind(other), shown_exactly(&other.to_string())),
    }
}

/// What is wanted, with its type visible like what was got.
fn wanted(condition: &Condition, claims: &Map<String, Value>) -> String {
    match &condition.want {
        Want::Value(value) => format!("the {} `{value}`", kind(value)),
        other if condition.stretches_over(claims) => {
            let wanted = shown_exactly(&other.shown());
            format!("`{wanted}`, whose wildcards each stay within one part of the claim")
        }
        other => match condition.unless {
            Some([one, two]) => {
                format!("`{}`, and `{one}` other than `{two}`", shown_exactly(&other.shown()))
            }
            None => format!("`{}`", shown_exactly(&other.shown())),
        },
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
            Box::pin(async { Err(Denial::new(Reason::TokenUnknown, "not asked").into()) })
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
                map: None,
            };
            let denial = admit(&token, &Map::new()).unwrap_err();
            assert_eq!(
                (denial.reason, denial.detail.as_str(), denial.told),
                (Reason::NoRuleMatches, explanation, None)
            );
        }
    }
}
