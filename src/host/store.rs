//! The folder that servers read: files that others may read and only we
//! write, each replaced whole, and there after a power cut.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::clock::Clock;
use crate::destination::directory::{TEMPORARY, entries, is_temporary, read_file};
use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::trust;
use crate::random;

/// `sshd`, nginx and the like read them as users of their own; nothing in them is secret.
const MODE: Mode = Mode::RUSR.union(Mode::WUSR).union(Mode::RGRP).union(Mode::ROTH);
const DIRECTORY_MODE: Mode =
    Mode::RWXU.union(Mode::RGRP).union(Mode::XGRP).union(Mode::ROTH).union(Mode::XOTH);
/// When the temporary file of a run that was killed is surely nobody's, in seconds.
const ABANDONED: i64 = 3600;

/// An open folder.
#[derive(Debug)]
pub struct Store {
    fd: OwnedFd,
    path: PathBuf,
}

impl Store {
    /// Opens it, creates it if need be.
    ///
    /// # Errors
    /// `Kind::Destination` where it cannot be written to, or others could put
    /// CA keys of their own there.
    pub fn open(path: &Path) -> Result<Self> {
        let refuse =
            |why: &str| Error::new(Kind::Destination, format!("cannot use {}: {why}", path.display()));
        let io = |error: Errno| refuse(&std::io::Error::from(error).to_string());
        let (parent, name) = trust::stands_in(path).map_err(|why| {
            refuse(&why).hint(
                "give a --dir whose parent exists, below folders that only root or this user can write to",
            )
        })?;
        // Nobody else can change what this leads to any more.
        let place = parent.join(name);
        let created = match rustix::fs::mkdirat(CWD, &place, DIRECTORY_MODE) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => {
                return Err(io(error).hint("give a --dir whose parent exists, as a user who can write there"));
            }
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::open(&place, flags, Mode::empty()).map_err(|error| match error {
            Errno::LOOP | Errno::NOTDIR => refuse("it is a symbolic link, or not a directory")
                .hint("give the folder itself, and name it so in what reads it"),
            error => io(error),
        })?;
        if created {
            // The umask of a service may keep `sshd`'s helpers out.
            rustix::fs::fchmod(&fd, DIRECTORY_MODE).map_err(io)?;
        }
        let stat = rustix::fs::fstat(&fd).map_err(io)?;
        if stat.st_uid != 0 && stat.st_uid != rustix::process::geteuid().as_raw() {
            return Err(refuse("it belongs to another user")
                .hint("whoever owns it can put a CA key of their own there"));
        }
        if Mode::from_raw_mode(stat.st_mode).intersects(Mode::WGRP | Mode::WOTH) {
            return Err(refuse("others can write to it")
                .hint("`chmod go-w` it: whoever writes there can put a CA key of their own there"));
        }
        let store = Self { fd, path: path.to_owned() };
        // Before anything is asked for that could not be kept.
        let (name, _) = store.create_temporary().map_err(|error| {
            refuse(&error.to_string()).hint("run this as a user who can write there, or give another --dir")
        })?;
        store.remove(&name);
        store.remove_abandoned();
        Ok(store)
    }

    /// A file's content; none where there is nothing of that name.
    ///
    /// # Errors
    /// Why what is there cannot be read, for a person.
    pub fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, String> {
        read_file(&self.fd, name, limit)
    }

    /// The path of a file.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The folder, for what is done by name in it.
    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Replaces a file, and returns its path.
    ///
    /// # Errors
    /// `Kind::Destination`; the old one stays.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<PathBuf> {
        let path = self.path(name);
        self.replace(name, content).context(Kind::Destination, format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    fn replace(&self, name: &str, content: &[u8]) -> std::io::Result<()> {
        let (temporary, mut file) = self.create_temporary()?;
        let written = file.write_all(content).and_then(|()| file.sync_all()).and_then(|()| {
            rustix::fs::renameat(&self.fd, temporary.as_str(), &self.fd, name).map_err(Into::into)
        });
        if written.is_err() {
            self.remove(&temporary);
        }
        written?;
        // The new name as well.
        Ok(rustix::fs::fsync(&self.fd)?)
    }

    fn create_temporary(&self) -> std::io::Result<(String, File)> {
        let name = format!("{}{}{}", TEMPORARY.0, random::hex::<8>()?, TEMPORARY.1);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.fd, name.as_str(), flags, MODE)?;
        rustix::fs::fchmod(&file, MODE)?;
        Ok((name, File::from(file)))
    }

