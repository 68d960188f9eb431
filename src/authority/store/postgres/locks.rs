//! Locks, as rows. What they take is found before the lock of the store is taken, but for what has come since.

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::super::event::{self, NewEvent};
use super::super::locks::{Living, Lock, LockKind, NAMED, NewLock, PAGE, REACH, Shut, Taken, still_good};
use super::failure::Failure;
use super::lock_rows::{LOCKS, read_rows};
use super::reads;
use super::rows::{self, Columns};
use super::transaction::{self, Judged, Parameter, Statement, locked};
use super::work::Shared;
use super::writer::RECORD;

/// The issuances behind the first number, up to the second, with the keys of their certificates that are still good.
const LIVING: &str = "SELECT sequence, event, body, ARRAY(SELECT key_hash FROM machine_id.certificates
        WHERE issuance = sequence AND revoked IS NULL AND expires >= $3)
    FROM machine_id.events WHERE sequence > $1 AND sequence <= $2 AND event IN ('issued', 'signed') ORDER BY sequence";

const PUT: &str = concat!(
    "INSERT INTO machine_id.locks (number, id, kind, value, until, held_to_run, message, put_by, put_at, met, mac)
     SELECT coalesce((SELECT max(number) FROM machine_id.locks), 0) + 1, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10 WHERE ",
    locked!(),
    " ON CONFLICT (id) DO NOTHING"
);

/// Has everybody read them anew, and the lists.
const CHANGE: &str = concat!(
    "UPDATE machine_id.state SET locks = locks + 1 + floor(random() * 2000000000)::bigint, revocations = revocations + 1
     WHERE ",
    locked!()
);

const REVOKE: &str = concat!(
    "UPDATE machine_id.certificates SET revoked = $2 WHERE issuance = ANY ($1) AND revoked IS NULL AND ",
    locked!()
);

const KEEP: &str = concat!(
    "UPDATE machine_id.locks SET until = $2, held_to_run = $3, message = $4, met = $5, lifted = $6, lifted_by = $7, mac = $8
     WHERE id = $1 AND ",
    locked!()
);

/// What the lock would take of what is there by now, and the last event that was looked at.
pub(super) async fn look(client: &Client, new: &NewLock) -> Result<(Lock, Taken, i64), Failure> {
    const LAST: &str =
        "SELECT coalesce(max(sequence), 0), (SELECT min(sequence) FROM machine_id.events WHERE time >= $1)
        FROM machine_id.events";
    let (mut lock, mut taken) = (new.lock.clone(), Taken::default());
    let since = new.lock.at.saturating_sub(REACH);
    let ends = reads::rows(client, LAST, &[(&since, Type::INT8)]).await?;
    let row = ends.first().ok_or_else(reads::gone)?;
    let (last, first): (i64, Option<i64>) = (row.try_get(0)?, row.try_get(1)?);
    let named = match lock.kind {
        LockKind::Serial => Some("SELECT issuance FROM machine_id.certificates WHERE serial::text = $1"),
        LockKind::Issuance => {
            Some("SELECT sequence FROM machine_id.events WHERE id = $1 AND event IN ('issued', 'signed')")
        }
        LockKind::Key => {
            Some("SELECT DISTINCT issuance FROM machine_id.certificates WHERE key_hash = decode($1, 'hex')")
        }
        _ => None,
    };
    if let Some(sql) = named {
        let value = lock.value.clone();
        for row in reads::rows(client, sql, &[(&value, Type::TEXT)]).await? {
            let sequence: i64 = row.try_get(0)?;
            taken.add(&mut lock, living(client, sequence.saturating_sub(1), sequence, new.lock.at).await?);
            taken.shut.is_known = true;
        }
        return Ok((lock, taken, last));
    }
    if lock.kind == LockKind::Host {
        let good = still_good(new.lock.at);
        let found = reads::rows(client, HOSTS, &[(&good, Type::INT8)]).await?;
        taken.add(&mut lock, found.iter().map(read_living).collect::<Result<_, _>>()?);
        return Ok((lock, taken, last));
    }
    let mut after = first.map_or(last, |first| first.saturating_sub(1));
    while after < last {
        let upto = after.saturating_add(PAGE).min(last);
        taken.add(&mut lock, living(client, after, upto, new.lock.at).await?);
        after = upto;
    }
    Ok((lock, taken, last))
}

