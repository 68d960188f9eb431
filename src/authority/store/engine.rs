//! Which database a store is in: the one place that chooses.

use std::path::Path;

use super::seal::StoreKey;
use super::sqlite::{Sqlite, SqliteTrail};
use super::{Store, Trail};
use crate::error::Result;
use crate::folder::trust::Owner;

/// Opens an authority's store at `path`, whose rows are sealed with that key,
/// and brings its schema up to date. One that was put back from a copy says so
/// in its trail, at `now`.
///
/// # Errors
/// As [`Sqlite::open`].
pub async fn open(path: &Path, key: &StoreKey, now: i64) -> Result<Box<dyn Store>> {
    Ok(Box::new(Sqlite::open(path, key, now)?))
}

/// Opens the store at `path` for reading alone: nothing is made, changed or
/// migrated there, and it may be where nothing can be.
///
/// # Errors
/// As [`SqliteTrail::open`].
pub async fn read(path: &Path, owner: Owner) -> Result<Box<dyn Trail>> {
    Ok(Box::new(SqliteTrail::open(path, owner)?))
}
