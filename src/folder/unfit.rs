//! Why a place is not believed.

use std::{fmt, io};

use rustix::io::Errno;

use crate::error::{Error, Kind, Message};

/// Why a place is not trusted, or cannot be read.
#[derive(Debug)]
pub struct Unfit {
    error: io::Error,
    hint: Option<String>,
}

impl Unfit {
    /// For that reason, for a person.
    pub fn new(why: impl Into<String>) -> Self {
        io::Error::other(why.into()).into()
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Whether there is nothing of that name.
    pub fn is_missing(&self) -> bool {
        self.error.kind() == io::ErrorKind::NotFound
    }

    /// Whether this user may not.
    pub fn is_denied(&self) -> bool {
        self.error.kind() == io::ErrorKind::PermissionDenied
    }

    /// Whether the system says so, and nothing is wrong with the place itself.
    pub fn is_of_system(&self) -> bool {
        self.error.raw_os_error().is_some()
    }

    /// As what ends a command: what failed, and what to do about it.
    pub fn error(self, kind: Kind, what: impl Message) -> Error {
        let error = Error::new(kind, self.error).context(what);
        self.hint.into_iter().fold(error, Error::hint)
    }
}

impl From<io::Error> for Unfit {
    fn from(error: io::Error) -> Self {
        Self { error, hint: None }
    }
}

impl From<Errno> for Unfit {
    fn from(error: Errno) -> Self {
        io::Error::from(error).into()
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}
