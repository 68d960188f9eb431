//! Short-lived SSH and X.509 certificates for CI jobs, in exchange for the
//! OIDC token of their run. `docs/architecture.md` is the map.

#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

pub mod assertion;
pub mod authority;
pub mod aws;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod denial;
pub mod destination;
pub mod document;
pub mod elsewhere;
pub mod environment;
pub mod error;
pub mod folder;
pub mod host;
pub mod join;
pub mod jws;
pub mod krl;
pub mod net;
pub mod once;
pub mod openssh;
pub mod output;
pub mod pem;
pub mod principal;
pub mod process;
pub mod random;
pub mod retry;
pub mod rfc4251;
pub mod runtime;
pub mod secret;
pub mod suite;
pub mod terminal;
pub mod text;
pub mod wire;
