//! The store in PostgreSQL.

pub mod passfile;
pub mod pool;
pub mod settings;
mod tls;
mod trouble;
pub mod url;
