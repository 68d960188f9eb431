//! Which database a store is in: the one place that chooses.

use std::path::Path;

use super::seal::StoreKey;
use super::sqlite::archive::SqliteArchive;
use super::sqlite::{Sqlite, SqliteTrail};
use super::{Store, Trail, transfer};
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

/// Two stores, each where it is and as the operator names it.
#[derive(Clone, Copy, Debug)]
pub struct Ways<'a> {
    /// The one that is served.
    pub from: (&'a Path, &'a str),
    /// The one that is to be.
    pub to: (&'a Path, &'a str),
    /// What the rows of both are sealed with: they are carried as they are.
    pub key: &'a StoreKey,
}

impl Ways<'_> {
    fn source(&self, now: i64) -> Result<SqliteArchive> {
        SqliteArchive::source(self.from.0, self.from.1, self.key, now)
    }
}

/// Carries all records from one store to the other, which is made where there is none; whether there was anything left
/// to do. `say` is told how far it is.
///
/// # Errors
/// `Kind::Usage` where a store cannot be opened, the target holds records, or one of them is closed for another reason.
pub async fn migrate(ways: &Ways<'_>, now: i64, say: &mut (dyn FnMut(String) + Send)) -> Result<bool> {
    let mut from = ways.source(now)?;
    let mut to = SqliteArchive::target(ways.to.0, ways.to.1, ways.key)?;
    transfer::migrate(&mut from, &mut to, say).await
}

/// Makes what was brought to the target void, and lets the source go on.
///
/// # Errors
/// `Kind::Usage` where a store cannot be opened, or the migration between them is finished.
pub async fn give_up(ways: &Ways<'_>, now: i64) -> Result<()> {
    let mut from = ways.source(now)?;
    let mut to = SqliteArchive::known(ways.to.0, ways.to.1, ways.key)?;
    transfer::give_up(&mut from, &mut to).await
}
