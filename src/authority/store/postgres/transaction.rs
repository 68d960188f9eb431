//! A transaction of PostgreSQL, from BEGIN to COMMIT.
//!
//! All that write take the lock of the one row of `state` first, and keep it until they have committed: as
//! in SQLite one writes at a time, sequences have no gaps and rise in the order of commits, and nobody
//! waits for two locks. What is known in advance goes in one flush, so that nobody holds the lock while a
//! network is slow.
//!
//! Nothing outlives a transaction (no prepared statement, no setting), so that PgBouncer may give each to
//! another session.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, join_all, join3, join4};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use super::super::closed::Closed;
use super::super::event;
use super::super::locks::Locks;
use super::super::loss::{LISTS_AHEAD, Loss, Reached, Said};
use super::super::packed::pack;
use super::failure::Failure;
use super::known::{APART, Known};
use super::lock_rows::{LOCKS, read_rows};
use super::schema;

/// The longest that a flush takes: a server that is paused, or a network that is cut, says nothing.
pub(super) const FLUSH: Duration = Duration::from_secs(5);

/// The same for what goes through the whole trail, which holds nobody up.
pub(super) const TRAIL: Duration = Duration::from_secs(600);

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

/// A commit waits for the disk, and for what more the server is set up to wait.
macro_rules! durable {
    () => {
        "set_config('synchronous_commit',
            CASE current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, true)"
    };
}

/// The same for what asks [`ADMIT`] nothing.
const DURABLE: &str = concat!("SELECT ", durable!());

/// Says whether this is the store that it was, with all that this replica has seen in it, and whether it may be written to:
/// one that is closed may not, by any replica. Only
/// then is `machine_id.locked` set, without which nothing below is written: by that the statements behind it
/// know too that they are in this transaction, with the lock.
const ADMIT: &str = concat!(
    "SELECT run, revocations, set_config('machine_id.locked', 'yes', true), ",
    durable!(),
    " FROM machine_id.state WHERE id = 1 AND closed IS NULL AND oldest <= $1 AND store = $2 AND run <= $3
        AND ($9 IS NULL OR locks = $9) AND ($10 IS NULL OR cas = $10)
        AND CASE WHEN lost IS NOT NULL THEN $7
            ELSE restored IS NOT DISTINCT FROM $4
                AND (SELECT coalesce(max(sequence), 0) FROM machine_id.events) >= $5
                AND ($6 = '' OR EXISTS (SELECT FROM machine_id.events WHERE sequence = $5 AND id = $6)
                    OR $8 < kept_from) END"
);

/// How far the store has come.
const REACHED: &str = "SELECT coalesce(sequence, 0), coalesce(last.id, ''), coalesce(time, 0), list_number, restored, cas
    FROM machine_id.state
    LEFT JOIN (SELECT sequence, id, time FROM machine_id.events ORDER BY sequence DESC LIMIT 1) AS last ON true";

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

/// Runs the statements in one transaction and one flush, under the lock.
///
/// # Errors
/// The first failure. One that is away may have been committed nevertheless.
pub(super) async fn write(
    client: &Client,
    known: &Known,
    statements: &[Statement<'_>],
) -> Result<Vec<Vec<Row>>, Failure> {
    let judged = Judged::now(known);
    write_as_judged(client, known, statements, judged, false).await
}

/// What was judged by: of another store it may be wrong.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judged {
    /// When the store was put back last.
    pub(super) restored: Option<i64>,
    /// The number of its locks, where it hangs on these.
    pub(super) locks: Option<i64>,
    /// The number of its CAs, where it hangs on these.
    pub(super) cas: Option<i64>,
}

impl Judged {
    /// By what is known of it now, and neither by locks nor by CAs.
    pub(super) fn now(known: &Known) -> Self {
        Self { restored: known.restored(), locks: None, cas: None }
    }
}

