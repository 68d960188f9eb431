//! Who is in the library of a token. Threads enter with a session each; it is connected to by one of them at a time, and
//! taken down when nobody is in it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cryptoki::context::Pkcs11;
use cryptoki::session::Session;

use super::connection::Connection;
use super::trouble::Trouble;
use super::uri::Pkcs11Uri;
use crate::folder::trust::Owner;

/// How long the end waits for calls that go on.
const ENDING: Duration = Duration::from_secs(1);

/// A token's library, as this process has it.
#[derive(Debug)]
pub(super) struct Library {
    state: Mutex<State>,
    /// Somebody has come out, or has put the connection back.
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// None while somebody has it: nobody enters then.
    connection: Option<Connection>,
    /// What is in the token may be another than it was: the library is to be initialised anew.
    is_stale: bool,
    is_closed: bool,
    /// How often the library was initialised anew. Sessions of before mean nothing, or something else, afterwards.
    renewals: u64,
    /// Sessions that nobody uses.
    idle: Vec<Session>,
    /// How many threads are in the library.
    inside: usize,
}

/// A session, for one thread, while this lives.
pub(super) struct Inside<'l> {
    library: &'l Library,
    context: Pkcs11,
    /// None once it is lost.
    session: Option<Session>,
    /// Of which login handles are: what those of another mean is not known any more.
    pub(super) login: (u64, u64),
}

/// The right to connect.
struct Turn<'l> {
    library: &'l Library,
    connection: Option<Connection>,
}

impl Library {
    pub(super) fn new(uri: Pkcs11Uri, owner: Owner) -> Self {
        let state = State {
            connection: Some(Connection::new(uri, owner)),
            is_stale: false,
            is_closed: false,
            renewals: 0,
            idle: Vec::new(),
            inside: 0,
        };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// It is held for moments, and but at the end over no call into the library.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for that, until the deadline.
    fn wait<'l>(
        &'l self,
        state: MutexGuard<'l, State>,
        deadline: Instant,
        is_so: impl Fn(&State) -> bool,
    ) -> MutexGuard<'l, State> {
        let left = deadline.saturating_duration_since(Instant::now());
        let waited = self.changed.wait_timeout_while(state, left, |state| !is_so(state));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// A session in which the user is logged in.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn enter(&self, deadline: Instant) -> Result<Inside<'_>, Trouble> {
        loop {
            let mut turn = self.turn(deadline)?;
            match self.connect(turn.connection.as_mut().ok_or_else(hangs)?, deadline) {
                // Sessions are few: another gives back its own.
                Err(Trouble::Full) => {
                    drop(turn);
                    let state = self.lock();
                    if state.idle.is_empty() && (state.inside == 0 || Instant::now() >= deadline) {
                        return Err(Trouble::Full);
                    }
                    drop(self.wait(state, deadline, |state| !state.idle.is_empty() || state.inside == 0));
                }
                entered => return entered,
            }
        }
    }

    /// Takes the connection.
    fn turn(&self, deadline: Instant) -> Result<Turn<'_>, Trouble> {
        let mut state = self.wait(self.lock(), deadline, |state| state.connection.is_some());
        let connection = state.connection.take().ok_or_else(hangs)?;
        Ok(Turn { library: self, connection: Some(connection) })
    }

    fn connect(&self, connection: &mut Connection, deadline: Instant) -> Result<Inside<'_>, Trouble> {
        let mut state = self.lock();
        if state.is_closed {
            return Err(Trouble::Lost("it is closed".to_owned()));
        }
        let is_stale = state.is_stale && connection.may_renew();
        let idle = if is_stale { None } else { state.idle.pop() };
        drop(state);
        let session = match idle {
            Some(session) => session,
            None if is_stale => self.renewed(connection, deadline, String::new())?,
            None => match connection.open() {
                Err(Trouble::Lost(why)) if connection.may_renew() => {
                    self.renewed(connection, deadline, why)?
                }
                opened => opened?,
            },
        };
        let context = connection.context()?;
        let mut state = self.lock();
        state.inside += 1;
        let login = (state.renewals, connection.logins);
        Ok(Inside { library: self, context, session: Some(session), login })
    }

    /// A session of the library as it is after it was initialised anew, which waits for all who are in it.
    fn renewed(
        &self,
        connection: &mut Connection,
        deadline: Instant,
        why: String,
    ) -> Result<Session, Trouble> {
        let mut state = self.wait(self.lock(), deadline, |state| state.inside == 0);
        if state.inside > 0 {
            let hangs =
                "a call into its library does not come back: where the token is there, restart the authority";
            return Err(Trouble::Lost(if why.is_empty() {
                hangs.to_owned()
            } else {
                format!("{why}; and {hangs}")
            }));
        }
        state.idle.clear();
        state.is_stale = false;
        state.renewals += 1;
        drop(state);
        connection.finalize();
        connection.open()
    }

    /// Nobody enters any more. What is left to take down, where no call goes on.
    pub(super) fn close(&self) -> Option<Connection> {
        let mut state = self.lock();
        state.is_closed = true;
        let is_quiet = |state: &State| state.inside == 0 && state.connection.is_some();
        let mut state = self.wait(state, Instant::now() + ENDING, is_quiet);
        if state.inside > 0 {
            return None;
        }
        for session in std::mem::take(&mut state.idle) {
            let _ = session.close();
        }
        state.connection.take()
    }
}

fn hangs() -> Trouble {
    Trouble::Lost("a call into its library does not come back".to_owned())
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.library.lock().connection = self.connection.take();
        self.library.changed.notify_all();
    }
}

impl Inside<'_> {
    /// The session.
    pub(super) fn session(&self) -> Result<&Session, Trouble> {
        self.session.as_ref().ok_or_else(|| Trouble::Lost("the session is closed".to_owned()))
    }

    /// Another one beside it that may write, with the same login.
    pub(super) fn writing(&self) -> Result<Session, Trouble> {
        let slot = self.session()?.get_session_info()?.slot_id();
        Ok(self.context.open_rw_session(slot)?)
    }

    /// The session is not to be used again; nor, where it is stale, the library as it is.
    pub(super) fn lose(&mut self, is_stale: bool) {
        if let Some(session) = self.session.take() {
            let _ = session.close();
        }
        self.library.lock().is_stale |= is_stale;
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let mut state = self.library.lock();
        state.inside -= 1;
        state.idle.extend(self.session.take());
        drop(state);
        self.library.changed.notify_all();
    }
}
