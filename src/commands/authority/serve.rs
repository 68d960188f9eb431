//! `machine-id authority serve`.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use crate::authority::store::engine;
use crate::authority::{Authority, serve};
use crate::clock::Clock;
use crate::environment::Environment;
use crate::error::{Context as _, Kind, Result};
use crate::terminal;

/// Serves until it is told to stop.
pub(super) fn run(data_dir: &Path, listen: Option<SocketAddr>, env: &Environment) -> Result<()> {
    let serving = async {
        let authority = Arc::new(Authority::open(data_dir, Clock::system()).await?);
        let config = authority.config();
        let kept = engine::durability(&config.store, &config.store_key()).await.unwrap_or_else(|error| {
            terminal::log(&format!("warning: it is not known what the database may lose: {error}"));
            error.hints().iter().for_each(|hint| terminal::log(&format!("hint: {hint}")));
            Vec::new()
        });
        for (message, hint) in
            config.store_warnings(env)?.into_iter().chain(config.retain_warning()).chain(kept)
        {
            terminal::log(&format!("warning: {message}"));
            terminal::log(&format!("hint: {hint}"));
        }
        let listen = listen.unwrap_or(authority.config().listen);
        serve::serve(authority, listen).await
    };
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context(Kind::Internal, "cannot start the runtime")?
        .block_on(serving)
}
