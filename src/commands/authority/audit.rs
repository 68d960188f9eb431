//! `machine-id authority audit`.

use super::data_dir::read_store;
use super::lock;
use crate::authority::store::EventFilter;
use crate::authority::{audit, config};
use crate::cli::Format;
use crate::cli::authority::Audit;
use crate::clock::{Clock, rfc3339};
use crate::error::Result;
use crate::runtime::block_on;
use crate::terminal::{log, print_part};

/// Prints the events that match, oldest first.
pub(super) fn run(args: Audit) -> Result<()> {
    let Audit { data, since, bot, token, event, id, serial, format } = args;
    let serial = serial.as_deref().map(lock::serial).transpose()?.map(|serial| serial.to_string());
    let config = config::Config::load(&data.data_dir)?;
    let since = since.map(|since| audit::since(&since, Clock::system().now())).transpose()?;
    let filter = EventFilter { since, bot, token, event, id };
    let line = match format {
        Format::Text => audit::text,
        Format::Json => audit::json,
    };
    let store = read_store(&config)?;
    match &serial {
        Some(serial) => {
            block_on(audit::write_of_serial(store.as_ref(), &filter, serial, line, print_part))??;
        }
        None => block_on(audit::find(store.as_ref(), &filter, line, print_part))??,
    }
    let kept_from = block_on(store.kept_from())??;
    if kept_from > 0 {
        log(&format!(
            "what was recorded before {} is not kept any more, but for what had not ended then",
            rfc3339(kept_from)
        ));
    }
    let dropped = block_on(store.dropped())??;
    if dropped > 0 {
        log(&format!("{dropped} older refusals of jobs that no rule let in are not kept any more"));
    }
    Ok(())
}
