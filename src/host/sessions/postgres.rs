//! PostgreSQL's sessions of revoked certificates.
//!
//! It looks at its list when somebody connects, and reads a new one when it is
//! told to: so sessions are looked at again for a while, and not only when the list has changed.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::time::timeout;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::read::{self, Limit, Trust};
use crate::folder::stamp::Stamp;
use crate::host::crl::{self, Revoked};
use crate::host::lists::MAX_FILE;

/// How long the database has to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often sessions are looked at while the list stays the same.
const EVERY: Duration = Duration::from_secs(5);

/// Ends a database's sessions by a list of revoked X.509 certificates.
#[derive(Debug)]
pub struct Backends {
    config: Config,
    list: PathBuf,
    revoked: Vec<Revoked>,
    seen: Option<Stamp>,
    next: Instant,
}

impl Backends {
    /// By a URL of libpq's, without TLS: through a socket, or on this machine; and a list in PEM. Nothing is read yet.
    ///
    /// # Errors
    /// `Kind::Usage` where the URL is none.
    pub fn new(url: &str, list: &Path) -> Result<Self> {
        let mut config: Config =
            url.parse().context(Kind::Usage, "--postgres is no URL of PostgreSQL's").map_err(|error| {
                error.hint("such as postgres:///postgres?host=/var/run/postgresql&user=machine-id")
            })?;
        config.application_name("machine-id host watch").connect_timeout(PATIENCE);
        Ok(Self { config, list: list.to_owned(), revoked: Vec::new(), seen: None, next: Instant::now() })
    }

    /// Ends each session whose certificate the list has: what to say of it. To be called often.
    ///
    /// # Errors
    /// `Kind::Destination` where list or database cannot be read, or others' sessions cannot be ended.
    pub async fn pass(&mut self) -> Result<Vec<String>> {
        let now = Stamp::of(&self.list);
        if now == self.seen && Instant::now() < self.next {
            return Ok(Vec::new());
        }
        self.next = Instant::now() + EVERY;
        if now != self.seen || now.is_none() {
            let cannot = || format!("cannot read {}", self.list.display());
            let list = read::raw(&self.list, Trust::Anyone, Limit::bytes(MAX_FILE))
                .map_err(|unfit| unfit.error(Kind::Destination, cannot()))?;
            self.revoked =
                crl::revoked(&list).map_err(|why| Error::new(Kind::Destination, why).context(cannot()))?;
            self.seen = now;
        }
        if self.revoked.iter().all(|list| list.serials.is_empty()) {
            return Ok(Vec::new());
        }
        let ended = timeout(PATIENCE, self.end()).await;
        ended
            .unwrap_or_else(|_| Err(Error::new(Kind::Destination, "it does not answer")))
            .map_err(|error| error.context("cannot end sessions of PostgreSQL"))
    }

    async fn end(&self) -> Result<Vec<String>> {
        let (client, connection) =
            self.config.connect(NoTls).await.context(Kind::Destination, "cannot connect")?;
        let running = tokio::spawn(connection);
        let ended = self.end_by(&client).await;
        running.abort();
        ended
    }

    async fn end_by(&self, client: &Client) -> Result<Vec<String>> {
        // Who may not sees no serials, and would find nothing to end.
        let may =
            "SELECT pg_has_role('pg_read_all_stats', 'USAGE') AND pg_has_role('pg_signal_backend', 'USAGE')";
        if rows(client, may).await? != [["t"]] {
            return Err(Error::new(Kind::Destination, "its user may not see or end others' sessions")
                .hint("GRANT pg_read_all_stats, pg_signal_backend TO that user; sessions of superusers only a superuser ends"));
        }
        let all = "SELECT pid, client_serial, issuer_dn FROM pg_stat_ssl WHERE client_serial IS NOT NULL";
        let mut ended = Vec::new();
        for row in rows(client, all).await? {
            let [pid, serial, issuer] = row.as_slice() else { continue };
            let (Ok(pid), Ok(serial)) = (pid.parse::<u32>(), serial.parse::<u64>()) else { continue };
            if !self.revoked.iter().any(|list| list.issuer == *issuer && list.serials.contains(&serial)) {
                continue;
            }
            // Its number may be another's by now.
            let end = format!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_ssl WHERE pid = {pid} AND client_serial = {serial}"
            );
            match rows(client, &end).await {
                Ok(done) if done == [["t"]] => ended.push(format!("ended PostgreSQL's session {pid}, serial {serial}, which is revoked")),
                Ok(_) => {}
                Err(error) => ended.push(format!("warning: PostgreSQL's session {pid}, serial {serial}, is revoked and was not ended: {error}")),
            }
        }
        Ok(ended)
    }
}

async fn rows(client: &Client, query: &str) -> Result<Vec<Vec<String>>> {
    let messages = client.simple_query(query).await.context(Kind::Destination, "it refuses a query")?;
    let row = |message| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|at| row.get(at).unwrap_or_default().to_owned()).collect())
        }
        _ => None,
    };
    Ok(messages.into_iter().filter_map(row).collect())
}
