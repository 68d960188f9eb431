//! `machine-id authority migrate`: from one store to another.

use crate::authority::config::Config;
use crate::authority::store::closed::setting;
use crate::authority::store::engine;
use crate::cli::authority::Migrate;
use crate::clock::Clock;
use crate::error::Result;
use crate::runtime::block_on;
use crate::terminal::{log, print};

/// Carries everything over, or gives that up.
pub(super) fn run(args: &Migrate) -> Result<()> {
    let config = Config::load(&args.data.data_dir)?;
    let way = |option, text: &str| {
        config.store_at(option, text).map(|place| {
            let name = place.name(text);
            (place, name)
        })
    };
    let (from, to) = (way("--from", &args.from)?, way("--to", &args.to)?);
    let ways = engine::Ways { from, to, key: config.store_key() };
    let ((_, from), (place, to)) = (&ways.from, &ways.to);
    let now = Clock::system().now();
    if args.give_up {
        block_on(engine::give_up(&ways, now))??;
        return print(&format!("{from} goes on; {to} is void and can be removed\n"));
    }
    let is_new = block_on(engine::migrate(&ways, now, &mut |line| log(&line)))??;
    let done =
        if is_new { "all records are in" } else { "the migration was finished before: all records are in" };
    let next = if config.store == *place {
        "start the authority again".to_owned()
    } else {
        format!("write `store: {}` into authority.yaml, and start the authority again", setting(to))
    };
    print(&format!("{done} {to}\n\n{next}; {from} issues nothing any more\n"))
}
