//! The authority's own TLS: a certificate from its own CA, renewed by itself,
//! or one from files, read anew when they change.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;

use super::ca::{CaKey, CaState};
use super::config::Config;
use super::keys::TlsCaCertificate;
use super::validity::Ending;
use crate::error::{Context as _, Error, Kind, Result};

mod files;
pub mod keeper;
mod own;
mod served;

pub use served::{CertificateWarning, CurrentCertificate, ca_warnings, store_warnings};

/// What there is to say of a data directory's certificates at `now`, and when each of them ends; `cas` are the TLS CAs of its
/// store, where there are any and it can be read. The CA's
/// key is not asked for; where the CA is not there, as in a copy of the policy
/// and its configuration, neither are the others, and nothing is said.
///
/// # Errors
/// `Kind::Usage` where a file cannot be used, and so would not be served.
pub fn check(config: &Config, now: i64, cas: &[CaKey]) -> Result<(Vec<CertificateWarning>, Vec<Ending>)> {
    let path = config.ca_certificate();
    let Some(ca) = TlsCaCertificate::find(&path, config.owner)? else {
        return Ok((Vec::new(), Vec::new()));
    };
    let mut endings = match cas {
        [] => ca.endings(&path, config.owner, CaState::Current)?,
        _ => Vec::new(),
    };
    for key in cas {
        let unfit = |why| Error::usage(format!("the certificate of {} in the store {why}", key.name));
        let ca = TlsCaCertificate::parse(&key.public).map_err(unfit)?;
        endings.extend(ca.endings(&path, config.owner, key.state)?);
    }
    let mut warnings = ca_warnings(&endings, now);
    if let Some(contents) = files::Contents::read(config)? {
        let served = contents.served(config)?;
        warnings.extend(served.warnings(now));
        endings.extend(served.endings());
    }
    Ok((warnings, endings))
}

/// TLS 1.2 and 1.3 with that certificate. Nothing is kept between connections:
/// a job comes once.
pub fn server_config(current: Arc<CurrentCertificate>) -> Result<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(served::provider()))
        .with_safe_default_protocol_versions()
        .context(Kind::Internal, "TLS")?
        .with_no_client_auth()
        .with_cert_resolver(current);
    config.ignore_client_order = true;
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests;
