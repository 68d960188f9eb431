//! What is let go of the trail, where `retain` is set: by the database's owner, in small steps, between which servers
//! write. Triggers keep all that SQLite's keep (`sqlite/pruning.rs`).

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::super::event;
use super::failure::Failure;
use super::reads;
use super::rows::Columns;
use super::transaction::{self, Parameter, Statement, locked};
use super::work::Shared;

/// How many events one transaction lets go, so that servers never wait long.
const STEP: i64 = 200;

/// The event that a pass is at.
pub(super) type Place = (i64, i64);

/// How many events are let go if everything is kept from `from` on; nothing where that is so already.
pub(super) async fn count(client: &Client, from: i64) -> Result<i64, Failure> {
    const SQL: &str = "SELECT count(*) FROM machine_id.events WHERE time < $1
            AND $1 > (SELECT kept_from FROM machine_id.state) AND NOT EXISTS (
                SELECT FROM machine_id.certificates WHERE issuance = sequence AND expires >= $1)";
    let counted =
        transaction::read_within(client, transaction::TRAIL, &[(SQL, &[(&from, Type::INT8)])]).await?;
    let row = counted.iter().flatten().next().ok_or_else(reads::gone)?;
    Ok(row.try_get(0)?)
}

/// Lets so many events go, from now on.
pub(super) async fn begin(
    client: &Client,
    shared: &Shared,
    from: i64,
    now: i64,
    events: i64,
) -> Result<(), Failure> {
    const SQL: &str = concat!(
        "UPDATE machine_id.state SET kept_from = greatest(kept_from, $1), kept_run = run WHERE ",
        locked!()
    );
    let event = event::pruned(now, &shared.known.store, events, from);
    let mut columns = Columns::default();
    columns.add(&event, &[], None, &shared.seal);
    let kept: [Parameter<'_>; 1] = [(&from, Type::INT8)];
    let statements: [Statement<'_>; 2] = [(SQL, &kept), (super::writer::RECORD, &columns.parameters())];
    transaction::write(client, &shared.known, &statements).await.map(drop)
}

/// The next events behind a place, from before everything is kept; none while the records are being carried elsewhere.
macro_rules! next {
    () => {
        "SELECT time, sequence FROM machine_id.events WHERE (time, sequence) > ($1, $2)
            AND time < (SELECT kept_from FROM machine_id.state WHERE moving IS NULL) ORDER BY time, sequence LIMIT $3"
    };
}

/// Those of them that may go: none that is the last, or whose certificates are good or were lately.
macro_rules! going {
    () => {
        concat!(
            "SELECT sequence FROM (",
            next!(),
            ") AS next WHERE sequence < (SELECT max(sequence) FROM machine_id.events)
            AND NOT EXISTS (SELECT FROM machine_id.certificates WHERE issuance = next.sequence
                AND expires >= (SELECT kept_from FROM machine_id.state))
            AND NOT EXISTS (SELECT FROM machine_id.assertions WHERE issuance = next.sequence)"
        )
    };
}

/// Takes away what may go of the next events behind `place`; how many that were, and the place to go on from, if
/// there may be more.
pub(super) async fn step(
    client: &Client,
    shared: &Shared,
    place: Place,
) -> Result<(u64, Option<Place>), Failure> {
    const CERTIFICATES: &str =
        concat!("DELETE FROM machine_id.certificates WHERE issuance IN (", going!(), ") AND ", locked!());
    const EVENTS: &str = concat!(
        "DELETE FROM machine_id.events WHERE sequence IN (",
        going!(),
        ") AND ",
        locked!(),
        " RETURNING 1"
    );
    let next: [Parameter<'_>; 3] = [(&place.0, Type::INT8), (&place.1, Type::INT8), (&STEP, Type::INT8)];
    let statements: [Statement<'_>; 3] = [(next!(), &next), (CERTIFICATES, &next), (EVENTS, &next)];
    let done = transaction::write(client, &shared.known, &statements).await?;
    let [found, _, gone] = done.as_slice() else { return Err(reads::gone()) };
    let is_full = i64::try_from(found.len()).is_ok_and(|found| found >= STEP);
    let last =
        found.last().filter(|_| is_full).map(|row| Ok::<_, Failure>((row.try_get(0)?, row.try_get(1)?)));
    Ok((u64::try_from(gone.len()).unwrap_or(u64::MAX), last.transpose()?))
}