/// The same, where it was judged so.
/// Where it is so, `even_lost`: to a store that says that it has lost something.
pub(super) async fn write_as_judged(
    client: &Client,
    known: &Known,
    statements: &[Statement<'_>],
    judged: Judged,
    even_lost: bool,
) -> Result<Vec<Vec<Row>>, Failure> {
    let admit = admit(client, known, judged, even_lost);
    let work = join_all(statements.iter().map(|(sql, parameters)| query(client, sql, parameters)));
    // Each is sent when it is first polled, which happens in this order.
    let end = join(query(client, REACHED, &[]), client.batch_execute("COMMIT"));
    let all = join4(client.batch_execute(BEGIN), admit, work, end);
    let (begun, admitted, done, (reached, committed)) = within(FLUSH, all).await?;
    begun?;
    let admitted = admitted?;
    let done = done.into_iter().collect::<Result<Vec<_>, _>>()?;
    let reached = reached?;
    committed?;
    if admitted.is_empty() {
        return Err(refused(client, known).await);
    }
    hear(known, &admitted)?;
    if !even_lost {
        wrote(known, &reached)?;
    }
    Ok(done)
}

/// What is not to be missing any more.
fn wrote(known: &Known, rows: &[Row]) -> Result<(), Failure> {
    rows.iter().try_for_each(|row| {
        let reached = reached(row, 0)?;
        known.loss().reached.raise(&reached);
        Ok(())
    })
}

/// What [`REACHED`] says, from that column on.
fn reached(row: &Row, at: usize) -> Result<Reached, tokio_postgres::Error> {
    Ok(Reached {
        sequence: row.try_get(at)?,
        id: row.try_get(at + 1)?,
        time: row.try_get(at + 2)?,
        list_number: row.try_get(at + 3)?,
        restored: row.try_get(at + 4)?,
        cas: row.try_get(at + 5)?,
    })
}

/// Begins a transaction of two flushes under the lock, by what is to be known for it, where that is still what was judged by.
/// It ends by [`finish`], or with the connection.
pub(super) async fn begin(
    client: &Client,
    known: &Known,
    judged: Judged,
    statements: &[Statement<'_>],
) -> Result<Vec<Vec<Row>>, Failure> {
    let work = join_all(statements.iter().map(|(sql, parameters)| query(client, sql, parameters)));
    let admit = admit(client, known, judged, false);
    let (begun, admitted, found) = within(FLUSH, join3(client.batch_execute(BEGIN), admit, work)).await?;
    begun?;
    let admitted = admitted?;
    let found = found.into_iter().collect::<Result<_, _>>()?;
    if admitted.is_empty() {
        finish(client, known, &[]).await?;
        return Err(refused(client, known).await);
    }
    hear(known, &admitted)?;
    Ok(found)
}

/// Ends what [`begin`] began, by what there is to write.
pub(super) async fn finish(
    client: &Client,
    known: &Known,
    statements: &[Statement<'_>],
) -> Result<Vec<Vec<Row>>, Failure> {
    let work = join_all(statements.iter().map(|(sql, parameters)| query(client, sql, parameters)));
    let end = join3(work, query(client, REACHED, &[]), client.batch_execute("COMMIT"));
    let (done, reached, committed) = within(FLUSH, end).await?;
    let done = done.into_iter().collect::<Result<_, _>>()?;
    let reached = reached?;
    committed?;
    if !statements.is_empty() {
        wrote(known, &reached)?;
    }
    Ok(done)
}

/// Begins a transaction of the owner's under the lock, with what `state` says of itself: which store it is, whether it
/// is closed, and what it has lost. It ends by [`finish_as_owner`], or with the connection.
pub(super) async fn begin_as_owner(client: &Client) -> Result<Vec<Row>, Failure> {
    const STATE: &str = "SELECT store, closed, lost FROM machine_id.state WHERE id = 1";
    let locked = join3(query(client, LOCK, &[]), query(client, DURABLE, &[]), query(client, STATE, &[]));
    let (begun, (locked, durable, state)) = within(FLUSH, join(client.batch_execute(BEGIN), locked)).await?;
    begun?;
    locked?;
    durable?;
    Ok(state?)
}

/// Ends what [`begin_as_owner`] began; how far the store has come then.
pub(super) async fn finish_as_owner(
    client: &Client,
    statements: &[Statement<'_>],
) -> Result<Reached, Failure> {
    let work = join_all(statements.iter().map(|(sql, parameters)| query(client, sql, parameters)));
    let end = join3(work, query(client, REACHED, &[]), client.batch_execute("COMMIT"));
    let (done, reached, committed) = within(FLUSH, end).await?;
    done.into_iter().collect::<Result<Vec<_>, _>>()?;
    let reached = reached?;
    committed?;
    Ok(reached.first().map(|row| self::reached(row, 0)).transpose()?.unwrap_or_default())
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
async fn admit(
    client: &Client,
    known: &Known,
    Judged { restored, locks, cas }: Judged,
    even_lost: bool,
) -> Result<Vec<Row>, tokio_postgres::Error> {
    let (newest, run) = (schema::newest(), known.run().saturating_add(APART));
    let Reached { sequence, id, time, .. } = known.loss().reached.clone();
    let parameters: [Parameter<'_>; 10] = [
        (&newest, Type::INT8),
        (&known.store, Type::TEXT),
        (&run, Type::INT8),
        (&restored, Type::INT8),
        (&sequence, Type::INT8),
        (&id, Type::TEXT),
        (&even_lost, Type::BOOL),
        (&time, Type::INT8),
        (&locks, Type::INT8),
        (&cas, Type::INT8),
    ];
    let (locked, admitted) = join(query(client, LOCK, &[]), query(client, ADMIT, &parameters)).await;
    locked?;
    admitted
}

fn hear(known: &Known, admitted: &[Row]) -> Result<(), Failure> {
    for row in admitted {
        known.hear(row.try_get(0)?, row.try_get(1)?);
    }
    Ok(())
}

/// Hears what the store says, without its lock. Where it has lost something it is made to say so, that others hear it too.
///
/// # Errors
/// Where it is not to be written to, too.
pub(super) async fn look(client: &Client, known: &Known) -> Result<(), Failure> {
    const WHY: &str = "SELECT oldest, store, run, revocations, lost,
            (SELECT id FROM machine_id.events WHERE sequence = $1),
            $2 < kept_from, machine_id.clock(), closed, restored_mac, locks, cas
        FROM machine_id.state";
    let mut before = known.loss().clone();
    let Reached { sequence: asked, time, restored, .. } = before.reached.clone();
    let about: [Parameter<'_>; 2] = [(&asked, Type::INT8), (&time, Type::INT8)];
    let rows = read(client, &[(WHY, &about), (REACHED, &[])]).await?;
    let (Some(row), Some(last)) =
        (rows.first().and_then(|rows| rows.first()), rows.get(1).and_then(|rows| rows.first()))
    else {
        return Err(gone());
    };
    if let Some(refused) = unfit(known, row.try_get(0)?, row.try_get(1)?) {
        return Err(refused);
    }
    if let Some(closed) = Closed::read(row.try_get(8)?) {
        return Err(Failure::Closed(closed));
    }
    let reached = reached(last, 0)?;
    let said = Said {
        lost: row.try_get(4)?,
        known: row.try_get(5)?,
        is_let_go: row.try_get(6)?,
        is_sealed: known.believes(reached.restored, row.try_get(9)?),
        reached,
    };
    let heard = {
        let mut loss = known.loss();
        match loss.reached.sequence == asked {
            true => loss.hear(&said),
            // What was heard of meanwhile is not what was asked about; that must be there, too, unless it was put back.
            false if loss.reached.restored == restored => before.hear(&said),
            false => return Ok(()),
        }
    };
    if let Err(loss) = heard {
        if !loss.is_told() {
            lose(client, known, &said.reached, &loss, row.try_get(7)?).await?;
        }
        return Err(loss.into());
    }
    known.hear(row.try_get(2)?, row.try_get(3)?);
    known.hear_cas(row.try_get(11)?);
    if row.try_get::<_, i64>(10)? != known.locks().number {
        read_locks(client, known).await?;
    }
    Ok(())
}

/// A store without its one row is none that may be written to.
fn gone() -> Failure {
    Failure::Displaced("the row of `machine_id.state` is gone".to_owned())
}

/// Reads whom operators have shut out.
pub(super) async fn read_locks(client: &Client, known: &Known) -> Result<Arc<Locks>, Failure> {
    const NUMBER: &str = "SELECT locks FROM machine_id.state";
    let found = read(client, &[(NUMBER, &[]), (LOCKS, &[])]).await?;
    let number = found.first().and_then(|rows| rows.first()).ok_or_else(gone)?.try_get(0)?;
    let all = read_rows(found.get(1).map(Vec::as_slice).unwrap_or_default(), known.seal())?;
    known.hear_locks(Locks { number, all });
    Ok(known.locks())
}

/// Has the store say that it has lost something, behind all that there ever was, unless it does by now or was gone on with.
async fn lose(client: &Client, known: &Known, found: &Reached, loss: &Loss, now: i64) -> Result<(), Failure> {
    const LOSE: &str = "WITH lost AS (
            UPDATE machine_id.state SET lost = $1, list_number = greatest(list_number, $2)
            WHERE id = 1 AND store = $3 AND lost IS NULL AND restored IS NOT DISTINCT FROM $4 RETURNING 1
        )
        INSERT INTO machine_id.events (sequence, time, event, id, body)
        SELECT greatest((SELECT coalesce(max(sequence), 0) FROM machine_id.events), $5) + 1, $6, $7, $8, $9 FROM lost";
    let before = known.loss().reached.clone();
    let event = event::lost(before.no_earlier(now), &known.store, &loss.to_string());
    let (words, body) = (loss.to_string(), pack(&event.body.0));
    let parameters: [Parameter<'_>; 9] = [
        (&words, Type::TEXT),
        (&before.list_number, Type::INT8),
        (&known.store, Type::TEXT),
        (&found.restored, Type::INT8),
        (&before.sequence, Type::INT8),
        (&event.time, Type::INT8),
        (&event.event, Type::TEXT),
        (&event.id, Type::TEXT),
        (&body, Type::BYTEA),
    ];
    locking(client, &[(LOSE, &parameters)]).await
}

/// Goes on without what was lost, as the operator says.
pub(super) async fn resume(client: &Client, known: &Known, now: i64) -> Result<(), Failure> {
    const FOUND: &str = "SELECT lost, (SELECT max(time) FROM machine_id.events), machine_id.clock()
        FROM machine_id.state WHERE store = $1";
    const RESUME: &str = "WITH resumed AS (
            UPDATE machine_id.state SET lost = NULL, restored = $1, restored_mac = $8, list_what = NULL,
                list_number = greatest(list_number + 10000000,
                    least(list_number + $2, (machine_id.clock() + 315000000) * 1000000000))
            WHERE id = 1 AND lost = $3 AND store = $4 RETURNING 1
        ), unused AS (
            DELETE FROM machine_id.secrets WHERE instance IS NULL AND EXISTS (SELECT FROM resumed)
        )
        INSERT INTO machine_id.events (sequence, time, event, id, body)
        SELECT (SELECT max(sequence) FROM machine_id.events) + 1, $1, $5, $6, $7 FROM resumed";
    let found = read(client, &[(FOUND, &[(&known.store, Type::TEXT)])]).await?;
    let Some(row) = found.first().and_then(|rows| rows.first()) else { return Ok(()) };
    let (lost, latest): (Option<String>, Option<i64>) = (row.try_get(0)?, row.try_get(1)?);
    let Some(lost) = lost else { return Ok(()) };
    // Not before what it knows of, where the clock is behind.
    let clock: i64 = row.try_get(2)?;
    let reached =
        Reached { time: latest.unwrap_or_default(), restored: known.restored(), ..Reached::default() };
    let time = reached.no_earlier(now.max(clock));
    let event = event::restored(time, &known.store, "accepted_loss", lost.clone());
    let body = pack(&event.body.0);
    let seal = known.gone_on_with(time);
    let parameters: [Parameter<'_>; 8] = [
        (&time, Type::INT8),
        (&LISTS_AHEAD, Type::INT8),
        (&lost, Type::TEXT),
        (&known.store, Type::TEXT),
        (&event.event, Type::TEXT),
        (&event.id, Type::TEXT),
        (&body, Type::BYTEA),
        (&seal, Type::BYTEA),
    ];
    locking(client, &[(RESUME, &parameters)]).await
}

/// Runs the statements under the lock, whatever the store has lost.
async fn locking(client: &Client, statements: &[Statement<'_>]) -> Result<(), Failure> {
    let all = [&[(LOCK, &[][..]), (DURABLE, &[][..])], statements].concat();
    let work = join_all(all.iter().map(|(sql, parameters)| query(client, sql, parameters)));
    let all = join3(client.batch_execute(BEGIN), work, client.batch_execute("COMMIT"));
    let (begun, done, committed) = within(FLUSH, all).await?;
    begun?;
    done.into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(committed?)
}

/// Why a store that answers was not to be written to.
async fn refused(client: &Client, known: &Known) -> Failure {
    // Where nothing is wrong with it, this authority had not heard of it for long, and has now.
    let heard = look(client, known).await.err();
    heard.unwrap_or_else(|| Failure::away("this authority had not heard of its store for long"))
}

async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Result<T, Failure> {
    tokio::time::timeout(limit, work).await.map_err(|_| silent(limit))
}

/// The server said nothing in time.
pub(super) fn silent(limit: Duration) -> Failure {
    Failure::away(format!("the database has not answered within {} seconds", limit.as_secs()))
}

/// Why a store with that schema and identity is not written to, if it is not.
fn unfit(known: &Known, oldest: i64, store: &str) -> Option<Failure> {
    let newest = schema::newest();
    let why = if oldest > newest {
        format!(
            "the store's schema is for servers that know version {oldest} of it, and this machine-id knows {newest}: it takes a newer one"
        )
    } else if store != known.store {
        format!("the database holds another store, {store}, than the one that was opened, {}", known.store)
    } else {
        return None;
    };
    Some(Failure::Displaced(why))
}
