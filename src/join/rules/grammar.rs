//! Claims that a platform puts together from parts, and patterns over them.
//!
//! One of the parts is a name that a job's author chooses, such as a branch,
//! and it can hold the text of those beside it: a wildcard that reached over a
//! part's end would take a branch `x@refs/heads/main` for `main`. So a pattern
//! and a claim are taken apart alike, and each part is held against its own.

use std::fmt;

use super::glob::{glob, is_pattern};
use crate::document::{Mistake, Node};
use crate::text::shown_exactly;

/// The most readings of a pattern that are looked at; a few are what there is.
const MOST_READINGS: usize = 64;

/// The longest claim that is taken apart, in bytes; what platforms write is far shorter.
const LONGEST: usize = 4096;

/// How a claim is put together. It may allow more than the platform writes:
/// what it reads in one way alone has been written so.
#[derive(Debug, PartialEq, Eq)]
pub enum Grammar {
    /// One of these forms: text with parts in braces. `{part}` holds neither `/` nor `:`,
    /// `{part/}` no `:`, `{part*}` anything, or nothing.
    Forms(&'static [&'static str]),
    /// Parts with this between them, which none of them can hold, and how many there are at least.
    Separated(char, usize),
    /// `LABEL:VALUE:LABEL:VALUE`, in any order.
    Labelled(Labels),
    /// Nobody knows what stands where.
    Unknown,
}

/// The labels of [`Grammar::Labelled`] that are not just followed by a value.
#[derive(Debug, PartialEq, Eq)]
pub struct Labels {
    /// Those that stand alone.
    pub alone: &'static [&'static str],
    /// Those whose values have parts.
    pub parted: &'static [(&'static str, &'static Grammar)],
    /// Those whose values can hold a `:`, so that nothing behind them is told from them.
    pub unescaped: &'static [&'static str],
}

/// A part of a claim or a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    name: String,
    /// The text between it and the part in front of it, as the grammar has it.
    before: String,
    text: String,
}

/// Text of a claim or a pattern that is still to be read.
#[derive(Clone, Copy)]
struct Text<'t> {
    rest: &'t str,
    /// Whether anything may follow: it is a pattern, without the `*` at its end.
    open: bool,
}

/// A rule's value for a claim that has parts. A wildcard stays within its part,
/// but `*` at the very end is all that follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    grammar: &'static Grammar,
    parts: Vec<Part>,
}

impl Pattern {
    /// The value of a field of that name.
    pub fn of(name: &str, node: &Node, grammar: &'static Grammar) -> Result<Self, Mistake> {
        Self::read(node.text(name)?, grammar).ok_or_else(|| {
            let (message, hint) = match grammar {
                Grammar::Unknown => (
                    "has a wildcard in front of other text",
                    "what stands there may be a name that others choose, such as a branch, and hold that text too: \
                     write `*` at the very end alone, and bind another claim beside it"
                        .to_owned(),
                ),
                form => (
                    "has a wildcard that could stand for several parts",
                    format!(
                        "the claim is {form}: write all of it, with wildcards within its parts, or its beginning \
                         with `*` at the very end; or bind the fields that say the same"
                    ),
                ),
            };
            Mistake::new(node.place, format!("`{}` {message}", shown_exactly(name))).hint(hint)
        })
    }

    /// Takes it apart; none where it has wildcards and is not of the claim's form.
    pub fn read(text: &str, grammar: &'static Grammar) -> Option<Self> {
        let rest = text.trim_end_matches('*');
        let open = rest.len() < text.len();
        let readings = match grammar {
            // A single one of any text; what follows another is a part that somebody chose.
            Grammar::Unknown if !rest.contains('*') => vec![Vec::new()],
            _ => grammar.readings(Text { rest, open }, MOST_READINGS),
        };
        let parts = fullest(readings);
        // One label alone is no whole claim: what is meant is text that goes on.
        let is_whole = |parts: &Vec<Part>| open || parts.iter().any(|part| part.before.starts_with(':'));
        let is_meant = |parts: &Vec<Part>| !matches!(grammar, Grammar::Labelled(_)) || is_whole(parts);
        let parts = match is_pattern(text) {
            true => parts.filter(is_meant)?,
            false => parts.unwrap_or_default(),
        };
        Some(Self { text: text.to_owned(), grammar, parts })
    }

