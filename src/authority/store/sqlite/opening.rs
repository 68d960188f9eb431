//! How a store is begun and opened for writing, and whether the one that
//! stands there is the one that was.

use std::io::ErrorKind;
use std::path::Path;

use rusqlite::{Connection, Transaction, params};

use super::super::event;
use super::super::odometer::Odometer;
use super::super::packed::pack;
use super::super::seal::{Seal, StoreKey};
use super::outside::{Mark, Outside, last_event};
use super::{closing, schema, sealing};
use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::{PRIVATE_FILE, access, replace};
use crate::random;

const CANNOT: &str = "cannot set up the database";

/// What an opened store consists of.
pub(super) struct Opened {
    pub(super) writing: Connection,
    pub(super) reading: Connection,
    pub(super) outside: Outside,
    /// When it was last put back from a copy.
    pub(super) restored: Option<i64>,
    /// What its rows are sealed with.
    pub(super) seal: Seal,
}

/// How a store comes to be opened.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    /// It has been there.
    Known,
    /// It is the first of this authority.
    First,
    /// It takes the place of one that is lost, as the operator says.
    Anew,
}

/// Opens the store at `path`; one that is begun is made first.
pub(super) fn open(path: &Path, key: &StoreKey, opening: Opening, now: i64) -> Result<Opened> {
    if opening == Opening::Known {
        schema::check_files(path, key.owner(), true)?;
    } else {
        begin(path)?;
    }
    let before = Outside::before(path)?;
    let settle = |transaction: &Transaction<'_>| {
        // While nobody else can commit, so that no mark tells of what is not seen here.
        closing::expect(transaction, None)?;
        let mark = Mark::read(path, key.owner())?;
        settle(transaction, path, mark, opening, now)?;
        sealing::settle(transaction, key, opening != Opening::Known)
    };
    let (writing, sealed) = schema::open(path, opening != Opening::Known, settle)?;
    let seal = sealed.finish(key)?;
    let reading = schema::open_for_reading(path)?;
    let (store, restored) = reading
        .query_row("SELECT store, restored FROM state", [], |row| row.try_into())
        .context(Kind::Internal, CANNOT)?;
    let outside = Outside::of(path, before, store)?;
    // A full disk must not keep an authority from starting; the server tries again, and says so.
    drop(outside.mark(last_event(&reading).context(Kind::Internal, CANNOT)?));
    Ok(Opened { writing, reading, outside, restored, seal })
}

/// The odometer, as the store has it.
pub(super) fn odometer(connection: &Connection) -> rusqlite::Result<Odometer> {
    connection.query_row("SELECT run FROM state", [], |row| row.get(0)).map(Odometer::new)
}

/// Makes the file, for this user alone: SQLite gives its `-wal` and `-shm` files the mode of this one.
fn begin(path: &Path) -> Result<()> {
    access::check(path, true).map_err(|unfit| unfit.error(Kind::Usage, "cannot create the file"))?;
    let is_empty = || std::fs::metadata(path).is_ok_and(|file| file.len() == 0);
    match replace::create_new(path, PRIVATE_FILE) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && is_empty() => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Err(Error::usage("there is a file already").hint("nothing was changed; move it away first"))
        }
        made => made.map(drop).context(Kind::Usage, "cannot create the file"),
    }
}

/// Gives the store its identity where it has none yet, compares it with its
/// mark, and records it where it was put back.
fn settle(
    transaction: &Transaction<'_>,
    path: &Path,
    mark: Option<Mark>,
    opening: Opening,
    now: i64,
) -> Result<()> {
    let known: Option<String> = transaction
        .query_row("SELECT store FROM state", [], |row| row.get(0))
        .context(Kind::Internal, CANNOT)?;
    let last = last_event(transaction).context(Kind::Internal, CANNOT)?;
    let marked = mark.as_ref().map_or(0, |mark| mark.sequence);
    let (store, is_named) = match (known, &mark) {
        (Some(store), _) => (store, true),
        // One from before there were identities, or from a copy of that time.
        (None, Some(mark)) if opening == Opening::Known => (mark.store.clone(), false),
        (None, _) => {
            let store = random::hex::<16>()?;
            // First, so that a store which has an identity and no mark was not left so by us.
            Mark { store: store.clone(), sequence: last.max(marked) }.write(path)?;
            (store, false)
        }
    };
    if !is_named {
        transaction.execute("UPDATE state SET store = ?1", [&store]).context(Kind::Internal, CANNOT)?;
    }
    let (reason, detail) = match &mark {
        _ if opening == Opening::First => return Ok(()),
        _ if opening == Opening::Anew => ("new_store", "the operator began a new store".to_owned()),
        None if is_named => {
            ("no_mark", "no mark stands beside the store: it is a copy, or its mark was removed".to_owned())
        }
        Some(mark) if mark.store != store => {
            return Err(Error::usage(format!(
                "it is another store ({store}) than the one that the mark beside it is of ({})", mark.store
            ))
            .hint("put the right one back")
            .hint("where this one is meant, remove the mark, `.mark` behind the store's name: it is then taken for one that was put back from a copy"));
        }
        Some(_) if marked > last => (
            "put_back",
            format!(
                "the store ends with event {last}, and it had {marked} at least: it was put back from a copy"
            ),
        ),
        _ => return Ok(()),
    };
    // Behind all that there ever was, so that no number comes twice and a copy of that time is found too.
    let event = event::restored(now, &store, reason, detail);
    transaction
        .execute(
            "INSERT INTO events (sequence, time, event, id, body, packed) VALUES (?1, ?2, ?3, ?4, '', ?5)",
            params![
                last.max(marked).saturating_add(1),
                event.time,
                event.event,
                event.id,
                pack(&event.body.0)
            ],
        )
        .and_then(|_| transaction.execute("UPDATE state SET restored = ?1, list_what = NULL", [now]))
        // Some of them may have been used since.
        .and_then(|_| transaction.execute("DELETE FROM secrets WHERE instance IS NULL", []))
        .map(drop)
        .context(Kind::Internal, CANNOT)
}
