//! The store in one file, with SQLite inside. Commits are shared by whatever
//! waits (see `threads`), and each is on the disk before anything of it is
//! answered. Commands may open the file beside a running server.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::BoxFuture;
use rusqlite::Connection;
use tempfile::TempDir;

use super::cas::Heard;
use super::closed::{self, Closed};
use super::hosts::SERVE;
use super::instances::{InstanceRefusal, NewSecret, RegisteredInstance};
use super::locks::{Lock, LockKind, NewLock, STEP, Shut};
use super::loss::{Loss, Restored, lost};
use super::odometer::Odometer;
use super::replicas::{Announced, Replica};
use super::seal::{Seal, StoreKey};
use super::{
    CertificateRecord, Cursor, Event, EventFilter, Issued, ListNumber, NewIssuance, NewRefusal,
    NewRevocation, NewSigned, PlanRecord, Revoked, RevokedSince, RevokedUpto, Signed, Store, Trail, event,
    sealed,
};
use crate::authority::limits::{FREE, Level, Spent};
use crate::error::{Context as _, Kind, Result};
use crate::folder::trust::Owner;
use crate::join::instance::{Instance, InstanceLookup};

pub mod archive;
mod ca_rows;
mod cas;
mod closing;
mod copy;
mod hosts;
mod instances;
mod locks;
mod opening;
mod outside;
mod pruning;
mod reads;
mod reserve;
mod rows;
mod schema;
mod sealing;
mod shared;
mod strangers;
mod threads;
mod unwritten;
mod writes;

use copy::Still;
use opening::{Opened, Opening, told};
pub use outside::MARK;
use outside::Outside;
use threads::Room;
use unwritten::Unwritten;
pub use unwritten::{is_displaced, no_room};

#[cfg(test)]
mod tests;

/// How many rows one transaction forgets, so that pruning never holds up an exchange for long.
const PRUNE_STEP: usize = 100;

/// How many rows are looked at in one go, where nobody who writes waits for it.
const PRUNE_LOOK: usize = 1000;

/// How many such steps an authority makes at a time of what `retain` lets go, beside its other work.
const STEPS: usize = 1000;

/// A [`Store`] in a file of SQLite.
#[derive(Debug)]
pub struct Sqlite {
    // In this order: the last connection to close folds the write-ahead log
    // into the file, which takes one that may write.
    reader: threads::Reader,
    writer: threads::Writer,
    revocations: Arc<AtomicU64>,
    odometer: Odometer,
    outside: Arc<Outside>,
    seal: Arc<Seal>,
    locks: Arc<locks::Known>,
}

/// The [`Trail`] of a store in a file of SQLite, which is left as it is.
#[derive(Debug)]
pub struct SqliteTrail {
    reader: threads::Reader,
    /// What must stay as it is for what is read to be whole.
    still: Option<Still>,
    _copy: Option<TempDir>,
}

impl Sqlite {
    /// Opens the authority's store at `path`, whose rows are sealed with that
    /// key, and brings its schema up to date. One that was put back from a copy
    /// says so in its trail, at `now`.
    ///
    /// # Errors
    /// `Kind::Usage` where it is missing, another than the one that was there,
    /// sealed with another key, cannot be opened, is something else, or is of a
    /// newer schema; `Kind::Internal` where setting it up fails.
    pub fn open(path: &Path, key: &StoreKey, now: i64) -> Result<Self> {
        Self::start(path, key, Opening::Known, now)
    }

    /// Makes the first store of an authority (mode 0600), and its key.
    pub fn create(path: &Path, key: &StoreKey) -> Result<()> {
        Self::start(path, key, Opening::First, 0).map(drop)
    }

    /// Makes a store in the place of one that is lost, which its trail says.
    pub fn begin_anew(path: &Path, key: &StoreKey, now: i64) -> Result<()> {
        Self::start(path, key, Opening::Anew, now).map(drop)
    }

