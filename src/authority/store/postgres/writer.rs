//! What is recorded: events, with the certificates that they tell of and the proofs that they use up.
//!
//! A task takes all that waits and records it in one transaction, which is one flush, one round trip and one
//! commit for all. What is recorded has names of its own (the serial of the first certificate, the id of the
//! event), so that the same again records nothing: a commit whose answer was lost is asked again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::super::event::NewEvent;
use super::super::hosts::SERVE;
use super::super::locks::{Locks, Refused};
use super::super::loss::Loss;
use super::super::proofs::{UsedProof, proof_key};
use super::super::seal::Seal;
use super::super::{Earlier, Issued, NewCertificate, NewIssuance, NewSigned, PlanRecord, Signed};
use super::failure::Failure;
use super::reads;
use super::rows::{self, Columns, Used};
use super::transaction::{self, Judged, Statement, locked};
use super::work::{CANNOT_WRITE, PATIENCE, PAUSE, Shared, give_back};
use crate::error::{Error, Result};

/// How many entries may wait; callers beyond wait for a place.
const QUEUE: usize = 1024;

/// How many entries share a commit at most, which bounds how long the first of them waits.
const BATCH: usize = 256;

/// Events are appended and certificates recorded for those proofs alone that were not used before.
pub(super) const RECORD: &str = concat!(
    "WITH asked AS (
        SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bytea[],
            $8::bigint[], $9::text[], $10::text[], $11::text[], $12::text[], $13::bytea[])
            WITH ORDINALITY AS asked (key, fingerprint, certificate, held_until, held_to_run, generation, mac,
                time, event, id, bot, token, body, nth)
        WHERE ", locked!(), "
    ), used AS (
        INSERT INTO machine_id.proofs (key, fingerprint, certificate, held_until, held_to_run, generation, mac)
        SELECT key, fingerprint, certificate, held_until, held_to_run, generation, mac FROM asked
        WHERE key IS NOT NULL
            AND (generation IS NOT NULL OR held_until > (SELECT forgotten FROM machine_id.state))
        ORDER BY nth ON CONFLICT (key) DO NOTHING RETURNING certificate
    ), kept AS (
        SELECT asked.*, row_number() OVER (ORDER BY nth)
            + (SELECT coalesce(max(sequence), 0) FROM machine_id.events) AS sequence FROM asked
        WHERE CASE WHEN key IS NULL
            THEN NOT EXISTS (SELECT FROM machine_id.events AS known
                WHERE known.id = asked.id AND known.event = asked.event AND known.time = asked.time)
            ELSE certificate IN (SELECT certificate FROM used) END
    ), appended AS (
        INSERT INTO machine_id.events (sequence, time, event, id, bot, token, body)
        SELECT sequence, time, event, id, bot, token, body FROM kept
    ), recorded AS (
        INSERT INTO machine_id.certificates (serial, issuance, kind, expires, key_hash, host, ca)
        SELECT serial, sequence, kind, expires, key_hash, host, ca
        FROM unnest($14::bigint[], $15::bigint[], $16::bigint[], $17::bigint[], $18::bytea[], $19::bigint[], $20::bigint[])
            AS certificates (entry, serial, kind, expires, key_hash, host, ca) JOIN kept ON nth = entry
    )
    SELECT nth FROM kept"
);

/// What is to be recorded, with its event.
#[derive(Debug)]
pub(super) enum Entry {
    /// The event alone.
    Event(NewEvent),
    /// What a command signs; or the authority for itself, whatever the store has lost.
    Signed(NewEvent, Box<NewSigned>),
    /// An issuance, which uses its proof up.
    Issuance(NewEvent, Box<(NewIssuance, PlanRecord)>),
}

impl Entry {
    fn event(&self) -> &NewEvent {
        match self {
            Self::Event(event) | Self::Signed(event, ..) | Self::Issuance(event, _) => event,
        }
    }

