//! Where an authority's private keys are, as `keys:` in authority.yaml says.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::awskms::AwsKms;
use super::file::FileStore;
use super::pkcs11;
use super::pkcs11::uri::{Pkcs11Uri, SCHEME};
use super::private::KeyStore;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::folder::replace;
use crate::folder::trust::Owner;
use crate::secret::Secret;

/// A place of private keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPlace {
    /// A folder.
    File(PathBuf),
    /// AWS KMS, under aliases that begin so.
    AwsKms(String),
    /// A token.
    Pkcs11(Pkcs11Uri),
}

impl KeyPlace {
    /// Reads `SCHEME:…`; relative paths are below the data directory.
    ///
    /// # Errors
    /// `Kind::Usage` for another scheme, or what it does not take.
    pub fn parse(text: &str, data_dir: &Path) -> Result<Self> {
        match text.split_once(':') {
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(data_dir.join(path))),
            _ if text.starts_with(SCHEME) => Pkcs11Uri::parse(text, data_dir).map(Self::Pkcs11),
            Some(("awskms", alias)) => AwsKms::parse(alias).map(Self::AwsKms),
            _ => Err(Error::usage(
                "`keys` must be `file:PATH`, `pkcs11:token=LABEL?module-path=FILE&pin-source=file:FILE` or `awskms:alias/PREFIX`",
            )),
        }
    }

    /// Where the TLS CA's certificate lies, which everybody may read.
    pub fn certificate(&self, data_dir: &Path) -> PathBuf {
        match self {
            Self::File(folder) => folder.join(TLS_CERTIFICATE),
            Self::Pkcs11(_) | Self::AwsKms(_) => data_dir.join(TLS_CERTIFICATE),
        }
    }

    /// Makes the place itself, where it is one of ours to make.
    ///
    /// # Errors
    /// `Kind::Usage` where it cannot be made.
    pub(super) fn prepare(&self) -> Result<()> {
        match self {
            Self::File(folder) => replace::make_private(folder),
            // Whoever keeps the token has made it.
            Self::Pkcs11(_) | Self::AwsKms(_) => Ok(()),
        }
    }

    /// The store of keys there, of that owner; those in files are sealed with the passphrase, where there is one.
    ///
    /// # Errors
    /// `Kind::Usage` where it cannot be used; [`is_away`](super::is_away) where it cannot be reached.
    pub fn open(&self, owner: Owner, passphrase: Option<Secret>) -> Result<Arc<dyn KeyStore>> {
        match self {
            Self::File(folder) => Ok(Arc::new(FileStore::new(folder, owner, passphrase))),
            Self::AwsKms(prefix) => Ok(Arc::new(AwsKms::new(prefix, Environment::of_process())?)),
            Self::Pkcs11(uri) => pkcs11::open(uri, owner),
        }
    }
}

/// The name of the TLS CA's certificate.
pub const TLS_CERTIFICATE: &str = "tls_ca.crt";
