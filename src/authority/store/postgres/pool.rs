//! Connections to the database, kept for the next who needs one.
//!
//! Only who has come to an end gives a connection back; one that is dropped is closed, since nobody knows what still
//! runs on it. New ones are made one at a time, and after a failure with pauses that grow: whoever waited for one that
//! failed hears why, and does not try again at once.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_postgres::{AsyncMessage, Client, Socket};

use super::settings::{Settings, Target};
use super::tls::TlsSocket;
use super::trouble::{Attempt, Trouble};
use crate::error::{Error, Kind, Result};
use crate::random;

/// How many connections there are at most, of each authority.
const MOST: usize = 8;
/// How long a connection is kept for nobody.
const IDLE: Duration = Duration::from_secs(60);
/// How long [`Pool::get`] takes at most: less than a request has.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long nobody tries again after the first failure, and after many.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// How often a server that waits for its database says so.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// The connections of a process.
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

struct Shared {
    settings: Settings,
    places: Arc<Semaphore>,
    idle: Mutex<VecDeque<(Instant, Arc<Live>)>>,
    /// Who makes one.
    maker: tokio::sync::Mutex<Maker>,
    /// How often it could not be made.
    failures: AtomicUsize,
    /// Which server is asked first: the one that was the right one last, or the next.
    first: AtomicUsize,
}

#[derive(Default)]
struct Maker {
    pause: Duration,
    not_before: Option<Instant>,
    trouble: Option<Trouble>,
}

struct Live {
    client: Client,
    target: Target,
    task: AbortHandle,
}

/// A connection for whoever has it. `Deref` is its client.
pub struct Connection {
    live: Arc<Live>,
    pool: Arc<Shared>,
    is_broken: AtomicBool,
    is_done: bool,
    _place: OwnedSemaphorePermit,
}

impl Pool {
    /// One without connections yet.
    pub fn new(settings: Settings) -> Self {
        Self(Arc::new(Shared {
            settings,
            places: Arc::new(Semaphore::new(MOST)),
            idle: Mutex::default(),
            maker: tokio::sync::Mutex::default(),
            failures: AtomicUsize::new(0),
            first: AtomicUsize::new(0),
        }))
    }

    /// How the database is reached.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// A connection: one that is there, or a new one.
    ///
    /// # Errors
    /// `Kind::Usage` where somebody must set something right, `Kind::Unreachable` otherwise; after ten seconds at most.
    pub async fn get(&self) -> Result<Connection> {
        let got = timeout(PATIENCE, self.0.get()).await.unwrap_or_else(|_| {
            Err(Trouble::new(format!("no connection to it within {} seconds", PATIENCE.as_secs())))
        });
        got.map_err(Error::from)
    }

    /// The same, for as long as it takes where time may help; what is in the way is told at once, and then seldom.
    ///
    /// # Errors
    /// `Kind::Usage` as [`Pool::get`].
    pub async fn wait(&self, mut tell: impl FnMut(&Error)) -> Result<Connection> {
        let mut told: Option<Instant> = None;
        loop {
            match self.get().await {
                Err(error) if error.kind() == Kind::Unreachable => {
                    if told.is_none_or(|told| told.elapsed() > SAY_AGAIN) {
                        tell(&error);
                        told = Some(Instant::now());
                    }
                    sleep(PAUSES.1 / 4).await;
                }
                got => return got,
            }
        }
    }
}

impl Shared {
    fn idle(&self) -> MutexGuard<'_, VecDeque<(Instant, Arc<Live>)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one that was used last; those that nobody needs any more end.
    fn take_idle(&self) -> Option<Arc<Live>> {
        let mut idle = self.idle();
        idle.retain(|(since, live)| since.elapsed() < IDLE && !live.client.is_closed());
        idle.pop_back().map(|(_, live)| live)
    }

    async fn get(self: &Arc<Self>) -> Result<Connection, Trouble> {
        let failures = self.failures.load(Ordering::Relaxed);
        // It is never closed.
        let place =
            Arc::clone(&self.places).acquire_owned().await.map_err(|_| Trouble::new("it is closed"))?;
        let live = match self.take_idle() {
            Some(live) => live,
            None => self.make(failures).await?,
        };
        Ok(Connection {
            live,
            pool: Arc::clone(self),
            is_broken: AtomicBool::new(false),
            is_done: false,
            _place: place,
        })
    }

