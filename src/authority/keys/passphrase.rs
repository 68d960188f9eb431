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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn it_is_one_line_that_nobody_else_reads() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passphrase");
        let of = |text: &str, mode| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            passphrase(Some(&path), Owner::me(), &Environment::default())
        };
        for text in ["a b", "a b\n", "a b\r\n"] {
            assert_eq!(of(text, 0o600).unwrap().unwrap().expose(), "a b", "{text:?}");
        }
        for (text, why) in [
            ("", "it is empty"),
            ("\n", "it is empty"),
            ("a\n\n", "it has more than one line"),
            ("a\nb", "it has more than one line"),
            (&"x".repeat(1024), "it is longer than 1023 bytes"),
        ] {
            let error = of(text, 0o600).unwrap_err().to_string();
            assert!(
                error.starts_with("cannot use the passphrase of the CA keys in ") && error.ends_with(why),
                "{error}"
            );
        }
        let error = of("a", 0o644).unwrap_err().to_string();
        assert!(error.contains("others than its owner"), "{error}");
        fs::remove_file(&path).unwrap();
        let error = passphrase(Some(&path), Owner::me(), &Environment::default()).unwrap_err();
        assert_eq!(error.hints(), ["put it back: without it nobody reads the keys"]);
    }

    #[test]
    fn a_credential_counts_where_no_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let env = Environment::from_pairs([("CREDENTIALS_DIRECTORY", dir.path().to_str().unwrap())]);
        let of = |named: Option<&Path>| passphrase(named, Owner::me(), &env).unwrap();
        assert_eq!(of(None), None, "one of another service's, say");
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
            path
        };
        write(CREDENTIAL, "by systemd");
        assert_eq!(of(None).unwrap().expose(), "by systemd");
        assert_eq!(of(Some(&write("other", "named"))).unwrap().expose(), "named");
    }
}
