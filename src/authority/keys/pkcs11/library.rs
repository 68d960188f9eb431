//! The library and the login. A process has one of each, whatever threads use them: so sessions are opened, the user is
//! logged in and the library is initialised anew by one thread at a time, and nothing is taken down while another is in it.

use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error as Said, RvError};
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki::types::AuthPin;

use super::trouble::{Trouble, said};
use super::uri::Pkcs11Uri;
use crate::error::{Error, Kind};
use crate::folder::read::{self, Limit, Trust};
use crate::folder::trust::{self, Owner};
use crate::secret::Secret;

/// How long the library is left alone after it was initialised: more often is no help to a token that is away.
const PAUSE: Duration = Duration::from_secs(1);

/// A token's library, as this process has it.
#[derive(Debug)]
pub(super) struct Library {
    uri: Pkcs11Uri,
    owner: Owner,
    state: Mutex<State>,
    /// Somebody has come out of the library.
    left: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// It stays loaded: not every library survives that it is taken away.
    context: Option<Pkcs11>,
    is_initialized: bool,
    initialized: Option<Instant>,
    /// How often it was initialised, and the user logged in. What handles of before mean is not known any more.
    epoch: u64,
    /// Sessions that nobody uses.
    idle: Vec<Session>,
    /// How many threads are in the library.
    inside: usize,
    /// A PIN that the token has refused. It is not tried again: after a few tries tokens lock themselves.
    refused: Option<Secret>,
}

/// A session, for one thread, while this lives.
pub(super) struct Inside<'l> {
    library: &'l Library,
    context: Pkcs11,
    /// None once it is lost.
    session: Option<Session>,
    /// Handles of another epoch are not to be used.
    pub(super) epoch: u64,
}

