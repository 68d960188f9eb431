//! The rarer writes. Each is one flush, and the same again does no harm: a commit whose answer was lost is
//! asked again.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::super::bounds::{MAX_BYTES, MAX_ROW, MAX_ROWS};
use super::super::event::{self, NewEvent};
use super::super::packed::pack;
use super::super::{LAST_NUMBERED, LIST_SERVED, ListNumber, NewRevocation, Revoked, Stranger};
use super::failure::Failure;
use super::reads;
use super::rows;
use super::transaction::{self, Judged, Parameter, Statement, locked};
use super::work::Shared;

/// How many rows one transaction forgets, so that pruning never holds up an exchange for long.
const PRUNE_STEP: i64 = 200;

/// Appends a stranger's refusal, and takes away what is too old for it. Where it `was_tried`, it may be there.
pub(super) async fn append_stranger(
    client: &Client,
    shared: &Shared,
    stranger: Stranger,
    new: &NewEvent,
    was_tried: bool,
) -> Result<(), Failure> {
    const APPEND: &str = concat!(
        "INSERT INTO machine_id.strangers (number, ring, nth, ends, behind, time, event, id, bot, token, body)
         SELECT coalesce((SELECT max(number) FROM machine_id.strangers), 0) + 1, $1,
            coalesce(max(nth), 0) + 1, coalesce(max(ends), 0) + $2,
            (SELECT coalesce(max(sequence), 0) FROM machine_id.events), $3, $4, $5, $6, $7, $8
         FROM (SELECT nth, ends FROM machine_id.strangers WHERE ring = $1 ORDER BY nth DESC LIMIT 1) AS newest
         HAVING NOT ($9 AND EXISTS (SELECT FROM machine_id.strangers WHERE id = $5)) AND ",
        locked!()
    );
    // One row pushes out no more than these.
    const PUSH_OUT: &str = concat!(
        "DELETE FROM machine_id.strangers USING
            (SELECT nth, ends FROM machine_id.strangers WHERE ring = $1 ORDER BY nth DESC LIMIT 1) AS newest
         WHERE ring = $1 AND strangers.nth IN
                (SELECT nth FROM machine_id.strangers WHERE ring = $1 ORDER BY nth LIMIT 256)
            AND (newest.nth - strangers.nth >= $2 OR newest.ends - strangers.ends > $3) AND ",
        locked!()
    );
    let ring = stranger.ring();
    let [bot, token] = [&new.bot, &new.token].map(|name| rows::text(name.as_deref()));
    let texts = [Some(&new.id), bot.as_ref(), token.as_ref(), Some(&new.body.0)];
    let size = texts.into_iter().flatten().map(String::len).sum::<usize>();
    let (size, body) = (i64::try_from(size).unwrap_or(MAX_ROW), pack(&new.body.0));
    let appended: [Parameter<'_>; 9] = [
        (&ring, Type::INT8),
        (&size, Type::INT8),
        (&new.time, Type::INT8),
        (&new.event, Type::TEXT),
        (&new.id, Type::TEXT),
        (&bot, Type::TEXT),
        (&token, Type::TEXT),
        (&body, Type::BYTEA),
        (&was_tried, Type::BOOL),
    ];
    let most = MAX_BYTES - MAX_ROW;
    let pushed: [Parameter<'_>; 3] = [(&ring, Type::INT8), (&MAX_ROWS, Type::INT8), (&most, Type::INT8)];
    transaction::write(client, &shared.known, &[(APPEND, &appended), (PUSH_OUT, &pushed)]).await.map(drop)
}

/// Uses the assertion up, and revokes the issuance if it is not revoked yet. An assertion for one that is
/// revoked does nothing and is not kept, so that an issuance takes one. Where it `was_tried`, the assertion
/// may have been used by the try before.
pub(super) async fn revoke(
    client: &Client,
    shared: &Shared,
    entry: &NewRevocation,
    was_tried: bool,
) -> Result<Revoked, Failure> {
    const BEGUN: &str =
        "SELECT sequence, body FROM machine_id.events WHERE id = $1 AND event IN ('issued', 'signed')";
    const REVOKE: &str = concat!(
        "WITH fresh AS (
            SELECT WHERE NOT EXISTS (SELECT FROM machine_id.assertions WHERE issuance = $1 AND id = $2)
                AND ",
        locked!(),
        "
        ), gone AS (
            UPDATE machine_id.certificates SET revoked = $3
            WHERE issuance = $1 AND revoked IS NULL AND EXISTS (SELECT FROM fresh) RETURNING serial
        ), used AS (
            INSERT INTO machine_id.assertions (issuance, id, held_until, held_to_run)
            SELECT $1, $2, $4, $5 WHERE EXISTS (SELECT FROM gone)
        ), told AS (
            INSERT INTO machine_id.events (sequence, time, event, id, bot, token, body)
            SELECT (SELECT coalesce(max(sequence), 0) + 1 FROM machine_id.events), $3, $6, $7, $8, $9, $10
            WHERE EXISTS (SELECT FROM gone)
        ), counted AS (
            UPDATE machine_id.state SET revocations = revocations + 1 WHERE (SELECT count(*) FROM gone) > 0
            RETURNING revocations
        )
        SELECT EXISTS (SELECT FROM fresh), (SELECT revocations FROM counted)"
    );
    // What was issued does not change, unless the store is put back.
    let restored = shared.known.restored();
    let begun = reads::rows(client, BEGUN, &[(&entry.issuance_id, Type::TEXT)]).await?;
    let Some(row) = begun.first() else { return Ok(Revoked::Unknown) };
    let (issuance, begun): (i64, _) = (row.try_get(0)?, rows::body(row, 1)?);
    let event = event::revoked(entry, &begun);
    let (held, body) = (shared.known.held(entry.held.lasts), pack(&event.body.0));
    let parameters: [Parameter<'_>; 10] = [
        (&issuance, Type::INT8),
        (&entry.assertion_id, Type::TEXT),
        (&entry.time, Type::INT8),
        (&entry.held.until, Type::INT8),
        (&held, Type::INT8),
        (&event.event, Type::TEXT),
        (&event.id, Type::TEXT),
        (&event.bot, Type::TEXT),
        (&event.token, Type::TEXT),
        (&body, Type::BYTEA),
    ];
    let judged = Judged { restored, ..Judged::now(&shared.known) };
    let done =
        transaction::write_as_judged(client, &shared.known, &[(REVOKE, &parameters)], judged, false).await?;
    let Some(row) = done.first().and_then(|rows| rows.first()) else { return Ok(Revoked::Unknown) };
    if let Some(revocations) = row.try_get(1)? {
        shared.known.revoked(revocations);
        return Ok(Revoked::Now);
    }
    Ok(match (row.try_get(0)?, was_tried) {
        (true, _) => Revoked::Before,
        (false, true) => Revoked::Now,
        (false, false) => Revoked::AssertionUsed,
    })
}

