//! Hosts that have proved which they are, as rows.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use rusqlite::{Connection, Row, params};

use super::super::hosts::{
    HostCertificate, HostNews, HostSeen, HostStore, HostTrail, MAX_HOSTS, Renewal, names,
};
use super::super::{CertificateKind, event};
use super::threads::Room;
use super::{Sqlite, SqliteTrail, ca_rows, closing, rows};
use crate::authority::ca::CaKey;
use crate::error::Result;

impl HostTrail for Sqlite {
    fn hosts(&self) -> BoxFuture<'_, Result<Vec<HostSeen>>> {
        Box::pin(self.reader.read(read))
    }

    fn living(&self, after: (i64, u64), most: usize) -> BoxFuture<'_, Result<Vec<HostCertificate>>> {
        Box::pin(self.reader.read(move |connection| certificates(connection, after, most)))
    }

    fn last_list(&self) -> BoxFuture<'_, Result<Option<i64>>> {
        Box::pin(self.reader.read(last_list))
    }

    fn tls_cas(&self) -> BoxFuture<'_, Result<Vec<CaKey>>> {
        Box::pin(self.reader.read(tls_cas))
    }
}

impl HostTrail for SqliteTrail {
    fn hosts(&self) -> BoxFuture<'_, Result<Vec<HostSeen>>> {
        Box::pin(self.look(read))
    }

    fn living(&self, after: (i64, u64), most: usize) -> BoxFuture<'_, Result<Vec<HostCertificate>>> {
        Box::pin(self.look(move |connection| certificates(connection, after, most)))
    }

    fn last_list(&self) -> BoxFuture<'_, Result<Option<i64>>> {
        Box::pin(self.look(last_list))
    }

    fn tls_cas(&self) -> BoxFuture<'_, Result<Vec<CaKey>>> {
        Box::pin(self.look(tls_cas))
    }
}

impl HostStore for Sqlite {
    fn hear_of(&self, hosts: Vec<HostNews>) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.writer.write(Room::ToSpare, move |connection| hear(connection, &hosts)))
    }

    fn revoked_hosts(&self, since: i64, most: usize) -> BoxFuture<'_, Result<Vec<u64>>> {
        let outside = Arc::clone(&self.outside);
        Box::pin(async move {
            let read = move |connection: &Connection| {
                // As with the lists: one that lacks a revocation is worse than none.
                let heard = outside.hear(connection)?;
                Ok(match (closing::closed(connection)?, heard) {
                    (Some(closed), _) => Err(closed.error()),
                    (None, Err(loss)) => Err(loss.error("cannot make a list")),
                    (None, Ok(())) => Ok(revoked(connection, since, most)?),
                })
            };
            self.reader.read_at_once(read).await?
        })
    }
}

fn read(connection: &Connection) -> rusqlite::Result<Vec<HostSeen>> {
    connection
        .prepare_cached("SELECT name, seen, list, cas, serial FROM hosts ORDER BY name")?
        .query_map([], |row| {
            Ok(HostSeen {
                name: row.get(0)?,
                seen: row.get(1)?,
                list: HostSeen::read_list(row.get::<_, Option<String>>(2)?.as_deref()),
                cas: HostSeen::read_cas(&row.get::<_, String>(3)?),
                serial: row.get(4)?,
            })
        })?
        .collect()
}

/// By the index of their ends, which has no others: of however many issuances.
pub(super) const CERTIFIED: &str =
    "SELECT serial, kind, key_hash, issuance, time, expires, event = 'signed', certificates.instance IS NOT NULL, ifnull(packed, body)
    FROM certificates CROSS JOIN events ON sequence = issuance
    WHERE host IS NOT NULL AND revoked IS NULL AND expires >= ?1 AND (expires > ?1 OR serial > ?2)
    ORDER BY expires, serial LIMIT ?3";

fn certificates(
    connection: &Connection,
    (end, serial): (i64, u64),
    most: usize,
) -> rusqlite::Result<Vec<HostCertificate>> {
    let number = |number| i64::try_from(number).unwrap_or(i64::MAX);
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let certificate = |row: &Row<'_>| {
        let event = event::read(&rows::body(row, 8)?).map_err(rows::not_a_body)?;
        Ok(HostCertificate {
            serial: row.get(0)?,
            kind: row.get(1)?,
            names: names(&event, row.get(0)?),
            key_hash: row.get(2)?,
            issuance: row.get(3)?,
            from: row.get(4)?,
            until: row.get(5)?,
            renewal: Renewal::of(row.get(6)?, row.get(7)?),
        })
    };
    connection
        .prepare_cached(CERTIFIED)?
        .query_map(params![end, number(serial), most], certificate)?
        .collect()
}

fn tls_cas(connection: &Connection) -> rusqlite::Result<Vec<CaKey>> {
    Ok(ca_rows::read(connection)?.tls_cas())
}

fn last_list(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    connection.prepare_cached("SELECT nullif(list_made, 0) FROM state")?.query_row([], |row| row.get(0))
}

/// Where another authority was quicker that heard of it later, that stays; not so where clocks were wrong.
fn hear(connection: &Connection, hosts: &[HostNews]) -> rusqlite::Result<()> {
    let mut put = connection.prepare_cached(
        "INSERT INTO hosts (name, seen, list, cas, serial) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (name) DO UPDATE
         SET seen = excluded.seen, list = excluded.list, cas = excluded.cas, serial = excluded.serial
         WHERE seen - excluded.seen NOT BETWEEN 1 AND 120",
    )?;
    let mut see = connection
        .prepare_cached("UPDATE hosts SET seen = ?2 WHERE name = ?1 AND seen - ?2 NOT BETWEEN 0 AND 120")?;
    for host in hosts {
        match host {
            HostNews::Said(host) => {
                put.execute(params![host.name, host.seen, host.list_text(), host.cas_text(), host.serial])?
            }
            HostNews::There(name, seen) => see.execute(params![name, seen])?,
        };
    }
    let most = i64::try_from(MAX_HOSTS).unwrap_or(i64::MAX);
    connection
        .prepare_cached(
            "DELETE FROM hosts WHERE (SELECT count(*) FROM hosts) > ?1 AND name IN
                (SELECT name FROM hosts ORDER BY seen DESC, name LIMIT -1 OFFSET ?1)",
        )?
        .execute([most])
        .map(drop)
}

/// Each job asks for them, so it takes an index of its own: hosts that are good are many.
pub(super) const REVOKED: &str = "SELECT serial FROM certificates
    WHERE host IS NOT NULL AND revoked IS NOT NULL AND kind = ?1 AND expires >= ?2 ORDER BY expires DESC LIMIT ?3";

fn revoked(connection: &Connection, since: i64, most: usize) -> rusqlite::Result<Vec<u64>> {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    connection
        .prepare_cached(REVOKED)?
        .query_map(params![CertificateKind::Ssh, since, most], |row| row.get(0))?
        .collect()
}
