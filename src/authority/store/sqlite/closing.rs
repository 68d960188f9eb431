//! Whether the file says that nothing may be written to it.

use rusqlite::Connection;

use super::super::closed::Closed;
use super::schema;
use crate::error::{Context as _, Kind, Result};

/// Why it is closed, if it is: to this version, where a newer one has changed the tables while it was open here.
pub(super) fn closed(connection: &Connection) -> rusqlite::Result<Option<Closed>> {
    let mut state = connection.prepare_cached("SELECT closed, oldest FROM state")?;
    let (text, oldest) = state.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(if oldest > schema::newest() { Some(Closed::outgrown(oldest)) } else { Closed::read(text) })
}

/// That it is closed as that says, or open.
pub(super) fn expect(connection: &Connection, wanted: Option<&Closed>) -> Result<()> {
    Closed::must_be(closed(connection).context(Kind::Internal, "cannot read the store")?, wanted)
}

/// Closes it, or opens it again.
pub(super) fn set(connection: &Connection, closed: Option<&Closed>) -> rusqlite::Result<()> {
    connection.execute("UPDATE state SET closed = ?1", [closed.map(Closed::text)]).map(drop)
}
