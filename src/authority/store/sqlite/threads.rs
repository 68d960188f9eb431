//! The two threads of a store. The writer takes everything that waits, runs it
//! in one transaction and commits once, so that full durability costs one
//! sync for all; the reader sees what was committed and holds up neither the
//! writer nor the runtime.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::closing;
use super::outside::{Outside, reached};
use super::reserve::Reserve;
use super::unwritten::Unwritten;
use crate::error::{Context as _, Error, Kind, Result};

/// How many entries may wait; callers beyond wait for a place.
const QUEUE: usize = 1024;

/// How many entries share a commit at most, which bounds how long the first of them waits.
const BATCH: usize = 256;

/// A thread that owns a connection, and the queue to it. Dropping it lets the
/// thread do what was queued, and waits for its end.
pub(super) struct Thread<J> {
    queue: Option<mpsc::Sender<J>>,
    handle: Option<JoinHandle<()>>,
}

/// Statements of one caller, and where he waits. After an error they are to be
/// undone; they may be run again in another transaction.
trait Work: Send {
    fn run(&mut self, connection: &Connection) -> Outcome;

    /// Tells the caller, once it is known what became of the transaction.
    fn answer(self: Box<Self>, committed: Outcome);
}

/// [`Work`] whose caller wants a `T`.
struct Writing<W, T> {
    work: W,
    written: Option<std::result::Result<T, Unwritten>>,
    caller: oneshot::Sender<std::result::Result<T, Unwritten>>,
}

impl<T: Send, W: FnMut(&Connection) -> std::result::Result<T, Unwritten> + Send> Work for Writing<W, T> {
    fn run(&mut self, connection: &Connection) -> Outcome {
        let written = self.written.insert((self.work)(connection));
        written.as_ref().map(drop).map_err(Clone::clone)
    }

    fn answer(self: Box<Self>, committed: Outcome) {
        let written = match (committed, self.written) {
            // What failed by itself says more than what failed for all.
            (Err(Unwritten::Database(_)), Some(Err(own))) => Err(own),
            (Err(error), _) => Err(error),
            (Ok(()), written) => written.unwrap_or_else(|| Err(Unwritten::full())),
        };
        // One that has gone away does not care.
        drop(self.caller.send(written));
    }
}

/// Whether it was done, or why not.
type Outcome = std::result::Result<(), Unwritten>;

/// What is done on a disk that is nearly full, or in a store that has lost something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// Nothing, unless the reserve stands: this is what jobs and strangers cause.
    ToSpare,
    /// What there is room for: it frees some, takes a right away, or is the operator's.
    Any,
    /// The same, whatever the store has lost: that an authority can say so.
    EvenLost,
}

/// What one caller wants written.
pub(super) struct Job {
    work: Box<dyn Work>,
    room: Room,
}

/// The thread that writes; each caller hears whether what he wrote was committed.
pub(super) type Writer = Thread<Job>;

/// The thread that reads.
pub(super) type Reader = Thread<Box<dyn FnOnce(&Connection, Option<&Outside>) + Send>>;

impl<J: Send + 'static> Thread<J> {
    fn start(name: &str, body: impl FnOnce(mpsc::Receiver<J>) + Send + 'static) -> Result<Self> {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let handle = Builder::new()
            .name(name.to_owned())
            .spawn(move || body(waiting))
            .context(Kind::Internal, "cannot start a thread of the store")?;
        Ok(Self { queue: Some(queue), handle: Some(handle) })
    }

    async fn send(&self, job: J) -> Result<()> {
        let stopped = || Error::internal("the store has stopped");
        self.queue.as_ref().ok_or_else(stopped)?.send(job).await.map_err(|_| stopped())
    }
}

impl Writer {
    /// Starts the thread. `revocations` is what the work counts up that revokes.
    pub(super) fn writer(
        connection: Connection,
        mut reserve: Reserve,
        revocations: Arc<AtomicU64>,
        outside: Arc<Outside>,
    ) -> Result<Self> {
        Self::start("store-write", move |mut waiting| {
            let mut batch = Vec::with_capacity(BATCH);
            while waiting.blocking_recv_many(&mut batch, BATCH) > 0 {
                if batch.iter().any(|job: &Job| job.room == Room::ToSpare) && !reserve.stands() {
                    let unwritten = Unwritten::full();
                    for Job { work, .. } in batch.extract_if(.., |job| job.room == Room::ToSpare) {
                        work.answer(Err(unwritten.clone()));
                    }
                }
                let before = revocations.load(Ordering::SeqCst);
                let committed = commit(&connection, &mut batch, &outside);
                // A commit to a file that is gone is none.
                let committed = outside.check().map_err(Unwritten::displaced).and(committed);
                if revocations.load(Ordering::SeqCst) != before {
                    // What was read since it was counted is from before the commit.
                    revocations.fetch_add(1, Ordering::SeqCst);
                }
                if committed.as_ref().is_err_and(Unwritten::is_no_room) {
                    reserve.give_up(Some(&connection));
                }
                for Job { work, .. } in batch.drain(..) {
                    work.answer(committed.clone());
                }
            }
            end(connection, &outside);
        })
    }

