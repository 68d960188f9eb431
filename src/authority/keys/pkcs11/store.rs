//! A token as a store of keys.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use cryptoki::object::{ObjectClass, ObjectHandle};

use super::calls::{Calls, Effort};
use super::library::{Inside, Library};
use super::object;
use super::trouble::Trouble;
use super::uri::Pkcs11Uri;
use crate::authority::keys::private::{Algorithm, KeyStore, PrivateKey, Public, away};
use crate::error::{Error, Kind, Result};
use crate::folder::trust::Owner;

/// Signing: in less than whoever asks waits.
const SIGNING: Effort = Effort { time: Duration::from_secs(8), patience: Duration::ZERO, may_repeat: true };
/// What is done at a start, and by commands: a library that another process writes files with may not see its token for a moment.
const OPENING: Effort = Effort { patience: Duration::from_secs(5), ..SIGNING };
/// Making a key: RSA takes small tokens that long, and two keys of one label would be of no use.
const MAKING: Effort = Effort { time: Duration::from_secs(90), may_repeat: false, ..OPENING };

/// The tokens that are in use. One that is opened again, as keys are with each step of a rotation, is the same: a library is
/// initialised once for a process, so whoever took it down would do so to all, and a PIN that was refused stays so.
static IN_USE: Mutex<Vec<(Pkcs11Uri, Owner, Weak<Calls>)>> = Mutex::new(Vec::new());

/// The keys of a token.
#[derive(Debug)]
pub(super) struct Pkcs11Store {
    uri: Pkcs11Uri,
    calls: Arc<Calls>,
}

impl Pkcs11Store {
    /// The token that is meant. Nothing is loaded before it is needed.
    ///
    /// # Errors
    /// `Kind::Internal` where there can be no threads.
    pub(super) fn new(uri: &Pkcs11Uri, owner: Owner) -> Result<Self> {
        let mut all = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.iter().filter(|(of, by, _)| of == uri && *by == owner);
        if let Some(calls) = known.filter_map(|(.., calls)| calls.upgrade()).next() {
            return Ok(Self { uri: uri.clone(), calls });
        }
        let calls = Arc::new(Calls::start(Library::new(uri.clone(), owner), uri.to_string())?);
        all.retain(|(.., calls)| calls.strong_count() > 0);
        all.push((uri.clone(), owner, Arc::downgrade(&calls)));
        Ok(Self { uri: uri.clone(), calls })
    }
}

impl KeyStore for Pkcs11Store {
    fn is_local(&self) -> bool {
        false
    }

    fn open(&self, name: &str) -> Result<Option<Arc<dyn PrivateKey>>> {
        let (label, calls) = (self.uri.label(name), Arc::clone(&self.calls));
        let key = self.calls.run(OPENING, move |inside| Key::open(inside, &label))?;
        Ok(key.map(|key| -> Arc<dyn PrivateKey> { Arc::new(Pkcs11Key { key: Arc::new(key), calls }) }))
    }

    fn create(&self, name: &str, algorithm: Algorithm) -> Result<Arc<dyn PrivateKey>> {
        let label = self.uri.label(name);
        let made = self.calls.run(MAKING, move |inside| {
            let session = inside.writing()?;
            let is_there = |class| Ok::<_, Trouble>(object::find(&session, class, &label)?.is_some());
            if is_there(ObjectClass::PRIVATE_KEY)? || is_there(ObjectClass::PUBLIC_KEY)? {
                return Err(Error::usage(format!("it has a key {label} already"))
                    .hint("that may be another authority's: `object=PREFIX` in the URI gives this one labels of its own")
                    .into());
            }
            object::generate(&session, &label, algorithm)
        });
        made.map_err(|error| error.context(format!("cannot make the {}", self.place(name))))?;
        self.open(name)?.ok_or_else(|| Error::internal(format!("the {} is gone again", self.place(name))))
    }

