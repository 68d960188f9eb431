//! Which database a store is in: the one place that chooses.

use super::loss::Mark;
use super::postgres::archive::PostgresArchive;
use super::postgres::pool::Pool;
use super::postgres::settings::Settings;
use super::postgres::url::DatabaseUrl;
use super::postgres::{self, Postgres, PostgresTrail, Roles, Upgraded};
use super::seal::StoreKey;
use super::sqlite::archive::SqliteArchive;
use super::sqlite::{MARK, Sqlite, SqliteTrail};
use super::transfer::Archive;
use super::{Cursor, EventFilter, Store, StorePlace, Trail, transfer};
use crate::environment::Environment;
use crate::error::{Context as _, Error, Kind, Result};
use crate::folder;
use crate::terminal;

/// So many files at most are looked at in a data directory.
const MOST_FILES: usize = 10_000;

/// Opens an authority's store at `place`, whose rows are sealed with that key.
/// SQLite's schema is brought up to date, and one that was put back from a copy
/// says so in its trail, at `now`.
///
/// # Errors
/// As [`Sqlite::open`] and [`Postgres::open`].
pub async fn open(place: &StorePlace, key: &StoreKey, now: i64) -> Result<Box<dyn Store>> {
    let store: Box<dyn Store> = match place {
        StorePlace::Sqlite(path) => Box::new(Sqlite::open(path, key, now)?),
        StorePlace::Postgres(url) => Box::new(Postgres::open(pool(url, key)?, key).await?),
    };
    check_others(place, key, store.as_ref()).await?;
    Ok(store)
}

/// Where a migration was not even begun, the store that is named by now knows nothing of what was used and revoked.
async fn check_others(place: &StorePlace, key: &StoreKey, store: &dyn Store) -> Result<()> {
    let own = match place {
        StorePlace::Sqlite(path) => {
            let mut name = path.clone().into_os_string();
            name.push(MARK);
            name.into()
        }
        StorePlace::Postgres(_) => key.folder().join(postgres::MARK),
    };
    let cannot = || format!("cannot look for other stores' marks in {}", key.folder().display());
    let names = folder::names(key.folder(), MOST_FILES).context(Kind::Usage, cannot())?;
    let marks = names.iter().filter(|name| name.as_encoded_bytes().ends_with(MARK.as_bytes()));
    for file in marks.map(|name| key.folder().join(name)).filter(|file| *file != own) {
        let Some(mark) = Mark::read(&file, key.owner())?.filter(|mark| mark.reached.sequence > 0) else {
            continue;
        };
        if store.events(EventFilter::default(), Cursor::default(), 1).await?.is_empty() {
            let (file, events) = (file.display(), mark.reached.sequence);
            let why = format!(
                "nothing was ever recorded in the store, and {file} is the mark of another, of {events} events"
            );
            return Err(Error::usage(why)
                .hint("with this one, used tokens would be good again, and revocations unknown: `machine-id authority migrate` carries the records, to its end")
                .hint("or name the other store again: `store` in authority.yaml")
                .hint(format!("where nothing of the other one is wanted, remove {file}")));
        }
    }
    Ok(())
}

