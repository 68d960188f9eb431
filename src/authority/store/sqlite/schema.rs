//! The tables, and how a file comes to have them.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction};

use super::super::version;
use super::outside::beside;
use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::access;
use crate::folder::trust::{self, Owner};

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

/// The oldest version whose machine-id may go on with a file of the newest.
const OLDEST: i64 = 5;

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
    -- oldest go first. `behind` is the newest event of the trail at that time. `body` is text, or packed as it came
    -- from another store.
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
        body ANY NOT NULL
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
    -- Which store this is, as the mark beside it says too, and when it was last put back from a copy.
    ALTER TABLE state ADD COLUMN store TEXT;
    ALTER TABLE state ADD COLUMN restored INTEGER;
",
    "
    -- A body as it is packed (`store/packed.rs`); `body` is empty then. What was there before stays as it is.
    ALTER TABLE events ADD COLUMN packed BLOB;

    -- Nothing is signed again from what the store says: the plan is made anew for the request that comes again.
    ALTER TABLE proofs DROP COLUMN plan;

    -- What is forgotten is found by these alone.
    DROP INDEX proofs_held;
    CREATE INDEX proofs_held ON proofs (held_until, held_to_run);
    CREATE INDEX assertions_held ON assertions (held_until, held_to_run);

    -- What rows that grant something are sealed with (`store/seal.rs`), and by what the key is known.
    ALTER TABLE state ADD COLUMN seal_check BLOB;
    -- What it lacks, in words, as long as the operator has not said that it goes on without.
    ALTER TABLE state ADD COLUMN lost TEXT;
    ALTER TABLE proofs ADD COLUMN mac BLOB;
    ALTER TABLE instances ADD COLUMN mac BLOB;
    ALTER TABLE secrets ADD COLUMN mac BLOB;

    -- What has been taken from limits that authorities share: `level` is for how many seconds of its rate one is
    -- busy, as of `at` in milliseconds of the odometer.
    CREATE TABLE usage (
        key BLOB PRIMARY KEY,
        level REAL NOT NULL,
        at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;

    -- The authorities that share this store, and when each was last seen.
    CREATE TABLE replicas (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        keys TEXT NOT NULL,
        policy TEXT NOT NULL,
        version TEXT NOT NULL,
        seen INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;

    -- The CA keys that they have, and since when. It lets nobody in; who has others does not start.
    CREATE TABLE cas (
        key TEXT PRIMARY KEY,
        since INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;

    -- What the last revocation lists say, as a hash, and when they were made: whoever makes them anew gives the same.
    ALTER TABLE state ADD COLUMN list_what BLOB;
    ALTER TABLE state ADD COLUMN list_made INTEGER NOT NULL DEFAULT 0;

    -- Why nothing is written to it, if that is so (`store/closed.rs`).
    ALTER TABLE state ADD COLUMN closed TEXT;
    -- Where its records are being carried to, if they are: nothing is let go meanwhile.
    ALTER TABLE state ADD COLUMN moving TEXT;

    -- What ended before that time may be let go, where `retain` is set; and what the odometer said when that was decided.
    ALTER TABLE state ADD COLUMN kept_from INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE state ADD COLUMN kept_run INTEGER NOT NULL DEFAULT 0;
    CREATE TRIGGER kept_from_rises BEFORE UPDATE OF kept_from ON state WHEN new.kept_from < old.kept_from
        BEGIN SELECT RAISE(ABORT, 'what may be let go only grows'); END;
    DROP TRIGGER events_stay;
    CREATE TRIGGER events_stay BEFORE DELETE ON events
        WHEN old.time >= (SELECT kept_from FROM state) OR old.sequence = (SELECT max(sequence) FROM events)
            OR EXISTS (SELECT 1 FROM certificates WHERE issuance = old.sequence)
        BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END;
    CREATE TRIGGER certificates_stay BEFORE DELETE ON certificates WHEN old.expires >= (SELECT kept_from FROM state)
        BEGIN SELECT RAISE(ABORT, 'certificates stay on record'); END;

    -- Whom operators have shut out (`store/locks.rs`): `until` and `held_to_run` are when it ends by itself, `met` the ids, as
    -- JSON, of those that it has taken by name. `state.locks` is another once any of them has changed.
    CREATE TABLE locks (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        kind TEXT NOT NULL,
        value TEXT NOT NULL,
        until INTEGER,
        held_to_run INTEGER,
        message TEXT,
        put_by TEXT NOT NULL,
        put_at INTEGER NOT NULL,
        met TEXT NOT NULL,
        lifted INTEGER,
        lifted_by TEXT,
        mac BLOB
    ) STRICT;
    ALTER TABLE state ADD COLUMN locks INTEGER NOT NULL DEFAULT 0;

    -- How often something was revoked, and the number of the time that a certificate was: none before it had one. Lists are
    -- made of what was revoked since the last (`revocation.rs`).
    ALTER TABLE state ADD COLUMN revocations INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE certificates ADD COLUMN revocation INTEGER;
    CREATE INDEX certificates_revocation ON certificates (revocation) WHERE revocation IS NOT NULL;
    CREATE TRIGGER certificates_are_counted AFTER UPDATE OF revoked ON certificates
        WHEN old.revoked IS NULL AND new.revoked IS NOT NULL
        BEGIN
            UPDATE state SET revocations = revocations + 1;
            UPDATE certificates SET revocation = (SELECT revocations FROM state) WHERE serial = new.serial;
        END;

    -- Set where a certificate is a host's: of `sign-host`, `sign-server`, or an output `ssh-host`. No other certificate of a job is,
    -- which then would be on the list of another CA than its own.
    ALTER TABLE certificates ADD COLUMN host INTEGER;
    UPDATE certificates SET host = 1 WHERE expires >= unixepoch() - 86400 AND EXISTS (
        SELECT 1 FROM events WHERE sequence = issuance
            AND (event = 'signed' AND instr(body, '\"by\":\"serve\"') = 0
                OR instr(body, '\"type\":\"ssh-host\"') > 0 AND json_valid(body) AND EXISTS (
                    SELECT 1 FROM json_each(body, '$.outputs')
                    WHERE value ->> 'type' = 'ssh-host' AND value ->> 'serial' = CAST(certificates.serial AS TEXT))));
    CREATE INDEX certificates_hosts ON certificates (expires) WHERE host IS NOT NULL;
    CREATE INDEX certificates_hosts_revoked ON certificates (kind, expires) WHERE host IS NOT NULL AND revoked IS NOT NULL;

    -- The hosts that have proved which they are, as each was last heard (`store/hosts.rs`). It lets nobody in.
    CREATE TABLE hosts (
        name TEXT PRIMARY KEY,
        seen INTEGER NOT NULL,
        list TEXT,
        cas TEXT NOT NULL,
        serial INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;

    -- The oldest version whose machine-id does right by these tables.
    ALTER TABLE state ADD COLUMN oldest INTEGER NOT NULL DEFAULT 5;
",
    super::super::ca_schema::SQLITE,
    #[cfg(feature = "next-schema")]
    super::super::next_schema::SQLITE,
];

/// The version that this machine-id writes.
pub(super) fn newest() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// Whether the file is there, is a store by its looks, and nobody else can change it or what SQLite
/// keeps beside it; and whether this process can use it.
pub(super) fn check_files(path: &Path, owner: Owner, write: bool) -> Result<()> {
    access::check(path, write).map_err(|unfit| unfit.error(Kind::Usage, "cannot use the file"))?;
    for end in ["", "-journal", "-wal", "-shm"] {
        let file = beside(path, end);
        match trust::owners(&file, owner) {
            Err(unfit) if unfit.is_missing() => {}
            Err(unfit) => return Err(unfit.error(Kind::Usage, file.display().to_string())),
            Ok(()) => {
                access::check(&file, write)
                    .map_err(|unfit| unfit.error(Kind::Usage, "cannot use the file"))?;
            }
        }
    }
    match std::fs::metadata(path) {
        Ok(file) if file.len() > 0 => Ok(()),
        Ok(_) => Err(lost("the file is empty")),
        Err(_) => Err(lost("there is no such file")),
    }
}

/// Where there is nothing to be opened. To begin a new one without a word would forget every revocation.
fn lost(why: &'static str) -> Error {
    Error::usage(why)
        .hint("it knows what was issued, used and revoked: put it back, with the mark beside it, or a copy of it")
        .hint("where `store` in authority.yaml names another place now, move it there, with its mark")
        .hint(
            "where there is none, or this authority has not issued anything yet, `machine-id authority new-store` begins an empty one",
        )
}

/// Opens the file for writing, and brings its schema up to date; `settle` runs in the transaction that
/// does. A database without anything in it is a store where that is `new`.
pub(super) fn open<T>(
    path: &Path,
    new: bool,
    settle: impl FnOnce(&Transaction<'_>) -> Result<T>,
) -> Result<(Connection, T)> {
    let mut connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let settled = migrate(&mut connection, new, settle)?;
    Ok((connection, settled))
}

/// Opens the file, which has its schema, for reading.
pub(super) fn open_for_reading(path: &Path) -> Result<Connection> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    for_reading(&connection)?;
    Ok(connection)
}

/// Lets nothing be written by that connection.
pub(super) fn for_reading(connection: &Connection) -> Result<()> {
    connection.pragma_update(None, "query_only", true).context(Kind::Internal, "cannot set up the database")
}

/// Opens the file with these flags. A path is nothing but a path, unless SQLITE_OPEN_URI is one of them.
pub(super) fn connect(path: &Path, flags: OpenFlags) -> Result<Connection> {
    let writes = flags.contains(OpenFlags::SQLITE_OPEN_READ_WRITE);
    let connect = || -> rusqlite::Result<Connection> {
        let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.busy_timeout(BUSY)?;
        connection.set_prepared_statement_cache_capacity(64);
        connection.pragma_update(None, "foreign_keys", true)?;
        // Each commit is on the disk before it is answered; on macOS, past the disk's cache too.
        connection.pragma_update(None, "synchronous", "full")?;
        connection.pragma_update(None, "fullfsync", true)?;
        connection.pragma_update(None, "temp_store", "memory")?;
        connection.pragma_update(None, "cache_size", CACHE)?;
        if writes {
            connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT)?;
        }
        Ok(connection)
    };
    connect().map_err(unusable)
}

/// Why the database cannot be used, and what to do. What [`access::check`] can tell it has told before.
fn unusable(error: rusqlite::Error) -> Error {
    let (why, hint) = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => ("the disk is full", "make room on it"),
        Some(ErrorCode::SystemIoFailure) => ("its disk fails", "look into the system's log"),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            ("another process holds it", "wait for that, or end it")
        }
        Some(ErrorCode::DatabaseCorrupt) => ("it is damaged", "put it back from a backup"),
        Some(ErrorCode::NotADatabase) => ("it is not a database", "put it back from a backup"),
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            ("the system refuses it", "an attribute (`lsattr`), a limit, SELinux or AppArmor may")
        }
        _ => return because(error, Kind::Internal, "cannot set up the database"),
    };
    because(error, Kind::Usage, why).context("cannot open the database").hint(hint)
}

