//! The machine that a host's commands run on: its programs, its users, and systemd.
//!
//! What root runs is looked for in the system's own folders, whatever `PATH` says, and gets no environment.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Context as _, Error, Kind, Result};

/// Where programs of the system are, in this order.
const FOLDERS: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// What a program said.
#[derive(Debug)]
pub struct Said {
    /// Its status; none where a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

impl Said {
    /// Whether it ended well.
    pub fn is_good(&self) -> bool {
        self.code == Some(0)
    }

    /// Why not: the first line that it complained with.
    pub fn why(&self) -> String {
        let line = self.stderr.lines().map(str::trim).find(|line| !line.is_empty());
        match (line, self.code) {
            (Some(line), _) => line.to_owned(),
            (None, Some(code)) => format!("it ended with status {code}"),
            (None, None) => "a signal ended it".to_owned(),
        }
    }
}

/// Where that program is.
pub fn program(name: &str) -> Result<PathBuf> {
    let mut places = FOLDERS.iter().map(|folder| Path::new(folder).join(name));
    places.find(|place| place.is_file()).ok_or_else(|| {
        Error::usage(format!("there is no `{name}` on this machine")).hint("install the package that has it")
    })
}

/// A program with the environment of a system's command.
pub fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", FOLDERS.join(":")).env("LC_ALL", "C").stdin(Stdio::null());
    command
}

/// Runs it to its end, whatever that is.
pub fn ask(command: &mut Command) -> Result<Said> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().context(Kind::Internal, format!("cannot run {name}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Said { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) })
}

/// Asks a program of the system's.
pub fn asked<S: AsRef<OsStr>>(name: &str, args: impl IntoIterator<Item = S>) -> Result<Said> {
    ask(command(&program(name)?).args(args))
}

/// Has a program of the system's do something; `Kind::Internal` where it does not.
pub fn run(name: &str, args: &[&str]) -> Result<String> {
    let said = asked(name, args)?;
    if said.is_good() {
        return Ok(said.stdout);
    }
    Err(Error::internal(said.why()).context(format!("`{name} {}` failed", args.join(" "))))
}

/// A user, as the system knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its number.
    pub uid: u32,
    /// Its group's.
    pub gid: u32,
    /// What is said of it.
    pub comment: String,
    /// Its shell.
    pub shell: String,
}

impl User {
    /// The one of that name, if there is one.
    pub fn named(name: &str) -> Result<Option<Self>> {
        let said = asked("getent", ["passwd", "--", name])?;
        // 2: it is not known.
        if said.code == Some(2) {
            return Ok(None);
        }
        match Self::parse(&said.stdout) {
            Some(user) if said.is_good() => Ok(Some(user)),
            _ => Err(Error::internal(said.why()).context(format!("cannot look up the user `{name}`"))),
        }
    }

    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.trim_end_matches('\n').split(':').collect();
        let [_, _, uid, gid, comment, _, shell] = *fields.first_chunk::<7>()?;
        Some(Self {
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
            comment: comment.to_owned(),
            shell: shell.to_owned(),
        })
    }
}

/// Whether systemd is what starts and stops things here.
pub fn has_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Whether systemd says so of a unit: `is-active`, `is-enabled`, `is-failed`.
pub fn unit_is(question: &str, unit: &str) -> Result<bool> {
    Ok(asked("systemctl", [question, "--quiet", unit])?.is_good())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_read() {
        let root = User::named("root").unwrap().unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(User::named("no-such-user").unwrap(), None);
        assert_eq!(User::parse("a:x:1:2:some one:/home"), None);
    }

    #[test]
    fn what_failed_says_why() {
        let error = run("getent", &["passwd", "no-such-user"]).unwrap_err();
        assert_eq!(error.to_string(), "`getent passwd no-such-user` failed: it ended with status 2");
        assert!(program("no-such-program").is_err());
        let said =
            ask(command(&program("sh").unwrap()).args(["-c", "echo; echo why >&2; echo more >&2; exit 3"]));
        assert_eq!((said.as_ref().unwrap().why().as_str(), said.unwrap().code), ("why", Some(3)));
        // Whatever this process's environment is.
        let path = run("sh", &["-c", "echo \"$PATH $HOME\""]).unwrap();
        assert_eq!(path, format!("{} \n", FOLDERS.join(":")));
    }
}
