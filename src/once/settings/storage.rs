//! `--storage`: the private directory in which a worker that stays keeps its
//! key from one run to the next. What is written there survives a crash at
//! any point, and two runs never use it at once.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use rustix::io::Errno;

use crate::cli::once::Args;
use crate::environment::Environment;
use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::lock::NotLocked;
use crate::folder::trust::{self, Standing};
use crate::folder::{Folder, PRIVATE_FILE, PRIVATE_FOLDER, Unfit, absolute, read, replace};
use crate::join::method::Method;
use crate::join::prove::{LockedStorage, Storage};
use crate::join::source::TokenSource;
use crate::once::settings::destinations::Destination;
use crate::secret::Secret;

/// The variable with the secret that registers a worker.
pub(super) const REGISTRATION_SECRET: &str = "MACHINE_ID_REGISTRATION_SECRET";

/// What to do where others could put another directory in its place.
const ELSEWHERE: &str = "choose a --storage below directories that only this user and root can write to";
/// What is kept.
const STATE: &str = "state.json";
/// Locked by whoever uses the directory.
const LOCK: &str = "lock";
/// The largest state that is read, in bytes; one with every list full is about 30 KB.
const MAX_STATE: read::Limit = read::Limit::bytes(256 << 10);
/// What must be left of the time to say that a storage is in use.
const TO_SAY_SO: Duration = Duration::from_millis(60);

/// What the options say of a worker that stays.
#[derive(Default)]
pub(crate) struct StorageOptions {
    pub folder: Option<StorageFolder>,
    /// Where the registration secret is.
    pub secret: Option<TokenSource>,
}

impl StorageOptions {
    /// Joins flags, environment and file. What was typed for a method that has
    /// no use for it is a mistake; what is set for the whole machine is not.
    pub(super) fn join(
        method: &Method,
        args: &Args,
        env: &Environment,
        file: Option<String>,
        notes: &mut Vec<String>,
    ) -> Result<Self> {
        const VARIABLE: &str = "MACHINE_ID_STORAGE";
        const SECRET_OPTION: &str = "--registration-secret-file";
        let around = env.get(VARIABLE).map(str::to_owned).or(file);
        let name = method.name;
        if !method.registers {
            let typed = [("--storage", &args.storage), (SECRET_OPTION, &args.registration_secret_file)];
            if let Some((option, _)) = typed.iter().find(|(_, value)| value.is_some()) {
                let cause = format!("{option}: the join method `{name}` keeps nothing between runs");
                return Err(
                    Error::usage(cause).hint(format!("leave {option} out, or choose another --join-method"))
                );
            }
            notes.extend(
                around.map(|_| format!("no storage is used: the join method `{name}` keeps nothing")),
            );
            return Ok(Self::default());
        }
        let path = args.storage.clone().or(around).ok_or_else(|| {
            Error::usage(format!("the join method `{name}` needs a storage")).hint(format!(
                "give --storage DIR, or set {VARIABLE}: a directory of this worker's own, which stays"
            ))
        })?;
        let secret = match &args.registration_secret_file {
            Some(path) => Some(TokenSource::file(path).by(SECRET_OPTION)),
            None => env.get(REGISTRATION_SECRET).map(|_| TokenSource::variable(REGISTRATION_SECRET)),
        };
        Ok(Self { folder: Some(StorageFolder { path: absolute(&path)? }), secret })
    }

    /// That no destination is the storage, in it or around it: what a job
    /// hands on, or wipes, must not be the worker's key.
    pub(super) fn stands_apart(&self, destinations: &[Destination]) -> Result<()> {
        let Some(StorageFolder { path: storage }) = &self.folder else { return Ok(()) };
        let mut paths = destinations.iter().map(|destination| &destination.path);
        match paths.find(|path| path.starts_with(storage) || storage.starts_with(path)) {
            None => Ok(()),
            Some(path) => Err(Error::usage(format!(
                "the destination {} and the storage {} are not apart from each other",
                path.display(),
                storage.display()
            ))
            .hint("give each a directory of its own, neither inside the other")),
        }
    }
}

