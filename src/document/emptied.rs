//! For tests: a document with one of its values taken away, in every way and
//! at every place.

use super::{Node, Value, parse};

/// What a template leaves where its variable is empty.
const EMPTY: [&str; 4] = ["", " ''", " []", " {}"];

/// A document with an empty value in the place of one.
#[derive(Debug)]
pub(crate) struct Emptied {
    /// Which value, by keys and indices.
    pub(crate) path: String,
    /// The text.
    pub(crate) text: String,
    /// The line of the empty value.
    pub(crate) line: usize,
}

impl Emptied {
    /// Whether one of these mistakes, `…:LINE:COLUMN: …`, is about the empty value.
    #[track_caller]
    pub(crate) fn is_refused_by(&self, mistakes: &[String]) {
        let place = format!("{}:", self.line);
        let at = |told: &String| {
            told.starts_with(&place) || told.split_once(':').is_some_and(|(_, rest)| rest.starts_with(&place))
        };
        assert!(mistakes.iter().any(at), "{}: {mistakes:?}\n{}", self.path, self.text);
    }
}

/// Every value and every item of each document of `text`, one at a time.
pub(crate) fn emptied(text: &str) -> Vec<Emptied> {
    let documents = parse(text).unwrap();
    let mut all = Vec::new();
    let mut write = |target: usize, empty: &str| {
        let mut writer = Writer { text: String::new(), next: 0, target, empty, found: None };
        for (index, node) in documents.iter().enumerate() {
            writer.text.push_str("---");
            writer.node(node, 0, &format!("[{index}]"));
            writer.text.push('\n');
        }
        all.extend(writer.found.map(|(path, line)| Emptied {
            path: format!("{path}:{empty}"),
            text: writer.text,
            line,
        }));
        writer.next
    };
    let places = write(usize::MAX, "");
    for target in 0..places {
        for empty in EMPTY {
            write(target, empty);
        }
    }
    all
}

/// Writes a document in block style, and one of its values empty.
struct Writer<'e> {
    text: String,
    next: usize,
    target: usize,
    empty: &'e str,
    found: Option<(String, usize)>,
}

impl Writer<'_> {
    fn node(&mut self, node: &Node, indent: usize, path: &str) {
        match &node.value {
            Value::Map(pairs) if !pairs.is_empty() => {
                for (key, value) in pairs {
                    let name = serde_json::to_string(&key.text).unwrap();
                    self.text.push_str(&format!("\n{:indent$}{name}:", ""));
                    self.value(value, indent, &format!("{path}.{}", key.text));
                }
            }
            Value::List(items) if !items.is_empty() => {
                for (index, item) in items.iter().enumerate() {
                    self.text.push_str(&format!("\n{:indent$}-", ""));
                    self.value(item, indent, &format!("{path}[{index}]"));
                }
            }
            Value::Map(_) => self.text.push_str(" {}"),
            Value::List(_) => self.text.push_str(" []"),
            Value::Null => {}
            Value::Bool(value) => self.text.push_str(&format!(" {value}")),
            Value::Int(value) => self.text.push_str(&format!(" {value}")),
            Value::Float(value) => self.text.push_str(&format!(" {value}")),
            Value::Text(text) => self.text.push_str(&format!(" {}", serde_json::to_string(text).unwrap())),
        }
    }

    fn value(&mut self, node: &Node, indent: usize, path: &str) {
        self.next += 1;
        if self.next - 1 != self.target {
            return self.node(node, indent + 2, path);
        }
        self.text.push_str(self.empty);
        self.found = Some((path.to_owned(), self.text.matches('\n').count() + 1));
    }
}
