//! Registered instances, as rows. What is written runs inside a savepoint of
//! the writer's transaction, as in `writes`.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::super::event::{self, NewEvent};
use super::super::instances::{NewSecret, RegisteredInstance};
use super::super::joins::{Accepted, Decision, Found, InstanceRow, SecretRow, decide};
use super::super::proofs::proof_key;
use super::super::seal::{Kept, Seal};
use super::super::{Issued, NewIssuance, PlanRecord};
use super::rows;
use crate::clock::LEEWAY;
use crate::join::instance::{Instance, InstanceJoin, LastJoin};
use crate::join::verify::Replay;

/// A row, and what it is sealed with.
type Sealed<R> = (R, Option<Vec<u8>>);

const INSTANCES: &str =
    "SELECT id, token, bot, key, generation, base, attempt, tries, last, replaces, registered, seen,
    locked, reason, mac FROM instances";

const SECRETS: &str = "SELECT hash, id, token, expires, made, held_to_run, instance, mac FROM secrets";

fn read_instance(row: &Row<'_>) -> rusqlite::Result<Sealed<InstanceRow>> {
    let instance = InstanceRow {
        id: row.get(0)?,
        token: row.get(1)?,
        bot: row.get(2)?,
        key: row.get(3)?,
        last: LastJoin {
            expected: row.get(4)?,
            base: row.get(5)?,
            attempt: row.get(6)?,
            tries: row.get(7)?,
            id: row.get(8)?,
        },
        replaces: row.get(9)?,
        registered: row.get(10)?,
        seen: row.get(11)?,
        locked: row.get(12)?,
        reason: row.get(13)?,
    };
    Ok((instance, row.get(14)?))
}

fn read_secret(row: &Row<'_>) -> rusqlite::Result<Sealed<SecretRow>> {
    let secret = SecretRow {
        hash: row.get(0)?,
        id: row.get(1)?,
        token: row.get(2)?,
        expires: row.get(3)?,
        made: row.get(4)?,
        held_to_run: row.get(5)?,
        instance: row.get(6)?,
    };
    Ok((secret, row.get(7)?))
}

fn known(connection: &Connection, id: &str, seal: &Seal) -> rusqlite::Result<Kept<InstanceRow>> {
    let found = connection
        .prepare_cached(&format!("{INSTANCES} WHERE id = ?1"))?
        .query_row([id], read_instance)
        .optional()?;
    Ok(seal.judge(found))
}

/// The secret of that hash.
pub(super) fn secret(
    connection: &Connection,
    hash: &[u8; 32],
    seal: &Seal,
) -> rusqlite::Result<Kept<SecretRow>> {
    let found = connection
        .prepare_cached(&format!("{SECRETS} WHERE hash = ?1"))?
        .query_row([hash], read_secret)
        .optional()?;
    Ok(seal.judge(found))
}

/// Forgets the secrets of that join token that are not used up; how many there were.
pub(super) fn withdraw_secrets(
    connection: &Connection,
    token: &str,
    at: i64,
    by: &str,
) -> rusqlite::Result<u64> {
    let gone = connection
        .prepare_cached("DELETE FROM secrets WHERE token = ?1 AND instance IS NULL")?
        .execute([token])?;
    let gone = u64::try_from(gone).unwrap_or(u64::MAX);
    if gone > 0 {
        rows::append(connection, &event::secrets_withdrawn(token, gone, at, by))?;
    }
    Ok(gone)
}

/// Writes an instance's row, new or in the place of what was there.
fn put_instance(connection: &Connection, row: &InstanceRow, seal: &Seal) -> rusqlite::Result<()> {
    let InstanceRow { id, token, bot, key, last, replaces, registered, seen, locked, reason } = row;
    connection
        .prepare_cached(
            "INSERT INTO instances (id, token, bot, key, generation, base, attempt, tries, last, replaces, registered,
                seen, locked, reason, mac)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)
             ON CONFLICT (id) DO UPDATE SET bot = excluded.bot, generation = excluded.generation, base = excluded.base,
                attempt = excluded.attempt, tries = excluded.tries, last = excluded.last, replaces = excluded.replaces,
                seen = excluded.seen, locked = excluded.locked, reason = excluded.reason, mac = excluded.mac",
        )?
        .execute(params![
            id,
            token,
            bot,
            key,
            last.expected,
            last.base,
            last.attempt,
            last.tries,
            last.id,
            replaces,
            registered,
            seen,
            locked,
            reason,
            seal.of(row)
        ])
        .map(drop)
}

