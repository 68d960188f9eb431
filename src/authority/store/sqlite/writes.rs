//! What is written. Each function runs inside a savepoint of the writer's
//! transaction: an error undoes all that it did.

use ring::digest::{self, Digest, SHA256};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::super::body::{self, Origin};
use super::super::{
    CertificateKind, Issued, NewCertificate, NewIssuance, NewRefusal, NewRevocation, NewSigned, Revoked,
};
use super::roster;
use crate::error::{Context as _, Error, Kind, Result};
use crate::join::Replay;

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
fn certificates(connection: &Connection, issuance: i64, rows: &[Row]) -> rusqlite::Result<()> {
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

/// Uses the proof up and records the issuance. The insert under the unique
/// index of `proofs` decides; nothing is looked up before it. Each use that
/// the proof has takes a place of its own there, so nothing is counted that
/// two at once could count wrongly.
pub(super) fn issue(
    connection: &Connection,
    entry: &NewIssuance,
    rows: &[Row],
    body: &str,
) -> rusqlite::Result<Issued> {
    if let Some(member) = &entry.membership {
        return roster::join(connection, entry, rows, body, member);
    }
    let mut free = false;
    for nth in 0..entry.max_uses.max(1) {
        let key = proof_key(&entry.replay, nth);
        if use_up(connection, entry, key.as_ref(), rows, None)? {
            free = true;
            break;
        }
        if let Some(plan) = repeat(connection, key.as_ref(), entry)? {
            return Ok(Issued::Repeat { plan });
        }
    }
    if !free {
        return Ok(Issued::Used);
    }
    record(connection, entry, rows, body)?;
    Ok(Issued::Fresh)
}

/// Uses a proof up under that key, unless it was before; `generation` is what a registered worker is answered.
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
        .execute(params![key, entry.fingerprint, first, entry.replay.held_until, entry.plan, generation])?;
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
        id: &entry.id,
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
        .query_row(params![key, entry.fingerprint], |row| row.get(0))
        .optional()
}

/// Records a certificate of the command line.
pub(super) fn sign(
    connection: &Connection,
    entry: &NewSigned,
    rows: &[Row],
    body: &str,
) -> rusqlite::Result<()> {
    let of = Columns { time: entry.time, event: "signed", id: &entry.id, bot: None, token: None };
    let issuance = event(connection, &of, body)?;
    certificates(connection, issuance, rows)
}

/// Records a refusal.
pub(super) fn refuse(connection: &Connection, entry: &NewRefusal, body: &str) -> rusqlite::Result<()> {
    let of = Columns {
        time: entry.time,
        event: "refused",
        id: &entry.id,
        bot: entry.bot.as_deref(),
        token: Some(&entry.token),
    };
    event(connection, &of, body).map(drop)
}

/// Uses the assertion up, and revokes the issuance if it is not revoked yet.
pub(super) fn revoke(connection: &Connection, entry: &NewRevocation) -> rusqlite::Result<Revoked> {
    let found = connection
        .prepare_cached(
            "SELECT sequence, bot, token, body FROM events WHERE id = ?1 AND event IN ('issued', 'signed')",
        )?
        .query_row([&entry.issuance_id], |row| {
            let (bot, token): (Option<String>, Option<String>) = (row.get(1)?, row.get(2)?);
            Ok((row.get::<_, i64>(0)?, bot, token, row.get::<_, String>(3)?))
        })
        .optional()?;
    let Some((issuance, bot, token, begun)) = found else { return Ok(Revoked::Unknown) };
    let used = connection
        .prepare_cached(
            "INSERT INTO assertions (issuance, id, held_until) VALUES (?1, ?2, ?3)
             ON CONFLICT (issuance, id) DO NOTHING",
        )?
        .execute(params![issuance, entry.assertion_id, entry.held_until])?;
    if used == 0 {
        return Ok(Revoked::AssertionUsed);
    }
    let revoked = connection
        .prepare_cached("UPDATE certificates SET revoked = ?2 WHERE issuance = ?1 AND revoked IS NULL")?
        .execute(params![issuance, entry.time])?;
    if revoked == 0 {
        return Ok(Revoked::Before);
    }
    connection.prepare_cached("UPDATE state SET revocations = revocations + 1")?.execute([])?;
    let origin: Origin = serde_json::from_str(&begun).map_err(foreign)?;
    let body = body::revoked(entry, bot.as_deref(), token.as_deref(), origin).map_err(told)?;
    let of = Columns {
        time: entry.time,
        event: "revoked",
        id: &entry.issuance_id,
        bot: bot.as_deref(),
        token: token.as_deref(),
    };
    event(connection, &of, &body)?;
    Ok(Revoked::Now)
}

/// Another library's error on the way through SQLite's.
fn foreign(error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(Box::new(error))
}

/// One of our own errors on the same way.
pub(super) fn told(error: Error) -> rusqlite::Error {
    foreign(std::io::Error::other(error.to_string()))
}

/// Forgets at most `step` proofs and as many assertions whose time is up;
/// whether there may be more.
pub(super) fn prune(connection: &Connection, now: i64, step: usize) -> rusqlite::Result<bool> {
    let limit = i64::try_from(step).unwrap_or(i64::MAX);
    let proofs = connection
        .prepare_cached(
            "DELETE FROM proofs WHERE number IN (SELECT number FROM proofs WHERE held_until < ?1 LIMIT ?2)",
        )?
        .execute([now, limit])?;
    let assertions = connection
        .prepare_cached(
            "DELETE FROM assertions WHERE (issuance, id) IN (
                SELECT issuance, id FROM assertions WHERE held_until < ?1 LIMIT ?2)",
        )?
        .execute([now, limit])?;
    roster::prune(connection, now)?;
    Ok(proofs.max(assertions) >= step)
}

/// A write that changes nothing of matter, but is one.
pub(super) fn probe(connection: &Connection) -> rusqlite::Result<()> {
    connection.prepare_cached("UPDATE state SET probes = probes + 1")?.execute([]).map(drop)
}
