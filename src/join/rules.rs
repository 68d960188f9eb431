//! Rules over claims: conditions on named claims, all of which must hold.

use serde_json::{Map, Value};

use crate::document::{self, Mapping, Mistake, Node, Place};

mod claims;

pub use claims::claim;

/// A field that a rule of some method may have.
#[derive(Debug)]
pub struct Field {
    /// The key in the policy.
    pub name: &'static str,
    /// The claim it is compared with: a name, or a JSON pointer (see [`claim()`]).
    pub claim: &'static str,
    /// How it is compared.
    pub test: Test,
    /// What a condition on it says, for whoever judges a rule as a whole.
    pub says: &'static [Says],
}

/// What a condition on a [`Field`] says. The methods know; the lints ask.
#[derive(Clone, Copy, Debug)]
pub enum Says {
    /// Whose or which it is, by a name that somebody else can have one day.
    Name {
        /// The fields whose ids pin it; one of them is enough.
        pinned_by: &'static [&'static str],
        /// Whether that value holds such an id itself.
        pins_itself: fn(&str) -> bool,
    },
    /// Which branch or tag.
    Ref {
        /// Whether that value leaves it open after all.
        open: fn(&str) -> bool,
    },
    /// Which workflow, or a place with rules of its own about that.
    Workflow {
        /// Whether that value leaves it open after all.
        open: fn(&str) -> bool,
    },
    /// Whose job it is at all, at an issuer that others may use too.
    Whose {
        /// Whether that value leaves it open after all.
        open: fn(&str) -> bool,
    },
}

impl Field {
    /// A field of the claim of the same name.
    #[must_use]
    pub const fn new(name: &'static str, test: Test) -> Self {
        Self { name, claim: name, test, says: &[] }
    }

    /// A field whose value is a pattern, of the claim of the same name.
    #[must_use]
    pub const fn glob(name: &'static str) -> Self {
        Self::new(name, Test::Glob)
    }

    /// A field whose value is the claim's, of the claim of the same name.
    #[must_use]
    pub const fn exact(name: &'static str) -> Self {
        Self::new(name, Test::Exact)
    }

    /// The claim, where it has another name.
    #[must_use]
    pub const fn claim(mut self, claim: &'static str) -> Self {
        self.claim = claim;
        self
    }

    /// Whether that key of a rule is this field.
    #[must_use]
    pub fn names(&self, key: &str) -> bool {
        match self.name.strip_suffix('*') {
            Some(prefix) => key.len() > prefix.len() && key.starts_with(prefix),
            None => self.name == key,
        }
    }

    /// What a condition on it says.
    #[must_use]
    pub const fn says(mut self, says: &'static [Says]) -> Self {
        self.says = says;
        self
    }
}

/// Whether a pattern leaves everything open: for [`Says`].
#[must_use]
pub fn is_open(pattern: &str) -> bool {
    pattern.bytes().all(|b| matches!(b, b'*' | b'?'))
}

/// Refs that nobody means when a pattern is written: Git takes no `~` in a name.
const UNMEANT_REFS: &[&str] =
    &["refs/heads/~~~", "refs/tags/~~~", "refs/pull/~~~/merge", "refs/pull/~~~/head"];

/// Whether a pattern leaves every ref open, or every branch, tag or pull request: for [`Says`].
#[must_use]
pub fn is_open_ref(pattern: &str) -> bool {
    is_open(pattern) || UNMEANT_REFS.iter().any(|unmeant| glob(pattern, unmeant))
}

/// One run is of one ref and one workflow: for a field that names it.
pub const ONE_RUN: &[Says] = &[Says::Ref { open: is_open }, Says::Workflow { open: is_open }];

/// How a field's value is compared with the claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// The claim is text that matches a glob.
    Glob,
    /// The claim is exactly that text.
    Exact,
    /// The claim is text of this form with exactly the field's value in place of `{}`.
    Within(&'static str),
    /// The claim is that boolean, or its name as text (GitHub's `ref_protected`).
    Boolean,
    /// The claim is a list with a text in it that matches a glob.
    Member,
    /// The field's name ends in `*` and stands for every claim that begins
    /// so: a custom property, text or a list, as [`Test::Glob`] or [`Test::Member`].
    Property,
    /// The field is a mapping from names of claims to what they must be, of
    /// the claim's own type: text as [`Test::Glob`], a boolean or whole number
    /// as it is, a list of texts each as [`Test::Member`].
    Claims,
}

