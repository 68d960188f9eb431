//! What is wrong with text that is no YAML, in words for whoever wrote it. The
//! parser's own are about the parser; only what it recognised is taken from them.

use serde_saphyr::Error as Broken;
use serde_saphyr::budget::BudgetBreach;

use super::mistake::{Mistake, Place};
use crate::text::shown_exactly;

/// The deepest nesting.
pub(super) const MAX_DEPTH: usize = 32;
/// The most anchors, `&NAME`.
pub(super) const MAX_ANCHORS: usize = 64;

/// A part of the parser's words, what is wrong then, and what to do.
const SCANNED: &[(&str, &str, &str)] = &[
    (
        "number too large",
        "number too large: 9223372036854775807 is the most",
        "put it in quotes if it is text",
    ),
    ("tab", "a tab stands where only spaces may", "indent with spaces"),
    ("unclosed quote", "the quote that begins here does not end", "end it with the same kind of quote"),
    ("-quoted scalar", "something follows the end of a quoted value", "put quotes around the whole value"),
    ("multiline quoted", "the quote that began before does not end", "end it with the same kind of quote"),
    ("bracket", "the bracket here has no counterpart", "each `[` ends with `]`, each `{` with `}`"),
    (
        "',' or",
        "a `[` or `{` that began before does not end",
        "each `[` ends with `]`, each `{` with `}`, and `,` stands between",
    ),
    (
        "placement of ':'",
        "a `[` or `{` that began before does not end",
        "each `[` ends with `]`, each `{` with `}`",
    ),
    (
        "flow construct",
        "a `[` or `{` that began before does not end",
        "each `[` ends with `]`, each `{` with `}`",
    ),
    (
        "mapping values are not allowed",
        "a `:` stands where no key can be",
        "put a value with `: ` in it in quotes, and see that the line before has its own `:`",
    ),
    (
        "simple key",
        "this line is neither a key with its `:` nor a part of what was before",
        "write `KEY: VALUE`, with a space behind the `:`",
    ),
    (
        "sequence entries are not allowed",
        "a list's `- ` stands where no list can be",
        "begin the list on a line of its own below its key",
    ),
    (
        "expected key",
        "the indentation of this line is that of no key before it",
        "let the keys of a mapping begin in one column, and the `- ` of a list",
    ),
    (
        "'-' indicator",
        "the indentation of this line is that of no key before it",
        "let the keys of a mapping begin in one column, and the `- ` of a list",
    ),
    (
        "invalid indentation",
        "the indentation of this line is that of no key before it",
        "let the keys of a mapping begin in one column, and the `- ` of a list",
    ),
    ("anchor or alias", "a value that begins with `&` or `*` is no text in YAML", "put it in quotes"),
    ("tag", "a value that begins with `!` is no text in YAML", "put it in quotes"),
    (
        "block scalar",
        "a value that begins with `|` or `>` has its text on the lines below",
        "begin it on a line of its own, or put it in quotes",
    ),
    (
        "escape",
        "the text in double quotes holds a `\\` that means nothing",
        "use single quotes, or write `\\\\`",
    ),
    (
        "document start",
        "something follows the end of the document",
        "begin another document with a line `---`",
    ),
    ("end marker", "something follows the end of the document", "begin another document with a line `---`"),
    ("directive", "a line that begins with `%` is for YAML itself", "leave it out"),
    ("YAML m", "a line that begins with `%` is for YAML itself", "leave it out"),
    ("BOM", "a byte order mark stands inside the text", "save the file as UTF-8 without it"),
];

/// The mistake of an error of the parser at `place`.
pub(super) fn broken(error: &Broken, place: Place) -> Mistake {
    let (message, hint) = words(error);
    Mistake::new(place, message).hint(hint)
}

fn words(error: &Broken) -> (String, String) {
    let say = |message: &str, hint: &str| (message.to_owned(), hint.to_owned());
    match error {
        Broken::AliasError { error, .. } => words(error),
        Broken::DuplicateMappingKey { key: Some(key), .. } => {
            (format!("the key `{}` is there twice", shown_exactly(key)), "leave one of them out".to_owned())
        }
        Broken::DuplicateMappingKey { .. } => say("a key is there twice", "leave one of them out"),
        Broken::UnknownAnchor { .. } => say(
            "a `*NAME` stands for nothing that an `&NAME` before it names",
            "put a value that begins with `*` in quotes",
        ),
        Broken::NonFiniteFloat { .. } => {
            say("this is no number that could be meant", "put it in quotes if it is text")
        }
        Broken::NullIntoString { .. } | Broken::Unexpected { .. } => say(
            "a key is not text",
            "put a value that begins with `{` or `[` in quotes, such as one that a template was to fill",
        ),
        Broken::InvalidBinaryBase64 { .. }
        | Broken::BinaryNotUtf8 { .. }
        | Broken::TaggedScalarCannotDeserializeIntoString { .. }
        | Broken::InvalidScalar { .. } => {
            say("the value is not of the type that its `!!` names", "leave the `!!` out")
        }
        Broken::MergeValueNotMapOrSeqOfMaps { .. } => {
            say("`<<` takes a mapping", "name one that an `&NAME` names")
        }
        Broken::Budget { breach: BudgetBreach::Depth { .. }, .. } => {
            (format!("nested deeper than {MAX_DEPTH} levels"), "take a level away".to_owned())
        }
        Broken::Budget { breach: BudgetBreach::Anchors { .. }, .. } => {
            (format!("more than {MAX_ANCHORS} anchors (`&NAME`)"), "write out what they name".to_owned())
        }
        Broken::Budget { .. }
        | Broken::AliasReplayLimitExceeded { .. }
        | Broken::AliasExpansionLimitExceeded { .. }
        | Broken::AliasReplayStackDepthExceeded { .. } => say(
            "too much for one file, with all that `*NAME` stands for",
            "write out what they name, or make several files",
        ),
        other => scanned(&other.without_snippet().to_string()),
    }
}

