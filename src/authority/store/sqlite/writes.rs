//! What is written. Each function runs inside a savepoint of the writer's
//! transaction: an error undoes all that it did.

use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::{Map, Value};

use super::super::event::{self, NewEvent};
use super::super::{Issued, NewIssuance, NewRevocation, PlanRecord, Revoked};
use super::{instances, rows};

/// The last second that has a list number of its own, in the year 2255: 63 bits end in 2262.
const LAST_NUMBERED: i64 = 9_000_000_000;

/// Uses the proof up and records the issuance. The insert under the unique
/// index of `proofs` decides; nothing is looked up before it. Each use that
/// the proof has takes a place of its own there, so nothing is counted that
/// two at once could count wrongly.
pub(super) fn issue(
    connection: &Connection,
    entry: &NewIssuance,
    plan: &PlanRecord,
    event: &NewEvent,
) -> rusqlite::Result<Issued> {
    if let Some(join) = &entry.join {
        return instances::join(connection, entry, plan, event, join);
    }
    for nth in 0..entry.max_uses.max(1) {
        let key = rows::proof_key(&entry.replay, nth);
        if rows::use_up(connection, key.as_ref(), entry, plan, None)? {
            rows::record(connection, event, &plan.certificates)?;
            return Ok(Issued::Accepted { plan: None, generation: None });
        }
        if let Some(again) = rows::repeat(connection, key.as_ref(), plan)? {
            return Ok(again);
        }
    }
    Ok(Issued::Used)
}

/// Uses the assertion up, and revokes the issuance if it is not revoked yet.
pub(super) fn revoke(connection: &Connection, entry: &NewRevocation) -> rusqlite::Result<Revoked> {
    let found: Option<(i64, String)> = connection
        .prepare_cached("SELECT sequence, body FROM events WHERE id = ?1 AND event IN ('issued', 'signed')")?
        .query_row([&entry.issuance_id], |row| row.try_into())
        .optional()?;
    let Some((issuance, begun)) = found else { return Ok(Revoked::Unknown) };
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
    let begun: Map<String, Value> = serde_json::from_str(&begun).map_err(rows::not_json)?;
    rows::append(connection, &event::revoked(entry, &begun))?;
    Ok(Revoked::Now)
}

/// The nanosecond, a random one of its second; or beyond the last one by up to ten milliseconds, if that is
/// more. So it rises in a store that was put back too, since time has passed, and two copies of a
/// store do not give the same.
pub(super) fn list_number(connection: &Connection, now: i64) -> rusqlite::Result<u64> {
    connection
        .prepare_cached(
            "UPDATE state SET list_number = max(
                list_number + 1 + abs(random() % 10000000), ?1 * 1000000000 + abs(random() % 1000000000))
             RETURNING list_number",
        )?
        .query_row([now.clamp(0, LAST_NUMBERED)], |row| row.get(0))
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
