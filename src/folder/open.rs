//! An open folder.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags};
use rustix::io::Errno;
use rustix::path::Arg;

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

impl Folder {
    /// Opens the folder, creates it if need be, below folders in which nobody
    /// but this user and root can put another in its place. A private one must
    /// be this user's own, another may be root's; the mode of one that was
    /// there is for the caller to judge. What to do where it fails is told of
    /// the `option` that named it, and is `elsewhere` where others could
    /// replace it. Also returns whether it was created.
    pub fn make(path: &Path, mode: Mode, option: &str, elsewhere: &str) -> Result<(Self, bool), Unfit> {
        let another = format!("choose another {option}");
        let (above, name) = trust::stands_in(path).map_err(|unfit| match unfit.is_missing() {
            true => Unfit::from(io::Error::new(ErrorKind::NotFound, "the directory above it does not exist"))
                .hint(format!("create it, or {another}")),
            false => unfit.hint(elsewhere),
        })?;
        // Nobody else can change what this leads to any more.
        let place = above.join(name);
        let created = match rustix::fs::mkdirat(CWD, &place, mode) {
            Err(Errno::EXIST) => false,
            made => made.map(|()| true).map_err(|error| {
                Unfit::from(error).hint(format!("choose a {option} that this user can write to"))
            })?,
        };
        let not_ours = |error| not_ours(error).hint(another.clone());
        let fd = open(CWD, place).map_err(&not_ours)?;
        if created {
            // The umask may have taken more away than it should.
            rustix::fs::fchmod(&fd, mode)?;
        }
        let owner = Standing::of(&fd)?.uid;
        if owner != trust::me() && (owner != 0 || mode == PRIVATE_FOLDER) {
            return Err(not_ours(Errno::PERM));
        }
        Ok((Self { fd, path: path.to_owned() }, created))
    }

    /// Opens a folder of this user's, not through a link.
    pub fn open(path: &Path) -> Result<Self, Unfit> {
        Self::open_at(CWD, path, path.to_owned()).map_err(not_ours)
    }

    /// Opens a folder of this user's in this one, or for `` this one itself,
    /// not through a link: `PERM` where it is another user's, `LOOP` or
    /// `NOTDIR` where it is no folder.
    pub fn below(&self, name: &str) -> rustix::io::Result<Self> {
        Self::open_at(&self.fd, if name.is_empty() { "." } else { name }, self.path.join(name))
    }

    /// Opens a folder that its owner alone can use, whosever that is, in a place where nobody but this user and
    /// root can put another: what stands in it is its owner's word.
    pub fn of_another(path: &Path) -> Result<Self, Unfit> {
        let (above, name) = trust::stands_in(path)?;
        let folder = Self::judged(&above.join(name)).map_err(not_ours)?;
        match folder.standing()?.others_use() {
            true => Err(Unfit::new("others than its owner may use it").hint("`chmod 700` it")),
            false => Ok(folder),
        }
    }

    /// Opens a folder, whosever it is: one that was judged before.
    pub(super) fn judged(path: &Path) -> rustix::io::Result<Self> {
        Ok(Self { fd: open(CWD, path)?, path: path.to_owned() })
    }

    fn open_at(at: impl AsFd, name: impl Arg, path: PathBuf) -> rustix::io::Result<Self> {
        let fd = open(at, name)?;
        if Standing::of(&fd)?.uid == trust::me() { Ok(Self { fd, path }) } else { Err(Errno::PERM) }
    }

    /// Opens a folder in this one, creates it if need be, and makes it private.
    pub fn make_below(&self, name: &str) -> rustix::io::Result<Self> {
        if !name.is_empty()
            && let Err(error) = rustix::fs::mkdirat(&self.fd, name, PRIVATE_FOLDER)
            && error != Errno::EXIST
        {
            return Err(error);
        }
        let folder = self.below(name)?;
        folder.set_mode(PRIVATE_FOLDER)?;
        Ok(folder)
    }

    /// The path that it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whose it is.
    pub fn standing(&self) -> rustix::io::Result<Standing> {
        Standing::of(&self.fd)
    }

    /// Who may use a file in it, which is no link.
    pub fn mode_of(&self, name: &str) -> Option<Mode> {
        let stat = rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some(Mode::from_raw_mode(stat.st_mode & 0o7777))
    }

    /// Changes who may use it.
    pub fn set_mode(&self, mode: Mode) -> rustix::io::Result<()> {
        rustix::fs::fchmod(&self.fd, mode)
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

fn open(at: impl AsFd, path: impl Arg) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, path, flags, Mode::empty())
}

/// Why what stands there is no folder of this user's, for a person.
fn not_ours(error: Errno) -> Unfit {
    match error {
        Errno::LOOP => Unfit::new("it is a symbolic link"),
        Errno::NOTDIR => Unfit::new("it is not a directory, or a symbolic link"),
        Errno::PERM => Unfit::new("it belongs to another user"),
        other => other.into(),
    }
}

/// Whether what is open still stands there under that name.
pub(super) fn stands_at(open: impl AsFd, at: impl AsFd, name: impl Arg) -> bool {
    let there = rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW);
    matches!((rustix::fs::fstat(open), there), (Ok(a), Ok(b)) if (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
}
