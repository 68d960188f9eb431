//! The rows that several writes have in common: events, certificates, used proofs.

use ring::digest::{self, Digest, SHA256};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::super::{CertificateKind, NewCertificate, NewIssuance};
use crate::error::{Context as _, Error, Kind, Result};
use crate::join::verify::Replay;

/// A certificate as its columns want it.
pub(super) struct Row {
    serial: i64,
    kind: i64,
    expires: i64,
    key_hash: [u8; 32],
}

/// The rows of the certificates, at least one.
pub(super) fn rows(certificates: &[NewCertificate]) -> Result<Vec<Row>> {
    if certificates.is_empty() {
        return Err(Error::internal("an issuance without certificates"));
    }
    let row = |certificate: &NewCertificate| {
        Ok(Row {
            serial: i64::try_from(certificate.serial)
                .context(Kind::Internal, "a serial of more than 63 bits")?,
            kind: kind(certificate.kind),
            expires: certificate.expires,
            key_hash: certificate.key_hash,
        })
    };
    certificates.iter().map(row).collect()
}

/// The number of a kind.
pub(super) fn kind(kind: CertificateKind) -> i64 {
    match kind {
        CertificateKind::Ssh => 0,
        CertificateKind::Tls => 1,
    }
}

/// What an event is searched by.
pub(super) struct Columns<'a> {
    pub(super) time: i64,
    pub(super) event: &'a str,
    pub(super) id: &'a str,
    pub(super) bot: Option<&'a str>,
    pub(super) token: Option<&'a str>,
}

/// Appends an event; its sequence.
pub(super) fn event(connection: &Connection, of: &Columns<'_>, body: &str) -> rusqlite::Result<i64> {
    connection
        .prepare_cached(
            "INSERT INTO events (time, event, id, bot, token, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .insert(params![of.time, of.event, of.id, of.bot, of.token, body])
}

/// Records what is about to be signed for an event.
pub(super) fn certificates(connection: &Connection, issuance: i64, rows: &[Row]) -> rusqlite::Result<()> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO certificates (serial, issuance, kind, expires, key_hash) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    for row in rows {
        insert.execute(params![row.serial, issuance, row.kind, row.expires, row.key_hash])?;
    }
    Ok(())
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

/// Uses a proof up under that key, unless it was before; `generation` is what a registered instance is answered.
pub(super) fn use_up(
    connection: &Connection,
    entry: &NewIssuance,
    key: &[u8],
    rows: &[Row],
    generation: Option<i64>,
) -> rusqlite::Result<bool> {
    let first = rows.first().map_or(0, |row| row.serial);
    let used = connection
        .prepare_cached(
            "INSERT INTO proofs (key, fingerprint, certificate, held_until, plan, generation)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (key) DO NOTHING",
        )?
        .execute(params![
            key,
            entry.plan.fingerprint,
            first,
            entry.replay.held_until,
            entry.plan.json,
            generation
        ])?;
    Ok(used > 0)
}

/// Records the issuance and its certificates; its sequence.
pub(super) fn record(
    connection: &Connection,
    entry: &NewIssuance,
    rows: &[Row],
    body: &str,
) -> rusqlite::Result<i64> {
    let of = Columns {
        time: entry.time,
        event: "issued",
        id: &entry.plan.id,
        bot: Some(&entry.bot),
        token: Some(&entry.token),
    };
    let issuance = event(connection, &of, body)?;
    certificates(connection, issuance, rows)?;
    Ok(issuance)
}

/// The plan of that use of a proof, if this is the same request again: a
/// retry, unless any certificate of that issuance has been revoked since.
pub(super) fn repeat(
    connection: &Connection,
    key: &[u8],
    entry: &NewIssuance,
) -> rusqlite::Result<Option<String>> {
    connection
        .prepare_cached(
            "SELECT plan FROM proofs WHERE key = ?1 AND fingerprint = ?2 AND NOT EXISTS (
                SELECT 1 FROM certificates AS one JOIN certificates AS other USING (issuance)
                WHERE one.serial = proofs.certificate AND other.revoked IS NOT NULL)",
        )?
        .query_row(params![key, entry.plan.fingerprint], |row| row.get(0))
        .optional()
}

/// Another library's error on the way through SQLite's.
pub(super) fn other_error(error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(Box::new(error))
}

/// One of our own errors on the same way.
pub(super) fn sql_error(error: Error) -> rusqlite::Error {
    other_error(std::io::Error::other(error.to_string()))
}
