//! Hosts that have proved which they are, as rows. The statements are SQLite's (`sqlite/hosts.rs`), for many at once.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::super::CertificateKind;
use super::super::hosts::{
    HostCertificate, HostNews, HostSeen, HostStore, HostTrail, MAX_HOSTS, Renewal, names,
};
use super::failure::Failure;
use super::transaction::{self, Parameter, locked};
use super::work::{CANNOT_READ, PATIENCE, Shared, again};
use super::{Postgres, PostgresTrail, cas, reads, rows};
use crate::authority::ca::CaKey;
use crate::error::Result;

impl HostTrail for Postgres {
    fn hosts(&self) -> BoxFuture<'_, Result<Vec<HostSeen>>> {
        self.trail.hosts()
    }

    fn living(&self, after: (i64, u64), most: usize) -> BoxFuture<'_, Result<Vec<HostCertificate>>> {
        self.trail.living(after, most)
    }

    fn last_list(&self) -> BoxFuture<'_, Result<Option<i64>>> {
        self.trail.last_list()
    }

    fn tls_cas(&self) -> BoxFuture<'_, Result<Vec<CaKey>>> {
        self.trail.tls_cas()
    }
}

impl HostTrail for PostgresTrail {
    fn hosts(&self) -> BoxFuture<'_, Result<Vec<HostSeen>>> {
        Box::pin(again(&self.0, CANNOT_READ, PATIENCE, |client, _| async move { read(&client).await }))
    }

    fn living(&self, after: (i64, u64), most: usize) -> BoxFuture<'_, Result<Vec<HostCertificate>>> {
        Box::pin(again(&self.0, CANNOT_READ, PATIENCE, move |client, _| async move {
            certificates(&client, after, most).await
        }))
    }

    fn last_list(&self) -> BoxFuture<'_, Result<Option<i64>>> {
        Box::pin(again(&self.0, CANNOT_READ, PATIENCE, |client, _| async move { last_list(&client).await }))
    }

    fn tls_cas(&self) -> BoxFuture<'_, Result<Vec<CaKey>>> {
        Box::pin(again(&self.0, CANNOT_READ, PATIENCE, |client, _| async move {
            Ok(cas::read(&client).await?.tls_cas())
        }))
    }
}

impl HostStore for Postgres {
    fn hear_of(&self, hosts: Vec<HostNews>) -> BoxFuture<'_, Result<()>> {
        let hosts = Arc::new(hosts);
        // Not again: they are heard of again.
        Box::pin(self.write(Duration::ZERO, move |shared, client, _| {
            let hosts = Arc::clone(&hosts);
            async move { hear(&client, &shared, &hosts).await }
        }))
    }

    fn revoked_hosts(&self, since: i64, most: usize) -> BoxFuture<'_, Result<Vec<u64>>> {
        Box::pin(self.read(move |client, _| async move {
            // As with the lists: one that lacks a revocation is worse than none.
            transaction::look(&client, &self.shared.known).await?;
            revoked(&client, since, most).await
        }))
    }
}

async fn read(client: &Client) -> Result<Vec<HostSeen>, Failure> {
    const SQL: &str = "SELECT name, seen, list, cas, serial FROM machine_id.hosts ORDER BY name";
    let host = |row: &Row| {
        Ok(HostSeen {
            name: row.try_get(0)?,
            seen: row.try_get(1)?,
            list: HostSeen::read_list(row.try_get(2)?),
            cas: HostSeen::read_cas(row.try_get(3)?),
            serial: rows::read_serial(row, 4)?,
        })
    };
    reads::rows(client, SQL, &[]).await?.iter().map(host).collect()
}

/// As in SQLite's.
pub(super) const CERTIFIED: &str =
    "SELECT serial, kind, key_hash, issuance, time, expires, event = 'signed', certificates.instance IS NOT NULL, body
    FROM machine_id.certificates JOIN machine_id.events ON sequence = issuance
    WHERE host IS NOT NULL AND revoked IS NULL AND expires >= $1 AND (expires > $1 OR serial > $2)
    ORDER BY expires, serial LIMIT $3";

