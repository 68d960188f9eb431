//! What a text of one claim says of others: a subject holds a repository, an
//! event has refs of one kind. The methods know; the lints ask which
//! conditions of a rule no job meets together.

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

/// What a text of the form `KEY:VALUE:KEY:VALUE…` says, whose values hold no `:`, as far as its keys are fields (by
/// `field`). In a pattern a wildcard may stand for several of them: what is in front of the first and behind the last
/// is sure.
pub fn of_pairs(text: &str, field: impl Fn(&str) -> Option<&'static str>) -> Vec<Saying> {
    let parts: Vec<&str> = text.split(':').collect();
    let mut said = Vec::new();
    for pair in parts.chunks(2) {
        let [key, value] = pair else { break };
        let Some(field) = field(key) else { break };
        let open = opened(value);
        said.push(Saying::new(field, &[open.as_deref().unwrap_or(value)]));
        if open.is_some() {
            break;
        }
    }
    let behind =
        parts.iter().rposition(|part| part.contains(WILDCARDS)).and_then(|last| parts.get(last + 1..));
    for pair in behind.unwrap_or_default().rchunks(2) {
        let [key, value] = pair else { break };
        let Some(field) = field(key) else { break };
        said.push(Saying::new(field, &[value]));
    }
    said
}

/// What stands for other characters, separators among them.
pub const WILDCARDS: [char; 2] = ['*', '?'];

/// A part of a pattern that ends with its first wildcard, if it has one: what that stands for may go on behind the part.
pub fn opened(part: &str) -> Option<String> {
    part.find(WILDCARDS).and_then(|at| part.get(..at)).map(|sure| format!("{sure}*"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_say_what_is_sure() {
        let field = |key: &str| ["a", "b", "c"].into_iter().find(|known| *known == key);
        for (text, said) in [
            ("a:1:b:2:c:3", &[("a", "1"), ("b", "2"), ("c", "3")][..]),
            ("a:1:x:2:c:3", &[("a", "1")]),
            ("a:1:b", &[("a", "1")]),
            ("a:1*2:b:2:c:3", &[("a", "1*"), ("c", "3"), ("b", "2")]),
            ("a:1?2:b:2", &[("a", "1*"), ("b", "2")]),
            ("a:*", &[("a", "*")]),
            ("*:b:2:c:3", &[("c", "3"), ("b", "2")]),
            ("a:1:*:c:3:x", &[("a", "1")]),
            ("a:1:*2:c:3", &[("a", "1"), ("c", "3")]),
            ("x", &[]),
            ("", &[]),
        ] {
            let found = of_pairs(text, field);
            let wanted: Vec<Saying> =
                said.iter().map(|(field, value)| Saying::new(field, &[value])).collect();
            assert_eq!(found, wanted, "{text}");
        }
    }
}
