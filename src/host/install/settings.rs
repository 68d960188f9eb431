//! What a host is to be set up with, checked.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::folder::trust;
use crate::net::AuthorityTrust;
use crate::principal;
use crate::text::shown;

/// Where the host's certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Certified {
    /// It was signed by hand, and is not renewed.
    Given(PathBuf),
    /// The host joins, as a job does, and so has it renewed.
    Joined(Join),
}

/// How it joins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// The join token.
    pub token: String,
    /// The join method.
    pub method: String,
    /// Whether that method keeps something between runs.
    pub registers: bool,
    /// Where the secret is that registers it, the first time.
    pub secret: Option<PathBuf>,
}

/// All of it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This program, where `sshd` and units find it.
    pub program: PathBuf,
    /// The authority's URL.
    pub authority: String,
    /// How its certificate is judged.
    pub trust: AuthorityTrust,
    /// The key that must have signed the first statement.
    pub statement_key: Option<String>,
    /// This host's labels, as `host principals` takes them.
    pub labels: String,
    /// The names by which jobs know it; of a certificate that is given, whatever it has.
    pub principals: Vec<String>,
    /// Its certificate.
    pub certified: Certified,
    /// Which of `sshd`'s keys is certified.
    pub host_key: Option<PathBuf>,
    /// Whether sessions end whose certificate is revoked.
    pub end_sessions: bool,
    /// Whether lists are fetched by a timer, and nobody watches.
    pub timer: bool,
    /// After how long without a word from the authority nobody gets in.
    pub fail_closed: Option<String>,
    /// The proxy, as variables.
    pub proxies: Vec<(String, String)>,
    /// The time for a fetch.
    pub timeout: Duration,
}

impl Settings {
    /// Checks what can be checked without looking at the host.
    ///
    /// # Errors
    /// `Kind::Usage`.
    pub fn check(&self) -> Result<()> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '+');
        if !self.program.to_string_lossy().chars().all(plain) {
            return Err(elsewhere(&self.program, "its path has more than letters, digits and `/._-+`"));
        }
        trust::roots(&self.program).map_err(|unfit| {
            elsewhere(&self.program, "sshd runs what root owns and nobody else can write to")
                .context(unfit.to_string())
        })?;
        let mut labels = principal::Labels::default();
        labels.add(&self.labels).map_err(|why| Error::usage(why).context("--labels"))?;
        principal::hosts(self.principals.clone()).map_err(|why| Error::usage(why).context("--principal"))?;
        if let Certified::Joined(Join { token, .. }) = &self.certified
            && token.chars().any(|c| c.is_control() || c.is_whitespace())
        {
            return Err(Error::usage(format!("`{}` is no join token's name", shown(token))));
        }
        match self.proxies.iter().find(|(_, value)| value.contains('@')) {
            None => Ok(()),
            Some((name, _)) => Err(Error::usage(format!(
                "{name} may hold a password, and everybody can read a unit"
            ))
            .hint(format!(
                "run this without it, and give it to each unit by `systemctl edit`, from an `EnvironmentFile=` of mode 0600; or unset {name}"
            ))),
        }
    }
}

fn elsewhere(program: &Path, why: &str) -> Error {
    Error::usage(format!("{} cannot be sshd's command: {why}", program.display())).hint(format!(
        "sudo install -o root -g root -m 0755 {} /usr/local/bin/machine-id, and run that",
        program.display()
    ))
}