/// That of the last lists where they say the same and are not too old, else one of its own; as in SQLite, but that a
/// clock that is ten years ahead of the database's counts no more than that, as the tables have it.
pub(super) async fn list_number(
    client: &Client,
    shared: &Shared,
    now: i64,
    what: &[u8; 32],
) -> Result<ListNumber, Failure> {
    const SQL: &str = concat!(
        "WITH known AS (
            SELECT list_number, list_made, revocations FROM machine_id.state
            WHERE list_what = $2 AND list_made <= $1 AND list_made > $3
        ), new AS (
            UPDATE machine_id.state SET list_what = $2, list_made = $1, list_number = greatest(
                list_number + 1 + floor(random() * 10000000)::bigint,
                least($4, machine_id.clock() + 315000000) * 1000000000 + floor(random() * 1000000000)::bigint)
            WHERE NOT EXISTS (SELECT FROM known) AND ",
        locked!(),
        " RETURNING list_number, list_made, revocations
        )
        SELECT * FROM known UNION ALL SELECT * FROM new"
    );
    let (what, second) = (what.as_slice(), now.clamp(0, LAST_NUMBERED));
    let too_old = now.saturating_sub(LIST_SERVED);
    let parameters: [Parameter<'_>; 4] =
        [(&now, Type::INT8), (&what, Type::BYTEA), (&too_old, Type::INT8), (&second, Type::INT8)];
    let done = transaction::write(client, &shared.known, &[(SQL, &parameters)]).await?;
    let row = done.first().and_then(|rows| rows.first());
    let row = row.ok_or_else(|| Failure::away("it gives no number"))?;
    Ok(ListNumber { number: rows::read_serial(row, 0)?, made: row.try_get(1)?, revocations: row.try_get(2)? })
}

