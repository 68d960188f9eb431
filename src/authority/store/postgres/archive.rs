//! The store as rows, for what carries them to another one (`store/transfer.rs`). It takes the database's owner: no
//! server can close a store or fill one.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio_postgres::types::{ToSql, Type as Sql};
use tokio_postgres::{Client, Row as Found};

use super::super::ca_schema::ROTATES_POSTGRES;
use super::super::closed::Closed;
use super::super::loss::{GoneOnWith, Loss, Mark, Reached};
use super::super::seal::{Seal, StoreKey};
use super::super::transfer::tables::{Cell, Row, Table, Type};
use super::super::transfer::{Archive, Numbers, PAGE, RECORDS, Standing, Which, Write};
use super::failure::Failure;
use super::pool::{Connection, Pool};
use super::reads::State;
use super::transaction::{self, Parameter, Statement};
use super::work::{MARK, PATIENCE, WHOLE_TRAIL, again, again_within, give_back, write_mark};
use super::{Postgres, cas, instances, reads, upgrade, usable};
use crate::error::Result;

const CANNOT: &str = "cannot carry the store's rows";

/// So many certificates are summed up by one statement.
const SUMMED: i64 = 50_000;

/// A store in PostgreSQL, as rows, for the owner of the database.
#[derive(Debug)]
pub struct PostgresArchive {
    pool: Pool,
    place: String,
    store: String,
    key: StoreKey,
    seal: Seal,
}

impl PostgresArchive {
    /// The store that records are brought from: it is as it must be to be served.
    ///
    /// # Errors
    /// As [`Postgres::open`]; `Kind::Usage` where this role is not the owner.
    pub async fn source(pool: Pool, place: &str, key: &StoreKey) -> Result<Self> {
        let archive = Self::target(pool.clone(), place, key).await?;
        match Postgres::open(pool, key).await {
            Err(error) if super::super::closed::closed(&error).is_none() => return Err(error),
            // Why it is closed is seen again.
            opened => drop(opened),
        }
        // By its mark, too.
        archive.state().await?.lost.map_or(Ok(archive), |words| {
            Err(Loss::told(words).error("cannot carry a store that has lost records"))
        })
    }

    /// The one that they are brought to: its tables are there.
    ///
    /// # Errors
    /// `Kind::Usage` where there are none, they are of another version, this role is not the owner, or rows of another key
    /// are there.
    pub async fn target(pool: Pool, place: &str, key: &StoreKey) -> Result<Self> {
        let seal = key.load()?;
        usable(&pool).await?;
        again(&pool, CANNOT, PATIENCE, |client, _| async move { upgrade::check_owner(&client).await })
            .await??;
        let mut archive =
            Self { pool, place: place.to_owned(), store: String::new(), key: key.clone(), seal };
        let State { store, seal_check, .. } = archive.state().await?;
        if seal_check.is_some_and(|kept| !archive.seal.is_known_by(&store, &kept)) {
            return Err(key.wrong());
        }
        archive.store = store;
        Ok(archive)
    }

    async fn state(&self) -> Result<State> {
        again(&self.pool, CANNOT, PATIENCE, |client, _| async move { reads::state(&client).await }).await
    }

    /// Not again by itself: it may have been done.
    async fn write_all(&self, closed: Option<&Closed>, what: &[Write]) -> Result<()> {
        let connection = self.pool.get().await?;
        let done = self.write_on(&connection, closed, what).await;
        give_back(connection, &done);
        let reached = done.map_err(|failure| failure.error(CANNOT))??;
        // A mark that is there is the other store's.
        match what.iter().any(|write| matches!(write, Write::Closed(None))) {
            true => write_mark(&self.key, &Mark { store: self.store.clone(), reached }),
            false => Ok(()),
        }
    }

