//! Wiping: the files that we write, their folders, the destination; nothing
//! else, and never through a link.
//!
//! Overwriting does nothing on file systems that copy on write, so files are
//! cut to nothing and unlinked. One with another name elsewhere (a hard link)
//! is unlinked only: its content is not ours alone.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::directory::{entries, is_temporary, open, open_at, read_manifest};
use super::manifest::{self, Manifest, Plan};
use crate::error::{Error, Result};

/// A destination that holds a manifest of ours.
#[derive(Debug)]
pub struct Found {
    /// Its manifest, not to be believed (see [`Manifest::plan`]).
    pub manifest: Manifest,
    fd: OwnedFd,
    path: std::path::PathBuf,
}

/// Looks for a destination: nothing where there is no directory.
///
/// # Errors
/// `Kind::Usage` where there is something that is not ours to touch.
pub fn find(path: &Path) -> Result<Option<Found>> {
    let refuse = |why: &str| {
        Error::usage(format!("{} is not touched: {why}", path.display()))
            .hint("only a destination that `machine-id once` wrote is ever wiped")
    };
    match rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
            return Err(refuse("it is a symbolic link"));
        }
        _ => {}
    }
    let fd = open(path).map_err(|why| refuse(&why))?;
    match read_manifest(&fd) {
        Ok(Some(manifest)) => Ok(Some(Found { manifest, fd, path: path.to_owned() })),
        // What `once` was given, and never wrote to.
        Ok(None) if entries(&fd).is_ok_and(|entries| entries.is_empty()) => Ok(None),
        Ok(None) => Err(refuse("it has no manifest of ours")),
        Err(why) => Err(refuse(&format!("its {} is not ours: {why}", manifest::FILE_NAME))),
    }
}

impl Found {
    /// One that is open already.
    pub(super) fn new(manifest: Manifest, fd: OwnedFd, path: std::path::PathBuf) -> Self {
        Self { manifest, fd, path }
    }

    /// Reads a file of ours in it; nothing where it is not plainly there.
    #[must_use]
    pub fn read(&self, folder: &str, name: &str) -> Option<Vec<u8>> {
        const LIMIT: u64 = 1 << 20;
        if folder.is_empty() {
            return super::directory::read_file(&self.fd, name, LIMIT).ok()?;
        }
        super::directory::read_file(&open_at(&self.fd, folder).ok()?, name, LIMIT).ok()?
    }

    /// Wipes what its manifest names.
    ///
    /// # Errors
    /// What could not be removed, for a person.
    pub fn wipe(self) -> Result<(), String> {
        let leftovers = remove_all(&self.fd, &self.manifest.plan());
        if !self.manifest.keep_directory {
            remove_if_empty(&self.path, &self.fd);
        }
        if leftovers.is_empty() { Ok(()) } else { Err(leftovers.join(", ")) }
    }
}

/// Removes an empty directory of ours that a dead run created and never wrote to.
pub fn remove_empty(path: &Path) {
    if let Ok(fd) = open(path) {
        remove_temporaries(&fd);
        remove_if_empty(path, &fd);
    }
}

/// Removes everything of the plan, temporary files, folders, and last the
/// manifest, so that a wiping that was interrupted, or could not remove
/// everything, can be taken up again. Returns what could not be removed.
pub(super) fn remove_all(fd: &OwnedFd, plan: &Plan) -> Vec<String> {
    let mut left = remove_files(fd, plan);
    remove_temporaries(fd);
    if left.is_empty() {
        left.extend(remove(fd, manifest::FILE_NAME).err());
    }
    left
}

/// Removes the plan's files and the folders that are empty then.
pub(super) fn remove_files(fd: &OwnedFd, plan: &Plan) -> Vec<String> {
    let mut left = Vec::new();
    for (folder, files) in plan {
        if folder.is_empty() {
            left.extend(files.iter().filter_map(|file| remove(fd, file).err()));
            continue;
        }
        match open_at(fd, folder.as_str()) {
            Ok(inner) => {
                left.extend(files.iter().filter_map(|file| remove(&inner, file).err()));
                remove_temporaries(&inner);
                let _ = rustix::fs::unlinkat(fd, folder.as_str(), AtFlags::REMOVEDIR);
            }
            // A link, or not there: nothing of ours is behind it.
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => {}
            Err(error) => left.push(format!("{folder}: {}", std::io::Error::from(error))),
        }
    }
    left
}

fn remove_temporaries(fd: &OwnedFd) {
    for name in entries(fd).unwrap_or_default().iter().filter(|name| is_temporary(name)) {
        let _ = remove(fd, name);
    }
}

/// Cuts a file to nothing and unlinks it; fine where it is gone.
fn remove(fd: &OwnedFd, name: &str) -> Result<(), String> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    if let Ok(file) = rustix::fs::openat(fd, name, flags, Mode::empty()) {
        let alone = rustix::fs::fstat(&file).is_ok_and(|stat| {
            FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_nlink == 1
        });
        if alone {
            let _ = rustix::fs::ftruncate(&file, 0);
        }
    }
    match rustix::fs::unlinkat(fd, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(format!("{name}: {}", std::io::Error::from(error))),
    }
}

/// Removes the directory itself if it is empty and still the one that is open.
pub(super) fn remove_if_empty(path: &Path, fd: &OwnedFd) {
    let here = rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW);
    if let (Ok(here), Ok(open)) = (here, rustix::fs::fstat(fd))
        && (here.st_dev, here.st_ino) == (open.st_dev, open.st_ino)
    {
        let _ = rustix::fs::unlinkat(CWD, path, AtFlags::REMOVEDIR);
    }
}
