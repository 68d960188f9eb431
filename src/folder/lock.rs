//! One run at a time. The kernel drops a lock with the process, whatever ended
//! it, and COMMAND does not inherit it, since the descriptor is closed on exec.

use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::open::{Folder, PRIVATE_FILE, stands_at};
use super::read::open_plain;
use super::unfit::Unfit;

/// How often it is looked whether another run has ended.
const PAUSE: Duration = Duration::from_millis(20);

/// Why there is no lock.
#[derive(Debug)]
pub enum NotLocked {
    /// Another run has it.
    Busy,
    /// This file system has none.
    Unsupported(io::Error),
    /// What stands there cannot be locked, for a person.
    Refused(Unfit),
}

impl Folder {
    /// Locks a file in it, made if need be; waits until `deadline` for whoever
    /// has it; it is free again when the file is closed. That stays: if it were
    /// removed, two runs could each have locked one.
    pub async fn lock(&self, name: &str, deadline: Instant) -> Result<File, NotLocked> {
        loop {
            match self.try_lock(name) {
                Err(NotLocked::Busy) if Instant::now() < deadline => tokio::time::sleep(PAUSE).await,
                done => return done,
            }
        }
    }

    fn try_lock(&self, name: &str) -> Result<File, NotLocked> {
        let refuse = |error: Errno| NotLocked::Refused(error.into());
        let file = open_plain(&self.fd, name, OFlags::RDWR | OFlags::CREATE).map_err(NotLocked::Refused)?;
        let stat = rustix::fs::fstat(&file).map_err(refuse)?;
        if Mode::from_raw_mode(stat.st_mode) != PRIVATE_FILE {
            // Whoever may open it may lock it.
            rustix::fs::fchmod(&file, PRIVATE_FILE).map_err(refuse)?;
        }
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK | Errno::INTR) => return Err(NotLocked::Busy),
            Err(error @ (Errno::NOLCK | Errno::NOTSUP | Errno::NOSYS | Errno::INVAL)) => {
                return Err(NotLocked::Unsupported(error.into()));
            }
            Err(error) => return Err(refuse(error)),
        }
        // Somebody may have removed it meanwhile.
        if stands_at(&file, &self.fd, name) { Ok(file) } else { Err(NotLocked::Busy) }
    }

    /// Locks the folder itself, for as long as it is open; whether no other run
    /// has it. Where the file system has no locks, there is nothing to hold.
    pub fn lock_itself(&self) -> bool {
        rustix::fs::flock(&self.fd, FlockOperation::NonBlockingLockExclusive) != Err(Errno::WOULDBLOCK)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
    use std::path::Path;

    use super::*;

    const NAME: &str = "lock";

    fn open(path: &Path) -> Folder {
        Folder::open(path).unwrap()
    }

    fn lock(folder: &Folder, patience: Duration) -> Result<File, NotLocked> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(folder.lock(NAME, Instant::now() + patience))
    }

    #[test]
    fn one_at_a_time() {
        let temp = tempfile::tempdir().unwrap();
        let (one, other) = (open(temp.path()), open(temp.path()));
        let held = lock(&one, Duration::ZERO).unwrap();
        assert!(matches!(lock(&other, Duration::ZERO), Err(NotLocked::Busy)));
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
        std::fs::remove_file(temp.path().join(NAME)).unwrap();
        lock(&other, Duration::ZERO).unwrap();
        drop(held);
        assert!(one.lock_itself() && !other.lock_itself());
    }

    #[test]
    fn none_but_its_owner_can_open_it() {
        let temp = tempfile::tempdir().unwrap();
        let (folder, path) = (open(temp.path()), temp.path().join(NAME));
        // Whatever the umask, and whoever made it.
        for mode in [None, Some(0o644), Some(0o666)] {
            if let Some(mode) = mode {
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            }
            lock(&folder, Duration::ZERO).unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        }
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let (folder, path) = (open(temp.path()), temp.path().join(NAME));
        let elsewhere = temp.path().join("elsewhere");
        symlink(&elsewhere, &path).unwrap();
        let why = || match lock(&folder, Duration::ZERO) {
            Err(NotLocked::Refused(why)) => why.to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(why(), "it is a symbolic link");
        assert!(!elsewhere.exists(), "nothing is made behind a link");
        std::fs::remove_file(&path).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, Mode::RWXU).unwrap();
        assert_eq!(why(), "it is not a plain file");
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(why().contains("os error"));
    }
}
