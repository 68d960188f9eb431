//! The authority's own TLS: a certificate from its own CA, renewed by itself,
//! or one from files, read anew when they change.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;

use super::config::Config;
use super::keys::TlsCaCertificate;
use crate::error::{Context as _, Kind, Result};

mod files;
pub mod keeper;
mod own;
mod served;

pub use served::{CertificateWarning, CurrentCertificate, ca_warning};

/// What there is to say of a data directory's certificates at `now`. The CA's
/// key is not asked for; where the CA is not there, as in a copy of the policy
/// and its configuration, neither are the others, and nothing is said.
///
/// # Errors
/// `Kind::Usage` where a file cannot be used, and so would not be served.
pub fn check(config: &Config, now: i64) -> Result<Vec<CertificateWarning>> {
    let Some(ca) = TlsCaCertificate::find(&config.ca_certificate(), config.owner)? else {
        return Ok(Vec::new());
    };
    let served = files::Contents::read(config)?.map(|contents| contents.served(config)).transpose()?;
    let warnings = ca_warning(ca.validity, now).into_iter();
    Ok(warnings.chain(served.iter().flat_map(|served| served.warnings(now))).collect())
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