/// The directory, not looked at yet.
#[derive(Debug)]
pub(crate) struct StorageFolder {
    path: PathBuf,
}

impl Storage for StorageFolder {
    fn acquire(&self, deadline: Instant) -> BoxFuture<'_, Result<Box<dyn LockedStorage>>> {
        Box::pin(async move {
            let folder = self.open().map_err(|unfit| self.refuse(unfit))?;
            let locked = folder.lock(LOCK, deadline.checked_sub(TO_SAY_SO).unwrap_or(deadline)).await;
            let _lock = locked.map_err(|why| self.not_locked(why))?;
            folder.remove_temporaries(0);
            let locked: Box<dyn LockedStorage> = Box::new(LockedFolder { folder, _lock });
            Ok(locked)
        })
    }
}

impl StorageFolder {
    fn refuse(&self, unfit: Unfit) -> Error {
        unfit.error(Kind::Usage, format!("cannot use the storage {}", self.path.display()))
    }

    fn not_locked(&self, why: NotLocked) -> Error {
        match why {
            NotLocked::Busy => Error::new(
                Kind::Proof,
                format!("the storage {} is in use by another machine-id", self.path.display()),
            )
            .hint("--timeout waits longer; a worker with many jobs at once can have several storages, each registered on its own"),
            // Without locks two runs could present the same generation.
            NotLocked::Unsupported(error) => self.refuse(
                Unfit::new(format!("cannot lock it: {error}")).hint("put it on a file system that has locks"),
            ),
            NotLocked::Refused(why) => self.refuse(Unfit::new(format!("cannot lock it: {why}"))),
        }
    }

    /// Opens it, creates it if need be, and makes sure that it is ours and private.
    fn open(&self) -> Result<Folder, Unfit> {
        let (folder, created) =
            Folder::make(&self.path, PRIVATE_FOLDER, "--storage", ELSEWHERE).map_err(|unfit| {
                if !unfit.is_missing() {
                    return unfit;
                }
                Unfit::new(format!("the directory above it: {}", std::io::Error::from(Errno::NOENT)))
                    .hint("create it, or choose another --storage")
            })?;
        if created {
            // It must be there after a power cut, as what is in it must.
            self.path.parent().map_or(Ok(()), replace::sync)?;
        }
        let standing = folder.standing()?;
        if standing.others_use() {
            return Err(Unfit::new(format!("others can look into it (mode {:o})", standing.mode))
                .hint(format!("if nobody has: chmod 700 {}", self.path.display())));
        }
        let names = folder.entries()?;
        let foreign = |name: &String| name != LOCK && !replace::is_temporary(name);
        if !names.iter().any(|name| name == STATE) && names.iter().any(foreign) {
            return Err(Unfit::new("it holds something else").hint("choose a new or empty --storage"));
        }
        Ok(folder)
    }
}

/// The directory, open and locked.
struct LockedFolder {
    folder: Folder,
    _lock: File,
}

impl LockedStorage for LockedFolder {
    fn read(&self) -> Result<Option<Secret>> {
        let path = self.path().join(STATE);
        let refuse = |why: String| Error::usage(format!("cannot use {}: {why}", path.display()));
        let cannot = || format!("cannot read {}", path.display());
        let file = match self.folder.open_file(STATE) {
            Ok(Some(file)) => file,
            Ok(None) => return Ok(None),
            Err(unfit) if unfit.is_of_system() => return Err(unfit.error(Kind::Proof, cannot())),
            Err(unfit) => return Err(refuse(unfit.to_string())),
        };
        let standing = Standing::of(&file).context(Kind::Proof, cannot())?;
        if standing.uid != trust::me() {
            return Err(refuse("it belongs to another user".to_owned()));
        }
        if standing.others_use() {
            return Err(refuse(format!("others can read it (mode {:o})", standing.mode))
                .hint("its key may be known: register the worker anew, in another --storage")
                .hint(format!("if nobody has read it: chmod 600 {}", path.display())));
        }
        let text = read::file(file, MAX_STATE).map_err(Into::into).and_then(read::utf8);
        text.map(|text| Some(Secret::from(text))).map_err(|unfit| unfit.error(Kind::Proof, cannot()))
    }

