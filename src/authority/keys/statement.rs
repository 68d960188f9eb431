//! The key that statements are signed with.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::private::{PrivateKey, Public};
use crate::error::{Error, Result};

#[derive(Clone, Debug)]
pub(super) struct StatementKey {
    pub(super) key: Option<Arc<dyn PrivateKey>>,
    /// In base64url: raw of Ed25519, or a point.
    pub(super) public: String,
}

impl StatementKey {
    pub(super) fn new(key: Arc<dyn PrivateKey>) -> Result<Self> {
        Ok(Self { public: URL_SAFE_NO_PAD.encode(Public::of(key.as_ref())?.raw()), key: Some(key) })
    }

    /// As it is written down; with its key, if that is it.
    pub(super) fn known(public: &str, key: Option<Arc<dyn PrivateKey>>) -> Result<Self> {
        match key.map(Self::new).transpose()? {
            Some(own) if own.public != public => {
                Err(Error::usage("it is another than the store has written down"))
            }
            Some(own) => Ok(own),
            None => Ok(Self { key: None, public: public.to_owned() }),
        }
    }
}