async fn certificates(
    client: &Client,
    (end, serial): (i64, u64),
    most: usize,
) -> Result<Vec<HostCertificate>, Failure> {
    let (serial, most) = (i64::try_from(serial).unwrap_or(i64::MAX), i64::try_from(most).unwrap_or(i64::MAX));
    let asked: [Parameter<'_>; 3] = [(&end, Type::INT8), (&serial, Type::INT8), (&most, Type::INT8)];
    let certificate = |row: &Row| {
        Ok(HostCertificate {
            serial: rows::read_serial(row, 0)?,
            kind: rows::kind(row, 1)?,
            names: names(&rows::body(row, 8)?, row.try_get(0)?),
            key_hash: rows::hash(row, 2)?,
            issuance: row.try_get(3)?,
            from: row.try_get(4)?,
            until: row.try_get(5)?,
            renewal: Renewal::of(row.try_get(6)?, row.try_get(7)?),
        })
    };
    reads::rows(client, CERTIFIED, &asked).await?.iter().map(certificate).collect()
}

async fn last_list(client: &Client) -> Result<Option<i64>, Failure> {
    const SQL: &str = "SELECT nullif(list_made, 0) FROM machine_id.state";
    let found = reads::rows(client, SQL, &[]).await?;
    Ok(found.first().ok_or_else(reads::gone)?.try_get(0)?)
}

async fn hear(client: &Client, shared: &Shared, hosts: &[HostNews]) -> Result<(), Failure> {
    const PUT: &str = concat!(
        "INSERT INTO machine_id.hosts (name, seen, list, cas, serial)
         SELECT name, seen, list, cas, serial FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::bigint[])
            AS heard (name, seen, list, cas, serial) WHERE ",
        locked!(),
        " ON CONFLICT (name) DO UPDATE SET seen = excluded.seen, list = excluded.list, cas = excluded.cas, serial = excluded.serial
            WHERE hosts.seen - excluded.seen NOT BETWEEN 1 AND 120"
    );
    const SEE: &str = concat!(
        "UPDATE machine_id.hosts SET seen = there.seen FROM unnest($1::text[], $2::bigint[]) AS there (name, seen)
            WHERE hosts.name = there.name AND hosts.seen - there.seen NOT BETWEEN 0 AND 120 AND ",
        locked!()
    );
    const FORGET: &str = concat!(
        "DELETE FROM machine_id.hosts WHERE (SELECT count(*) FROM machine_id.hosts) > $1 AND name IN
            (SELECT name FROM machine_id.hosts ORDER BY seen DESC, name OFFSET $1) AND ",
        locked!()
    );
    let (mut said, mut there) = (Vec::new(), (Vec::new(), Vec::new()));
    for host in hosts {
        match host {
            HostNews::Said(host) => said.push(host),
            HostNews::There(name, seen) => {
                there.0.push(name.as_str());
                there.1.push(*seen);
            }
        }
    }
    let names: Vec<&str> = said.iter().map(|host| host.name.as_str()).collect();
    let seen: Vec<i64> = said.iter().map(|host| host.seen).collect();
    let lists: Vec<Option<String>> = said.iter().map(|host| host.list_text()).collect();
    let cas: Vec<String> = said.iter().map(|host| host.cas_text()).collect();
    let serials: Vec<i64> = said.iter().map(|host| rows::serial(host.serial)).collect();
    let most = i64::try_from(MAX_HOSTS).unwrap_or(i64::MAX);
    let put: [Parameter<'_>; 5] = [
        (&names, Type::TEXT_ARRAY),
        (&seen, Type::INT8_ARRAY),
        (&lists, Type::TEXT_ARRAY),
        (&cas, Type::TEXT_ARRAY),
        (&serials, Type::INT8_ARRAY),
    ];
    let see: [Parameter<'_>; 2] = [(&there.0, Type::TEXT_ARRAY), (&there.1, Type::INT8_ARRAY)];
    let forget: [Parameter<'_>; 1] = [(&most, Type::INT8)];
    transaction::write(client, &shared.known, &[(PUT, &put), (SEE, &see), (FORGET, &forget)]).await.map(drop)
}

/// As in SQLite's.
pub(super) const REVOKED: &str = "SELECT serial FROM machine_id.certificates
    WHERE host IS NOT NULL AND revoked IS NOT NULL AND kind = $1 AND expires >= $2 ORDER BY expires DESC LIMIT $3";

async fn revoked(client: &Client, since: i64, most: usize) -> Result<Vec<u64>, Failure> {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let kind = CertificateKind::Ssh.number();
    let asked: [Parameter<'_>; 3] = [(&kind, Type::INT8), (&since, Type::INT8), (&most, Type::INT8)];
    reads::rows(client, REVOKED, &asked).await?.iter().map(|row| rows::read_serial(row, 0)).collect()
}
