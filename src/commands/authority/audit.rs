//! `machine-id authority audit`.

use crate::authority::store::{EventFilter, sqlite::Sqlite};
use crate::authority::{audit, config};
use crate::cli::Format;
use crate::cli::authority::Audit;
use crate::clock::Clock;
use crate::error::Result;
use crate::runtime::block_on;
use crate::terminal::print_part;

/// Prints the events that match, oldest first.
pub(super) fn run(args: &Audit) -> Result<()> {
    let config = config::Config::load(&args.data.data_dir)?;
    let since = args.since.as_deref().map(|since| audit::since(since, Clock::system().now())).transpose()?;
    let filter = EventFilter {
        since,
        bot: args.bot.clone(),
        token: args.token.clone(),
        event: args.event.clone(),
        id: args.id.clone(),
    };
    let line = match args.format {
        Format::Text => audit::text,
        Format::Json => audit::json,
    };
    let store = Sqlite::open(&config.store, config.owner)?;
    block_on(audit::write(&store, &filter, line, print_part))?
}
