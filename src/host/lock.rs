//! One refresh of a folder at a time: of two that read, compare and rename side
//! by side, the slower one would put its older list in place of a newer one.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::store::Store;
use crate::error::{Error, Kind, Result};

/// The file that is locked. Not the folder: whoever can read that, and every
/// server does, could lock it and so keep revocations away.
pub const LOCK: &str = ".machine-id.lock";
/// Nobody else has any business with it.
const MODE: Mode = Mode::RUSR.union(Mode::WUSR);
/// How long another run is waited for.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether it has ended.
const PAUSE: Duration = Duration::from_millis(50);

/// A locked folder; free when this goes, or the process.
#[derive(Debug)]
pub struct Lock {
    _file: OwnedFd,
}

impl Store {
    /// Locks the folder; waits until `deadline` for whoever has it. The file
    /// stays: if it were removed, two runs could each have locked one.
    ///
    /// # Errors
    /// `Kind::Destination` where another run goes on, or the file is not ours to lock.
    pub async fn lock(&self, deadline: Instant) -> Result<Lock> {
        loop {
            if let Some(lock) = self.try_lock()? {
                return Ok(lock);
            }
            if Instant::now() >= deadline {
                return Err(Error::new(
                    Kind::Destination,
                    format!("another `host refresh` is at work on {}", self.path("").display()),
                )
                .hint(format!(
                    "let one timer refresh it; if one hangs, `fuser {}` says which, and ending it frees the folder",
                    self.path(LOCK).display()
                )));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Nothing where somebody else has it.
    fn try_lock(&self) -> Result<Option<Lock>> {
        let refuse = |why: &str| {
            Error::new(Kind::Destination, format!("cannot lock {}: {why}", self.path(LOCK).display()))
                .hint("remove it: it is made anew, as a file that none but its owner can open")
        };
        let io = |error: Errno| refuse(&std::io::Error::from(error).to_string());
        // NONBLOCK: opening a pipe that stands there must not hang.
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::openat(self.fd(), LOCK, flags, MODE).map_err(|error| match error {
            Errno::LOOP => refuse("it is a symbolic link"),
            error => io(error),
        })?;
        let stat = rustix::fs::fstat(&file).map_err(io)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(refuse("it is not a plain file"));
        }
        if Mode::from_raw_mode(stat.st_mode) != MODE {
            // Whoever may open it may lock it.
            rustix::fs::fchmod(&file, MODE).map_err(io)?;
        }
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK | Errno::INTR) => return Ok(None),
            // Where there are no locks, revocations count more than one that is late by a run.
            Err(Errno::NOLCK | Errno::NOTSUP | Errno::NOSYS | Errno::INVAL) => {}
            Err(error) => return Err(io(error)),
        }
        // Somebody may have removed it meanwhile.
        let there = rustix::fs::statat(self.fd(), LOCK, AtFlags::SYMLINK_NOFOLLOW);
        let same = there.is_ok_and(|there| (there.st_dev, there.st_ino) == (stat.st_dev, stat.st_ino));
        Ok(same.then_some(Lock { _file: file }))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use super::*;

    fn lock(store: &Store, patience: Duration) -> Result<Lock> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(store.lock(Instant::now() + patience))
    }

    #[test]
    fn one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (Store::open(folder.path()).unwrap(), Store::open(folder.path()).unwrap());
        let held = lock(&one, Duration::ZERO).unwrap();
        let error = lock(&other, Duration::ZERO).unwrap_err();
        assert_eq!(error.kind(), Kind::Destination);
        assert!(error.to_string().starts_with("another `host refresh` is at work on "), "{error}");
        assert!(error.hints()[0].contains(LOCK), "{error:?}");
        // It is waited for.
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| lock(&other, Duration::from_secs(60)));
            std::thread::sleep(4 * PAUSE);
            assert!(!waits.is_finished());
            drop(held);
            waits.join().unwrap().unwrap();
        });
        // One that somebody removed locks nothing.
        let held = lock(&one, Duration::ZERO).unwrap();
        std::fs::remove_file(folder.path().join(LOCK)).unwrap();
        lock(&other, Duration::ZERO).unwrap();
        drop(held);
    }

    #[test]
    fn none_but_its_owner_can_open_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let path = folder.path().join(LOCK);
        // Whatever the umask, and whoever made it.
        for mode in [None, Some(0o644), Some(0o666)] {
            if let Some(mode) = mode {
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            }
            lock(&store, Duration::ZERO).unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        }
    }

    #[test]
    fn what_is_no_file_of_ours_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let (path, elsewhere) = (folder.path().join(LOCK), folder.path().join("elsewhere"));
        symlink(&elsewhere, &path).unwrap();
        let why = |store: &Store| lock(store, Duration::ZERO).unwrap_err().to_string();
        assert!(why(&store).ends_with(": it is a symbolic link"), "{}", why(&store));
        assert!(!elsewhere.exists(), "nothing is made behind a link");
        std::fs::remove_file(&path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert!(why(&store).ends_with(": it is not a plain file"), "{}", why(&store));
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(why(&store).starts_with("cannot lock "), "{}", why(&store));
    }
}
