//! `machine-id authority resume`: goes on with a store that has lost something, once the operator says so.

use std::path::Path;

use crate::authority::config::Config;
use crate::authority::store::{Loss, engine, lost};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::runtime::block_on;
use crate::terminal::print;

/// Says what the store has lost; where the operator accepts that, goes on.
pub(super) fn run(data_dir: &Path, accept_loss: bool) -> Result<()> {
    let config = Config::load(data_dir)?;
    let store = block_on(engine::open(&config.store, &config.store_key(), Clock::system().now()))??;
    let found = block_on(store.mark())?;
    let Err(error) = found else {
        return print("the store has lost nothing that is known of: there is nothing to resume from\n");
    };
    match lost(&error) {
        None => return Err(error),
        Some(loss) if !accept_loss => return Err(not_accepted(loss, data_dir)),
        Some(_) => {}
    }
    block_on(store.resume(Clock::system().now()))??;
    print(
        "resumed: the authority goes on, within a second where it is running\n\n\
         tokens that were made before now are refused, registration secrets that were not used are void, and workers that \
         have joined since the loss must register anew; look into `machine-id authority audit --event lost`\n",
    )
}

/// What the operator has to know first.
fn not_accepted(loss: &Loss, data_dir: &Path) -> Error {
    Error::usage(loss.clone())
        .hint("where the right store is still to be had, put it there and start the authority again: nothing is lost then")
        .hint(
            "what was issued since is not known to this one: it is good until it ends, and cannot be revoked; what was \
             revoked since is good again, but for hosts that have heard of it (`host refresh`)",
        )
        .hint(
            "nor is it known which tokens were used: those made before it goes on are refused, registration secrets that \
             were not used are void, and workers that have joined since must register anew",
        )
        .hint(format!(
            "to go on without all that: `machine-id authority resume --accept-loss --data-dir {}`",
            data_dir.display()
        ))
}
