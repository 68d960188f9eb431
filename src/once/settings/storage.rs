//! `--storage`: the private directory in which a worker that stays keeps its
//! key from one run to the next. What is written there survives a crash at
//! any point, and two runs never use it at once.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::cli::once::Args;
use crate::destination::directory::{TEMPORARY, entries, is_temporary, open_at};
use crate::environment::Environment;
use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::{absolute, trust};
use crate::join::method::Method;
use crate::join::prove::{LockedStorage, Storage};
use crate::join::source::TokenSource;
use crate::random;
use crate::secret::Secret;

/// The variable with the secret that registers a worker.
pub const REGISTRATION_SECRET: &str = "MACHINE_ID_REGISTRATION_SECRET";

/// What is kept.
const STATE: &str = "state.json";
/// Locked by whoever uses the directory.
const LOCK: &str = "lock";
/// The largest state that is read, in bytes; one with every list full is about 30 KB.
const MAX_BYTES: u64 = 256 << 10;
/// How often a storage that is in use is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(20);
const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);
const OTHERS: Mode = Mode::RWXG.union(Mode::RWXO);

/// What the options say of a worker that stays.
#[derive(Debug, Default)]
pub struct StorageOptions {
    /// The storage.
    pub folder: Option<Folder>,
    /// Where the registration secret is.
    pub secret: Option<TokenSource>,
    /// What to say about it, for `-v`.
    pub note: Option<String>,
}

impl StorageOptions {
    /// Joins flags, environment and file. What was typed for a method that has
    /// no use for it is a mistake; what is set for the whole machine is not.
    ///
    /// # Errors
    /// `Kind::Usage`.
    pub fn join(method: &Method, args: &Args, env: &Environment, file: Option<String>) -> Result<Self> {
        const VARIABLE: &str = "MACHINE_ID_STORAGE";
        const SECRET_OPTION: &str = "--registration-secret-file";
        let around = env.get(VARIABLE).map(str::to_owned).or(file);
        if !method.registers {
            let typed = [("--storage", &args.storage), (SECRET_OPTION, &args.registration_secret_file)];
            if let Some((option, _)) = typed.iter().find(|(_, value)| value.is_some()) {
                return Err(Error::usage(format!(
                    "{option}: the join method `{}` keeps nothing between runs",
                    method.name
                ))
                .hint(format!("leave {option} out, or choose another --join-method")));
            }
            let note = around
                .map(|_| format!("no storage is used: the join method `{}` keeps nothing", method.name));
            return Ok(Self { note, ..Self::default() });
        }
        let path = args.storage.clone().or(around).ok_or_else(|| {
            Error::usage(format!("the join method `{}` needs a storage", method.name)).hint(format!(
                "give --storage DIR, or set {VARIABLE}: a directory of this worker's own, which stays"
            ))
        })?;
        let secret = match &args.registration_secret_file {
            Some(path) => Some(TokenSource::file(path).by(SECRET_OPTION)),
            None => env.get(REGISTRATION_SECRET).map(|_| TokenSource::variable(REGISTRATION_SECRET)),
        };
        Ok(Self { folder: Some(Folder { path: absolute(&path)? }), secret, note: None })
    }

    /// That no destination is the storage, in it or around it: what a job
    /// hands on, or wipes, must not be the worker's key.
    ///
    /// # Errors
    /// `Kind::Usage`.
    pub fn stands_apart<'p>(&self, mut destinations: impl Iterator<Item = &'p Path>) -> Result<()> {
        let Some(Folder { path }) = &self.folder else { return Ok(()) };
        let near = destinations.find(|one| one.starts_with(path) || path.starts_with(one));
        near.map_or(Ok(()), |one| {
            Err(Error::usage(format!(
                "the destination {} and the storage {} are not apart from each other",
                one.display(),
                path.display()
            ))
            .hint("give each a directory of its own, neither inside the other"))
        })
    }
}

