//! How a store is begun and opened for writing, and whether the one that
//! stands there is the one that was.

use std::io::ErrorKind;
use std::path::Path;

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, params};

use super::super::event::{self, NewEvent};
use super::super::loss::{Known, LISTS_AHEAD, Loss, Mark, Reached};
use super::super::odometer::Odometer;
use super::super::packed::pack;
use super::super::seal::{Seal, StoreKey};
use super::outside::{Outside, reached, read_mark, said, write_mark};
use super::{closing, rows, schema, sealing, unwritten};
use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::{PRIVATE_FILE, access, replace};
use crate::random;

const CANNOT: &str = "cannot set up the database";

/// What an opened store consists of.
pub(super) struct Opened {
    pub(super) writing: Connection,
    pub(super) reading: Connection,
    pub(super) outside: Outside,
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
        let mark = read_mark(path, key.owner())?;
        let known = settle(transaction, path, mark, opening, now)?;
        Ok((known, sealing::settle(transaction, key, opening != Opening::Known)?))
    };
    let (writing, (known, sealed)) = schema::open(path, opening != Opening::Known, settle)?;
    let seal = sealed.finish(key)?;
    let reading = schema::open_for_reading(path)?;
    let store =
        reading.query_row("SELECT store FROM state", [], |row| row.get(0)).context(Kind::Internal, CANNOT)?;
    let outside = Outside::of(path, before, store, known)?;
    // A full disk must not keep an authority from starting; the server tries again, and says so.
    drop(outside.mark());
    Ok(Opened { writing, reading, outside, seal })
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
/// mark, and says in it where it lacks something. What is known of it then.
fn settle(
    transaction: &Transaction<'_>,
    path: &Path,
    mark: Option<Mark>,
    opening: Opening,
    now: i64,
) -> Result<Known> {
    let known: Option<String> = transaction
        .query_row("SELECT store FROM state", [], |row| row.get(0))
        .context(Kind::Internal, CANNOT)?;
    let mut marked = mark.as_ref().map(|mark| mark.reached.clone()).unwrap_or_default();
    let found = said(transaction, &marked).context(Kind::Internal, CANNOT)?;
    if marked.id.is_empty() {
        // No mark, or one of before, which does not say it.
        marked.restored = found.reached.restored;
    }
    let mut farthest = found.reached.clone();
    farthest.raise(&marked);
    let (store, is_named) = match (known, &mark) {
        (Some(store), _) => (store, true),
        // One from before there were identities, or from a copy of that time.
        (None, Some(mark)) if opening == Opening::Known => (mark.store.clone(), false),
        (None, _) => {
            let store = random::hex::<16>()?;
            // First, so that a store which has an identity and no mark was not left so by us.
            write_mark(path, &Mark { store: store.clone(), reached: farthest.clone() })?;
            (store, false)
        }
    };
    if !is_named {
        transaction.execute("UPDATE state SET store = ?1", [&store]).context(Kind::Internal, CANNOT)?;
    }
    let mut known = Known::new(marked);
    let lost = match &mark {
        _ if opening == Opening::First => None,
        _ if opening == Opening::Anew => {
            let event =
                event::restored(now, &store, "new_store", "the operator began a new store".to_owned());
            append_behind(transaction, &farthest, &event)
                .and_then(|_| transaction.execute("UPDATE state SET restored = ?1", [now]))
                .context(Kind::Internal, CANNOT)?;
            return Ok(Known::new(reached(transaction).context(Kind::Internal, CANNOT)?));
        }
        None if is_named => Some(Loss::unmarked(&found.reached)),
        Some(mark) if mark.store != store => {
            return Err(Error::usage(format!(
                "it is another store ({store}) than the one that the mark beside it is of ({})", mark.store
            ))
            .hint("put the right one back")
            .hint("where this one is meant, remove the mark, `.mark` behind the store's name: it is then taken for one that was put back from a copy"));
        }
        _ => known.hear(&found).err(),
    };
    // What it says itself was found before.
    if let Some(lost) = lost.filter(|lost| !lost.is_told() && found.lost.is_none()) {
        let event = event::lost(farthest.no_earlier(now), &store, &lost.to_string());
        append_behind(transaction, &farthest, &event)
            .and_then(|_| {
                transaction.execute(
                    "UPDATE state SET lost = ?1, list_number = max(list_number, ?2)",
                    params![lost.to_string(), farthest.list_number],
                )
            })
            .context(Kind::Internal, CANNOT)?;
    }
    Ok(known)
}

/// Appends an event behind all that there ever was, so that no number comes twice and a copy of that time is found too.
fn append_behind(
    transaction: &Transaction<'_>,
    reached: &Reached,
    event: &NewEvent,
) -> rusqlite::Result<usize> {
    transaction.execute(
        "INSERT INTO events (sequence, time, event, id, body, packed) VALUES (?1, ?2, ?3, ?4, '', ?5)",
        params![reached.sequence.saturating_add(1), event.time, event.event, event.id, pack(&event.body.0)],
    )
}

/// Goes on with the store at `path` without what it has lost, as the operator says.
///
/// # Errors
/// Where it is a mixture of two, too, as when it was written over beside the log of what it was.
pub(super) fn resume(path: &Path, now: i64) -> Result<()> {
    const CANNOT: &str = "cannot go on with the store";
    let mut connection = schema::connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let found: String = connection
        .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        .context(Kind::Usage, CANNOT)?;
    if found != "ok" {
        return Err(Error::usage(found).context("the store is damaged").hint(
            "end the authority, put the store back without `-wal` and `-shm` beside it, and start the authority again",
        ));
    }
    let resume = |transaction: &Transaction<'_>| {
        let (store, lost): (String, Option<String>) =
            transaction.query_row("SELECT store, lost FROM state", [], |row| row.try_into())?;
        let Some(lost) = lost else { return Ok(()) };
        // Not before what it knows of, where the clock is behind.
        let time: i64 = transaction.query_row("SELECT max(time) FROM events", [], |row| row.get(0))?;
        let time = Reached { time, ..Reached::default() }.no_earlier(now);
        rows::append(transaction, &event::restored(time, &store, "accepted_loss", lost))?;
        transaction.execute(
            "UPDATE state SET lost = NULL, restored = ?1, list_number = list_number + ?2, list_what = NULL",
            [time, LISTS_AHEAD],
        )?;
        // Some of them may have been used since.
        transaction.execute("DELETE FROM secrets WHERE instance IS NULL", []).map(drop)
    };
    connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .and_then(|transaction| resume(&transaction).and_then(|()| transaction.commit()))
        .context(Kind::Internal, CANNOT)
}

/// With an absolute path, so that none means something special to SQLite (`:memory:`).
pub(super) fn told<T>(what: &str, path: &Path, open: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    let absolute = std::path::absolute(path).context(Kind::Usage, "not a path");
    absolute.and_then(|path| open(&path)).map_err(|error| {
        unwritten::hint(error.context(format!("cannot {what} the store {}", path.display())))
    })
}