    async fn make(&self, failures: usize) -> Result<Arc<Live>, Trouble> {
        let mut maker = self.maker.lock().await;
        if let Some(live) = self.take_idle() {
            return Ok(live);
        }
        if let Some(trouble) =
            maker.trouble.as_ref().filter(|_| failures != self.failures.load(Ordering::Relaxed))
        {
            return Err(trouble.clone());
        }
        if let Some(time) = maker.not_before {
            sleep_until(time).await;
        }
        match self.connect().await {
            Ok(live) => {
                *maker = Maker::default();
                Ok(Arc::new(live))
            }
            Err(trouble) => {
                self.idle().clear();
                self.failures.fetch_add(1, Ordering::Relaxed);
                maker.pause = (maker.pause * 2).clamp(PAUSES.0, PAUSES.1);
                maker.not_before = Some(Instant::now() + maker.pause);
                maker.trouble = Some(trouble.clone());
                Err(trouble)
            }
        }
    }

    /// Asks one server after the other.
    async fn connect(&self) -> Result<Live, Trouble> {
        let targets = &self.settings.targets;
        if self.settings.is_any_order {
            let random = random::bytes::<1>().map_err(|error| Trouble::from(&error))?;
            self.first.store(usize::from(random.first().copied().unwrap_or_default()), Ordering::Relaxed);
        }
        let mut troubles = Vec::new();
        for _ in targets {
            let at = self.first.load(Ordering::Relaxed);
            let Some(target) = targets.get(at % targets.len()) else { break };
            // Already now, so that whoever gives up on a dead one does not begin with it again.
            self.first.store(at.wrapping_add(1), Ordering::Relaxed);
            match self.connect_to(target).await {
                Ok(live) => {
                    self.first.store(at, Ordering::Relaxed);
                    return Ok(live);
                }
                Err(trouble) => troubles.push(trouble.at(target)),
            }
        }
        Err(Trouble::of_all(troubles))
    }

    async fn connect_to(&self, target: &Target) -> Result<Live, Trouble> {
        let limit = self.settings.connect_timeout;
        let silent = || Trouble::new(format!("no answer within {} seconds", limit.as_secs()));
        let addresses = match target.address {
            Some(address) => vec![Some(address)],
            None if target.is_socket() => vec![None],
            None => {
                let found =
                    timeout(limit, tokio::net::lookup_host((target.host.as_str(), target.port))).await;
                let found = found.map_err(|_| Trouble::new("no name server answers"))?;
                let found =
                    found.map_err(|error| Trouble::new(format!("its name is not resolved: {error}")))?;
                found.map(|address| Some(address.ip())).collect()
            }
        };
        let mut troubles = Vec::new();
        for address in addresses {
            let as_trouble = |error: Error| Trouble::from(&error);
            let password = self.settings.password(target).map_err(as_trouble)?;
            let connector = self.settings.tls.connector(self.settings.owner()).map_err(as_trouble)?;
            let config = self.settings.config(target, address, password.as_ref());
            match timeout(limit, config.connect(connector.clone())).await {
                Ok(Ok((client, connection))) => {
                    let task = tokio::spawn(run(connection)).abort_handle();
                    return Ok(Live { client, target: target.clone(), task });
                }
                Ok(Err(error)) => {
                    let attempt = Attempt {
                        settings: &self.settings,
                        target,
                        password: password.as_ref(),
                        has_tls: connector.has_begun(),
                    };
                    troubles.push(attempt.trouble(&error));
                }
                Err(_) => troubles.push(silent()),
            }
        }
        Err(Trouble::of_all(troubles))
    }
}

/// Carries what is asked and answered, until the end. A commit that waits for a standby is there, and on this server alone,
/// where somebody cancels that: the server warns of it, and says that it is done. It is asked again, as one without an answer.
async fn run(mut connection: tokio_postgres::Connection<Socket, TlsSocket>) {
    while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
        // Its words are in any language.
        if matches!(message, AsyncMessage::Notice(said) if said.routine() == Some("SyncRepWaitForLSN")) {
            return;
        }
    }
}

impl Connection {
    /// Keeps it for the next: everything that was asked on it has been answered, and no transaction is open.
    pub fn give_back(mut self) {
        self.is_done = !self.is_broken.load(Ordering::Relaxed) && !self.live.client.is_closed();
    }

    /// Says that the server is not what it was: those that are kept from before end with this one.
    pub fn broken(&self) {
        self.is_broken.store(true, Ordering::Relaxed);
    }
}

impl Deref for Connection {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.live.client
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.is_done {
            self.pool.idle().push_back((Instant::now(), Arc::clone(&self.live)));
            return;
        }
        if self.is_broken.load(Ordering::Relaxed) || self.live.client.is_closed() {
            self.pool.idle().clear();
        }
        // Not in good order, for which a server that is silent would be waited for.
        self.live.task.abort();
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pool").field(&self.0.settings).finish()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connection").field(&self.live.target).finish()
    }
}

#[cfg(test)]
mod tests;
