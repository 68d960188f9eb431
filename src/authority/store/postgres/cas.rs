//! CAs, as rows. The certificates of one that live are looked for before the lock of the store is taken, but for what has come since.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::super::ca_schema::ROTATES_POSTGRES;
use super::super::cas::{
    CaChange, CaChanged, CaRow, CaStore, Changed, KeptCas, Live, LiveCertificate, NAMED, Whose, is_done,
};
use super::super::event;
use super::super::replicas::Replica;
use super::super::seal::Seal;
use super::failure::Failure;
use super::pool::Connection;
use super::rows::{self, Columns};
use super::transaction::{self, Judged, Parameter, Statement, locked};
use super::work::{CANNOT_READ, PATIENCE, Shared, WHOLE_TRAIL, again_within};
use super::writer::RECORD;
use super::{Postgres, reads, shared};
use crate::authority::ca::CaSet;
use crate::error::Result;

const STATE: &str = "SELECT cas, cas_mac FROM machine_id.state";

const ROWS: &str =
    "SELECT number, kind, name, id, is_first, state, public, endorsements, crossed, sealed, since, mac
    FROM machine_id.ca_keys ORDER BY number";

const PUT: &str = concat!(
    "INSERT INTO machine_id.ca_keys (number, kind, name, id, is_first, state, public, endorsements, crossed, sealed, since, mac)
     SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12 WHERE ",
    locked!(),
    " ON CONFLICT (number) DO UPDATE SET state = $6, endorsements = $8, crossed = $9, sealed = $10, since = $11, mac = $12"
);

/// Has everybody read them anew, and make the lists and what is stated anew.
const CHANGE: &str = concat!(
    "UPDATE machine_id.state SET cas = $1, cas_mac = $2, oldest = greatest(oldest, $3), revocations = revocations + 1 WHERE ",
    locked!(),
    " RETURNING revocations"
);

/// Those that were issued lately, by the index of issuances, and those of hosts, which live for years, by that of their ends.
macro_rules! living {
    ($sql:literal) => {
        concat!(
            "WITH living AS (
                SELECT serial, issuance, expires, host, kind, ca FROM machine_id.certificates
                WHERE issuance > $1 AND revoked IS NULL AND expires > $3
                    AND issuance >= (SELECT min(sequence) FROM machine_id.events WHERE time >= $2)
                UNION ALL
                SELECT serial, issuance, expires, host, kind, ca FROM machine_id.certificates
                WHERE host IS NOT NULL AND expires > $3 AND issuance > $1 AND revoked IS NULL
                    AND issuance < coalesce((SELECT min(sequence) FROM machine_id.events WHERE time >= $2), 9223372036854775807)
             ), theirs AS (
                SELECT * FROM living
                WHERE ca = $4 OR (ca IS NULL AND kind = $5 AND ($6 IS NULL OR (host IS NOT NULL) = $6))
             ) ",
            $sql
        )
    };
}

const COUNT: &str = living!("SELECT count(*), coalesce(max(expires), 0)::bigint FROM theirs");

const SOME: &str = living!(
    "SELECT serial, host IS NOT NULL, expires, body FROM theirs JOIN machine_id.events ON sequence = issuance
     ORDER BY expires DESC, serial LIMIT $7"
);

/// What those two are asked with.
#[derive(Clone, Copy)]
struct Asked {
    after: i64,
    since: i64,
    at: i64,
    whose: Whose,
    most: i64,
}

impl Asked {
    fn new(whose: Whose, at: i64, after: i64) -> Self {
        Self { after, since: Whose::since(at), at, whose, most: i64::try_from(NAMED).unwrap_or_default() }
    }

    fn parameters(&self) -> [Parameter<'_>; 7] {
        [
            (&self.after, Type::INT8),
            (&self.since, Type::INT8),
            (&self.at, Type::INT8),
            (&self.whose.ca, Type::INT8),
            (&self.whose.kind, Type::INT8),
            (&self.whose.is_host, Type::BOOL),
            (&self.most, Type::INT8),
        ]
    }

