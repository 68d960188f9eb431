//! Locks as they are read, each as its seal says.

use tokio_postgres::Row;

use super::super::locks::{Lock, LockKind};
use super::super::seal::Seal;
use super::failure::Failure;

/// All of them, by when they were put.
pub(super) const LOCKS: &str = "SELECT id, kind, value, until, held_to_run, message, put_by, put_at, met, lifted, lifted_by, mac FROM machine_id.locks ORDER BY number";

/// What the rows of [`LOCKS`] say; with no seal as they are written.
pub(super) fn read_rows(rows: &[Row], seal: Option<&Seal>) -> Result<Vec<Lock>, Failure> {
    let read = |row: &Row| -> Result<Lock, Failure> {
        let (until, run): (Option<i64>, Option<i64>) = (row.try_get(3)?, row.try_get(4)?);
        let (lifted, lifted_by): (Option<i64>, Option<String>) = (row.try_get(9)?, row.try_get(10)?);
        let lock = Lock {
            id: row.try_get(0)?,
            kind: LockKind::of_name(row.try_get(1)?),
            value: row.try_get(2)?,
            until: until.zip(run),
            message: row.try_get(5)?,
            by: row.try_get(6)?,
            at: row.try_get(7)?,
            met: Lock::read_met(row.try_get(8)?),
            lifted: lifted.zip(lifted_by),
        };
        let mac: Option<&[u8]> = row.try_get(11)?;
        Ok(match seal {
            Some(seal) => lock.judged(mac, seal),
            None => lock,
        })
    };
    rows.iter().map(read).collect()
}