/// One entry of a join token's `allow`: all its conditions must hold.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Where it stands in the policy.
    pub place: Place,
    /// Its conditions, at least one.
    pub conditions: Vec<Condition>,
    /// Values of claims that need a condition of their own and have none here.
    pub guards: Vec<Guard>,
}

/// One condition of a [`Rule`].
#[derive(Clone, Debug)]
pub struct Condition {
    /// The field's name in the policy.
    pub field: String,
    /// The claim's name, or a JSON pointer to it.
    pub claim: String,
    /// What it must be.
    pub want: Want,
    /// What it says, for whoever judges the rule as a whole.
    pub says: &'static [Says],
}

/// What a claim must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// Text that matches.
    Glob(String),
    /// That text.
    Exact(String),
    /// That boolean.
    Boolean(bool),
    /// A list with a text in it that matches.
    Member(String),
    /// Text that matches, or a list with such a text in it.
    Property(String),
    /// That value: a boolean or a whole number, of that type.
    Value(Value),
}

/// A value of a claim that a rule must name to let it in, such as
/// `event_name: pull_request_target`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    /// The field that would name it.
    pub field: &'static str,
    /// The claim.
    pub claim: &'static str,
    /// The values that need naming, as globs; booleans by name.
    pub values: &'static [&'static str],
    /// What is risky about them, in words that follow "then".
    pub risk: &'static str,
}

impl Guard {
    /// Whether that condition names one of the values, and so lets it in.
    #[must_use]
    pub fn is_named_by(&self, condition: &Condition) -> bool {
        condition.field == self.field && self.has(&condition.want.shown())
    }

    /// Whether the claims have one of the values.
    #[must_use]
    pub fn strikes(&self, claims: &Map<String, Value>) -> bool {
        match claims.get(self.claim) {
            Some(Value::String(text)) => self.has(text),
            Some(Value::Bool(value)) => self.has(if *value { "true" } else { "false" }),
            _ => false,
        }
    }

    fn has(&self, value: &str) -> bool {
        self.values.iter().any(|pattern| glob(pattern, value))
    }
}

impl Condition {
    /// Whether the claims meet it. A claim that is missing or of another type does not.
    #[must_use]
    pub fn holds(&self, claims: &Map<String, Value>) -> bool {
        match (&self.want, claim(claims, &self.claim)) {
            (Want::Glob(pattern), Some(Value::String(text))) => glob(pattern, text),
            (Want::Exact(wanted), Some(Value::String(text))) => wanted == text,
            (Want::Boolean(wanted), Some(Value::Bool(value))) => wanted == value,
            (Want::Boolean(wanted), Some(Value::String(text))) => {
                text == if *wanted { "true" } else { "false" }
            }
            (Want::Member(pattern), Some(Value::Array(list))) => {
                list.iter().any(|item| item.as_str().is_some_and(|text| glob(pattern, text)))
            }
            (Want::Property(pattern), Some(Value::String(text))) => glob(pattern, text),
            (Want::Property(pattern), Some(Value::Array(list))) => {
                list.iter().any(|item| item.as_str().is_some_and(|text| glob(pattern, text)))
            }
            // A number with a fraction or an exponent is no whole number here, whatever its value.
            (Want::Value(wanted), Some(value)) => wanted == value,
            _ => false,
        }
    }
}

impl Want {
    /// As text, for `authority explain`.
    #[must_use]
    pub fn shown(&self) -> String {
        match self {
            Self::Glob(text) | Self::Exact(text) | Self::Member(text) | Self::Property(text) => text.clone(),
            Self::Boolean(value) => value.to_string(),
            Self::Value(value) => value.to_string(),
        }
    }
}

/// Reads the `allow` list of a join token: at least one entry, each with at
/// least one condition.
///
/// # Errors
/// An unknown field, a value of the wrong type, an empty rule.
pub fn read(list: &Node, fields: &'static [Field], guards: &[Guard]) -> Result<Vec<Rule>, Mistake> {
    list.list("allow")?.iter().map(|entry| read_rule(entry, fields, guards)).collect()
}

