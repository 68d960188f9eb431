//! Calls into a token's library, on threads of their own: one that hangs holds up nobody for longer than it was given.

use std::fmt;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::library::{Inside, Library};
use super::trouble::Trouble;
use crate::authority::keys::private::away;
use crate::error::{Context as _, Error, Kind, Result};

/// As many threads, and sessions at most. Tokens sign one after the other, or a few at once; a network is slower than each.
const THREADS: usize = 8;
/// How many calls may wait for a thread.
const WAITING: usize = 1024;

type Job = Box<dyn FnOnce(&Library) + Send>;

/// The threads. They end with this, but for one that hangs.
pub(super) struct Calls {
    jobs: SyncSender<Job>,
    library: Arc<Library>,
    /// The token, for messages.
    token: Arc<str>,
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls").field("token", &self.token).finish_non_exhaustive()
    }
}

impl Calls {
    pub(super) fn start(library: Library, token: String) -> Result<Self> {
        let (jobs, waiting) = sync_channel(WAITING);
        let (library, waiting) = (Arc::new(library), Arc::new(Mutex::new(waiting)));
        for _ in 0..THREADS {
            let (library, waiting) = (Arc::clone(&library), Arc::clone(&waiting));
            let thread = thread::Builder::new().name("pkcs11".to_owned());
            thread
                .spawn(move || work(&library, &waiting))
                .context(Kind::Internal, "cannot start a thread")?;
        }
        Ok(Self { jobs, library, token: token.into() })
    }

    /// Has it done within that time. Where the token was lost it is tried once more, unless it must not be done twice.
    ///
    /// # Errors
    /// [`away`] where the token cannot be used, or does not answer in time; what `call` says otherwise.
    pub(super) fn run<T: Send + 'static>(
        &self,
        time: Duration,
        may_repeat: bool,
        call: impl Fn(&Inside<'_>) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T> {
        let (deadline, token) = (Instant::now() + time, Arc::clone(&self.token));
        let (tell, told) = sync_channel(1);
        let job = move |library: &Library| {
            // Nobody waits for it any more after that.
            if Instant::now() < deadline {
                let done = tried(library, deadline, may_repeat, call);
                let _ = tell.send(done.map_err(|trouble| trouble.error(&token)));
            }
        };
        let overrun = || away(format!("too many calls wait for {}", self.token));
        self.jobs.try_send(Box::new(job)).map_err(|_| overrun())?;
        told.recv_timeout(time).unwrap_or_else(|error| {
            Err(match error {
                RecvTimeoutError::Timeout => {
                    away(format!("{} did not answer within {} seconds", self.token, time.as_secs()))
                }
                // Only a thread that panics says nothing, which the library's bindings do where a library breaks them.
                RecvTimeoutError::Disconnected => {
                    Error::internal(format!("a call of {} broke off", self.token))
                }
            })
        })
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        self.library.close();
    }
}

fn work(library: &Library, waiting: &Mutex<Receiver<Job>>) {
    loop {
        let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match job {
            Ok(job) => job(library),
            Err(_) => return,
        }
    }
}

fn tried<T>(
    library: &Library,
    deadline: Instant,
    may_repeat: bool,
    call: impl Fn(&Inside<'_>) -> Result<T, Trouble>,
) -> Result<T, Trouble> {
    let mut is_last = !may_repeat;
    loop {
        let mut inside = library.enter(deadline)?;
        match call(&inside) {
            Err(trouble @ (Trouble::Lost(_) | Trouble::Stale(_))) => {
                inside.lose(matches!(trouble, Trouble::Stale(_)));
                if is_last {
                    return Err(trouble);
                }
            }
            done => return done,
        }
        is_last = true;
    }
}
