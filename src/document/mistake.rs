//! What is wrong with a document, and where.

use std::fmt;

use crate::error::Error;

/// Where something stands in its file; lines and columns count from one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: u64,
    /// The column, in characters.
    pub column: u64,
}

/// A mistake in a document: where, what, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Its place in the document.
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
    pub fn in_file(&self, file: &str) -> Error {
        let error = Error::usage(format!("{file}:{self}"));
        self.hint.iter().fold(error, Error::hint)
    }
}

/// `LINE:COLUMN: message`.
impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.place.line, self.place.column, self.message)
    }
}

/// Every mistake of what was read; where it is an error, there is at least one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mistakes(Vec<Mistake>);

impl Mistakes {
    /// Adds one, or all of others.
    pub fn add(&mut self, mistakes: impl Into<Self>) {
        self.0.extend(mistakes.into().0);
    }

    /// The value of a result; its mistakes are added.
    pub fn keep<T, E: Into<Self>>(&mut self, result: Result<T, E>) -> Option<T> {
        result.map_err(|mistakes| self.add(mistakes)).ok()
    }

    /// `value`, if there is no mistake; or all of them.
    pub fn or<T>(self, value: T) -> Result<T, Self> {
        if self.0.is_empty() { Ok(value) } else { Err(self) }
    }

    /// As one error of `file`: the first in the file, and then where the others are.
    pub fn in_file(mut self, file: &str) -> Error {
        self.0.sort_by_key(|mistake| mistake.place);
        let mut mistakes = self.0.iter();
        let first =
            mistakes.next().map_or_else(|| Error::usage(file.to_owned()), |first| first.in_file(file));
        mistakes.fold(first, |error, other| error.hint(format!("also at {other}")))
    }
}

impl From<Mistake> for Mistakes {
    fn from(mistake: Mistake) -> Self {
        Self(vec![mistake])
    }
}

/// The first, where there is room for one.
impl From<Mistakes> for Mistake {
    fn from(mistakes: Mistakes) -> Self {
        mistakes.into_iter().next().unwrap_or_else(|| Self::new(Place::default(), "cannot be read"))
    }
}

impl IntoIterator for Mistakes {
    type Item = Mistake;
    type IntoIter = std::vec::IntoIter<Mistake>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// One a line.
impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}