fn read_rule(entry: &Node, fields: &'static [Field], guards: &[Guard]) -> Result<Rule, Mistake> {
    let mut mapping: Mapping<'_> = entry.mapping_or_empty("a rule")?;
    let mut conditions = Vec::new();
    let known: Vec<&str> = fields.iter().map(|field| field.name).collect();
    for (key, node) in mapping.rest() {
        let field = fields
            .iter()
            .find(|field| field.names(&key.text))
            .ok_or_else(|| document::unknown(key, "a rule", &known))?;
        if field.test == Test::Claims {
            conditions.extend(claims::read(field, node)?);
            continue;
        }
        let want = read_want(field, node)?;
        let claim = if field.test == Test::Property { &key.text } else { field.claim };
        let (field, claim, says) = (key.text.clone(), claim.to_owned(), field.says);
        conditions.push(Condition { field, claim, want, says });
    }
    if conditions.is_empty() {
        return Err(Mistake::new(entry.place, "a rule without conditions would let everybody in"));
    }
    let unnamed = |guard: &&Guard| conditions.iter().all(|condition| condition.field != guard.field);
    let guards = guards.iter().filter(unnamed).copied().collect();
    Ok(Rule { place: entry.place, conditions, guards })
}

fn read_want(field: &Field, node: &Node) -> Result<Want, Mistake> {
    let text = || node.text(field.name).map(str::to_owned);
    Ok(match field.test {
        // Claims have names of their own, so `read_rule` takes them apart.
        Test::Glob | Test::Claims => Want::Glob(text()?),
        Test::Member => Want::Member(text()?),
        Test::Property => Want::Property(text()?),
        Test::Boolean => Want::Boolean(match node.text(field.name) {
            // GitHub's own spelling of these claims is text.
            Ok("true") => true,
            Ok("false") => false,
            _ => node.boolean(field.name)?,
        }),
        Test::Exact => Want::Exact(literal(field, node, text()?)?),
        Test::Within(form) => Want::Glob(form.replace("{}", &literal(field, node, text()?)?)),
    })
}

fn literal(field: &Field, node: &Node, text: String) -> Result<String, Mistake> {
    if text.contains(['*', '?']) {
        return Err(Mistake::new(node.place, format!("`{}` takes no wildcards", field.name))
            .hint("write one rule for each value"));
    }
    Ok(text)
}

/// Holds every rule to a condition that says whose jobs it is about.
///
/// # Errors
/// The first rule without one, in these words.
pub fn anchor(
    rules: &[Rule],
    anchors: impl Fn(&Condition) -> bool,
    message: &str,
    hint: &str,
) -> Result<(), Mistake> {
    match rules.iter().find(|rule| !rule.conditions.iter().any(&anchors)) {
        Some(rule) => Err(Mistake::new(rule.place, message).hint(hint)),
        None => Ok(()),
    }
}

/// Whether the whole of `text` matches `pattern`: `*` stands for any run of
/// characters, `?` for any one, everything else for itself. Linear in the
/// product of the lengths at worst.
#[must_use]
pub fn glob(pattern: &str, text: &str) -> bool {
    let mut pattern = pattern.chars();
    let mut text = text.chars();
    // Where to go on when what followed the last `*` did not fit: that `*`
    // then takes one character more.
    let mut retry: Option<(std::str::Chars<'_>, std::str::Chars<'_>)> = None;
    loop {
        let rest = text.clone();
        match (pattern.next(), text.next()) {
            (None, None) => return true,
            (Some('*'), _) => {
                retry = Some((pattern.clone(), rest.clone()));
                text = rest;
                continue;
            }
            (Some('?'), Some(_)) => continue,
            (Some(wanted), Some(found)) if wanted == found => continue,
            _ => {}
        }
        let Some((after_star, taken)) = &mut retry else { return false };
        if taken.next().is_none() {
            return false;
        }
        pattern = after_star.clone();
        text = taken.clone();
    }
}

