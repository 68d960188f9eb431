//! What is read. Each is of one moment, in one round trip.

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::super::cas::Heard;
use super::super::closed::Closed;
use super::super::hosts;
use super::super::instances::RegisteredInstance;
use super::super::seal::Seal;
use super::super::version;
use super::super::{
    CertificateRecord, Cursor, Event, EventFilter, RevokedCertificate, RevokedSince, RevokedUpto,
};
use super::failure::Failure;
use super::known::Known;
use super::transaction::{self, Parameter};
use super::{rows, schema};
use crate::error::{Error, Result};

/// Used proofs with what they were used for, a row for each certificate.
pub(super) const PROOFS: &str =
    "SELECT proofs.key, fingerprint, certificate, held_until, held_to_run, generation, mac,
        events.id, events.time, other.serial, other.kind, other.expires, other.key_hash, other.revoked, other.ca
    FROM machine_id.proofs
    LEFT JOIN machine_id.certificates AS one ON one.serial = certificate
    LEFT JOIN machine_id.events ON sequence = one.issuance
    LEFT JOIN machine_id.certificates AS other ON other.issuance = one.issuance
    WHERE proofs.key = ANY ($1) ORDER BY other.serial";

/// Has the seal judge some used proofs, behind that key; where it goes on, if there are more.
pub(super) async fn judge_proofs(
    client: &Client,
    after: &[u8],
    seal: &Seal,
) -> Result<Option<Vec<u8>>, Failure> {
    const NEXT: &str =
        "SELECT key FROM machine_id.proofs WHERE key > $1 AND certificate <> 0 ORDER BY key LIMIT 500";
    let next = rows(client, NEXT, &[(&after, Type::BYTEA)]).await?;
    let keys = next.iter().map(|row| row.try_get(0)).collect::<Result<Vec<Vec<u8>>, _>>()?;
    let found = rows(client, PROOFS, &[(&keys, Type::BYTEA_ARRAY)]).await?;
    rows::used(&found)?.values().for_each(|proof| proof.judge(seal));
    Ok(keys.into_iter().next_back())
}

/// What a store says of itself.
pub(super) struct State {
    pub(super) store: String,
    pub(super) run: i64,
    pub(super) restored: Option<i64>,
    pub(super) restored_mac: Option<Vec<u8>>,
    pub(super) closed: Option<Closed>,
    pub(super) lost: Option<String>,
    pub(super) seal_check: Option<Vec<u8>>,
    pub(super) moving: Option<String>,
}

/// Whether there is a store that this machine-id can use.
///
/// # Errors
/// `Kind::Usage` inside, where there is none, or it takes another version.
pub(super) async fn usable(client: &Client) -> Result<Result<()>, Failure> {
    const THERE: &str = "SELECT to_regclass('machine_id.versions') IS NOT NULL";
    const VERSION: &str = "SELECT version, oldest FROM machine_id.versions ORDER BY version DESC LIMIT 1";
    let old = |why: &'static str| {
        Error::usage(why).hint("`machine-id authority upgrade`, as the database's owner, makes the tables or brings them up to date")
    };
    let there = rows(client, THERE, &[]).await?;
    if !there.first().map_or(Ok(false), |row| row.try_get(0))? {
        return Ok(Err(old("the database holds no store of an authority")));
    }
    let version = rows(client, VERSION, &[]).await?;
    let Some(row) = version.first() else { return Ok(Err(old("the database's store was not finished"))) };
    let (version, oldest): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    let newest = schema::newest();
    if version < newest {
        return Ok(Err(old("the store's tables are of an older version")));
    }
    Ok(version::admit(version, oldest, newest))
}

/// What it says of itself.
pub(super) async fn state(client: &Client) -> Result<State, Failure> {
    const SQL: &str = "SELECT store, run, restored, seal_check, closed, lost, moving, restored_mac
        FROM machine_id.state";
    let found = rows(client, SQL, &[]).await?;
    let row = found.first().ok_or_else(gone)?;
    Ok(State {
        store: row.try_get(0)?,
        run: row.try_get(1)?,
        restored: row.try_get(2)?,
        restored_mac: row.try_get(7)?,
        seal_check: row.try_get(3)?,
        closed: Closed::read(row.try_get(4)?),
        lost: row.try_get(5)?,
        moving: row.try_get(6)?,
    })
}

/// The one row of `state` is not there.
pub(super) fn gone() -> Failure {
    Failure::Unreadable("the row of `machine_id.state` is gone".to_owned())
}

/// The numbers of locks and CAs; these and how much was revoked are known from then on.
pub(super) async fn heard(client: &Client, known: &Known) -> Result<Heard, Failure> {
    let found = rows(client, "SELECT locks, revocations, cas FROM machine_id.state", &[]).await?;
    let row = found.first().ok_or_else(gone)?;
    known.revoked(row.try_get(1)?);
    known.hear_cas(row.try_get(2)?);
    Ok(Heard { locks: row.try_get(0)?, cas: known.cas() })
}

