//! Which versions of the schema a machine-id works with. A store says of which version its tables are, and the oldest
//! version whose machine-id does right by them: that one goes on, and may be gone back to.

use crate::error::{Error, Result};

/// What to do about a store that takes a newer machine-id.
pub(super) const NEWER: &str = "use the machine-id that wrote it, or a newer one";

/// Whether a machine-id that knows the schema up to version `known` may use a store of version `version`.
///
/// # Errors
/// `Kind::Usage` where it would do it wrong.
pub(super) fn admit(version: i64, oldest: i64, known: i64) -> Result<()> {
    if oldest <= known {
        return Ok(());
    }
    Err(newer(version, known)
        .hint(format!("no machine-id that does not know version {oldest} gets it right: there is no way back to this one"))
        .hint("a backup of before has forgotten what was issued and revoked since"))
}

/// Whether it knows all that the store holds, as it must to carry it elsewhere or to change its tables.
///
/// # Errors
/// `Kind::Usage` where it does not.
pub(super) fn know_all(version: i64, known: i64) -> Result<()> {
    if version > known { Err(newer(version, known)) } else { Ok(()) }
}

fn newer(version: i64, known: i64) -> Error {
    Error::usage(format!(
        "the store was written by a newer machine-id: its schema is version {version}, this machine-id knows up to {known}"
    ))
    .hint(NEWER)
}
