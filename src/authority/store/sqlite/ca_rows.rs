//! CAs, as rows: read, written and sealed.

use rusqlite::{Connection, Row, params};

use super::super::cas::{CaRow, KeptCas};
use super::super::seal::Seal;

/// What there is of them.
pub(super) fn read(connection: &Connection) -> rusqlite::Result<KeptCas> {
    let (number, mac) = connection
        .prepare_cached("SELECT cas, cas_mac FROM state")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let rows = connection
        .prepare_cached(
            "SELECT number, kind, name, id, is_first, state, public, endorsements, crossed, sealed, since, mac
             FROM ca_keys ORDER BY number",
        )?
        .query_map([], read_row)?
        .collect::<rusqlite::Result<_>>()?;
    Ok(KeptCas { number, mac, rows })
}

fn read_row(row: &Row<'_>) -> rusqlite::Result<(CaRow, Option<Vec<u8>>)> {
    let key = CaRow {
        number: row.get(0)?,
        kind: row.get(1)?,
        name: row.get(2)?,
        id: row.get(3)?,
        is_first: row.get(4)?,
        state: row.get(5)?,
        public: row.get(6)?,
        endorsements: row.get(7)?,
        crossed: row.get(8)?,
        sealed: row.get(9)?,
        since: row.get(10)?,
    };
    Ok((key, row.get(11)?))
}

/// Writes them as they are, with their seals.
pub(super) fn write(connection: &Connection, kept: &KeptCas) -> rusqlite::Result<()> {
    let mut put = connection.prepare_cached(
        "INSERT INTO ca_keys (number, kind, name, id, is_first, state, public, endorsements, crossed, sealed, since, mac)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) ON CONFLICT (number) DO UPDATE SET state = excluded.state,
            endorsements = excluded.endorsements, crossed = excluded.crossed, sealed = excluded.sealed,
            since = excluded.since, mac = excluded.mac",
    )?;
    for (row, mac) in &kept.rows {
        let CaRow { number, kind, name, id, is_first, state, public, endorsements, crossed, sealed, since } =
            row;
        put.execute(params![
            number,
            kind,
            name,
            id,
            is_first,
            state,
            public,
            endorsements,
            crossed,
            sealed,
            since,
            mac
        ])?;
    }
    connection
        .prepare_cached("UPDATE state SET cas = ?1, cas_mac = ?2")?
        .execute(params![kept.number, kept.mac])
        .map(drop)
}

/// Has the seal judge all of them.
pub(super) fn judge_all(connection: &Connection, seal: &Seal) -> rusqlite::Result<()> {
    // The log names those that do not hold, and they are carried as they are.
    drop(read(connection)?.judge(seal));
    Ok(())
}

/// Seals all of them as they are.
pub(super) fn seal_all(connection: &Connection, seal: &Seal) -> rusqlite::Result<()> {
    let kept = read(connection)?;
    if kept.number == 0 { Ok(()) } else { write(connection, &kept.sealed(seal)) }
}
