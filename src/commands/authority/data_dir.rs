//! What commands do with a data directory: open it to sign.

use std::path::Path;

use crate::authority::store::record::{self, CommandPlan, Recorded};
use crate::authority::store::sqlite::Sqlite;
use crate::authority::{config, keys};
use crate::clock::Clock;
use crate::document;
use crate::error::{Error, Result};
use crate::runtime::block_on;

/// Opens what a signing command needs: keys, and the store that records it first.
pub(super) fn open(data_dir: &Path) -> Result<(keys::CaKeys, Sqlite)> {
    let config = config::Config::load(data_dir)?;
    Ok((keys::file::load(&config.keys, config.owner)?, Sqlite::open(&config.store, config.owner)?))
}

/// Records what is going to be signed.
pub(super) fn record<P: CommandPlan>(store: &Sqlite, by: &'static str, plan: P) -> Result<Recorded<P>> {
    block_on(record::command(store, by, Clock::system().now(), plan))?
}

/// The value of a `--ttl`.
pub(super) fn ttl(text: &str) -> Result<i64> {
    let seconds = document::parse_duration(text).map_err(|why| Error::usage(format!("`--ttl`: {why}")))?;
    match i64::try_from(seconds) {
        // Ten years, which is how long the CA itself lives.
        Ok(seconds) if seconds <= 3650 * 86_400 => Ok(seconds),
        _ => Err(Error::usage("`--ttl` is longer than ten years")),
    }
}
