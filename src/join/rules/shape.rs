//! What the texts of a claim look like, as far as a platform says. The methods
//! know; the lints ask whether a rule's pattern can match any of them.

/// What the texts of a claim look like.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Forms, of which each text has one: literal text, and names of sets in braces for one or more of a set's
    /// characters, or for so many (`{hex:40}`).
    pub forms: &'static [&'static str],
    /// What has such a form and is never sent, as globs.
    pub never: &'static [&'static str],
    /// What would match, in words that follow "write".
    pub such_as: &'static str,
}

/// A number, which the claim has as text.
pub const NUMBER: Shape = Shape::new(&["{digit}"], "the number, such as `\"74\"`");
/// A UUID.
pub const UUID: Shape =
    Shape::new(&["{uuid}"], "the UUID in small letters, such as `0184990a-477b-4fa8-9968-496074483c77`");
/// A commit, whole.
pub const COMMIT: Shape =
    Shape::new(&["{hex:40}", "{hex:64}"], "the whole hash of the commit, in small letters");
/// One word of a platform's own, in small letters.
pub const KIND: Shape = Shape::new(&["{small}"], "the platform's own word, in small letters, such as `push`");
/// A name of letters, digits, `_` and `-`.
pub const NAME: Shape = Shape::new(&["{word}"], "the name alone, such as `octo-org`");
/// A branch, tag or pull request by its full name.
pub const FULL_REF: Shape = Shape {
    forms: &["refs/heads/{ref}", "refs/tags/{ref}", "refs/pull/{digit}/{word}"],
    never: UNGIT,
    such_as: "the full ref: `refs/heads/main`, `refs/tags/v1` or `refs/pull/7/merge`",
};
/// A branch or tag where the platform gives its short name.
pub const SHORT_REF: Shape = Shape {
    forms: &["{ref}"],
    never: &["refs/heads/*", "refs/tags/*", "*/.*", ".*", "*//*", "*/", "*..*", "*.lock"],
    such_as: "the short name, such as `main`",
};
/// What Git takes in no ref (git-check-ref-format(1)), beside the characters.
const UNGIT: &[&str] = &["*/.*", "*//*", "*/", "*..*", "*.lock"];
/// A mistake that shows in no set of characters: the address of a repository, and not its name.
pub const URLS: &[&str] = &["*://*", "*@*:*", "*.git"];

impl Shape {
    /// Texts of these forms, with nothing that is never sent.
    pub const fn new(forms: &'static [&'static str], such_as: &'static str) -> Self {
        Self { forms, never: &[], such_as }
    }

    /// What has such a form and is never sent.
    pub const fn never(mut self, never: &'static [&'static str]) -> Self {
        self.never = never;
        self
    }

    /// Whether a pattern can match some text of this shape.
    pub fn admits(&self, pattern: &str) -> bool {
        // A pattern's own wildcards are characters like others here: what stands around them is in every match.
        let never = self.never.iter().any(|never| super::glob(never, pattern));
        !never && self.forms.iter().any(|form| meets(pattern, &steps_of(form)))
    }

    /// Whether none of its forms has another letter than ASCII's.
    pub fn is_ascii(&self) -> bool {
        self.forms.iter().all(|form| !["{any}", "{part}", "{ref}"].iter().any(|set| form.contains(set)))
    }
}

/// Whether some text matches both patterns.
pub fn overlap(one: &str, other: &str) -> bool {
    let steps: Vec<Step> = other.chars().flat_map(step_of_glob).collect();
    meets(one, &steps)
}

/// Some characters.
type Set = fn(char) -> bool;