    fn remove(&self, name: &str) {
        let _ = rustix::fs::unlinkat(&self.fd, name, AtFlags::empty());
    }

    /// Temporary files of runs that were killed.
    fn remove_abandoned(&self) {
        let now = Clock::system().now();
        for name in entries(&self.fd).unwrap_or_default().iter().filter(|name| is_temporary(name)) {
            let stat = rustix::fs::statat(&self.fd, name.as_str(), AtFlags::SYMLINK_NOFOLLOW);
            if stat.is_ok_and(|stat| {
                FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
                    && now.saturating_sub(stat.st_mtime) > ABANDONED
            }) {
                self.remove(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use std::time::{Duration, SystemTime};

    use super::*;

    fn names(path: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn files_are_replaced_and_readable_by_all() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("trust");
        let store = Store::open(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o755);
        std::os::unix::fs::symlink("/etc/passwd", path.join("a")).unwrap();
        assert_eq!(store.read("b", 100), Ok(None));
        assert_eq!(store.read("a", 100), Err("it is a symbolic link".to_owned()));
        assert_eq!(store.write("a", b"new").unwrap(), path.join("a"));
        assert_eq!(store.read("a", 100), Ok(Some(b"new".to_vec())));
        assert_eq!(store.read("a", 2), Err("it is longer than 2 bytes".to_owned()));
        let metadata = std::fs::symlink_metadata(path.join("a")).unwrap();
        assert_eq!((metadata.is_file(), metadata.mode() & 0o7777), (true, 0o644));
        assert_eq!(names(&path), ["a"]);
    }

    #[test]
    fn folders_that_others_write_to_are_refused() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("trust");
        std::fs::create_dir(&path).unwrap();
        for mode in [0o777, 0o775, 0o1777] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let error = Store::open(&path).unwrap_err();
            assert_eq!(error.kind(), Kind::Destination);
            assert!(error.to_string().ends_with("others can write to it"), "{error}");
        }
        assert_eq!(Store::open(Path::new("/no/such/folder")).unwrap_err().kind(), Kind::Destination);
        let file = parent.path().join("file");
        std::fs::write(&file, "x").unwrap();
        assert_eq!(Store::open(&file).unwrap_err().kind(), Kind::Destination);
    }

    #[test]
    fn what_others_could_put_in_its_place_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let (open, trust) = (parent.path().join("open"), parent.path().join("trust"));
        std::fs::create_dir_all(open.join("below/trust")).unwrap();
        std::fs::create_dir(&trust).unwrap();
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
        for bad in [open.join("trust"), open.join("below/trust")] {
            let error = Store::open(&bad).unwrap_err();
            let words =
                format!("cannot use {}: {} can be written to by everybody, ", bad.display(), open.display());
            assert_eq!(error.kind(), Kind::Destination);
            assert!(error.to_string().starts_with(&words), "{error}");
        }
        assert!(!open.join("trust").exists(), "nothing is made there");
        std::os::unix::fs::symlink(&trust, parent.path().join("link")).unwrap();
        let error = Store::open(&parent.path().join("link")).unwrap_err();
        assert!(error.to_string().ends_with("it is a symbolic link, or not a directory"), "{error}");
        assert!(Store::open(&trust).is_ok());
    }

    #[test]
    fn what_a_killed_run_left_goes_after_an_hour() {
        let parent = tempfile::tempdir().unwrap();
        let temporary = |digit: &str| parent.path().join(format!(".machine-id-{}.tmp", digit.repeat(16)));
        for (digit, age) in [("1", 7200), ("2", 60)] {
            let file = File::create(temporary(digit)).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        }
        Store::open(parent.path()).unwrap();
        assert!(!temporary("1").exists() && temporary("2").exists());
    }
}
