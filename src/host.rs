//! For the servers that trust an authority: who may log in here, and what
//! `sshd` and TLS servers need to know of the authority and of what it revoked.

pub mod check;
pub mod crl;
pub mod fetch;
pub mod gate;
pub mod heard;
pub mod install;
pub mod labels;
mod link;
pub mod lists;
pub mod machine;
pub mod principals;
pub mod proof;
pub mod refresh;
pub mod refused;
mod reload;
pub mod round;
pub mod seen;
pub mod sessions;
pub mod sshd;
pub mod statement;
pub mod store;
pub mod trust;
pub mod watch;
