//! YAML read strictly: every value knows its place, every key must be known.
//!
//! Policies, `authority.yaml` and `--config` files all come through here: the
//! text becomes [`Node`]s, and a [`Mapping`] is taken apart key by key; what
//! is left over at [`Mapping::finish`] is a mistake with a suggestion.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use crate::error::Error;
use crate::text::shown;

/// The largest file that is read, in bytes: a policy of 10,000 tokens is about 4 MB.
pub const MAX_BYTES: usize = 64 << 20;

/// Where something stands in its file; lines and columns count from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Place {
    /// The line.
    pub line: u64,
    /// The column, in characters.
    pub column: u64,
}

/// A mistake in a document: where, what, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where.
    pub place: Place,
    /// What is wrong.
    pub message: String,
    /// What to do about it, where that is known.
    pub hint: Option<String>,
}

impl Mistake {
    /// A mistake at `place`.
    pub fn new(place: Place, message: impl Into<String>) -> Self {
        Self { place, message: message.into(), hint: None }
    }

    /// With what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// As an error of `file`.
    #[must_use]
    pub fn in_file(&self, file: &str) -> Error {
        let error = Error::usage(format!("{file}:{self}"));
        match &self.hint {
            Some(hint) => error.hint(hint.clone()),
            None => error,
        }
    }
}

/// `LINE:COLUMN: message`.
impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.place.line, self.place.column, self.message)
    }
}

/// A value and its place.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it stands.
    pub place: Place,
    /// What it is.
    pub value: Value,
}

/// What YAML can say.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing.
    Null,
    /// `true`, `false` and, as YAML 1.1 has it, `yes`, `no`, `on`, `off` where a boolean is wanted.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order of the file.
    Map(Vec<(Key, Node)>),
}

/// A mapping's key and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// Where it stands.
    pub place: Place,
    /// Its text.
    pub text: String,
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

/// Reads every document of `text`; empty ones are left out.
///
/// # Errors
/// The first mistake: not YAML, a duplicate key, too deep, too large.
pub fn parse(text: &str) -> Result<Vec<Node>, Mistake> {
    if text.len() > MAX_BYTES {
        return Err(Mistake::new(Place::default(), format!("larger than {MAX_BYTES} bytes")));
    }
    let options = serde_saphyr::options! {
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_documents: 100_000,
            max_events: 20_000_000,
            max_nodes: 10_000_000,
            max_depth: 32,
            max_anchors: 64,
            max_aliases: 1_000,
            max_total_scalar_bytes: MAX_BYTES,
        },
    };
    let documents: Vec<Spanned<Value>> =
        serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
            let place = error.location().map_or_else(Place::default, place);
            let message = error.without_snippet().to_string();
            // The place is told once, in front.
            let message = message.split(" at line ").next().unwrap_or_default().replace('\n', " ");
            Mistake::new(place, message)
        })?;
    Ok(documents.into_iter().map(node).filter(|node| node.value != Value::Null).collect())
}

fn place(location: serde_saphyr::Location) -> Place {
    Place { line: location.line(), column: location.column() }
}

fn node(spanned: Spanned<Value>) -> Node {
    Node { place: place(spanned.referenced), value: spanned.value }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyValue;
        impl<'de> Visitor<'de> for AnyValue {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a YAML value")
            }
            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }
            fn visit_none<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }
            fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Value, D::Error> {
                Value::deserialize(inner)
            }
            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(Value::Bool(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(Value::Int(value))
            }
            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
                i64::try_from(value).map(Value::Int).map_err(|_| E::custom("number too large"))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(Value::Float(value))
            }
            fn visit_str<E>(self, value: &str) -> Result<Value, E> {
                Ok(Value::Text(value.to_owned()))
            }
            fn visit_string<E>(self, value: String) -> Result<Value, E> {
                Ok(Value::Text(value))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = seq.next_element::<Spanned<Value>>()? {
                    list.push(node(item));
                }
                Ok(Value::List(list))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(key) = map.next_key::<Spanned<String>>()? {
                    let value = node(map.next_value::<Spanned<Value>>()?);
                    pairs.push((Key { place: place(key.referenced), text: key.value }, value));
                }
                Ok(Value::Map(pairs))
            }
        }
        deserializer.deserialize_any(AnyValue)
    }
}

