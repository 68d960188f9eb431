//! Waiting for what is asynchronous.

use std::future::Future;
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

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

/// One with a thread of its own, for [`wait_for`]; as little ended as the other.
static APART: OnceLock<Runtime> = OnceLock::new();

/// Runs to its end, or for that long, what another thread does while this one waits: for callers that may wait, whether
/// a runtime is around them or not. None where time is up. Connections that are left stay for the next call.
pub fn wait_for<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
    patience: Duration,
) -> Result<Option<T>> {
    if APART.get().is_none() {
        let mut builder = Builder::new_multi_thread();
        let runtime =
            builder.worker_threads(1).enable_all().build().context(Kind::Internal, "cannot start")?;
        // One that came too late is never used; to drop it here could wait inside a runtime.
        if let Err(late) = APART.set(runtime) {
            late.shutdown_background();
        }
    }
    let runtime = APART.get().ok_or_else(|| Error::internal("cannot start"))?;
    let (done, told) = mpsc::sync_channel(1);
    runtime.spawn(async move { done.send(tokio::time::timeout(patience, work).await.ok()) });
    told.recv().context(Kind::Internal, "what was waited for ended without a word")
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
    #[test]
    fn a_thread_may_wait_inside_a_runtime_and_is_not_kept() {
        assert_eq!(
            block_on(async { wait_for(async { 7 }, Duration::from_secs(600)) }).unwrap().unwrap(),
            Some(7)
        );
        assert_eq!(wait_for(std::future::pending::<()>(), Duration::from_millis(10)).unwrap(), None);
        let panics = async { [0; 0].first().copied().unwrap() };
        assert!(
            wait_for::<i32>(panics, Duration::from_secs(600))
                .unwrap_err()
                .to_string()
                .contains("without a word")
        );
    }
}
