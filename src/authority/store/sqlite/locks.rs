//! Locks, as rows; what they take is found by the thread that reads, and revoked by the one that writes.

use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, Row, params};

use super::super::cas::Heard;
use super::super::event::NewEvent;
use super::super::locks::{
    Living, Lock, LockKind, Locks, NAMED, NewLock, PAGE, REACH, Refused, Shut, Subject, Taken, still_good,
};
use super::super::seal::Seal;
use super::super::{NewSigned, Signed, event};
use super::rows;

/// The locks as they were last read, and what was last heard.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<Option<Arc<Locks>>>, Mutex<Heard>);

impl Known {
    /// What is to be heard; where it is another, a command beside this process may have revoked something or rotated a CA,
    /// which counts for itself.
    pub(super) fn hear(&self, connection: &Connection, revocations: &AtomicU64) -> rusqlite::Result<Heard> {
        let heard = heard(connection)?;
        let mut before = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *before, heard) != heard {
            revocations.fetch_add(1, Ordering::SeqCst);
        }
        Ok(heard)
    }

    /// The lock that takes what is about to be issued, if one does; within the transaction that would record it.
    pub(super) fn refuse(
        &self,
        connection: &Connection,
        time: i64,
        run: i64,
        seal: &Seal,
        subject: impl FnOnce() -> Subject,
    ) -> rusqlite::Result<Option<Refused>> {
        let number = number(connection)?;
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let locks = match known.as_ref().filter(|locks| locks.number == number) {
            Some(locks) => Arc::clone(locks),
            None => Arc::clone(known.insert(Arc::new(read(connection, seal)?))),
        };
        drop(known);
        Ok(locks.refuse(time, run, subject))
    }

    /// Records what a command signs, unless a lock takes it or the CAs are others.
    pub(super) fn record_signed(
        &self,
        connection: &Connection,
        entry: &NewSigned,
        event: &NewEvent,
        run: i64,
        seal: &Seal,
    ) -> rusqlite::Result<Signed> {
        if let Some(subject) = entry.subject()
            && let Some(refused) = self.refuse(connection, entry.time, run, seal, || subject)?
        {
            return Ok(Signed::Locked(Box::new(refused)));
        }
        if heard(connection)?.cas != entry.cas {
            return Ok(Signed::Outdated);
        }
        rows::record(connection, event, slice::from_ref(&entry.certificate)).map(|_| Signed::Recorded)
    }
}

/// All of them, by when they were put.
pub(super) fn read(connection: &Connection, seal: &Seal) -> rusqlite::Result<Locks> {
    let number = number(connection)?;
    let all = connection
        .prepare_cached(
            "SELECT id, kind, value, until, held_to_run, message, put_by, put_at, met, lifted, lifted_by, mac FROM locks ORDER BY number",
        )?
        .query_map([], |row| read_row(row, seal))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Locks { number, all })
}

fn read_row(row: &Row<'_>, seal: &Seal) -> rusqlite::Result<Lock> {
    let (until, run): (Option<i64>, Option<i64>) = (row.get(3)?, row.get(4)?);
    let (lifted, lifted_by): (Option<i64>, Option<String>) = (row.get(9)?, row.get(10)?);
    let lock = Lock {
        id: row.get(0)?,
        kind: LockKind::of_name(&row.get::<_, String>(1)?),
        value: row.get(2)?,
        until: until.zip(run),
        message: row.get(5)?,
        by: row.get(6)?,
        at: row.get(7)?,
        met: Lock::read_met(&row.get::<_, String>(8)?),
        lifted: lifted.zip(lifted_by),
    };
    Ok(lock.judged(row.get::<_, Option<Vec<u8>>>(11)?.as_deref(), seal))
}