    fn destroy(&self, name: &str) -> Result<()> {
        let label = self.uri.label(name);
        let done = self.calls.run(OPENING, move |inside| {
            let session = inside.writing()?;
            for class in [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY] {
                if let Some(key) = object::find(&session, class, &label)? {
                    session.destroy_object(key)?;
                }
            }
            Ok(())
        });
        done.map_err(|error| {
            error
                .context(format!("cannot destroy the {}", self.place(name)))
                .hint("have it destroyed by the token's own tools, the private and the public key")
        })
    }

    fn place(&self, name: &str) -> String {
        format!("object {} in {}", self.uri.label(name), self.uri)
    }
}

/// A private key in a token.
#[derive(Debug)]
struct Pkcs11Key {
    key: Arc<Key>,
    calls: Arc<Calls>,
}

impl PrivateKey for Pkcs11Key {
    fn algorithm(&self) -> Algorithm {
        self.key.algorithm
    }

    fn spki(&self) -> &[u8] {
        &self.key.spki
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        let (key, message) = (Arc::clone(&self.key), message.to_vec());
        let signed = self.calls.run(SIGNING, move |inside| key.sign(inside, &message));
        // What an operator has to set right, a PIN for instance, ends no authority that serves already.
        signed.map_err(|error| match error.kind() {
            Kind::Usage => error.hints().iter().fold(away(error.to_string()), |error, hint| error.hint(hint)),
            _ => error,
        })
    }
}

/// What is known of a key.
#[derive(Debug)]
struct Key {
    label: String,
    algorithm: Algorithm,
    /// The public key, and the same as a SubjectPublicKeyInfo.
    public: Vec<u8>,
    spki: Vec<u8>,
    /// The private one, and of which login: see [`Inside::login`].
    handle: Mutex<Option<((u64, u64), ObjectHandle)>>,
}

impl Key {
    /// The pair of that label; none where there is neither.
    fn open(inside: &Inside<'_>, label: &str) -> Result<Option<Self>, Trouble> {
        let session = inside.session()?;
        let half = |there: &str, missing: &str| {
            Error::usage(format!("it has the {there} key {label} and no {missing} key of that label"))
        };
        let private = object::find(session, ObjectClass::PRIVATE_KEY, label)?;
        let public = object::find(session, ObjectClass::PUBLIC_KEY, label)?;
        let (private, public) = match (private, public) {
            (Some(private), Some(public)) => (private, public),
            (None, None) => return Ok(None),
            (Some(_), None) => {
                return Err(half("private", "public")
                    .hint("import its public key under the same label")
                    .into());
            }
            (None, Some(_)) => return Err(half("public", "private").into()),
        };
        object::check_private(session, private, label)?;
        let (algorithm, public) = object::public(session, public, label)?;
        let spki = Public::new(algorithm, &public).spki();
        let key = Self { label: label.to_owned(), algorithm, public, spki, handle: Mutex::default() };
        // That they belong together is seen now, and not at the first job.
        key.sign(inside, b"machine-id: whose signature is this?")?;
        Ok(Some(key))
    }

    /// Signs. The first signature of a login is verified: what has that label in the token may be
    /// another key by then.
    fn sign(&self, inside: &Inside<'_>, message: &[u8]) -> Result<Vec<u8>, Trouble> {
        let (session, found) = (inside.session()?, *self.handle());
        let known = found.filter(|(login, _)| *login == inside.login).map(|(_, handle)| handle);
        let handle = match known {
            Some(handle) => handle,
            None => object::find(session, ObjectClass::PRIVATE_KEY, &self.label)?
                .ok_or_else(|| Trouble::Stale(format!("it has no private key {} any more", self.label)))?,
        };
        let signature =
            object::sign(session, handle, self.algorithm, message).inspect_err(|_| *self.handle() = None)?;
        if known.is_none() {
            if !object::verifies(self.algorithm, &self.public, message, &signature) {
                let why = format!("its private key {} is not that of the public key {0}", self.label);
                return Err(Trouble::Stale(why));
            }
            *self.handle() = Some((inside.login, handle));
        }
        Ok(signature)
    }

    fn handle(&self) -> MutexGuard<'_, Option<((u64, u64), ObjectHandle)>> {
        self.handle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
