//! The tables, and how a file comes to have them.

use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::trust::{self, Owner};
use crate::folder::{PRIVATE_FILE, replace};

/// Marks the file as an authority's store ("mida").
pub(super) const APPLICATION_ID: i64 = 0x6d69_6461;

/// How many pages the write-ahead log holds before they are folded into the
/// file (32 MiB): each page is then written there once for many changes.
/// SQLite's own 1000 cost a third of the exchanges per second.
const CHECKPOINT: i64 = 8000;

/// The cache of each connection in KiB, as SQLite wants it: negative.
const CACHE: i64 = -16 * 1024;

/// How long to wait for another process that writes to the same file.
const BUSY: Duration = Duration::from_secs(5);

/// One entry for each version of the schema: what leads to it from the one
/// before. An entry that was released never changes.
///
/// Nothing is indexed on the way of an exchange but what must be unique or is
/// looked up while jobs wait; `events_time`, `certificates_issuance` and
/// `proofs_held` grow at their right end and so share one page a commit.
pub(super) const MIGRATIONS: &[&str] = &[
    "
    -- The audit trail. `body` is the object that `audit` shows, the columns are what it is searched by.
    CREATE TABLE events (
        sequence INTEGER PRIMARY KEY,
        time INTEGER NOT NULL,
        event TEXT NOT NULL,
        id TEXT NOT NULL,
        bot TEXT,
        token TEXT,
        body TEXT NOT NULL
    ) STRICT;
    CREATE INDEX events_id ON events (id);
    CREATE INDEX events_time ON events (time);
    CREATE TRIGGER events_stay BEFORE DELETE ON events
        BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END;
    CREATE TRIGGER events_stay_the_same BEFORE UPDATE ON events
        BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END;

    -- `issuance` is the event that recorded it; `kind` is 0 for SSH, 1 for X.509.
    CREATE TABLE certificates (
        serial INTEGER PRIMARY KEY,
        issuance INTEGER NOT NULL REFERENCES events (sequence),
        kind INTEGER NOT NULL CHECK (kind IN (0, 1)),
        expires INTEGER NOT NULL,
        revoked INTEGER,
        key_hash BLOB NOT NULL CHECK (length(key_hash) = 32)
    ) STRICT;
    CREATE INDEX certificates_issuance ON certificates (issuance);
    CREATE INDEX certificates_revoked ON certificates (expires) WHERE revoked IS NOT NULL;

    -- Used proofs. `key` is a hash over issuer and id: short, whatever an issuer thinks of, and so few
    -- pages of the index are written. `certificate` is the first of the issuance; it is written after the
    -- proof, so that a used proof costs no write, and therefore references nothing.
    CREATE TABLE proofs (
        number INTEGER PRIMARY KEY,
        key BLOB NOT NULL UNIQUE,
        fingerprint BLOB NOT NULL,
        certificate INTEGER NOT NULL,
        held_until INTEGER NOT NULL,
        plan TEXT NOT NULL
    ) STRICT;
    CREATE INDEX proofs_held ON proofs (held_until);

    -- Used assertions of revocations.
    CREATE TABLE assertions (
        issuance INTEGER NOT NULL REFERENCES events (sequence),
        id TEXT NOT NULL,
        held_until INTEGER NOT NULL,
        PRIMARY KEY (issuance, id)
    ) STRICT, WITHOUT ROWID;

    -- One row: how often something was revoked, and a place to try a write on.
    CREATE TABLE state (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        revocations INTEGER NOT NULL,
        probes INTEGER NOT NULL
    ) STRICT;
    INSERT INTO state VALUES (1, 0, 0);
",
    "
    -- Registered workers. `generation` is what the next join must present; `base`, `attempt`, `tries` and
    -- `last` are what the last accepted one did, or nothing. `bot` is as of the last join. `replaces` is the
    -- id of the worker whose place this one takes once it knows that it is registered.
    CREATE TABLE instances (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        token TEXT NOT NULL,
        bot TEXT NOT NULL,
        key BLOB NOT NULL,
        generation INTEGER NOT NULL,
        base INTEGER NOT NULL,
        attempt TEXT NOT NULL,
        tries INTEGER NOT NULL,
        last TEXT NOT NULL,
        replaces TEXT,
        registered INTEGER NOT NULL,
        seen INTEGER NOT NULL,
        locked INTEGER,
        reason TEXT
    ) STRICT;

    -- Registration secrets, by their hash; `instance` is the worker that used it up.
    CREATE TABLE secrets (
        hash BLOB PRIMARY KEY CHECK (length(hash) = 32),
        id TEXT NOT NULL,
        token TEXT NOT NULL,
        expires INTEGER NOT NULL,
        instance TEXT
    ) STRICT, WITHOUT ROWID;

    -- What a registered worker was answered, for the same request again.
    ALTER TABLE proofs ADD COLUMN generation INTEGER;

    -- The worker that a certificate was issued to.
    ALTER TABLE certificates ADD COLUMN instance INTEGER REFERENCES instances (number);
    CREATE INDEX certificates_instance ON certificates (instance, expires) WHERE instance IS NOT NULL;
",
    "
    -- The number of the last revocation lists. It was how often something was revoked, which is lower.
    ALTER TABLE state RENAME COLUMN revocations TO list_number;
    -- When a secret was made: it is not good before, however long a clock that was ahead then made it.
    ALTER TABLE secrets ADD COLUMN made INTEGER NOT NULL DEFAULT 0;
",
    "
    -- Refusals of strangers: events, but not for ever. `ring` is 0 where the proof was not verified, 1 where it
    -- was and no rule let it in. `nth` counts a ring's rows from 1 without a gap, and `ends` their bytes: the
    -- oldest go first. `behind` is the newest event of the trail at that time.
    CREATE TABLE strangers (
        number INTEGER PRIMARY KEY,
        ring INTEGER NOT NULL CHECK (ring IN (0, 1)),
        nth INTEGER NOT NULL,
        ends INTEGER NOT NULL,
        behind INTEGER NOT NULL,
        time INTEGER NOT NULL,
        event TEXT NOT NULL,
        id TEXT NOT NULL,
        bot TEXT,
        token TEXT,
        body TEXT NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX strangers_nth ON strangers (ring, nth);

    -- A place to try a write on, as large as an issuance.
    CREATE TABLE probes (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        body BLOB NOT NULL
    ) STRICT;
    ALTER TABLE state DROP COLUMN probes;

    -- What is forgotten by time is held until the wall clock says so and until the authority has run that long
    -- (`Odometer`). What was there before waits for the longest life of any proof, 25 hours with the leeway.
    ALTER TABLE state ADD COLUMN run INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE proofs ADD COLUMN held_to_run INTEGER NOT NULL DEFAULT 90120;
    ALTER TABLE assertions ADD COLUMN held_to_run INTEGER NOT NULL DEFAULT 90120;
    ALTER TABLE secrets ADD COLUMN held_to_run INTEGER NOT NULL DEFAULT 90120;
    -- The latest time until which a proof was held that is forgotten by now: one that ends before may be it.
    ALTER TABLE state ADD COLUMN forgotten INTEGER NOT NULL DEFAULT 0;
",
];

/// Opens the file for writing, creates it for its owner alone if it is
/// missing, and brings its schema up to date.
pub(super) fn open(path: &Path, owner: Owner) -> Result<Connection> {
    // SQLite gives its `-wal` and `-shm` files the mode of this one.
    match replace::create_new(path, PRIVATE_FILE) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(error).context(Kind::Usage, "cannot create the file");
        }
        _ => {}
    }
    for end in ["", "-journal", "-wal", "-shm"] {
        let mut file = path.as_os_str().to_owned();
        file.push(end);
        match trust::owners(Path::new(&file), owner) {
            Err(unfit) if !unfit.is_missing() => {
                return Err(unfit.error(Kind::Usage, Path::new(&file).display().to_string()));
            }
            _ => {}
        }
    }
    let mut connection = connect(path).context(Kind::Usage, "cannot open the database")?;
    migrate(&mut connection)?;
    Ok(connection)
}