    fn certificates(&self) -> &[NewCertificate] {
        match self {
            Self::Event(_) => &[],
            Self::Signed(_, signed) => std::slice::from_ref(&signed.certificate),
            Self::Issuance(_, issuance) => &issuance.1.certificates,
        }
    }

    /// What uses a proof up.
    fn issuance(&self) -> Option<&(NewIssuance, PlanRecord)> {
        match self {
            Self::Issuance(_, issuance) => Some(issuance),
            _ => None,
        }
    }

    /// Whether a lock may take it.
    fn is_judged(&self) -> bool {
        match self {
            Self::Event(_) => false,
            Self::Signed(_, signed) => signed.by != SERVE,
            Self::Issuance(..) => true,
        }
    }

    /// The number of the CAs by which it will be signed, if it will.
    fn cas(&self) -> Option<i64> {
        match self {
            Self::Event(_) => None,
            Self::Signed(_, signed) => Some(signed.cas),
            Self::Issuance(_, issuance) => Some(issuance.0.cas),
        }
    }

    /// The lock that takes it, if one does.
    fn refused(&self, locks: &Locks, run: i64) -> Option<Refused> {
        match self {
            Self::Event(_) => None,
            Self::Signed(_, signed) => {
                let subject = signed.subject()?;
                locks.refuse(signed.time, run, || subject)
            }
            Self::Issuance(_, issuance) => {
                let (entry, plan) = &**issuance;
                locks.refuse(entry.time, run, || entry.subject(plan))
            }
        }
    }

    /// The keys of all uses of its proof.
    fn keys(&self) -> Vec<Vec<u8>> {
        let Some((entry, _)) = self.issuance() else { return Vec::new() };
        (0..entry.max_uses.max(1)).map(|nth| proof_key(&entry.replay, nth).as_ref().to_vec()).collect()
    }
}

/// What became of it.
#[derive(Debug)]
pub(super) enum Written {
    /// It is recorded.
    Now,
    /// The same request was, before.
    Before(Earlier, Option<i64>),
    /// Its proof was used by others, or may have been.
    Used,
    /// A lock takes it.
    Locked(Box<Refused>),
    /// The CAs are others by now.
    Outdated,
}

impl From<Written> for Issued {
    fn from(written: Written) -> Self {
        match written {
            Written::Now => Self::Accepted { plan: None, generation: None },
            Written::Before(earlier, generation) => Self::Accepted { plan: Some(earlier), generation },
            Written::Used => Self::Used,
            Written::Locked(refused) => Self::Locked(refused),
            Written::Outdated => Self::Outdated,
        }
    }
}

impl From<Written> for Signed {
    fn from(written: Written) -> Self {
        match written {
            Written::Locked(refused) => Self::Locked(refused),
            Written::Outdated => Self::Outdated,
            Written::Now | Written::Before(..) | Written::Used => Self::Recorded,
        }
    }
}

