//! A private directory that is written through its descriptor.
//!
//! Everything is done relative to descriptors that were opened without
//! following links and found to be ours, so that nobody can put another
//! directory, link or file in the way between a check and a use.

use std::fmt;
use std::fs::File as StdFile;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::File;
use super::manifest::{self, Manifest, Plan};
use super::wipe;
use crate::error::{Context as _, Error, Kind, Result};

/// Begins and ends the name of a file that is not yet renamed to its own.
pub(crate) const TEMPORARY: (&str, &str) = (".machine-id-", ".tmp");

const PRIVATE_DIRECTORY: Mode = Mode::RWXU;
const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);

/// A destination, open. Unless it is kept ([`Directory::keep`]), it is wiped
/// when it goes, whatever the reason.
pub struct Directory {
    fd: OwnedFd,
    path: PathBuf,
    /// What was or will be written, and so is to be wiped.
    plan: Plan,
    created: bool,
    written: bool,
    kept: bool,
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directory").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Directory {
    /// Opens the directory of that absolute path, creating it if need be, and
    /// makes sure that it is ours, private and writable.
    ///
    /// # Errors
    /// `Kind::Destination` where it is a link, not a directory, not ours, in
    /// use for something else, or not writable.
    pub fn prepare(path: &Path) -> Result<Self> {
        let refuse =
            |why: &str| Error::new(Kind::Destination, format!("cannot use {}: {why}", path.display()));
        let created = match rustix::fs::mkdirat(CWD, path, PRIVATE_DIRECTORY) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(Errno::NOENT) => {
                return Err(refuse("the directory above it does not exist")
                    .hint("create it, or choose another --destination"));
            }
            Err(error) => {
                return Err(refuse(&std::io::Error::from(error).to_string())
                    .hint("choose a --destination that this user can write to"));
            }
        };
        let fd = open(path).map_err(|why| refuse(&why).hint("choose another --destination"))?;
        let directory =
            Self { fd, path: path.to_owned(), plan: Plan::new(), created, written: false, kept: false };
        if !created {
            directory
                .check_existing()
                .map_err(|why| refuse(&why).hint("choose a new or empty --destination"))?;
        }
        directory.try_writing().map_err(|error| {
            refuse(&format!("cannot write to it: {error}"))
                .hint("choose a --destination that this user can write to")
        })?;
        Ok(directory)
    }

    /// A directory that was there must be empty or hold a manifest of ours.
    fn check_existing(&self) -> Result<(), String> {
        let ours = match self.manifest() {
            Ok(found) => found.is_some(),
            Err(why) => return Err(format!("its {} is not one of machine-id: {why}", manifest::FILE_NAME)),
        };
        if !ours
            && entries(&self.fd).map_err(|error| error.to_string())?.iter().any(|name| !is_temporary(name))
        {
            return Err("it holds something else".to_owned());
        }
        rustix::fs::fchmod(&self.fd, PRIVATE_DIRECTORY)
            .map_err(|error| std::io::Error::from(error).to_string())
    }

    fn try_writing(&self) -> std::io::Result<()> {
        let (name, _) = create_temporary(&self.fd)?;
        Ok(rustix::fs::unlinkat(&self.fd, name.as_str(), AtFlags::empty())?)
    }

    /// Its absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The manifest that is in it now.
    ///
    /// # Errors
    /// Why the one that is there is none of ours.
    pub fn manifest(&self) -> Result<Option<Manifest>, String> {
        read_manifest(&self.fd)
    }

    /// Writes a whole issuance: the manifest first, so that whatever happens
    /// `cleanup` finds the rest, then the files of each folder (`` for the
    /// destination itself). What an earlier manifest names beyond that goes.
    ///
    /// # Errors
    /// `Kind::Destination`. What is there then is wiped when this value goes.
    pub fn write(&mut self, manifest: &Manifest, folders: &[(String, Vec<File>)]) -> Result<()> {
        let earlier = self.manifest().ok().flatten().map(|earlier| earlier.plan()).unwrap_or_default();
        self.plan = manifest.plan();
        self.written = true;
        self.write_manifest(manifest)?;
        for (folder, files) in folders {
            for file in files {
                self.write_file(folder, file)?;
            }
        }
        wipe::remove_files(&self.fd, &without(earlier, &self.plan));
        Ok(())
    }

    /// Replaces what a renewal changes; the keys stay, so that key and
    /// certificate always fit.
    ///
    /// # Errors
    /// `Kind::Destination`.
    pub fn renew(&mut self, manifest: &Manifest, folders: &[(String, Vec<File>)]) -> Result<()> {
        for (folder, files) in folders {
            for file in files.iter().filter(|file| !file.is_key) {
                self.write_file(folder, file)?;
            }
        }
        self.write_manifest(manifest)
    }

    fn write_manifest(&self, manifest: &Manifest) -> Result<()> {
        replace(&self.fd, manifest::FILE_NAME, manifest.to_json().as_bytes()).context(
            Kind::Destination,
            format!("cannot write {}", self.path.join(manifest::FILE_NAME).display()),
        )
    }

    fn write_file(&self, folder: &str, file: &File) -> Result<()> {
        let written = if folder.is_empty() {
            replace(&self.fd, file.name, &file.content)
        } else {
            open_folder(&self.fd, folder).and_then(|fd| replace(&fd, file.name, &file.content))
        };
        let path = self.path.join(folder).join(file.name);
        written.context(Kind::Destination, format!("cannot write {}", path.display()))
    }

    /// Leaves everything where it is.
    pub fn keep(mut self) {
        self.kept = true;
    }

    /// Wipes it now.
    ///
    /// # Errors
    /// What could not be removed, for a person.
    pub fn wipe(mut self) -> Result<(), String> {
        self.kept = true;
        self.take_away()
    }

    fn take_away(&self) -> Result<(), String> {
        let leftovers = if self.written { wipe::remove_all(&self.fd, &self.plan) } else { Vec::new() };
        if self.written || self.created {
            wipe::remove_if_empty(&self.path, &self.fd);
        }
        if leftovers.is_empty() { Ok(()) } else { Err(leftovers.join(", ")) }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if !self.kept {
            // There is nobody left to tell.
            let _ = self.take_away();
        }
    }
}

