//! `machine-id authority new-store`: where the store is lost, and there is no backup.

use std::path::Path;

use crate::authority::config::Config;
use crate::authority::store::sqlite::Sqlite;
use crate::clock::Clock;
use crate::error::Result;
use crate::terminal::print;

/// Begins an empty store. What was issued before stays good, and nobody can revoke it.
pub(super) fn run(data_dir: &Path) -> Result<()> {
    let config = Config::load(data_dir)?;
    let file = config.store.file()?;
    Sqlite::begin_anew(file, &config.store_key(), Clock::system().now())?;
    print(&format!(
        "created {}\n\nwhat was issued before is not in it and cannot be revoked any more; tokens of before are refused, and \
         workers must register anew\n",
        file.display()
    ))
}
