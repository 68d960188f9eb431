//! Fields that a rule may have, and the rules that policies make of them.

use serde_json::{Map, Value};

use super::claim::claim;
use super::glob::{glob, is_open, is_pattern};
use super::grammar::{Grammar, Pattern};
use super::guard::Guard;
use super::saying::Says;
use super::shape::Shape;
use crate::document::Place;

/// A field that a rule of some method may have.
#[derive(Debug)]
pub struct Field {
    /// The key in the policy.
    pub name: &'static str,
    /// The claim it is compared with: a name, or a JSON pointer (see [`claim()`]).
    pub claim: &'static str,
    /// How it is compared.
    pub matches: Match,
    /// What a condition on it constrains, for whoever judges a rule as a whole.
    pub constrains: &'static [Constraint],
    /// Values of the claim that let nobody in unless a rule names them; of others, where the field has many.
    pub guards: &'static [Guard],
    /// What keeps a condition from holding; see [`Field::unless`].
    pub unless: Option<Unless>,
    /// What the claim's texts look like, where the platform says and [`Field::matches`] does not.
    pub shape: Option<Shape>,
    /// What the claim's texts say of other fields.
    pub says: Says,
}

/// Two claims that must not be the same text for a condition to hold, and for which values that is so.
pub type Unless = ([&'static str; 2], fn(&str) -> bool);

/// Whether a value leaves open after all what its field could constrain.
pub type Open = fn(&str) -> bool;

/// What a condition on a [`Field`] constrains. The methods know; the lints ask.
#[derive(Clone, Copy, Debug)]
pub enum Constraint {
    /// Whose or which it is, by a name that somebody else can have one day.
    Name {
        /// The fields whose ids pin it; one of them is enough.
        pinned_by: &'static [&'static str],
        /// Whether that value holds such an id itself.
        pins_itself: fn(&str) -> bool,
    },
    /// Which branch or tag.
    Ref(Open),
    /// The same by a name that a branch and a tag can have, unless this field stands beside it.
    RefName(&'static str),
    /// Which workflow, or a place with rules of its own about that.
    Workflow(Open),
    /// Whose job it is at all, at an issuer that others may use too.
    Owner(Open),
}

impl Constraint {
    /// A name that no value of its own pins.
    pub const fn name(pinned_by: &'static [&'static str]) -> Self {
        Self::Name { pinned_by, pins_itself: |_| false }
    }
}

/// Which branch or tag. A pattern does not say it: whoever may push one chooses a name that fits.
pub const REF: Constraint = Constraint::Ref(is_pattern);
/// Which workflow, by a name that the platform's administrators give, unless a pattern leaves that open.
pub const WORKFLOW: Constraint = Constraint::Workflow(is_open);
/// Which workflow, by a name that the job's author chooses, and so no pattern.
pub const CHOSEN_WORKFLOW: Constraint = Constraint::Workflow(is_pattern);
/// Whose job it is, unless it is a pattern that leaves that open.
pub const OWNER: Constraint = Constraint::Owner(is_open);
/// One run is of one ref and one workflow: for a field that names it.
pub const ONE_RUN: &[Constraint] = &[REF, WORKFLOW];

impl Field {
    /// A field of the claim of the same name.
    pub const fn new(name: &'static str, matches: Match) -> Self {
        let (constrains, guards): (&[Constraint], &[Guard]) = (&[], &[]);
        Self {
            name,
            claim: name,
            matches,
            constrains,
            guards,
            unless: None,
            shape: None,
            says: |_| Vec::new(),
        }
    }

    /// A field whose value is a pattern, of the claim of the same name.
    pub const fn glob(name: &'static str) -> Self {
        Self::new(name, Match::Glob)
    }

    /// A field whose value is a pattern over parts, of the claim of the same name.
    pub const fn parted(name: &'static str, grammar: &'static Grammar) -> Self {
        Self::new(name, Match::Parts(grammar))
    }

    /// A field whose value is the claim's, of the claim of the same name.
    pub const fn exact(name: &'static str) -> Self {
        Self::new(name, Match::Exact)
    }

    /// The claim, where it has another name.
    pub const fn claim(mut self, claim: &'static str) -> Self {
        self.claim = claim;
        self
    }

    /// Whether that key of a rule is this field.
    pub fn names(&self, key: &str) -> bool {
        match self.name.strip_suffix('*') {
            Some(prefix) => key.len() > prefix.len() && key.starts_with(prefix),
            None => self.name == key,
        }
    }

    /// What the claim's texts look like; see [`Shape`].
    pub const fn shape(mut self, shape: Shape) -> Self {
        self.shape = Some(shape);
        self
    }

    /// What the claim's texts say of other fields; see [`Says`].
    pub const fn says(mut self, says: Says) -> Self {
        self.says = says;
        self
    }

    /// What stands in the policy, of a text that the claim is compared with.
    pub fn written<'t>(&self, text: &'t str) -> &'t str {
        let Match::Within(form) = self.matches else { return text };
        let around = form.split_once("{}");
        let inner = around.and_then(|(before, behind)| text.strip_prefix(before)?.strip_suffix(behind));
        inner.unwrap_or(text)
    }

    /// What a condition on it constrains.
    pub const fn constrains(mut self, constrains: &'static [Constraint]) -> Self {
        self.constrains = constrains;
        self
    }

    /// Two claims that are the same text where the job is of another kind than these values mean. A rule that
    /// names the first, by the field of that name, means those.
    pub const fn unless(mut self, same: [&'static str; 2], means: fn(&str) -> bool) -> Self {
        self.unless = Some((same, means));
        self
    }

    /// Values that need naming; see [`Guard`].
    pub const fn guarded(mut self, guards: &'static [Guard]) -> Self {
        self.guards = guards;
        self
    }
}