/// What the lock would take of what is there by now, and the last event that was looked at.
pub(super) fn look(connection: &Connection, new: &NewLock) -> rusqlite::Result<(Lock, Taken, i64)> {
    let (mut lock, mut taken) = (new.lock.clone(), Taken::default());
    let last: i64 =
        connection.query_row("SELECT ifnull(max(sequence), 0) FROM events", [], |row| row.get(0))?;
    let named = match lock.kind {
        LockKind::Serial => Some((
            "SELECT issuance FROM certificates WHERE serial = ?1",
            lock.value.parse::<i64>().unwrap_or(-1).into(),
        )),
        LockKind::Issuance => Some((
            "SELECT sequence FROM events WHERE id = ?1 AND event IN ('issued', 'signed')",
            rusqlite::types::Value::from(lock.value.clone()),
        )),
        LockKind::Key => Some((
            "SELECT DISTINCT issuance FROM certificates WHERE hex(key_hash) = upper(?1)",
            lock.value.clone().into(),
        )),
        // Of whatever age: what operators sign lasts for years.
        LockKind::Host => Some((
            "SELECT DISTINCT issuance FROM certificates
             WHERE host IS NOT NULL AND revoked IS NULL AND expires >= ?1 ORDER BY issuance",
            still_good(new.lock.at).into(),
        )),
        _ => None,
    };
    if let Some((sql, value)) = named {
        let found: Vec<i64> = connection
            .prepare(sql)?
            .query_map([value], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        for sequence in found {
            taken.add(&mut lock, living(connection, sequence - 1, sequence, new.lock.at)?);
            taken.shut.is_known |= lock.kind != LockKind::Host;
        }
        return Ok((lock, taken, last));
    }
    let since = new.lock.at.saturating_sub(REACH);
    let first: Option<i64> =
        connection
            .query_row("SELECT min(sequence) FROM events WHERE time >= ?1", [since], |row| row.get(0))?;
    let mut after = first.map_or(last, |first| first - 1);
    while after < last {
        let upto = after.saturating_add(PAGE).min(last);
        taken.add(&mut lock, living(connection, after, upto, new.lock.at)?);
        after = upto;
    }
    Ok((lock, taken, last))
}

/// The issuances behind the first number, up to the second, with the keys of their certificates that are still good.
fn living(connection: &Connection, after: i64, upto: i64, now: i64) -> rusqlite::Result<Vec<Living>> {
    connection
        .prepare_cached(
            "SELECT sequence, ifnull(packed, body) FROM events
             WHERE sequence > ?1 AND sequence <= ?2 AND event IN ('issued', 'signed') ORDER BY sequence",
        )?
        .query_map([after, upto], |row| {
            let sequence: i64 = row.get(0)?;
            // One that cannot be read was made up, and is no reason to lock nobody.
            let body = rows::body(row, 1).unwrap_or_default();
            let event = event::read(&body).unwrap_or_default();
            let keys = connection
                .prepare_cached(
                    "SELECT key_hash FROM certificates WHERE issuance = ?1 AND revoked IS NULL AND expires >= ?2",
                )?
                .query_map([sequence, still_good(now)], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            Ok(Living { sequence, event, keys })
        })?
        .collect()
}

/// Puts the lock, of which was looked at what there was up to the event `last`: what has come since is taken too. What it
/// revokes, and the issuances that are to be revoked yet.
pub(super) fn put(
    connection: &Connection,
    mut lock: Lock,
    mut taken: Taken,
    last: i64,
    seal: &Seal,
    step: usize,
) -> rusqlite::Result<(Shut, Vec<i64>)> {
    let since = living(connection, last, i64::MAX, lock.at)?;
    taken.add(&mut lock, since);
    connection
        .prepare_cached(
            "INSERT INTO locks (id, kind, value, until, held_to_run, message, put_by, put_at, met, mac)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            lock.id,
            lock.kind.name(),
            lock.value,
            lock.until.map(|(until, _)| until),
            lock.until.map(|(_, run)| run),
            lock.message,
            lock.by,
            lock.at,
            lock.met_text(),
            seal.of(&lock)
        ])?;
    let rest = taken.issuances.split_off(taken.issuances.len().min(step));
    revoke(connection, &taken.issuances, lock.at)?;
    rows::append(connection, &event::locked_by(&lock, &taken.shut))?;
    for issuances in taken.shut.issuances.chunks(NAMED) {
        rows::append(connection, &event::revoked_by(&lock, issuances))?;
    }
    Ok((taken.shut, rest))
}

/// Revokes what is left of these issuances, which everybody is to hear.
pub(super) fn revoke(connection: &Connection, issuances: &[i64], at: i64) -> rusqlite::Result<()> {
    let mut revoke = connection
        .prepare_cached("UPDATE certificates SET revoked = ?2 WHERE issuance = ?1 AND revoked IS NULL")?;
    issuances.iter().try_for_each(|issuance| revoke.execute([*issuance, at]).map(drop))?;
    change(connection)
}

/// What changes of locks and of CAs are heard by.
pub(super) fn heard(connection: &Connection) -> rusqlite::Result<Heard> {
    let read = |row: &Row<'_>| Ok(Heard { locks: row.get(0)?, cas: row.get(1)? });
    connection.prepare_cached("SELECT locks, cas FROM state")?.query_row([], read)
}

/// The number of the locks, which is another once anything of them has changed.
pub(super) fn number(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("SELECT locks FROM state")?.query_row([], |row| row.get(0))
}

/// Lifts the locks of that kind and value that have not been; which.
pub(super) fn lift(
    connection: &Connection,
    kind: LockKind,
    value: &str,
    at: i64,
    by: &str,
    seal: &Seal,
) -> rusqlite::Result<Vec<Lock>> {
    let is_meant = |lock: &Lock| lock.lifted.is_none() && lock.is_about(kind, value);
    let mut lifted: Vec<Lock> = read(connection, seal)?.all.into_iter().filter(is_meant).collect();
    for lock in &mut lifted {
        lock.lifted = Some((at, by.to_owned()));
        keep(connection, lock, seal)?;
        rows::append(connection, &event::unlocked(lock, at, by))?;
    }
    Ok(lifted)
}

/// Has the lock of that id take these ids too.
pub(super) fn meet(connection: &Connection, id: &str, met: &[String], seal: &Seal) -> rusqlite::Result<()> {
    let found = read(connection, seal)?.all.into_iter().find(|lock| lock.id == id);
    let Some(mut lock) = found else { return Ok(()) };
    let known = lock.met.len();
    let fresh: Vec<String> = met.iter().filter(|id| !lock.met.contains(id)).cloned().collect();
    lock.met.extend(fresh);
    if lock.met.len() > known { keep(connection, &lock, seal) } else { Ok(()) }
}

/// Writes what may change of it, as it was judged.
fn keep(connection: &Connection, lock: &Lock, seal: &Seal) -> rusqlite::Result<()> {
    let (lifted, lifted_by) = lock.lifted.as_ref().map(|(at, by)| (*at, by.as_str())).unzip();
    let (until, run) = lock.until.unzip();
    let (message, met, mac) = (&lock.message, lock.met_text(), seal.of(lock));
    connection
        .prepare_cached(
            "UPDATE locks SET until = ?2, held_to_run = ?3, message = ?4, met = ?5, lifted = ?6, lifted_by = ?7, mac = ?8
             WHERE id = ?1",
        )?
        .execute(params![lock.id, until, run, message, met, lifted, lifted_by, mac])?;
    change(connection)
}

/// Has everybody read them anew, and the lists. By some: what was undone with its transaction has a number that is given to nothing else.
fn change(connection: &Connection) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE state SET locks = locks + 1 + abs(random() % 2000000000)")?
        .execute([])
        .map(drop)
}
