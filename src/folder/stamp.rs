//! What tells one state of a file from another without reading it.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// After so long without a change nobody is writing any more.
pub const STILL: Duration = Duration::from_secs(1);

/// Nanoseconds since 1970.
pub type Nanos = i128;

/// The system's clock, which file systems of this machine stamp with.
pub fn now() -> Nanos {
    nanos(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// A duration, to reckon with.
pub fn nanos(time: Duration) -> Nanos {
    Nanos::try_from(time.as_nanos()).unwrap_or(Nanos::MAX)
}

/// One state of a file. `rsync -t` and `cp -p` keep its size and the time when
/// its content changed; nobody keeps that of its last change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The file system.
    pub device: u64,
    /// The file in it.
    pub inode: u64,
    /// In bytes.
    pub length: u64,
    /// When its content changed, as whoever wrote it says.
    pub modified: Nanos,
    /// When anything of it changed, as the file system says.
    pub changed: Nanos,
}

impl Stamp {
    /// Of what `path` leads to, if anything is there.
    pub fn of(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().map(Self::from)
    }

    /// How long ago it was changed, by either time; less than nothing where that clock is ahead.
    pub fn ages(self, now: Nanos) -> [Nanos; 2] {
        [now - self.modified, now - self.changed]
    }

    /// Whether it was changed within the last second. A clock that is ahead of
    /// ours says nothing of that.
    pub fn is_young(self, now: Nanos) -> bool {
        self.ages(now).iter().any(|age| (0..nanos(STILL)).contains(age))
    }
}

impl From<Metadata> for Stamp {
    fn from(metadata: Metadata) -> Self {
        let time = |seconds: i64, more: i64| Nanos::from(seconds) * 1_000_000_000 + Nanos::from(more);
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: time(metadata.mtime(), metadata.mtime_nsec()),
            changed: time(metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}