/// The part of a glob before its first wildcard.
#[must_use]
pub fn literal_prefix(pattern: &str) -> &str {
    pattern.split(['*', '?']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn globs() {
        for (pattern, text, fits) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("a*", "a/b/c", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*b*d", "abcbd", true),
            ("*b*d", "abcbx", false),
            ("octo-org/*", "octo-organisation/x", false),
            ("octo-org/*", "octo-org/x", true),
            ("refs/heads/main", "refs/heads/main2", false),
            ("refs/heads/main", "xrefs/heads/main", false),
            ("a|b", "a", false),
            ("[ab]", "a", false),
            ("**", "x", true),
        ] {
            assert_eq!(glob(pattern, text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn a_pattern_of_wildcards_alone_leaves_everything_open() {
        for open in ["*", "**", "?*", "*?", "*?*", "???"] {
            assert!(is_open(open), "{open}");
        }
        for bound in ["a", "a*", "*a", "?-*"] {
            assert!(!is_open(bound), "{bound}");
        }
    }

    #[test]
    fn refs_that_are_left_open() {
        for open in [
            "*",
            "**",
            "refs/*",
            "refs/*/*",
            "refs/heads/*",
            "refs/heads/**",
            "refs/heads/?*",
            "refs/tags/*",
            "refs/pull/*",
            "refs/pull/*/merge",
            "*a*",
            "?*",
        ] {
            assert!(is_open_ref(open), "{open}");
        }
        for bound in [
            "refs/heads/main",
            "refs/heads/release/*",
            "refs/tags/v*",
            "refs/pull/7/merge",
            "refs/*/main",
            "main",
            "",
        ] {
            assert_eq!(is_open_ref(bound), bound.is_empty(), "{bound}");
        }
    }

    #[test]
    fn a_part_of_a_claim_is_compared_whole() {
        static FIELDS: &[Field] = &[Field::new("project", Test::Within("p://*/{}/*")).claim("sub")];
        let rules = |text: &str| read(&crate::document::parse(text).unwrap()[0], FIELDS, &[]);
        let rules_of_app = rules("[{project: app}]").unwrap();
        for (sub, fits) in
            [("p://o/app/x", true), ("p://o/app2/x", false), ("p://app/o/x", false), ("app", false)]
        {
            let claims = serde_json::json!({"sub": sub});
            assert_eq!(rules_of_app[0].conditions[0].holds(claims.as_object().unwrap()), fits, "{sub}");
        }
        assert_eq!(rules("[{project: 'a*'}]").unwrap_err().message, "`project` takes no wildcards");
    }

    #[test]
    fn guards_strike_by_pattern() {
        let guard = Guard { field: "ref", claim: "ref", values: &["refs/pull/*", "true"], risk: "" };
        let strikes = |value: Value| guard.strikes(&Map::from_iter([("ref".to_owned(), value)]));
        for (value, struck) in [
            ("refs/pull/7/merge".into(), true),
            ("refs/heads/refs/pull/7".into(), false),
            (true.into(), true),
            (false.into(), false),
            (7.into(), false),
        ] {
            assert_eq!(strikes(value), struck);
        }
    }

    #[test]
    fn globs_do_not_explode() {
        assert!(!glob(&format!("{}b", "*a".repeat(100)), &"a".repeat(2_000)));
    }

    /// The plainest definition there is.
    fn model(pattern: &[char], text: &[char]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some(('*', rest)), _) => {
                model(rest, text) || text.split_first().is_some_and(|(_, t)| model(pattern, t))
            }
            (Some(('?', rest)), Some((_, t))) => model(rest, t),
            (Some((p, rest)), Some((c, t))) => p == c && model(rest, t),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn glob_agrees_with_its_model(pattern in "[ab*?]{0,8}", text in "[ab]{0,10}") {
            let chars = |s: &str| s.chars().collect::<Vec<_>>();
            prop_assert_eq!(glob(&pattern, &text), model(&chars(&pattern), &chars(&text)));
        }

        #[test]
        fn a_text_without_wildcards_matches_itself_alone(a in "[a-z/:@]{0,12}", b in "[a-z/:@]{0,12}") {
            prop_assert_eq!(glob(&a, &b), a == b);
        }
    }
}