    async fn write_on(
        &self,
        client: &Client,
        closed: Option<&Closed>,
        what: &[Write],
    ) -> Result<Result<Reached>, Failure> {
        let state = transaction::begin_as_owner(client).await?;
        let row = state.first().ok_or_else(reads::gone)?;
        if row.try_get::<_, &str>(0)? != self.store {
            return Err(Failure::Displaced("the database holds another store by now".to_owned()));
        }
        if let Err(error) = Closed::must_be(Closed::read(row.try_get(1)?), closed) {
            transaction::finish_as_owner(client, &[]).await?;
            return Ok(Err(error));
        }
        if let Some(words) = row.try_get(2)? {
            return Err(Loss::told(words).into());
        }
        let puts: Vec<Put> = what.iter().map(|write| Put::new(write, &self.store, &self.seal)).collect();
        let parameters: Vec<Vec<Parameter<'_>>> = puts.iter().map(Put::parameters).collect();
        let statements: Vec<Statement<'_>> =
            puts.iter().zip(&parameters).map(|(put, given)| (put.sql.as_str(), given.as_slice())).collect();
        Ok(Ok(transaction::finish_as_owner(client, &statements).await?))
    }
}

type Value = Box<dyn ToSql + Sync + Send>;

/// A statement with what it is given.
struct Put {
    sql: String,
    values: Vec<(Value, Sql)>,
}

impl Put {
    fn new(what: &Write, store: &str, seal: &Seal) -> Self {
        let number = |number: Option<i64>| -> (Value, Sql) { (Box::new(number), Sql::INT8) };
        match what {
            Write::Rows(table, rows) => Self::rows(table, rows),
            Write::Numbers(Numbers { list_number, run, forgotten, restored, kept, cas }) => {
                let numbers =
                    [Some(*list_number), Some(*run), Some(*forgotten), *restored, Some(kept.0), Some(kept.1)];
                let mac = restored.map(|time| seal.of(&GoneOnWith(store, time)).to_vec());
                let bytes = |bytes: Option<Vec<u8>>| -> (Value, Sql) { (Box::new(bytes), Sql::BYTEA) };
                let rest =
                    [bytes(mac), number(Some(cas.0)), bytes(cas.1.clone()), number(Some(ROTATES_POSTGRES))];
                Self {
                    sql: "UPDATE machine_id.state SET list_number = greatest(list_number, $1), run = greatest(run, $2),
                            forgotten = greatest(forgotten, $3), restored = $4, kept_from = $5, kept_run = $6,
                            restored_mac = $7, cas = $8, cas_mac = $9,
                            oldest = CASE WHEN $8 > 0 THEN greatest(oldest, $10) ELSE oldest END"
                        .to_owned(),
                    values: numbers.map(number).into_iter().chain(rest).collect(),
                }
            }
            Write::Closed(closed) => Self {
                sql: "UPDATE machine_id.state SET closed = $1".to_owned(),
                values: vec![(Box::new(closed.as_ref().map(Closed::text)), Sql::TEXT)],
            },
            Write::Moving(place) => Self {
                sql: "UPDATE machine_id.state SET moving = $1".to_owned(),
                values: vec![(Box::new(place.clone()), Sql::TEXT)],
            },
        }
    }

    /// All rows at once, column by column.
    fn rows(table: &Table, rows: &[Row]) -> Self {
        let (name, columns, end) = (table.name, table.list(str::to_owned), table.or_else());
        let values = table.columns.iter().enumerate().map(|(nth, (_, kind))| {
            let cells = rows.iter().map(|row| row.get(nth));
            values(cells, *kind)
        });
        let places: Vec<String> = (1..=table.columns.len()).map(|nth| format!("${nth}")).collect();
        let places = places.join(", ");
        let sql = format!(
            "INSERT INTO machine_id.{name} ({columns}) SELECT {columns} FROM unnest({places}) AS new ({columns}) {end}"
        );
        Self { sql, values: values.collect() }
    }

    fn parameters(&self) -> Vec<Parameter<'_>> {
        self.values.iter().map(|(value, kind)| -> Parameter<'_> { (&**value, kind.clone()) }).collect()
    }
}

