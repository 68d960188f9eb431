//! One error type for everything that ends a command: what kind it is (and so
//! the exit code), what failed and why, and what to do about it.

use std::fmt;
use std::process::ExitCode;

use crate::text::shown_long;

/// What kind of failure ended a command; each has its own exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A bug, or something inside that should not fail.
    Internal,
    /// Wrong usage or configuration, or a policy that cannot be read.
    Usage,
    /// This job could not prove who it is.
    Proof,
    /// The authority refused.
    Refused,
    /// The authority or the platform's token endpoint was not reached in time.
    Unreachable,
    /// The destination could not be written.
    Destination,
}

/// The exit-code table, in the order of the codes; `docs/exit-codes.md` and a
/// test repeat it.
pub const EXIT_CODES: &[(Kind, u8, &str)] = &[
    (Kind::Internal, 1, "unexpected: a bug or an internal error"),
    (Kind::Usage, 2, "wrong usage or configuration, or a policy that cannot be read"),
    (Kind::Proof, 3, "this job could not prove who it is"),
    (Kind::Refused, 4, "the authority refused"),
    (Kind::Unreachable, 5, "the authority, or the platform's token endpoint, could not be reached in time"),
    (Kind::Destination, 6, "the destination could not be written"),
];

impl Kind {
    /// The process's exit code for this kind.
    pub fn code(self) -> u8 {
        EXIT_CODES.iter().find(|(kind, ..)| *kind == self).map_or(1, |(_, code, _)| *code)
    }
}

/// An error for a person: a lower-case chain of causes without a full stop,
/// then hints that say what to do.
pub struct Error {
    kind: Kind,
    cause: anyhow::Error,
    hints: Vec<String>,
}

/// The result of nearly everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can be said in an error.
pub trait Message: fmt::Display + fmt::Debug + Send + Sync + 'static {}

impl<M: fmt::Display + fmt::Debug + Send + Sync + 'static> Message for M {}

impl Error {
    /// An error of `kind` with a message; see [`Context`] for one with another error as its cause.
    pub fn new(kind: Kind, message: impl Message) -> Self {
        Self { kind, cause: anyhow::Error::msg(message), hints: Vec::new() }
    }

    /// A bug or a failure inside.
    pub fn internal(message: impl Message) -> Self {
        Self::new(Kind::Internal, message)
    }

    /// Wrong usage or configuration.
    pub fn usage(message: impl Message) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// Says what was being done when the cause struck: `what: cause`.
    #[must_use]
    pub fn context(mut self, what: impl Message) -> Self {
        self.cause = self.cause.context(what);
        self
    }

    /// Adds a hint: one thing that the reader can do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Several errors as one of the first's kind, with every hint once.
    pub fn together(errors: Vec<Self>) -> Option<Self> {
        errors.into_iter().reduce(|all, next| {
            let mut hints = all.hints;
            hints.extend(next.hints.into_iter().filter(|hint| !hints.contains(hint)).collect::<Vec<_>>());
            let cause = anyhow::Error::msg(format!("{:#}; and {:#}", all.cause, next.cause));
            Self { kind: all.kind, cause, hints }
        })
    }

    /// The kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The error of that type which it began with, if it did.
    pub fn cause<T: fmt::Display + fmt::Debug + Send + Sync + 'static>(&self) -> Option<&T> {
        self.cause.downcast_ref()
    }

    /// What to do about it, most likely first.
    pub fn hints(&self) -> &[String] {
        &self.hints
    }

    /// The code that the process ends with.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.kind.code())
    }
}

/// The chain on one line, without the hints. Paths, settings and the words of others stand in it as they came: here
/// they are made fit to be shown, whoever forgot to.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown_long(&format!("{:#}", self.cause)))
    }
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        Self::other(error.to_string())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {:#} (hints: {:?})", self.kind, self.cause, self.hints)
    }
}

/// Turns a foreign error into one of ours, with what was being done.
pub trait Context<T> {
    /// Wraps the error as `kind`, saying what was being done.
    fn context(self, kind: Kind, what: impl Message) -> Result<T>;
}

impl<T, E: Into<anyhow::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, kind: Kind, what: impl Message) -> Result<T> {
        self.map_err(|error| Error { kind, cause: error.into().context(what), hints: Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_reads_from_what_failed_to_why() {
        let error: Result<()> =
            Err(std::io::Error::other("disk on fire")).context(Kind::Destination, "cannot write x");
        let error = error.unwrap_err().hint("use another disk");
        assert_eq!(error.to_string(), "cannot write x: disk on fire");
        assert_eq!(error.hints(), ["use another disk"]);
        assert_eq!(error.kind().code(), 6);
        assert_eq!(Error::usage("cannot read a\n::b\u{1b}").to_string(), "cannot read a\\u{a}::b\\u{1b}");
    }

    #[test]
    fn several_are_told_as_one() {
        let errors = ["a", "b; and c"].map(|cause| Error::usage(cause).hint("x").hint(cause));
        let all = Error::together(errors.into()).unwrap();
        assert_eq!((all.kind(), all.to_string().as_str()), (Kind::Usage, "a; and b; and c"));
        assert_eq!(all.hints(), ["x", "a", "b; and c"]);
        assert!(Error::together(Vec::new()).is_none());
    }

    #[test]
    fn every_kind_has_one_code() {
        let mut codes: Vec<u8> = EXIT_CODES.iter().map(|(_, code, _)| *code).collect();
        codes.dedup();
        assert_eq!(codes, [1, 2, 3, 4, 5, 6]);
        for (kind, code, _) in EXIT_CODES {
            assert_eq!(kind.code(), *code);
        }
    }
}