/// What waits for its turn.
enum Turn {
    /// It shares a commit.
    Record(Box<Job>),
    /// It has transactions of its own.
    Work(BoxFuture<'static, ()>),
}

struct Job {
    entry: Entry,
    /// The use of the proof that is tried.
    nth: u32,
    /// Whether it may have been recorded by a try whose answer was lost.
    in_doubt: bool,
    since: Instant,
    caller: oneshot::Sender<Result<Written, Failure>>,
}

/// The way to the task that writes.
#[derive(Clone)]
pub(super) struct Writer(mpsc::Sender<Turn>);

impl Writer {
    /// Starts the task, which ends with the last writer.
    pub(super) fn start(shared: Arc<Shared>) -> Self {
        let (queue, mut waiting) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            let mut batch = Vec::with_capacity(BATCH);
            while waiting.recv_many(&mut batch, BATCH).await > 0 {
                let mut jobs = Vec::with_capacity(batch.len());
                let mut works = Vec::new();
                for turn in batch.drain(..) {
                    match turn {
                        Turn::Record(job) => jobs.push(*job),
                        Turn::Work(work) => works.push(work),
                    }
                }
                write(&shared, jobs).await;
                for work in works {
                    work.await;
                }
            }
        });
        Self(queue)
    }

    /// Records the entry; answers once that is durable.
    pub(super) async fn record(&self, entry: Entry) -> Result<Written> {
        let (caller, written) = oneshot::channel();
        let job = Job { entry, nth: 0, in_doubt: false, since: Instant::now(), caller };
        self.answer(Turn::Record(Box::new(job)), written)
            .await?
            .map_err(|failure| failure.error(CANNOT_WRITE))
    }

    /// Has the work done in its turn; also where nobody waits for it any more, if that `is_for_good`.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        is_for_good: bool,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let (mut caller, done) = oneshot::channel();
        let work = Box::pin(async move {
            let done = tokio::select! {
                biased;
                () = caller.closed(), if !is_for_good => return,
                done = work => done,
            };
            drop(caller.send(done));
        });
        self.answer(Turn::Work(work), done).await?
    }

    async fn answer<T>(&self, turn: Turn, answer: oneshot::Receiver<T>) -> Result<T> {
        let stopped = || Error::internal("the store has stopped");
        let ask = async {
            self.0.send(turn).await.map_err(|_| stopped())?;
            answer.await.map_err(|_| stopped())
        };
        // Whoever is not answered by then has gone, and nothing is recorded for him any more.
        let limit = PATIENCE + transaction::FLUSH;
        let late = |_| transaction::silent(limit).error(CANNOT_WRITE);
        tokio::time::timeout(limit, ask).await.map_err(late)?
    }
}

/// Records the jobs, again where that may help, and answers each.
async fn write(shared: &Shared, mut jobs: Vec<Job>) {
    let mut pause = PAUSE.0;
    loop {
        jobs.retain(|job| !job.caller.is_closed());
        if jobs.is_empty() {
            return;
        }
        match once(shared, &mut jobs).await {
            Ok(()) => pause = PAUSE.0,
            Err(failure) if failure.is_away() => {
                let late = jobs.extract_if(.., |job| job.since.elapsed() + pause >= PATIENCE);
                late.for_each(|job| job.answer(Err(failure.clone())));
                jobs.iter_mut().for_each(|job| job.in_doubt = true);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
            }
            // One that the database does not take is no reason to refuse the others.
            Err(Failure::Database(_)) if jobs.len() > 1 => {
                for job in std::mem::take(&mut jobs) {
                    Box::pin(write(shared, vec![job])).await;
                }
            }
            Err(failure) => jobs.drain(..).for_each(|job| job.answer(Err(failure.clone()))),
        }
    }
}

/// Records what can be; those jobs remain whose proofs have another use to try, and all where it fails.
async fn once(shared: &Shared, jobs: &mut Vec<Job>) -> Result<(), Failure> {
    // Whose proofs were judged before the store was put back; and where it is while a connection is waited for, it is
    // not the one any more that the others are written to.
    let restored = shared.known.restored();
    for job in
        jobs.extract_if(.., |job| job.entry.issuance().is_some_and(|(entry, _)| entry.restored != restored))
    {
        job.answer(Err(Loss::meanwhile().into()));
    }
    let connection = shared.pool.get().await?;
    let refused = |locks: &Locks, job: &Job| job.entry.refused(locks, shared.known.run());
    let is_outdated = |cas: i64, job: &Job| job.entry.cas().is_some_and(|by| by != cas);
    let (mut locks, mut cas) = (shared.known.locks(), shared.known.cas());
    // Whom a lock takes hears so once it is known that it still holds; of one that is new hears the transaction. So it is with CAs.
    if jobs.iter().any(|job| refused(&locks, job).is_some() || is_outdated(cas, job)) {
        transaction::look(&connection, &shared.known).await?;
        (locks, cas) = (shared.known.locks(), shared.known.cas());
    }
    for job in std::mem::take(jobs) {
        match refused(&locks, &job) {
            Some(refused) => job.answer(Ok(Written::Locked(Box::new(refused)))),
            None if is_outdated(cas, &job) => job.answer(Ok(Written::Outdated)),
            None => jobs.push(job),
        }
    }
    if jobs.is_empty() {
        connection.give_back();
        return Ok(());
    }
    let are_judged = jobs.iter().any(|job| job.entry.is_judged());
    let are_signed = jobs.iter().any(|job| job.entry.cas().is_some());
    let judged =
        Judged { restored, locks: are_judged.then_some(locks.number), cas: are_signed.then_some(cas) };
    let done = on(shared, &connection, jobs, judged).await;
    give_back(connection, &done);
    done
}

