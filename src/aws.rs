//! AWS, as one of its clients: credentials, requests signed with them, and the names of its hosts.

mod credentials;
mod profile;
pub mod region;
mod seeker;

pub use credentials::{Credentials, find};
pub use seeker::Seeker;
