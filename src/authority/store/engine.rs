//! Which database a store is in: the one place that chooses.

use super::postgres::pool::Pool;
use super::postgres::settings::Settings;
use super::postgres::url::DatabaseUrl;
use super::postgres::{self, Postgres, PostgresTrail, Roles};
use super::seal::StoreKey;
use super::sqlite::{Sqlite, SqliteTrail};
use super::{Store, StorePlace, Trail};
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::terminal;

/// Opens an authority's store at `place`, whose rows are sealed with that key.
/// SQLite's schema is brought up to date, and one that was put back from a copy
/// says so in its trail, at `now`.
///
/// # Errors
/// As [`Sqlite::open`] and [`Postgres::open`].
pub async fn open(place: &StorePlace, key: &StoreKey, now: i64) -> Result<Box<dyn Store>> {
    Ok(match place {
        StorePlace::Sqlite(path) => Box::new(Sqlite::open(path, key, now)?),
        StorePlace::Postgres(url) => Box::new(Postgres::open(pool(url, key)?, key).await?),
    })
}

/// Opens the store at `place` for reading alone: nothing is made, changed or
/// migrated there, and it may be where nothing can be.
///
/// # Errors
/// As [`SqliteTrail::open`] and [`PostgresTrail::open`].
pub async fn read(place: &StorePlace, key: &StoreKey) -> Result<Box<dyn Trail>> {
    Ok(match place {
        StorePlace::Sqlite(path) => Box::new(SqliteTrail::open(path, key.owner())?),
        StorePlace::Postgres(url) => Box::new(PostgresTrail::open(pool(url, key)?).await?),
    })
}

/// Waits for a database that cannot be reached, and says so.
///
/// # Errors
/// `Kind::Usage` where waiting does not help.
pub async fn wait(place: &StorePlace, key: &StoreKey) -> Result<()> {
    let StorePlace::Postgres(url) = place else { return Ok(()) };
    let waited =
        pool(url, key)?.wait(|error| terminal::log(&format!("waiting for the database: {error}"))).await;
    waited.map(drop)
}

/// Brings the tables of a database up to date, and gives roles what they need; the versions before and after.
///
/// # Errors
/// As [`postgres::upgrade`]; `Kind::Usage` for a file.
pub async fn upgrade(place: &StorePlace, key: &StoreKey, roles: &Roles) -> Result<(i64, i64)> {
    match place {
        StorePlace::Sqlite(_) => Err(Error::usage("the store is a file of SQLite, which has no roles")
            .hint("nothing is to be done: `machine-id authority serve` brings it up to date when it starts")),
        StorePlace::Postgres(url) => postgres::upgrade(&pool(url, key)?, roles).await,
    }
}

/// Connections, with files named from the data directory, as its owner.
fn pool(url: &DatabaseUrl, key: &StoreKey) -> Result<Pool> {
    Ok(Pool::new(Settings::new(url, &Environment::of_process(), key.folder(), key.owner())?))
}
