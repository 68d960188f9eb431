//! What servers need of an authority, kept up to date: fetched, checked as the
//! servers would, and put in place whole. What has not changed is left alone,
//! so that its time says when it last did.

use std::time::{Duration, Instant};

use super::fetch::{Fetcher, RefreshSettings};
use super::round::{Refreshed, Round};
use super::store;
use crate::error::Result;

/// How long another run is waited for.
pub(super) const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// Brings the files up to date.
///
/// # Errors
/// `Kind::Destination` where the folder cannot be used, or another run goes on there. What fails later is in
/// [`Refreshed::errors`]: `Kind::Unreachable` where the authority cannot be
/// asked, or gives an answer that is no good; `Kind::Destination` where a file
/// cannot be read or written.
pub async fn run(settings: &RefreshSettings) -> Result<Refreshed> {
    let store = store::open(&settings.directory)?;
    let fetcher = Fetcher::new(settings, &store)?;
    let patience = Instant::now() + LOCK_PATIENCE;
    // Before anything is asked for: what is fetched under it is no older than what is there.
    let _lock = store::lock(&store, patience.min(fetcher.deadline())).await?;
    let mut round = Round::begin(&fetcher, &store)?;
    match round.ask().await {
        Ok(statement) => round.follow(statement, None).await,
        Err(error) => {
            round.done.add(Err(error));
        }
    }
    let mut done = round.end_and_tell().await;
    // A host that cannot say which it is hears of revocations all the same.
    done.add(fetcher.proven.take().unwrap_or(Ok(())).map(|()| None));
    Ok(done)
}
