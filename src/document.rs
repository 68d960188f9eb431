//! YAML read strictly: every value knows its place, every key must be known,
//! and no value may be empty.
//!
//! Policies, the sections of join methods, `authority.yaml` and `--config`
//! files all come through here: the text becomes [`Node`]s, and a [`Mapping`]
//! is taken apart key by key. It collects its mistakes; what nobody took is one
//! of them at [`Mapping::finish`].
//!
//! A key whose value is nothing, `''`, `[]` or `{}` is never as if it were not
//! there: the empty variable of a template would take a restriction away.

mod broken;
#[cfg(test)]
pub(crate) mod emptied;
mod mistake;
mod yaml;

pub use mistake::{Mistake, Mistakes, Place};
pub use yaml::{Key, MAX_BYTES, Node, Value, parse};

use crate::elsewhere;
use crate::text::{did_you_mean, shown_exactly};

impl Node {
    /// What kind of thing it is, for a message.
    fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Int(_) | Value::Float(_) => "a number",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    /// A mistake where it is nothing or empty, and otherwise that it is not what is `wanted`.
    fn wrong(&self, what: &str, wanted: &str) -> Mistake {
        let message = match &self.value {
            Value::Null => format!("{what} has no value"),
            _ if self.is_empty() => format!("{what} is empty"),
            _ => return Mistake::new(self.place, format!("{what} must be {wanted}, not {}", self.kind())),
        };
        Mistake::new(self.place, message).hint("give it a value, or leave it out")
    }

    fn is_empty(&self) -> bool {
        match &self.value {
            Value::Null => true,
            Value::Text(text) => text.is_empty(),
            Value::List(list) => list.is_empty(),
            Value::Map(pairs) => pairs.is_empty(),
            _ => false,
        }
    }

    /// Text, and not empty; `what` names it in a mistake. A number or boolean gets the hint to quote it.
    pub fn text(&self, what: &str) -> Result<&str, Mistake> {
        match &self.value {
            Value::Text(text) if !text.is_empty() => Ok(text),
            Value::Int(_) | Value::Float(_) | Value::Bool(_) => Err(self
                .wrong(&format!("`{what}`"), "text")
                .hint(format!("put the value of `{what}` in quotes"))),
            _ => Err(self.wrong(&format!("`{what}`"), "text")),
        }
    }

    /// A boolean; `yes`, `no`, `on` and `off` are taken as Teleport's files use them.
    pub fn boolean(&self, what: &str) -> Result<bool, Mistake> {
        match &self.value {
            Value::Bool(value) => Ok(*value),
            Value::Text(text) if matches!(text.as_str(), "yes" | "on") => Ok(true),
            Value::Text(text) if matches!(text.as_str(), "no" | "off") => Ok(false),
            _ => Err(self.wrong(&format!("`{what}`"), "true or false")),
        }
    }

    /// A duration in whole seconds, above zero: `90s`, `30m`, `1h30m`, `12h`.
    pub fn duration(&self, what: &str) -> Result<u64, Mistake> {
        parse_duration(self.text(what)?).map_err(|why| Mistake::new(self.place, format!("`{what}`: {why}")))
    }

    /// A list, and not empty.
    pub fn list(&self, what: &str) -> Result<&[Node], Mistake> {
        match &self.value {
            Value::List(list) if !list.is_empty() => Ok(list),
            _ => Err(self.wrong(&format!("`{what}`"), "a list")),
        }
    }

    /// A list of texts, none of them empty.
    pub fn texts(&self, what: &str) -> Result<Vec<String>, Mistake> {
        self.list(what)?.iter().map(|item| item.text(what).map(str::to_owned)).collect()
    }

    /// A mapping, and not empty, to be taken apart; `what` names it in mistakes as it is.
    pub fn mapping(&self, what: &str) -> Result<Mapping<'_>, Mistake> {
        match &self.value {
            Value::Map(pairs) if !pairs.is_empty() => Ok(Mapping::of(pairs, self.place, what)),
            _ => Err(self.wrong(what, "a mapping")),
        }
    }

    /// The same, for the few that may have nothing in them.
    pub fn mapping_or_empty(&self, what: &str) -> Result<Mapping<'_>, Mistake> {
        match &self.value {
            Value::Map(pairs) if pairs.is_empty() => Ok(Mapping::of(pairs, self.place, what)),
            _ => self.mapping(what),
        }
    }
}