fn without(mut plan: Plan, kept: &Plan) -> Plan {
    for (folder, files) in &mut plan {
        files.retain(|file| !kept.get(folder).is_some_and(|kept| kept.contains(file)));
    }
    plan
}

/// Opens a directory of ours, not through a link.
pub(super) fn open(path: &Path) -> Result<OwnedFd, String> {
    open_at(CWD, path).map_err(|error| match error {
        Errno::LOOP => "it is a symbolic link".to_owned(),
        Errno::NOTDIR => "it is not a directory, or a symbolic link".to_owned(),
        Errno::PERM => "it belongs to another user".to_owned(),
        other => std::io::Error::from(other).to_string(),
    })
}

/// Opens a folder of ours below `fd`; `PERM` where it is another user's.
pub(super) fn open_at(fd: impl AsFd, path: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(fd, path, flags, Mode::empty())?;
    if rustix::fs::fstat(&fd)?.st_uid != rustix::process::geteuid().as_raw() {
        return Err(Errno::PERM);
    }
    Ok(fd)
}

fn open_folder(fd: &OwnedFd, name: &str) -> std::io::Result<OwnedFd> {
    match rustix::fs::mkdirat(fd, name, PRIVATE_DIRECTORY) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let folder = open_at(fd, name)?;
    rustix::fs::fchmod(&folder, PRIVATE_DIRECTORY)?;
    Ok(folder)
}

/// The manifest in a directory; a link or a device is none.
pub(super) fn read_manifest(fd: &OwnedFd) -> Result<Option<Manifest>, String> {
    read_file(fd, manifest::FILE_NAME, manifest::MAX_BYTES)?.map(|bytes| Manifest::parse(&bytes)).transpose()
}

/// A plain file's content, at most `limit` bytes, not through a link.
pub(crate) fn read_file(fd: &OwnedFd, name: &str, limit: u64) -> Result<Option<Vec<u8>>, String> {
    // NONBLOCK: opening a pipe that somebody put there must not hang.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match rustix::fs::openat(fd, name, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => return Err("it is a symbolic link".to_owned()),
        Err(error) => return Err(std::io::Error::from(error).to_string()),
    };
    let stat = rustix::fs::fstat(&file).map_err(|error| error.to_string())?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err("it is not a plain file".to_owned());
    }
    let mut bytes = Vec::new();
    StdFile::from(file).take(limit + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > limit) {
        return Err(format!("it is longer than {limit} bytes"));
    }
    Ok(Some(bytes))
}

/// Puts a file in place whole. What stood there, be it a link, is replaced and not followed.
fn replace(fd: &OwnedFd, name: &str, content: &[u8]) -> std::io::Result<()> {
    let (temporary, mut file) = create_temporary(fd)?;
    let written = file
        .write_all(content)
        .and_then(|()| rustix::fs::renameat(fd, temporary.as_str(), fd, name).map_err(Into::into));
    if written.is_err() {
        let _ = rustix::fs::unlinkat(fd, temporary.as_str(), AtFlags::empty());
    }
    written
}

fn create_temporary(fd: &OwnedFd) -> std::io::Result<(String, StdFile)> {
    let name = format!("{}{}{}", TEMPORARY.0, super::random::hex::<8>(), TEMPORARY.1);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(fd, name.as_str(), flags, PRIVATE_FILE)?;
    // The umask may have taken more away than it should.
    rustix::fs::fchmod(&file, PRIVATE_FILE)?;
    Ok((name, StdFile::from(file)))
}

/// The names in a directory, without `.` and `..`; one that is not UTF-8 is not ours, but counts.
pub(crate) fn entries(fd: &OwnedFd) -> rustix::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(fd)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    Ok(names)
}

/// Whether that is the name of a temporary file of ours.
pub(crate) fn is_temporary(name: &str) -> bool {
    let middle = name.strip_prefix(TEMPORARY.0).and_then(|rest| rest.strip_suffix(TEMPORARY.1));
    middle.is_some_and(|hex| hex.len() == 16 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
#[path = "directory_tests.rs"]
mod tests;
