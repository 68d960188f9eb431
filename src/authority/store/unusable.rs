//! Why a store cannot be used, whichever database it is in.

use super::{postgres, sqlite};
use crate::error::Error;

/// Whether it is for want of room, or since the disk fails, that the store cannot be used.
pub fn no_room(error: &Error) -> bool {
    sqlite::no_room(error) || postgres::no_room(error)
}

/// Whether it is that the store is not the one that it was, or not in its place, any more.
pub fn is_displaced(error: &Error) -> bool {
    sqlite::is_displaced(error) || postgres::is_displaced(error)
}

/// Whether it is that the database cannot be reached, or does not do now what it can do at other times.
pub fn is_away(error: &Error) -> bool {
    postgres::is_away(error)
}