/// How a field's value is compared with the claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// The claim is text that matches a glob.
    Glob,
    /// The claim is text that matches a [`Pattern`] of that grammar.
    Parts(&'static Grammar),
    /// The claim is exactly that text.
    Exact,
    /// The claim is text of this form with exactly the field's value in place of `{}`.
    Within(&'static str),
    /// The claim is that boolean, or its name as text (GitHub's `ref_protected`).
    Boolean,
    /// The claim is a list with a text in it that matches a glob.
    Member,
    /// The field's name ends in `*` and stands for every claim that begins
    /// so: a custom property, text or a list, as [`Match::Glob`] or [`Match::Member`].
    Property,
    /// The field is a mapping from names of claims to what they must be, of
    /// the claim's own type: text as [`Match::Parts`] that nobody knows, a boolean or
    /// whole number as it is, a list of texts each as [`Match::Member`].
    Claims,
    /// The same, of what is `within` a claim, a JSON pointer to that. Where it is `wide`, as for what is denied, texts match
    /// as globs without parts.
    ClaimsIn {
        /// The pointer.
        within: &'static str,
        /// See above.
        wide: bool,
    },
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
    /// What it constrains, for whoever judges the rule as a whole.
    pub constrains: &'static [Constraint],
    /// Two claims that must not be the same text.
    pub unless: Option<[&'static str; 2]>,
}

/// What a claim must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// Text that matches.
    Glob(String),
    /// Text whose parts match.
    Parts(Pattern),
    /// That text.
    Exact(String),
    /// That boolean.
    Boolean(bool),
    /// A list with a text in it that matches.
    Member(String),
    /// Text that matches, or a list with such a text in it.
    Property(String),
    /// Text as a glob without parts, a number or boolean written as that, or one of a list of such: for what is denied.
    Wide(String),
    /// That value: a boolean or a whole number, of that type.
    Value(Value),
}

impl Condition {
    /// Whether it names one of the guard's values, and so lets it in.
    pub fn names(&self, guard: &Guard) -> bool {
        self.field == guard.field && guard.has(&self.want.shown())
    }

    /// Whether the claims meet it. A claim that is missing or of another type does not.
    pub fn holds(&self, claims: &Map<String, Value>) -> bool {
        let same = |[one, other]: [&str; 2]| {
            claims.get(one).is_some_and(Value::is_string) && claims.get(one) == claims.get(other)
        };
        if self.unless.is_some_and(same) {
            return false;
        }
        match (&self.want, claim(claims, &self.claim)) {
            (Want::Glob(pattern) | Want::Property(pattern), Some(Value::String(text))) => glob(pattern, text),
            (Want::Parts(pattern), Some(Value::String(text))) => pattern.fits(text),
            (Want::Exact(wanted), Some(Value::String(text))) => wanted == text,
            (Want::Boolean(wanted), Some(Value::Bool(value))) => wanted == value,
            (Want::Boolean(wanted), Some(Value::String(text))) => *text == wanted.to_string(),
            (Want::Member(pattern) | Want::Property(pattern), Some(Value::Array(list))) => {
                list.iter().any(|item| item.as_str().is_some_and(|text| glob(pattern, text)))
            }
            (Want::Wide(pattern), Some(value)) => is_wide(pattern, value),
            // A number with a fraction or an exponent is no whole number here, whatever its value.
            (Want::Value(wanted), Some(value)) => wanted == value,
            _ => false,
        }
    }

    /// Whether it would hold if its wildcards stood for several parts of the claim.
    pub fn stretches_over(&self, claims: &Map<String, Value>) -> bool {
        match (&self.want, claim(claims, &self.claim)) {
            (Want::Parts(pattern), Some(Value::String(text))) => pattern.stretches_over(text),
            _ => false,
        }
    }
}

/// Whether a value is denied by a pattern, whichever type its author took it for.
fn is_wide(pattern: &str, value: &Value) -> bool {
    match value {
        Value::String(text) => glob(pattern, text),
        Value::Number(_) | Value::Bool(_) => glob(pattern, &value.to_string()),
        Value::Array(list) => list.iter().any(|item| !item.is_array() && is_wide(pattern, item)),
        Value::Null | Value::Object(_) => false,
    }
}

impl Want {
    /// The text or pattern that the claim is compared with, where it is text.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Glob(text)
            | Self::Exact(text)
            | Self::Member(text)
            | Self::Property(text)
            | Self::Wide(text) => Some(text),
            Self::Parts(pattern) => Some(pattern.text()),
            Self::Boolean(_) | Self::Value(_) => None,
        }
    }

    /// As text, for `authority explain`.
    pub fn shown(&self) -> String {
        match self {
            Self::Boolean(value) => value.to_string(),
            Self::Value(value) => value.to_string(),
            of_text => of_text.text().unwrap_or_default().to_owned(),
        }
    }
}