    fn read(count: &[Row], some: &[Row]) -> Result<Live, Failure> {
        let certificate = |row: &Row| -> Result<LiveCertificate, Failure> {
            let event = rows::body(row, 3)?;
            Ok(LiveCertificate::of(&event, rows::read_serial(row, 0)?, row.try_get(1)?, row.try_get(2)?))
        };
        let row = count.first().ok_or_else(reads::gone)?;
        Ok(Live {
            count: rows::read_serial(row, 0)?,
            last_end: row.try_get(1)?,
            some: some.iter().map(certificate).collect::<Result<_, _>>()?,
        })
    }
}

impl CaStore for Postgres {
    fn cas(&self) -> BoxFuture<'_, Result<CaSet>> {
        let seal = &self.shared.seal;
        Box::pin(async move { self.read(|client, _| async move { read(&client).await }).await?.judge(seal) })
    }

    fn change_cas(&self, change: CaChange) -> BoxFuture<'_, Result<CaChanged>> {
        Box::pin(async move {
            let mut since = None;
            if let Some((ca, at)) = change.none_live {
                let (live, whose, last) = self.look(ca, at).await?;
                if live.count > 0 {
                    return Ok(CaChanged::Live(live));
                }
                since = Some(Asked::new(whose, at, last));
            }
            let change = Arc::new(change);
            let put = move |shared: Arc<Shared>, client: Arc<Connection>, was_tried| {
                let change = Arc::clone(&change);
                async move { put(&client, &shared, &change, since, was_tried).await }
            };
            self.write(PATIENCE, put).await?
        })
    }

    fn live(&self, ca: i64, at: i64) -> BoxFuture<'_, Result<Live>> {
        Box::pin(async move { Ok(self.look(ca, at).await?.0) })
    }

    fn replicas(&self) -> BoxFuture<'_, Result<Vec<Replica>>> {
        Box::pin(self.read(|client, _| async move { shared::replicas(&client).await }))
    }
}

impl Postgres {
    /// The certificates of a CA that live, whose they are, and the last event by then.
    async fn look(&self, ca: i64, at: i64) -> Result<(Live, Whose, i64)> {
        let seal = &self.shared.seal;
        let look = move |client: Arc<Connection>, _| async move { look(&client, seal, ca, at).await };
        again_within(&self.shared.pool, CANNOT_READ, WHOLE_TRAIL, look).await?
    }
}

