//! For the servers that trust an authority: who may log in here, and what
//! `sshd` and TLS servers need to know of the authority and of what it revoked.

pub mod crl;
pub mod labels;
pub mod lists;
pub mod principals;
pub mod refresh;
pub mod seen;
pub mod sessions;
pub mod store;
