//! Signing with a key that may be elsewhere, by crates that tell why one did not sign in no more than a word.

use std::cell::RefCell;

use rcgen::SignatureAlgorithm;
use ssh_key::Signature;
use ssh_key::public::KeyData;

use super::private::{PrivateKey, Public, ssh_signature};
use crate::error::{Error, Result};

/// A key for one signature, with its public key as what is signed has it; keeps why there is none.
pub(super) struct Signer<'k, P> {
    key: &'k dyn PrivateKey,
    public: &'k P,
    failed: RefCell<Option<Error>>,
}

impl<'k, P> Signer<'k, P> {
    pub(super) fn new(key: &'k dyn PrivateKey, public: &'k P) -> Self {
        Self { key, public, failed: RefCell::default() }
    }

    /// Why the key did not sign, or else what the crate says.
    pub(super) fn failure(&self, otherwise: Error) -> Error {
        self.failed.take().unwrap_or(otherwise)
    }

    fn attempt<T>(&self, signed: Result<T>) -> Option<T> {
        signed.map_err(|error| self.failed.replace(Some(error))).ok()
    }
}

/// In the place of a key, where rcgen writes what is changed before it is signed: a key that is elsewhere is asked once for each
/// signature. What it gives is none.
pub(super) struct Draft<'k>(pub(super) &'k Public);

impl rcgen::PublicKeyData for Draft<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0.raw()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.0.algorithm()
    }
}

impl rcgen::SigningKey for Draft<'_> {
    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(Vec::new())
    }
}

impl ssh_key::SigningKey for Signer<'_, KeyData> {
    fn public_key(&self) -> KeyData {
        self.public.clone()
    }
}

impl signature::Signer<Signature> for Signer<'_, KeyData> {
    fn try_sign(&self, message: &[u8]) -> Result<Signature, signature::Error> {
        let signed = self.key.sign(message).and_then(|bytes| ssh_signature(self.key.algorithm(), bytes));
        self.attempt(signed).ok_or_else(signature::Error::new)
    }
}

impl rcgen::PublicKeyData for Signer<'_, Public> {
    fn der_bytes(&self) -> &[u8] {
        self.public.raw()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.public.algorithm()
    }
}

impl rcgen::SigningKey for Signer<'_, Public> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.attempt(self.key.sign(message)).ok_or(rcgen::Error::RemoteKeyError)
    }
}
