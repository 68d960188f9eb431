//! The store in PostgreSQL, which any number of authorities share. Who writes holds the lock of one row until
//! it has committed; what waits at one authority is one commit (see `writer`).

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::cas::Heard;
use super::closed::{self, Closed};
use super::instances::{NewSecret, RegisteredInstance};
use super::locks::{Lock, LockKind, NewLock, STEP, Shut};
use super::loss::{self, Mark, Reached, Restored, lost};
use super::replicas::{Announced, Replica};
use super::seal::{Seal, StoreKey};
use super::{
    CertificateRecord, Cursor, Event, EventFilter, Issued, ListNumber, NewIssuance, NewRefusal,
    NewRevocation, NewSigned, PlanRecord, Revoked, RevokedSince, RevokedUpto, Signed, Store, Trail, event,
    sealed,
};
use crate::authority::limits::{Level, Spent};
use crate::error::{Context as _, Kind, Result};
use crate::join::instance::{Instance, InstanceLookup};

pub mod archive;
mod cas;
mod durability;
mod failure;
mod hosts;
mod instances;
mod known;
mod lock_rows;
mod locks;
pub mod passfile;
pub mod pool;
mod pruning;
mod reads;
mod rows;
mod schema;
pub mod settings;
mod shared;
mod tls;
mod trail;
mod transaction;
mod trouble;
mod upgrade;
pub mod url;
mod work;
mod writer;
mod writes;

#[cfg(test)]
mod tests;

use failure::Failure;
pub use failure::{is_away, is_displaced, no_room};
use known::Known;
use pool::{Connection, Pool};
pub use trail::PostgresTrail;
use trail::usable;
pub use upgrade::{Roles, Upgraded};
pub(super) use work::MARK;
use work::{CANNOT_READ, CANNOT_WRITE, PATIENCE, Shared, WHOLE_TRAIL, again, again_within, another};
use writer::{Entry, Writer};

/// A [`Store`] in PostgreSQL.
#[derive(Clone)]
pub struct Postgres {
    shared: Arc<Shared>,
    writer: Writer,
    trail: PostgresTrail,
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").finish_non_exhaustive()
    }
}

/// Makes the tables, or brings them up to this version, and gives the roles what they need and nothing else:
/// these, and those that had it before.
///
/// # Errors
/// `Kind::Usage` where this role is not the owner, another does not exist or could do more than it should, or
/// the database is none that can be used; `Kind::Unreachable`, too where others do not let go of the tables.
pub async fn upgrade(pool: &Pool, roles: &Roles) -> Result<Upgraded> {
    upgrade::upgrade(&*pool.get().await?, roles).await
}

/// What an operator should hear of how the database keeps what was committed, and what to do about it.
///
/// # Errors
/// `Kind::Unreachable`, and `Kind::Usage` where the database does not let us in.
pub async fn durability(pool: &Pool) -> Result<Vec<(String, &'static str)>> {
    let hosts = pool.settings().targets.len();
    again(
        pool,
        CANNOT_READ,
        Duration::ZERO,
        |client, _| async move { durability::warnings(&client, hosts).await },
    )
    .await
}

impl Postgres {
    /// Opens the authority's store, whose rows are sealed with that key. The schema is left as it is.
    ///
    /// # Errors
    /// `Kind::Usage` where it is none, needs `authority upgrade`, is of a newer schema, closed, or of another key;
    /// `Kind::Unreachable`.
    pub async fn open(pool: Pool, key: &StoreKey) -> Result<Self> {
        Self::open_with(pool, key, Some(key.load()?)).await
    }

    /// The same for what writes no row that is sealed, without the key: every such row counts as absent.
    ///
    /// # Errors
    /// As [`Postgres::open`].
    pub async fn open_unsealed(pool: Pool, key: &StoreKey) -> Result<Self> {
        Self::open_with(pool, key, None).await
    }

