//! Refusals of strangers: kept as the trail is, until newer ones push them out.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::super::Stranger;
use super::super::bounds::{MAX_BYTES, MAX_ROW, MAX_ROWS};
use super::super::event::NewEvent;

/// Appends an event, and takes away what is too old for it.
pub(super) fn append(connection: &Connection, stranger: Stranger, new: &NewEvent) -> rusqlite::Result<()> {
    let ring = stranger.ring();
    let (nth, ends): (i64, i64) = connection
        .prepare_cached("SELECT nth, ends FROM strangers WHERE ring = ?1 ORDER BY nth DESC LIMIT 1")?
        .query_row([ring], |row| row.try_into())
        .optional()?
        .unwrap_or_default();
    let texts = [Some(&new.id), new.bot.as_ref(), new.token.as_ref(), Some(&new.body.0)];
    let size = texts.into_iter().flatten().map(String::len).sum::<usize>();
    let (nth, ends) = (nth + 1, ends.saturating_add(i64::try_from(size).unwrap_or(MAX_ROW)));
    connection
        .prepare_cached(
            "INSERT INTO strangers (ring, nth, ends, behind, time, event, id, bot, token, body)
             VALUES (?1, ?2, ?3, (SELECT coalesce(max(sequence), 0) FROM events), ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![ring, nth, ends, new.time, new.event, new.id, new.bot, new.token, new.body.0])?;
    let mut oldest = connection
        .prepare_cached("SELECT number, nth, ends FROM strangers WHERE ring = ?1 ORDER BY nth LIMIT 1")?;
    let mut delete = connection.prepare_cached("DELETE FROM strangers WHERE number = ?1")?;
    loop {
        let (number, first, first_ends): (i64, i64, i64) = oldest.query_row([ring], |row| row.try_into())?;
        if nth - first < MAX_ROWS && ends - first_ends <= MAX_BYTES - MAX_ROW {
            return Ok(());
        }
        delete.execute([number])?;
    }
}

/// How many were pushed out, of all kinds together.
pub(super) fn dropped(connection: &Connection) -> rusqlite::Result<i64> {
    connection
        .prepare_cached(
            "SELECT coalesce(sum(first - 1), 0) FROM (SELECT min(nth) AS first FROM strangers GROUP BY ring)",
        )?
        .query_row([], |row| row.get(0))
}