    /// As it stands in the policy.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the claim matches. One that can be read in two ways matches no
    /// pattern, only a text that is the same.
    pub fn fits(&self, claim: &str) -> bool {
        if !is_pattern(&self.text) || *self.grammar == Grammar::Unknown {
            return glob(&self.text, claim);
        }
        if claim.len() > LONGEST {
            return false;
        }
        let read = self.grammar.readings(Text { rest: claim, open: false }, 2);
        let [read] = read.as_slice() else { return false };
        let open = self.text.ends_with('*');
        let is_last = |index| open && index + 1 == self.parts.len();
        (open || self.parts.len() == read.len())
            && self.parts.iter().enumerate().all(|(index, wanted)| {
                read.get(index).is_some_and(|part| match is_last(index) {
                    true => wanted.begins(part),
                    false => wanted.before == part.before && glob(&wanted.text, &part.text),
                })
            })
    }

    /// Why a claim that matches at first sight is none that [fits](Self::fits).
    pub fn stretches_over(&self, claim: &str) -> bool {
        !self.fits(claim) && glob(&self.text, claim)
    }
}

impl Part {
    fn new(name: &str, before: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.to_owned(), before: before.into(), text: text.into() }
    }

    /// What a pattern ends with, `*` behind that text.
    fn end(before: &str) -> Self {
        Self::new("", before, "*")
    }

    /// Whether it is the last part of an open pattern, and that part is one it can begin.
    fn begins(&self, part: &Self) -> bool {
        match self.text == "*" {
            true => part.before.starts_with(&self.before),
            false => self.before == part.before && glob(&self.text, &part.text),
        }
    }
}

impl Text<'_> {
    /// All of it, as a part's text.
    fn whole(self) -> String {
        format!("{}{}", self.rest, if self.open { "*" } else { "" })
    }
}

impl Grammar {
    /// The text of that part of a rule's value, where the value says it whole.
    pub fn says(&'static self, value: &str, part: &str) -> Option<String> {
        let said = Pattern::read(value, self)?.parts;
        said.into_iter().find(|one| one.name == part && !is_pattern(&one.text)).map(|one| one.text)
    }

    /// The parts of a rule's value that have names, with their texts or patterns; none where it is a
    /// text that can be read in two ways.
    pub fn parts(&'static self, value: &str) -> Vec<(String, String)> {
        let is_unsure = || self.readings(Text { rest: value, open: false }, 2).len() > 1;
        let read = Pattern::read(value, self).filter(|_| is_pattern(value) || !is_unsure());
        let parts = read.map(|pattern| pattern.parts).unwrap_or_default().into_iter();
        parts.filter(|part| !part.name.is_empty()).map(|part| (part.name, part.text)).collect()
    }

    /// Whether a rule's value is of its form, or a pattern over that.
    pub fn admits(&'static self, value: &str) -> bool {
        *self == Self::Unknown || Pattern::read(value, self).is_some_and(|read| !read.parts.is_empty())
    }

    /// The ways to read a text, not more than so many.
    fn readings(&self, text: Text<'_>, most: usize) -> Vec<Vec<Part>> {
        match self {
            Self::Forms(forms) => {
                let mut found = Vec::new();
                for form in *forms {
                    read_form(form, text, &mut Vec::new(), &mut |parts| {
                        if found.len() < most && !found.contains(&parts) {
                            found.push(parts);
                        }
                        found.len() < most
                    });
                }
                found
            }
            Self::Separated(separator, least) => {
                let mut before = String::new();
                let of = |text| Part::new("", std::mem::replace(&mut before, separator.to_string()), text);
                let parts: Vec<Part> = text.whole().split(*separator).map(of).collect();
                if text.open || parts.len() >= *least { vec![parts] } else { Vec::new() }
            }
            Self::Labelled(labels) => labels.read(text).into_iter().collect(),
            Self::Unknown => Vec::new(),
        }
    }
}

/// The reading of a pattern: whoever writes a separator means a part to end there.
fn fullest(readings: Vec<Vec<Part>>) -> Option<Vec<Part>> {
    let most = readings.iter().map(Vec::len).max();
    readings.into_iter().find(|parts| Some(parts.len()) == most)
}

