//! Where a store is: `store:` of authority.yaml.

use std::fmt;
use std::path::{Path, PathBuf};

use super::postgres::settings::Settings;
use super::postgres::url::{DatabaseUrl, SCHEMES, without_role};
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::folder::trust::Owner;

const SQLITE: &str = "sqlite:";

/// Where a store is. `Display` says it without a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorePlace {
    /// A file.
    Sqlite(PathBuf),
    /// A database that others share.
    Postgres(Box<DatabaseUrl>),
}

impl StorePlace {
    /// `sqlite:PATH`, below the data directory, or `postgres://…`.
    ///
    /// # Errors
    /// `Kind::Usage` for anything else.
    pub fn parse(text: &str, data_dir: &Path) -> Result<Self> {
        match text.strip_prefix(SQLITE) {
            Some(path) if !path.is_empty() => Ok(Self::Sqlite(data_dir.join(path))),
            None if SCHEMES.iter().any(|scheme| text.starts_with(scheme)) => {
                Ok(Self::Postgres(Box::new(DatabaseUrl::parse(text)?)))
            }
            _ => Err(Error::usage("`store` must be `sqlite:PATH` or `postgres://USER@HOST/DATABASE`")),
        }
    }

    /// The same on a command line, as the value of `option`: everybody on the machine can see that.
    ///
    /// # Errors
    /// `Kind::Usage` for anything else, and for a password.
    pub fn of_option(option: &str, text: &str, data_dir: &Path) -> Result<Self> {
        match Self::parse(text, data_dir)? {
            Self::Postgres(url) if url.warning().is_some() => Err(Error::usage(format!(
                "`{option}` holds a password, which everybody on this machine can see"
            ))
            .hint("put it into a password file, which `passfile=` of the URL names, or into PGPASSWORD")),
            place => Ok(place),
        }
    }

    /// What messages, and the other store, call the place that was read from `text`: without whose URL it is.
    pub fn name(&self, text: &str) -> String {
        match self {
            Self::Sqlite(_) => text.to_owned(),
            Self::Postgres(_) => without_role(text),
        }
    }

    /// The file, where it is one.
    ///
    /// # Errors
    /// `Kind::Usage` for a database, for which there is no such thing as what is being done.
    pub fn file(&self) -> Result<&Path> {
        match self {
            Self::Sqlite(path) => Ok(path),
            Self::Postgres(_) => Err(Error::usage("the store is in PostgreSQL, not in a file")
                .hint("its owner begins an empty one in another database: `machine-id authority upgrade`")),
        }
    }

    /// What an operator should hear of it, and what to do about it.
    ///
    /// # Errors
    /// `Kind::Usage` where libpq's variables, or files that are named, cannot be used.
    pub fn warnings(
        &self,
        env: &Environment,
        data_dir: &Path,
        owner: Owner,
    ) -> Result<Vec<(String, &'static str)>> {
        let Self::Postgres(url) = self else { return Ok(Vec::new()) };
        let written = url.warning().map(|(what, hint)| (what.to_owned(), hint));
        let weak = Settings::new(url, env, data_dir, owner)?.warnings();
        Ok(written.into_iter().chain(weak).collect())
    }
}

impl fmt::Display for StorePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "{}", path.display()),
            Self::Postgres(_) => f.write_str("PostgreSQL"),
        }
    }
}