    fn start(path: &Path, key: &StoreKey, opening: Opening, now: i64) -> Result<Self> {
        let start = |path: &Path| {
            let mut reserve = reserve::Reserve::of(path);
            let opened = opening::open(path, key, opening, now).or_else(|error| {
                if !no_room(&error) {
                    return Err(error);
                }
                reserve.give_up(None);
                opening::open(path, key, opening, now)
            });
            let Opened { writing, reading, outside, seal } = opened?;
            let odometer = opening::odometer(&writing).context(Kind::Internal, "cannot read the store")?;
            let (revocations, outside) = (Arc::default(), Arc::new(outside));
            let writer =
                threads::Writer::writer(writing, reserve, Arc::clone(&revocations), Arc::clone(&outside))?;
            let reader = threads::Reader::reader(reading, Some(Arc::clone(&outside)))?;
            Ok(Self {
                reader,
                writer,
                revocations,
                odometer,
                outside,
                seal: Arc::new(seal),
                locks: Arc::default(),
            })
        };
        told(if opening == Opening::Known { "open" } else { "create" }, path, start)
    }
}

impl SqliteTrail {
    /// Opens the store at `path` for reading alone: nothing is made, changed
    /// or migrated there, and it may be where nothing can be.
    ///
    /// # Errors
    /// As [`Sqlite::open`]; and where it changes while it is copied.
    pub fn open(path: &Path, owner: Owner) -> Result<Self> {
        told("read", path, |path| {
            let copy::Readable { connection, still, copy } = copy::open(path, owner)?;
            Ok(Self { reader: threads::Reader::reader(connection, None)?, still, _copy: copy })
        })
    }

    /// How many revoked certificates end at `since` or later.
    pub async fn revoked_count(&self, since: i64) -> Result<i64> {
        self.look(move |connection| reads::revoked_count(connection, since)).await
    }

    /// What is read, as long as what it was read from stays as it was.
    async fn look<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let read = self.reader.read(work).await;
        self.still.as_ref().map_or(Ok(()), Still::check)?;
        read
    }
}

impl Trail for SqliteTrail {
    fn events(&self, filter: EventFilter, after: Cursor, limit: usize) -> BoxFuture<'_, Result<Vec<Event>>> {
        Box::pin(self.look(move |connection| reads::events(connection, &filter, after, limit)))
    }

    fn dropped(&self) -> BoxFuture<'_, Result<i64>> {
        Box::pin(self.look(strangers::dropped))
    }

    fn kept_from(&self) -> BoxFuture<'_, Result<i64>> {
        Box::pin(self.look(pruning::kept_from))
    }

    fn closed(&self) -> BoxFuture<'_, Result<Option<Closed>>> {
        Box::pin(self.look(closing::closed))
    }

    fn instances(&self) -> BoxFuture<'_, Result<Vec<RegisteredInstance>>> {
        Box::pin(self.look(instances::instances))
    }
}

impl Trail for Sqlite {
    fn events(&self, filter: EventFilter, after: Cursor, limit: usize) -> BoxFuture<'_, Result<Vec<Event>>> {
        Box::pin(self.reader.read(move |connection| reads::events(connection, &filter, after, limit)))
    }

    fn dropped(&self) -> BoxFuture<'_, Result<i64>> {
        Box::pin(self.reader.read(strangers::dropped))
    }

    fn kept_from(&self) -> BoxFuture<'_, Result<i64>> {
        Box::pin(self.reader.read(pruning::kept_from))
    }

    fn closed(&self) -> BoxFuture<'_, Result<Option<Closed>>> {
        Box::pin(self.reader.read(closing::closed))
    }

    fn instances(&self) -> BoxFuture<'_, Result<Vec<RegisteredInstance>>> {
        Box::pin(self.reader.read(instances::instances))
    }
}

impl sealed::Engine for Sqlite {
    #[cfg(test)]
    fn run_for(&self, seconds: i64) {
        self.odometer.advance(seconds);
    }
}

