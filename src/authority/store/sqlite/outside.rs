//! What tells from outside of a store that it is the one it was: its files,
//! while they are open; and its mark, a file beside it that says which store
//! stands there and how far it had come, at most a second ago. The mark is
//! written after the commit that it tells of is on the disk, so that a store
//! that is behind its mark has lost something.

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use super::super::loss::{Known, Loss, Mark, Reached, Restored, Said};
use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::Folder;
use crate::folder::trust::Owner;

/// What the mark's name has behind the store's.
pub const MARK: &str = ".mark";

/// The file beside the store whose name ends so.
pub(super) fn beside(store: &Path, end: &str) -> PathBuf {
    let mut name = store.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// How far the store has come.
pub(super) fn reached(connection: &Connection) -> rusqlite::Result<Reached> {
    connection
        .prepare_cached(
            "SELECT ifnull(sequence, 0), ifnull(last.id, ''), ifnull(time, 0), list_number, restored, cas
             FROM state LEFT JOIN (SELECT sequence, id, time FROM events ORDER BY sequence DESC LIMIT 1) AS last",
        )?
        .query_row([], |row| {
            Ok(Reached {
                sequence: row.get(0)?,
                id: row.get(1)?,
                time: row.get(2)?,
                list_number: row.get(3)?,
                restored: row.get(4)?,
                cas: row.get(5)?,
            })
        })
}

/// What the store says of itself, and of the event `known`.
pub(super) fn said(connection: &Connection, known: &Reached) -> rusqlite::Result<Said> {
    let reached = reached(connection)?;
    connection
        .prepare_cached(
            "SELECT lost, (SELECT id FROM events WHERE sequence = ?1),
                ?2 < kept_from FROM state",
        )?
        .query_row([known.sequence, known.time], |row| {
            let (lost, known, is_let_go) = row.try_into()?;
            // The file is as near to whoever writes to it as its mark is.
            Ok(Said { lost, known, is_let_go, is_sealed: true, reached })
        })
}

/// The mark of the store at `path`, if it has one.
pub(super) fn read_mark(path: &Path, owner: Owner) -> Result<Option<Mark>> {
    Mark::read(&beside(path, MARK), owner)
}

/// Puts the mark beside the store at `path`, durably.
pub(super) fn write_mark(path: &Path, mark: &Mark) -> Result<()> {
    let name: OsString = beside(path, MARK).file_name().unwrap_or_default().to_owned();
    Folder::replace_beside(path, &name, mark.text().as_bytes())
        .context(Kind::Internal, format!("cannot write the mark beside {}", path.display()))
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
    known: Mutex<Known>,
    /// What the mark says by now.
    marked: Mutex<Option<Reached>>,
    /// The most bytes that the store's file was seen to have, of which SQLite never takes any away.
    longest: AtomicU64,
}

impl Outside {
    /// Of the store `store` that is open, with the file that stood there before it was opened, and what is known of it.
    pub(super) fn of(path: &Path, before: FileId, store: String, known: Known) -> Result<Self> {
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
            known: Mutex::new(known),
            marked: Mutex::default(),
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

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the store was last put back, as far as it has said.
    pub(super) fn restored(&self) -> Option<Restored> {
        self.known().restored
    }

    /// Takes in what the store says; what it has lost, if it has: nothing is to be made of it then.
    pub(super) fn hear(&self, connection: &Connection) -> rusqlite::Result<Result<(), Loss>> {
        let mut known = self.known();
        let said = said(connection, &known.reached)?;
        Ok(known.hear(&said))
    }

    /// Remembers what was committed.
    pub(super) fn wrote(&self, reached: Reached) {
        self.known().reached.raise(&reached);
    }

    /// Leaves the mark of how far the store surely had come, unless it says so already.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub(super) fn mark(&self) -> Result<()> {
        let mut marked = self.marked.lock().unwrap_or_else(PoisonError::into_inner);
        let reached = self.known().reached.clone();
        if marked.as_ref() != Some(&reached) || !beside(&self.path, MARK).exists() {
            let mark = Mark { store: self.store.clone(), reached };
            write_mark(&self.path, &mark)?;
            *marked = Some(mark.reached);
        }
        Ok(())
    }

    /// Where the store is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}