    /// Runs `work` in a transaction, which it may share with others; answers
    /// once that is on the disk. An error of `work` undoes what it did and
    /// nothing else; another's may have it run once more.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        room: Room,
        mut work: impl FnMut(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        self.try_write(room, move |connection| Ok(work(connection)?)).await
    }

    /// The same for what has reasons of its own not to be written.
    pub(super) async fn try_write<T: Send + 'static>(
        &self,
        room: Room,
        work: impl FnMut(&Connection) -> std::result::Result<T, Unwritten> + Send + 'static,
    ) -> Result<T> {
        let (cannot, stopped) = ("cannot write to the store", "the store has stopped");
        let (caller, answer) = oneshot::channel();
        self.send(Job { work: Box::new(Writing { work, written: None, caller }), room }).await?;
        let written = answer.await.context(Kind::Internal, stopped)?;
        written.map_err(|why| why.error(cannot))
    }
}

impl Reader {
    /// Starts the thread. What is outside of the store says why it cannot be read, where the store is not in its place.
    pub(super) fn reader(connection: Connection, outside: Option<Arc<Outside>>) -> Result<Self> {
        Self::start("store-read", move |mut waiting| {
            while let Some(read) = waiting.blocking_recv() {
                read(&connection, outside.as_deref());
            }
        })
    }

    /// Runs `work` on what is committed at one moment.
    pub(super) async fn read_at_once<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        self.read(move |connection| work(&*connection.unchecked_transaction()?)).await
    }

    /// Runs `work` on what is committed.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.send(Box::new(move |connection, outside| {
            let displaced = || outside.and_then(|outside| outside.check().err()).map(Unwritten::displaced);
            let read = work(connection).map_err(|error| displaced().unwrap_or_else(|| error.into()));
            drop(reply.send(read));
        }))
        .await?;
        let read = answer.await.context(Kind::Internal, "the store has stopped")?;
        read.map_err(|why| why.error("cannot read from the store"))
    }
}

/// Leaves the last mark, and closes the store. One that is no longer in its
/// place stays open until the process ends: closing it would take away the log
/// of whatever stands there now.
fn end(connection: Connection, outside: &Outside) {
    if !outside.stands() {
        std::mem::forget(connection);
    } else if outside.hear(&connection).is_ok() {
        // What was lost is told by it, too.
        drop(outside.mark());
    }
}

/// Applies the entries in one transaction and commits it. On an error, told to
/// all of them, nothing of any entry is kept.
///
/// An entry that fails by itself is seldom: only then they are run again, each
/// in a savepoint, which otherwise would cost more than what it guards.
fn commit(connection: &Connection, batch: &mut [Job], outside: &Outside) -> Outcome {
    let failed = Cell::new(false);
    let together = |connection: &_, work: &mut dyn Work| {
        work.run(connection).inspect_err(|error| failed.set(!error.is_no_room()))
    };
    let outcome = transact(connection, batch, outside, together);
    if failed.get() && batch.len() > 1 { transact(connection, batch, outside, by_itself) } else { outcome }
}

fn transact(
    connection: &Connection,
    batch: &mut [Job],
    outside: &Outside,
    apply: impl Fn(&Connection, &mut dyn Work) -> Outcome,
) -> Outcome {
    let outcome = run(connection, "BEGIN IMMEDIATE").and_then(|()| {
        closing::closed(connection)?.map_or(Ok(()), |closed| Err(Unwritten::Closed(closed)))?;
        // Nobody else writes from here on.
        let loss = outside.hear(connection)?.err();
        batch.iter_mut().try_for_each(|job| match &loss {
            Some(loss) if job.room != Room::EvenLost || !loss.is_told() => Err(loss.clone().into()),
            _ => apply(connection, job.work.as_mut()),
        })?;
        let reached = loss.is_none().then(|| reached(connection)).transpose()?;
        run(connection, "COMMIT")?;
        // What it must not be without from now on.
        reached.into_iter().for_each(|reached| outside.wrote(reached));
        Ok(())
    });
    if outcome.is_err() && !connection.is_autocommit() {
        // Where this fails the transaction stays open; then the next BEGIN fails, and so every entry until
        // the authority is restarted: nothing is signed that is not recorded.
        drop(run(connection, "ROLLBACK"));
    }
    outcome
}

/// Its error is its own, unless it is for want of room: on a full disk SQLite
/// ends the whole transaction, mostly, and the entries before are lost too.
fn by_itself(connection: &Connection, work: &mut dyn Work) -> Outcome {
    run(connection, "SAVEPOINT entry")?;
    if let Err(error) = work.run(connection) {
        if connection.is_autocommit() || error.is_no_room() {
            return Err(error);
        }
        run(connection, "ROLLBACK TO entry")?;
    }
    run(connection, "RELEASE entry")
}

fn run(connection: &Connection, sql: &str) -> Outcome {
    let done = connection.prepare_cached(sql).and_then(|mut statement| statement.execute([]));
    Ok(done.map(drop)?)
}

impl<J> Drop for Thread<J> {
    fn drop(&mut self) {
        self.queue.take();
        if let Some(handle) = self.handle.take() {
            // A thread that panicked has said so on its own.
            drop(handle.join());
        }
    }
}

impl<J> fmt::Debug for Thread<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Thread").finish_non_exhaustive()
    }
}