    fn write(&mut self, content: &str) -> Result<()> {
        let path = self.path().join(STATE);
        let written = self.folder.replace_durably(STATE, content.as_bytes(), PRIVATE_FILE);
        written.context(Kind::Proof, format!("cannot write {}", path.display())).map_err(|error| {
            error.hint(
                "nothing is lost: what was kept is still there; make room, or let this user write there",
            )
        })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(200)
    }

    fn folder(path: &Path) -> StorageFolder {
        StorageFolder { path: path.to_owned() }
    }

    #[tokio::test]
    async fn what_is_written_is_there_and_nobody_else_uses_it() {
        let temp = tempfile::tempdir().unwrap();
        let path = std::fs::canonicalize(temp.path()).unwrap().join("storage");
        let mut held = folder(&path).acquire(soon()).await.unwrap();
        assert!(held.read().unwrap().is_none());
        held.write("one").unwrap();
        held.write("two").unwrap();
        assert_eq!(held.read().unwrap().unwrap().expose(), "two");
        let error = folder(&path).acquire(soon()).await.err().unwrap();
        assert_eq!(error.kind(), Kind::Proof);
        assert!(error.to_string().contains("is in use by another machine-id"), "{error}");
        std::fs::write(path.join(".machine-id-0123456789abcdef.tmp"), "left by a crash").unwrap();
        drop(held);
        let held = folder(&path).acquire(soon()).await.unwrap();
        assert_eq!(held.read().unwrap().unwrap().expose(), "two");
        let mut names: Vec<_> =
            std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["lock", "state.json"]);
        for (name, mode) in [("", 0o700), ("state.json", 0o600), ("lock", 0o600)] {
            let metadata = std::fs::metadata(path.join(name)).unwrap();
            assert_eq!(metadata.permissions().mode() & 0o7777, mode, "{name}");
        }
    }

    #[tokio::test]
    async fn what_others_could_have_touched_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let here = std::fs::canonicalize(temp.path()).unwrap();
        let make = |name: &str, mode| {
            let path = here.join(name);
            std::fs::create_dir(&path).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let state = |path: &Path, mode| {
            std::fs::write(path.join(STATE), "{}").unwrap();
            std::fs::set_permissions(path.join(STATE), std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let private = make("private", 0o700);
        symlink(&private, here.join("link")).unwrap();
        std::fs::write(here.join("file"), "").unwrap();
        let full = make("full", 0o700);
        std::fs::write(full.join("thesis.tex"), "").unwrap();
        let shared = make("shared", 0o777);
        std::fs::create_dir(shared.join("below")).unwrap();
        // It leads to where nobody else can write, as long as nobody makes it lead elsewhere.
        symlink(&private, shared.join("way")).unwrap();
        let read = make("read", 0o700);
        state(&read, 0o644);
        let linked = make("linked", 0o700);
        symlink(read.join(STATE), linked.join(STATE)).unwrap();
        for (path, says) in [
            (here.join("link"), "it is not a directory, or a symbolic link"),
            (here.join("file"), "not a directory"),
            (make("open", 0o755), "others can look into it (mode 755)"),
            (full, "it holds something else"),
            (shared.join("below"), "can be written to by everybody"),
            (shared.join("way/storage"), "can be written to by everybody"),
            (here.join("none/storage"), "the directory above it"),
            (read, "others can read it (mode 644)"),
            (linked, "it is a symbolic link"),
        ] {
            let tried = match folder(&path).acquire(soon()).await {
                Ok(held) => held.read().map(drop),
                Err(error) => Err(error),
            };
            let error = tried.expect_err(says);
            assert!(error.to_string().contains(says), "{error}");
            assert_eq!(error.kind(), Kind::Usage);
        }
    }
}
