//! What was found, for people and for programs.

use serde_json::{Map, Value};

use crate::text::{json, shown, shown_long};

/// One thing that was found, in the order in which it is shown.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) what: &'static str,
    pub(super) fields: Vec<(&'static str, Value)>,
}

impl Item {
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, fields: Vec::new() }
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.fields.push((name, value.into()));
        self
    }
}

/// A time, and how far it is from now.
pub(super) fn when(unix: i64, now: i64) -> String {
    let time = crate::clock::rfc3339(unix);
    let away = |seconds: i64| {
        let seconds = u64::try_from(seconds).unwrap_or(0);
        humantime::format_duration(std::time::Duration::from_secs(seconds)).to_string()
    };
    match unix.saturating_sub(now) {
        0 => format!("{time} (now)"),
        ahead if ahead > 0 => format!("{time} (in {})", away(ahead)),
        behind => format!("{time} ({} ago)", away(behind.saturating_neg())),
    }
}

pub(super) fn as_json(items: &[Item]) -> String {
    let object = |item: &Item| {
        let mut object = Map::from_iter([("what".to_owned(), Value::from(item.what))]);
        object.extend(item.fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        Value::Object(object)
    };
    let value = match items {
        [item] => object(item),
        _ => items.iter().map(object).collect(),
    };
    json(&format!("{value:#}\n"))
}

pub(super) fn in_words(items: &[Item]) -> String {
    let mut text = String::new();
    for item in items {
        text.push_str(&format!("{}\n", item.what));
        for (name, value) in &item.fields {
            lines(&mut text, &name.replace('_', " "), value, 2);
        }
    }
    text
}

/// `name: value`; what is inside a mapping stands below it. Everything here may be foreign text.
fn lines(text: &mut String, name: &str, value: &Value, indent: usize) {
    let name = shown(name);
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            text.push_str(&format!("{:indent$}{name}:\n", ""));
            for (name, value) in fields {
                lines(text, name, value, indent + 2);
            }
        }
        _ => {
            let line = format!("{:indent$}{name}: {}", "", plain(value));
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }
}

fn plain(value: &Value) -> String {
    match value {
        // A key id names the run at its end.
        Value::String(text) => shown_long(text),
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Null => "none".to_owned(),
        Value::Object(fields) if fields.is_empty() => "none".to_owned(),
        other => shown(&other.to_string()),
    }
}
