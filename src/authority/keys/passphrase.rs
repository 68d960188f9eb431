//! The passphrase of keys in files: where an authority has it from.

use std::path::{Path, PathBuf};

use crate::environment::Environment;
use crate::error::{Error, Kind, Result};
use crate::folder::read::{self, Limit, Trust};
use crate::folder::trust::Owner;
use crate::secret::Secret;

/// The credential of systemd that holds it (`LoadCredential=`, `LoadCredentialEncrypted=`).
const CREDENTIAL: &str = "machine-id-keys";
/// The longest passphrase, in bytes: as much as `openssl` takes from a file.
const LONGEST: usize = 1023;

/// The passphrase in that file, or else in the credential of systemd; none where there is neither.
///
/// # Errors
/// `Kind::Usage` for a file that is missing, open to others, empty, or of several lines.
pub fn passphrase(named: Option<&Path>, owner: Owner, env: &Environment) -> Result<Option<Secret>> {
    let credential = || env.get("CREDENTIALS_DIRECTORY").map(|folder| PathBuf::from(folder).join(CREDENTIAL));
    let found = named.map(Path::to_owned).or_else(|| credential().filter(|path| path.exists()));
    found.map(|path| of_file(&path, owner)).transpose()
}

fn of_file(path: &Path, owner: Owner) -> Result<Secret> {
    let cannot = || format!("cannot use the passphrase of the CA keys in {}", path.display());
    let text = read::raw(path, Trust::ServerKey(owner), Limit::FILE).and_then(read::utf8);
    let text = text.map_err(|unfit| {
        let hint = unfit.is_missing().then_some("put it back: without it nobody reads the keys");
        hint.into_iter().fold(unfit.error(Kind::Usage, cannot()), Error::hint)
    })?;
    // What an editor or `echo` puts behind it is no part of it, as `openssl -passin file:` reads it.
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    let wrong = |why: &'static str| Err(Error::usage(why).context(cannot()));
    match line {
        "" => wrong("it is empty"),
        _ if line.contains(['\n', '\r', '\0']) => wrong("it has more than one line"),
        _ if line.len() > LONGEST => wrong("it is longer than 1023 bytes"),
        _ => Ok(Secret::new(line.to_owned())),
    }
}
