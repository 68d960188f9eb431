//! What a text of one claim says of others: a subject holds a repository, an
//! event has refs of one kind. The methods know; the lints ask which
//! conditions of a rule no job meets together.

use super::glob::{is_pattern, literal_prefix};
use super::grammar::Grammar;

/// What is said of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saying {
    /// The field, by its name in the policy.
    pub field: &'static str,
    /// Patterns of which its claim matches one; none where a job has no such claim.
    pub one_of: Vec<String>,
}

/// What a field's text, or a pattern in its place, says of other fields; nothing where it leaves that open.
pub type Says = fn(&str) -> Vec<Saying>;

impl Saying {
    /// The claim matches one of these.
    pub fn new(field: &'static str, one_of: &[&str]) -> Self {
        Self { field, one_of: one_of.iter().map(|text| (*text).to_owned()).collect() }
    }
}

/// What a text of that grammar says, or a pattern over it, whose wildcards stay within its parts: of each of these
/// fields, by the name of the part that is the field's.
pub fn of_parts(grammar: &'static Grammar, text: &str, fields: &[(&str, &'static str)]) -> Vec<Saying> {
    let parts = grammar.parts(text);
    let of = |(part, field): &(&str, &'static str)| {
        let (_, said) = parts.iter().find(|(name, _)| name == part)?;
        Some(Saying::new(field, &[said]))
    };
    fields.iter().filter_map(of).collect()
}

/// A part of a pattern that ends with its first wildcard, if it has one: what that stands for may go on behind the part.
pub fn opened(part: &str) -> Option<String> {
    is_pattern(part).then(|| format!("{}*", literal_prefix(part)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_say_what_is_sure() {
        static GRAMMAR: Grammar = Grammar::Forms(&["a:{one}:b:{two*}:c:{three*}"]);
        let fields = [("one", "a"), ("two", "b"), ("three", "c")];
        for (text, said) in [
            ("a:1:b:2:c:3", &[("a", "1"), ("b", "2"), ("c", "3")][..]),
            ("a:1:b:*:c:3", &[("a", "1"), ("b", "*"), ("c", "3")]),
            ("a:1?2:b:2*", &[("a", "1?2"), ("b", "2*")]),
            ("a:1:*", &[("a", "1")]),
            // In two ways.
            ("a:1:b:2:c:3:c:4", &[]),
            ("*:b:2:c:3", &[]),
            ("x", &[]),
        ] {
            let found = of_parts(&GRAMMAR, text, &fields);
            let wanted: Vec<Saying> =
                said.iter().map(|(field, value)| Saying::new(field, &[value])).collect();
            assert_eq!(found, wanted, "{text}");
        }
    }
}
