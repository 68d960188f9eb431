//! A transaction of PostgreSQL, from BEGIN to COMMIT.
//!
//! All that write take the lock of the one row of `state` first, and keep it until they have committed: as
//! in SQLite one writes at a time, sequences have no gaps and rise in the order of commits, and nobody
//! waits for two locks. What is known in advance goes in one flush, so that nobody holds the lock while a
//! network is slow.
//!
//! Nothing outlives a transaction (no prepared statement, no setting), so that PgBouncer may give each to
//! another session.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::{join, join_all, join3, join4};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use super::super::closed::Closed;
use super::failure::Failure;
use super::schema;

/// The longest that a flush takes: a server that is paused, or a network that is cut, says nothing.
pub(super) const FLUSH: Duration = Duration::from_secs(5);

/// How far a replica's odometer may be from the store's, in seconds.
const APART: i64 = 30;

/// So many seconds late at most is the odometer's progress written down.
const WRITTEN: i64 = 5;

/// Nobody's defaults decide: the isolation level, which functions and operators are meant, and how long a
/// replica that is gone keeps the others waiting.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    SET LOCAL idle_in_transaction_session_timeout = '3s';
    SET LOCAL lock_timeout = '4s';
    SET LOCAL statement_timeout = '4s'";

/// All that is read is of one moment.
const BEGIN_READING: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
    SET LOCAL search_path = pg_catalog, pg_temp;
    SET LOCAL idle_in_transaction_session_timeout = '3s'";

const LOCK: &str = "SELECT 1 FROM machine_id.state WHERE id = 1 FOR UPDATE";

/// Says whether this is the store that it was, with all that this replica has seen in it, and whether it may be written to:
/// one that is closed may not, by any replica. Only
/// then is `machine_id.locked` set, without which nothing below is written: by that the statements behind it
/// know too that they are in this transaction, with the lock. A commit waits for the disk, and for
/// what more the server is set up to wait.
const ADMIT: &str = "SELECT run, revocations, (SELECT coalesce(max(sequence), 0) FROM machine_id.events),
        set_config('machine_id.locked', 'yes', true),
        set_config('synchronous_commit',
            CASE current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, true)
    FROM machine_id.state WHERE id = 1 AND closed IS NULL AND oldest <= $1 AND store = $2 AND run <= $3
        AND (SELECT coalesce(max(sequence), 0) FROM machine_id.events) >= $4";

/// What an INSERT or UPDATE adds to its conditions.
macro_rules! locked {
    () => {
        "current_setting('machine_id.locked', true) = 'yes'"
    };
}
pub(super) use locked;

/// A parameter, with its type.
pub(super) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// A statement, with its parameters.
pub(super) type Statement<'a> = (&'a str, &'a [Parameter<'a>]);

/// What a replica knows of the store that it writes to.
#[derive(Debug)]
pub(super) struct Known {
    /// Its identity.
    pub(super) store: String,
    /// The last event that it surely had.
    sequence: AtomicI64,
    /// Another once something was revoked by anybody.
    revocations: AtomicU64,
    odometer: Mutex<Odometer>,
    /// By how much tests have put the odometer ahead of the time that passed.
    #[cfg(test)]
    ahead: AtomicI64,
}

/// How long authorities have been running with this store: what the store said, and since when it has; and
/// when it was last asked.
#[derive(Debug)]
struct Odometer {
    run: i64,
    since: Instant,
    asked: Instant,
}

impl Known {
    /// A store that is only begun to be known.
    pub(super) fn new(store: String, sequence: i64, run: i64) -> Self {
        let now = Instant::now();
        Self {
            store,
            sequence: AtomicI64::new(sequence),
            revocations: AtomicU64::new(0),
            odometer: Mutex::new(Odometer { run, since: now, asked: now }),
            #[cfg(test)]
            ahead: AtomicI64::new(0),
        }
    }

    /// The number of revocations as last seen.
    pub(super) fn revocations(&self) -> u64 {
        self.revocations.load(Ordering::SeqCst)
    }

    /// The last event that was surely there.
    pub(super) fn sequence(&self) -> i64 {
        self.sequence.load(Ordering::SeqCst)
    }

    /// What was written: the store has that event from now on.
    pub(super) fn wrote(&self, sequence: i64) {
        self.sequence.fetch_max(sequence, Ordering::SeqCst);
    }

    /// What the odometer says, at least: the time since the store was last asked counts only where that is not long ago, since
    /// others may have had none of it.
    pub(super) fn run(&self) -> i64 {
        let Ok(odometer) = self.odometer.lock() else { return 0 };
        let passed = |since: Instant| i64::try_from(since.elapsed().as_secs()).unwrap_or(i64::MAX);
        if passed(odometer.asked) > APART {
            odometer.run
        } else {
            odometer.run.saturating_add(passed(odometer.since))
        }
    }

