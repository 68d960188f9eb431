//! Reading the rules of a join token.

use super::claims;
use super::glob::is_pattern;
use super::grammar::Pattern;
use super::guard::Guard;
use super::rule::{Condition, Field, Match, Rule, Want};
use crate::document::{self, Key, Mistake, Mistakes, Node};

/// Reads the `allow` list of a join token: at least one entry, each with at
/// least one condition.
pub fn read(list: &Node, fields: &'static [Field]) -> Result<Vec<Rule>, Mistakes> {
    read_as(list, "allow", fields)
}

/// The same of a list at another key.
pub fn read_as(list: &Node, key: &str, fields: &'static [Field]) -> Result<Vec<Rule>, Mistakes> {
    let mut mistakes = Mistakes::default();
    let entries = list.list(key)?.iter();
    let rules = entries.filter_map(|entry| mistakes.keep(read_rule(entry, key, fields))).collect();
    mistakes.or(rules)
}

fn read_rule(entry: &Node, key: &str, fields: &'static [Field]) -> Result<Rule, Mistakes> {
    let mut mapping = entry.mapping_or_empty("a rule")?;
    let mut conditions = Vec::new();
    for (key, node) in mapping.rest() {
        let read = read_conditions(key, node, fields);
        conditions.extend(mapping.mistakes.keep(read).unwrap_or_default());
    }
    mapping.finish()?;
    if conditions.is_empty() {
        let would = if key == "deny" { "keep everybody out" } else { "let everybody in" };
        return Err(Mistake::new(entry.place, format!("a rule without conditions would {would}")).into());
    }
    let named: Vec<String> = conditions.iter().map(|condition| condition.field.clone()).collect();
    for condition in &mut conditions {
        condition.unless = condition.unless.filter(|[first, _]| !named.iter().any(|name| name == first));
    }
    // A pattern lets in what fits it by chance, so it names a guard's values only where it fits no others.
    let settles = |condition: &Condition, guard: &Guard| {
        condition.names(guard) || condition.field == guard.field && !is_pattern(&condition.want.shown())
    };
    let unnamed = |guard: &Guard| !conditions.iter().any(|condition| settles(condition, guard));
    let guards = fields.iter().flat_map(|field| field.guards).copied().filter(unnamed).collect();
    Ok(Rule { place: entry.place, conditions, guards })
}

fn read_conditions(key: &Key, node: &Node, fields: &'static [Field]) -> Result<Vec<Condition>, Mistake> {
    let known = || fields.iter().map(|field| field.name).collect::<Vec<_>>();
    let field = fields.iter().find(|field| field.names(&key.text));
    let field = field.ok_or_else(|| document::unknown(key, "a rule", &known()))?;
    match field.matches {
        Match::Claims => return claims::read(field, node, "", false),
        Match::ClaimsIn { within, wide } => return claims::read(field, node, within, wide),
        _ => {}
    }
    let want = read_want(field, node)?;
    let claim = if field.matches == Match::Property { &key.text } else { field.claim };
    let unless = field.unless.and_then(|(same, means)| means(&want.shown()).then_some(same));
    let (field, claim, constrains) = (key.text.clone(), claim.to_owned(), field.constrains);
    Ok(vec![Condition { field, claim, want, constrains, unless }])
}

fn read_want(field: &Field, node: &Node) -> Result<Want, Mistake> {
    let text = || node.text(field.name).map(str::to_owned);
    Ok(match field.matches {
        // Claims have names of their own, so `read_rule` takes them apart.
        Match::Glob | Match::Claims | Match::ClaimsIn { .. } => Want::Glob(text()?),
        Match::Parts(grammar) => Want::Parts(Pattern::of(field.name, node, grammar)?),
        Match::Member => Want::Member(text()?),
        Match::Property => Want::Property(text()?),
        Match::Boolean => Want::Boolean(match node.text(field.name) {
            // GitHub's own spelling of these claims is text.
            Ok("true") => true,
            Ok("false") => false,
            _ => node.boolean(field.name)?,
        }),
        Match::Exact => Want::Exact(literal(field, node)?.to_owned()),
        Match::Within(form) => Want::Glob(form.replace("{}", literal(field, node)?)),
    })
}

fn literal<'n>(field: &Field, node: &'n Node) -> Result<&'n str, Mistake> {
    let text = node.text(field.name)?;
    if text.contains(['*', '?']) {
        return Err(Mistake::new(node.place, format!("`{}` takes no wildcards", field.name))
            .hint("write one rule for each value"));
    }
    Ok(text)
}

/// Holds every rule to a condition that says whose jobs it is about; a mistake in these words.
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
        let rules = |text: &str| read(&crate::document::parse(text).unwrap()[0], FIELDS);
        let rules_of_app = rules("[{project: app}]").unwrap();
        for (sub, fits) in
            [("p://o/app/x", true), ("p://o/app2/x", false), ("p://app/o/x", false), ("app", false)]
        {
            let claims = serde_json::json!({"sub": sub});
            assert_eq!(rules_of_app[0].conditions[0].holds(claims.as_object().unwrap()), fits, "{sub}");
        }
        let mistakes = rules("[{project: 'a*'}, {projekt: x}]").unwrap_err().to_string();
        assert_eq!(mistakes, "1:12: `project` takes no wildcards\n1:20: a rule has no `projekt`");
    }
}
