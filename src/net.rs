//! HTTPS clients: whom they trust, and why a connection failed.
//!
//! The authority is reached with `--ca-file` or `--ca-pin` where given;
//! everything else with the system's trust store, which is only read when it
//! is needed. So is a proxy, whoever it leads to.

use std::time::Duration;

use crate::document::parse_duration;
use crate::error::{Error, Result};

mod authority;
mod behind;
mod client;
mod error;
mod pin;
mod proxy;
mod roots;

pub use authority::{
    AuthorityTrust, authority_client, authority_origin, authority_url, believing, believing_anybody,
    lies_under, trusts, unreachable,
};
pub use client::{Platform, execute, issuer_client, machine_client, send};
pub use error::{ByProxy, RequestError, Untrusted, body};
pub use pin::{ca_pins, pin_of, read_pins};
pub use roots::{USER_AGENT, roots_of_file, system_roots};

/// The one provider of cryptography for rustls. To be called before anything
/// else; calling it again does nothing.
pub fn install_crypto() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The value of a `--timeout`.
pub fn timeout(text: &str) -> Result<Duration> {
    // Beyond a day, sums of it with the clock might not hold.
    match parse_duration(text) {
        Ok(seconds) if seconds <= 86_400 => Ok(Duration::from_secs(seconds)),
        Ok(_) => Err(Error::usage("--timeout: must be at most 24h")),
        Err(why) => Err(Error::usage(format!("--timeout: {why}"))),
    }
}