/// Reads a form, behind what was read of it; `found` says whether to look for more.
fn read_form(
    form: &str,
    text: Text<'_>,
    parts: &mut Vec<Part>,
    found: &mut dyn FnMut(Vec<Part>) -> bool,
) -> bool {
    let (before, slot) = form.split_once('{').map_or((form, None), |(before, slot)| (before, Some(slot)));
    let Some(rest) = text.rest.strip_prefix(before) else {
        let goes_on = !text.open || !before.starts_with(text.rest);
        return goes_on || found([parts.as_slice(), &[Part::end(text.rest)]].concat());
    };
    let Some((name, behind)) = slot.and_then(|slot| slot.split_once('}')) else {
        return match (rest.is_empty(), text.open) {
            // The form ends without a part.
            (true, _) => {
                found([parts.as_slice(), &[Part::new("", before, Text { rest, ..text }.whole())]].concat())
            }
            (false, _) => true,
        };
    };
    let (name, excluded): (&str, &[char]) = match (name.strip_suffix('*'), name.strip_suffix('/')) {
        (Some(name), _) => (name, &[]),
        (_, Some(name)) => (name, &[':']),
        _ => (name, &[':', '/']),
    };
    let may_be_empty = excluded.is_empty();
    let longest = rest.find(excluded).unwrap_or(rest.len());
    let next = behind.split('{').next().unwrap_or_default();
    for end in (0..=longest).filter(|end| rest.is_char_boundary(*end)) {
        let (value, left) = rest.split_at(end);
        let ends_here = if next.is_empty() { left.is_empty() } else { left.starts_with(next) };
        let is_cut = text.open && (left.is_empty() || next.starts_with(left));
        if !(ends_here || is_cut) {
            continue;
        }
        let goes_on = if text.open && left.is_empty() {
            found([parts.as_slice(), &[Part::new(name, before, format!("{value}*"))]].concat())
        } else if value.is_empty() && !may_be_empty {
            true
        } else if behind.is_empty() {
            found([parts.as_slice(), &[Part::new(name, before, value)]].concat())
        } else {
            parts.push(Part::new(name, before, value));
            let goes_on = read_form(behind, Text { rest: left, ..text }, parts, found);
            parts.pop();
            goes_on
        };
        if !goes_on {
            return false;
        }
    }
    true
}

impl Labels {
    fn read(&self, text: Text<'_>) -> Option<Vec<Part>> {
        let mut parts: Vec<Part> = Vec::new();
        let mut words = text.rest.split(':').peekable();
        while let Some(label) = words.next() {
            let before = format!("{}{label}", if parts.is_empty() { "" } else { ":" });
            if text.open && words.peek().is_none() {
                parts.push(Part::end(&before));
            } else if label.is_empty() || is_pattern(label) {
                return None;
            } else if self.alone.contains(&label) {
                parts.push(Part::new(label, before, ""));
            } else {
                let rest = words.next()?;
                let is_last = words.peek().is_none();
                let value = Text { rest, open: text.open && is_last };
                if self.unescaped.contains(&label) && !is_last {
                    return None;
                }
                parts.extend(self.value(label, &format!("{before}:"), value)?);
            }
        }
        Some(parts)
    }

    /// A label's value, by its own grammar where it has one.
    fn value(&self, label: &str, before: &str, value: Text<'_>) -> Option<Vec<Part>> {
        let Some((_, grammar)) = self.parted.iter().find(|(parted, _)| *parted == label) else {
            return Some(vec![Part::new(label, before, value.whole())]);
        };
        let readings = grammar.readings(value, MOST_READINGS);
        // Only an open pattern has several.
        if readings.len() > 1 && !value.open {
            return None;
        }
        let mut parts = fullest(readings)?;
        if let Some(part) = parts.first_mut() {
            part.before.insert_str(0, before);
        }
        Some(parts)
    }
}

