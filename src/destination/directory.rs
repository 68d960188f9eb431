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

use rustix::fs::{AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::manifest::{self, Manifest, Plan};
use super::material::File;
use super::wipe;
use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::trust::Standing;

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
    /// Whether the directory stays when it is wiped, since it is not one that we made.
    stays: bool,
    /// The permissions of one that was there before, and empty.
    mode_before: Option<Mode>,
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
    /// makes sure that it is ours, private, writable, and in no other run's
    /// use: it is locked as long as this value lives. The kernel drops the lock
    /// with the process, and COMMAND does not inherit it.
    ///
    /// # Errors
    /// `Kind::Destination` where it is a link, not a directory, not ours, in
    /// use, or not writable, and where another user could put something else
    /// in its place.
    pub fn prepare(path: &Path) -> Result<Self> {
        let refuse =
            |why: &str| Error::new(Kind::Destination, format!("cannot use {}: {why}", path.display()));
        let parent = open_parent(path).map_err(|error| match error {
            Errno::NOENT => refuse("the directory above it does not exist")
                .hint("create it, or choose another --destination"),
            error => refuse(&std::io::Error::from(error).to_string()).hint("choose another --destination"),
        })?;
        check_above(&parent).map_err(|why| {
            refuse(&format!(
                "the directory above it {why}, so that another user could put other files in its place"
            ))
            .hint("choose a --destination below a directory that only this user can write to, or none")
        })?;
        let name = path.file_name().ok_or_else(|| refuse("it has no name"))?;
        let created = match rustix::fs::mkdirat(&parent, name, PRIVATE_DIRECTORY) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => {
                return Err(refuse(&std::io::Error::from(error).to_string())
                    .hint("choose a --destination that this user can write to"));
            }
        };
        let fd = opened(open_at(&parent, name))
            .map_err(|why| refuse(&why).hint("choose another --destination"))?;
        // Where the file system has no locks, there is nothing to hold.
        if rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
            return Err(refuse("another machine-id that is running uses it").hint(
                "give each its own --destination; `once -- COMMAND` without one makes a new directory",
            ));
        }
        let mut directory = Self {
            fd,
            path: path.to_owned(),
            plan: Plan::new(),
            created,
            stays: !created,
            mode_before: None,
            written: false,
            kept: false,
        };
        if !created {
            directory
                .check_existing()
                .map_err(|why| refuse(&why).hint("choose a new or empty --destination"))?;
            // One that could be created just now can be written to.
            directory.try_writing().map_err(|error| {
                refuse(&format!("cannot write to it: {error}"))
                    .hint("choose a --destination that this user can write to")
            })?;
        }
        Ok(directory)
    }

    /// A directory that was there must be empty or hold a manifest of ours.
    fn check_existing(&mut self) -> Result<(), String> {
        let ours = match self.manifest() {
            Ok(found) => found,
            Err(why) => return Err(format!("its {} is not one of machine-id: {why}", manifest::FILE_NAME)),
        };
        let stat = rustix::fs::fstat(&self.fd).map_err(|error| std::io::Error::from(error).to_string())?;
        match ours {
            Some(manifest) => self.stays = manifest.keep_directory,
            None if entries(&self.fd)
                .map_err(|error| error.to_string())?
                .iter()
                .any(|name| !is_temporary(name)) =>
            {
                return Err("it holds something else".to_owned());
            }
            None => self.mode_before = Some(Mode::from_raw_mode(stat.st_mode)),
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

    /// What an earlier issuance left in it.
    ///
    /// # Errors
    /// `Kind::Destination` where it cannot be looked at any more.
    pub fn earlier(&self) -> Result<Option<wipe::Found>> {
        let failed = || format!("cannot read {}", self.path.display());
        let manifest = self.manifest().map_err(|why| Error::new(Kind::Destination, why).context(failed()))?;
        let Some(manifest) = manifest else { return Ok(None) };
        let fd = self.fd.try_clone().context(Kind::Destination, failed())?;
        Ok(Some(wipe::Found::new(manifest, fd, self.path.clone())))
    }

    /// Whether the directory stays when it is wiped, for the manifest.
    #[must_use]
    pub fn stays(&self) -> bool {
        self.stays
    }

    /// Writes a whole issuance: the manifest first, so that whatever happens
    /// `cleanup` finds the rest, then the files of each folder (`` for the
    /// destination itself). What an earlier issuance left goes before that,
    /// while its own manifest still stands: `cleanup` finds it too whatever
    /// happens, and nothing of it is in the way, such as a file where a folder
    /// is to be.
    ///
    /// # Errors
    /// `Kind::Destination`. What is there then is wiped when this value goes.
    pub fn write(&mut self, manifest: &Manifest, folders: &[(String, Vec<File>)]) -> Result<()> {
        self.plan = self.manifest().ok().flatten().map(|earlier| earlier.plan()).unwrap_or_default();
        self.written = true;
        let left = wipe::remove_files(&self.fd, &self.plan);
        if !left.is_empty() {
            let failed = format!("cannot remove what an earlier issuance left in {}", self.path.display());
            return Err(Error::new(Kind::Destination, left.join(", ")).context(failed));
        }
        self.plan = manifest.plan();
        self.write_manifest(manifest)?;
        for (folder, files) in folders {
            for file in files {
                self.write_file(folder, file)?;
            }
        }
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
            replace(&self.fd, &file.name, &file.content)
        } else {
            open_folder(&self.fd, folder).and_then(|fd| replace(&fd, &file.name, &file.content))
        };
        let path = self.path.join(folder).join(file.name.as_ref());
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
        if self.created || (self.written && !self.stays) {
            wipe::remove_if_empty(&self.path, &self.fd);
        }
        if !leftovers.is_empty() {
            return Err(leftovers.join(", "));
        }
        if let Some(mode) = self.mode_before {
            let _ = rustix::fs::fchmod(&self.fd, mode);
        }
        Ok(())
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

/// The directory above, through links, to work below it from then on.
fn open_parent(path: &Path) -> rustix::io::Result<OwnedFd> {
    let parent = path.parent().ok_or(Errno::INVAL)?;
    // Reading it is nobody's business, and perhaps not allowed.
    #[cfg(target_os = "linux")]
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    #[cfg(not(target_os = "linux"))]
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, parent, flags, Mode::empty())
}

fn check_above(parent: &OwnedFd) -> Result<(), String> {
    let metadata = parent.try_clone().and_then(|parent| StdFile::from(parent).metadata());
    let metadata = metadata.map_err(|error| format!("cannot be looked at ({error})"))?;
    Standing::from(&metadata).check(rustix::process::geteuid().as_raw())
}

/// Opens a directory of ours, not through a link.
pub(super) fn open(path: &Path) -> Result<OwnedFd, String> {
    opened(open_at(CWD, path))
}

fn opened(result: rustix::io::Result<OwnedFd>) -> Result<OwnedFd, String> {
    result.map_err(|error| match error {
        Errno::LOOP => "it is a symbolic link".to_owned(),
        Errno::NOTDIR => "it is not a directory, or a symbolic link".to_owned(),
        Errno::PERM => "it belongs to another user".to_owned(),
        other => std::io::Error::from(other).to_string(),
    })
}

/// Opens a folder of ours below `fd`; `PERM` where it is another user's.
pub(crate) fn open_at(fd: impl AsFd, path: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
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
    let name = format!("{}{}{}", TEMPORARY.0, crate::random::hex::<8>()?, TEMPORARY.1);
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