fn scanned(said: &str) -> (String, String) {
    if let Some((_, rest)) = said.split_once("unexpected character: `") {
        let character = rest.chars().next().map(String::from).unwrap_or_default();
        return (
            format!("a value cannot begin with `{}`, nor hold what nobody sees", shown_exactly(&character)),
            "put it in quotes, without control characters".to_owned(),
        );
    }
    let known = SCANNED.iter().find(|(part, ..)| said.contains(part));
    let (_, message, hint) = known.unwrap_or(&(
        "",
        "this is not YAML any more",
        "look for quotes, brackets and indentation in this line and the one before it",
    ));
    ((*message).to_owned(), (*hint).to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::parse;

    #[test]
    fn every_mistake_is_told_in_words_of_yaml() {
        let anchors: String = (0..70).map(|n| format!("a{n}: &a{n} x\n")).collect();
        let deep = format!("a: {}1{}\n", "[".repeat(60), "]".repeat(60));
        for (text, says) in [
            ("a: 1\n\tb: x\n", "a tab stands"),
            ("a:\n\t- x\n", "a tab stands"),
            ("a: 1\na: 2\n", "2:1: the key `a` is there twice"),
            ("a: 1\na\u{301}: 2\na\u{301}: 3\n", "3:1: the key `a\\u{301}` is there twice"),
            ("a: \"x\nb: 1\n", "1:4: the quote that begins here does not end"),
            ("a: 'x\nb: 1\n", "1:4: the quote that begins here does not end"),
            ("a: 'x' y\n", "something follows the end of a quoted value"),
            ("a: [1, 2\nb: 3\n", "does not end"),
            ("a: [1, 2\n", "1:4: the bracket here has no counterpart"),
            ("a: {b: 1\nc: 2\n", "does not end"),
            ("a: [1}\n", "the bracket here has no counterpart"),
            ("a: *x\n", "1:4: a `*NAME` stands for nothing"),
            ("a: *\n", "begins with `&` or `*`"),
            ("a: b: c\n", "1:5: a `:` stands where no key can be"),
            ("kind bot\nversion: v1\n", "2:8: a `:` stands where no key can be"),
            ("a: 1\nb\nc: 1\n", "neither a key"),
            ("a:\n  b: 1\n c: 2\n", "3:2: the indentation of this line"),
            ("a:\n  - x\n - y\n", "3:2: the indentation of this line"),
            ("a: - b\n", "1:4: a list's `- ` stands where no list can be"),
            ("a: @x\n", "1:4: a value cannot begin with `@`"),
            ("a: `x`\n", "1:4: a value cannot begin with ```"),
            ("a: %x\n", "1:4: a value cannot begin with `%`"),
            ("a: x\u{7}\n", "nor hold what nobody sees"),
            ("a: {{ x }}\n", "a key is not text"),
            ("{a: 1}: x\n", "a key is not text"),
            ("~: x\n", "a key is not text"),
            ("a: !!int x\n", "not of the type that its `!!` names"),
            ("a: !!binary '@@'\n", "not of the type that its `!!` names"),
            ("a: .nan\n", "no number that could be meant"),
            ("a: >x\n y\n", "begins with `|` or `>`"),
            ("a: \"\\q\"\n", "holds a `\\` that means nothing"),
            ("%YAML 9.9\n---\na: 1\n", "for YAML itself"),
            ("{\"a\": 1} x\n", "something follows the end of the document"),
            ("<<: 1\n", "`<<` takes a mapping"),
            (&anchors, "65:11: more than 64 anchors"),
            (&deep, "nested deeper than 32 levels"),
        ] {
            let mistake = parse(text).expect_err(text);
            let told = format!("{mistake}; {}", mistake.hint.as_deref().unwrap());
            assert!(told.contains(says), "{text:?}: {told}");
            for inside in [
                "scalar", "context", "deserial", "Options", "budget", "Policy", "while ", "flow", "::",
                "expected",
            ] {
                assert!(!told.contains(inside), "{text:?}: {told}");
            }
        }
    }
}