/// The values of a column, as an array.
fn values<'a>(cells: impl Iterator<Item = Option<&'a Cell>>, kind: Type) -> (Value, Sql) {
    fn all<'a, T>(
        cells: impl Iterator<Item = Option<&'a Cell>>,
        value: impl Fn(&Cell) -> Option<T>,
    ) -> Vec<Option<T>> {
        cells.map(|cell| cell.and_then(&value)).collect()
    }
    match kind {
        Type::Integer => (Box::new(all(cells, Cell::integer)), Sql::INT8_ARRAY),
        Type::Real => (Box::new(all(cells, Cell::real)), Sql::FLOAT8_ARRAY),
        Type::Text => (Box::new(all(cells, |cell| cell.text().map(str::to_owned))), Sql::TEXT_ARRAY),
        Type::Bytes => (Box::new(all(cells, |cell| cell.bytes().map(<[u8]>::to_vec))), Sql::BYTEA_ARRAY),
    }
}

/// What stands in a column.
fn cell(row: &Found, nth: usize, kind: Type) -> Result<Cell, Failure> {
    let value = match kind {
        Type::Integer => row.try_get::<_, Option<i64>>(nth)?.map(Cell::Integer),
        Type::Real => row.try_get::<_, Option<f64>>(nth)?.map(Cell::Real),
        Type::Text => row.try_get::<_, Option<String>>(nth)?.map(Cell::Text),
        Type::Bytes => row.try_get::<_, Option<Vec<u8>>>(nth)?.map(Cell::Bytes),
    };
    Ok(value.unwrap_or(Cell::Null))
}