    async fn open_with(pool: Pool, key: &StoreKey, found: Option<Seal>) -> Result<Self> {
        let is_sealed = found.is_some();
        let seal = Arc::new(found.map_or_else(|| key.none(), Ok)?);
        usable(&pool).await?;
        let state =
            again(&pool, CANNOT_READ, PATIENCE, |client, _| async move { reads::state(&client).await })
                .await?;
        if let Some(closed) = state.closed {
            return Err(closed.error());
        }
        let is_wrong = |kept: &Vec<u8>| is_sealed && !seal.is_known_by(&state.store, kept);
        // Before anything is judged by it, which others would hear of.
        if state.seal_check.as_ref().is_some_and(is_wrong) {
            return Err(key.wrong());
        }
        let known = |reached| {
            let seal = is_sealed.then(|| Arc::clone(&seal));
            Known::new(state.store.clone(), seal, loss::Known::new(reached), state.run)
        };
        let known = match Mark::read(&key.folder().join(MARK), key.owner())? {
            Some(mark) if mark.store != state.store => return Err(another(&state.store, &mark.store)),
            Some(mark) => known(mark.reached),
            // A replica that is new, to which nothing is known.
            None if known(Reached::default()).believes(state.restored, state.restored_mac.as_deref()) => {
                known(Reached { restored: state.restored, ..Reached::default() })
            }
            None => known(Reached::default()),
        };
        let marked = Mutex::default();
        let shared = Arc::new(Shared { pool, known, seal: Arc::clone(&seal), key: key.clone(), marked });
        let look = |client: Arc<Connection>, _| {
            let shared = &shared;
            async move { transaction::look(&client, &shared.known).await }
        };
        // What it has lost is said by whoever is asked for something.
        again(&shared.pool, CANNOT_READ, PATIENCE, look)
            .await
            .or_else(|error| if lost(&error).is_some() { Ok(()) } else { Err(error) })?;
        if is_sealed && state.seal_check.is_none() {
            let keep = |client: Arc<Connection>, _| {
                let shared = &shared;
                async move { writes::keep_check(&client, shared).await }
            };
            if is_wrong(&again(&shared.pool, CANNOT_WRITE, PATIENCE, keep).await?) {
                return Err(key.wrong());
            }
        }
        let (writer, trail) = (Writer::start(Arc::clone(&shared)), PostgresTrail(shared.pool.clone()));
        Ok(Self { shared, writer, trail })
    }

    /// Reads.
    async fn read<T, W: Future<Output = Result<T, Failure>> + Send>(
        &self,
        work: impl Fn(Arc<Connection>, bool) -> W,
    ) -> Result<T> {
        again(&self.shared.pool, CANNOT_READ, PATIENCE, work).await
    }

    /// Writes, in its turn, whether or not anybody waits for it; but what is not tried again, whoever asked for it asks
    /// for again.
    async fn write<T: Send + 'static, W: Future<Output = Result<T, Failure>> + Send + 'static>(
        &self,
        patience: Duration,
        work: impl Fn(Arc<Shared>, Arc<Connection>, bool) -> W + Send + Sync + 'static,
    ) -> Result<T> {
        let shared = Arc::clone(&self.shared);
        let work = async move {
            let work = |client, was_tried| work(Arc::clone(&shared), client, was_tried);
            again(&shared.pool, CANNOT_WRITE, patience, work).await
        };
        self.writer.run(!patience.is_zero(), work).await
    }
}

impl Trail for Postgres {
    fn events(&self, filter: EventFilter, after: Cursor, limit: usize) -> BoxFuture<'_, Result<Vec<Event>>> {
        self.trail.events(filter, after, limit)
    }

    fn dropped(&self) -> BoxFuture<'_, Result<i64>> {
        self.trail.dropped()
    }

    fn instances(&self) -> BoxFuture<'_, Result<Vec<RegisteredInstance>>> {
        self.trail.instances()
    }

    fn kept_from(&self) -> BoxFuture<'_, Result<i64>> {
        self.trail.kept_from()
    }

    fn closed(&self) -> BoxFuture<'_, Result<Option<Closed>>> {
        self.trail.closed()
    }
}

impl sealed::Engine for Postgres {
    #[cfg(test)]
    fn run_for(&self, seconds: i64) {
        self.shared.known.advance(seconds);
    }
}

