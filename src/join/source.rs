//! A token that somebody else put there: the user, the platform, a kubelet.

use std::path::PathBuf;

use ring::digest::{SHA256, digest};

use crate::environment::Environment;
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;
use crate::text::shown;

/// The longest file or value with a token that is read, in bytes.
const MAX_TOKEN_BYTES: usize = 64 << 10;

/// Where a job finds its token. It is read anew for each proof, since files
/// are refreshed by whoever put them there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    place: Place,
    /// The option that named it; none where it is where the platform puts it.
    option: Option<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Variable(String),
    File(PathBuf),
}

impl Source {
    /// The variable in which a platform hands its token over.
    pub fn variable(name: impl Into<String>) -> Self {
        Self { place: Place::Variable(name.into()), option: None }
    }

    /// The file in which a platform hands its token over.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self { place: Place::File(path.into()), option: None }
    }

    /// As named by the user with that option.
    #[must_use]
    pub fn by(self, option: &'static str) -> Self {
        Self { option: Some(option), ..self }
    }

    /// Whether another token may be there later. A process's variables stay the same.
    ///
    /// # Errors
    /// Why not, in words that follow "cannot renew: ".
    pub fn renews(&self) -> Result<(), String> {
        match &self.place {
            Place::File(_) => Ok(()),
            Place::Variable(name) => {
                Err(format!("the token in {} stays the same for the whole job", shown(name)))
            }
        }
    }

    /// The token.
    ///
    /// # Errors
    /// Where there is none: `Kind::Usage` where the user named it, `Kind::Proof` where nobody did.
    pub fn read(&self, env: &Environment) -> Result<Secret> {
        let kind = if self.option.is_some() { Kind::Usage } else { Kind::Proof };
        let named = match &self.place {
            Place::Variable(name) => shown(name),
            Place::File(path) => shown(&path.to_string_lossy()),
        };
        let from = self.option.map_or_else(|| named.clone(), |option| format!("{option} {named}"));
        let text = zeroize::Zeroizing::new(match &self.place {
            Place::Variable(name) => env
                .get(name)
                .ok_or_else(|| Error::new(kind, format!("{from}: the variable is not set, or empty")))?
                .to_owned(),
            Place::File(path) => std::fs::read_to_string(path)
                .map_err(|error| Error::new(kind, error).context(from.clone()))?,
        });
        let token = text.trim();
        if token.is_empty()
            || token.len() > MAX_TOKEN_BYTES
            || !token.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err(Error::new(kind, format!("{from}: that is no token")));
        }
        Ok(Secret::new(token.to_owned()))
    }

    /// A hash that tells the token that is there now from another.
    #[must_use]
    pub fn fingerprint(token: &Secret) -> [u8; 32] {
        digest(&SHA256, token.expose().as_bytes()).as_ref().try_into().unwrap_or_default()
    }
}

/// Why a platform that puts its token into a variable has none there: this is
/// no job of it, as `marker` tells, or one that was not given a token.
pub(super) fn gave_none<const N: usize>(
    job: &str,
    (is_one, marker): (bool, &str),
    variable: &str,
    hints: [String; N],
) -> Error {
    if !is_one {
        return Error::new(Kind::Proof, format!("this is not {job}: {marker} is not set"))
            .hint("choose another --join-method, or run this in such a job");
    }
    let error =
        Error::new(Kind::Proof, format!("this is {job} without an OIDC token: {variable} is not set"));
    hints.into_iter().fold(error, Error::hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_word() {
        let env = Environment::from_pairs([("GOOD", " a.b.c\n"), ("BAD", "a b")]);
        assert_eq!(Source::variable("GOOD").read(&env).unwrap().expose(), "a.b.c");
        for (source, kind, message) in [
            (Source::variable("BAD"), Kind::Proof, "BAD: that is no token"),
            (Source::variable("NONE"), Kind::Proof, "NONE: the variable is not set, or empty"),
            (
                Source::variable("BAD").by("--id-token-env"),
                Kind::Usage,
                "--id-token-env BAD: that is no token",
            ),
        ] {
            let error = source.read(&env).unwrap_err();
            assert_eq!((error.kind(), error.to_string().as_str()), (kind, message));
        }
        assert_eq!(Source::file("/no/where").read(&env).unwrap_err().kind(), Kind::Proof);
        assert!(Source::file("/x").renews().is_ok() && Source::variable("X").renews().is_err());
    }
}
