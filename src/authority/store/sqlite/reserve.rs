//! Room on the disk that is set aside. While it stands, exchanges are recorded;
//! once the disk is full it is given up, so that the store can be opened, its
//! log folded in, and what has expired be forgotten. Exchanges go on when there
//! is room for a new one.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

use super::outside::beside;
use crate::folder::PRIVATE_FILE;
use crate::folder::replace::create_new;

/// How much is set aside, in bytes, where as much again is free.
pub(super) const RESERVE: u64 = 8 << 20;
/// How soon it is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// The file that takes the room.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    stands: bool,
    tried: Option<Instant>,
}

impl Reserve {
    /// That of the store at `path`.
    pub(super) fn of(path: &Path) -> Self {
        Self { path: beside(path, "-reserve"), stands: false, tried: None }
    }

    /// Whether it stands, or can be set aside now.
    pub(super) fn stands(&mut self) -> bool {
        if !self.stands && self.tried.is_none_or(|tried| tried.elapsed() >= AGAIN) {
            self.tried = Some(Instant::now());
            self.stands = self.set_aside().is_ok();
        }
        self.stands
    }

    fn set_aside(&self) -> io::Result<()> {
        if std::fs::metadata(&self.path).is_ok_and(|file| file.len() == RESERVE) {
            return Ok(());
        }
        self.remove();
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let disk = statvfs(folder)?;
        if disk.f_bavail.saturating_mul(disk.f_frsize) < 2 * RESERVE {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = create_new(&self.path, PRIVATE_FILE)?;
        let taken = match fallocate(&file, FallocateFlags::empty(), 0, RESERVE) {
            // Not every file system can, nor every kernel or sandbox.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                io::copy(&mut io::Read::take(io::repeat(1), RESERVE), &mut &file).map(drop)
            }
            done => done.map_err(io::Error::from),
        };
        taken.inspect_err(|_| self.remove())
    }

    fn remove(&self) {
        // One that is not there is as good.
        drop(std::fs::remove_file(&self.path));
    }

    /// Gives it up. The log is folded into the file with it, and starts anew.
    pub(super) fn give_up(&mut self, connection: Option<&Connection>) {
        (self.stands, self.tried) = (false, Some(Instant::now()));
        self.remove();
        if let Some(connection) = connection {
            // Where even that fails, the next one tries.
            drop(connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())));
        }
    }
}
