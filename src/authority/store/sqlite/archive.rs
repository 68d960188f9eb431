//! The store as rows, for what carries them to another one (`store/transfer.rs`).

use std::future::ready;
use std::path::{Path, PathBuf};

use futures_util::future::{BoxFuture, FutureExt as _};
use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, ToSql, TransactionBehavior, params, params_from_iter};

use super::super::ca_schema::ROTATES_SQLITE;
use super::super::closed::Closed;
use super::super::loss::{Loss, Mark};
use super::super::packed::pack;
use super::super::seal::{Seal, StoreKey};
use super::super::transfer::tables::{Cell, EVENTS, Row, Table, Type};
use super::super::transfer::{Archive, Numbers, PAGE, RECORDS, Standing, Which, Write};
use super::super::version;
use super::outside::{reached, write_mark};
use super::unwritten::Unwritten;
use super::{Sqlite, ca_rows, closing, instances, rows, schema};
use crate::error::{Context as _, Kind, Result};

const CANNOT: &str = "cannot carry the store's rows";

/// A store in a file of SQLite, as rows.
#[derive(Debug)]
pub struct SqliteArchive {
    connection: Connection,
    path: PathBuf,
    place: String,
}

impl SqliteArchive {
    /// The store at `path` that records are brought from: it is as it must be to be served.
    ///
    /// # Errors
    /// As [`Sqlite::open`].
    pub fn source(path: &Path, place: &str, key: &StoreKey, now: i64) -> Result<Self> {
        match Sqlite::open(path, key, now) {
            Err(error) if super::super::closed::closed(&error).is_none() => return Err(error),
            // Why it is closed is seen again.
            opened => drop(opened),
        }
        let source = Self::known(path, place, key)?;
        let lost: Option<String> = source
            .connection
            .query_row("SELECT lost FROM state", [], |row| row.get(0))
            .context(Kind::Internal, CANNOT)?;
        // What it lacks would be missing in the other one without a word.
        lost.map_or(Ok(source), |words| {
            Err(Loss::told(words).error("cannot carry a store that has lost records"))
        })
    }

    /// The one that they are brought to, which is made where there is none.
    ///
    /// # Errors
    /// As [`Sqlite::open`].
    pub fn target(path: &Path, place: &str, key: &StoreKey) -> Result<Self> {
        if std::fs::metadata(path).map_or(0, |file| file.len()) == 0 {
            Sqlite::create(path, key)?;
        }
        Self::known(path, place, key)
    }

    /// One that is there.
    ///
    /// # Errors
    /// As [`Sqlite::open`].
    pub fn known(path: &Path, place: &str, key: &StoreKey) -> Result<Self> {
        super::told("open", path, |path| {
            schema::check_files(path, key.owner(), true)?;
            let (connection, ()) = schema::open(path, false, |_| Ok(()))?;
            version::know_all(schema::version(&connection, false)?, schema::newest())?;
            // Certificates come before the workers that they are of. All is compared in the end.
            connection.pragma_update(None, "foreign_keys", false).context(Kind::Internal, CANNOT)?;
            Ok(Self { connection, path: path.to_owned(), place: place.to_owned() })
        })
    }

    fn read_standing(&self) -> rusqlite::Result<Standing> {
        let empty = RECORDS.map(|table| format!("NOT EXISTS (SELECT 1 FROM {table})")).join(" AND ");
        let sql = format!(
            "SELECT store, closed, list_number, run, forgotten, restored, {empty}, kept_from, kept_run, cas, cas_mac FROM state"
        );
        let last = reached(&self.connection)?.sequence;
        self.connection.query_row(&sql, [], |row| {
            let numbers = Numbers {
                list_number: row.get(2)?,
                run: row.get(3)?,
                forgotten: row.get(4)?,
                restored: row.get(5)?,
                kept: (row.get(7)?, row.get(8)?),
                cas: (row.get(9)?, row.get(10)?),
            };
            let closed = Closed::read(row.get(1)?);
            Ok(Standing { store: row.get(0)?, closed, last, is_empty: row.get(6)?, numbers })
        })
    }