/// The directory, not looked at yet.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Storage for Folder {
    fn acquire(&self, deadline: Instant) -> BoxFuture<'_, Result<Box<dyn LockedStorage>>> {
        Box::pin(async move {
            let directory = self.open()?;
            loop {
                if let Some(lock) = self.lock(&directory)? {
                    let held = Open { directory, path: self.path.clone(), _lock: lock };
                    held.tidy()?;
                    let held: Box<dyn LockedStorage> = Box::new(held);
                    return Ok(held);
                }
                // Some time must be left to say so.
                if Instant::now() + TRY_AGAIN * 3 >= deadline {
                    return Err(Error::new(
                        Kind::Proof,
                        format!("the storage {} is in use by another machine-id", self.path.display()),
                    )
                    .hint("--timeout waits longer; a worker with many jobs at once can have several storages, each registered on its own"));
                }
                tokio::time::sleep(TRY_AGAIN).await;
            }
        })
    }
}

impl Folder {
    fn refuse(&self, why: &str) -> Error {
        Error::usage(format!("cannot use the storage {}: {why}", self.path.display()))
    }

    /// Opens it, creates it if need be, and makes sure that it is ours and private.
    fn open(&self) -> Result<OwnedFd> {
        let io = |error: std::io::Error| self.refuse(&error.to_string());
        let parent = self.path.parent().ok_or_else(|| self.refuse("it has no name"))?;
        std::fs::metadata(parent).map_err(|error| {
            self.refuse(&format!("the directory above it: {error}"))
                .hint("create it, or choose another --storage")
        })?;
        // What it stands in, and every folder that links on the way lead through.
        let (parent, name) = trust::stands_in(&self.path).map_err(|why| {
            self.refuse(&why)
                .hint("choose a --storage below directories that only this user and root can write to")
        })?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let above =
            rustix::fs::openat(CWD, &parent, flags, Mode::empty()).map_err(|error| io(error.into()))?;
        match rustix::fs::mkdirat(&above, &name, Mode::RWXU) {
            // It must be there after a power cut, as what is in it must.
            Ok(()) => rustix::fs::fsync(&above).map_err(|error| io(error.into()))?,
            Err(Errno::EXIST) => {}
            Err(error) => {
                return Err(io(error.into()).hint("choose a --storage that this user can write to"));
            }
        }
        let directory = open_at(&above, &name).map_err(|error| match error {
            Errno::LOOP | Errno::NOTDIR => self.refuse("it is a symbolic link, or not a directory"),
            Errno::PERM => self.refuse("it belongs to another user"),
            error => io(error.into()),
        })?;
        let stat = rustix::fs::fstat(&directory).map_err(|error| io(error.into()))?;
        if Mode::from_raw_mode(stat.st_mode).intersects(OTHERS) {
            return Err(self
                .refuse(&format!("others can look into it (mode {:o})", stat.st_mode & 0o7777))
                .hint(format!("if nobody has: chmod 700 {}", self.path.display())));
        }
        let names = entries(&directory).map_err(|error| io(error.into()))?;
        let foreign = |name: &&String| !is_temporary(name) && name.as_str() != LOCK && name.as_str() != STATE;
        if !names.iter().any(|name| name == STATE) && names.iter().any(|name| foreign(&name)) {
            return Err(self.refuse("it holds something else").hint("choose a new or empty --storage"));
        }
        Ok(directory)
    }

    /// Locks it; nothing where somebody else has. The kernel drops the lock
    /// with the process, and COMMAND does not inherit it.
    fn lock(&self, directory: &OwnedFd) -> Result<Option<OwnedFd>> {
        let io = |error: Errno| self.refuse(&format!("cannot lock it: {}", std::io::Error::from(error)));
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let lock = rustix::fs::openat(directory, LOCK, flags, PRIVATE_FILE).map_err(io)?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            // Without locks two runs could present the same generation.
            Err(error) => return Err(io(error).hint("put it on a file system that has locks")),
        }
        // Somebody may have put another file in its place meanwhile.
        let (locked, there) =
            (rustix::fs::fstat(&lock), rustix::fs::statat(directory, LOCK, AtFlags::SYMLINK_NOFOLLOW));
        let same =
            matches!((&locked, &there), (Ok(a), Ok(b)) if (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino));
        Ok(same.then_some(lock))
    }
}