/// Writes a secret's row, new or in the place of what was there.
fn put_secret(connection: &Connection, row: &SecretRow, seal: &Seal) -> rusqlite::Result<()> {
    let SecretRow { hash, id, token, expires, made, held_to_run, instance } = row;
    connection
        .prepare_cached(
            "REPLACE INTO secrets (hash, id, token, expires, made, held_to_run, instance, mac)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![hash, id, token, expires, made, held_to_run, instance, seal.of(row)])
        .map(drop)
}

/// Has the seal judge every row.
pub(super) fn judge_all(connection: &Connection, seal: &Seal) -> rusqlite::Result<()> {
    for row in connection.prepare(INSTANCES)?.query_map([], read_instance)? {
        seal.judge(Some(row?));
    }
    for row in connection.prepare(SECRETS)?.query_map([], read_secret)? {
        seal.judge(Some(row?));
    }
    Ok(())
}

/// Seals every row as it is.
pub(super) fn seal_all(connection: &Connection, seal: &Seal) -> rusqlite::Result<()> {
    let all = |sql| connection.prepare(sql);
    let instances = all(INSTANCES)?.query_map([], read_instance)?.collect::<rusqlite::Result<Vec<_>>>()?;
    let secrets = all(SECRETS)?.query_map([], read_secret)?.collect::<rusqlite::Result<Vec<_>>>()?;
    instances.iter().try_for_each(|(row, _)| put_instance(connection, row, seal))?;
    secrets.iter().try_for_each(|(row, _)| put_secret(connection, row, seal))
}

/// Uses the proof up, moves the instance on or registers it, and records the
/// issuance; or locks the instance: as [`decide`] says.
pub(super) fn join(
    connection: &Connection,
    entry: &NewIssuance,
    plan: &PlanRecord,
    event: &NewEvent,
    join: &InstanceJoin,
    run: i64,
    seal: &Seal,
) -> rusqlite::Result<Issued> {
    let key = proof_key(&entry.replay, 0);
    match decide(find(connection, key.as_ref(), plan, join, seal)?, entry, join) {
        Decision::Answer(issued) => Ok(issued),
        Decision::Lock { row, expected, reason, refusal } => {
            put_instance(connection, &row, seal)?;
            let serials = revoke_all(connection, entry, &row.id)?;
            rows::append(connection, &event::locked(entry, join, expected, &serials, reason))?;
            Ok(Issued::Refused(refusal))
        }
        Decision::Accept(accepted) => {
            let Accepted { row, secret, replaced } = *accepted;
            let expected = row.last.expected;
            rows::use_up(connection, key.as_ref(), entry, plan, Some(expected), run, seal)?;
            overtake(connection, entry, join, run)?;
            put_instance(connection, &row, seal)?;
            if let Some(secret) = secret {
                put_secret(connection, &secret, seal)?;
                rows::append(connection, &event::registered(entry, join, &secret.id))?;
            }
            if let Some(old) = replaced {
                put_instance(connection, &old, seal)?;
                rows::append(connection, &event::replaced(entry, &row.id, &old.id))?;
            }
            let issuance = rows::record(connection, event, &plan.certificates)?;
            connection
                .prepare_cached(
                    "UPDATE certificates SET instance = (SELECT number FROM instances WHERE id = ?2) WHERE issuance = ?1",
                )?
                .execute(params![issuance, row.id])?;
            Ok(Issued::Accepted { plan: None, generation: Some(expected) })
        }
    }
}

/// What there is of those whom the join concerns.
fn find(
    connection: &Connection,
    key: &[u8],
    plan: &PlanRecord,
    join: &InstanceJoin,
    seal: &Seal,
) -> rusqlite::Result<Found> {
    let instance = known(connection, &join.instance, seal)?;
    let replaced = match &instance {
        Kept::Row(InstanceRow { replaces: Some(old), .. }) => known(connection, old, seal)?,
        _ => Kept::Nothing,
    };
    let secret = match (&instance, &join.secret) {
        (Kept::Nothing, Some(hash)) => secret(connection, hash, seal)?,
        _ => Kept::Nothing,
    };
    let is_used = connection.prepare_cached("SELECT 1 FROM proofs WHERE key = ?1")?.exists([key])?;
    let earlier = match is_used {
        true => Some(rows::repeat(connection, key, plan, seal)?.unwrap_or(Issued::Used)),
        false => None,
    };
    Ok(Found { instance, earlier, secret, replaced })
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
        let key = proof_key(&replay, 0);
        // A fingerprint that no request has.
        insert.execute(params![key.as_ref(), [0_u8; 32], join.held.until, held_to_run])?;
    }
    Ok(())
}

/// Revokes what the instance still has; the serials of that.
fn revoke_all(connection: &Connection, entry: &NewIssuance, id: &str) -> rusqlite::Result<Vec<i64>> {
    connection
        .prepare_cached(
            "UPDATE certificates SET revoked = ?2
             WHERE instance = (SELECT number FROM instances WHERE id = ?1) AND expires >= ?3 AND revoked IS NULL
             RETURNING serial",
        )?
        .query_map(params![id, entry.time, entry.time.saturating_sub(LEEWAY)], |row| row.get(0))?
        .collect()
}

/// Keeps a secret's hash, until the odometer says `held` at least.
pub(super) fn add_secret(
    connection: &Connection,
    entry: &NewSecret,
    held: i64,
    seal: &Seal,
) -> rusqlite::Result<()> {
    put_secret(connection, &SecretRow::new(entry, held), seal)?;
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
pub(super) fn instance(connection: &Connection, id: &str, seal: &Seal) -> rusqlite::Result<Option<Instance>> {
    let row = known(connection, id, seal)?.row();
    Ok(row.map(|row| Instance { join_token: row.token, key: row.key }))
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