/// A duration in whole seconds, above zero; or what is wrong, for a person.
pub fn parse_duration(text: &str) -> Result<u64, String> {
    let wanted = "a duration such as 90s, 30m or 1h30m";
    match humantime::parse_duration(text) {
        Ok(duration) if duration.as_secs() > 0 && duration.subsec_nanos() == 0 => Ok(duration.as_secs()),
        Ok(duration) if duration.is_zero() => Err("must be longer than zero".to_owned()),
        Ok(_) => Err(format!("`{text}` is not in whole seconds")),
        Err(_) => Err(format!("`{}` is not {wanted}", shown_exactly(text))),
    }
}

/// Text as a value in YAML, in quotes where it could be taken for something else.
pub fn written(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '.' | '_' | '-' | '/');
    let is_word = ["true", "false", "null"].iter().any(|word| text.eq_ignore_ascii_case(word));
    // A number begins otherwise, `yes` and `off` are shorter.
    let is_text = text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.len() > 3 && !is_word;
    if is_text && text.chars().all(is_plain) && !text.ends_with(':') {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "''"))
    }
}

/// The one document of `text`: none or several are a mistake.
pub fn parse_one(text: &str) -> Result<Node, Mistake> {
    let mut nodes = parse(text)?;
    match (nodes.pop(), nodes.is_empty()) {
        (Some(node), true) => Ok(node),
        _ => Err(Mistake::new(Place { line: 1, column: 1 }, "a configuration is one YAML document")),
    }
}

/// A mapping that is taken apart key by key, and what is wrong with it so far.
#[derive(Debug)]
pub struct Mapping<'a> {
    /// Where it stands.
    pub place: Place,
    /// The mistakes so far.
    pub mistakes: Mistakes,
    what: String,
    entries: Vec<(&'a (Key, Node), bool)>,
    known: Vec<&'static str>,
}

impl<'a> Mapping<'a> {
    fn of(pairs: &'a [(Key, Node)], place: Place, what: &str) -> Self {
        let entries = pairs.iter().map(|pair| (pair, false)).collect();
        Self { place, mistakes: Mistakes::default(), what: what.to_owned(), entries, known: Vec::new() }
    }

    /// One that has nothing in it.
    pub fn empty(place: Place, what: &str) -> Self {
        Self::of(&[], place, what)
    }

    /// The value of `key`, if it is there, even where that is nothing.
    pub fn take(&mut self, key: &'static str) -> Option<&'a Node> {
        self.known.push(key);
        let (pair, taken) = self.entries.iter_mut().find(|((name, _), _)| name.text == key)?;
        *taken = true;
        Some(&pair.1)
    }

    /// The value of `key`, which must be there.
    pub fn need(&mut self, key: &'static str) -> Result<&'a Node, Mistake> {
        let mistake = Mistake::new(self.place, format!("{} lacks `{key}`", self.what));
        self.take(key).ok_or(mistake)
    }

    /// The text of `key`, if it is there.
    pub fn text(&mut self, key: &'static str) -> Result<Option<&'a str>, Mistake> {
        self.take(key).map(|node| node.text(key)).transpose()
    }

    /// The boolean of `key`; false if it is absent.
    pub fn boolean(&mut self, key: &'static str) -> Result<bool, Mistake> {
        self.take(key).map_or(Ok(false), |node| node.boolean(key))
    }

    /// The value of `key` as `read` has it, if it is there and as it should be.
    pub fn read<T, E: Into<Mistakes>>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&'a Node, &'static str) -> Result<T, E>,
    ) -> Option<T> {
        let node = self.take(key)?;
        self.mistakes.keep(read(node, key))
    }

    /// As [`Mapping::read`]; a mistake where it is missing.
    pub fn require<T, E: Into<Mistakes>>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&'a Node, &'static str) -> Result<T, E>,
    ) -> Option<T> {
        let node = self.need(key);
        let node = self.mistakes.keep(node)?;
        self.mistakes.keep(read(node, key))
    }

    /// The version, which must be `v1`: another has other keys.
    pub fn version(&mut self) -> Result<(), Mistake> {
        let node = self.need("version")?;
        match node.text("version")? {
            "v1" => Ok(()),
            _ => Err(Mistake::new(node.place, "`version` must be v1")),
        }
    }

    /// The texts of a list with their places, those that are text; none where `key` is absent.
    pub fn texts(&mut self, key: &'static str) -> Vec<(String, Place)> {
        let items = self.read(key, Node::list).unwrap_or_default().iter();
        items.filter_map(|item| Some((self.mistakes.keep(item.text(key))?.to_owned(), item.place))).collect()
    }

    /// Every key and value left, all taken: for mappings whose keys are data.
    pub fn rest(&mut self) -> Vec<(&'a Key, &'a Node)> {
        let left = self.entries.iter_mut().filter(|(_, taken)| !*taken);
        left.map(|(pair, taken)| {
            *taken = true;
            (&pair.0, &pair.1)
        })
        .collect()
    }

    /// Nothing may be left: each key that nobody took is a mistake.
    pub fn finish(mut self) -> Result<(), Mistakes> {
        for (key, _) in self.rest() {
            self.mistakes.add(unknown(key, &self.what, &self.known));
        }
        self.mistakes.or(())
    }
}

