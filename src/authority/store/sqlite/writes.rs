//! What is written. Each function runs inside a savepoint of the writer's
//! transaction: an error undoes all that it did.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::super::body::{self, IssuanceOrigin};
use super::super::{Issued, NewIssuance, NewRefusal, NewRevocation, NewSigned, Revoked};
use super::instances;
use super::rows::{self, Columns, Row, certificates, event};

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
    if let Some(join) = &entry.join {
        return instances::join(connection, entry, rows, body, join);
    }
    let mut free = false;
    for nth in 0..entry.max_uses.max(1) {
        let key = rows::proof_key(&entry.replay, nth);
        if rows::use_up(connection, entry, key.as_ref(), rows, None)? {
            free = true;
            break;
        }
        if let Some(plan) = rows::repeat(connection, key.as_ref(), entry)? {
            return Ok(Issued::Accepted { plan: Some(plan), generation: None });
        }
    }
    if !free {
        return Ok(Issued::Used);
    }
    rows::record(connection, entry, rows, body)?;
    Ok(Issued::Accepted { plan: None, generation: None })
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
    let origin: IssuanceOrigin = serde_json::from_str(&begun).map_err(rows::other_error)?;
    let body = body::revoked(entry, bot.as_deref(), token.as_deref(), origin).map_err(rows::sql_error)?;
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
    instances::prune(connection, now)?;
    Ok(proofs.max(assertions) >= step)
}

/// A write that changes nothing of matter, but is one.
pub(super) fn probe(connection: &Connection) -> rusqlite::Result<()> {
    connection.prepare_cached("UPDATE state SET probes = probes + 1")?.execute([]).map(drop)
}
