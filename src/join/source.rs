//! A token that somebody else put there: the user, the platform, a kubelet.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Instant;

use ring::digest::{SHA256, digest};
use zeroize::Zeroizing;

use crate::environment::Environment;
use crate::error::{Error, Kind, Result};
use crate::folder::read;
use crate::secret::Secret;
use crate::text::shown;
use crate::wire::MAX_TOKEN;

/// The longest file or value with a token that is read, in bytes.
const MAX_TOKEN_BYTES: usize = 64 << 10;

/// What the names of platforms' own variables begin with.
const PLATFORMS: &[&str] =
    &["ACTIONS_", "AWS_", "BITBUCKET_", "BUILDKITE_", "CI_", "CIRCLE_", "SPACELIFT_", "SYSTEM_", "TFC_"];

/// Where a job finds its token. It is read anew for each proof, since files
/// are refreshed by whoever put them there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSource {
    location: Location,
    /// The option that named it; none where it is where the platform puts it.
    option: Option<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Location {
    Variable(String),
    File(PathBuf),
}

impl Location {
    /// Whether what is to be a name or a path is the token, as it looks: that is not to be shown.
    fn is_itself(&self) -> bool {
        match self {
            Self::Variable(name) => !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'),
            // A JWT begins with `eyJ`, a registration secret with its own prefix.
            Self::File(path) => ["eyJ", "mid-reg-"]
                .iter()
                .any(|start| path.as_os_str().as_encoded_bytes().starts_with(start.as_bytes())),
        }
    }
}

impl TokenSource {
    /// The variable in which a platform hands its token over.
    pub fn variable(name: impl Into<String>) -> Self {
        Self { location: Location::Variable(name.into()), option: None }
    }

    /// The file in which a platform hands its token over.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self { location: Location::File(path.into()), option: None }
    }

    /// As named by the user with that option.
    pub fn by(self, option: &'static str) -> Self {
        Self { option: Some(option), ..self }
    }

    /// The variable with a token that the user gave to us, and no platform to all of the job.
    pub fn given_variable(&self) -> Option<&str> {
        match &self.location {
            Location::Variable(name) if self.option.is_some() => Some(name.as_str())
                .filter(|name| !PLATFORMS.iter().any(|platform| name.starts_with(platform))),
            _ => None,
        }
    }

    /// Whether another token may be there later; if not, why, in words that follow "cannot renew: ".
    pub fn renews(&self) -> Result<(), String> {
        match &self.location {
            Location::File(path) if read::is_pipe(path) => {
                Err(format!("the token came through a pipe, {}", shown(&path.to_string_lossy())))
            }
            Location::File(_) => Ok(()),
            Location::Variable(name) => {
                Err(format!("the token in {} stays the same for the whole job", shown(name)))
            }
        }
    }

    /// The token. A pipe is waited for until the deadline.
    ///
    /// # Errors
    /// Where there is none: `Kind::Usage` where the user named it, `Kind::Proof` where nobody did.
    pub async fn read(&self, env: &Environment, deadline: Instant) -> Result<Secret> {
        let kind = if self.option.is_some() { Kind::Usage } else { Kind::Proof };
        let named = match &self.location {
            Location::Variable(name) => shown(name),
            Location::File(path) => shown(&path.to_string_lossy()),
        };
        if let Some(option) = self.option.filter(|_| self.location.is_itself()) {
            return Err(Error::new(kind, format!("{option} is given something else than where the token is"))
                .hint("it takes the name of a variable, or the path of a file, and never the token itself, which others can see there")
                .hint("if it was the token: it is in this job's process list, and in its log where commands are shown"));
        }
        let from = self.option.map_or_else(|| named.clone(), |option| format!("{option} {named}"));
        let bytes = match &self.location {
            Location::Variable(name) => env
                .get(name)
                .map(|text| Zeroizing::new(text.as_bytes().to_vec()))
                .ok_or_else(|| Error::new(kind, format!("{from}: the variable is not set, or empty")))?,
            Location::File(path) => match read::before(deadline, path, MAX_TOKEN_BYTES).await {
                Err(error) if error.kind() == ErrorKind::FileTooLarge => {
                    return Err(too_long(kind, &format!("over {MAX_TOKEN_BYTES}")).context(from));
                }
                read => read.map_err(|error| Error::new(kind, error).context(from.clone()))?,
            },
        };
        token(std::str::from_utf8(&bytes).unwrap_or_default(), kind).map_err(|error| error.context(from))
    }

    /// A hash that tells the token that is there now from another.
    pub fn fingerprint(token: &Secret) -> [u8; 32] {
        digest(&SHA256, token.expose().as_bytes()).as_ref().try_into().unwrap_or_default()
    }
}

/// A token as it was found, in a place or in an answer: one word, and no longer than an authority reads.
pub(super) fn token(found: &str, kind: Kind) -> Result<Secret> {
    let token = found.trim_ascii();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Error::new(kind, "that is no token"));
    }
    if token.len() > MAX_TOKEN {
        return Err(too_long(kind, &token.len().to_string()));
    }
    Ok(Secret::new(token.to_owned()))
}

