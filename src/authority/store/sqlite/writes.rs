//! What is written. Each function runs inside a savepoint of the writer's
//! transaction: an error undoes all that it did.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::super::event::{self, NewEvent};
use super::super::proofs::proof_key;
use super::super::seal::Seal;
use super::super::{
    Issued, LAST_NUMBERED, LIST_SERVED, ListNumber, NewIssuance, NewRevocation, PlanRecord, Revoked,
};
use super::{instances, locks, rows};

/// The size of what is written to see whether an exchange could be: more than sixteen outputs take.
const PROBE: i64 = 32 << 10;

/// Uses the proof up and records the issuance; `run` is what the odometer says. The insert under the unique
/// index of `proofs` decides; nothing is looked up before it. Each use that
/// the proof has takes a place of its own there, so nothing is counted that
/// two at once could count wrongly.
pub(super) fn issue(
    connection: &Connection,
    entry: &NewIssuance,
    plan: &PlanRecord,
    event: &NewEvent,
    run: i64,
    seal: &Seal,
) -> rusqlite::Result<Issued> {
    if locks::heard(connection)?.cas != entry.cas {
        return Ok(Issued::Outdated);
    }
    if let Some(join) = &entry.join {
        return instances::join(connection, entry, plan, event, join, run, seal);
    }
    // One that may be among those that were forgotten: only where the clock went back since.
    let forgotten: i64 =
        connection.prepare_cached("SELECT forgotten FROM state")?.query_row([], |row| row.get(0))?;
    if entry.replay.held.until <= forgotten {
        return Ok(Issued::Used);
    }
    for nth in 0..entry.max_uses.max(1) {
        let key = proof_key(&entry.replay, nth);
        if rows::use_up(connection, key.as_ref(), entry, plan, None, run, seal)? {
            rows::record(connection, event, &plan.certificates)?;
            return Ok(Issued::Accepted { plan: None, generation: None });
        }
        if let Some(again) = rows::repeat(connection, key.as_ref(), plan, seal)? {
            return Ok(again);
        }
    }
    Ok(Issued::Used)
}

/// Uses the assertion up, and revokes the issuance if it is not revoked yet.
/// An assertion for one that is revoked does nothing and is not kept, so that an
/// issuance takes one. `held` is until when it is, by the odometer.
pub(super) fn revoke(connection: &Connection, entry: &NewRevocation, held: i64) -> rusqlite::Result<Revoked> {
    let found: Option<(i64, String)> = connection
        .prepare_cached(
            "SELECT sequence, ifnull(packed, body) FROM events WHERE id = ?1 AND event IN ('issued', 'signed')",
        )?
        .query_row([&entry.issuance_id], |row| Ok((row.get(0)?, rows::body(row, 1)?)))
        .optional()?;
    let Some((issuance, begun)) = found else { return Ok(Revoked::Unknown) };
    let used = connection
        .prepare_cached("SELECT 1 FROM assertions WHERE issuance = ?1 AND id = ?2")?
        .exists(params![issuance, entry.assertion_id])?;
    if used {
        return Ok(Revoked::AssertionUsed);
    }
    let revoked = connection
        .prepare_cached("UPDATE certificates SET revoked = ?2 WHERE issuance = ?1 AND revoked IS NULL")?
        .execute(params![issuance, entry.time])?;
    if revoked == 0 {
        return Ok(Revoked::Before);
    }
    connection
        .prepare_cached(
            "INSERT INTO assertions (issuance, id, held_until, held_to_run) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![issuance, entry.assertion_id, entry.held.until, held])?;
    let begun = event::read(&begun).map_err(rows::not_a_body)?;
    rows::append(connection, &event::revoked(entry, &begun))?;
    Ok(Revoked::Now)
}

/// That of the last lists where they say the same and are not too old. Else the nanosecond, a random one of its second; or beyond the last one by up to ten milliseconds, if that is
/// more. So it rises in a store that was put back too, since time has passed, and two copies of a
/// store do not give the same.
pub(super) fn list_number(
    connection: &Connection,
    now: i64,
    what: &[u8; 32],
) -> rusqlite::Result<ListNumber> {
    let named =
        |row: &Row<'_>| Ok(ListNumber { number: row.get(0)?, made: row.get(1)?, revocations: row.get(2)? });
    let known = connection
        .prepare_cached(
            "SELECT list_number, list_made, revocations FROM state WHERE list_what = ?2 AND list_made <= ?1 AND ?1 < list_made + ?3",
        )?
        .query_row(params![now, what, LIST_SERVED], named)
        .optional()?;
    if let Some(known) = known {
        return Ok(known);
    }
    connection
        .prepare_cached(
            "UPDATE state SET list_what = ?3, list_made = ?2, list_number = max(
                list_number + 1 + abs(random() % 10000000), ?1 * 1000000000 + abs(random() % 1000000000))
             RETURNING list_number, list_made, revocations",
        )?
        .query_row(params![now.clamp(0, LAST_NUMBERED), now, what], named)
}

/// Forgets those proofs, whose time is up.
pub(super) fn forget(connection: &Connection, numbers: &[i64]) -> rusqlite::Result<()> {
    // Workers' proofs are held by their generations too, and until a time by our own clock.
    let mut delete = connection.prepare_cached(
        "DELETE FROM proofs WHERE number = ?1
         RETURNING CASE WHEN generation IS NULL AND certificate <> 0 THEN held_until ELSE 0 END",
    )?;
    let mut latest = 0;
    for number in numbers {
        latest = latest.max(delete.query_row([number], |row| row.get(0)).optional()?.unwrap_or(0));
    }
    connection.prepare_cached("UPDATE state SET forgotten = max(forgotten, ?1)")?.execute([latest]).map(drop)
}

/// Forgets at most `step` assertions, and secrets, whose time is up, by the wall clock and by the odometer,
/// which says `run`, and keeps that; whether there may be more.
pub(super) fn prune(connection: &Connection, now: i64, run: i64, step: usize) -> rusqlite::Result<bool> {
    let limit = i64::try_from(step).unwrap_or(i64::MAX);
    let assertions = connection
        .prepare_cached(
            "DELETE FROM assertions WHERE (issuance, id) IN (
                SELECT issuance, id FROM assertions WHERE held_until < ?1 AND held_to_run < ?2 LIMIT ?3)",
        )?
        .execute([now, run, limit])?;
    instances::prune(connection, now, run)?;
    connection.prepare_cached("UPDATE state SET run = max(run, ?1)")?.execute([run])?;
    Ok(assertions >= step)
}

/// A write that changes nothing of matter, but is one.
pub(super) fn probe(connection: &Connection) -> rusqlite::Result<()> {
    connection
        .prepare_cached("REPLACE INTO probes (id, body) VALUES (1, zeroblob(?1))")?
        .execute([PROBE])
        .map(drop)
}