/// Opens the store for [`Store::let_go`] alone, for which PostgreSQL takes its owner and no key.
///
/// # Errors
/// As [`open`].
pub async fn open_to_prune(place: &StorePlace, key: &StoreKey, now: i64) -> Result<Box<dyn Store>> {
    match place {
        StorePlace::Sqlite(_) => open(place, key, now).await,
        StorePlace::Postgres(url) => Ok(Box::new(Postgres::open_unsealed(pool(url, key)?, key).await?)),
    }
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

/// Brings the tables of a database up to date, and gives roles what they need.
///
/// # Errors
/// As [`postgres::upgrade`]; `Kind::Usage` for a file.
pub async fn upgrade(place: &StorePlace, key: &StoreKey, roles: &Roles) -> Result<Upgraded> {
    match place {
        StorePlace::Sqlite(_) => Err(Error::usage("the store is a file of SQLite, which has no roles")
            .hint("nothing is to be done: `machine-id authority serve` brings it up to date when it starts")),
        StorePlace::Postgres(url) => postgres::upgrade(&pool(url, key)?, roles).await,
    }
}

/// What an operator should hear of how the store keeps what was committed, and what to do about it. A file is on the
/// disk before anything of it is answered.
///
/// # Errors
/// As [`postgres::durability`].
pub async fn durability(place: &StorePlace, key: &StoreKey) -> Result<Vec<(String, &'static str)>> {
    match place {
        StorePlace::Sqlite(_) => Ok(Vec::new()),
        StorePlace::Postgres(url) => postgres::durability(&pool(url, key)?).await,
    }
}

/// The same, of a store that must be one that can be served.
///
/// # Errors
/// As [`durability`] and [`read`]; `Kind::Usage` where it is closed.
pub async fn check(place: &StorePlace, key: &StoreKey) -> Result<Vec<(String, &'static str)>> {
    let warnings = durability(place, key).await?;
    let closed = read(place, key).await?.closed().await?;
    closed.map_or(Ok(warnings), |closed| Err(closed.error()))
}

/// How many revoked certificates end at `since` or later.
///
/// # Errors
/// As [`read`], and where whoever asks may not know.
pub async fn revoked_count(place: &StorePlace, key: &StoreKey, since: i64) -> Result<usize> {
    let count = match place {
        StorePlace::Sqlite(path) => SqliteTrail::open(path, key.owner())?.revoked_count(since).await,
        StorePlace::Postgres(url) => PostgresTrail::open(pool(url, key)?).await?.revoked_count(since).await,
    };
    Ok(usize::try_from(count?).unwrap_or_default())
}

/// Connections, with files named from the data directory, as its owner.
fn pool(url: &DatabaseUrl, key: &StoreKey) -> Result<Pool> {
    Ok(Pool::new(Settings::new(url, &Environment::of_process(), key.folder(), key.owner())?))
}

/// Two stores, each where it is and as messages name it.
#[derive(Debug)]
pub struct Ways {
    /// The one that is served.
    pub from: (StorePlace, String),
    /// The one that is to be.
    pub to: (StorePlace, String),
    /// What the rows of both are sealed with: they are carried as they are.
    pub key: StoreKey,
}

impl Ways {
    async fn source(&self, now: i64) -> Result<Box<dyn Archive>> {
        let (place, name) = &self.from;
        Ok(match place {
            StorePlace::Sqlite(path) => Box::new(SqliteArchive::source(path, name, &self.key, now)?),
            StorePlace::Postgres(url) => {
                Box::new(PostgresArchive::source(pool(url, &self.key)?, name, &self.key).await?)
            }
        })
    }

    /// The target; a file is made where that `makes` one.
    async fn target(&self, makes: bool) -> Result<Box<dyn Archive>> {
        let (place, name) = &self.to;
        Ok(match place {
            StorePlace::Sqlite(path) if makes => Box::new(SqliteArchive::target(path, name, &self.key)?),
            StorePlace::Sqlite(path) => Box::new(SqliteArchive::known(path, name, &self.key)?),
            StorePlace::Postgres(url) => {
                Box::new(PostgresArchive::target(pool(url, &self.key)?, name, &self.key).await?)
            }
        })
    }
}

/// Carries all records from one store to the other; whether there was anything left to do. A file is made where there is
/// none. `say` is told how far it is.
///
/// # Errors
/// `Kind::Usage` where a store cannot be opened, the target holds records, or one of them is closed for another reason.
pub async fn migrate(ways: &Ways, now: i64, say: &mut (dyn FnMut(String) + Send)) -> Result<bool> {
    let mut from = ways.source(now).await?;
    let mut to = ways.target(true).await?;
    transfer::migrate(&mut *from, &mut *to, &ways.key.load()?, say).await
}

/// Makes what was brought to the target void, and lets the source go on.
///
/// # Errors
/// `Kind::Usage` where a store cannot be opened, or the migration between them is finished.
pub async fn give_up(ways: &Ways, now: i64) -> Result<()> {
    let mut from = ways.source(now).await?;
    let mut to = ways.target(false).await?;
    transfer::give_up(&mut *from, &mut *to).await
}
