//! What is read, on a connection that cannot write.

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _, Row, ToSql, params};

use super::super::{
    CertificateKind, CertificateRecord, Event, EventFilter, RevocationList, RevokedCertificate,
};
use super::rows;
use crate::clock::LEEWAY;

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
                kind: kind(row, 2)?,
                expires: row.get(3)?,
                revoked: row.get(4)?,
            })
        })
        .optional()
}

/// Every revoked certificate that a clock within the leeway may still take for valid.
pub(super) fn revoked(connection: &Connection, now: i64) -> rusqlite::Result<RevocationList> {
    // Number and list of the same moment.
    let moment = connection.unchecked_transaction()?;
    let number: i64 = moment.query_row("SELECT revocations FROM state", [], |row| row.get(0))?;
    let certificates = moment
        .prepare_cached(
            "SELECT serial, kind, revoked FROM certificates
             WHERE revoked IS NOT NULL AND expires >= ?1 ORDER BY serial",
        )?
        .query_map([now.saturating_sub(LEEWAY)], |row| {
            Ok(RevokedCertificate { serial: unsigned(row, 0)?, kind: kind(row, 1)?, revoked: row.get(2)? })
        })?
        .collect::<rusqlite::Result<_>>()?;
    let number = u64::try_from(number).unwrap_or(0);
    Ok(RevocationList { number, certificates })
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
    if let Some(bot) = &filter.bot {
        narrow(" AND bot = ?", bot);
    }
    if let Some(token) = &filter.token {
        narrow(" AND token = ?", token);
    }
    if let Some(event) = &filter.event {
        narrow(" AND event = ?", event);
    }
    if let Some(id) = &filter.id {
        narrow(" AND id = ?", id);
    }
    narrow(" ORDER BY sequence LIMIT ?", &limit);
    connection
        .prepare_cached(&sql)?
        .query_map(values.as_slice(), |row| {
            let body: String = row.get(1)?;
            let body = serde_json::from_str(&body)
                .map_err(|error| rusqlite::Error::FromSqlConversionFailure(1, Type::Text, Box::new(error)))?;
            Ok(Event { sequence: row.get(0)?, body })
        })?
        .collect()
}

/// Whether the schema can be read.
pub(super) fn probe(connection: &Connection) -> rusqlite::Result<()> {
    connection
        .prepare_cached("SELECT id FROM state WHERE id = ?1")?
        .query_row(params![1], |row| row.get::<_, i64>(0))
        .map(drop)
}

fn kind(row: &Row<'_>, column: usize) -> rusqlite::Result<CertificateKind> {
    let number: i64 = row.get(column)?;
    [CertificateKind::Ssh, CertificateKind::Tls]
        .into_iter()
        .find(|kind| rows::kind(*kind) == number)
        .ok_or(rusqlite::Error::IntegralValueOutOfRange(column, number))
}

fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}
