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
        self.0.get(OsStr::new(name))?.to_str().filter(|value| !value.is_empty())
    }

    /// Whether `name` has a value, in whatever encoding.
    pub fn is_set(&self, name: &str) -> bool {
        self.0.get(std::ffi::OsStr::new(name)).is_some_and(|value| !value.is_empty())
    }

    /// Every variable that has a value in UTF-8.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        let texts = self.0.iter().filter_map(|(name, value)| Some((name.to_str()?, value.to_str()?)));
        texts.filter(|(_, value)| !value.is_empty())
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

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
