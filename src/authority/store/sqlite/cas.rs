//! CAs, as rows; the certificates of one that live are looked for by the thread that reads, but for what has come since.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::future::BoxFuture;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::super::ca_schema::ROTATES_SQLITE;
use super::super::cas::{CaChange, CaChanged, CaStore, Changed, Live, LiveCertificate, NAMED, Whose};
use super::super::event;
use super::super::replicas::Replica;
use super::super::seal::Seal;
use super::ca_rows::{read, write};
use super::threads::Room;
use super::{Sqlite, rows, shared};
use crate::authority::ca::CaSet;
use crate::error::Result;

impl CaStore for Sqlite {
    fn cas(&self) -> BoxFuture<'_, Result<CaSet>> {
        let seal = Arc::clone(&self.seal);
        Box::pin(async move { self.reader.read_at_once(read).await?.judge(&seal) })
    }

    fn change_cas(&self, change: CaChange) -> BoxFuture<'_, Result<CaChanged>> {
        Box::pin(async move {
            let mut since = None;
            if let Some((ca, at)) = change.none_live {
                let (live, whose, last) = self.look(ca, at).await?;
                if live.count > 0 {
                    return Ok(CaChanged::Live(live));
                }
                since = Some((whose, at, last));
            }
            let (seal, revocations) = (Arc::clone(&self.seal), Arc::clone(&self.revocations));
            let put = move |connection: &_| {
                // Statements are made anew, and lists.
                revocations.fetch_add(1, Ordering::SeqCst);
                put(connection, &change, since, &seal)
            };
            self.writer.write(Room::Any, put).await?
        })
    }

    fn live(&self, ca: i64, at: i64) -> BoxFuture<'_, Result<Live>> {
        Box::pin(async move { Ok(self.look(ca, at).await?.0) })
    }

    fn replicas(&self) -> BoxFuture<'_, Result<Vec<Replica>>> {
        Box::pin(
            async move { Ok(self.reader.read(|connection| shared::announced(connection, "")).await?.others) },
        )
    }
}

impl Sqlite {
    /// The certificates of a CA that live, whose they are, and the last event by then.
    async fn look(&self, ca: i64, at: i64) -> Result<(Live, Whose, i64)> {
        let seal = Arc::clone(&self.seal);
        let look = move |connection: &Connection| {
            let last =
                connection.query_row("SELECT ifnull(max(sequence), 0) FROM events", [], |row| row.get(0))?;
            let whose = read(connection)?.judge(&seal).and_then(|set| Whose::of(&set, ca));
            Ok(match whose {
                Ok(whose) => Ok((living(connection, whose, at, 0)?, whose, last)),
                Err(error) => Err(error),
            })
        };
        self.reader.read_at_once(look).await?
    }
}

/// Makes another set of them, unless it is another by now, or a certificate that is not to be there was issued since it was
/// looked for.
fn put(
    connection: &Connection,
    change: &CaChange,
    since: Option<(Whose, i64, i64)>,
    seal: &Seal,
) -> rusqlite::Result<Result<CaChanged>> {
    let kept = read(connection)?;
    let set = match kept.judge(seal) {
        Ok(set) if set.number != change.expected => return Ok(Ok(CaChanged::Outdated)),
        Ok(set) => set,
        Err(error) => return Ok(Err(error)),
    };
    if let Some((whose, at, after)) = since {
        let live = living(connection, whose, at, after)?;
        if live.count > 0 {
            return Ok(Ok(CaChanged::Live(live)));
        }
    }
    let Changed { set, kept } = match kept.change(set, change, seal) {
        Ok(changed) => changed,
        Err(error) => return Ok(Err(error)),
    };
    write(connection, &kept)?;
    connection.prepare_cached("UPDATE state SET oldest = max(oldest, ?1)")?.execute([ROTATES_SQLITE])?;
    rows::append(connection, &event::rotated(change, &set))?;
    Ok(Ok(CaChanged::Done(set)))
}

/// Those that were issued lately, by the index of issuances, and those of hosts, which live for years, by that of their ends.
macro_rules! living {
    ($sql:literal) => {
        concat!(
            "WITH living AS (
                SELECT serial, issuance, expires, host, kind, ca FROM certificates
                WHERE issuance > ?1 AND issuance >= ?2 AND revoked IS NULL AND expires > ?3
                UNION ALL
                SELECT serial, issuance, expires, host, kind, ca FROM certificates
                WHERE host IS NOT NULL AND expires > ?3 AND +issuance > ?1 AND +issuance < ?2 AND revoked IS NULL
             ), theirs AS (
                SELECT * FROM living
                WHERE ca = ?4 OR (ca IS NULL AND kind = ?5 AND (?6 IS NULL OR (host IS NOT NULL) = ?6))
             ) ",
            $sql
        )
    };
}

/// The certificates that live at that time, of issuances behind that event.
fn living(connection: &Connection, whose: Whose, at: i64, after: i64) -> rusqlite::Result<Live> {
    let first: Option<i64> = connection
        .prepare_cached("SELECT min(sequence) FROM events WHERE time >= ?1")?
        .query_row([Whose::since(at)], |row| row.get(0))
        .optional()?
        .flatten();
    let of = params![after, first.unwrap_or(i64::MAX), at, whose.ca, whose.kind, whose.is_host];
    let (count, last_end) = connection
        .prepare_cached(living!("SELECT count(*), ifnull(max(expires), 0) FROM theirs"))?
        .query_row(of, |row| Ok((row.get(0)?, row.get(1)?)))?;
    let sql = format!(
        "{} LIMIT {NAMED}",
        living!(
            "SELECT serial, host IS NOT NULL, expires, ifnull(packed, body) FROM theirs
             JOIN events ON sequence = issuance ORDER BY expires DESC, serial"
        )
    );
    let some = connection
        .prepare_cached(&sql)?
        .query_map(of, |row| {
            let event = event::read(&rows::body(row, 3)?).map_err(rows::not_a_body)?;
            Ok(LiveCertificate::of(&event, row.get(0)?, row.get(1)?, row.get(2)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Live { count, last_end, some })
}
