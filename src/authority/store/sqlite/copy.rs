//! Reading a store without making, changing or migrating anything of it: one
//! that is open elsewhere, one that stands still on a disk that cannot be
//! written to, a copy that lacks what SQLite keeps beside it, an older one.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;

use super::outside::beside;
use super::schema;
use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::stamp::Stamp;
use crate::folder::trust::Owner;
use crate::folder::{PRIVATE_FOLDER, replace};

/// How often a copy is tried of files that change meanwhile.
const TRIES: u32 = 3;
/// What SQLite keeps beside a store that holds part of it.
const LOGS: [&str; 2] = ["-wal", "-journal"];

const CANNOT_COPY: &str = "cannot copy it to where it can be read";

/// A store that can be read.
pub(super) struct Readable {
    pub(super) connection: Connection,
    /// What must stay as it is for what is read to be whole.
    pub(super) still: Option<Still>,
    /// Where a copy of it is, which is what is read.
    pub(super) copy: Option<TempDir>,
}

/// Opens the store at `path` for reading alone.
pub(super) fn open(path: &Path, owner: Owner) -> Result<Readable> {
    schema::check_files(path, owner, false)?;
    let has = |end| std::fs::metadata(beside(path, end)).is_ok();
    let holds = |end| std::fs::metadata(beside(path, end)).is_ok_and(|log| log.len() > 0);
    // Whoever has it open keeps both files there; nothing has to be made to read with them.
    if has("-wal") && has("-shm") && !holds("-journal") {
        let live = schema::connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
            .and_then(|connection| with_schema(Readable { connection, still: None, copy: None }));
        // Without the right to write to `-shm`, SQLite may still need it.
        return live.or_else(|_| copied(path));
    }
    if LOGS.iter().any(|end| holds(end)) {
        return copied(path);
    }
    let (still, uri) = (Still::of(path), immutable(path));
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let connection = schema::connect(Path::new(&uri), flags)?;
    let readable = with_schema(Readable { connection, still: Some(still), copy: None })?;
    readable.check()?;
    Ok(readable)
}

impl Readable {
    fn check(&self) -> Result<()> {
        self.still.as_ref().map_or(Ok(()), Still::check)
    }
}

/// The files of a store as they are, which nobody has open.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Still(Vec<(PathBuf, Option<Stamp>)>);

impl Still {
    fn of(path: &Path) -> Self {
        let paths = [""].into_iter().chain(LOGS).map(|end| beside(path, end));
        Self(paths.map(|path| (Stamp::of(&path), path)).map(|(stamp, path)| (path, stamp)).collect())
    }

    /// What was read is one state of the store only if the file itself stayed
    /// the same; a log may have been begun.
    pub(super) fn check(&self) -> Result<()> {
        let Some((path, before)) = self.0.first() else { return Ok(()) };
        if Self::of(path).0.first().is_some_and(|(_, now)| now == before) {
            return Ok(());
        }
        Err(Error::usage(format!("{} was changed while it was read", path.display()))
            .hint("an authority was started on it: do the same again"))
    }
}

/// A file that nobody writes to, as SQLite wants that said. Every byte that a
/// URI could take for something else is escaped.
fn immutable(path: &Path) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    let escaped = path
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .map(|byte| if plain(*byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") });
    format!("file://{}?immutable=1", escaped.collect::<String>())
}

/// The store and its logs in a folder of this process's own.
fn copied(path: &Path) -> Result<Readable> {
    for _ in 0..TRIES {
        let folder = private_folder()?;
        let copy = folder.path().join("store");
        let before = Still::of(path);
        for (end, (file, stamp)) in [""].into_iter().chain(LOGS).zip(&before.0) {
            if stamp.is_some() {
                replace::copy_new(file, &beside(&copy, end)).context(Kind::Usage, CANNOT_COPY)?;
            }
        }
        if Still::of(path) == before {
            return migrated(folder, &copy);
        }
    }
    Err(Error::usage("it is being written to by something that has not opened it here").hint(
        "give this user the right to read and write `-shm` beside it, or read a copy (`sqlite3 authority.db '.backup copy.db'`)",
    ))
}

/// For a copy that nobody else reads, and that vanishes.
fn private_folder() -> Result<TempDir> {
    let mode = Permissions::from_mode(PRIVATE_FOLDER.as_raw_mode());
    let folder = tempfile::Builder::new().permissions(mode).tempdir().context(Kind::Usage, CANNOT_COPY);
    folder.map_err(|error| error.hint("TMPDIR names a folder that has room for it"))
}

/// With the tables of this version: an older store is copied, and the copy migrated.
fn with_schema(readable: Readable) -> Result<Readable> {
    if schema::version(&readable.connection, false)? >= schema::newest() {
        schema::for_reading(&readable.connection)?;
        return Ok(readable);
    }
    let folder = private_folder()?;
    let copy = folder.path().join("store");
    let name = copy.to_str().ok_or_else(|| Error::usage("the path of temporary files is no text"))?;
    readable.connection.execute("VACUUM INTO ?1", [name]).context(Kind::Usage, CANNOT_COPY)?;
    readable.check()?;
    migrated(folder, &copy)
}

fn migrated(folder: TempDir, copy: &Path) -> Result<Readable> {
    let (connection, ()) = schema::open(copy, false, |_| Ok(()))?;
    schema::for_reading(&connection)?;
    Ok(Readable { connection, still: None, copy: Some(folder) })
}
