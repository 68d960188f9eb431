//! What is let go of the trail, where `retain` is set. Triggers keep all that
//! is younger than `state.kept_from`, whose certificates are good or were not
//! good for so long, and the last event.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::super::event;
use super::rows;

/// How much further it goes at least, in seconds, without an operator: each time is an event.
const STRIDE: i64 = 86_400;

/// From when on everything is kept.
pub(super) fn kept_from(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("SELECT kept_from FROM state")?.query_row([], |row| row.get(0))
}

/// Where the records are being carried to, if they are. Nothing is let go meanwhile: it would stay there.
pub(super) fn moving(connection: &Connection) -> rusqlite::Result<Option<String>> {
    connection.prepare_cached("SELECT moving FROM state")?.query_row([], |row| row.get(0))
}

/// From when on everything is to be kept, where that is later than now: as far as `before`. Without being `asked` by an
/// operator no further than as long as the authority has been running since, whatever the clock says, and not a first time.
pub(super) fn further(
    connection: &Connection,
    before: i64,
    run: i64,
    asked: bool,
) -> rusqlite::Result<Option<i64>> {
    let (from, at): (i64, i64) = connection
        .prepare_cached("SELECT kept_from, kept_run FROM state")?
        .query_row([], |row| row.try_into())?;
    let next = match asked {
        true => before,
        false if from == 0 => return Ok(None),
        false => before.min(from.saturating_add(run.saturating_sub(at))),
    };
    let stride = if asked { 1 } else { STRIDE };
    Ok((next >= from.saturating_add(stride)).then_some(next))
}

/// How many events are let go if everything is kept from `from` on.
pub(super) fn count(connection: &Connection, from: i64) -> rusqlite::Result<i64> {
    connection
        .prepare_cached(
            "SELECT count(*) FROM events WHERE time < ?1 AND NOT EXISTS (
                SELECT 1 FROM certificates WHERE issuance = sequence AND expires >= ?1)",
        )?
        .query_row([from], |row| row.get(0))
}

/// Lets so many events go, from now on.
pub(super) fn begin(
    connection: &Connection,
    from: i64,
    run: i64,
    now: i64,
    events: i64,
) -> rusqlite::Result<()> {
    let store: String = connection
        .prepare_cached("UPDATE state SET kept_from = max(kept_from, ?1), kept_run = ?2 RETURNING store")?
        .query_row([from, run], |row| row.get(0))?;
    rows::append(connection, &event::pruned(now, &store, events, from)).map(drop)
}

/// The event that a pass is at.
pub(super) type Place = (i64, i64);

/// Takes away what may go of the next events behind `place`, at most `step` of them; how many that were, and the place
/// to go on from, if there may be more.
pub(super) fn step(
    connection: &Connection,
    place: Place,
    step: usize,
) -> rusqlite::Result<(u64, Option<Place>)> {
    if moving(connection)?.is_some() {
        return Ok((0, None));
    }
    let from = kept_from(connection)?;
    let limit = i64::try_from(step).unwrap_or(i64::MAX);
    let found: Vec<Place> = connection
        .prepare_cached(
            "SELECT time, sequence FROM events WHERE (time, sequence) > (?1, ?2) AND time < ?3
             ORDER BY time, sequence LIMIT ?4",
        )?
        .query_map(params![place.0, place.1, from, limit], |row| row.try_into())?
        .collect::<rusqlite::Result<_>>()?;
    let mut gone = 0;
    for (_, sequence) in &found {
        gone += u64::from(take(connection, *sequence, from)?);
    }
    Ok((gone, found.last().copied().filter(|_| found.len() >= step)))
}

/// Takes an event away with all its certificates, if none of them is good or was lately, and it is not the last.
fn take(connection: &Connection, sequence: i64, from: i64) -> rusqlite::Result<bool> {
    let stays: Option<i64> = connection
        .prepare_cached(
            "SELECT 1 WHERE ?1 = (SELECT max(sequence) FROM events)
                OR EXISTS (SELECT 1 FROM certificates WHERE issuance = ?1 AND expires >= ?2)
                OR EXISTS (SELECT 1 FROM assertions WHERE issuance = ?1)",
        )?
        .query_row([sequence, from], |row| row.get(0))
        .optional()?;
    if stays.is_some() {
        return Ok(false);
    }
    connection.prepare_cached("DELETE FROM certificates WHERE issuance = ?1")?.execute([sequence])?;
    connection.prepare_cached("DELETE FROM events WHERE sequence = ?1")?.execute([sequence])?;
    Ok(true)
}