    /// The same in milliseconds.
    pub(super) fn millis(&self) -> i64 {
        let Ok(odometer) = self.odometer.lock() else { return 0 };
        let passed = i64::try_from(odometer.since.elapsed().as_millis()).unwrap_or(i64::MAX);
        let run = odometer.run;
        #[cfg(test)]
        let run = run - self.ahead.load(Ordering::SeqCst);
        run.saturating_mul(1000).saturating_add(passed)
    }

    /// Until when by the odometer something is held that is good for `lasts` seconds from now on. The
    /// store's may be behind by as much as this one is.
    pub(super) fn held(&self, lasts: i64) -> i64 {
        self.run().saturating_add(lasts).saturating_add(2 * APART)
    }

    /// Whether others should hear what the odometer says.
    pub(super) fn run_is_late(&self) -> bool {
        let said = self.odometer.lock().map_or(0, |odometer| odometer.run);
        self.run().saturating_sub(said) >= WRITTEN
    }

    /// Has the authority run for so many seconds.
    #[cfg(test)]
    pub(super) fn advance(&self, seconds: i64) {
        // What is held is held for longer than it must be.
        self.odometer.lock().unwrap().run += seconds + 2 * APART;
        self.ahead.fetch_add(2 * APART, Ordering::SeqCst);
    }

    /// Something was revoked, and that was counted.
    pub(super) fn revoked(&self, revocations: i64) {
        self.revocations.fetch_max(u64::try_from(revocations).unwrap_or(0), Ordering::SeqCst);
    }

    /// Takes in what the store says.
    fn hear(&self, run: i64, revocations: i64, sequence: i64) {
        self.wrote(sequence);
        self.revoked(revocations);
        if let Ok(mut odometer) = self.odometer.lock() {
            let now = Instant::now();
            let was_away = now.duration_since(odometer.asked).as_secs() > APART.unsigned_abs();
            if run > odometer.run || was_away {
                (odometer.run, odometer.since) = (run, now);
            }
            odometer.asked = now;
        }
    }
}

