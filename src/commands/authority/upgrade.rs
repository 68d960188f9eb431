//! `machine-id authority upgrade`: the tables of a store that authorities share.

use std::path::Path;

use crate::authority::config::Config;
use crate::authority::store::engine;
use crate::authority::store::postgres::{Roles, Upgraded};
use crate::error::Result;
use crate::runtime::block_on;
use crate::terminal::print;
use crate::text::shown_exactly;

/// Makes the tables or brings them up to date, and says which version they are of and who may do what.
pub(super) fn run(
    data_dir: &Path,
    store: Option<&str>,
    server: Option<String>,
    reader: Option<String>,
) -> Result<()> {
    let config = Config::load(data_dir)?.with_store("--store", store)?;
    let named = Roles { server: server.into_iter().collect(), reader: reader.into_iter().collect() };
    let Upgraded { from, to, roles } =
        block_on(engine::upgrade(&config.store, &config.store_key(), &named))??;
    let done = match from {
        0 => format!("made the store's tables, of version {to}"),
        _ if from == to => format!("the store's tables are up to date, of version {to}"),
        _ => format!("brought the store's tables from version {from} to version {to}"),
    };
    let may = |roles: &[String], what| -> String {
        roles.iter().map(|role| format!("`{}` may {what}\n", shown_exactly(role))).collect()
    };
    let mut serve = may(&roles.server, "serve");
    if serve.is_empty() {
        serve = "no role may serve but the owner: --server-role ROLE gives one what it needs\n".to_owned();
    }
    print(&format!("{done}\n{serve}{}", may(&roles.reader, "read the audit trail")))
}
