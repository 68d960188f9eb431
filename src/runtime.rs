//! Waiting for what is asynchronous.

use std::future::Future;
use std::sync::OnceLock;

use tokio::runtime::{Builder, Runtime};

use crate::error::{Context as _, Error, Kind, Result};

/// The one of this process, so that what one call leaves running, such as a
/// connection, is there for the next. It is never ended, so that what is left
/// when the process ends is not waited for: the system's resolver cannot be
/// interrupted, and a name server that does not answer would hold up the exit
/// for longer than any `--timeout`.
static RUNTIME: OnceLock<Runtime> = OnceLock::new();

/// Runs to its end what waits most of its time, for which one thread is enough.
pub fn block_on<T>(work: impl Future<Output = T>) -> Result<T> {
    if RUNTIME.get().is_none() {
        let runtime =
            Builder::new_current_thread().enable_all().build().context(Kind::Internal, "cannot start")?;
        // Where another thread was faster, its own is as good.
        drop(RUNTIME.set(runtime));
    }
    let runtime = RUNTIME.get().ok_or_else(|| Error::internal("cannot start"))?;
    Ok(runtime.block_on(work))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_hangs_in_the_system_is_not_waited_for() {
        let started = std::time::Instant::now();
        let done = block_on(async {
            // As the resolver does where a name server is silent.
            tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_secs(20)));
            tokio::time::sleep(Duration::from_millis(10)).await;
            7
        });
        assert_eq!(done.unwrap(), 7);
        assert!(started.elapsed() < Duration::from_secs(10));
    }
}