/// Runs the statements in one transaction and one flush, under the lock.
///
/// # Errors
/// The first failure. One that is away may have been committed nevertheless.
pub(super) async fn write(
    client: &Client,
    known: &Known,
    statements: &[Statement<'_>],
) -> Result<Vec<Vec<Row>>, Failure> {
    let admit = admit(client, known);
    let work = join_all(statements.iter().map(|(sql, parameters)| query(client, sql, parameters)));
    // Each is sent when it is first polled, which happens in this order.
    let all = join4(client.batch_execute(BEGIN), admit, work, client.batch_execute("COMMIT"));
    let (begun, admitted, done, committed) = within(FLUSH, all).await?;
    begun?;
    let admitted = admitted?;
    let done = done.into_iter().collect::<Result<Vec<_>, _>>()?;
    committed?;
    if admitted.is_empty() {
        return Err(refused(client, known).await);
    }
    hear(known, &admitted)?;
    Ok(done)
}

/// Begins a transaction of two flushes under the lock, by what is to be known for it. It ends by [`finish`], or
/// with the connection.
pub(super) async fn begin(
    client: &Client,
    known: &Known,
    statements: &[Statement<'_>],
) -> Result<Vec<Vec<Row>>, Failure> {
    let work = join_all(statements.iter().map(|(sql, parameters)| query(client, sql, parameters)));
    let (begun, admitted, found) =
        within(FLUSH, join3(client.batch_execute(BEGIN), admit(client, known), work)).await?;
    begun?;
    let admitted = admitted?;
    let found = found.into_iter().collect::<Result<_, _>>()?;
    if admitted.is_empty() {
        finish(client, &[]).await?;
        return Err(refused(client, known).await);
    }
    hear(known, &admitted)?;
    Ok(found)
}

/// Ends what [`begin`] began, by what there is to write.
pub(super) async fn finish(client: &Client, statements: &[Statement<'_>]) -> Result<Vec<Vec<Row>>, Failure> {
    let work = join_all(statements.iter().map(|(sql, parameters)| query(client, sql, parameters)));
    let (done, committed) = within(FLUSH, join(work, client.batch_execute("COMMIT"))).await?;
    let done = done.into_iter().collect::<Result<_, _>>()?;
    committed?;
    Ok(done)
}

/// Begins a transaction of the owner's under the lock, with what `state` says of itself: which store it is, and
/// whether it is closed. It ends by [`finish`], or with the connection.
pub(super) async fn begin_as_owner(client: &Client) -> Result<Vec<Row>, Failure> {
    const STATE: &str = "SELECT store, closed, set_config('machine_id.locked', 'yes', true), set_config('synchronous_commit',
            CASE current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, true)
        FROM machine_id.state WHERE id = 1";
    let locked = join(query(client, LOCK, &[]), query(client, STATE, &[]));
    let (begun, (locked, state)) = within(FLUSH, join(client.batch_execute(BEGIN), locked)).await?;
    begun?;
    locked?;
    Ok(state?)
}

/// Reads, in one transaction and one flush.
pub(super) async fn read(client: &Client, statements: &[Statement<'_>]) -> Result<Vec<Vec<Row>>, Failure> {
    read_within(client, FLUSH, statements).await
}

/// The same, where it may take longer.
pub(super) async fn read_within(
    client: &Client,
    limit: Duration,
    statements: &[Statement<'_>],
) -> Result<Vec<Vec<Row>>, Failure> {
    // The server gives up first, and says so.
    let milliseconds = limit.saturating_sub(Duration::from_secs(1)).as_millis();
    let begin = format!("{BEGIN_READING}; SET LOCAL statement_timeout = {milliseconds}");
    let work = join_all(statements.iter().map(|(sql, parameters)| query(client, sql, parameters)));
    let all = join3(client.batch_execute(&begin), work, client.batch_execute("COMMIT"));
    let (begun, done, committed) = within(limit, all).await?;
    begun?;
    let done = done.into_iter().collect::<Result<_, _>>()?;
    committed?;
    Ok(done)
}

async fn query(
    client: &Client,
    sql: &str,
    parameters: &[Parameter<'_>],
) -> Result<Vec<Row>, tokio_postgres::Error> {
    client.query_typed(sql, parameters).await
}

/// Takes the lock, and looks at what is locked: two statements, since one does not see what was committed
/// while it waited.
async fn admit(client: &Client, known: &Known) -> Result<Vec<Row>, tokio_postgres::Error> {
    let (newest, run, sequence) = (schema::newest(), known.run().saturating_add(APART), known.sequence());
    let parameters: [Parameter<'_>; 4] =
        [(&newest, Type::INT8), (&known.store, Type::TEXT), (&run, Type::INT8), (&sequence, Type::INT8)];
    let (locked, admitted) = join(query(client, LOCK, &[]), query(client, ADMIT, &parameters)).await;
    locked?;
    admitted
}

fn hear(known: &Known, admitted: &[Row]) -> Result<(), Failure> {
    for row in admitted {
        known.hear(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    }
    Ok(())
}

/// Hears what the store says, without its lock.
///
/// # Errors
/// Where it is not to be written to, too.
pub(super) async fn look(client: &Client, known: &Known) -> Result<(), Failure> {
    const WHY: &str =
        "SELECT oldest, store, run, revocations, (SELECT coalesce(max(sequence), 0) FROM machine_id.events), closed
        FROM machine_id.state";
    let rows = read(client, &[(WHY, &[])]).await?;
    let Some(row) = rows.first().and_then(|rows| rows.first()) else {
        return Err(Failure::Displaced("the row of `machine_id.state` is gone".to_owned()));
    };
    let sequence = row.try_get(4)?;
    if let Some(refused) = unfit(known, row.try_get(0)?, row.try_get(1)?, sequence) {
        return Err(refused);
    }
    if let Some(closed) = Closed::read(row.try_get(5)?) {
        return Err(Failure::Closed(closed));
    }
    known.hear(row.try_get(2)?, row.try_get(3)?, sequence);
    Ok(())
}

/// Why a store that answers was not to be written to.
async fn refused(client: &Client, known: &Known) -> Failure {
    // Where nothing is wrong with it, this authority had not heard of it for long, and has now.
    let heard = look(client, known).await.err();
    heard.unwrap_or_else(|| Failure::away("this authority had not heard of its store for long"))
}

async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Result<T, Failure> {
    tokio::time::timeout(limit, work).await.map_err(|_| silent())
}

/// The server said nothing in time.
pub(super) fn silent() -> Failure {
    Failure::away(format!("the database has not answered within {} seconds", FLUSH.as_secs()))
}

/// Why a store with that schema, identity and last event is not written to, if it is not.
fn unfit(known: &Known, oldest: i64, store: &str, sequence: i64) -> Option<Failure> {
    let newest = schema::newest();
    let why = if oldest > newest {
        format!(
            "the store's schema is for servers that know version {oldest} of it, and this machine-id knows {newest}: it takes a newer one"
        )
    } else if store != known.store {
        format!("the database holds another store, {store}, than the one that was opened, {}", known.store)
    } else if sequence < known.sequence() {
        let seen = known.sequence();
        format!(
            "the store has lost commits: its last event is {sequence}, and this authority has seen {seen}"
        )
    } else {
        return None;
    };
    Some(Failure::Displaced(why))
}