async fn look(client: &Client, seal: &Seal, ca: i64, at: i64) -> Result<Result<(Live, Whose, i64)>, Failure> {
    const LAST: &str = "SELECT coalesce(max(sequence), 0) FROM machine_id.events";
    let whose = match read(client).await?.judge(seal).and_then(|set| Whose::of(&set, ca)) {
        Ok(whose) => whose,
        Err(error) => return Ok(Err(error)),
    };
    let asked = Asked::new(whose, at, 0);
    let all = asked.parameters();
    let (count, _) = all.split_at(6);
    let statements: [Statement<'_>; 3] = [(LAST, &[]), (COUNT, count), (SOME, &all)];
    let found = transaction::read_within(client, transaction::TRAIL, &statements).await?;
    let [last, count, some] = found.as_slice() else { return Err(reads::gone()) };
    let last = last.first().ok_or_else(reads::gone)?.try_get(0)?;
    Ok(Ok((Asked::read(count, some)?, whose, last)))
}

/// What there is of them.
pub(super) async fn read(client: &Client) -> Result<KeptCas, Failure> {
    kept(&transaction::read(client, &[(STATE, &[]), (ROWS, &[])]).await?)
}

/// What [`STATE`] and [`ROWS`] say.
fn kept(found: &[Vec<Row>]) -> Result<KeptCas, Failure> {
    let [state, keys, ..] = found else { return Err(reads::gone()) };
    let state = state.first().ok_or_else(reads::gone)?;
    let row = |row: &Row| -> Result<_, Failure> {
        let key = CaRow {
            number: row.try_get(0)?,
            kind: row.try_get(1)?,
            name: row.try_get(2)?,
            id: row.try_get(3)?,
            is_first: row.try_get(4)?,
            state: row.try_get(5)?,
            public: row.try_get(6)?,
            endorsements: row.try_get(7)?,
            crossed: row.try_get(8)?,
            sealed: row.try_get(9)?,
            since: row.try_get(10)?,
        };
        Ok((key, row.try_get(11)?))
    };
    let rows = keys.iter().map(row).collect::<Result<_, _>>()?;
    Ok(KeptCas { number: state.try_get(0)?, mac: state.try_get(1)?, rows })
}

/// Makes another set of them, unless it is another by now, or a certificate that is not to be there was issued since it was
/// looked for. Where it `was_tried`, it may be that set.
async fn put(
    client: &Client,
    shared: &Shared,
    change: &CaChange,
    since: Option<Asked>,
    was_tried: bool,
) -> Result<Result<CaChanged>, Failure> {
    let known = &shared.known;
    let all = since.as_ref().map(Asked::parameters);
    let mut statements: Vec<Statement<'_>> = vec![(STATE, &[]), (ROWS, &[])];
    if let Some((all, (count, _))) = all.as_ref().map(|all| (all, all.split_at(6))) {
        statements.extend([(COUNT, count), (SOME, all.as_slice())]);
    }
    let found = transaction::begin(client, known, Judged::now(known), &statements).await?;
    let before = kept(&found)?;
    let answer = match before.judge(&shared.seal) {
        Err(error) => Err(Err(error)),
        Ok(set) if was_tried && is_done(&set, change) => Err(Ok(CaChanged::Done(set))),
        Ok(set) if set.number != change.expected => Err(Ok(CaChanged::Outdated)),
        Ok(set) => Ok(set),
    };
    let live = match found.as_slice() {
        [_, _, count, some] => Some(Asked::read(count, some)?).filter(|live| live.count > 0),
        _ => None,
    };
    let answer = answer.and_then(|set| match live {
        Some(live) => Err(Ok(CaChanged::Live(live))),
        None => before.change(set, change, &shared.seal).map_err(Err),
    });
    let Changed { set, kept } = match answer {
        Ok(changed) => changed,
        Err(answer) => {
            transaction::finish(client, known, &[]).await?;
            return Ok(answer);
        }
    };
    let parameters: Vec<[Parameter<'_>; 12]> = kept.rows.iter().map(|(row, mac)| of_row(row, mac)).collect();
    let event = event::rotated(change, &set);
    let mut columns = Columns::default();
    columns.add(&event, &[], None, &shared.seal);
    let recorded = columns.parameters();
    let numbers: [Parameter<'_>; 3] =
        [(&kept.number, Type::INT8), (&kept.mac, Type::BYTEA), (&ROTATES_POSTGRES, Type::INT8)];
    let mut statements: Vec<Statement<'_>> = parameters.iter().map(|row| (PUT, row.as_slice())).collect();
    statements.extend([(RECORD, &recorded[..]), (CHANGE, &numbers)]);
    let done = transaction::finish(client, known, &statements).await?;
    if let Some(row) = done.last().and_then(|rows| rows.first()) {
        known.revoked(row.try_get(0)?);
    }
    known.hear_cas(set.number);
    Ok(Ok(CaChanged::Done(set)))
}

fn of_row<'a>(row: &'a CaRow, mac: &'a Option<Vec<u8>>) -> [Parameter<'a>; 12] {
    let CaRow { number, kind, name, id, is_first, state, public, endorsements, crossed, sealed, since } = row;
    [
        (number, Type::INT8),
        (kind, Type::TEXT),
        (name, Type::TEXT),
        (id, Type::TEXT),
        (is_first, Type::INT8),
        (state, Type::TEXT),
        (public, Type::TEXT),
        (endorsements, Type::TEXT),
        (crossed, Type::TEXT),
        (sealed, Type::BYTEA),
        (since, Type::INT8),
        (mac, Type::BYTEA),
    ]
}

/// Has the seal judge all of them.
pub(super) async fn judge_all(client: &Client, seal: &Seal) -> Result<(), Failure> {
    // The log names those that do not hold, and they are carried as they are.
    drop(read(client).await?.judge(seal));
    Ok(())
}
