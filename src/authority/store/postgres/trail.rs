//! The store as whoever may read and nothing else has it.

use futures_util::future::BoxFuture;

use super::super::closed::Closed;
use super::super::instances::RegisteredInstance;
use super::super::{Cursor, Event, EventFilter, Trail};
use super::pool::Pool;
use super::reads;
use super::work::{CANNOT_READ, PATIENCE, WHOLE_TRAIL, again, again_within};
use crate::error::Result;

/// The [`Trail`] of a store in PostgreSQL.
#[derive(Clone, Debug)]
pub struct PostgresTrail(pub(super) Pool);

impl PostgresTrail {
    /// Opens it for reading alone.
    ///
    /// # Errors
    /// As [`Postgres::open`](super::Postgres::open).
    pub async fn open(pool: Pool) -> Result<Self> {
        usable(&pool).await?;
        Ok(Self(pool))
    }

    /// How many revoked certificates end at `since` or later.
    pub async fn revoked_count(&self, since: i64) -> Result<i64> {
        again(&self.0, CANNOT_READ, PATIENCE, move |client, _| async move {
            reads::revoked_count(&client, since).await
        })
        .await
    }

    async fn standing(&self) -> Result<(i64, Option<Closed>)> {
        again(&self.0, CANNOT_READ, PATIENCE, |client, _| async move { reads::standing(&client).await }).await
    }
}

impl Trail for PostgresTrail {
    fn events(&self, filter: EventFilter, after: Cursor, limit: usize) -> BoxFuture<'_, Result<Vec<Event>>> {
        Box::pin(async move {
            let filter = &filter;
            again_within(&self.0, CANNOT_READ, WHOLE_TRAIL, move |client, _| async move {
                reads::events(&client, filter, after, limit).await
            })
            .await
        })
    }

    fn dropped(&self) -> BoxFuture<'_, Result<i64>> {
        Box::pin(again(
            &self.0,
            CANNOT_READ,
            PATIENCE,
            |client, _| async move { reads::dropped(&client).await },
        ))
    }

    fn instances(&self) -> BoxFuture<'_, Result<Vec<RegisteredInstance>>> {
        Box::pin(again(
            &self.0,
            CANNOT_READ,
            PATIENCE,
            |client, _| async move { reads::instances(&client).await },
        ))
    }

    fn kept_from(&self) -> BoxFuture<'_, Result<i64>> {
        Box::pin(async { Ok(self.standing().await?.0) })
    }

    fn closed(&self) -> BoxFuture<'_, Result<Option<Closed>>> {
        Box::pin(async { Ok(self.standing().await?.1) })
    }
}

/// Whether there is a store that this machine-id can use.
pub(super) async fn usable(pool: &Pool) -> Result<()> {
    again(pool, CANNOT_READ, PATIENCE, |client, _| async move { reads::usable(&client).await }).await?
}
