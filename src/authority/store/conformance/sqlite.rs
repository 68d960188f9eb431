//! SQLite's database of a test.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;
use tempfile::TempDir;

use super::super::Store;
use super::super::seal::StoreKey;
use super::super::sqlite::Sqlite;
use super::fixtures::NOW;
use crate::error::Result;

#[derive(Debug)]
pub(super) struct Database(TempDir);

pub(super) fn engine() -> Database {
    let database = Database(tempfile::tempdir().unwrap());
    Sqlite::create(&database.path(), &StoreKey::beside(&database.path())).unwrap();
    database
}

impl Database {
    fn path(&self) -> PathBuf {
        self.0.path().join("authority.db")
    }
}

/// What a query of an administrator answers, at the file.
pub(in crate::authority::store) fn number(file: &Path, sql: &str) -> i64 {
    Connection::open(file).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
}

/// Has an administrator meddle with the file.
pub(in crate::authority::store) fn meddle(file: &Path, sql: &str) -> std::result::Result<(), String> {
    Connection::open(file).unwrap().execute_batch(sql).map_err(|error| error.to_string())
}

impl super::Engine for Database {
    fn open(&self) -> Result<Arc<dyn Store>> {
        Ok(Arc::new(Sqlite::open(&self.path(), &StoreKey::beside(&self.path()), NOW)?))
    }

    fn number(&self, sql: &str) -> i64 {
        number(&self.path(), sql)
    }

    fn put_back(&self, last: i64) {
        let connection = Connection::open(self.path()).unwrap();
        connection.pragma_update(None, "foreign_keys", false).unwrap();
        let text = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
        let guards = "FROM sqlite_schema WHERE type = 'trigger' AND tbl_name IN ('events', 'certificates')";
        let without = text(&format!("SELECT group_concat('DROP TRIGGER ' || name, ';') {guards}"));
        let with = text(&format!("SELECT group_concat(sql, ';') {guards}"));
        let sql = format!(
            "{without}; DELETE FROM events WHERE sequence > {last};
             DELETE FROM proofs WHERE certificate IN (SELECT serial FROM certificates WHERE issuance > {last});
             DELETE FROM certificates WHERE issuance > {last}; {with};"
        );
        connection.execute_batch(&sql).unwrap();
    }

    fn meddle(&self, sql: &str) -> std::result::Result<(), String> {
        meddle(&self.path(), sql)
    }
}