impl Node {
    /// What kind of thing it is, for a message.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Int(_) | Value::Float(_) => "a number",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    fn wrong(&self, what: &str, wanted: &str) -> Mistake {
        Mistake::new(self.place, format!("`{what}` must be {wanted}, not {}", self.kind()))
    }

    /// Text; `what` names it in a mistake.
    ///
    /// # Errors
    /// Where it is anything else. A number or boolean gets the hint to quote it.
    pub fn text(&self, what: &str) -> Result<&str, Mistake> {
        match &self.value {
            Value::Text(text) => Ok(text),
            Value::Int(_) | Value::Float(_) | Value::Bool(_) => {
                Err(self.wrong(what, "text").hint(format!("put the value of `{what}` in quotes")))
            }
            _ => Err(self.wrong(what, "text")),
        }
    }

    /// A boolean; `yes`, `no`, `on` and `off` are taken as Teleport's files use them.
    ///
    /// # Errors
    /// Where it is anything else.
    pub fn boolean(&self, what: &str) -> Result<bool, Mistake> {
        match &self.value {
            Value::Bool(value) => Ok(*value),
            Value::Text(text) if matches!(text.as_str(), "yes" | "on") => Ok(true),
            Value::Text(text) if matches!(text.as_str(), "no" | "off") => Ok(false),
            _ => Err(self.wrong(what, "true or false")),
        }
    }

    /// A duration in whole seconds, above zero: `90s`, `30m`, `1h30m`, `12h`.
    ///
    /// # Errors
    /// Where it is anything else.
    pub fn duration(&self, what: &str) -> Result<u64, Mistake> {
        parse_duration(self.text(what)?).map_err(|why| Mistake::new(self.place, format!("`{what}`: {why}")))
    }

    /// A list; nothing is an empty one.
    ///
    /// # Errors
    /// Where it is anything else.
    pub fn list(&self, what: &str) -> Result<&[Node], Mistake> {
        match &self.value {
            Value::List(list) => Ok(list),
            Value::Null => Ok(&[]),
            _ => Err(self.wrong(what, "a list")),
        }
    }

    /// A list of texts.
    ///
    /// # Errors
    /// Where it, or an item, is anything else.
    pub fn texts(&self, what: &str) -> Result<Vec<String>, Mistake> {
        self.list(what)?.iter().map(|item| item.text(what).map(str::to_owned)).collect()
    }

    /// A mapping, to be taken apart; nothing is an empty one.
    ///
    /// # Errors
    /// Where it is anything else.
    pub fn mapping(&self, what: &str) -> Result<Mapping<'_>, Mistake> {
        let entries = match &self.value {
            Value::Map(pairs) => pairs.iter().map(|pair| (pair, false)).collect(),
            Value::Null => Vec::new(),
            _ => {
                let message = format!("{what} must be a mapping, not {}", self.kind());
                return Err(Mistake::new(self.place, message));
            }
        };
        Ok(Mapping { place: self.place, what: what.to_owned(), entries, known: Vec::new() })
    }
}

/// A duration in whole seconds, above zero.
///
/// # Errors
/// Says what is wrong, for a person.
pub fn parse_duration(text: &str) -> Result<u64, String> {
    let wanted = "a duration such as 90s, 30m or 1h30m";
    match humantime::parse_duration(text) {
        Ok(duration) if duration.as_secs() > 0 && duration.subsec_nanos() == 0 => Ok(duration.as_secs()),
        Ok(duration) if duration.is_zero() => Err("must be longer than zero".to_owned()),
        Ok(_) => Err(format!("`{text}` is not in whole seconds")),
        Err(_) => Err(format!("`{}` is not {wanted}", shown(text))),
    }
}

/// A mapping that is taken apart key by key, so that what nobody asked for is noticed.
#[derive(Debug)]
pub struct Mapping<'a> {
    /// Where it stands.
    pub place: Place,
    what: String,
    entries: Vec<(&'a (Key, Node), bool)>,
    known: Vec<&'static str>,
}

