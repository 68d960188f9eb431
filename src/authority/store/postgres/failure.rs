//! Why PostgreSQL did not do what it was asked to, and what follows from that.

use std::fmt;
use std::sync::Arc;

use tokio_postgres::error::SqlState;

use super::super::closed::Closed;
use super::super::loss::Loss;
use crate::error::{Error, Kind, Message};

/// What became of a transaction.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// The connection or the server failed: another try may go well, on another connection. What was sent may have been committed.
    Away(Arc<Error>),
    /// The server has no room.
    Full(Arc<tokio_postgres::Error>),
    /// The server does not take what it was given.
    Database(Arc<tokio_postgres::Error>),
    /// This is not, or not any more, a store that this replica may write to.
    Displaced(String),
    /// It says itself that nothing is written to it.
    Closed(Closed),
    /// It has lost something.
    Lost(Loss),
    /// What it holds cannot be read.
    Unreadable(String),
}

impl Failure {
    /// Whether another try may go well.
    pub(super) fn is_away(&self) -> bool {
        matches!(self, Self::Away(_))
    }

    /// For one of our own reasons.
    pub(super) fn away(why: impl Message) -> Self {
        Self::Away(Arc::new(Error::new(Kind::Unreachable, why)))
    }

    /// As an error for whoever asked; `what` could not be done.
    pub(super) fn error(&self, what: &'static str) -> Error {
        match self {
            Self::Away(error) => {
                let told = Error::new(error.kind(), self.clone()).context(what);
                error.hints().iter().fold(told, Error::hint)
            }
            Self::Full(_) => Error::new(Kind::Internal, self.clone())
                .context(what)
                .hint("make room on the disk of the database's server"),
            Self::Lost(loss) => loss.clone().error(what),
            Self::Displaced(_) => Error::new(Kind::Usage, self.clone()).context(what),
            Self::Closed(closed) => closed.clone().error(),
            Self::Unreadable(_) => Error::new(Kind::Internal, self.clone()).context(what),
            Self::Database(error) => {
                let told = Error::new(Kind::Internal, self.clone()).context(what);
                match error.code() {
                    Some(&SqlState::UNDEFINED_TABLE | &SqlState::INVALID_SCHEMA_NAME | &SqlState::UNDEFINED_COLUMN) => {
                        told.hint("`machine-id authority upgrade`, as the database's owner, makes the tables")
                    }
                    Some(&SqlState::INSUFFICIENT_PRIVILEGE) => told.hint(
                        "`machine-id authority upgrade --server-role ROLE`, as the database's owner, gives a role what it needs",
                    ),
                    _ => told,
                }
            }
        }
    }
}

/// Whether it is for want of room that something was not written.
pub fn no_room(error: &Error) -> bool {
    matches!(error.cause(), Some(Failure::Full(_)))
}

/// Whether it is that this is not the store that it was.
pub fn is_displaced(error: &Error) -> bool {
    matches!(error.cause(), Some(Failure::Displaced(_)))
}

/// Whether it is that the database is away.
pub fn is_away(error: &Error) -> bool {
    matches!(error.cause(), Some(Failure::Away(_)))
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(code) = error.code() else {
            let error =
                Error::new(Kind::Unreachable, said(&error)).context("the connection to the database is lost");
            return Self::Away(Arc::new(error));
        };
        match code.code() {
            "53100" | "53200" | "58030" => Self::Full(Arc::new(error)),
            // Connections, conflicts, locks, timeouts, a server that starts or ends or takes no writes (any more).
            code if ["08", "40", "53", "57"].contains(&code.get(..2).unwrap_or_default())
                || ["55P03", "25P03", "25006", "0A000"].contains(&code) =>
            {
                Self::Away(Arc::new(
                    Error::new(Kind::Unreachable, said(&error)).context("the database refuses"),
                ))
            }
            _ => Self::Database(Arc::new(error)),
        }
    }
}

impl From<Loss> for Failure {
    fn from(loss: Loss) -> Self {
        Self::Lost(loss)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Away(Arc::new(error))
    }
}

/// In the server's words, without what the values were.
fn said(error: &tokio_postgres::Error) -> String {
    error
        .as_db_error()
        .map_or_else(|| error.to_string(), |said| format!("{} ({})", said.message(), said.code().code()))
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Away(error) => error.fmt(f),
            Self::Full(error) | Self::Database(error) => f.write_str(&said(error)),
            Self::Closed(closed) => closed.fmt(f),
            Self::Displaced(why) | Self::Unreadable(why) => f.write_str(why),
            Self::Lost(loss) => loss.fmt(f),
        }
    }
}

impl std::error::Error for Failure {}