/// With the database's own error behind it.
fn because(error: rusqlite::Error, kind: Kind, why: &'static str) -> Error {
    let told: Result<()> = Err(error).context(kind, why);
    told.err().unwrap_or_else(|| Error::internal(why))
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

/// The version of the file's schema; 0 where it is `new`.
///
/// # Errors
/// Where it is something else, or takes a newer machine-id.
pub(super) fn version(connection: &Connection, new: bool) -> Result<i64> {
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(unusable);
    let version = number("PRAGMA user_version")?;
    if version == 0 && number("SELECT count(*) FROM sqlite_schema")? == 0 {
        return if new { Ok(0) } else { Err(lost("the database is empty")) };
    }
    if number("PRAGMA application_id")? != APPLICATION_ID {
        return Err(Error::usage("the file is a database, but not an authority's store"));
    }
    if version > newest() {
        version::admit(version, number("SELECT oldest FROM state")?, newest())?;
    }
    Ok(version)
}

/// Runs the migrations that the file lacks, in one transaction.
fn migrate<T>(
    connection: &mut Connection,
    new: bool,
    settle: impl FnOnce(&Transaction<'_>) -> Result<T>,
) -> Result<T> {
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(unusable)?;
    let version = version(&transaction, new)?;
    for (_, migration) in (1..).zip(MIGRATIONS).filter(|(step, _)| *step > version) {
        transaction.execute_batch(migration).map_err(unusable)?;
    }
    if version < newest() {
        let pragma = |name, value| transaction.pragma_update(None, name, value).map_err(unusable);
        pragma("application_id", APPLICATION_ID)?;
        pragma("user_version", newest())?;
        transaction.execute("UPDATE state SET oldest = max(oldest, ?1)", [OLDEST]).map_err(unusable)?;
    }
    let settled = settle(&transaction)?;
    transaction.commit().map_err(unusable)?;
    // After the checks, so that a file of something else is left as it is; the mode stays with the file.
    let mode = write_ahead(connection).map_err(unusable)?;
    if mode != "wal" {
        return Err(Error::usage(
            "the file system of the store does not support shared memory, which it needs",
        )
        .hint("put the data directory on a local file system"));
    }
    Ok(settled)
}
