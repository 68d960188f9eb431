//! Taking files away, never through a link.
//!
//! Overwriting does nothing on file systems that copy on write, so files are
//! cut to nothing and unlinked. One with another name elsewhere (a hard link)
//! is unlinked only: its content is not ours alone.

use std::io;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::open::{Folder, stands_at};
use super::replace::is_temporary;
use crate::clock::Clock;

/// After how long, in seconds, nobody writes any more what was begun.
const LEFT: i64 = 60;

impl Folder {
    /// Takes a file away from the folder at `path`, whosever that is, and what those left who were killed as they wrote there; fine
    /// where it is gone.
    pub fn remove_inside(path: &Path, name: &str) -> Result<(), String> {
        let folder = Self::judged(path).map_err(|error| error.to_string())?;
        folder.remove_temporaries(LEFT);
        folder.remove(name)
    }

    /// Cuts a file to nothing and unlinks it; fine where it is gone.
    pub fn remove(&self, name: &str) -> Result<(), String> {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        if let Ok(file) = rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            let alone = rustix::fs::fstat(&file).is_ok_and(|stat| {
                FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_nlink == 1
            });
            if alone {
                let _ = rustix::fs::ftruncate(&file, 0);
            }
        }
        match self.unlink(name) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(format!("{name}: {}", std::io::Error::from(error))),
        }
    }

    /// Unlinks a file as it is, for good: whoever reads it finds all of it or nothing. Fine where it is gone.
    pub fn drop_durably(&self, name: &str) -> io::Result<()> {
        match self.unlink(name) {
            Ok(()) | Err(Errno::NOENT) => Ok(rustix::fs::fsync(&self.fd)?),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes the temporary files of runs that were killed: those of that age
    /// in seconds, when they are surely nobody's, by a clock that may have been ahead. They may hold a key.
    pub fn remove_temporaries(&self, age: i64) {
        let now = Clock::system().now();
        for name in self.entries().unwrap_or_default().iter().filter(|name| is_temporary(name)) {
            let stat = rustix::fs::statat(&self.fd, name.as_str(), AtFlags::SYMLINK_NOFOLLOW);
            if age == 0 || stat.is_ok_and(|stat| now.abs_diff(stat.st_mtime) > age.unsigned_abs()) {
                let _ = self.remove(name);
            }
        }
    }

    /// Removes a folder in it, if that is empty.
    pub fn remove_empty_below(&self, name: &str) {
        let _ = rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR);
    }

    /// Removes the folder itself if it is empty and still the one that is open.
    pub fn remove_if_empty(&self) {
        if stands_at(&self.fd, CWD, self.path()) {
            let _ = rustix::fs::unlinkat(CWD, self.path(), AtFlags::REMOVEDIR);
        }
    }
}
