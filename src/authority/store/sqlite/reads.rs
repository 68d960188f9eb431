//! What is read, on a connection that cannot write.

use rusqlite::{Connection, OptionalExtension as _, ToSql};

use super::super::{CertificateRecord, Event, EventFilter, RevokedCertificate};
use super::rows;

/// The certificate of that serial.
pub(super) fn certificate(
    connection: &Connection,
    serial: u64,
) -> rusqlite::Result<Option<CertificateRecord>> {
    let Ok(serial) = i64::try_from(serial) else { return Ok(None) };
    connection
        .prepare_cached(
            "SELECT id, key_hash, kind, expires, revoked
             FROM certificates JOIN events ON sequence = issuance WHERE serial = ?1",
        )?
        .query_row([serial], |row| {
            Ok(CertificateRecord {
                issuance_id: row.get(0)?,
                key_hash: row.get(1)?,
                kind: row.get(2)?,
                expires: row.get(3)?,
                revoked: row.get(4)?,
            })
        })
        .optional()
}

/// Every revoked certificate that ends at `since` or later.
pub(super) fn revoked(connection: &Connection, since: i64) -> rusqlite::Result<Vec<RevokedCertificate>> {
    connection
        .prepare_cached(
            "SELECT serial, kind, revoked, expires FROM certificates
             WHERE revoked IS NOT NULL AND expires >= ?1 ORDER BY serial",
        )?
        .query_map([since], |row| {
            Ok(RevokedCertificate {
                serial: row.get(0)?,
                kind: row.get(1)?,
                revoked: row.get(2)?,
                expires: row.get(3)?,
            })
        })?
        .collect()
}

/// A page of the audit trail.
pub(super) fn events(
    connection: &Connection,
    filter: &EventFilter,
    after: i64,
    limit: usize,
) -> rusqlite::Result<Vec<Event>> {
    // The first page finds its place by the index on time; from there on the trail is read in its order,
    // where times may be out of order by a little and are still compared.
    let after = match filter.since {
        Some(since) if after <= 0 => connection
            .prepare_cached("SELECT min(sequence) - 1 FROM events WHERE time >= ?1")?
            .query_row([since], |row| row.get::<_, Option<i64>>(0))?
            .unwrap_or(i64::MAX),
        _ => after,
    };
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut sql = String::from("SELECT sequence, body FROM events WHERE sequence > ?");
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
    narrow(" ORDER BY sequence LIMIT ?", &limit);
    connection
        .prepare_cached(&sql)?
        .query_map(values.as_slice(), |row| {
            let body: String = row.get(1)?;
            Ok(Event { sequence: row.get(0)?, body: serde_json::from_str(&body).map_err(rows::not_json)? })
        })?
        .collect()
}

/// Whether the schema can be read.
pub(super) fn probe(connection: &Connection) -> rusqlite::Result<()> {
    connection.prepare_cached("SELECT id FROM state WHERE id = 1")?.query_row([], |_| Ok(()))
}
