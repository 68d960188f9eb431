//! Folders and files: which of them may be believed, how they are read to a
//! limit of size and of time, replaced whole, locked, and taken away.
//!
//! Everything that this program reads from a path goes through here, and
//! clippy holds that.

#![expect(clippy::disallowed_methods, reason = "here they get their limits")]

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::text::shown;

pub mod access;
mod append;
mod aside;
pub mod lock;
mod open;
pub mod read;
pub mod replace;
pub mod stamp;
pub mod trust;
mod unfit;
mod wipe;

pub use append::Addition;
pub use aside::Aside;
pub use open::{Folder, PRIVATE_FILE, PRIVATE_FOLDER, PUBLIC_FILE};
pub use unfit::Unfit;

/// The absolute form of a path.
pub fn absolute(path: &str) -> Result<PathBuf> {
    std::path::absolute(path)
        .map_err(|error| Error::usage(error).context(format!("cannot use the path `{}`", shown(path))))
}

/// How much of the disk that a folder is on is free for this user, in bytes.
pub fn free(path: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(path)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// The names in a folder that the operator named, in order.
pub fn names(path: &Path, most: usize) -> io::Result<Vec<OsString>> {
    let entries = std::fs::read_dir(path)?.take(most + 1);
    let mut names = entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
    if names.len() > most {
        return Err(io::Error::other(format!("more than {most} files")));
    }
    names.sort();
    Ok(names)
}