impl Store for Sqlite {
    fn issue(&self, entry: NewIssuance, plan: PlanRecord) -> BoxFuture<'_, Result<Issued>> {
        let event = event::issued(&entry, &plan);
        let (revocations, run) = (Arc::clone(&self.revocations), self.odometer.now());
        let (seal, outside, locks) =
            (Arc::clone(&self.seal), Arc::clone(&self.outside), Arc::clone(&self.locks));
        Box::pin(self.writer.try_write(Room::ToSpare, move |connection| {
            if outside.restored().map(|restored| restored.time) != entry.restored {
                return Err(Unwritten::Lost(Loss::meanwhile()));
            }
            if let Some(refused) =
                locks.refuse(connection, entry.time, run, &seal, || entry.subject(&plan))?
            {
                return Ok(Issued::Locked(Box::new(refused)));
            }
            let issued = writes::issue(connection, &entry, &plan, &event, run, &seal)?;
            if let Issued::Refused(InstanceRefusal::LockedNow { .. } | InstanceRefusal::Ahead { .. }) = issued
            {
                revocations.fetch_add(1, Ordering::SeqCst);
            }
            Ok(issued)
        }))
    }

    fn record_signed(&self, entry: NewSigned) -> BoxFuture<'_, Result<Signed>> {
        let room = if entry.by == SERVE { Room::EvenLost } else { Room::Any };
        let (locks, seal, run) = (Arc::clone(&self.locks), Arc::clone(&self.seal), self.odometer.now());
        let event = event::signed(&entry);
        let record = move |connection: &_| locks.record_signed(connection, &entry, &event, run, &seal);
        Box::pin(self.writer.write(room, record))
    }

    fn refuse(&self, entry: NewRefusal) -> BoxFuture<'_, Result<()>> {
        let event = event::refused(&entry);
        Box::pin(self.writer.write(Room::ToSpare, move |connection| match entry.stranger {
            Some(stranger) => strangers::append(connection, stranger, &event),
            None => rows::append(connection, &event).map(drop),
        }))
    }

    fn certificate(&self, serial: u64) -> BoxFuture<'_, Result<Option<CertificateRecord>>> {
        Box::pin(self.reader.read(move |connection| reads::certificate(connection, serial)))
    }

    fn revoke(&self, entry: NewRevocation) -> BoxFuture<'_, Result<Revoked>> {
        let revocations = Arc::clone(&self.revocations);
        let held = self.odometer.now().saturating_add(entry.held.lasts);
        Box::pin(self.writer.write(Room::Any, move |connection| {
            let revoked = writes::revoke(connection, &entry, held)?;
            revocations.fetch_add(u64::from(revoked == Revoked::Now), Ordering::SeqCst);
            Ok(revoked)
        }))
    }

    fn revocations(&self) -> u64 {
        self.revocations.load(Ordering::SeqCst)
    }

    fn hear(&self) -> BoxFuture<'_, Result<Heard>> {
        let (locks, revocations) = (Arc::clone(&self.locks), Arc::clone(&self.revocations));
        Box::pin(self.reader.read(move |connection| locks.hear(connection, &revocations)))
    }

    fn revoked_since(&self, since: i64, known: Option<RevokedUpto>) -> BoxFuture<'_, Result<RevokedSince>> {
        let outside = Arc::clone(&self.outside);
        Box::pin(async move {
            let read = move |connection: &Connection| reads::revoked(connection, &outside, since, known);
            self.reader.read_at_once(read).await?
        })
    }

    fn list_number(&self, now: i64, what: [u8; 32]) -> BoxFuture<'_, Result<ListNumber>> {
        Box::pin(self.writer.write(Room::Any, move |connection| writes::list_number(connection, now, &what)))
    }

    fn spend(&self, spent: Vec<Spent>) -> BoxFuture<'_, Result<Vec<Level>>> {
        Box::pin(async move {
            let now = self.odometer.millis();
            let levels = self.reader.read(move |connection| shared::levels(connection, now)).await?;
            // Nothing is written while nobody asks for anything.
            if spent.is_empty() && levels.iter().all(|level| level.seconds >= -FREE) {
                return Ok(levels);
            }
            let spend = move |connection: &_| {
                shared::spend(connection, &spent, now)?;
                shared::levels(connection, now)
            };
            self.writer.write(Room::ToSpare, spend).await
        })
    }

    fn announce(&self, replica: Replica) -> BoxFuture<'_, Result<Announced>> {
        Box::pin(async move {
            let id = replica.id.clone();
            let announce = move |connection: &_| shared::announce(connection, &replica);
            // On a full disk, or of a store that has lost something, it is only read who is there: no reason not to start.
            self.writer.write(Room::ToSpare, announce).await.or_else(|error| {
                if no_room(&error) || lost(&error).is_some() { Ok(()) } else { Err(error) }
            })?;
            self.reader.read(move |connection| shared::announced(connection, &id)).await
        })
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn add_secret(&self, entry: NewSecret) -> BoxFuture<'_, Result<()>> {
        let held = self.odometer.now().saturating_add(entry.expires.saturating_sub(entry.time));
        let seal = Arc::clone(&self.seal);
        let add = move |connection: &_| instances::add_secret(connection, &entry, held, &seal);
        Box::pin(self.writer.write(Room::Any, add))
    }

    fn withdraw_secrets(&self, token: String, at: i64, by: String) -> BoxFuture<'_, Result<u64>> {
        let withdraw = move |connection: &_| instances::withdraw_secrets(connection, &token, at, &by);
        Box::pin(self.writer.write(Room::Any, withdraw))
    }

    fn lock(&self, mut new: NewLock) -> BoxFuture<'_, Result<Shut>> {
        Box::pin(async move {
            let (run, at, dry_run) = (self.odometer.now(), new.lock.at, new.dry_run);
            let ends = |lasts| (at.saturating_add(lasts), run.saturating_add(lasts));
            new.lock.until = new.lasts.map(ends);
            let (lock, taken, last) =
                self.reader.read(move |connection| locks::look(connection, &new)).await?;
            if dry_run {
                return Ok(taken.shut);
            }
            let (seal, revocations) = (Arc::clone(&self.seal), Arc::clone(&self.revocations));
            let put = move |connection: &_| {
                revocations.fetch_add(1, Ordering::SeqCst);
                locks::put(connection, lock.clone(), taken.clone(), last, &seal, STEP)
            };
            let (shut, rest) = self.writer.write(Room::Any, put).await?;
            for issuances in rest.chunks(STEP) {
                let (issuances, revocations) = (issuances.to_vec(), Arc::clone(&self.revocations));
                let revoke = move |connection: &_| {
                    revocations.fetch_add(1, Ordering::SeqCst);
                    locks::revoke(connection, &issuances, at)
                };
                self.writer.write(Room::Any, revoke).await?;
            }
            Ok(shut)
        })
    }

    fn unlock(&self, kind: LockKind, value: String, at: i64, by: String) -> BoxFuture<'_, Result<Vec<Lock>>> {
        let seal = Arc::clone(&self.seal);
        let lift = move |connection: &_| locks::lift(connection, kind, &value, at, &by, &seal);
        Box::pin(self.writer.write(Room::Any, lift))
    }

    fn meet(&self, lock: String, ids: Vec<String>) -> BoxFuture<'_, Result<()>> {
        let seal = Arc::clone(&self.seal);
        let meet = move |connection: &_| locks::meet(connection, &lock, &ids, &seal);
        Box::pin(self.writer.write(Room::Any, meet))
    }

    fn locks(&self, now: i64) -> BoxFuture<'_, Result<Vec<Lock>>> {
        let (seal, run) = (Arc::clone(&self.seal), self.odometer.now());
        Box::pin(self.reader.read(move |connection| {
            let mut all = locks::read(connection, &seal)?.all;
            all.retain(|lock| lock.holds(now, run));
            Ok(all)
        }))
    }

    fn ready(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            self.writer.write(Room::ToSpare, writes::probe).await?;
            self.reader.read(reads::probe).await
        })
    }

    fn restored(&self) -> Option<Restored> {
        self.outside.restored()
    }

    fn tampered(&self) -> Option<String> {
        self.seal.warning()
    }

    fn mark(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            let outside = Arc::clone(&self.outside);
            outside.check()?;
            let hearing = Arc::clone(&outside);
            let heard = self.reader.read(move |connection| hearing.hear(connection)).await?;
            // What was lost last is to be told by it, too.
            let marked = tokio::task::spawn_blocking(move || outside.mark()).await;
            marked.context(Kind::Internal, "cannot write the mark")??;
            heard.map_err(|loss| loss.error("the store is not as it was"))
        })
    }

    fn resume(&self, now: i64) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let outside = Arc::clone(&self.outside);
            outside.check()?;
            let resumed = tokio::task::spawn_blocking(move || opening::resume(outside.path(), now)).await;
            resumed.context(Kind::Internal, "cannot go on with the store")??;
            self.mark().await
        })
    }

    fn let_go(&self, before: i64, now: i64, asked: bool) -> BoxFuture<'_, Result<u64>> {
        Box::pin(async move {
            if let Some(place) = self.reader.read(pruning::moving).await? {
                return if asked { Err(closed::moving(&place)) } else { Ok(0) };
            }
            let run = self.odometer.now();
            let further = self.reader.read(move |connection| {
                let further = pruning::further(connection, before, run, asked)?;
                further.map(|from| Ok((from, pruning::count(connection, from)?))).transpose()
            });
            if let Some((from, events)) = further.await?
                && events > 0
            {
                let begin = move |connection: &_| pruning::begin(connection, from, run, now, events);
                self.writer.write(Room::Any, begin).await?;
            }
            let (mut place, mut all) = (Some((i64::MIN, 0)), 0);
            for _ in 0..if asked { usize::MAX } else { STEPS } {
                let Some(at) = place else { break };
                let step = move |connection: &_| pruning::step(connection, at, PRUNE_STEP);
                let (gone, next) = self.writer.write(Room::Any, step).await?;
                (all, place) = (all + gone, next);
            }
            Ok(all)
        })
    }

    fn prune(&self, now: i64) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let run = self.odometer.now();
            let mut place = Some((i64::MIN, 0));
            while let Some(after) = place {
                let look = move |connection: &_| reads::forgettable(connection, now, run, after, PRUNE_LOOK);
                let (due, next) = self.reader.read(look).await?;
                for step in due.chunks(PRUNE_STEP) {
                    let step = step.to_vec();
                    self.writer.write(Room::Any, move |connection| writes::forget(connection, &step)).await?;
                }
                place = next;
            }
            let prune = move |connection: &_| writes::prune(connection, now, run, PRUNE_STEP);
            while self.writer.write(Room::Any, prune).await? {}
            Ok(())
        })
    }
}

impl InstanceLookup for Sqlite {
    fn instance<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Instance>>> {
        let (id, seal) = (id.to_owned(), Arc::clone(&self.seal));
        Box::pin(self.reader.read(move |connection| instances::instance(connection, &id, &seal)))
    }

    fn admits<'a>(&'a self, secret: &'a [u8; 32], token: &'a str, now: i64) -> BoxFuture<'a, Result<bool>> {
        let (secret, token, seal) = (*secret, token.to_owned(), Arc::clone(&self.seal));
        let admits = move |connection: &_| {
            Ok(instances::secret(connection, &secret, &seal)?
                .row()
                .is_some_and(|secret| secret.admits(&token, now)))
        };
        Box::pin(self.reader.read(admits))
    }
}
