//! Folders and files that may be believed: who can change what stands there.

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::text::shown;

pub mod trust;

/// The absolute form of a path.
///
/// # Errors
/// `Kind::Usage` where there is none.
pub fn absolute(path: &str) -> Result<PathBuf> {
    std::path::absolute(path)
        .map_err(|error| Error::usage(error).context(format!("cannot use the path `{}`", shown(path))))
}
