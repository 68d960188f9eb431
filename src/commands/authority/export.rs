//! `machine-id authority export`: what others need to trust this authority.

use std::path::Path;

use super::data_dir::{open_with_keys, warn_of_ca};
use crate::authority::{config, discovery};
use crate::cli::authority::Exported;
use crate::destination::ssh::known_hosts;
use crate::error::{Error, Result};
use crate::terminal::print;

pub(super) fn run(data_dir: &Path, what: Exported) -> Result<()> {
    let config = config::Config::load(data_dir)?;
    let (keys, _) = open_with_keys(&config)?;
    let trust = keys.trust();
    let text = match what {
        Exported::SshUserCa => trust.ssh_user_cas.join("\n"),
        Exported::SshHostCa => trust.ssh_host_cas.join("\n"),
        Exported::TlsCa => trust.tls_cas.concat().trim_end().to_owned(),
        Exported::TlsCaPin => keys.tls_pins()?,
        Exported::StatementKey => keys.statement_key().ok_or_else(|| {
            Error::usage("this authority has no statement key yet")
                .hint("`machine-id authority serve` makes it")
        })?,
        Exported::FederationJwks => discovery::key_set(&keys)?
            .ok_or_else(|| {
                Error::usage("this authority has no federation key yet")
                    .hint("`machine-id authority serve` makes it")
            })?
            .to_string(),
        Exported::KnownHosts => known_hosts(&trust).trim_end().to_owned(),
    };
    if matches!(what, Exported::TlsCa | Exported::TlsCaPin) {
        warn_of_ca(&keys);
    }
    print(&format!("{text}\n"))
}