async fn living(client: &Client, after: i64, upto: i64, now: i64) -> Result<Vec<Living>, Failure> {
    let good = still_good(now);
    let found =
        reads::rows(client, LIVING, &[(&after, Type::INT8), (&upto, Type::INT8), (&good, Type::INT8)])
            .await?;
    found.iter().map(read_living).collect()
}

fn read_living(row: &Row) -> Result<Living, Failure> {
    // One that cannot be read was made up, and is no reason to lock nobody.
    let event = rows::body(row, 2).unwrap_or_default();
    Ok(Living { sequence: row.try_get(0)?, event, keys: row.try_get(3)? })
}

/// The same of all that hosts have which is still good, of whatever age: what operators sign lasts for years.
const HOSTS: &str = "SELECT sequence, event, body, ARRAY(SELECT key_hash FROM machine_id.certificates
        WHERE issuance = sequence AND revoked IS NULL AND expires >= $1)
    FROM machine_id.events WHERE sequence IN (SELECT issuance FROM machine_id.certificates
        WHERE host IS NOT NULL AND revoked IS NULL AND expires >= $1) ORDER BY sequence";

/// Puts the lock, of which was looked at what there was up to the event `last`: what has come since is taken too. What it
/// revokes, and the issuances that are to be revoked yet.
pub(super) async fn put(
    client: &Client,
    shared: &Shared,
    (mut lock, mut taken, last): (Lock, Taken, i64),
    step: usize,
) -> Result<(Shut, Vec<i64>), Failure> {
    let good = still_good(lock.at);
    let span: [Parameter<'_>; 3] = [(&last, Type::INT8), (&i64::MAX, Type::INT8), (&good, Type::INT8)];
    let found =
        transaction::begin(client, &shared.known, Judged::now(&shared.known), &[(LIVING, &span)]).await?;
    let found = found.iter().flatten().map(read_living).collect::<Result<_, _>>()?;
    taken.add(&mut lock, found);
    let rest = taken.issuances.split_off(taken.issuances.len().min(step));
    let mut events = vec![event::locked_by(&lock, &taken.shut)];
    events.extend(taken.shut.issuances.chunks(NAMED).map(|issuances| event::revoked_by(&lock, issuances)));
    let (until, run) = lock.until.unzip();
    let (kind, met, mac) = (lock.kind.name(), lock.met_text(), shared.seal.of(&lock).to_vec());
    let put: [Parameter<'_>; 10] = [
        (&lock.id, Type::TEXT),
        (&kind, Type::TEXT),
        (&lock.value, Type::TEXT),
        (&until, Type::INT8),
        (&run, Type::INT8),
        (&lock.message, Type::TEXT),
        (&lock.by, Type::TEXT),
        (&lock.at, Type::INT8),
        (&met, Type::TEXT),
        (&mac, Type::BYTEA),
    ];
    let revoked: [Parameter<'_>; 2] = [(&taken.issuances, Type::INT8_ARRAY), (&lock.at, Type::INT8)];
    // By the number of before they are counted.
    let statements = [(PUT, &put[..]), (REVOKE, &revoked), (CHANGE, &[])];
    finish(client, shared, &statements, &events).await?;
    Ok((taken.shut, rest))
}

/// Ends a transaction by the statements, and these events.
async fn finish(
    client: &Client,
    shared: &Shared,
    statements: &[Statement<'_>],
    events: &[NewEvent],
) -> Result<(), Failure> {
    let mut columns = Columns::default();
    events.iter().for_each(|event| columns.add(event, &[], None, &shared.seal));
    let recorded = columns.parameters();
    let all = [statements, &[(RECORD, &recorded[..])]].concat();
    transaction::finish(client, &shared.known, &all).await.map(drop)
}

/// Revokes what is left of these issuances.
pub(super) async fn revoke(
    client: &Client,
    shared: &Shared,
    issuances: &[i64],
    at: i64,
) -> Result<(), Failure> {
    let gone: [Parameter<'_>; 2] = [(&issuances, Type::INT8_ARRAY), (&at, Type::INT8)];
    transaction::write(client, &shared.known, &[(REVOKE, &gone), (CHANGE, &[])]).await.map(drop)
}

/// Lifts the locks of that kind and value that have not been; which.
pub(super) async fn lift(
    client: &Client,
    shared: &Shared,
    kind: LockKind,
    value: &str,
    at: i64,
    by: &str,
) -> Result<Vec<Lock>, Failure> {
    let lifted = Some((at, by.to_owned()));
    // Those too that a try before this one has lifted, whose answer was lost.
    let is_meant =
        |lock: &Lock| (lock.lifted.is_none() || lock.lifted == lifted) && lock.is_about(kind, value);
    let change = |mut lock: Lock| {
        lock.lifted.clone_from(&lifted);
        lock
    };
    let locks = begin(client, shared).await?;
    let lifted: Vec<Lock> = locks.into_iter().filter(is_meant).map(change).collect();
    let events: Vec<NewEvent> = lifted.iter().map(|lock| event::unlocked(lock, at, by)).collect();
    keep(client, shared, &lifted, &events).await?;
    Ok(lifted)
}

/// Has the lock of that id take these ids too.
pub(super) async fn meet(client: &Client, shared: &Shared, id: &str, met: &[String]) -> Result<(), Failure> {
    let change = |mut lock: Lock| {
        let fresh: Vec<String> = met.iter().filter(|id| !lock.met.contains(id)).cloned().collect();
        lock.met.extend(fresh);
        lock
    };
    let locks = begin(client, shared).await?;
    let met: Vec<Lock> = locks.into_iter().filter(|lock| lock.id == id).map(change).collect();
    keep(client, shared, &met, &[]).await
}

/// The locks as they are, in a transaction in which they may be changed.
async fn begin(client: &Client, shared: &Shared) -> Result<Vec<Lock>, Failure> {
    let found =
        transaction::begin(client, &shared.known, Judged::now(&shared.known), &[(LOCKS, &[])]).await?;
    read_rows(found.first().map(Vec::as_slice).unwrap_or_default(), Some(&shared.seal))
}

/// Ends that transaction by what may change of these, as they were judged.
async fn keep(client: &Client, shared: &Shared, locks: &[Lock], events: &[NewEvent]) -> Result<(), Failure> {
    let kept: Vec<_> = locks
        .iter()
        .map(|lock| {
            let mac = shared.seal.of(lock).to_vec();
            (lock, lock.until.unzip(), lock.met_text(), lock.lifted.clone().unzip(), mac)
        })
        .collect();
    let parameters: Vec<[Parameter<'_>; 8]> = kept
        .iter()
        .map(|(lock, (until, run), met, (lifted, by), mac)| -> [Parameter<'_>; 8] {
            [
                (&lock.id, Type::TEXT),
                (until, Type::INT8),
                (run, Type::INT8),
                (&lock.message, Type::TEXT),
                (met, Type::TEXT),
                (lifted, Type::INT8),
                (by, Type::TEXT),
                (mac, Type::BYTEA),
            ]
        })
        .collect();
    let mut statements: Vec<Statement<'_>> = parameters.iter().map(|kept| (KEEP, kept.as_slice())).collect();
    statements.extend((!locks.is_empty()).then_some((CHANGE, &[][..])));
    finish(client, shared, &statements, events).await
}
