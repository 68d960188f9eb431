//! Why nothing was written, and whether that is for want of room.

use std::sync::Arc;
use std::{fmt, io};

use rusqlite::{ErrorCode, ffi};

use super::super::closed::Closed;
use super::super::loss::Loss;
use super::reserve::RESERVE;
use crate::error::{Context as _, Error, Kind, Result};

/// Why nothing was written; shared by all whom it concerns.
#[derive(Clone, Debug)]
pub(super) enum Unwritten {
    /// The database says so.
    Database(Arc<rusqlite::Error>),
    /// The store is not in its place any more, in words.
    Displaced(String),
    /// It says that nothing is written to it.
    Closed(Closed),
    /// The store has lost something.
    Lost(Loss),
}

impl Unwritten {
    /// Nothing was tried, since the reserve does not stand.
    pub(super) fn full() -> Self {
        let full = ffi::Error::new(ffi::SQLITE_FULL);
        rusqlite::Error::SqliteFailure(full, Some("the disk is full".to_owned())).into()
    }

    /// The store is not in its place.
    pub(super) fn displaced(why: Error) -> Self {
        Self::Displaced(why.to_string())
    }

    /// Whether it is for want of room, or since the disk fails.
    pub(super) fn is_no_room(&self) -> bool {
        matches!(self, Self::Database(error) if is_no_room(error))
    }

    /// As an error of what could not be done. A store that is not in its place is for the operator to put right.
    pub(super) fn error(self, what: &'static str) -> Error {
        let kind = match self {
            Self::Lost(loss) => return loss.error(what),
            Self::Database(_) => Kind::Internal,
            Self::Closed(closed) => return closed.error(),
            Self::Displaced(_) => Kind::Usage,
        };
        let error: Result<()> = Err(self).context(kind, what);
        error.map_err(hint).err().unwrap_or_else(|| Error::internal(what))
    }
}

impl From<rusqlite::Error> for Unwritten {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(Arc::new(error))
    }
}

impl From<Loss> for Unwritten {
    fn from(loss: Loss) -> Self {
        Self::Lost(loss)
    }
}

impl fmt::Display for Unwritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database(error) => error.fmt(f),
            Self::Displaced(why) => f.write_str(why),
            Self::Closed(closed) => closed.fmt(f),
            Self::Lost(loss) => loss.fmt(f),
        }
    }
}

impl std::error::Error for Unwritten {}

fn is_no_room(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure))
}

/// Whether it is for want of room, or since the disk fails, that the store cannot be used.
pub fn no_room(error: &Error) -> bool {
    error.cause::<Unwritten>().is_some_and(Unwritten::is_no_room)
        || error.cause::<rusqlite::Error>().is_some_and(is_no_room)
        || error.cause::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::StorageFull)
}

/// Whether it is that the store is not in its place any more.
pub fn is_displaced(error: &Error) -> bool {
    matches!(error.cause(), Some(Unwritten::Displaced(_)))
}

/// With what to do about it, if it is for want of room.
pub(super) fn hint(error: Error) -> Error {
    if !no_room(&error) {
        return error;
    }
    let room = (2 * RESERVE) >> 20;
    error.hint(format!(
        "free {room} MiB on the file system of the store, and it goes on by itself; of the data directory nothing may be deleted"
    ))
}
