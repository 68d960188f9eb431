//! Which key the rows of this file are sealed with; and that those of a file
//! from before there were seals get theirs, once.

use rusqlite::Transaction;

use super::super::seal::{Seal, StoreKey};
use super::{ca_rows, instances, rows};
use crate::error::{Context as _, Kind, Result};

const CANNOT: &str = "cannot seal the store's rows";

/// The key of an opened store, which may not be in its place yet.
pub(super) struct Sealed {
    seal: Seal,
    is_in_place: bool,
}

impl Sealed {
    /// The seal, once the transaction is committed.
    pub(super) fn finish(self, key: &StoreKey) -> Result<Seal> {
        match self.is_in_place {
            true => Ok(self.seal),
            // Another process may have done so.
            false => {
                key.finish().or_else(|error| key.find()?.map_or(Err(error), |_| Ok(()))).map(|()| self.seal)
            }
        }
    }
}

/// Finds the store's key, or makes one; `is_new` where the store is begun now.
///
/// Rows without a seal get one only where the data directory has no key at all,
/// which nobody decides who can write to the store alone: the key is in its
/// place before anything else is answered.
pub(super) fn settle(transaction: &Transaction<'_>, key: &StoreKey, is_new: bool) -> Result<Sealed> {
    let (store, check): (String, Option<Vec<u8>>) = transaction
        .query_row("SELECT store, seal_check FROM state", [], |row| row.try_into())
        .context(Kind::Internal, CANNOT)?;
    let remember = |seal: &Seal| {
        transaction
            .execute("UPDATE state SET seal_check = ?1", [seal.check(&store)])
            .map(drop)
            .context(Kind::Internal, CANNOT)
    };
    let in_place = |seal| Ok(Sealed { seal, is_in_place: true });
    let not_yet = |seal| Ok(Sealed { seal, is_in_place: false });
    match (key.find()?, check) {
        (Some(seal), Some(check)) if seal.is_known_by(&store, &check) => in_place(seal),
        (Some(_), Some(_)) => Err(key.wrong()),
        (Some(seal), None) if is_new => remember(&seal).and_then(|()| in_place(seal)),
        (Some(_), None) => Err(key.newer()),
        // In the middle of that, or put in place just now.
        (None, Some(check)) => match key.begun()?.map_or_else(|| key.find(), |seal| Ok(Some(seal)))? {
            Some(seal) if seal.is_known_by(&store, &check) => not_yet(seal),
            _ => Err(key.missing()),
        },
        (None, None) if is_new => {
            let seal = key.create()?;
            remember(&seal).and_then(|()| in_place(seal))
        }
        (None, None) => {
            let seal = key.begin()?;
            instances::seal_all(transaction, &seal)
                .and_then(|()| rows::seal_all(transaction, &seal))
                .and_then(|()| ca_rows::seal_all(transaction, &seal))
                .context(Kind::Internal, CANNOT)?;
            remember(&seal).and_then(|()| not_yet(seal))
        }
    }
}