/// The rows of one statement.
pub(super) async fn rows(
    client: &Client,
    sql: &str,
    parameters: &[Parameter<'_>],
) -> Result<Vec<Row>, Failure> {
    Ok(transaction::read(client, &[(sql, parameters)]).await?.into_iter().flatten().collect())
}

/// The certificate of that serial.
pub(super) async fn certificate(client: &Client, serial: u64) -> Result<Option<CertificateRecord>, Failure> {
    const SQL: &str = "SELECT id, key_hash, kind, expires, revoked, CASE WHEN host IS NOT NULL THEN body END,
            (SELECT id FROM machine_id.instances WHERE number = certificates.instance AND locked IS NULL), ca
        FROM machine_id.certificates JOIN machine_id.events ON sequence = issuance WHERE serial = $1";
    let Ok(serial) = i64::try_from(serial) else { return Ok(None) };
    let found = rows(client, SQL, &[(&serial, Type::INT8)]).await?;
    let record = |row: &Row| {
        Ok(CertificateRecord {
            issuance_id: row.try_get(0)?,
            key_hash: rows::hash(row, 1)?,
            kind: rows::kind(row, 2)?,
            expires: row.try_get(3)?,
            revoked: row.try_get(4)?,
            hosts: match row.try_get::<_, Option<&[u8]>>(5)? {
                None => row.try_get::<_, Option<String>>(6)?.into_iter().collect(),
                Some(_) => hosts::names(&rows::body(row, 5)?, serial),
            },
            ca: row.try_get(7)?,
        })
    };
    found.first().map(record).transpose()
}

/// From when on everything is kept, and why it is closed, if it is: what a reader may see of `state`.
pub(super) async fn standing(client: &Client) -> Result<(i64, Option<Closed>), Failure> {
    const SQL: &str = "SELECT kept_from, closed FROM machine_id.state";
    let found = rows(client, SQL, &[]).await?;
    let row = found.first().ok_or_else(gone)?;
    Ok((row.try_get(0)?, Closed::read(row.try_get(1)?)))
}

/// So many are read at once: a row takes ten times what it holds.
const PAGE: i64 = 10_000;

/// The revoked certificates that end at `since` or later, revoked since so many were known, of a store that was put back then.
pub(super) async fn revoked_since(
    client: &Client,
    restored: Option<i64>,
    since: i64,
    known: Option<RevokedUpto>,
) -> Result<RevokedSince, Failure> {
    let known = known.filter(|known| known.restored == restored).map(|known| known.revocations);
    let (mut certificates, revocations) = revoked(client, since, known).await?;
    // More than there ever were.
    let is_all = known.is_none_or(|known| known > revocations);
    if is_all && known.is_some() {
        (certificates, _) = revoked(client, since, None).await?;
    }
    Ok(RevokedSince { certificates, upto: RevokedUpto { restored, revocations }, is_all })
}

/// Those behind the revocation of that number, or all; and the number of the last by then. Of a store that is closed none: what was revoked since is
/// elsewhere, and a list that lacks it is worse than none.
async fn revoked(
    client: &Client,
    since: i64,
    known: Option<i64>,
) -> Result<(Vec<RevokedCertificate>, i64), Failure> {
    const STATE: &str = "SELECT closed, revocations FROM machine_id.state";
    // In the order of an index. What is revoked meanwhile has higher numbers, and may come twice.
    let (by, mut after) = known.map_or(("expires", (since, -1)), |known| ("revocation", (known, i64::MAX)));
    let sql = format!(
        "SELECT serial, kind, revoked, expires, {by}, host IS NOT NULL, ca FROM machine_id.certificates
         WHERE revoked IS NOT NULL AND {by} IS NOT NULL AND ({by}, serial) > ($2, $3)
            AND expires >= $1 ORDER BY {by}, serial LIMIT $4"
    );
    let (mut all, mut upto) = (Vec::new(), None);
    loop {
        let place: [Parameter<'_>; 4] =
            [(&since, Type::INT8), (&after.0, Type::INT8), (&after.1, Type::INT8), (&PAGE, Type::INT8)];
        let read = transaction::read(client, &[(STATE, &[]), (&sql, &place)]).await?;
        let [state, found] = read.as_slice() else { return Err(gone()) };
        let state = state.first().ok_or_else(gone)?;
        if let Some(closed) = Closed::read(state.try_get(0)?) {
            return Err(Failure::Closed(closed));
        }
        let upto = *upto.get_or_insert(state.try_get(1)?);
        for row in found {
            all.push(RevokedCertificate {
                serial: rows::read_serial(row, 0)?,
                kind: rows::kind(row, 1)?,
                revoked: row.try_get(2)?,
                expires: row.try_get(3)?,
                is_host: row.try_get(5)?,
                ca: row.try_get(6)?,
            });
            after = (row.try_get(4)?, row.try_get(0)?);
        }
        if i64::try_from(found.len()).is_ok_and(|count| count < PAGE) {
            return Ok((all, upto));
        }
    }
}

/// How many they are that end at `since` or later.
pub(super) async fn revoked_count(client: &Client, since: i64) -> Result<i64, Failure> {
    const SQL: &str =
        "SELECT count(*) FROM machine_id.certificates WHERE revoked IS NOT NULL AND expires >= $1";
    let found = rows(client, SQL, &[(&since, Type::INT8)]).await?;
    Ok(found.first().ok_or_else(gone)?.try_get(0)?)
}

/// What narrows both parts of the trail: $1 is the place, $2 the most rows. No index on times leads to it, whose rows would be
/// sorted for each page.
macro_rules! narrowed {
    () => {
        " AND ($3::bigint IS NULL OR time + 0 >= $3) AND ($4::text IS NULL OR bot = $4)
          AND ($5::text IS NULL OR token = $5) AND ($6::text IS NULL OR event = $6)
          AND ($7::text IS NULL OR id = $7) ORDER BY 3 LIMIT $2"
    };
}

/// The trail. The first page finds its place by the index on time, unless it is nearer to walk there from the beginning:
/// times may be out of order, so that neither way ends before it has seen all that lie on it.
pub(super) const EVENTS: &str = concat!(
    "SELECT sequence, 0::bigint, sequence, body FROM machine_id.events WHERE sequence > CASE
        WHEN $1 > 0 OR $3::bigint IS NULL THEN $1
        WHEN (SELECT sequence FROM machine_id.events WHERE time >= $3 ORDER BY time, sequence LIMIT 1)
            < (SELECT min(sequence) / 2 + max(sequence) / 2 FROM machine_id.events) THEN 0
        ELSE (SELECT coalesce(min(sequence) - 1, 9223372036854775807)
            FROM (SELECT sequence FROM machine_id.events WHERE time >= $3 OFFSET 0) AS later) END",
    narrowed!()
);

/// Refusals of strangers, behind the events that stood before them.
const STRANGERS: &str = concat!(
    "SELECT behind, 1::bigint, number, body FROM machine_id.strangers WHERE number > $1",
    narrowed!()
);

/// A page of the audit trail, with the refusals of strangers in their places.
pub(super) async fn events(
    client: &Client,
    filter: &EventFilter,
    after: Cursor,
    limit: usize,
) -> Result<Vec<Event>, Failure> {
    let most = i64::try_from(limit).unwrap_or(i64::MAX);
    let EventFilter { since, bot, token, event, id } = filter;
    let [bot, token, event, id] = [bot, token, event, id].map(|text| rows::text(text.as_deref()));
    let page = |place| -> [Parameter<'_>; 7] {
        [
            (place, Type::INT8),
            (&most, Type::INT8),
            (since, Type::INT8),
            (&bot, Type::TEXT),
            (&token, Type::TEXT),
            (&event, Type::TEXT),
            (&id, Type::TEXT),
        ]
    };
    let (trail, strangers) = (page(&after.event), page(&after.stranger));
    let pages = [(EVENTS, &trail[..]), (STRANGERS, &strangers)];
    let pages = transaction::read_within(client, transaction::TRAIL, &pages).await?;
    let place = |row: &Row| Ok::<_, Failure>((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
    let mut found = pages
        .into_iter()
        .flatten()
        .map(|row| Ok((place(&row)?, row)))
        .collect::<Result<Vec<((i64, i64, i64), Row)>, Failure>>()?;
    found.sort_by_key(|(place, _)| *place);
    found.truncate(limit);
    let mut cursor = after;
    let event = |((_, kind, key), row): ((i64, i64, i64), Row)| {
        *(if kind == 0 { &mut cursor.event } else { &mut cursor.stranger }) = key;
        Ok(Event { cursor, body: rows::body(&row, 3)? })
    };
    found.into_iter().map(event).collect()
}

/// How many strangers' refusals were pushed out, of all kinds together.
pub(super) async fn dropped(client: &Client) -> Result<i64, Failure> {
    const SQL: &str = "SELECT coalesce(sum(first - 1), 0)::bigint
        FROM (SELECT min(nth) AS first FROM machine_id.strangers GROUP BY ring) AS rings";
    rows(client, SQL, &[]).await?.first().map_or(Ok(0), |row| Ok(row.try_get(0)?))
}

/// Every registered instance; no column that only servers may see.
pub(super) async fn instances(client: &Client) -> Result<Vec<RegisteredInstance>, Failure> {
    const SQL: &str = "SELECT id, token, bot, generation, registered, seen, locked, reason
        FROM machine_id.instances ORDER BY number";
    let instance = |row: &Row| {
        let (locked, reason): (Option<i64>, Option<String>) = (row.try_get(6)?, row.try_get(7)?);
        Ok(RegisteredInstance {
            instance: row.try_get(0)?,
            token: row.try_get(1)?,
            bot: row.try_get(2)?,
            generation: row.try_get(3)?,
            registered: row.try_get(4)?,
            seen: row.try_get(5)?,
            locked: locked.map(|time| (time, reason.unwrap_or_default())),
        })
    };
    rows(client, SQL, &[]).await?.iter().map(instance).collect()
}
