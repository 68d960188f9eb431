//! What is read, on a connection that cannot write.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _, ToSql};

use super::super::{
    CertificateRecord, Cursor, Event, EventFilter, RevokedCertificate, RevokedSince, RevokedUpto,
};
use super::super::{event, hosts};
use super::outside::Outside;
use super::{closing, rows};
use crate::error::Result;

/// The certificate of that serial.
pub(super) fn certificate(
    connection: &Connection,
    serial: u64,
) -> rusqlite::Result<Option<CertificateRecord>> {
    let Ok(serial) = i64::try_from(serial) else { return Ok(None) };
    connection
        .prepare_cached(
            "SELECT id, key_hash, kind, expires, revoked, CASE WHEN host IS NOT NULL THEN ifnull(packed, body) END,
                (SELECT id FROM instances WHERE number = certificates.instance AND locked IS NULL), ca
             FROM certificates JOIN events ON sequence = issuance WHERE serial = ?1",
        )?
        .query_row([serial], |row| {
            Ok(CertificateRecord {
                issuance_id: row.get(0)?,
                key_hash: row.get(1)?,
                kind: row.get(2)?,
                expires: row.get(3)?,
                revoked: row.get(4)?,
                hosts: match row.get_ref(5)? {
                    ValueRef::Null => row.get::<_, Option<String>>(6)?.into_iter().collect(),
                    _ => hosts::names(&event::read(&rows::body(row, 5)?).map_err(rows::not_a_body)?, serial),
                },
                ca: row.get(7)?,
            })
        })
        .optional()
}