fn too_long(kind: Kind, bytes: &str) -> Error {
    Error::new(kind, format!("the token is {bytes} bytes long, and an authority reads {MAX_TOKEN} (16 KiB)"))
        .hint("have the platform put less into it: fewer groups, scopes or claims of your own")
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::Duration;

    use rustix::fs::{CWD, Mode};

    use super::*;

    async fn read(source: &TokenSource, env: &Environment) -> Result<Secret> {
        source.read(env, Instant::now() + Duration::from_secs(1)).await
    }

    #[tokio::test]
    async fn a_token_is_one_word() {
        let env = Environment::from_pairs([("GOOD", " a.b.c\n"), ("BAD", "a b")]);
        assert_eq!(read(&TokenSource::variable("GOOD"), &env).await.unwrap().expose(), "a.b.c");
        for (source, kind, message) in [
            (TokenSource::variable("BAD"), Kind::Proof, "BAD: that is no token"),
            (TokenSource::variable("NONE"), Kind::Proof, "NONE: the variable is not set, or empty"),
            (
                TokenSource::variable("BAD").by("--id-token-env"),
                Kind::Usage,
                "--id-token-env BAD: that is no token",
            ),
        ] {
            let error = read(&source, &env).await.unwrap_err();
            assert_eq!((error.kind(), error.to_string().as_str()), (kind, message));
        }
        for itself in [
            TokenSource::variable("eyJhbGciOiJSUzI1NiJ9.e30.c2ln").by("--id-token-env"),
            TokenSource::variable("$TOKEN").by("--id-token-env"),
            TokenSource::file("eyJhbGciOiJSUzI1NiJ9.e30.c2ln").by("--id-token-file"),
            TokenSource::file("mid-reg-c2VjcmV0").by("--registration-secret-file"),
        ] {
            let error = read(&itself, &env).await.unwrap_err();
            let all = format!("{error} {:?}", error.hints());
            assert_eq!(error.kind(), Kind::Usage);
            assert!(all.contains(" is given something else than where the token is"), "{all}");
            assert!(!["eyJ", "c2", "$TOKEN"].iter().any(|secret| all.contains(secret)), "{all}");
        }
        assert_eq!(read(&TokenSource::file("/no/where"), &env).await.unwrap_err().kind(), Kind::Proof);
        assert!(TokenSource::file("/x").renews().is_ok() && TokenSource::variable("X").renews().is_err());
    }

    #[tokio::test]
    async fn no_file_holds_a_job() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("good"), "a.b.c\n").unwrap();
        std::os::unix::fs::symlink("good", path("link")).unwrap();
        std::fs::write(path("huge"), "x".repeat(MAX_TOKEN_BYTES + 1)).unwrap();
        std::fs::write(path("empty"), "").unwrap();
        std::fs::write(path("binary"), b"\xff\xfe").unwrap();
        rustix::fs::mkfifoat(CWD, path("pipe"), Mode::RWXU).unwrap();
        let said = async |path: PathBuf| {
            let found = read(&TokenSource::file(&path), &Environment::default()).await;
            found.map(|token| token.expose().to_owned()).map_err(|error| error.to_string())
        };
        for good in ["good", "link"] {
            assert_eq!(said(path(good)).await.unwrap(), "a.b.c");
        }
        for bad in ["empty", "binary"] {
            assert!(said(path(bad)).await.unwrap_err().ends_with(": that is no token"), "{bad}");
        }
        std::fs::write(path("long"), "x".repeat(MAX_TOKEN + 1)).unwrap();
        let long = said(path("long")).await.unwrap_err();
        assert!(
            long.ends_with(": the token is 16385 bytes long, and an authority reads 16384 (16 KiB)"),
            "{long}"
        );
        // The second has no end.
        for endless in [path("huge"), "/dev/zero".into()] {
            let long = said(endless).await.unwrap_err();
            assert!(
                long.contains(": the token is over 65536 bytes long, and an authority reads 16384"),
                "{long}"
            );
        }
        assert!(said(folder.path().to_owned()).await.unwrap_err().contains("directory"));
        assert!(
            TokenSource::file(path("pipe"))
                .renews()
                .unwrap_err()
                .starts_with("the token came through a pipe")
        );
        // Nobody writes into it.
        assert!(said(path("pipe")).await.unwrap_err().ends_with("nothing was written into it in time"));
        // Somebody does, after a while and in two parts.
        let into = path("pipe");
        let writer = std::thread::spawn(move || {
            use std::io::Write as _;
            let mut pipe = File::options().write(true).open(into).unwrap();
            for part in ["a.", "b.c\n"] {
                pipe.write_all(part.as_bytes()).unwrap();
                std::thread::sleep(Duration::from_millis(30));
            }
        });
        assert_eq!(said(path("pipe")).await.unwrap(), "a.b.c");
        writer.join().unwrap();
    }
}
