//! Registered instances. What is written runs inside a savepoint of the
//! writer's transaction, as in `writes`.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::super::event::{self, NewEvent};
use super::super::instances::{AHEAD, COPIED, InstanceRefusal, NewSecret, REPLACED, RegisteredInstance};
use super::super::{Issued, NewIssuance, PlanRecord};
use super::rows;
use crate::clock::LEEWAY;
use crate::join::instance::{Instance, InstanceJoin, Judgement, LastJoin};
use crate::join::verify::Replay;

/// An instance as its row has it.
struct InstanceRow {
    number: i64,
    token: String,
    key: Vec<u8>,
    last: LastJoin,
    locked: bool,
    replaces: Option<String>,
}

fn known(connection: &Connection, id: &str) -> rusqlite::Result<Option<InstanceRow>> {
    connection
        .prepare_cached(
            "SELECT number, token, key, generation, base, attempt, tries, last, locked, replaces
             FROM instances WHERE id = ?1",
        )?
        .query_row([id], |row| {
            Ok(InstanceRow {
                number: row.get(0)?,
                token: row.get(1)?,
                key: row.get(2)?,
                last: LastJoin {
                    expected: row.get(3)?,
                    base: row.get(4)?,
                    attempt: row.get(5)?,
                    tries: row.get(6)?,
                    id: row.get(7)?,
                },
                locked: row.get::<_, Option<i64>>(8)?.is_some(),
                replaces: row.get(9)?,
            })
        })
        .optional()
}

/// Uses the proof up, moves the instance on or registers it, and records the
/// issuance; or locks the instance. Nothing else is done by a join that is not accepted.
pub(super) fn join(
    connection: &Connection,
    entry: &NewIssuance,
    plan: &PlanRecord,
    event: &NewEvent,
    join: &InstanceJoin,
    run: i64,
) -> rusqlite::Result<Issued> {
    let found = known(connection, &join.instance)?;
    if found.as_ref().is_some_and(|known| known.locked) {
        return Ok(Issued::Refused(InstanceRefusal::Locked));
    }
    let key = rows::proof_key(&entry.replay, 0);
    // The same request again is answered again, and so is one that a later one has overtaken refused,
    // before anything is made of its generation.
    if connection.prepare_cached("SELECT 1 FROM proofs WHERE key = ?1")?.exists([key.as_ref()])? {
        return Ok(match rows::repeat(connection, key.as_ref(), plan)? {
            Some(again @ Issued::Accepted { generation: Some(_), .. }) => again,
            _ => Issued::Used,
        });
    }
    let (number, last) = match &found {
        Some(known) if known.token != entry.token || known.key != join.key => {
            return Ok(Issued::Refused(InstanceRefusal::Unknown));
        }
        Some(known) => (known.number, known.last.clone()),
        None => match register(connection, entry, join)? {
            Ok(number) => (number, LastJoin::default()),
            Err(refusal) => return Ok(Issued::Refused(refusal)),
        },
    };
    let expected = last.expected;
    let accepted = match last.judge(&join.claims) {
        Judgement::Accepted(accepted) => accepted,
        // A new instance that begins anywhere but at the start is none; what registering it did is undone.
        _ if found.is_none() => {
            return Err(rusqlite::Error::IntegralValueOutOfRange(0, join.claims.generation));
        }
        // The store was put back from a copy, or somebody holds the key and tries. An older copy of the storage
        // would be let in from here on, and the instance itself never again.
        Judgement::Ahead => {
            lock(connection, entry, join, number, expected, AHEAD)?;
            return Ok(Issued::Refused(InstanceRefusal::Ahead { expected }));
        }
        Judgement::Forked => {
            lock(connection, entry, join, number, expected, COPIED)?;
            return Ok(Issued::Refused(InstanceRefusal::LockedNow { expected }));
        }
    };
    rows::use_up(connection, key.as_ref(), entry, plan, Some(accepted.expected), run)?;
    overtake(connection, entry, join, run)?;
    connection
        .prepare_cached(
            "UPDATE instances SET generation = ?2, base = ?3, attempt = ?4, tries = ?5, last = ?6, seen = ?7, bot = ?8
             WHERE number = ?1",
        )?
        .execute(params![
            number,
            accepted.expected,
            accepted.base,
            accepted.attempt,
            accepted.tries,
            accepted.id,
            entry.time,
            entry.bot
        ])?;
    if let Some(old) = found.and_then(|known| known.replaces).filter(|_| join.claims.generation > 0) {
        replace(connection, entry, number, &join.instance, &old)?;
    }
    let issuance = rows::record(connection, event, &plan.certificates)?;
    connection
        .prepare_cached("UPDATE certificates SET instance = ?2 WHERE issuance = ?1")?
        .execute(params![issuance, number])?;
    Ok(Issued::Accepted { plan: None, generation: Some(accepted.expected) })
}

/// The requests that the instance made before this one are used up with it: one
/// that arrives late does not look like a copy's.
fn overtake(
    connection: &Connection,
    entry: &NewIssuance,
    join: &InstanceJoin,
    run: i64,
) -> rusqlite::Result<()> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO proofs (key, fingerprint, certificate, held_until, held_to_run)
         VALUES (?1, ?2, 0, ?3, ?4) ON CONFLICT (key) DO NOTHING",
    )?;
    let held_to_run = run.saturating_add(join.held.lasts);
    for id in &join.claims.earlier {
        let replay = Replay { id: id.clone(), ..entry.replay.clone() };
        let key = rows::proof_key(&replay, 0);
        // A fingerprint that no request has.
        insert.execute(params![key.as_ref(), [0_u8; 32], join.held.until, held_to_run])?;
    }
    Ok(())
}

