//! The process's environment, read once and passed on as a value.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;

/// Environment variables. Their values may be secret, so `Debug` shows names alone.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<OsString, OsString>);

impl Environment {
    /// This process's.
    pub fn of_process() -> Self {
        Self(std::env::vars_os().collect())
    }

    /// One of given variables.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }

    /// The value of `name`; an empty one, or one that is not UTF-8, counts as absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(OsStr::new(name)).and_then(text)
    }

    /// A setting of ours in quotes, which are part of it where no shell took them away.
    pub fn quoted_setting(&self) -> Option<&str> {
        let quoted = |value: &str| {
            ['"', '\'']
                .into_iter()
                .any(|quote| value.len() > 1 && value.starts_with(quote) && value.ends_with(quote))
        };
        let settings = self.pairs().filter(|(name, _)| name.starts_with("MACHINE_ID_"));
        settings.into_iter().find(|(_, value)| quoted(value)).map(|(name, _)| name)
    }

    /// Whether `name` has a value, in whatever encoding.
    pub fn is_set(&self, name: &str) -> bool {
        self.0.get(std::ffi::OsStr::new(name)).is_some_and(|value| !value.is_empty())
    }

    /// Every variable that has a value in UTF-8.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter_map(|(name, value)| Some((name.to_str()?, text(value)?)))
    }

    /// The name of every variable.
    pub fn names(&self) -> impl Iterator<Item = &OsStr> {
        self.0.keys().map(OsString::as_os_str)
    }

    /// Whether `name` is `true` or `1`, as CI platforms mark their jobs.
    pub fn is_true(&self, name: &str) -> bool {
        matches!(self.get(name), Some("true" | "1" | "True"))
    }
}

/// A value without the blanks and line ends around it, which secret stores and files leave there. One of blanks alone
/// stays as it is: it is a mistake, and no absent value.
fn text(value: &OsString) -> Option<&str> {
    let text = value.to_str()?;
    let trimmed = text.trim_ascii();
    Some(if trimmed.is_empty() { text } else { trimmed }).filter(|text| !text.is_empty())
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
