//! What a database may lose that it has acknowledged.

use tokio_postgres::Client;

use super::failure::Failure;
use super::reads::rows;

/// What an operator should hear of how it keeps what was committed, and what to do about it; `hosts` is how many servers may be
/// the one. A commit asks for as much itself as a session can (see `transaction`).
pub(super) async fn warnings(client: &Client, hosts: usize) -> Result<Vec<(String, &'static str)>, Failure> {
    // Who follows, and how, is shown to monitoring roles alone; that somebody does, to all.
    const HOW: &str = "SELECT current_setting('fsync') = 'off', current_setting('full_page_writes') = 'off',
            trim(current_setting('synchronous_standby_names')) = '',
            EXISTS (SELECT FROM pg_catalog.pg_stat_replication)";
    let found = rows(client, HOW, &[]).await?;
    let Some(row) = found.first() else { return Ok(Vec::new()) };
    let mut warnings = Vec::new();
    for (at, name) in ["fsync", "full_page_writes"].iter().enumerate() {
        if row.try_get(at)? {
            warnings.push((
                format!("the database runs with `{name} = off`: where its machine loses power, it loses commits, or all that it holds"),
                "turn it on in postgresql.conf",
            ));
        }
    }
    let (nobody_is_waited_for, is_followed): (bool, bool) = (row.try_get(2)?, row.try_get(3)?);
    if nobody_is_waited_for && (is_followed || hosts > 1) {
        warnings.push((
            "no commit waits for a standby (`synchronous_standby_names` is empty): one that takes over may lack what was \
             acknowledged, and nothing is issued then until `authority resume --accept-loss`"
                .to_owned(),
            "name the standbys on the database's server: synchronous_standby_names = 'ANY 1 (NAME, NAME)'",
        ));
    }
    Ok(warnings)
}
