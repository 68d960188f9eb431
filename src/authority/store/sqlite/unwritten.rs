//! Why nothing was written, and whether that is for want of room.

use std::fmt;
use std::sync::Arc;

use rusqlite::{ErrorCode, ffi};

use super::reserve::RESERVE;
use crate::error::Error;

/// Why nothing was written; shared by all whom it concerns.
#[derive(Clone, Debug)]
pub(super) struct Unwritten(Arc<rusqlite::Error>);

impl Unwritten {
    /// Nothing was tried, since the reserve does not stand.
    pub(super) fn full() -> Self {
        let full = ffi::Error::new(ffi::SQLITE_FULL);
        rusqlite::Error::SqliteFailure(full, Some("the disk is full".to_owned())).into()
    }

    /// Whether it is for want of room, or since the disk fails.
    pub(super) fn is_no_room(&self) -> bool {
        is_no_room(&self.0)
    }
}

impl From<rusqlite::Error> for Unwritten {
    fn from(error: rusqlite::Error) -> Self {
        Self(Arc::new(error))
    }
}

impl fmt::Display for Unwritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
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
