//! Short-lived SSH and X.509 certificates for CI jobs, in exchange for the
//! OIDC token of their run. `docs/architecture.md` is the map.

pub mod authority;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod denial;
pub mod destination;
pub mod document;
pub mod environment;
pub mod error;
pub mod host;
pub mod join;
pub mod jws;
pub mod net;
pub mod once;
pub mod principal;
pub mod rfc4251;
pub mod secret;
pub mod text;
pub mod wire;