/// A new instance, for a secret that is good; its number.
fn register(
    connection: &Connection,
    entry: &NewIssuance,
    join: &InstanceJoin,
) -> rusqlite::Result<Result<i64, InstanceRefusal>> {
    let Some(secret) = join.secret else { return Ok(Err(InstanceRefusal::Unknown)) };
    if join.claims.generation != 0 {
        return Ok(Err(InstanceRefusal::Ahead { expected: 0 }));
    }
    let id: Option<String> = connection
        .prepare_cached(
            "UPDATE secrets SET instance = ?2 WHERE hash = ?1 AND token = ?3 AND expires > ?4 AND made <= ?4 + ?5
                AND instance IS NULL RETURNING id",
        )?
        .query_row(params![secret, join.instance, entry.token, entry.time, LEEWAY], |row| row.get(0))
        .optional()?;
    let Some(secret_id) = id else { return Ok(Err(InstanceRefusal::Secret)) };
    let number = connection
        .prepare_cached(
            "INSERT INTO instances (id, token, bot, key, generation, base, attempt, tries, last, replaces, registered, seen)
             VALUES (?1, ?2, ?3, ?4, 0, 0, '', 0, '', ?6, ?5, ?5)",
        )?
        .insert(params![join.instance, entry.token, entry.bot, join.key, entry.time, join.replaces])?;
    rows::append(connection, &event::registered(entry, join, &secret_id))?;
    Ok(Ok(number))
}

/// Ends the instance whose place this one takes. Only now, since this join tells
/// that the instance has heard of its registration: until then it may go on as
/// what it was. The old one's certificates are its own, and stay good.
fn replace(
    connection: &Connection,
    entry: &NewIssuance,
    number: i64,
    instance: &str,
    old: &str,
) -> rusqlite::Result<()> {
    connection.prepare_cached("UPDATE instances SET replaces = NULL WHERE number = ?1")?.execute([number])?;
    let locked = connection
        .prepare_cached(
            "UPDATE instances SET locked = ?3, reason = ?4 WHERE id = ?1 AND token = ?2 AND locked IS NULL",
        )?
        .execute(params![old, entry.token, entry.time, REPLACED])?;
    if locked > 0 {
        rows::append(connection, &event::replaced(entry, instance, old))?;
    }
    Ok(())
}

/// Locks the instance, and revokes what it still has.
fn lock(
    connection: &Connection,
    entry: &NewIssuance,
    join: &InstanceJoin,
    number: i64,
    expected: i64,
    reason: &'static str,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE instances SET locked = ?2, reason = ?3 WHERE number = ?1")?
        .execute(params![number, entry.time, reason])?;
    let serials: Vec<i64> = connection
        .prepare_cached(
            "UPDATE certificates SET revoked = ?2 WHERE instance = ?1 AND expires >= ?3 AND revoked IS NULL
             RETURNING serial",
        )?
        .query_map(params![number, entry.time, entry.time.saturating_sub(LEEWAY)], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    rows::append(connection, &event::locked(entry, join, expected, &serials, reason)).map(drop)
}

/// Keeps a secret's hash, until the odometer says `held` at least.
pub(super) fn add_secret(connection: &Connection, entry: &NewSecret, held: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO secrets (hash, id, token, expires, made, held_to_run) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![entry.hash, entry.id, entry.token, entry.expires, entry.time, held])?;
    rows::append(connection, &event::secret_added(entry)).map(drop)
}

/// Forgets secrets whose time is up.
pub(super) fn prune(connection: &Connection, now: i64, run: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM secrets WHERE expires < ?1 AND held_to_run < ?2")?
        .execute([now, run])
        .map(drop)
}

/// The instance of that id.
pub(super) fn instance(connection: &Connection, id: &str) -> rusqlite::Result<Option<Instance>> {
    Ok(known(connection, id)?.map(|known| Instance { join_token: known.token, key: known.key }))
}

/// Whether a secret could register an instance now.
pub(super) fn admits(
    connection: &Connection,
    secret: &[u8; 32],
    token: &str,
    now: i64,
) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(
            "SELECT 1 FROM secrets WHERE hash = ?1 AND token = ?2 AND expires > ?3 AND made <= ?3 + ?4
                AND instance IS NULL",
        )?
        .exists(params![secret, token, now, LEEWAY])
}

/// Every instance.
pub(super) fn instances(connection: &Connection) -> rusqlite::Result<Vec<RegisteredInstance>> {
    connection
        .prepare_cached(
            "SELECT id, token, bot, generation, registered, seen, locked, reason FROM instances ORDER BY number",
        )?
        .query_map([], |row| {
            let (locked, reason): (Option<i64>, Option<String>) = (row.get(6)?, row.get(7)?);
            Ok(RegisteredInstance {
                instance: row.get(0)?,
                token: row.get(1)?,
                bot: row.get(2)?,
                generation: row.get(3)?,
                registered: row.get(4)?,
                seen: row.get(5)?,
                locked: locked.map(|time| (time, reason.unwrap_or_default())),
            })
        })?
        .collect()
}
