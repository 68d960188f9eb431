//! Placeholders in fixtures: `{{issuer}}`, `{{now+300}}`, `{{fresh}}`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{fixture, fresh, now};

/// What stands for the placeholders of one token or policy. `{{now}}`,
/// `{{now+N}}` and `{{now-N}}` are seconds since 1970 (a number, where nothing
/// else stands in the text), `{{fresh}}` is a name that was never used before.
#[derive(Clone, Default)]
pub struct Variables(BTreeMap<String, Value>);

impl Variables {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// With this one; a value that is not text can only stand alone.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    fn value(&self, name: &str) -> Value {
        if name == "fresh" {
            return fresh().into();
        }
        if let Some(offset) = name.strip_prefix("now") {
            return (now() + if offset.is_empty() { 0 } else { offset.parse::<i64>().unwrap() }).into();
        }
        self.0.get(name).unwrap_or_else(|| panic!("unknown placeholder {{{{{name}}}}}")).clone()
    }

    /// Text with its placeholders filled in.
    pub fn text(&self, template: &str) -> String {
        let mut text = String::new();
        let mut rest = template;
        while let Some((before, after)) = rest.split_once("{{") {
            let (name, after) = after.split_once("}}").expect("an end to the placeholder");
            text.push_str(before);
            if name.starts_with("internal.") || name.starts_with("external.") {
                // Traits in a policy: not ours to fill in.
                text.push_str(&format!("{{{{{name}}}}}"));
            } else {
                match self.value(name) {
                    Value::String(value) => text.push_str(&value),
                    other => text.push_str(&other.to_string()),
                }
            }
            rest = after;
        }
        text + rest
    }

    /// JSON with the placeholders in all its texts filled in.
    pub fn json(&self, template: &Value) -> Value {
        match template {
            Value::String(text) => {
                let alone = text.strip_prefix("{{").and_then(|text| text.strip_suffix("}}"));
                match alone.filter(|name| !name.contains("{{")) {
                    Some(name) => self.value(name),
                    None => self.text(text).into(),
                }
            }
            Value::Array(items) => items.iter().map(|item| self.json(item)).collect(),
            Value::Object(members) => self.object(members).into(),
            other => other.clone(),
        }
    }

    /// The same for an object's members.
    pub fn object(&self, members: &Map<String, Value>) -> Map<String, Value> {
        members.iter().map(|(name, value)| (name.clone(), self.json(value))).collect()
    }
}

/// The full, valid claims of a join method, with placeholders.
pub fn claims(method: &str) -> Map<String, Value> {
    serde_json::from_str(&fixture(&format!("join/{method}/claims.json"))).unwrap()
}
