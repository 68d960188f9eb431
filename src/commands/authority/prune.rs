//! `machine-id authority prune`: what `retain` lets go.

use std::path::Path;

use super::data_dir::open_to_prune;
use crate::authority::config::Config;
use crate::clock::{Clock, rfc3339};
use crate::error::{Error, Result};
use crate::runtime::block_on;
use crate::terminal::print;
use crate::text::counted;

/// Lets go what is older than that.
pub(super) fn run(data_dir: &Path, store: Option<&str>) -> Result<()> {
    let config = Config::load(data_dir)?.with_store("--store", store)?;
    let retain = config.retain.ok_or_else(|| {
        Error::usage("`retain` is not set in authority.yaml: everything is kept for ever")
            .hint("`retain: 400d` lets go what was recorded more than 400 days ago, with certificates that had ended by then")
    })?;
    let now = Clock::system().now();
    let store = open_to_prune(&config, now)?;
    let before = now.saturating_sub(retain);
    let gone = block_on(store.let_go(before, now, true))??;
    let gone = usize::try_from(gone).unwrap_or(usize::MAX);
    print(&format!("let go {} from before {}\n", counted(gone, "event"), rfc3339(before)))
}
