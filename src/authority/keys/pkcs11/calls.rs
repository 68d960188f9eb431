//! Calls into a token's library, on threads of their own: one that hangs holds up nobody for longer than it was given.

use std::fmt;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::library::{Inside, Library};
use super::trouble::Trouble;
use crate::authority::keys::private::away;
use crate::error::{Context as _, Error, Kind, Result};

/// As many threads, and sessions at most. Tokens sign one after the other, or a few at once; a network is slower than each.
const THREADS: usize = 8;
/// How many calls may wait for a thread.
const WAITING: usize = 1024;

/// How long it takes until a lost token is looked for again.
const AGAIN: Duration = Duration::from_millis(1100);

/// How much is done for a call.
#[derive(Clone, Copy)]
pub(super) struct Effort {
    /// How long it may take, with all that is needed for it.
    pub(super) time: Duration,
    /// How long a token that is not there is looked for.
    pub(super) patience: Duration,
    /// Whether it may be done once more where the token was lost over it.
    pub(super) may_repeat: bool,
}

type Job = Box<dyn FnOnce(&Library) + Send>;

/// The threads. They end with this, but for one that hangs.
pub(super) struct Calls {
    /// None at the end.
    jobs: Option<SyncSender<Job>>,
    threads: Vec<JoinHandle<()>>,
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
        let start = |_| {
            let (library, waiting) = (Arc::clone(&library), Arc::clone(&waiting));
            let thread = thread::Builder::new().name("pkcs11".to_owned());
            thread.spawn(move || work(&library, &waiting)).context(Kind::Internal, "cannot start a thread")
        };
        let threads = (0..THREADS).map(start).collect::<Result<_>>()?;
        Ok(Self { jobs: Some(jobs), threads, library, token: token.into() })
    }

    /// Has it done.
    ///
    /// # Errors
    /// [`away`] where the token cannot be used, or does not answer in time; what `call` says otherwise.
    pub(super) fn run<T: Send + 'static>(
        &self,
        effort: Effort,
        call: impl Fn(&Inside<'_>) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T> {
        let time = effort.time;
        let (deadline, token) = (Instant::now() + time, Arc::clone(&self.token));
        let (tell, told) = sync_channel(1);
        let late =
            move |token: &str| away(format!("{token} did not answer within {} seconds", time.as_secs()));
        let job = move |library: &Library| {
            // Nobody waits for it any more after that.
            let is_awaited = Instant::now() < deadline;
            let done = is_awaited.then(|| tried(library, deadline, effort, call));
            let told = |done: Result<T, Trouble>| done.map_err(|trouble| trouble.error(&token));
            let _ = tell.send(done.map_or_else(|| Err(late(&token)), told));
        };
        let overrun = || away(format!("too many calls wait for {}", self.token));
        let jobs = self.jobs.as_ref().ok_or_else(overrun)?;
        jobs.try_send(Box::new(job)).map_err(|_| overrun())?;
        told.recv_timeout(time).unwrap_or_else(|error| {
            Err(match error {
                RecvTimeoutError::Timeout => late(&self.token),
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
        self.jobs = None;
        if let Some(mut connection) = self.library.close() {
            // What libraries keep for each thread goes with it, which must not meet the end of the process.
            self.threads.drain(..).for_each(|thread| drop(thread.join()));
            connection.end();
        }
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
    effort: Effort,
    call: impl Fn(&Inside<'_>) -> Result<T, Trouble>,
) -> Result<T, Trouble> {
    let patience = Instant::now() + effort.patience;
    let mut may_repeat = effort.may_repeat;
    loop {
        let (done, was_called) = match library.enter(deadline) {
            Ok(mut inside) => {
                let done = call(&inside);
                if let Err(Trouble::Lost(_) | Trouble::Stale(_)) = done {
                    inside.lose(matches!(done, Err(Trouble::Stale(_))));
                }
                (done, true)
            }
            Err(trouble) => (Err(trouble), false),
        };
        match done {
            Err(Trouble::Lost(_) | Trouble::Stale(_)) if was_called && may_repeat => may_repeat = false,
            Err(Trouble::Lost(_)) if !was_called && Instant::now() + AGAIN < patience => thread::sleep(AGAIN),
            done => return done,
        }
    }
}
