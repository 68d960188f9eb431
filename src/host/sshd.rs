//! `sshd`: its configuration as it is in force, by its own word.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use ssh_key::{Certificate, PublicKey};

use super::machine;
use crate::error::{Error, Result};
use crate::folder::Unfit;
use crate::folder::read::{self, Limit, Trust};

/// Its configuration, unless it is told another.
pub const CONFIG: &str = "/etc/ssh/sshd_config";
/// The folder that `sshd` wants to be there, and that its unit makes when it is started.
const RUN: &str = "/run/sshd";
/// What the unit is called, by distribution.
const UNITS: [&str; 2] = ["ssh.service", "sshd.service"];

/// What is in force, by keyword in small letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effective(BTreeMap<String, Vec<String>>);

impl Effective {
    /// Of all connections, or of one of that user's from this machine; by the configuration of that name, or its own.
    ///
    /// # Errors
    /// `Kind::Usage` where `sshd` does not take it.
    pub fn of(config: Option<&Path>, user: Option<&str>) -> Result<Self> {
        let mut args: Vec<OsString> = vec!["-T".into()];
        args.extend(config.into_iter().flat_map(|path| ["-f".into(), path.into()]));
        if let Some(user) = user {
            // All of them: what a `Match` asks for and is not said is an error to older ones.
            let of = format!("user={user},host=localhost,addr=127.0.0.1,laddr=127.0.0.1,lport=22");
            args.extend(["-C".into(), of.into()]);
        }
        let said = machine::asked("sshd", args)?;
        if said.is_good() { Ok(Self::parse(&said.stdout)) } else { Err(refused(&said)) }
    }

    fn parse(text: &str) -> Self {
        let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (word, value) in text.lines().filter_map(|line| line.split_once(' ')) {
            all.entry(word.to_ascii_lowercase()).or_default().push(value.trim().to_owned());
        }
        Self(all)
    }

    /// Everything that is set there; nothing for `none`.
    pub fn all(&self, keyword: &str) -> impl Iterator<Item = &str> {
        let values = self.0.get(keyword).into_iter().flatten();
        values.map(String::as_str).filter(|value| !value.is_empty() && *value != "none")
    }

    /// The same of what is set once.
    pub fn one(&self, keyword: &str) -> Option<&str> {
        self.all(keyword).next()
    }

    /// Whether a list with commas has that.
    pub fn lists(&self, keyword: &str, name: &str) -> Option<bool> {
        Some(self.one(keyword)?.split(',').any(|one| one == name))
    }
}

/// Whether it takes its configuration, or the one of that name.
pub fn test(config: Option<&Path>) -> Result<()> {
    let mut args: Vec<OsString> = vec!["-t".into()];
    args.extend(config.into_iter().flat_map(|path| ["-f".into(), path.into()]));
    let said = machine::asked("sshd", args)?;
    if said.is_good() { Ok(()) } else { Err(refused(&said)) }
}

fn refused(said: &machine::Said) -> Error {
    // What is wrong, and that it is; what is merely odd stands before.
    let lines: Vec<&str> = said.stderr.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines.get(lines.len().saturating_sub(2)..).unwrap_or_default().join("; ");
    Error::usage(if last.is_empty() { said.why() } else { last })
        .context("sshd does not take its configuration (`sshd -t`)")
        .hint("`sudo sshd -t` says all of it")
}

/// Makes the folder without which it does nothing: where it is started by its socket, nobody has yet.
pub fn prepare() {
    if !Path::new(RUN).exists() {
        let _ = std::fs::create_dir(RUN);
    }
}

/// Its unit here, where systemd knows one.
pub fn unit() -> Result<Option<&'static str>> {
    for unit in UNITS {
        if machine::run("systemctl", &["show", "--property=LoadState", "--value", unit])?.trim() == "loaded" {
            return Ok(Some(unit));
        }
    }
    Ok(None)
}

/// Has one that runs read its configuration; sessions go on.
pub fn reload(unit: &str) -> Result<()> {
    machine::run("systemctl", &["try-reload-or-restart", unit]).map(drop)
}

/// The first line of a file of keys that is no comment.
fn first_line(path: &Path) -> Result<String, Unfit> {
    let text = read::raw(path, Trust::Anyone, Limit::FILE).and_then(read::utf8)?;
    let is_key = |line: &&str| !line.is_empty() && !line.starts_with('#');
    let line = text.lines().map(str::trim).find(is_key);
    line.map(str::to_owned).ok_or_else(|| Unfit::new("it holds no key"))
}

/// The certificate in a file of `sshd`'s or `ssh`'s.
pub fn certificate(path: &Path) -> Result<Certificate, Unfit> {
    Certificate::from_openssh(&first_line(path)?)
        .map_err(|error| Unfit::new(format!("it is no certificate of OpenSSH's: {error}")))
}

/// The public key in a file.
pub fn public_key(path: &Path) -> Result<PublicKey, Unfit> {
    PublicKey::from_openssh(&first_line(path)?)
        .map_err(|error| Unfit::new(format!("it is no public key of OpenSSH's: {error}")))
}

/// The file with the public half of one of its keys.
pub fn public_half(key: &str) -> PathBuf {
    PathBuf::from(format!("{}.pub", key.strip_suffix(".pub").unwrap_or(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sshd_prints_is_read() {
        let all = Effective::parse(
            "trustedusercakeys /etc/a b\nrevokedkeys none\nhostkey /a\nhostkey /b\nallowusers\nCASignatureAlgorithms x,y\n",
        );
        assert_eq!(all.one("trustedusercakeys"), Some("/etc/a b"));
        assert_eq!((all.one("revokedkeys"), all.one("allowusers"), all.one("missing")), (None, None, None));
        assert_eq!(all.all("hostkey").collect::<Vec<_>>(), ["/a", "/b"]);
        assert_eq!(all.lists("casignaturealgorithms", "y"), Some(true));
        assert_eq!(all.lists("casignaturealgorithms", "z"), Some(false));
        assert_eq!(all.lists("missing", "z"), None);
    }
}