    fn read_rows(&self, table: &Table, which: &Which<'_>) -> rusqlite::Result<Vec<Row>> {
        let (key, name) = (table.key_list(), table.name);
        let columns = table.list(|column| of(table, column));
        let select = |sql: &str, parameters: &[&dyn ToSql]| {
            let sql = format!("SELECT {columns} FROM {name} {sql}");
            let mut statement = self.connection.prepare_cached(&sql)?;
            let rows = statement.query_map(parameters, |row| {
                let cell = |(nth, (_, kind)): (usize, &(&str, Type))| Ok(cell(row.get_ref(nth)?, *kind));
                table.columns.iter().enumerate().map(cell).collect()
            })?;
            rows.collect()
        };
        match which {
            Which::After(after, most) => {
                let places: Vec<String> = (1..=after.len()).map(|nth| format!("?{nth}")).collect();
                let behind = match places.as_slice() {
                    [] => String::new(),
                    places => format!("WHERE ({key}) > ({})", places.join(", ")),
                };
                let after: Vec<&dyn ToSql> = after.iter().map(|cell| -> &dyn ToSql { cell }).collect();
                select(&format!("{behind} ORDER BY {key} LIMIT {most}"), &after)
            }
            Which::Of(after, last) => {
                select("WHERE issuance > ?1 AND issuance <= ?2 ORDER BY issuance, serial", &[after, last])
            }
            Which::Strays(after) => {
                let none = "NOT EXISTS (SELECT 1 FROM events WHERE sequence = issuance)";
                select(&format!("WHERE serial > ?1 AND {none} ORDER BY serial LIMIT {PAGE}"), &[after])
            }
            Which::Serials(serials) => {
                let serials = serials.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
                select(&format!("WHERE serial IN ({serials}) ORDER BY serial"), &[])
            }
        }
    }

    fn write_all(&mut self, closed: Option<&Closed>, what: Vec<Write>) -> Result<()> {
        let decides = what.iter().any(|write| matches!(write, Write::Closed(_) | Write::Moving(_)));
        // What is carried counts only with the last commit, which waits for all before it too.
        let level = if decides { "full" } else { "normal" };
        self.connection.pragma_update(None, "synchronous", level).context(Kind::Internal, CANNOT)?;
        let path = self.path.clone();
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .context(Kind::Internal, CANNOT)?;
        closing::expect(&transaction, closed)?;
        let mut opens = false;
        for write in what {
            opens |= matches!(write, Write::Closed(None));
            put(&transaction, write).map_err(Unwritten::from).context(Kind::Internal, CANNOT)?;
        }
        if opens {
            let mark = transaction.query_row("SELECT store FROM state", [], |row| row.get(0));
            let mark = mark.and_then(|store| Ok(Mark { store, reached: reached(&transaction)? }));
            write_mark(&path, &mark.context(Kind::Internal, CANNOT)?)?;
        }
        transaction.commit().map_err(Unwritten::from).context(Kind::Internal, CANNOT)
    }
}