/// The revoked certificates that end at `since` or later, revoked since so many were known, of one moment.
pub(super) fn revoked(
    connection: &Connection,
    outside: &Outside,
    since: i64,
    known: Option<RevokedUpto>,
) -> rusqlite::Result<Result<RevokedSince>> {
    // First of all, so that nothing is known by then that this moment lacks.
    let heard = outside.hear(connection)?;
    // What was revoked since is elsewhere, or lost: a list that lacks it is worse than none.
    if let Some(closed) = closing::closed(connection)? {
        return Ok(Err(closed.error()));
    }
    if let Err(loss) = heard {
        return Ok(Err(loss.error("cannot make a list")));
    }
    let revocations =
        connection.prepare_cached("SELECT revocations FROM state")?.query_row([], |row| row.get(0))?;
    let upto = RevokedUpto { restored: outside.restored().map(|restored| restored.time), revocations };
    let known = known.filter(|known| known.restored == upto.restored && known.revocations <= revocations);
    // Each is led to by an index.
    let (which, after) = match known {
        Some(known) => ("revocation > ?2", known.revocations),
        None => ("revoked IS NOT NULL AND ?2 = 0", 0),
    };
    let certificates = connection
        .prepare_cached(&format!(
            "SELECT serial, kind, revoked, expires, host IS NOT NULL, ca FROM certificates WHERE {which} AND expires >= ?1"
        ))?
        .query_map([since, after], |row| {
            Ok(RevokedCertificate {
                serial: row.get(0)?,
                kind: row.get(1)?,
                revoked: row.get(2)?,
                expires: row.get(3)?,
                is_host: row.get(4)?,
                ca: row.get(5)?,
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Ok(RevokedSince { certificates, upto, is_all: known.is_none() }))
}

/// How many of them there are.
pub(super) fn revoked_count(connection: &Connection, since: i64) -> rusqlite::Result<i64> {
    let sql = "SELECT count(*) FROM certificates WHERE revoked IS NOT NULL AND expires >= ?1";
    connection.query_row(sql, [since], |row| row.get(0))
}

/// Where among the proofs somebody looks for those whose time is up: behind this time and this row.
pub(super) type Place = (i64, i64);

/// Which of the next `step` proofs behind that place can be forgotten, by the
/// wall clock and by the odometer, which says `run`; and where to look on. So
/// each is looked at once, also where the odometer holds all of them.
pub(super) fn forgettable(
    connection: &Connection,
    now: i64,
    run: i64,
    after: Place,
    step: usize,
) -> rusqlite::Result<(Vec<i64>, Option<Place>)> {
    let limit = i64::try_from(step).unwrap_or(i64::MAX);
    let seen = connection
        .prepare_cached(
            "SELECT held_until, number, held_to_run < ?2 FROM proofs
             WHERE held_until < ?1 AND held_until >= ?3 AND (held_until > ?3 OR number > ?4)
             ORDER BY held_until, number LIMIT ?5",
        )?
        .query_map([now, run, after.0, after.1, limit], |row| row.try_into())?
        .collect::<rusqlite::Result<Vec<(i64, i64, bool)>>>()?;
    let next = seen.last().filter(|_| seen.len() >= step).map(|(until, number, _)| (*until, *number));
    let due = seen.into_iter().filter(|(_, _, is_due)| *is_due).map(|(_, number, _)| number);
    Ok((due.collect(), next))
}

/// A page of the audit trail, with the refusals of strangers in their places.
pub(super) fn events(
    connection: &Connection,
    filter: &EventFilter,
    after: Cursor,
    limit: usize,
) -> rusqlite::Result<Vec<Event>> {
    // The first page finds its place by the index on time; from there on the trail is read in its order,
    // where times may be out of order by a little and are still compared.
    let first = match filter.since {
        Some(since) if after == Cursor::default() => connection
            .prepare_cached("SELECT min(sequence) - 1 FROM events WHERE time >= ?1")?
            .query_row([since], |row| row.get::<_, Option<i64>>(0))?
            .unwrap_or(i64::MAX),
        _ => after.event,
    };
    let mut rows = page(
        connection,
        "sequence, 0, sequence, ifnull(packed, body) FROM events WHERE sequence",
        first,
        filter,
        limit,
    )?;
    let from = "behind, 1, number, body FROM strangers WHERE number";
    rows.extend(page(connection, from, after.stranger, filter, limit)?);
    rows.sort_by_key(|(place, _)| *place);
    rows.truncate(limit);
    let mut cursor = after;
    let read = |((_, kind, key), body): (_, String)| {
        *(if kind == 0 { &mut cursor.event } else { &mut cursor.stranger }) = key;
        Ok(Event { cursor, body: event::read(&body).map_err(rows::not_a_body)? })
    };
    rows.into_iter().map(read).collect()
}

/// Where a row stands (the event before it or itself, which of the two tables, its own key), and its body.
type Row = ((i64, i64, i64), String);

/// The rows `from` a table that match, behind that key.
fn page(
    connection: &Connection,
    from: &str,
    after: i64,
    filter: &EventFilter,
    limit: usize,
) -> rusqlite::Result<Vec<Row>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut sql = format!("SELECT {from} > ?");
    let mut values: Vec<&dyn ToSql> = vec![&after];
    let mut narrow = |condition: &str, value| {
        sql.push_str(condition);
        values.push(value);
    };
    if let Some(since) = &filter.since {
        narrow(" AND +time >= ?", since);
    }
    for (condition, value) in [
        (" AND bot = ?", &filter.bot),
        (" AND token = ?", &filter.token),
        (" AND event = ?", &filter.event),
        (" AND id = ?", &filter.id),
    ] {
        if let Some(value) = value {
            narrow(condition, value);
        }
    }
    narrow(" ORDER BY 3 LIMIT ?", &limit);
    connection
        .prepare_cached(&sql)?
        .query_map(values.as_slice(), |row| {
            Ok(((row.get(0)?, row.get(1)?, row.get(2)?), rows::body(row, 3)?))
        })?
        .collect()
}

/// Whether the schema can be read.
pub(super) fn probe(connection: &Connection) -> rusqlite::Result<()> {
    connection.prepare_cached("SELECT id FROM state WHERE id = 1")?.query_row([], |_| Ok(()))
}
