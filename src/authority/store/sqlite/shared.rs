//! What authorities tell one another through the store: how far limits are used, and that they are there.

use rusqlite::{Connection, params};

use super::super::replicas::{Announced, LIVE, Replica};
use crate::authority::limits::{FREE, Level, Spent};

/// Adds what was used, at `now` in milliseconds of the odometer, and forgets limits that are free. Of an odometer
/// that is behind another's no time has passed: it would else pass twice.
pub(super) fn spend(connection: &Connection, spent: &[Spent], now: i64) -> rusqlite::Result<()> {
    let mut add = connection.prepare_cached(
        "INSERT INTO usage (key, level, at) VALUES (?1, ?2 - ?3, ?4) ON CONFLICT (key) DO UPDATE
         SET level = ?2 + max(level - max(?4 - at, 0) / 1000.0, -?3), at = max(at, ?4)",
    )?;
    for Spent { key, seconds, age } in spent {
        add.execute(params![key, seconds, age, now])?;
    }
    connection
        .prepare_cached("DELETE FROM usage WHERE level - max(?1 - at, 0) / 1000.0 < -?2")?
        .execute(params![now, FREE])
        .map(drop)
}

/// How far every limit is used, at `now`.
pub(super) fn levels(connection: &Connection, now: i64) -> rusqlite::Result<Vec<Level>> {
    connection
        .prepare_cached("SELECT key, level - max(?1 - at, 0) / 1000.0 FROM usage")?
        .query_map([now], |row| Ok(Level { key: row.get(0)?, seconds: row.get(1)? }))?
        .collect()
}

/// Says that this authority is there; the first that has keys of a kind says which the store is of.
pub(super) fn announce(connection: &Connection, replica: &Replica) -> rusqlite::Result<()> {
    let mut add = connection.prepare_cached(
        "INSERT INTO cas (key, since) SELECT ?1, unixepoch()
         WHERE NOT EXISTS (SELECT 1 FROM cas WHERE substr(key, 1, instr(key, ' ')) = substr(?1, 1, instr(?1, ' ')))",
    )?;
    replica.keys.iter().try_for_each(|key| add.execute([key]).map(drop))?;
    // One that is from the future is of a clock that was put back.
    connection.prepare_cached("DELETE FROM replicas WHERE abs(unixepoch() - seen) > ?1")?.execute([LIVE])?;
    let Replica { id, name, policy, version, .. } = replica;
    #[cfg(feature = "next-schema")]
    connection.execute(super::super::next_schema::SEEN_SQLITE, [id])?;
    connection
        .prepare_cached(
            "REPLACE INTO replicas (id, name, keys, policy, version, seen)
             VALUES (?1, ?2, ?3, ?4, ?5, unixepoch())",
        )?
        .execute([id, name, &replica.lines(), policy, version])
        .map(drop)
}

/// Who is there beside the one of that id.
pub(super) fn announced(connection: &Connection, id: &str) -> rusqlite::Result<Announced> {
    let keys = connection
        .prepare_cached("SELECT key FROM cas ORDER BY key")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let others = connection
        .prepare_cached(
            "SELECT id, name, keys, policy, version, seen FROM replicas
             WHERE id <> ?1 AND abs(unixepoch() - seen) <= ?2 ORDER BY name, id",
        )?
        .query_map(params![id, LIVE], |row| row.try_into().map(Replica::of_row))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Announced { keys, others })
}
