//! `machine-id authority serve`.

use std::sync::Arc;

use crate::authority::{Authority, serve};
use crate::cli::authority::Serve;
use crate::clock::Clock;
use crate::error::{Context as _, Kind, Result};

/// Serves until it is told to stop.
pub(super) fn run(args: &Serve) -> Result<()> {
    let authority = Arc::new(Authority::open(&args.data.data_dir, Clock::system())?);
    let listen = args.listen.unwrap_or(authority.config().listen);
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context(Kind::Internal, "cannot start the runtime")?
        .block_on(serve::serve(authority, listen))
}