/// Forgets at most some proofs and as many assertions whose time is up, by the wall clocks of this machine and
/// of the database, and by the odometer; whether there may be more.
pub(super) async fn prune(client: &Client, shared: &Shared, now: i64) -> Result<bool, Failure> {
    // Workers' proofs are held by their generations too, and until a time by our own clock.
    const SQL: &str = concat!(
        "WITH now AS (
            SELECT least($1, machine_id.clock()) AS time,
                greatest(run, $2) AS run FROM machine_id.state WHERE ",
        locked!(),
        "
        ), proofs AS (
            DELETE FROM machine_id.proofs WHERE key IN (
                SELECT key FROM machine_id.proofs, now
                WHERE held_until < now.time AND held_to_run < now.run ORDER BY held_until LIMIT $3)
            RETURNING CASE WHEN generation IS NULL AND certificate <> 0 THEN held_until ELSE 0 END AS latest
        ), assertions AS (
            DELETE FROM machine_id.assertions WHERE (issuance, id) IN (
                SELECT issuance, id FROM machine_id.assertions, now
                WHERE held_until < now.time AND held_to_run < now.run LIMIT $3)
            RETURNING 1
        ), secrets AS (
            DELETE FROM machine_id.secrets USING now WHERE expires < now.time AND held_to_run < now.run
        ), moved AS (
            UPDATE machine_id.state SET run = now.run,
                forgotten = greatest(forgotten, (SELECT max(latest) FROM proofs)) FROM now
        )
        SELECT greatest((SELECT count(*) FROM proofs), (SELECT count(*) FROM assertions))"
    );
    let run = shared.known.run();
    let parameters: [Parameter<'_>; 3] = [(&now, Type::INT8), (&run, Type::INT8), (&PRUNE_STEP, Type::INT8)];
    let done = transaction::write(client, &shared.known, &[(SQL, &parameters)]).await?;
    let row = done.first().and_then(|rows| rows.first());
    row.map_or(Ok(false), |row| Ok(row.try_get::<_, i64>(0)? >= PRUNE_STEP))
}

/// Keeps by what the key of the seals is known, unless the store knows one, whatever it has lost; what it knows. When it was
/// gone on with is sealed by a new one, too, where this authority knows that.
pub(super) async fn keep_check(client: &Client, shared: &Shared) -> Result<Vec<u8>, Failure> {
    const SQL: &str = concat!(
        "UPDATE machine_id.state SET seal_check = coalesce(seal_check, $1), restored_mac =
            CASE WHEN seal_check IS NULL AND restored = $2 THEN $3 ELSE restored_mac END WHERE ",
        locked!(),
        " RETURNING seal_check"
    );
    let check = shared.seal.check(&shared.known.store).to_vec();
    let restored = shared.known.restored();
    let mac = restored.and_then(|time| shared.known.gone_on_with(time));
    let parameters: [Parameter<'_>; 3] =
        [(&check, Type::BYTEA), (&restored, Type::INT8), (&mac, Type::BYTEA)];
    let keep: [Statement<'_>; 1] = [(SQL, &parameters)];
    let judged = Judged { restored, ..Judged::now(&shared.known) };
    let done = transaction::write_as_judged(client, &shared.known, &keep, judged, true).await?;
    let row = done.first().and_then(|rows| rows.first());
    Ok(row.ok_or_else(|| Failure::away("it keeps no key"))?.try_get(0)?)
}

/// A write that changes nothing of matter, but is one; and whether the schema can be read, and the trail goes on.
pub(super) async fn probe(client: &Client, shared: &Shared) -> Result<(), Failure> {
    // More than sixteen outputs take.
    const SQL: &str = concat!(
        "INSERT INTO machine_id.probes (id, body) SELECT 1, decode(repeat('00', 8192), 'hex')
         WHERE (SELECT coalesce(max(sequence), 0) + 1 FROM machine_id.events) > 0 AND ",
        locked!(),
        " ON CONFLICT (id) DO UPDATE SET body = excluded.body"
    );
    transaction::write(client, &shared.known, &[(SQL, &[])]).await.map(drop)
}

/// Hears what the store says, and writes down how long authorities have been running, if that is due.
pub(super) async fn look(client: &Client, shared: &Shared) -> Result<(), Failure> {
    const SQL: &str = concat!("UPDATE machine_id.state SET run = greatest(run, $1) WHERE ", locked!());
    let run = shared.known.run();
    let parameters: [Parameter<'_>; 1] = [(&run, Type::INT8)];
    // First, since what is not heard of yet is no reason not to write.
    transaction::look(client, &shared.known).await?;
    if shared.known.run_is_late() {
        transaction::write(client, &shared.known, &[(SQL, &parameters)]).await?;
    }
    Ok(())
}
