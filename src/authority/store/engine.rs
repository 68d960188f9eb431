//! Which database a store is in: the one place that chooses.

use super::sqlite::{Sqlite, SqliteTrail};
use super::{Store, StorePlace, Trail};
use crate::error::{Error, Result};
use crate::folder::trust::Owner;

/// Opens an authority's store at `place`, and brings its schema up to date. One
/// that was put back from a copy says so in its trail, at `now`.
///
/// # Errors
/// As [`Sqlite::open`].
pub async fn open(place: &StorePlace, owner: Owner, now: i64) -> Result<Box<dyn Store>> {
    match place {
        StorePlace::Sqlite(path) => Ok(Box::new(Sqlite::open(path, owner, now)?)),
        StorePlace::Postgres(_) => Err(no_engine()),
    }
}

/// Opens the store at `place` for reading alone: nothing is made, changed or
/// migrated there, and it may be where nothing can be.
///
/// # Errors
/// As [`SqliteTrail::open`].
pub async fn read(place: &StorePlace, owner: Owner) -> Result<Box<dyn Trail>> {
    match place {
        StorePlace::Sqlite(path) => Ok(Box::new(SqliteTrail::open(path, owner)?)),
        StorePlace::Postgres(_) => Err(no_engine()),
    }
}

fn no_engine() -> Error {
    Error::usage("this build has no engine over PostgreSQL")
}