/// Puts something into the tables.
fn put(connection: &Connection, write: Write) -> rusqlite::Result<()> {
    match write {
        Write::Rows(table, rows) => {
            let is_trail = table.name == EVENTS.name;
            // A body of the trail lies where packed ones do.
            let columns =
                table.list(|column| if is_trail && column == "body" { "packed" } else { column }.to_owned());
            let places =
                (1..=table.columns.len()).map(|nth| format!("?{nth}")).collect::<Vec<_>>().join(", ");
            let (more, empty) = if is_trail { (", body", ", ''") } else { ("", "") };
            let name = table.name;
            let end = table.or_else();
            let sql = format!("INSERT INTO {name} ({columns}{more}) VALUES ({places}{empty}) {end}");
            let mut insert = connection.prepare_cached(&sql)?;
            for row in rows {
                insert.execute(params_from_iter(&row))?;
            }
        }
        Write::Numbers(Numbers { list_number, run, forgotten, restored, kept, cas }) => {
            connection.execute(
                "UPDATE state SET list_number = max(list_number, ?1), run = max(run, ?2), forgotten = max(forgotten, ?3),
                    restored = ?4, kept_from = ?5, kept_run = ?6, cas = ?7, cas_mac = ?8,
                    oldest = CASE WHEN ?7 > 0 THEN max(oldest, ?9) ELSE oldest END",
                params![list_number, run, forgotten, restored, kept.0, kept.1, cas.0, cas.1, ROTATES_SQLITE],
            )?;
        }
        Write::Closed(closed) => closing::set(connection, closed.as_ref())?,
        Write::Moving(place) => drop(connection.execute("UPDATE state SET moving = ?1", [place])?),
    }
    Ok(())
}

/// How a column is read.
fn of(table: &Table, column: &'static str) -> String {
    let is_body = table.name == EVENTS.name && column == "body";
    if is_body { "ifnull(packed, body)" } else { column }.to_owned()
}

/// What stands there, as every engine can have it: text without its one character that PostgreSQL's cannot have. A body that
/// is none stays as unreadable as it is.
fn cell(value: ValueRef<'_>, kind: Type) -> Cell {
    match value {
        ValueRef::Null => Cell::Null,
        ValueRef::Integer(number) => Cell::Integer(number),
        ValueRef::Real(number) => Cell::Real(number),
        ValueRef::Text(text) if kind == Type::Bytes => {
            Cell::Bytes(std::str::from_utf8(text).map_or_else(|_| text.to_vec(), pack))
        }
        ValueRef::Text(text) => Cell::Text(String::from_utf8_lossy(text).replace('\0', "\u{fffd}")),
        ValueRef::Blob(bytes) => Cell::Bytes(bytes.to_vec()),
    }
}

impl ToSql for Cell {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Null => ToSqlOutput::Owned(Value::Null),
            Self::Integer(number) => ToSqlOutput::Owned(Value::Integer(*number)),
            Self::Real(number) => ToSqlOutput::Owned(Value::Real(*number)),
            Self::Text(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
            Self::Bytes(bytes) => ToSqlOutput::Borrowed(ValueRef::Blob(bytes)),
        })
    }
}

impl Archive for SqliteArchive {
    fn place(&self) -> String {
        self.place.clone()
    }

    fn standing(&mut self) -> BoxFuture<'_, Result<Standing>> {
        ready(self.read_standing().context(Kind::Internal, CANNOT)).boxed()
    }

    fn rows<'a>(&'a mut self, table: &'static Table, which: Which<'a>) -> BoxFuture<'a, Result<Vec<Row>>> {
        ready(self.read_rows(table, &which).context(Kind::Internal, CANNOT)).boxed()
    }

    fn certificates(&mut self) -> BoxFuture<'_, Result<[i64; 3]>> {
        let sql = "SELECT count(*), count(revoked), ifnull(sum(revoked % 1000003), 0) FROM certificates";
        let counted = self.connection.query_row(sql, [], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]));
        ready(counted.context(Kind::Internal, CANNOT)).boxed()
    }

    fn judge<'a>(&'a mut self, seal: &'a Seal) -> BoxFuture<'a, Result<()>> {
        let judged = instances::judge_all(&self.connection, seal)
            .and_then(|()| rows::judge_all(&self.connection, seal))
            .and_then(|()| ca_rows::judge_all(&self.connection, seal));
        ready(judged.context(Kind::Internal, CANNOT)).boxed()
    }

    fn write<'a>(&'a mut self, closed: Option<&'a Closed>, what: Vec<Write>) -> BoxFuture<'a, Result<()>> {
        ready(self.write_all(closed, what)).boxed()
    }
}