impl<'a> Mapping<'a> {
    /// The value of `key`, if it is there. An explicit nothing is not, and a mistake at the end.
    pub fn take(&mut self, key: &'static str) -> Option<&'a Node> {
        self.known.push(key);
        let (pair, taken) = self.entries.iter_mut().find(|((name, _), _)| name.text == key)?;
        *taken = true;
        Some(&pair.1).filter(|node| node.value != Value::Null)
    }

    /// The value of `key`.
    ///
    /// # Errors
    /// Where it is missing.
    pub fn need(&mut self, key: &'static str) -> Result<&'a Node, Mistake> {
        let mistake = Mistake::new(self.place, format!("{} lacks `{key}`", self.what));
        self.take(key).ok_or(mistake)
    }

    /// The text of `key`, if it is there.
    ///
    /// # Errors
    /// Where it is not text.
    pub fn text(&mut self, key: &'static str) -> Result<Option<&'a str>, Mistake> {
        self.take(key).map(|node| node.text(key)).transpose()
    }

    /// The texts of `key`; none if it is absent.
    ///
    /// # Errors
    /// Where it is not a list of texts.
    pub fn texts(&mut self, key: &'static str) -> Result<Vec<String>, Mistake> {
        self.take(key).map_or_else(|| Ok(Vec::new()), |node| node.texts(key))
    }

    /// The boolean of `key`; false if it is absent.
    ///
    /// # Errors
    /// Where it is not a boolean.
    pub fn boolean(&mut self, key: &'static str) -> Result<bool, Mistake> {
        self.take(key).map_or(Ok(false), |node| node.boolean(key))
    }

    /// The duration of `key` in seconds, if it is there.
    ///
    /// # Errors
    /// Where it is not a duration.
    pub fn duration(&mut self, key: &'static str) -> Result<Option<u64>, Mistake> {
        self.take(key).map(|node| node.duration(key)).transpose()
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

    /// Nothing may be left, and nothing may be without a value.
    ///
    /// # Errors
    /// The first key that nobody took, with the nearest known one, or that has no value.
    pub fn finish(self) -> Result<(), Mistake> {
        if let Some(((key, _), _)) = self.entries.iter().find(|(_, taken)| !taken) {
            return Err(unknown(key, &self.what, &self.known));
        }
        // A template's empty variable must not take a restriction away.
        match self.entries.iter().find(|((_, node), _)| node.value == Value::Null) {
            None => Ok(()),
            Some(((key, _), _)) => {
                let mistake = Mistake::new(key.place, format!("`{}` has no value", shown(&key.text)));
                Err(mistake.hint("give it one, or leave the key out"))
            }
        }
    }
}

/// The mistake of a key that `what` does not have.
#[must_use]
pub fn unknown(key: &Key, what: &str, known: &[&str]) -> Mistake {
    let mistake = Mistake::new(key.place, format!("{what} has no `{}`", shown(&key.text)));
    match nearest(&key.text, known) {
        Some(near) => mistake.hint(format!("did you mean `{near}`?")),
        None => mistake.hint(format!("it may have: {}", known.join(", "))),
    }
}

/// The candidate that is most like `text`, if any is.
#[must_use]
pub fn nearest<'c>(text: &str, candidates: &[&'c str]) -> Option<&'c str> {
    let scored = candidates.iter().map(|candidate| (strsim::jaro_winkler(text, candidate), *candidate));
    scored.filter(|(score, _)| *score > 0.8).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, near)| near)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(mistake.hint.as_deref(), Some("did you mean `roles`?"));
    }

    #[test]
    fn a_key_without_a_value_is_a_mistake() {
        let nodes = parse("host:\nallow: []\n").unwrap();
        let mut mapping = nodes[0].mapping("x").unwrap();
        assert!(mapping.take("host").is_none() && mapping.take("allow").is_some());
        assert_eq!(mapping.finish().unwrap_err().to_string(), "1:1: `host` has no value");
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
