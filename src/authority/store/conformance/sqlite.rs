//! SQLite's database of a test.

use std::path::PathBuf;
use std::sync::Arc;

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

    fn connection(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.path()).unwrap()
    }
}

impl super::Engine for Database {
    fn open(&self) -> Result<Arc<dyn Store>> {
        Ok(Arc::new(Sqlite::open(&self.path(), &StoreKey::beside(&self.path()), NOW)?))
    }

    fn number(&self, sql: &str) -> i64 {
        self.connection().query_row(sql, [], |row| row.get(0)).unwrap()
    }

    fn meddle(&self, sql: &str) -> std::result::Result<(), String> {
        self.connection().execute_batch(sql).map_err(|error| error.to_string())
    }
}