async fn on(
    shared: &Shared,
    connection: &Client,
    jobs: &mut Vec<Job>,
    judged: Judged,
) -> Result<(), Failure> {
    let written = record(shared, connection, jobs, judged).await?;
    let mut nth = 0_usize;
    let recorded = jobs.extract_if(.., |job| {
        nth += 1;
        job.entry.issuance().is_none() || written.contains(&nth)
    });
    recorded.for_each(|job| job.answer(Ok(Written::Now)));
    if jobs.is_empty() {
        return Ok(());
    }
    let keys: Vec<_> = jobs.iter().flat_map(|job| job.entry.keys()).collect();
    let found = reads::rows(connection, reads::PROOFS, &[(&keys, Type::BYTEA_ARRAY)]).await?;
    let found = rows::used(&found)?;
    for mut job in std::mem::take(jobs) {
        match job.judge(&found, &shared.seal) {
            Some(written) => job.answer(Ok(written)),
            None => jobs.push(job),
        }
    }
    Ok(())
}

/// Records the jobs in one transaction; which of them were recorded now, by their places from 1 on.
async fn record(
    shared: &Shared,
    client: &Client,
    jobs: &[Job],
    judged: Judged,
) -> Result<BTreeSet<usize>, Failure> {
    let run = shared.known.held(0);
    let mut columns = Columns::default();
    for Job { entry, nth, .. } in jobs {
        let proof = entry.issuance();
        let proof = proof
            .map(|(new, plan)| UsedProof::new(proof_key(&new.replay, *nth).as_ref(), new, plan, None, run));
        columns.add(entry.event(), entry.certificates(), proof, &shared.seal);
    }
    let even_lost =
        jobs.iter().all(|job| matches!(&job.entry, Entry::Signed(_, signed) if signed.by == SERVE));
    let record: &[Statement<'_>] = &[(RECORD, &columns.parameters())];
    let done = transaction::write_as_judged(client, &shared.known, record, judged, even_lost).await?;
    let mut written = BTreeSet::new();
    for row in done.iter().flatten() {
        let nth: i64 = row.try_get(0)?;
        written.extend(usize::try_from(nth));
    }
    Ok(written)
}

impl Job {
    fn answer(self, written: Result<Written, Failure>) {
        // Whoever has gone away does not care.
        drop(self.caller.send(written));
    }

    /// What became of its proof, which was not recorded just now; nothing where another of its uses is to be tried.
    fn judge(&mut self, found: &Used, seal: &Seal) -> Option<Written> {
        let (_, plan) = self.entry.issuance()?;
        for (nth, key) in (0..).zip(self.entry.keys()) {
            let Some(used) = found.get(&key) else {
                // One that was tried may be among those that were forgotten.
                let was_tried = nth == self.nth;
                self.nth = nth;
                return was_tried.then_some(Written::Used);
            };
            if let Some((earlier, generation)) = used.again(plan, seal) {
                let is_ours = self.in_doubt && earlier.id == plan.id;
                return Some(if is_ours { Written::Now } else { Written::Before(earlier, generation) });
            }
        }
        Some(Written::Used)
    }
}
