//! The rows that several writes have in common: events, certificates, used proofs.

use std::error::Error;

use ring::digest::{self, Digest, SHA256};
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, Type, ValueRef};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::super::event::NewEvent;
use super::super::packed::{pack, unpack};
use super::super::{
    CertificateKind, Earlier, EarlierCertificate, Issued, NewCertificate, NewIssuance, PlanRecord,
};
use crate::join::verify::Replay;

impl ToSql for CertificateKind {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Ssh => 0.into(),
            Self::Tls => 1.into(),
        })
    }
}

impl FromSql for CertificateKind {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value.as_i64()? {
            0 => Ok(Self::Ssh),
            1 => Ok(Self::Tls),
            other => Err(FromSqlError::OutOfRange(other)),
        }
    }
}

/// Appends an event; its sequence.
pub(super) fn append(connection: &Connection, new: &NewEvent) -> rusqlite::Result<i64> {
    connection
        .prepare_cached(
            "INSERT INTO events (time, event, id, bot, token, body, packed) VALUES (?1, ?2, ?3, ?4, ?5, '', ?6)",
        )?
        .insert(params![new.time, new.event, new.id, new.bot, new.token, pack(&new.body.0)])
}

/// The body in that column of a row: text, or packed.
pub(super) fn body(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    match row.get_ref(column)? {
        ValueRef::Blob(packed) => unpack(packed).map_err(|error| not_a_body(error.to_string())),
        text => Ok(text.as_str()?.to_owned()),
    }
}

/// Records what is about to be signed, with its event, whose sequence it answers.
pub(super) fn record(
    connection: &Connection,
    event: &NewEvent,
    certificates: &[NewCertificate],
) -> rusqlite::Result<i64> {
    let issuance = append(connection, event)?;
    let mut insert = connection.prepare_cached(
        "INSERT INTO certificates (serial, issuance, kind, expires, key_hash) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    for NewCertificate { serial, kind, expires, key_hash, .. } in certificates {
        insert.execute(params![serial, issuance, kind, expires, key_hash])?;
    }
    Ok(issuance)
}

/// What names one use of a proof among those of all issuers: SHA-256 over the
/// number of the use (from 0) and the length of the issuer's name in four
/// bytes each, the name, and the proof's id.
pub(super) fn proof_key(replay: &Replay, nth: u32) -> Digest {
    let mut hash = digest::Context::new(&SHA256);
    hash.update(&nth.to_be_bytes());
    hash.update(&u32::try_from(replay.issuer.len()).unwrap_or(u32::MAX).to_be_bytes());
    hash.update(replay.issuer.as_bytes());
    hash.update(replay.id.as_bytes());
    hash.finish()
}

/// Uses a proof up under that key, unless it was before; `generation` is what a
/// registered instance is answered, `run` what the odometer says.
pub(super) fn use_up(
    connection: &Connection,
    key: &[u8],
    entry: &NewIssuance,
    plan: &PlanRecord,
    generation: Option<i64>,
    run: i64,
) -> rusqlite::Result<bool> {
    // Without one the column has no value, and nothing is recorded.
    let first = plan.certificates.first().map(|certificate| certificate.serial);
    let held = entry.replay.held;
    let held_to_run = run.saturating_add(held.lasts);
    let used = connection
        .prepare_cached(
            "INSERT INTO proofs (key, fingerprint, certificate, held_until, held_to_run, generation)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (key) DO NOTHING",
        )?
        .execute(params![key, plan.fingerprint, first, held.until, held_to_run, generation])?;
    Ok(used > 0)
}

/// The answer to that use of a proof, if this is the same request again: a
/// retry, unless any certificate of that issuance has been revoked since.
pub(super) fn repeat(
    connection: &Connection,
    key: &[u8],
    plan: &PlanRecord,
) -> rusqlite::Result<Option<Issued>> {
    let used: Option<(i64, Option<i64>)> = connection
        .prepare_cached(
            "SELECT certificate, generation FROM proofs WHERE key = ?1 AND fingerprint IN (?2, ?3)",
        )?
        .query_row(params![key, plan.fingerprint, plan.former_fingerprint], |row| row.try_into())
        .optional()?;
    let Some((first, generation)) = used else { return Ok(None) };
    let mut statement = connection.prepare_cached(
        "SELECT id, time, all_of.serial, all_of.kind, all_of.expires, all_of.key_hash, all_of.revoked
         FROM certificates AS one JOIN events ON sequence = issuance JOIN certificates AS all_of USING (issuance)
         WHERE one.serial = ?1 ORDER BY all_of.serial",
    )?;
    let mut rows = statement.query([first])?;
    let mut earlier: Option<Earlier> = None;
    while let Some(row) = rows.next()? {
        if row.get::<_, Option<i64>>(6)?.is_some() {
            return Ok(None);
        }
        let certificate = EarlierCertificate {
            serial: row.get(2)?,
            kind: row.get(3)?,
            expires: row.get(4)?,
            key_hash: row.get(5)?,
        };
        match &mut earlier {
            Some(earlier) => earlier.certificates.push(certificate),
            None => {
                earlier =
                    Some(Earlier { id: row.get(0)?, time: row.get(1)?, certificates: vec![certificate] });
            }
        }
    }
    Ok(earlier.map(|earlier| Issued::Accepted { plan: Some(earlier), generation }))
}

/// A body in the trail that is none.
pub(super) fn not_a_body(error: impl Into<Box<dyn Error + Send + Sync>>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(1, Type::Text, error.into())
}
