//! AWS, as one of its clients: credentials, requests signed with them, and the names of its hosts.

mod credentials;
mod profile;
pub mod region;

pub use credentials::{Credentials, Seeker, find};
