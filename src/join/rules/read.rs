//! Reading the rules of a join token.

use super::claims;
use super::rule::{Condition, Field, Guard, Match, Rule, Want};
use crate::document::{self, Mapping, Mistake, Node};

/// Reads the `allow` list of a join token: at least one entry, each with at
/// least one condition.
///
/// # Errors
/// An unknown field, a value of the wrong type, an empty rule.
pub fn read(list: &Node, fields: &'static [Field], guards: &[Guard]) -> Result<Vec<Rule>, Mistake> {
    list.list("allow")?.iter().map(|entry| read_rule(entry, fields, guards)).collect()
}

fn read_rule(entry: &Node, fields: &'static [Field], guards: &[Guard]) -> Result<Rule, Mistake> {
    let mut mapping: Mapping<'_> = entry.mapping_or_empty("a rule")?;
    let mut conditions = Vec::new();
    let known: Vec<&str> = fields.iter().map(|field| field.name).collect();
    for (key, node) in mapping.rest() {
        let field = fields
            .iter()
            .find(|field| field.names(&key.text))
            .ok_or_else(|| document::unknown(key, "a rule", &known))?;
        if field.matches == Match::Claims {
            conditions.extend(claims::read(field, node)?);
            continue;
        }
        let want = read_want(field, node)?;
        let claim = if field.matches == Match::Property { &key.text } else { field.claim };
        let (field, claim, constrains) = (key.text.clone(), claim.to_owned(), field.constrains);
        conditions.push(Condition { field, claim, want, constrains });
    }
    if conditions.is_empty() {
        return Err(Mistake::new(entry.place, "a rule without conditions would let everybody in"));
    }
    let unnamed = |guard: &&Guard| conditions.iter().all(|condition| condition.field != guard.field);
    let guards = guards.iter().filter(unnamed).copied().collect();
    Ok(Rule { place: entry.place, conditions, guards })
}

fn read_want(field: &Field, node: &Node) -> Result<Want, Mistake> {
    let text = || node.text(field.name).map(str::to_owned);
    Ok(match field.matches {
        // Claims have names of their own, so `read_rule` takes them apart.
        Match::Glob | Match::Claims => Want::Glob(text()?),
        Match::Member => Want::Member(text()?),
        Match::Property => Want::Property(text()?),
        Match::Boolean => Want::Boolean(match node.text(field.name) {
            // GitHub's own spelling of these claims is text.
            Ok("true") => true,
            Ok("false") => false,
            _ => node.boolean(field.name)?,
        }),
        Match::Exact => Want::Exact(literal(field, node, text()?)?),
        Match::Within(form) => Want::Glob(form.replace("{}", &literal(field, node, text()?)?)),
    })
}

fn literal(field: &Field, node: &Node, text: String) -> Result<String, Mistake> {
    if text.contains(['*', '?']) {
        return Err(Mistake::new(node.place, format!("`{}` takes no wildcards", field.name))
            .hint("write one rule for each value"));
    }
    Ok(text)
}

/// Holds every rule to a condition that says whose jobs it is about.
///
/// # Errors
/// The first rule without one, in these words.
pub fn anchor(
    rules: &[Rule],
    anchors: impl Fn(&Condition) -> bool,
    message: &str,
    hint: &str,
) -> Result<(), Mistake> {
    match rules.iter().find(|rule| !rule.conditions.iter().any(&anchors)) {
        Some(rule) => Err(Mistake::new(rule.place, message).hint(hint)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_claim_is_compared_whole() {
        static FIELDS: &[Field] = &[Field::new("project", Match::Within("p://*/{}/*")).claim("sub")];
        let rules = |text: &str| read(&crate::document::parse(text).unwrap()[0], FIELDS, &[]);
        let rules_of_app = rules("[{project: app}]").unwrap();
        for (sub, fits) in
            [("p://o/app/x", true), ("p://o/app2/x", false), ("p://app/o/x", false), ("app", false)]
        {
            let claims = serde_json::json!({"sub": sub});
            assert_eq!(rules_of_app[0].conditions[0].holds(claims.as_object().unwrap()), fits, "{sub}");
        }
        assert_eq!(rules("[{project: 'a*'}]").unwrap_err().message, "`project` takes no wildcards");
    }
}
