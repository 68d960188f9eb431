//! CA keys in a token: a hardware security module, or whatever else has a library for PKCS#11 (OASIS, versions 2.40 and 3).
//!
//! A key is a pair of objects, private and public, of one label. The token makes it and never hands the private one out.
//! It is found again by labels alone, of the token and of the key: slots move, and handles end with the session.

pub mod uri;

#[cfg(not(target_env = "musl"))]
mod calls;
#[cfg(not(target_env = "musl"))]
mod connection;
#[cfg(not(target_env = "musl"))]
mod library;
#[cfg(not(target_env = "musl"))]
mod object;
#[cfg(not(target_env = "musl"))]
mod store;
#[cfg(test)]
#[cfg(not(target_env = "musl"))]
mod tests;
#[cfg(not(target_env = "musl"))]
mod trouble;

use std::sync::Arc;

use uri::Pkcs11Uri;

use super::private::KeyStore;
use crate::error::Result;
use crate::folder::trust::Owner;

/// The keys of that token.
///
/// # Errors
/// `Kind::Usage` in a build that can load no library.
#[cfg(not(target_env = "musl"))]
pub fn open(uri: &Pkcs11Uri, owner: Owner) -> Result<Arc<dyn KeyStore>> {
    Ok(Arc::new(store::Pkcs11Store::new(uri, owner)?))
}

/// The keys of that token.
///
/// # Errors
/// `Kind::Usage`: what is linked statically loads nothing.
#[cfg(target_env = "musl")]
pub fn open(_: &Pkcs11Uri, _: Owner) -> Result<Arc<dyn KeyStore>> {
    Err(crate::error::Error::usage(
        "this build of machine-id is static and cannot load the library of a token",
    )
    .hint("take the build for glibc, or keep the keys elsewhere: `file:` and `awskms:` work in this one"))
}
