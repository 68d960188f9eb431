//! An open folder.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Dir, Mode, OFlags};
use rustix::io::Errno;

use super::trust::{self, Standing};
use super::unfit::Unfit;

/// Of a folder that is this user's alone.
pub const PRIVATE_FOLDER: Mode = Mode::RWXU;
/// Of a file that is this user's alone.
pub const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);
/// Of a file that anybody may read.
pub const PUBLIC_FILE: Mode = PRIVATE_FILE.union(Mode::RGRP).union(Mode::ROTH);

/// An open folder. What is done in it is done relative to its descriptor, so
/// that nobody can put another folder or a link in the way between a check and a use.
#[derive(Debug)]
pub struct Folder {
    pub(super) fd: OwnedFd,
    path: PathBuf,
}

/// A folder that was opened, or created.
#[derive(Debug)]
pub struct Made {
    /// The folder.
    pub folder: Folder,
    /// Whether it was not there before.
    pub created: bool,
    /// Whose it is.
    pub standing: Standing,
}

/// At what opening or creating a folder failed.
#[derive(Debug)]
pub enum NotMade {
    /// At what it stands in: that is not there, or others could change it.
    Above(Unfit),
    /// At creating it.
    Create(io::Error),
    /// At what is there: `LOOP` and `NOTDIR` for a link or a file.
    Open(Errno),
}

impl Folder {
    /// Opens the folder, creates it if need be, below folders in which nobody
    /// but this user and root can put another in its place. Whose it is
    /// itself, and what its mode is, is for the caller to judge.
    pub fn make(path: &Path, mode: Mode) -> Result<Made, NotMade> {
        let (above, name) = trust::stands_in(path).map_err(NotMade::Above)?;
        // Nobody else can change what this leads to any more.
        let place = above.join(name);
        let created = match rustix::fs::mkdirat(CWD, &place, mode) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(NotMade::Create(error.into())),
        };
        let fd = open(CWD, place).map_err(NotMade::Open)?;
        if created {
            // The umask may have taken more away than it should.
            rustix::fs::fchmod(&fd, mode).map_err(NotMade::Open)?;
        }
        let standing = Standing::of(&fd).map_err(NotMade::Open)?;
        Ok(Made { folder: Self { fd, path: path.to_owned() }, created, standing })
    }

    /// Opens a folder of this user's, not through a link.
    ///
    /// # Errors
    /// `PERM` where it is another user's; `LOOP` or `NOTDIR` where it is no folder.
    pub fn open(path: &Path) -> rustix::io::Result<Self> {
        Ok(Self { fd: mine(open(CWD, path)?)?, path: path.to_owned() })
    }

    /// Opens a folder of this user's in this one, as [`Folder::open`] does.
    pub fn below(&self, name: &str) -> rustix::io::Result<Self> {
        Ok(Self { fd: mine(open(&self.fd, name)?)?, path: self.path.join(name) })
    }

    /// Opens a folder in this one, creates it if need be, and makes it private.
    pub fn make_below(&self, name: &str) -> rustix::io::Result<Self> {
        match rustix::fs::mkdirat(&self.fd, name, PRIVATE_FOLDER) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        let folder = self.below(name)?;
        folder.set_mode(PRIVATE_FOLDER)?;
        Ok(folder)
    }

    /// The path that it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whose it is.
    pub fn standing(&self) -> rustix::io::Result<Standing> {
        Standing::of(&self.fd)
    }

    /// Changes who may use it.
    pub fn set_mode(&self, mode: Mode) -> rustix::io::Result<()> {
        rustix::fs::fchmod(&self.fd, mode)
    }

    /// Another descriptor of it.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { fd: self.fd.try_clone()?, path: self.path.clone() })
    }

    /// The names in it, without `.` and `..`; one that is not UTF-8 is not ours, but counts.
    pub fn entries(&self) -> rustix::io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.fd)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        Ok(names)
    }
}

fn open(at: impl AsFd, path: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, path, flags, Mode::empty())
}

fn mine(fd: OwnedFd) -> rustix::io::Result<OwnedFd> {
    if Standing::of(fd.as_fd())?.uid == trust::me() { Ok(fd) } else { Err(Errno::PERM) }
}

/// Why what stands there cannot be opened as a folder of this user's, for a person.
#[must_use]
pub fn not_mine(error: Errno) -> String {
    match error {
        Errno::LOOP => "it is a symbolic link".to_owned(),
        Errno::NOTDIR => "it is not a directory, or a symbolic link".to_owned(),
        Errno::PERM => "it belongs to another user".to_owned(),
        other => std::io::Error::from(other).to_string(),
    }
}
