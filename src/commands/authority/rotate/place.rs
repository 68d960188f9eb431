//! Whose CAs are rotated, and who does it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::authority::config::Config;
use crate::authority::keys::CaKeys;
use crate::authority::store::Store;
use crate::error::Result;
use crate::runtime::block_on;

/// An authority, and who does it.
pub(super) struct Place {
    pub(super) data_dir: PathBuf,
    pub(super) config: Config,
    pub(super) by: String,
}

impl Place {
    pub(super) fn new(data_dir: &Path, by: String) -> Result<Self> {
        Ok(Self { data_dir: data_dir.to_owned(), config: Config::load(data_dir)?, by })
    }

    /// Its keys, as its store has the CAs now.
    pub(super) fn keys(&self, store: &dyn Store) -> Result<CaKeys> {
        let set = block_on(store.cas())??;
        self.config.open_keys(&Arc::new(set))
    }
}