impl Library {
    pub(super) fn new(uri: Pkcs11Uri, owner: Owner) -> Self {
        Self { uri, owner, state: Mutex::default(), left: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session in which the user is logged in.
    ///
    /// # Errors
    /// Why there is none, at the deadline at the latest unless a call hangs.
    pub(super) fn enter(&self, deadline: Instant) -> Result<Inside<'_>, Trouble> {
        let mut state = self.lock();
        let session = loop {
            if let Some(session) = state.idle.pop() {
                break session;
            }
            state = match self.connect(&mut state) {
                Ok(session) => break session,
                Err(Trouble::Lost(why)) => self.renew(state, deadline, why)?,
                Err(Trouble::Full) if state.inside > 0 && Instant::now() < deadline => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    self.left.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
                Err(trouble) => return Err(trouble),
            };
        };
        let context = self.context(&mut state)?;
        state.inside += 1;
        Ok(Inside { library: self, context, session: Some(session), epoch: state.epoch })
    }

    fn connect(&self, state: &mut State) -> Result<Session, Trouble> {
        let context = self.context(state)?;
        let (slot, info) = self.find(&context)?;
        // It is closed by hand: one from before the library was initialised anew must not be.
        let session = context.open_ro_session_no_drop(slot)?;
        match self.log_in(&session, &info, state) {
            Ok(()) => Ok(session),
            Err(trouble) => {
                let _ = session.close();
                Err(trouble)
            }
        }
    }

    /// The library, loaded and initialised.
    fn context(&self, state: &mut State) -> Result<Pkcs11, Trouble> {
        let context = match &state.context {
            Some(context) => context.clone(),
            None => state.context.insert(self.load()?).clone(),
        };
        if !state.is_initialized {
            state.initialized = Some(Instant::now());
            match context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
                Ok(()) | Err(Said::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
                Err(error) => return Err(error.into()),
            }
            state.is_initialized = true;
        }
        Ok(context)
    }

    /// What is loaded runs with all that the authority may do.
    fn load(&self) -> Result<Pkcs11, Error> {
        let cannot = || format!("cannot load the library {}", self.uri.module.display());
        let place = trust::operators(&self.uri.module, self.owner)
            .map_err(|unfit| unfit.error(Kind::Usage, cannot()))?;
        Pkcs11::new(place).map_err(|error| {
            Error::usage(said(&error)).context(cannot()).hint("it must be a PKCS#11 library for this machine")
        })
    }

    /// The slot that the token is in now.
    fn find(&self, context: &Pkcs11) -> Result<(Slot, TokenInfo), Trouble> {
        let of_slot = |slot| Some((slot, context.get_token_info(slot).ok()?));
        let is_meant = |info: &TokenInfo| {
            info.token_initialized()
                && self.uri.is_of(info.label(), info.serial_number(), info.manufacturer_id(), info.model())
        };
        let slots = context.get_slots_with_token()?.into_iter();
        let mut found = slots.filter_map(of_slot).filter(|(_, info)| is_meant(info));
        match (found.next(), found.next()) {
            (Some(found), None) => Ok(found),
            (None, _) => {
                Err(Trouble::Lost(format!("no slot of {} has such a token", self.uri.module.display())))
            }
            (Some((_, one)), Some((_, other))) => Err(Error::usage("there are two of them")
                .hint(format!("say which by `serial=`: {} or {}", one.serial_number(), other.serial_number()))
                .into()),
        }
    }

    /// Logs the user in, unless another session has.
    fn log_in(&self, session: &Session, info: &TokenInfo, state: &mut State) -> Result<(), Trouble> {
        if !info.login_required() || session.get_session_info()?.session_state() != SessionState::RoPublic {
            return Ok(());
        }
        let file = self.uri.pin.as_deref().ok_or_else(|| {
            Error::usage("it wants a PIN, and nothing says where that is")
                .hint("put the PIN into a file that nobody else may read, and add `&pin-source=file:FILE`")
        })?;
        let pin = self.read_pin(file)?;
        let not_again = |why: &str| Error::usage(why.to_owned());
        if info.user_pin_locked() {
            return Err(not_again("its user's PIN is locked")
                .hint("its security officer unlocks it, for example by `pkcs11-tool --login-type so --init-pin`")
                .into());
        }
        // A person may know better; and a service that is started again and again must not lock the token.
        if info.user_pin_final_try() {
            return Err(not_again(
                "it takes one more PIN before it locks itself, and that try is left to you",
            )
            .hint(format!("log in by another tool with the PIN of {}: that sets it back", file.display()))
            .into());
        }
        if state.refused.as_ref() == Some(&pin) {
            return Err(self.refused(file).into());
        }
        match session.login(UserType::User, Some(&AuthPin::from(pin.expose().to_owned()))) {
            Ok(()) | Err(Said::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {
                state.refused = None;
                // Handles ended with the login of before.
                state.epoch += 1;
                Ok(())
            }
            Err(Said::Pkcs11(RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange, _)) => {
                state.refused = Some(pin);
                Err(self.refused(file).into())
            }
            Err(error @ Said::Pkcs11(RvError::PinLocked | RvError::PinExpired, _)) => {
                state.refused = Some(pin);
                Err(not_again(&said(&error)).hint("its security officer sets the PIN anew").into())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn read_pin(&self, file: &Path) -> Result<Secret, Error> {
        let cannot = || format!("cannot use the PIN in {}", file.display());
        let text = read::raw(file, Trust::Secret(self.owner), Limit::bytes(1 << 10)).and_then(read::utf8);
        let text = text.map_err(|unfit| unfit.error(Kind::Usage, cannot()))?;
        let pin = text.strip_suffix('\n').unwrap_or(&text);
        let pin = pin.strip_suffix('\r').unwrap_or(pin);
        let is_one = !pin.is_empty() && !pin.contains('\n');
        let wrong = || Error::usage("it must hold the PIN alone, on one line").context(cannot());
        if is_one { Ok(Secret::new(pin.to_owned())) } else { Err(wrong()) }
    }

    fn refused(&self, file: &Path) -> Error {
        Error::usage(format!("it refuses the PIN of {}", file.display()))
            .hint("that PIN is not tried again, since tokens lock themselves after a few")
            .hint("put the right PIN into the file; where the token's PIN was set to this one, restart the authority")
    }

    /// Takes the library down once nobody is in it, so that it looks for its tokens again.
    fn renew<'l>(
        &'l self,
        state: MutexGuard<'l, State>,
        deadline: Instant,
        why: String,
    ) -> Result<MutexGuard<'l, State>, Trouble> {
        let epoch = state.epoch;
        if state.initialized.is_some_and(|at| at.elapsed() < PAUSE) {
            return Err(Trouble::Lost(why));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let is_used = |state: &mut State| state.inside > 0 && state.epoch == epoch;
        let waited = self.left.wait_timeout_while(state, left, is_used);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        // Else another has done it.
        if state.epoch == epoch {
            if state.inside > 0 {
                return Err(Trouble::Lost(format!("{why}; and a call into its library does not come back")));
            }
            state.idle.clear();
            state.is_initialized = false;
            state.epoch += 1;
            if let Some(context) = state.context.clone() {
                let _ = context.finalize();
            }
        }
        Ok(state)
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        for session in state.idle.drain(..) {
            let _ = session.close();
        }
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

    /// It is not to be used again.
    pub(super) fn lose(&mut self) {
        if let Some(session) = self.session.take() {
            let _ = session.close();
        }
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let mut state = self.library.lock();
        state.inside -= 1;
        state.idle.extend(self.session.take());
        drop(state);
        self.library.left.notify_all();
    }
}
