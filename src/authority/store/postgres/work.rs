//! A piece of work: what it needs, and that it is tried again where that may help.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::super::loss::{Mark, Reached};
use super::super::seal::{Seal, StoreKey};
use super::failure::Failure;
use super::known::Known;
use super::pool::{Connection, Pool};
use super::transaction::{FLUSH, TRAIL, silent};
use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::Folder;

/// How long what can be tried again is: a request is answered within fifteen seconds.
pub(super) const PATIENCE: Duration = Duration::from_secs(8);

/// The same where a try may go through the whole trail, and how long that takes.
pub(super) const WHOLE_TRAIL: (Duration, Duration) = (PATIENCE, TRAIL);

/// What lies between two tries, at first and at most.
pub(super) const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// The file in the data directory that says which store this is, and how far it had come, at most a second ago.
pub(in crate::authority::store) const MARK: &str = "store.mark";

pub(super) const CANNOT_READ: &str = "cannot read from the store";
pub(super) const CANNOT_WRITE: &str = "cannot write to the store";

/// What all that is done has in common.
pub(super) struct Shared {
    pub(super) pool: Pool,
    pub(super) known: Known,
    pub(super) seal: Arc<Seal>,
    pub(super) key: StoreKey,
    /// What the mark says by now.
    pub(super) marked: Mutex<Option<Reached>>,
}

impl Shared {
    /// Leaves the mark of how far the store surely had come, unless it says so already.
    pub(super) fn mark(&self) -> Result<()> {
        let mut marked = self.marked.lock().unwrap_or_else(PoisonError::into_inner);
        let reached = self.known.loss().reached.clone();
        if marked.as_ref() != Some(&reached) || !self.key.folder().join(MARK).exists() {
            let mark = Mark { store: self.known.store.clone(), reached };
            write_mark(&self.key, &mark)?;
            *marked = Some(mark.reached);
        }
        Ok(())
    }
}

/// Why a store is not opened that is another than the mark says.
pub(super) fn another(store: &str, marked: &str) -> Error {
    Error::usage(format!("it is another store ({store}) than the one that {MARK} is of ({marked})"))
        .context("cannot open the store")
        .hint("`store` in authority.yaml names the database of another authority, or another was put in its place")
        .hint(format!("where this one is meant, remove {MARK} from the data directory"))
}

/// Puts a mark into the data directory, in the place of what was there.
pub(super) fn write_mark(key: &StoreKey, mark: &Mark) -> Result<()> {
    Folder::replace_inside(key.folder(), MARK, mark.text().as_bytes())
        .context(Kind::Internal, format!("cannot write {MARK}"))
}

/// Does what can be done again, with a word whether it was tried before, until it is done or the time is up.
pub(super) async fn again<T, W: Future<Output = Result<T, Failure>> + Send>(
    pool: &Pool,
    what: &'static str,
    patience: Duration,
    work: impl Fn(Arc<Connection>, bool) -> W,
) -> Result<T> {
    again_within(pool, what, (patience, FLUSH), work).await
}

/// The same, where a try may take longer than a flush.
pub(super) async fn again_within<T, W: Future<Output = Result<T, Failure>> + Send>(
    pool: &Pool,
    what: &'static str,
    (patience, longest): (Duration, Duration),
    work: impl Fn(Arc<Connection>, bool) -> W,
) -> Result<T> {
    let (since, mut pause, mut was_tried) = (Instant::now(), PAUSE.0, false);
    let done = async {
        loop {
            let tried = match pool.get().await {
                Ok(connection) => {
                    let connection = Arc::new(connection);
                    let done = work(Arc::clone(&connection), was_tried).await;
                    was_tried = true;
                    Arc::into_inner(connection)
                        .into_iter()
                        .for_each(|connection| give_back(connection, &done));
                    done
                }
                Err(error) => Err(error.into()),
            };
            match tried {
                Err(failure) if failure.is_away() && since.elapsed() + pause < patience => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE.1);
                }
                tried => return tried,
            }
        }
    };
    let limit = patience + longest;
    let done = tokio::time::timeout(limit, done).await;
    done.unwrap_or_else(|_| Err(silent(limit))).map_err(|failure| failure.error(what))
}

/// Keeps the connection for the next, where nothing is left open on it.
pub(super) fn give_back<T>(connection: Connection, done: &Result<T, Failure>) {
    match done {
        Ok(_) => connection.give_back(),
        // The server may be another's standby by now, or on its way down.
        Err(failure) if failure.is_away() => connection.broken(),
        Err(_) => {}
    }
}