impl Store for Postgres {
    fn let_go(&self, before: i64, now: i64, asked: bool) -> BoxFuture<'_, Result<u64>> {
        Box::pin(async move {
            // No server can.
            if !asked {
                return Ok(0);
            }
            self.read(|client, _| async move { upgrade::check_owner(&client).await }).await??;
            if let Some(place) =
                self.read(|client, _| async move { reads::state(&client).await }).await?.moving
            {
                return Err(closed::moving(&place));
            }
            let count =
                move |client: Arc<Connection>, _| async move { pruning::count(&client, before).await };
            let events = again_within(&self.shared.pool, CANNOT_READ, WHOLE_TRAIL, count).await?;
            if events > 0 {
                self.write(PATIENCE, move |shared, client, _| async move {
                    pruning::begin(&client, &shared, before, now, events).await
                })
                .await?;
            }
            let (mut place, mut all) = (Some((i64::MIN, 0)), 0);
            while let Some(at) = place {
                let step = move |shared: Arc<Shared>, client: Arc<Connection>, _| async move {
                    pruning::step(&client, &shared, at).await
                };
                let (gone, next) = self.write(PATIENCE, step).await?;
                (all, place) = (all + gone, next);
            }
            Ok(all)
        })
    }

    fn issue(&self, entry: NewIssuance, plan: PlanRecord) -> BoxFuture<'_, Result<Issued>> {
        Box::pin(async move {
            let Some(join) = entry.join.clone() else {
                let event = event::issued(&entry, &plan);
                let entry = Entry::Issuance(event, Box::new((entry, plan)));
                return Ok(self.writer.record(entry).await?.into());
            };
            let all = Arc::new((join, entry, plan));
            self.write(PATIENCE, move |shared, client, _| {
                let all = Arc::clone(&all);
                async move {
                    let (join, entry, plan) = &*all;
                    instances::join(&client, &shared, entry, plan, join).await
                }
            })
            .await
        })
    }

    fn record_signed(&self, entry: NewSigned) -> BoxFuture<'_, Result<Signed>> {
        let entry = Entry::Signed(event::signed(&entry), Box::new(entry));
        Box::pin(async move { Ok(self.writer.record(entry).await?.into()) })
    }

    fn refuse(&self, entry: NewRefusal) -> BoxFuture<'_, Result<()>> {
        let event = event::refused(&entry);
        Box::pin(async move {
            let Some(stranger) = entry.stranger else {
                return self.writer.record(Entry::Event(event)).await.map(drop);
            };
            let event = Arc::new(event);
            self.write(PATIENCE, move |shared, client, was_tried| {
                let event = Arc::clone(&event);
                async move { writes::append_stranger(&client, &shared, stranger, &event, was_tried).await }
            })
            .await
        })
    }

    fn certificate(&self, serial: u64) -> BoxFuture<'_, Result<Option<CertificateRecord>>> {
        Box::pin(self.read(move |client, _| async move { reads::certificate(&client, serial).await }))
    }

    fn revoke(&self, entry: NewRevocation) -> BoxFuture<'_, Result<Revoked>> {
        let entry = Arc::new(entry);
        Box::pin(self.write(PATIENCE, move |shared, client, was_tried| {
            let entry = Arc::clone(&entry);
            async move { writes::revoke(&client, &shared, &entry, was_tried).await }
        }))
    }

    fn revocations(&self) -> u64 {
        self.shared.known.revocations()
    }

    fn hear(&self) -> BoxFuture<'_, Result<Heard>> {
        Box::pin(self.read(move |client, _| async move { reads::heard(&client, &self.shared.known).await }))
    }

    fn revoked_since(&self, since: i64, known: Option<RevokedUpto>) -> BoxFuture<'_, Result<RevokedSince>> {
        Box::pin(self.read(move |client, _| async move {
            // One that lacks a revocation is worse than none.
            transaction::look(&client, &self.shared.known).await?;
            reads::revoked_since(&client, self.shared.known.restored(), since, known).await
        }))
    }

    fn list_number(&self, now: i64, what: [u8; 32]) -> BoxFuture<'_, Result<ListNumber>> {
        Box::pin(self.write(PATIENCE, move |shared, client, _| async move {
            writes::list_number(&client, &shared, now, &what).await
        }))
    }

    fn spend(&self, spent: Vec<Spent>) -> BoxFuture<'_, Result<Vec<Level>>> {
        let spent = Arc::new(spent);
        // Not again, since it would count twice.
        Box::pin(self.write(Duration::ZERO, move |shared, client, _| {
            let spent = Arc::clone(&spent);
            async move { shared::spend(&client, &shared, &spent).await }
        }))
    }

    fn announce(&self, replica: Replica) -> BoxFuture<'_, Result<Announced>> {
        let replica = Arc::new(replica);
        Box::pin(self.write(PATIENCE, move |shared, client, _| {
            let replica = Arc::clone(&replica);
            async move { shared::announce(&client, &shared, &replica).await }
        }))
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn add_secret(&self, entry: NewSecret) -> BoxFuture<'_, Result<()>> {
        let entry = Arc::new(entry);
        Box::pin(self.write(PATIENCE, move |shared, client, _| {
            let entry = Arc::clone(&entry);
            async move { instances::add_secret(&client, &shared, &entry).await }
        }))
    }

    fn withdraw_secrets(&self, token: String, at: i64, by: String) -> BoxFuture<'_, Result<u64>> {
        let named = Arc::new((token, by));
        Box::pin(self.write(PATIENCE, move |shared, client, _| {
            let named = Arc::clone(&named);
            async move { instances::withdraw_secrets(&client, &shared, &named.0, at, &named.1).await }
        }))
    }

    fn lock(&self, mut new: NewLock) -> BoxFuture<'_, Result<Shut>> {
        Box::pin(async move {
            let (at, known) = (new.lock.at, &self.shared.known);
            new.lock.until = new.lasts.map(|lasts| (at.saturating_add(lasts), known.held(lasts)));
            let new = &new;
            let looked = self.read(move |client, _| async move { locks::look(&client, new).await }).await?;
            if new.dry_run {
                return Ok(looked.1.shut);
            }
            let looked = Arc::new(looked);
            let (shut, rest) = self
                .write(PATIENCE, move |shared, client, _| {
                    let looked = Arc::clone(&looked);
                    async move { locks::put(&client, &shared, (*looked).clone(), STEP).await }
                })
                .await?;
            for issuances in rest.chunks(STEP) {
                let issuances = Arc::new(issuances.to_vec());
                self.write(PATIENCE, move |shared, client, _| {
                    let issuances = Arc::clone(&issuances);
                    async move { locks::revoke(&client, &shared, &issuances, at).await }
                })
                .await?;
            }
            Ok(shut)
        })
    }

    fn unlock(&self, kind: LockKind, value: String, at: i64, by: String) -> BoxFuture<'_, Result<Vec<Lock>>> {
        let named = Arc::new((value, by));
        Box::pin(self.write(PATIENCE, move |shared, client, _| {
            let named = Arc::clone(&named);
            async move { locks::lift(&client, &shared, kind, &named.0, at, &named.1).await }
        }))
    }

    fn meet(&self, lock: String, ids: Vec<String>) -> BoxFuture<'_, Result<()>> {
        let met = Arc::new((lock, ids));
        Box::pin(self.write(PATIENCE, move |shared, client, _| {
            let met = Arc::clone(&met);
            async move { locks::meet(&client, &shared, &met.0, &met.1).await }
        }))
    }

    fn locks(&self, now: i64) -> BoxFuture<'_, Result<Vec<Lock>>> {
        let run = self.shared.known.run();
        Box::pin(async move {
            let read = self.read(move |client, _| async move {
                transaction::read_locks(&client, &self.shared.known).await
            });
            let mut all = read.await?.all.clone();
            all.retain(|lock| lock.holds(now, run));
            Ok(all)
        })
    }

    fn ready(&self) -> BoxFuture<'_, Result<()>> {
        // Not in its turn, for which it would wait as long as the others for a database that is away.
        Box::pin(again(&self.shared.pool, CANNOT_WRITE, Duration::ZERO, move |client, _| async move {
            writes::probe(&client, &self.shared).await
        }))
    }

    fn restored(&self) -> Option<Restored> {
        self.shared.known.loss().restored
    }

    fn tampered(&self) -> Option<String> {
        self.shared.seal.warning()
    }

    fn mark(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let looked = again(&self.shared.pool, CANNOT_READ, Duration::ZERO, move |client, _| async move {
                writes::look(&client, &self.shared).await
            });
            let heard = looked.await;
            if heard.as_ref().err().is_none_or(|error| lost(error).is_some()) {
                // What was lost last is to be told by it, too.
                let shared = Arc::clone(&self.shared);
                let marked = tokio::task::spawn_blocking(move || shared.mark()).await;
                marked.context(Kind::Internal, "cannot write the mark")??;
            }
            heard
        })
    }

    fn resume(&self, now: i64) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let resume = move |client: Arc<Connection>, _| async move {
                transaction::resume(&client, &self.shared.known, now).await
            };
            again(&self.shared.pool, "cannot go on with the store", PATIENCE, resume).await?;
            self.mark().await
        })
    }

    fn prune(&self, now: i64) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let step = || {
                self.write(PATIENCE, move |shared, client, _| async move {
                    writes::prune(&client, &shared, now).await
                })
            };
            while step().await? {}
            Ok(())
        })
    }
}

impl InstanceLookup for Postgres {
    fn instance<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Instance>>> {
        let seal = &self.shared.seal;
        Box::pin(self.read(move |client, _| async move { instances::instance(&client, seal, id).await }))
    }

    fn admits<'a>(&'a self, secret: &'a [u8; 32], token: &'a str, now: i64) -> BoxFuture<'a, Result<bool>> {
        Box::pin(self.read(move |client, _| async move {
            instances::admits(&client, &self.shared.seal, secret, token, now).await
        }))
    }
}