async fn read_rows(client: &Client, table: &Table, which: &Which<'_>) -> Result<Vec<Row>, Failure> {
    let (key, name, columns) = (table.key_list(), table.name, table.list(str::to_owned));
    let select = format!("SELECT {columns} FROM machine_id.{name}");
    let found = match which {
        Which::After(after, most) => {
            let places: Vec<String> = (1..=after.len()).map(|nth| format!("${nth}")).collect();
            let behind = match places.as_slice() {
                [] => String::new(),
                places => format!("WHERE ({key}) > ({})", places.join(", ")),
            };
            let sql = format!("{select} {behind} ORDER BY {key} LIMIT {most}");
            let after: Vec<(Value, Sql)> = after.iter().map(key_value).collect();
            let after: Vec<Parameter<'_>> =
                after.iter().map(|(value, kind)| -> Parameter<'_> { (&**value, kind.clone()) }).collect();
            reads::rows(client, &sql, &after).await?
        }
        Which::Of(after, last) => {
            let sql = format!("{select} WHERE issuance > $1 AND issuance <= $2 ORDER BY issuance, serial");
            reads::rows(client, &sql, &[(after, Sql::INT8), (last, Sql::INT8)]).await?
        }
        Which::Strays(after) => {
            let sql = format!(
                "{select} WHERE serial > $1 AND NOT EXISTS (SELECT FROM machine_id.events WHERE sequence = issuance)
                 ORDER BY serial LIMIT {PAGE}"
            );
            let read: [Statement<'_>; 1] = [(&sql, &[(after, Sql::INT8)])];
            transaction::read_within(client, transaction::TRAIL, &read).await?.into_iter().flatten().collect()
        }
        Which::Serials(serials) => {
            let sql = format!("{select} WHERE serial = ANY ($1) ORDER BY serial");
            reads::rows(client, &sql, &[(serials, Sql::INT8_ARRAY)]).await?
        }
    };
    let row = |found: &Found| {
        let cell = |(nth, (_, kind)): (usize, &(&str, Type))| cell(found, nth, *kind);
        table.columns.iter().enumerate().map(cell).collect()
    };
    found.iter().map(row).collect()
}

/// A part of a key.
fn key_value(cell: &Cell) -> (Value, Sql) {
    match cell {
        Cell::Integer(number) => (Box::new(*number), Sql::INT8),
        Cell::Text(text) => (Box::new(text.clone()), Sql::TEXT),
        Cell::Bytes(bytes) => (Box::new(bytes.clone()), Sql::BYTEA),
        Cell::Real(number) => (Box::new(*number), Sql::FLOAT8),
        Cell::Null => (Box::new(None::<i64>), Sql::INT8),
    }
}

async fn read_standing(client: &Client, seal: &Seal) -> Result<Standing, Failure> {
    let empty = RECORDS.map(|table| format!("NOT EXISTS (SELECT FROM machine_id.{table})")).join(" AND ");
    let sql = format!(
        "SELECT store, closed, (SELECT coalesce(max(sequence), 0) FROM machine_id.events), {empty},
            list_number, run, forgotten, restored, kept_from, kept_run, restored_mac, cas, cas_mac FROM machine_id.state"
    );
    let found = reads::rows(client, &sql, &[]).await?;
    let row = found.first().ok_or_else(reads::gone)?;
    let numbers = Numbers {
        list_number: row.try_get(4)?,
        run: row.try_get(5)?,
        forgotten: row.try_get(6)?,
        restored: row.try_get(7)?,
        kept: (row.try_get(8)?, row.try_get(9)?),
        cas: (row.try_get(11)?, row.try_get(12)?),
    };
    let store: String = row.try_get(0)?;
    // What is carried gets a seal there.
    if let Some(time) = numbers.restored
        && !seal.holds(&GoneOnWith(&store, time), row.try_get(10)?)
    {
        return Err(Loss::unsealed(numbers.restored).into());
    }
    Ok(Standing {
        store,
        closed: Closed::read(row.try_get(1)?),
        last: row.try_get(2)?,
        is_empty: row.try_get(3)?,
        numbers,
    })
}

/// A part of what certificates come to, behind that serial, and the last of them.
async fn sum(client: &Client, after: i64) -> Result<([i64; 3], Option<i64>), Failure> {
    const SQL: &str = "SELECT count(*), count(revoked), coalesce(sum(revoked % 1000003), 0)::bigint, max(serial)
        FROM (SELECT serial, revoked FROM machine_id.certificates WHERE serial > $1 ORDER BY serial LIMIT $2) AS next";
    let found = reads::rows(client, SQL, &[(&after, Sql::INT8), (&SUMMED, Sql::INT8)]).await?;
    let row = found.first().ok_or_else(reads::gone)?;
    Ok(([row.try_get(0)?, row.try_get(1)?, row.try_get(2)?], row.try_get(3)?))
}

impl Archive for PostgresArchive {
    fn place(&self) -> String {
        self.place.clone()
    }

    fn standing(&mut self) -> BoxFuture<'_, Result<Standing>> {
        let seal = &self.seal;
        Box::pin(again(&self.pool, CANNOT, PATIENCE, move |client, _| async move {
            read_standing(&client, seal).await
        }))
    }

    fn rows<'a>(&'a mut self, table: &'static Table, which: Which<'a>) -> BoxFuture<'a, Result<Vec<Row>>> {
        Box::pin(async move {
            let which = &which;
            again_within(&self.pool, CANNOT, WHOLE_TRAIL, move |client, _| async move {
                read_rows(&client, table, which).await
            })
            .await
        })
    }

    fn certificates(&mut self) -> BoxFuture<'_, Result<[i64; 3]>> {
        Box::pin(async {
            let (mut all, mut after) = ([0; 3], Some(-1));
            while let Some(behind) = after {
                let work = |client: Arc<Connection>, _| async move { sum(&client, behind).await };
                let (part, last) = again(&self.pool, CANNOT, PATIENCE, work).await?;
                all.iter_mut().zip(part).for_each(|(all, part): (&mut i64, i64)| *all += part);
                after = last;
            }
            Ok(all)
        })
    }

    fn judge<'a>(&'a mut self, seal: &'a Seal) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let work = |client: Arc<Connection>, _| async move {
                cas::judge_all(&client, seal).await?;
                instances::judge_all(&client, seal).await
            };
            again(&self.pool, CANNOT, PATIENCE, work).await?;
            let mut after = Some(Vec::new());
            while let Some(behind) = &after {
                let work = |client: Arc<Connection>, _| async move {
                    reads::judge_proofs(&client, behind, seal).await
                };
                after = again(&self.pool, CANNOT, PATIENCE, work).await?;
            }
            Ok(())
        })
    }

    fn is_marked_as(&self, store: &str) -> Result<bool> {
        let mark = Mark::read(&self.key.folder().join(MARK), self.key.owner())?;
        Ok(mark.is_some_and(|mark| mark.store == store))
    }

    fn write<'a>(&'a mut self, closed: Option<&'a Closed>, what: Vec<Write>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.write_all(closed, &what).await })
    }
}
