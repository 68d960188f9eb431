//! The store in one file, with SQLite inside. Commits are shared by whatever
//! waits (see `threads`), and each is on the disk before anything of it is
//! answered. Commands may open the file beside a running server.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::BoxFuture;

use super::instances::{InstanceRefusal, NewSecret, RegisteredInstance};
use super::{
    CertificateRecord, Cursor, Event, EventFilter, Issued, NewIssuance, NewRefusal, NewRevocation, NewSigned,
    PlanRecord, Revoked, RevokedCertificate, Store, event, sealed,
};
use crate::error::{Context as _, Kind, Result};
use crate::folder::trust::Owner;
use crate::join::instance::{Instance, InstanceLookup};

mod instances;
mod odometer;
mod reads;
mod reserve;
mod rows;
mod schema;
mod strangers;
mod threads;
mod unwritten;
mod writes;

use threads::Room;
pub use unwritten::no_room;

#[cfg(test)]
mod tests;

/// How many rows one transaction forgets, so that pruning never holds up an exchange for long.
const PRUNE_STEP: usize = 200;

/// A [`Store`] in a file of SQLite.
#[derive(Debug)]
pub struct Sqlite {
    // In this order: the last connection to close folds the write-ahead log
    // into the file, which takes one that may write.
    reader: threads::Reader,
    writer: threads::Writer,
    revocations: Arc<AtomicU64>,
    odometer: odometer::Odometer,
}

impl Sqlite {
    /// Opens the authority's store at `path`, creates it (mode 0600) if it is missing, and
    /// brings its schema up to date.
    ///
    /// # Errors
    /// `Kind::Usage` where the file cannot be opened, is something else, or is
    /// of a newer schema; `Kind::Internal` where setting it up fails.
    pub fn open(path: &Path, owner: Owner) -> Result<Self> {
        Self::start(path, owner).map_err(|error| {
            unwritten::hint(error.context(format!("cannot open the store {}", path.display())))
        })
    }

    fn start(path: &Path, owner: Owner) -> Result<Self> {
        // Absolute, so that no path means something special to SQLite (`:memory:`).
        let path = std::path::absolute(path).context(Kind::Usage, "not a path")?;
        let mut reserve = reserve::Reserve::of(&path);
        let writing = schema::open(&path, owner).or_else(|error| {
            if !no_room(&error) {
                return Err(error);
            }
            reserve.give_up(None);
            schema::open(&path, owner)
        })?;
        let odometer = odometer::Odometer::read(&writing).context(Kind::Internal, "cannot read the store")?;
        let reading = schema::open_for_reading(&path)?;
        let revocations = Arc::default();
        let writer = threads::Writer::writer(writing, reserve, Arc::clone(&revocations))?;
        Ok(Self { reader: threads::Reader::reader(reading)?, writer, revocations, odometer })
    }

    /// Keeps a registration secret, by its hash, with an event.
    pub async fn add_secret(&self, entry: NewSecret) -> Result<()> {
        let held = self.odometer.now().saturating_add(entry.expires.saturating_sub(entry.time));
        self.writer.write(Room::Any, move |connection| instances::add_secret(connection, &entry, held)).await
    }

    /// How many refusals of strangers newer ones have pushed out.
    pub async fn dropped(&self) -> Result<i64> {
        self.reader.read(strangers::dropped).await
    }

    /// Every registered instance, in the order of registration.
    pub async fn instances(&self) -> Result<Vec<RegisteredInstance>> {
        self.reader.read(instances::instances).await
    }
}

impl sealed::Engine for Sqlite {}

impl Store for Sqlite {
    fn issue(&self, entry: NewIssuance, plan: PlanRecord) -> BoxFuture<'_, Result<Issued>> {
        let event = event::issued(&entry, &plan);
        let revocations = Arc::clone(&self.revocations);
        let run = self.odometer.now();
        Box::pin(self.writer.write(Room::ToSpare, move |connection| {
            let issued = writes::issue(connection, &entry, &plan, &event, run)?;
            if let Issued::Refused(InstanceRefusal::LockedNow { .. } | InstanceRefusal::Ahead { .. }) = issued
            {
                revocations.fetch_add(1, Ordering::SeqCst);
            }
            Ok(issued)
        }))
    }

    fn record_signed(&self, entry: NewSigned) -> BoxFuture<'_, Result<()>> {
        let (event, certificates) = (event::signed(&entry), [entry.certificate]);
        let record = move |connection: &_| rows::record(connection, &event, &certificates).map(drop);
        Box::pin(self.writer.write(Room::Any, record))
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

    fn revoked(&self, since: i64) -> BoxFuture<'_, Result<Vec<RevokedCertificate>>> {
        Box::pin(self.reader.read(move |connection| reads::revoked(connection, since)))
    }

    fn list_number(&self, now: i64) -> BoxFuture<'_, Result<u64>> {
        Box::pin(self.writer.write(Room::Any, move |connection| writes::list_number(connection, now)))
    }

    fn events(&self, filter: EventFilter, after: Cursor, limit: usize) -> BoxFuture<'_, Result<Vec<Event>>> {
        Box::pin(self.reader.read(move |connection| reads::events(connection, &filter, after, limit)))
    }

    fn ready(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            self.writer.write(Room::ToSpare, writes::probe).await?;
            self.reader.read(reads::probe).await
        })
    }

    fn prune(&self, now: i64) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let run = self.odometer.now();
            let prune = move |connection: &_| writes::prune(connection, now, run, PRUNE_STEP);
            while self.writer.write(Room::Any, prune).await? {}
            Ok(())
        })
    }
}

impl InstanceLookup for Sqlite {
    fn instance<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Instance>>> {
        let id = id.to_owned();
        Box::pin(self.reader.read(move |connection| instances::instance(connection, &id)))
    }

    fn admits<'a>(&'a self, secret: &'a [u8; 32], token: &'a str, now: i64) -> BoxFuture<'a, Result<bool>> {
        let (secret, token) = (*secret, token.to_owned());
        Box::pin(self.reader.read(move |connection| instances::admits(connection, &secret, &token, now)))
    }
}
