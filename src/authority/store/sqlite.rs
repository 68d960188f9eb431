//! The store in one file, with SQLite inside. Commits are shared by whatever
//! waits (see `threads`), and each is on the disk before anything of it is
//! answered. Commands may open the file beside a running server.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::BoxFuture;

use super::instances::{InstanceRefusal, NewSecret, RegisteredInstance};
use super::{
    CertificateRecord, Event, EventFilter, Issued, NewIssuance, NewRefusal, NewRevocation, NewSigned,
    PlanRecord, Revoked, RevokedCertificate, Store, event, sealed,
};
use crate::error::{Context as _, Kind, Result};
use crate::folder::trust::Owner;
use crate::join::instance::{Instance, InstanceLookup};

mod instances;
mod reads;
mod rows;
mod schema;
mod threads;
mod writes;

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
}

impl Sqlite {
    /// Opens the authority's store at `path`, creates it (mode 0600) if it is missing, and
    /// brings its schema up to date.
    ///
    /// # Errors
    /// `Kind::Usage` where the file cannot be opened, is something else, or is
    /// of a newer schema; `Kind::Internal` where setting it up fails.
    pub fn open(path: &Path, owner: Owner) -> Result<Self> {
        Self::start(path, owner)
            .map_err(|error| error.context(format!("cannot open the store {}", path.display())))
    }

    fn start(path: &Path, owner: Owner) -> Result<Self> {
        // Absolute, so that no path means something special to SQLite (`:memory:`).
        let path = std::path::absolute(path).context(Kind::Usage, "not a path")?;
        let writing = schema::open(&path, owner)?;
        let reading = schema::open_for_reading(&path)?;
        let revocations = Arc::default();
        let writer = threads::Writer::writer(writing, Arc::clone(&revocations))?;
        Ok(Self { reader: threads::Reader::reader(reading)?, writer, revocations })
    }

    /// Keeps a registration secret, by its hash, with an event.
    pub async fn add_secret(&self, entry: NewSecret) -> Result<()> {
        self.writer.write(move |connection| instances::add_secret(connection, &entry)).await
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
        Box::pin(self.writer.write(move |connection| {
            let issued = writes::issue(connection, &entry, &plan, &event)?;
            if let Issued::Refused(InstanceRefusal::LockedNow { .. } | InstanceRefusal::Ahead { .. }) = issued
            {
                revocations.fetch_add(1, Ordering::SeqCst);
            }
            Ok(issued)
        }))
    }

    fn record_signed(&self, entry: NewSigned) -> BoxFuture<'_, Result<()>> {
        let (event, certificates) = (event::signed(&entry), [entry.certificate]);
        Box::pin(
            self.writer.write(move |connection| rows::record(connection, &event, &certificates).map(drop)),
        )
    }

    fn refuse(&self, entry: NewRefusal) -> BoxFuture<'_, Result<()>> {
        let event = event::refused(&entry);
        Box::pin(self.writer.write(move |connection| rows::append(connection, &event).map(drop)))
    }

    fn certificate(&self, serial: u64) -> BoxFuture<'_, Result<Option<CertificateRecord>>> {
        Box::pin(self.reader.read(move |connection| reads::certificate(connection, serial)))
    }

    fn revoke(&self, entry: NewRevocation) -> BoxFuture<'_, Result<Revoked>> {
        let revocations = Arc::clone(&self.revocations);
        Box::pin(self.writer.write(move |connection| {
            let revoked = writes::revoke(connection, &entry)?;
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
        Box::pin(self.writer.write(move |connection| writes::list_number(connection, now)))
    }

    fn events(&self, filter: EventFilter, after: i64, limit: usize) -> BoxFuture<'_, Result<Vec<Event>>> {
        Box::pin(self.reader.read(move |connection| reads::events(connection, &filter, after, limit)))
    }

    fn ready(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            self.writer.write(writes::probe).await?;
            self.reader.read(reads::probe).await
        })
    }

    fn prune(&self, now: i64) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            while self.writer.write(move |connection| writes::prune(connection, now, PRUNE_STEP)).await? {}
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
