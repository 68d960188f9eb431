//! Tokens that a command of the platform's own mints.

use std::process::Stdio;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::prove::Job;
use super::source::token;
use crate::environment::Environment;
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;
use crate::text::shown_unless_secret;

/// A command that prints a token. It finds what it needs in the job's
/// environment; none of its arguments may be secret.
pub(super) struct Minter<'a> {
    /// The program and the words that say what it is to do.
    pub words: &'a [&'a str],
    /// What follows them.
    pub options: Vec<String>,
    /// It may take this part of the job's time: what comes after needs some too.
    pub share: u32,
    /// And no longer than this.
    pub longest: Duration,
    /// The variables whose values it may say, and nobody may see.
    pub secrets: &'a [&'a str],
}

impl Minter<'_> {
    /// Runs it. `Kind::Unreachable` where it did not end in time.
    pub(super) async fn mint(self, job: &Job<'_>) -> Result<Secret> {
        let named = self.words.join(" ");
        let failed = |why: String| Error::new(Kind::Proof, format!("`{named}` {why}"));
        (job.say)(&format!("asking `{named}` for an OIDC token"));
        let mut words = self.words.iter();
        let mut command = tokio::process::Command::new(words.next().copied().unwrap_or_default());
        command.args(words).args(&self.options);
        command.stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let now = Instant::now();
        let left = Instant::from_std(job.deadline).saturating_duration_since(now) / self.share;
        let output = match timeout_at(now + left.min(self.longest), command.output()).await {
            Ok(Ok(output)) => output,
            Ok(Err(error)) => return Err(failed(format!("could not be run ({error})"))),
            Err(_) => return Err(Error::new(Kind::Unreachable, format!("`{named}` took too long"))),
        };
        let said = zeroize::Zeroizing::new(output.stdout);
        if !output.status.success() {
            let secrets: Vec<&str> = self.secrets.iter().filter_map(|name| job.env.get(name)).collect();
            let words = shown_unless_secret(String::from_utf8_lossy(&output.stderr).trim(), &secrets);
            return Err(failed(format!("failed ({words})")));
        }
        let found = std::str::from_utf8(&said).unwrap_or_default();
        if found.split('.').count() != 3 || found.trim().contains(|c: char| !c.is_ascii_graphic()) {
            return Err(failed("printed something else than a token".to_owned()));
        }
        token(found, Kind::Proof).map_err(|error| error.context(format!("`{named}`")))
    }
}

/// Whether the job has a command of that name; if not, in words that follow "cannot renew: ".
pub(super) fn find(env: &Environment, program: &str) -> Result<(), String> {
    // An empty list of folders would be the current one.
    let has = |path: &str| std::env::split_paths(path).any(|folder| folder.join(program).is_file());
    match env.get("PATH").is_some_and(has) {
        true => Ok(()),
        false => Err(format!("there is no `{program}` command")),
    }
}
