//! What tells from outside of a store that it is the one it was: its files,
//! while they are open; and its mark, a file beside it that says which store
//! stands there and how far it had come, at most a second ago. The mark is
//! written after the commit that it tells of is on the disk, so that a store
//! that is behind its mark was put back from a copy.

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::Folder;
use crate::folder::read::{self, Limit, Trust};
use crate::folder::trust::{self, Owner};

/// What the mark's name has behind the store's.
pub const MARK: &str = ".mark";

/// The file beside the store whose name ends so.
pub(super) fn beside(store: &Path, end: &str) -> PathBuf {
    let mut name = store.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// The number of the last event.
pub(super) fn last_event(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("SELECT ifnull(max(sequence), 0) FROM events")?.query_row([], |row| row.get(0))
}

/// What the mark says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// The identity of the store.
    pub(super) store: String,
    /// The last event that it surely had.
    pub(super) sequence: i64,
}

impl Mark {
    /// The mark of the store at `path`, if it has one.
    pub(super) fn read(path: &Path, owner: Owner) -> Result<Option<Self>> {
        let mark = beside(path, MARK);
        let read = || {
            trust::owners(&mark, owner)?;
            read::utf8(read::raw(&mark, Trust::Operators(owner), Limit::bytes(1024))?)
        };
        let text = match read() {
            Err(unfit) if unfit.is_missing() => return Ok(None),
            text => text,
        };
        let cannot = || format!("cannot read the store's mark {}", mark.display());
        let text = text.map_err(|unfit| unfit.error(Kind::Usage, cannot()))?;
        let said = serde_json::from_str::<Value>(&text).ok().and_then(|said| {
            Some(Self {
                store: said.get("store")?.as_str()?.to_owned(),
                sequence: said.get("sequence")?.as_i64()?,
            })
        });
        said.map(Some).ok_or_else(|| {
            Error::usage("it is damaged").context(cannot()).hint(
                "remove it, and the store is taken for one that was put back from a copy, since nothing says otherwise",
            )
        })
    }

    /// Puts it beside the store at `path`, durably.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let text = format!("{}\n", json!({"store": self.store, "sequence": self.sequence}));
        let name: OsString = beside(path, MARK).file_name().unwrap_or_default().to_owned();
        Folder::replace_beside(path, &name, text.as_bytes())
            .context(Kind::Internal, format!("cannot write the mark beside {}", path.display()))
    }
}

/// A file by which no other is: device and inode.
type FileId = (u64, u64);

fn file_id(path: &Path) -> io::Result<FileId> {
    std::fs::metadata(path).map(|there| (there.dev(), there.ino()))
}

/// An open store, as it is seen from outside.
#[derive(Debug)]
pub(super) struct Outside {
    path: PathBuf,
    files: Vec<(PathBuf, FileId)>,
    store: String,
    marked: AtomicI64,
    /// The most bytes that the store's file was seen to have, of which SQLite never takes any away; more than it
    /// can have where it has been written over.
    longest: AtomicU64,
}

impl Outside {
    /// Of the store `store` that is open, with the file that stood there before it was opened.
    pub(super) fn of(path: &Path, before: FileId, store: String) -> Result<Self> {
        let mut files = vec![(path.to_owned(), before)];
        for end in ["-wal", "-shm"] {
            let file = beside(path, end);
            let id = file_id(&file).context(Kind::Internal, format!("cannot find {}", file.display()))?;
            files.push((file, id));
        }
        let outside = Self {
            path: path.to_owned(),
            files,
            store,
            marked: AtomicI64::new(-1),
            longest: AtomicU64::new(0),
        };
        outside.check()?;
        Ok(outside)
    }

    /// Which file stands at `path`.
    pub(super) fn before(path: &Path) -> Result<FileId> {
        file_id(path).context(Kind::Usage, "cannot find the file")
    }

    /// Whether all of its files are in their places. What is written to one
    /// that is not is lost with this process, and others read another.
    ///
    /// # Errors
    /// `Kind::Usage`: it is for the operator to put right.
    pub(super) fn check(&self) -> Result<()> {
        let lost = self.files.iter().find_map(|(path, id)| match file_id(path) {
            Ok(there) if there == *id => None,
            Ok(_) => Some((path, "was replaced".to_owned())),
            Err(error) if error.kind() == ErrorKind::NotFound => Some((path, "was removed".to_owned())),
            Err(error) => Some((path, format!("cannot be found: {error}"))),
        });
        if let Some((path, why)) = lost {
            return Err(Error::usage(format!(
                "the store's file {} {why} while it is open; nothing is issued until the same file is back, or the authority is started again with the right store",
                path.display()
            )));
        }
        if self.is_cut() {
            // Its log would make a mixture of it and of what was written over it.
            return Err(Error::usage(format!(
                "the store's file {} was emptied or written over while it is open; nothing is issued until the authority is ended, the right store put there without `-wal` and `-shm` beside it, and the authority started again",
                self.path.display()
            )));
        }
        Ok(())
    }

    /// Whether the store's file has become shorter: `cp` and `>` leave it the file that it is.
    fn is_cut(&self) -> bool {
        // Before it is looked at: another thread may see it grow meanwhile.
        let longest = self.longest.load(Ordering::SeqCst);
        let length = std::fs::metadata(&self.path).map_or(0, |there| there.len());
        self.longest.fetch_max(length, Ordering::SeqCst);
        length < longest
    }

    /// Whether the store itself is in its place, and closing it may therefore
    /// tidy up beside it.
    pub(super) fn stands(&self) -> bool {
        self.files.first().is_some_and(|(path, id)| file_id(path).is_ok_and(|there| there == *id))
            && !self.is_cut()
    }

    /// Leaves the mark that the store has that event, unless it says so already.
    ///
    /// # Errors
    /// Where it cannot be written; and where the store had more events before, from when on [`Outside::check`] fails.
    pub(super) fn mark(&self, sequence: i64) -> Result<()> {
        if sequence < self.marked.load(Ordering::SeqCst) {
            // Events never go: an older copy was written over it, page by page. The mark is to tell of it.
            self.longest.store(u64::MAX, Ordering::SeqCst);
            return self.check();
        }
        let is_said = self.marked.load(Ordering::SeqCst) == sequence && beside(&self.path, MARK).exists();
        if !is_said {
            Mark { store: self.store.clone(), sequence }.write(&self.path)?;
            self.marked.store(sequence, Ordering::SeqCst);
        }
        Ok(())
    }
}
