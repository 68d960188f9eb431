//! `machine-id authority migrate`: from one store to another.

use crate::authority::config::Config;
use crate::authority::store::{StorePlace, engine};
use crate::cli::authority::Migrate;
use crate::clock::Clock;
use crate::error::Result;
use crate::runtime::block_on;
use crate::terminal::{log, print};

/// Carries everything over, or gives that up.
pub(super) fn run(args: &Migrate) -> Result<()> {
    let config = Config::load(&args.data.data_dir)?;
    let (from, to) = (config.store_at(&args.from)?, config.store_at(&args.to)?);
    let ways = engine::Ways { from: (&from, &args.from), to: (&to, &args.to), key: &config.store_key() };
    let now = Clock::system().now();
    if args.give_up {
        block_on(engine::give_up(&ways, now))??;
        return print(&format!("{} goes on; {} is void and can be removed\n", args.from, args.to));
    }
    let is_new = block_on(engine::migrate(&ways, now, &mut |line| log(&line)))??;
    let done =
        if is_new { "all records are in" } else { "the migration was finished before: all records are in" };
    let next = if config.store == StorePlace::Sqlite(to.clone()) {
        "start the authority again".to_owned()
    } else {
        format!("write `store: {}` into authority.yaml, and start the authority again", args.to)
    };
    print(&format!("{done} {}\n\n{next}; {} issues nothing any more\n", args.to, args.from))
}