/// What forms call sets of characters.
const SETS: &[(&str, Set)] = &[
    ("any", |_| true),
    ("part", |c| c != '/'),
    ("name", |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')),
    // With the ids that GitHub puts behind names.
    ("named", |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@')),
    ("path", |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/')),
    ("word", |c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')),
    ("small", |c| c.is_ascii_lowercase() || matches!(c, '_' | '-')),
    ("capital", |c| c.is_ascii_uppercase() || c == '_'),
    ("host", |c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-' | ':')),
    ("digit", |c| c.is_ascii_digit()),
    ("hex", |c| c.is_ascii_digit() || ('a'..='f').contains(&c)),
    // What Git takes in a ref (git-check-ref-format(1)).
    ("ref", |c| !c.is_control() && !" ~^:?*[\\".contains(c)),
];

/// A step of a form or a pattern.
#[derive(Clone, Copy)]
enum Step {
    One(Chars),
    Many(Chars),
}

#[derive(Clone, Copy)]
enum Chars {
    This(char),
    Of(Set),
}

impl Chars {
    /// Whether it has what a pattern's character stands for.
    fn has(self, of_pattern: char) -> bool {
        of_pattern == '?'
            || match self {
                Self::This(own) => own == of_pattern,
                Self::Of(set) => set(of_pattern),
            }
    }
}

fn step_of_glob(c: char) -> Option<Step> {
    let any = Chars::Of(|_| true);
    Some(match c {
        '*' => Step::Many(any),
        '?' => Step::One(any),
        c => Step::One(Chars::This(c)),
    })
}

fn steps_of(form: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let literal = |text: &str| text.chars().map(|c| Step::One(Chars::This(c))).collect::<Vec<_>>();
    let mut rest = form;
    while let Some((before, (name, behind))) =
        rest.split_once('{').and_then(|(before, inner)| Some((before, inner.split_once('}')?)))
    {
        steps.extend(literal(before));
        rest = behind;
        match name.split_once(':').map_or((name, None), |(name, count)| (name, count.parse().ok())) {
            ("uuid", _) => steps.extend(steps_of("{hex:8}-{hex:4}-{hex:4}-{hex:4}-{hex:12}")),
            // As Bitbucket writes them.
            ("braced", _) => {
                steps.extend(literal("{").into_iter().chain(steps_of("{uuid}")).chain(literal("}")));
            }
            (name, count) => {
                let set = SETS.iter().find(|(known, _)| *known == name).map_or(NONE, |(_, set)| *set);
                steps.extend((0..count.unwrap_or(1)).map(|_| Step::One(Chars::Of(set))));
                steps.extend(count.is_none().then_some(Step::Many(Chars::Of(set))));
            }
        }
    }
    steps.extend(literal(rest));
    steps
}

/// The set of no character; a test sees that no form means it.
const NONE: Set = |_| false;

/// Whether some text takes these steps and matches the pattern: which places
/// among the steps can be reached behind each character of the pattern.
fn meets(pattern: &str, steps: &[Step]) -> bool {
    let mut at = vec![false; steps.len()];
    at.insert(0, true);
    let mut at = pass(&at, steps, |_, _| false);
    for c in pattern.chars() {
        if c == '*' {
            let mut reached = false;
            at.iter_mut().for_each(|here| {
                reached |= *here;
                *here = reached;
            });
        } else {
            let here = std::mem::take(&mut at);
            at = pass(&vec![false; here.len()], steps, |index, chars| {
                here.get(index).is_some_and(|here| *here) && chars.has(c)
            });
        }
    }
    at.last().is_some_and(|last| *last)
}

/// The places that are reached where the step at each index takes a character or not, beside those of `at`.
fn pass(at: &[bool], steps: &[Step], takes: impl Fn(usize, Chars) -> bool) -> Vec<bool> {
    let mut from_before = false;
    let steps = steps.iter().map(Some).chain([None]);
    let places = at.iter().zip(steps).enumerate();
    places
        .map(|(index, (at, step))| {
            let (stays, goes) = match step {
                Some(Step::One(chars)) => (false, takes(index, *chars)),
                Some(Step::Many(chars)) => (takes(index, *chars), false),
                None => (false, false),
            };
            let here = *at || from_before || stays;
            // None of many is enough to go on.
            from_before = goes || here && matches!(step, Some(Step::Many(_)));
            here
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::join::METHODS;

    #[test]
    fn forms_and_patterns() {
        for (form, pattern, meets_it) in [
            ("refs/heads/{ref}", "refs/heads/main", true),
            ("refs/heads/{ref}", "refs/heads/release/*", true),
            ("refs/heads/{ref}", "refs/*", true),
            ("refs/heads/{ref}", "*", true),
            ("refs/heads/{ref}", "*main", true),
            ("refs/heads/{ref}", "????????????", true),
            ("refs/heads/{ref}", "???", false),
            ("refs/heads/{ref}", "refs/heads/", false),
            ("refs/heads/{ref}", "refs/heads/a b", false),
            ("refs/heads/{ref}", "refs/tags/*", false),
            ("refs/heads/{ref}", "main", false),
            ("{word}/{name}", "octo-org/app", true),
            ("{word}/{name}", "octo-org/*", true),
            ("{word}/{name}", "octo-org/app/x", false),
            ("{word}/{name}", "octo-org", false),
            ("{word}/{name}", "осto-org/app", false),
            ("{hex:4}", "ab12", true),
            ("{hex:4}", "ab1", false),
            ("{hex:4}", "ab123", false),
            ("{hex:4}", "a*", true),
            ("{braced}", "{1d397906-81bf-459e-9a8d-eae79c0bc5f3}", true),
            ("{braced}", "1d397906-81bf-459e-9a8d-eae79c0bc5f3", false),
            ("x", "", false),
        ] {
            assert_eq!(meets(pattern, &steps_of(form)), meets_it, "{form} {pattern}");
        }
    }

    #[test]
    fn no_form_names_a_set_that_is_not() {
        let shapes = METHODS.iter().flat_map(|method| method.fields).filter_map(|field| field.shape);
        for form in shapes.flat_map(|shape| shape.forms) {
            assert!(meets("*", &steps_of(form)), "{form}");
            for (index, step) in steps_of(form).iter().enumerate() {
                let (Step::One(chars) | Step::Many(chars)) = step;
                assert!((' '..='~').any(|c| c != '?' && chars.has(c)), "{form}, step {index}");
            }
        }
    }

    proptest! {
        #[test]
        fn patterns_overlap_where_a_text_matches_both(one in "[ab*?]{0,6}", other in "[ab*?]{0,6}", text in "[ab]{0,8}") {
            use super::super::glob;
            prop_assert_eq!(overlap(&one, &other), overlap(&other, &one));
            if glob(&one, &text) && glob(&other, &text) {
                prop_assert!(overlap(&one, &other));
            }
            // Exact where one of them is a text.
            prop_assert_eq!(overlap(&one, &text), glob(&one, &text));
        }
    }
}