/// The directory, open and locked.
struct Open {
    directory: OwnedFd,
    path: PathBuf,
    _lock: OwnedFd,
}

impl Open {
    /// Removes what a run that was killed has left: it may hold a key.
    fn tidy(&self) -> Result<()> {
        let cannot = || format!("cannot read the storage {}", self.path.display());
        for name in
            entries(&self.directory).context(Kind::Proof, cannot())?.iter().filter(|name| is_temporary(name))
        {
            let _ = rustix::fs::unlinkat(&self.directory, name.as_str(), AtFlags::empty());
        }
        Ok(())
    }

    fn read_state(&self) -> Result<Option<Secret>> {
        let path = self.path.join(STATE);
        let refuse = |why: &str| Error::usage(format!("cannot use {}: {why}", path.display()));
        // NONBLOCK: opening a pipe that somebody put there must not hang.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = match rustix::fs::openat(&self.directory, STATE, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(refuse("it is a symbolic link")),
            Err(error) => {
                return Err(std::io::Error::from(error))
                    .context(Kind::Proof, format!("cannot read {}", path.display()));
            }
        };
        let stat = rustix::fs::fstat(&file).map_err(|error| refuse(&error.to_string()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(refuse("it is not a plain file"));
        }
        if stat.st_uid != rustix::process::geteuid().as_raw() {
            return Err(refuse("it belongs to another user"));
        }
        if Mode::from_raw_mode(stat.st_mode).intersects(OTHERS) {
            return Err(refuse(&format!("others can read it (mode {:o})", stat.st_mode & 0o7777))
                .hint("its key may be known: register the worker anew, in another --storage")
                .hint(format!("if nobody has read it: chmod 600 {}", path.display())));
        }
        // Room for more than it is: text that grows leaves copies of the key behind.
        let mut text = zeroize::Zeroizing::new(String::with_capacity(64 << 10));
        File::from(file)
            .take(MAX_BYTES)
            .read_to_string(&mut text)
            .context(Kind::Proof, format!("cannot read {}", path.display()))?;
        Ok(Some(Secret::from(text)))
    }

    fn replace(&self, content: &str) -> std::io::Result<()> {
        let temporary = format!("{}{}{}", TEMPORARY.0, random::hex::<8>()?, TEMPORARY.1);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.directory, temporary.as_str(), flags, PRIVATE_FILE)?;
        rustix::fs::fchmod(&file, PRIVATE_FILE)?;
        let mut file = File::from(file);
        let written = file.write_all(content.as_bytes()).and_then(|()| file.sync_all()).and_then(|()| {
            rustix::fs::renameat(&self.directory, temporary.as_str(), &self.directory, STATE)
                .map_err(Into::into)
        });
        if written.is_err() {
            let _ = rustix::fs::unlinkat(&self.directory, temporary.as_str(), AtFlags::empty());
        }
        written?;
        // The new name as well.
        Ok(rustix::fs::fsync(&self.directory)?)
    }
}

impl LockedStorage for Open {
    fn read(&self) -> Result<Option<Secret>> {
        self.read_state()
    }

    fn write(&mut self, content: &str) -> Result<()> {
        let path = self.path.join(STATE);
        self.replace(content).context(Kind::Proof, format!("cannot write {}", path.display())).map_err(
            |error| {
                error.hint(
                    "nothing is lost: what was kept is still there; make room, or let this user write there",
                )
            },
        )
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(200)
    }

    fn folder(path: &Path) -> Folder {
        Folder { path: path.to_owned() }
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
            (here.join("link"), "it is a symbolic link"),
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
