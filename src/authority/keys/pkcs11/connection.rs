//! The library of a token, loaded and initialised, the slot that the token is in, and the login. A process has one of each,
//! whatever threads use them: so this is for one thread at a time, and none holds a lock meanwhile, since any call may hang.

use std::path::Path;
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

/// What leads to sessions.
#[derive(Debug)]
pub(super) struct Connection {
    uri: Pkcs11Uri,
    owner: Owner,
    /// It stays loaded: not every library survives that it is taken away.
    context: Option<Pkcs11>,
    is_initialized: bool,
    /// Whether nobody else in this process had initialised it.
    is_ours: bool,
    initialized: Option<Instant>,
    /// How often the user was logged in.
    pub(super) logins: u64,
    /// A PIN that the token has refused. It is not tried again: after a few tries tokens lock themselves.
    refused: Option<Secret>,
}

impl Connection {
    pub(super) fn new(uri: Pkcs11Uri, owner: Owner) -> Self {
        Self {
            uri,
            owner,
            context: None,
            is_initialized: false,
            is_ours: false,
            initialized: None,
            logins: 0,
            refused: None,
        }
    }

    /// A session in which the user is logged in. It is closed by hand: one from before the library was initialised anew
    /// must not be, since another may have its number.
    pub(super) fn open(&mut self) -> Result<Session, Trouble> {
        let context = self.context()?;
        let (slot, info) = self.find(&context)?;
        let session = context.open_ro_session_no_drop(slot)?;
        match self.log_in(&context, &session, slot, &info) {
            Ok(()) => Ok(session),
            Err(trouble) => {
                let _ = session.close();
                Err(trouble)
            }
        }
    }

    /// The library, loaded and initialised.
    pub(super) fn context(&mut self) -> Result<Pkcs11, Trouble> {
        let context = match &self.context {
            Some(context) => context.clone(),
            None => self.context.insert(load(&self.uri.module, self.owner)?).clone(),
        };
        if !self.is_initialized {
            self.initialized = Some(Instant::now());
            let done = context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK));
            self.is_ours = done.is_ok();
            match done {
                Ok(()) | Err(Said::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
                Err(error) => return Err(error.into()),
            }
            self.is_initialized = true;
        }
        Ok(context)
    }

    /// Whether it was initialised long enough ago to try that again.
    pub(super) fn may_renew(&self) -> bool {
        self.initialized.is_none_or(|at| at.elapsed() >= PAUSE)
    }

    /// Takes the library down, with every session and handle, so that it looks for its tokens again; nobody may be in it.
    pub(super) fn finalize(&mut self) {
        self.is_initialized = false;
        if let Some(context) = self.context.clone() {
            let _ = context.finalize();
        }
    }

    /// The same at the end, where that is this connection's to do. Some libraries crash a process that ends without it.
    pub(super) fn end(&mut self) {
        if self.is_initialized && self.is_ours {
            self.finalize();
        }
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
    fn log_in(
        &mut self,
        context: &Pkcs11,
        session: &Session,
        slot: Slot,
        info: &TokenInfo,
    ) -> Result<(), Trouble> {
        if !info.login_required() || session.get_session_info()?.session_state() != SessionState::RoPublic {
            return Ok(());
        }
        let file = self.uri.pin.clone().ok_or_else(|| {
            Error::usage("it wants a PIN, and nothing says where that is")
                .hint("put the PIN into a file that nobody else may read, and add `&pin-source=file:FILE`")
        })?;
        let pin = read_pin(&file, self.owner)?;
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
        if self.refused.as_ref() == Some(&pin) {
            return Err(refused(&file).into());
        }
        match session.login(UserType::User, Some(&AuthPin::from(pin.expose().to_owned()))) {
            Ok(()) | Err(Said::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {
                self.refused = None;
                self.logins += 1;
                Ok(())
            }
            Err(Said::Pkcs11(RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange, _)) => {
                self.refused = Some(pin);
                Err(refused(&file).into())
            }
            Err(error @ Said::Pkcs11(RvError::PinLocked | RvError::PinExpired, _)) => {
                self.refused = Some(pin);
                Err(not_again(&said(&error)).hint("its security officer sets the PIN anew").into())
            }
            // Vendors have words of their own for it: the token knows whether that was a wrong PIN.
            Err(error) => {
                if context.get_token_info(slot).is_ok_and(|info| info.user_pin_count_low()) {
                    self.refused = Some(pin);
                }
                Err(error.into())
            }
        }
    }
}

/// What is loaded runs with all that the authority may do.
fn load(module: &Path, owner: Owner) -> Result<Pkcs11, Error> {
    let cannot = || format!("cannot load the library {}", module.display());
    let place = trust::operators(module, owner).map_err(|unfit| unfit.error(Kind::Usage, cannot()))?;
    Pkcs11::new(place).map_err(|error| {
        Error::usage(said(&error)).context(cannot()).hint("it must be a PKCS#11 library for this machine")
    })
}

fn read_pin(file: &Path, owner: Owner) -> Result<Secret, Error> {
    let cannot = || format!("cannot use the PIN in {}", file.display());
    let text = read::raw(file, Trust::Secret(owner), Limit::bytes(1 << 10)).and_then(read::utf8);
    let text = text.map_err(|unfit| unfit.error(Kind::Usage, cannot()))?;
    let pin = text.strip_suffix('\n').unwrap_or(&text);
    let pin = pin.strip_suffix('\r').unwrap_or(pin);
    let is_one = !pin.is_empty() && !pin.contains('\n');
    let wrong = || Error::usage("it must hold the PIN alone, on one line").context(cannot());
    if is_one { Ok(Secret::new(pin.to_owned())) } else { Err(wrong()) }
}

fn refused(file: &Path) -> Error {
    Error::usage(format!("it refuses the PIN of {}", file.display()))
        .hint("that PIN is not tried again, since tokens lock themselves after a few")
        .hint("put the right PIN into the file; where the token's PIN was set to this one, restart the authority")
}