/// The mistake of a key that `what` does not have.
pub fn unknown(key: &Key, what: &str, known: &[&str]) -> Mistake {
    let hint = elsewhere::key(&key.text).map(str::to_owned).or_else(|| did_you_mean(&key.text, known));
    let hint = hint.unwrap_or_else(|| match known {
        [] => "it has no fields".to_owned(),
        known => format!("it may have: {}", known.join(", ")),
    });
    Mistake::new(key.place, format!("{what} has no `{}`", shown_exactly(&key.text))).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_as_text() {
        for text in [
            "deploy",
            "no",
            "True",
            "null",
            "7",
            "1e5",
            "0x1f",
            "a:",
            "a: b",
            "it's",
            "o/r@refs/heads/main",
            "-",
            "~",
            "#x",
        ] {
            let yaml = format!("k: {}", written(text));
            assert_eq!(
                parse(&yaml).unwrap()[0].mapping("m").unwrap().text("k").unwrap(),
                Some(text),
                "{yaml}"
            );
        }
        assert_eq!(written("refs/heads/main"), "refs/heads/main");
    }

    #[test]
    fn values_know_their_place() {
        let nodes = parse("---\na: 1\nb:\n  - x\n  - yes\n---\n---\nc: {d: 'no'}\n").unwrap();
        assert_eq!(nodes.len(), 2);
        let mut first = nodes[0].mapping("thing").unwrap();
        assert_eq!(first.take("a").unwrap().place, Place { line: 2, column: 4 });
        let list = first.take("b").unwrap().list("b").unwrap();
        assert_eq!(list[1].place, Place { line: 5, column: 5 });
        assert!(list[1].boolean("b").unwrap());
        first.finish().unwrap();
    }

    #[test]
    fn unknown_keys_get_a_suggestion() {
        let nodes = parse("rolse: []\n").unwrap();
        let mut mapping = nodes[0].mapping("the bot").unwrap();
        assert!(mapping.take("roles").is_none());
        let mistake = mapping.finish().unwrap_err();
        assert_eq!(mistake.to_string(), "1:1: the bot has no `rolse`");
        let mistake = mistake.into_iter().next().unwrap();
        assert_eq!(mistake.hint.as_deref(), Some("did you mean `roles`?"));
    }

    #[test]
    fn a_key_without_a_value_is_a_mistake() {
        let nodes = parse("host:\nallow: []\n").unwrap();
        let mut mapping = nodes[0].mapping("x").unwrap();
        assert!(mapping.boolean("host").is_err());
        mapping.read("host", Node::text);
        mapping.read("allow", Node::list);
        assert_eq!(
            mapping.finish().unwrap_err().to_string(),
            "1:1: `host` has no value\n2:8: `allow` is empty"
        );
    }

    #[test]
    fn duplicate_keys_and_broken_yaml_are_mistakes_with_a_place() {
        for text in ["a: 1\na: 2\n", "a: [1\n", "a: b: c\n", "a:\n\t- x\n"] {
            let mistake = parse(text).unwrap_err();
            assert!(mistake.place.line >= 1, "{mistake}");
            assert!(!mistake.message.is_empty() && !mistake.message.contains('\n'), "{mistake}");
        }
    }

    #[test]
    fn depth_and_aliases_are_bounded() {
        assert!(parse(&format!("{}{}", "[".repeat(200), "]".repeat(200))).is_err());
        // Each level names the one before nine times: 9^9 texts, were it not bounded.
        let mut bomb = String::from("l0: &l0 [x, x, x, x, x, x, x, x, x]\n");
        for level in 1..9 {
            let below = vec![format!("*l{}", level - 1); 9].join(", ");
            bomb.push_str(&format!("l{level}: &l{level} [{below}]\n"));
        }
        assert!(parse(&bomb).is_err());
    }

    #[test]
    fn durations_are_whole_seconds_above_zero() {
        assert_eq!(parse_duration("1h30m"), Ok(5400));
        assert_eq!(parse_duration("10s"), Ok(10));
        for bad in ["0s", "-1h", "1h-", "", "5", "1x", "200ms", "99999999999999999h"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
