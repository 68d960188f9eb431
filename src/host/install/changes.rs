//! What a run changes, with the way back.

use std::os::unix::fs::{DirBuilderExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::away::{leave_folder, remove_lists, remove_user, wipe};
use super::include;
use super::mark::{self, Found};
use super::places::{self, COMMENT, DESTINATION, FOLDER, TRUST};
use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::Folder;
use crate::folder::lock::NotLocked;
use crate::host::machine::{self, User};
use crate::host::sshd;
use crate::host::store::LOCK;

/// How long another run is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was done.
#[derive(Debug, Default)]
pub struct Done {
    /// Files that were written or taken away, in that order.
    pub paths: Vec<String>,
    /// The unit that has read its configuration anew.
    pub reloaded: Option<&'static str>,
    /// What was left, and why.
    pub left: Vec<String>,
}

/// What undoes a step.
#[derive(Debug)]
enum Undo {
    /// A file as it was; none where there was none.
    File(String, Option<String>),
    /// The line in `sshd`'s own file.
    Include,
    User(String),
    /// CA keys and lists, where there were none.
    Lists,
    /// A certificate, where there was none, which this program gives back.
    Joined(PathBuf),
    /// A folder that is empty by then.
    Folder(String),
    /// A unit that was not enabled.
    Unit(&'static str),
    /// A unit that ran by its file of before.
    Restart(&'static str),
    Systemd,
    Sshd(&'static str),
}

/// The steps so far.
#[derive(Debug, Default)]
pub(super) struct Changes {
    steps: Vec<Undo>,
    /// Files that were written or taken away.
    pub(super) paths: Vec<String>,
}

impl Changes {
    /// Puts a file in place that is not there as it is; whether it was not.
    pub(super) fn write(&mut self, path: &str, text: &str) -> Result<bool> {
        let before = self.before(path);
        if before.as_deref() == Some(text) {
            return Ok(false);
        }
        self.steps.push(Undo::File(path.to_owned(), before));
        mark::write(Path::new(path), text)?;
        self.paths.push(path.to_owned());
        Ok(true)
    }

    /// Takes a file of ours away.
    pub(super) fn remove(&mut self, path: &str) -> Result<()> {
        self.steps.push(Undo::File(path.to_owned(), self.before(path)));
        mark::remove(Path::new(path))?;
        self.paths.push(path.to_owned());
        Ok(())
    }

    fn before(&self, path: &str) -> Option<String> {
        match mark::found(Path::new(path)) {
            Found::Ours(text) => Some(text),
            _ => None,
        }
    }

    /// Has `sshd`'s own file read the drop-in.
    pub(super) fn include(&mut self) -> Result<()> {
        self.steps.push(Undo::Include);
        include::add()?;
        self.paths.push(sshd::CONFIG.to_owned());
        Ok(())
    }

    /// A user of the system's, made if need be.
    pub(super) fn user(&mut self, name: &str, home: &str) -> Result<User> {
        if let Some(user) = User::named(name)? {
            return Ok(user);
        }
        self.steps.push(Undo::User(name.to_owned()));
        let nologin = machine::program("nologin")?.display().to_string();
        let (kind, comment) =
            (["--system", "--user-group", "--no-create-home", "--home-dir", home], ["--comment", COMMENT]);
        let args: Vec<&str> = kind.into_iter().chain(comment).chain(["--shell", &nologin, name]).collect();
        machine::run("useradd", &args)?;
        User::named(name)?
            .ok_or_else(|| Error::internal(format!("the user {name} is not there after `useradd`")))
    }

    /// A folder that anybody may look into, made if need be; that user's, or root's.
    pub(super) fn folder(&mut self, path: &str, owner: Option<&User>) -> Result<()> {
        let cannot = || format!("cannot make {path}");
        if std::fs::symlink_metadata(path).is_err() {
            self.steps.push(Undo::Folder(path.to_owned()));
            std::fs::DirBuilder::new().mode(0o755).create(path).context(Kind::Usage, cannot())?;
        }
        let Some(user) = owner else { return Ok(()) };
        // It is where root alone can put another: this is no link of somebody else's.
        chown(path, Some(user.uid), Some(user.gid)).context(Kind::Usage, cannot())
    }

    /// Where this is undone, the lists go that are fetched now.
    pub(super) fn lists(&mut self) {
        if !Path::new(TRUST).exists() {
            self.steps.push(Undo::Lists);
        }
    }

    /// The same of the certificate.
    pub(super) fn joined(&mut self, program: &Path) {
        if !Path::new(DESTINATION).exists() {
            self.steps.push(Undo::Joined(program.to_owned()));
        }
    }

    /// Units are read anew now, and where this is undone, once more.
    pub(super) fn systemd(&mut self) {
        self.steps.push(Undo::Systemd);
    }

    /// Enables a unit and has it run; one whose file has changed begins anew.
    pub(super) fn enable(&mut self, unit: &'static str, changed: bool) -> Result<()> {
        let was = machine::unit_is("is-enabled", unit)?;
        if !was {
            self.steps.push(Undo::Unit(unit));
        }
        machine::run("systemctl", &["enable", "--now", unit])?;
        if was && changed {
            machine::run("systemctl", &["restart", unit])?;
        }
        Ok(())
    }

    /// Where this is undone, a unit that runs is to go by its file of before. To be said before that is written.
    pub(super) fn restart(&mut self, unit: &'static str) {
        self.steps.push(Undo::Restart(unit));
    }

    /// Where this is undone, `sshd` reads its configuration anew. To be said before that is written.
    pub(super) fn sshd(&mut self, unit: &'static str) {
        self.steps.push(Undo::Sshd(unit));
    }

    /// Goes all the way back; what could not be undone is said.
    pub(super) fn undo(self) -> Vec<String> {
        let mut failed = Vec::new();
        for step in self.steps.into_iter().rev() {
            if let Err(error) = step.run() {
                failed.push(error.to_string());
            }
        }
        failed
    }
}

impl Undo {
    fn run(self) -> Result<()> {
        match self {
            Self::File(path, Some(text)) => mark::write(Path::new(&path), &text),
            Self::File(path, None) => mark::remove(Path::new(&path)),
            Self::Include => include::remove().map(drop),
            Self::User(name) => remove_user(&name),
            Self::Lists => remove_lists(),
            Self::Joined(program) => wipe(&program),
            Self::Folder(path) if path == FOLDER => leave_folder(),
            Self::Folder(path) => {
                // What is in it is somebody's.
                let _ = std::fs::remove_dir(path);
                Ok(())
            }
            Self::Unit(unit) => machine::run("systemctl", &["disable", "--now", unit]).map(drop),
            Self::Restart(unit) if !Path::new(&places::unit(unit)).exists() => Ok(()),
            Self::Restart(unit) => machine::run("systemctl", &["try-restart", unit]).map(drop),
            Self::Systemd => machine::run("systemctl", &["daemon-reload"]).map(drop),
            Self::Sshd(unit) => sshd::reload(unit),
        }
    }
}

/// One run at a time.
pub(super) async fn lock() -> Result<std::fs::File> {
    let folder = Folder::open(Path::new(FOLDER))
        .map_err(|unfit| unfit.error(Kind::Usage, format!("cannot use {FOLDER}")))?;
    folder.lock(LOCK, Instant::now() + PATIENCE).await.map_err(|why| match why {
        NotLocked::Refused(why) => why.error(Kind::Usage, format!("cannot lock {FOLDER}")),
        _ => Error::usage("another `host install` or `uninstall` is at work"),
    })
}
