//! Files are put in place whole: written under a name that nobody can foresee,
//! and renamed. What stood there, be it a link, is replaced and not followed.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};

use super::open::{Folder, PRIVATE_FILE, PRIVATE_FOLDER};
use super::trust::me;
use crate::error::{Context as _, Error, Kind, Result};
use crate::random;

/// Begins and ends the name of a file that is not yet renamed to its own.
const TEMPORARY: (&str, &str) = (".machine-id-", ".tmp");

impl Folder {
    /// Puts a file in place.
    pub fn replace(&self, name: &str, content: &[u8], mode: Mode) -> io::Result<()> {
        self.put(name, content, mode, |_| Ok(())).map(drop)
    }

    /// The same, to be there after a power cut.
    pub fn replace_durably(&self, name: &str, content: &[u8], mode: Mode) -> io::Result<()> {
        self.put(name, content, mode, File::sync_all)?;
        // The new name as well.
        Ok(rustix::fs::fsync(&self.fd)?)
    }

    /// The same of a file that stands beside `file`, for the owner of that alone.
    pub fn replace_beside(file: &Path, name: &OsStr, content: &[u8]) -> io::Result<()> {
        let name = name.to_str().ok_or(ErrorKind::InvalidFilename)?;
        Self::put_for(file, file.parent().unwrap_or(file), name, content, RenameFlags::empty())
    }

    /// The same of a file in the folder at `path`, for the owner of that alone.
    pub fn replace_inside(path: &Path, name: &str, content: &[u8]) -> io::Result<()> {
        Self::put_for(path, path, name, content, RenameFlags::empty())
    }

    /// The same, where nothing has that name yet.
    pub fn add_inside(path: &Path, name: &str, content: &[u8]) -> io::Result<()> {
        Self::put_for(path, path, name, content, RenameFlags::NOREPLACE)
    }

    fn put_for(whose: &Path, path: &Path, name: &str, content: &[u8], how: RenameFlags) -> io::Result<()> {
        let folder = Self::judged(path)?;
        let settle = |new: &File| {
            let whose = std::fs::metadata(whose)?;
            // Root's commands run beside the authority, which has a user of its own.
            if whose.uid() != me() {
                fchown(new, Some(whose.uid()), Some(whose.gid()))?;
            }
            new.sync_all()
        };
        folder.put_as(name, content, PRIVATE_FILE, settle, how)?;
        Ok(rustix::fs::fsync(&folder.fd)?)
    }

    /// A new file, written whole and locked before it has that name.
    pub fn create_locked(&self, name: &str, content: &[u8]) -> io::Result<File> {
        self.put(name, content, PRIVATE_FILE, File::lock)
    }

    fn put(
        &self,
        name: &str,
        content: &[u8],
        mode: Mode,
        settle: impl FnOnce(&File) -> io::Result<()>,
    ) -> io::Result<File> {
        self.put_as(name, content, mode, settle, RenameFlags::empty())
    }

    fn put_as(
        &self,
        name: &str,
        content: &[u8],
        mode: Mode,
        settle: impl FnOnce(&File) -> io::Result<()>,
        how: RenameFlags,
    ) -> io::Result<File> {
        let (temporary, mut file) = self.create_temporary(mode)?;
        let written = file
            .write_all(content)
            .and_then(|()| settle(&file))
            .and_then(|()| Ok(rename_as(&self.fd, &temporary, name, how)?));
        if written.is_err() {
            let _ = self.unlink(&temporary);
        }
        written.map(|()| file)
    }

    /// Whether files can be made in it.
    pub fn try_writing(&self) -> io::Result<()> {
        let (name, _) = self.create_temporary(PRIVATE_FILE)?;
        Ok(self.unlink(&name)?)
    }

    fn create_temporary(&self, mode: Mode) -> io::Result<(String, File)> {
        let name = format!("{}{}{}", TEMPORARY.0, random::hex::<8>()?, TEMPORARY.1);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.fd, name.as_str(), flags, mode)?;
        // The umask may have taken more away than it should.
        rustix::fs::fchmod(&file, mode)?;
        Ok((name, File::from(file)))
    }

    pub(super) fn unlink(&self, name: &str) -> rustix::io::Result<()> {
        rustix::fs::unlinkat(&self.fd, name, AtFlags::empty())
    }
}

/// Not every file system and kernel knows a way to rename: only where one is asked for is it taken.
fn rename_as(fd: &OwnedFd, from: &str, to: &str, how: RenameFlags) -> rustix::io::Result<()> {
    if how.is_empty() {
        rustix::fs::renameat(fd, from, fd, to)
    } else {
        rustix::fs::renameat_with(fd, from, fd, to, how)
    }
}

/// Whether that is the name of a temporary file of ours.
pub fn is_temporary(name: &str) -> bool {
    let middle = name.strip_prefix(TEMPORARY.0).and_then(|rest| rest.strip_suffix(TEMPORARY.1));
    middle.is_some_and(|hex| hex.len() == 16 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Writes a file that must not exist yet, safe against a power cut; `Kind::Usage` where it cannot.
pub fn write_new(path: &Path, bytes: &[u8], mode: Mode) -> Result<()> {
    create_new(path, mode).and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all())).map_err(
        |error| match error.kind() {
            ErrorKind::AlreadyExists => {
                Error::usage(format!("{} exists already", path.display())).hint("move it away first")
            }
            _ => Error::usage(error).context(format!("cannot write {}", path.display())),
        },
    )
}

/// Creates a file that must not exist yet.
pub fn create_new(path: &Path, mode: Mode) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(mode.as_raw_mode()).open(path)
}

/// Writes to a file of the system's that is there, such as one of a control group.
pub fn write_to(path: &Path, bytes: &[u8]) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(bytes)
}

/// Copies a file to one that must not exist yet, for this user alone whatever the first one's mode is.
pub fn copy_new(from: &Path, to: &Path) -> io::Result<()> {
    io::copy(&mut File::open(from)?, &mut create_new(to, PRIVATE_FILE)?).map(drop)
}

/// Creates a folder for this user alone, and those that are missing above it,
/// if need be; `Kind::Usage` where it cannot.
pub fn make_private(path: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(PRIVATE_FOLDER.as_raw_mode()).create(path);
    made.context(Kind::Usage, format!("cannot create {}", path.display()))
}

/// Whether a folder can be made in this one.
pub fn try_making(above: &Path) -> io::Result<()> {
    let trial = above.join(format!("{}{}{}", TEMPORARY.0, random::hex::<8>()?, TEMPORARY.1));
    DirBuilder::new().mode(PRIVATE_FOLDER.as_raw_mode()).create(&trial)?;
    std::fs::remove_dir(trial)
}

/// Gives the file of that name in a folder another, durably.
pub fn rename(folder: &Path, from: &str, to: &str) -> io::Result<()> {
    std::fs::rename(folder.join(from), folder.join(to))?;
    sync(folder)
}

/// Makes what was created or renamed in a folder last.
pub fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