/// Opens the file, which has its schema, for reading.
pub(super) fn open_for_reading(path: &Path) -> Result<Connection> {
    let connection = connect(path).context(Kind::Usage, "cannot open the database")?;
    connection
        .pragma_update(None, "query_only", true)
        .context(Kind::Internal, "cannot set up the database")?;
    Ok(connection)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    // Without SQLITE_OPEN_URI, so that a path is nothing but a path.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.pragma_update(None, "foreign_keys", true)?;
    // Each commit is on the disk before it is answered; on macOS, past the disk's cache too.
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "fullfsync", true)?;
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.pragma_update(None, "cache_size", CACHE)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT)?;
    Ok(connection)
}

/// Switches to the write-ahead log; the mode that is on then. Where another
/// process opens a new file at the same time, SQLite does not wait by itself.
fn write_ahead(connection: &Connection) -> rusqlite::Result<String> {
    let give_up = Instant::now() + BUSY;
    loop {
        let mode = connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0));
        match mode {
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && Instant::now() < give_up =>
            {
                std::thread::sleep(Duration::from_millis(10));
            }
            mode => return mode,
        }
    }
}

/// Runs the migrations that the file lacks, in one transaction.
fn migrate(connection: &mut Connection) -> Result<()> {
    let failed = "cannot set up the database";
    let transaction = connection
        .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
        .context(Kind::Usage, "cannot open the database")?;
    let number = |sql: &str| {
        transaction.query_row(sql, [], |row| row.get::<_, i64>(0)).context(Kind::Internal, failed)
    };
    let version = usize::try_from(number("PRAGMA user_version")?).unwrap_or(usize::MAX);
    let fresh = version == 0 && number("SELECT count(*) FROM sqlite_schema")? == 0;
    if !fresh && number("PRAGMA application_id")? != APPLICATION_ID {
        return Err(Error::usage("the file is a database, but not an authority's store"));
    }
    let newest = MIGRATIONS.len();
    if version > newest {
        return Err(Error::usage(format!(
            "the store was written by a newer machine-id: its schema is version {version}, this machine-id knows up to {newest}"
        ))
        .hint("use the machine-id that wrote it, or a newer one"));
    }
    for migration in MIGRATIONS.iter().skip(version) {
        transaction.execute_batch(migration).context(Kind::Internal, failed)?;
    }
    if version < newest {
        let pragma =
            |name, value| transaction.pragma_update(None, name, value).context(Kind::Internal, failed);
        pragma("application_id", APPLICATION_ID)?;
        pragma("user_version", i64::try_from(newest).unwrap_or(i64::MAX))?;
    }
    transaction.commit().context(Kind::Internal, failed)?;
    // After the checks, so that a file of something else is left as it is; the mode stays with the file.
    let mode = write_ahead(connection).context(Kind::Internal, failed)?;
    if mode != "wal" {
        return Err(Error::usage(
            "the file system of the store does not support shared memory, which it needs",
        )
        .hint("put the data directory on a local file system"));
    }
    Ok(())
}
