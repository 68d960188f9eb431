//! The two threads of a store. The writer takes everything that waits, runs it
//! in one transaction and commits once, so that full durability costs one
//! sync for all; the reader sees what was committed and holds up neither the
//! writer nor the runtime.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

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

/// The thread that writes.
pub(super) type Writer = Thread<Box<dyn Entry>>;

/// The thread that reads.
pub(super) type Reader = Thread<Box<dyn FnOnce(&Connection) + Send>>;

/// Something to be written.
pub(super) trait Entry: Send {
    /// Runs the statements. After an error, told in words, they are to be undone.
    fn apply(&mut self, connection: &Connection) -> std::result::Result<(), String>;

    /// Answers the caller, once the transaction is committed or is not.
    fn answer(self: Box<Self>, committed: &std::result::Result<(), String>);
}

/// The [`Entry`] of one caller.
struct Pending<W, T> {
    work: Option<W>,
    done: Option<rusqlite::Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<W, T> Entry for Pending<W, T>
where
    W: FnOnce(&Connection) -> rusqlite::Result<T> + Send,
    T: Send,
{
    fn apply(&mut self, connection: &Connection) -> std::result::Result<(), String> {
        let done = self.work.take().map(|work| work(connection));
        let failed = done.as_ref().and_then(|done| done.as_ref().err().map(ToString::to_string));
        self.done = done;
        failed.map_or(Ok(()), Err)
    }

    fn answer(self: Box<Self>, committed: &std::result::Result<(), String>) {
        let answer = match (committed, self.done) {
            (_, Some(Err(error))) => Err(error).context(Kind::Internal, "cannot write to the store"),
            (Ok(()), Some(Ok(done))) => Ok(done),
            (Ok(()), None) => Err(Error::internal("the store did not take the entry")),
            (Err(error), _) => Err(Error::internal(error.clone()).context("cannot write to the store")),
        };
        // A caller that has gone away does not care.
        drop(self.reply.send(answer));
    }
}

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
    /// Starts the thread; `commits` counts its transactions.
    pub(super) fn writer(connection: Connection, commits: Arc<AtomicU64>) -> Result<Self> {
        Self::start("store-write", move |mut waiting| {
            let mut batch = Vec::with_capacity(BATCH);
            while waiting.blocking_recv_many(&mut batch, BATCH) > 0 {
                let committed = commit(&connection, &mut batch);
                if committed.is_ok() {
                    commits.fetch_add(1, Ordering::Relaxed);
                }
                for entry in batch.drain(..) {
                    entry.answer(&committed);
                }
            }
        })
    }

    /// Runs `work` in a transaction, which it may share with others; answers
    /// once that is on the disk. An error of `work` undoes what it did and nothing else.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.send(Box::new(Pending { work: Some(work), done: None, reply })).await?;
        answer.await.context(Kind::Internal, "the store has stopped")?
    }
}

impl Reader {
    /// Starts the thread.
    pub(super) fn reader(connection: Connection) -> Result<Self> {
        Self::start("store-read", move |mut waiting| {
            while let Some(read) = waiting.blocking_recv() {
                read(&connection);
            }
        })
    }

    /// Runs `work` on what is committed.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.send(Box::new(move |connection| drop(reply.send(work(connection))))).await?;
        answer
            .await
            .context(Kind::Internal, "the store has stopped")?
            .context(Kind::Internal, "cannot read from the store")
    }
}

/// Applies the entries in one transaction and commits it. On an error, told in
/// words for all of them, nothing of any entry is kept.
fn commit(connection: &Connection, batch: &mut [Box<dyn Entry>]) -> std::result::Result<(), String> {
    let outcome = apply(connection, batch).and_then(|()| run(connection, "COMMIT"));
    if outcome.is_err() && !connection.is_autocommit() {
        // Where this fails the transaction stays open; then the next BEGIN fails, and so every entry until
        // the authority is restarted: nothing is signed that is not recorded.
        drop(run(connection, "ROLLBACK"));
    }
    outcome
}

fn apply(connection: &Connection, batch: &mut [Box<dyn Entry>]) -> std::result::Result<(), String> {
    run(connection, "BEGIN IMMEDIATE")?;
    for entry in batch {
        run(connection, "SAVEPOINT entry")?;
        if let Err(error) = entry.apply(connection) {
            if connection.is_autocommit() {
                // SQLite has ended the whole transaction, as it does for a full disk: the entries before
                // are lost too.
                return Err(error);
            }
            run(connection, "ROLLBACK TO entry")?;
        }
        run(connection, "RELEASE entry")?;
    }
    Ok(())
}

fn run(connection: &Connection, sql: &str) -> std::result::Result<(), String> {
    let done = connection.prepare_cached(sql).and_then(|mut statement| statement.execute([]));
    done.map(drop).map_err(|error| error.to_string())
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