/// The form, as a hint has it.
impl fmt::Display for Grammar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forms(forms) => {
                let plain = |form: &&str| format!("`{}`", form.replace(['*'], "").replace("/}", "}"));
                f.write_str(&forms.iter().map(plain).collect::<Vec<_>>().join(" or "))
            }
            Self::Separated(separator, _) => write!(f, "parts with `{separator}` between them"),
            Self::Labelled(_) => f.write_str("`LABEL:VALUE:LABEL:VALUE`, labels without wildcards"),
            Self::Unknown => f.write_str("text of a form that is not known"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static PATH: Grammar = Grammar::Separated('/', 2);
    static FILE: Grammar = Grammar::Forms(&["{owner}/{name}/w/{file}@{ref*}"]);
    static STEPS: Grammar = Grammar::Forms(&["o:{org}:ref:{ref*}:commit:{commit}:step:{step*}", "{id}"]);
    static LABELS: Grammar = Grammar::Labelled(Labels {
        alone: &["pull_request"],
        parted: &[("repo", &PATH), ("file", &FILE)],
        unescaped: &["environment"],
    });

    #[test]
    fn each_part_is_held_against_its_own() {
        for (grammar, pattern, claim, fits) in [
            (&PATH, "o/*", "o/r", true),
            (&PATH, "o/*", "o/r/s", true),
            (&PATH, "o/*/s", "o/r/s", true),
            (&PATH, "o/*/s", "o/r/t/s", false),
            (&PATH, "*/s", "o/r/s", false),
            (&PATH, "o?r/*", "o/r/s", false),
            (&FILE, "o/r/w/*@main", "o/r/w/x@main", true),
            (&FILE, "o/r/w/*@main", "o/r/w/x@refs/y@main", false),
            (&FILE, "o/r/w/*@main", "o/r/w/x@y@main", false),
            (&FILE, "o/r/w/x@*", "o/r/w/x@y/z@main", true),
            (&FILE, "o/r/*", "o/r/w/x@main", true),
            (&FILE, "o/*", "o/r/w/x", false),
            (&FILE, "o/?/w/x@main", "o/r/w/x@main", true),
            (&STEPS, "o:x:ref:main:commit:*:step:*", "o:x:ref:main:commit:1:step:a:b", true),
            (&STEPS, "o:x:ref:main:commit:*:step:*", "o:x:ref:main:commit:1:step:", true),
            (&STEPS, "o:x:ref:main:commit:*:step:*", "o:x:ref:main:commit:1:step:y:commit:2:step:k", false),
            (&STEPS, "o:x:ref:main:*", "o:x:ref:main:commit:1:step:k", true),
            (&STEPS, "o:x:ref:main:*", "o:x:ref:main:y:commit:1:step:k", false),
            (&STEPS, "o:x:ref:ma*", "o:x:ref:main:y:commit:1:step:k", true),
            (&STEPS, "a*", "abc", true),
            (&LABELS, "repo:o/*", "repo:o/r:pull_request", true),
            (&LABELS, "repo:o/r:*", "repo:o/r:ref:main", true),
            (&LABELS, "repo:o/r:*", "repo:o/r", false),
            (&LABELS, "repo:*/r:ref:main", "repo:o/r:ref:main", true),
            (&LABELS, "repo:*/r:ref:main", "repo:o/r:environment:ref:main", false),
            (&LABELS, "repo:o/r:pull*", "repo:o/r:pull_request", true),
            (&LABELS, "repo:o/r:environment:p*", "repo:o/r:environment:prod", true),
            (&LABELS, "repo:o/r:environment:p*", "repo:o/r:environment:p:ref:main", false),
            (&LABELS, "repo:o/*:file:o/r/w/*@main", "repo:o/r:file:o/r/w/x@main", true),
            (&LABELS, "repo:o/*:file:o/r/w/*@main", "repo:o/r:file:o/r/w/x@refs/y@main", false),
            (&Grammar::Unknown, "job/*", "job/x/y", true),
            (&Grammar::Unknown, "job/?", "job/x", true),
        ] {
            let read = Pattern::read(pattern, grammar).unwrap();
            assert_eq!(read.fits(claim), fits, "{pattern} {claim}");
            // Without wildcards, a claim is compared as it is.
            assert!(Pattern::read(claim, grammar).unwrap().fits(claim), "{claim}");
        }
        assert!(!Pattern::read("o/*", &PATH).unwrap().fits(&format!("o/{}", "r".repeat(LONGEST))));
    }

    #[test]
    fn a_wildcard_over_several_parts_is_no_pattern() {
        for (grammar, pattern) in [
            (&PATH, "*r"),
            (&FILE, "o/*@main"),
            (&FILE, "*/x@main"),
            (&STEPS, "o:*:step:k"),
            (&STEPS, "*:step:k"),
            (&LABELS, "repo:*"),
            (&LABELS, "repo:o/r:*:main"),
            (&LABELS, "repo:o/*main"),
            (&LABELS, "*:ref:main"),
            (&LABELS, "repo:o/r:environment:*:ref:main"),
            (&Grammar::Unknown, "job/*/main"),
            (&Grammar::Unknown, "*main"),
        ] {
            // But for one at the very end.
            assert_eq!(Pattern::read(pattern, grammar).is_some(), pattern == "repo:*", "{pattern}");
        }
    }

    #[test]
    fn a_value_says_what_it_says_whole() {
        for (pattern, part, said) in [
            ("o/r/w/x@main", "file", Some("x")),
            ("o/r/w/x@*", "file", Some("x")),
            ("o/r/w/x*", "file", None),
            ("o/r/w/x@main", "ref", Some("main")),
            ("o/r/w/x@ma*", "ref", None),
            ("o/*", "owner", Some("o")),
            ("o*", "owner", None),
            ("*", "owner", None),
        ] {
            assert_eq!(FILE.says(pattern, part).as_deref(), said, "{pattern}");
        }
        assert_eq!(LABELS.says("repo:o/r:ref:main", "ref").as_deref(), Some("main"));
        assert_eq!(LABELS.says("repo:o/r:pull_request", "ref"), None);
    }
}
