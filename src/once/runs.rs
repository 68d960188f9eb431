//! The registry of wrapped runs, so that `cleanup` finds what a run left that
//! was killed before it could wipe.
//!
//! One file a run, in a private directory of this user: it holds the
//! destinations' paths, and the run holds a lock on it as long as it lives.
//! The kernel drops the lock with the process, whatever ended it; COMMAND
//! does not inherit it, since the descriptor is closed on exec. It also says
//! which process and which job that is, so that the job's own `cleanup` can end
//! a run that nobody else told to end.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::environment::Environment;
use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::trust::{self, Standing};
use crate::folder::{Folder, Unfit, read, replace};
use crate::process::Process;
use crate::random;

/// How often it is looked whether a run has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The largest entry that is read, in bytes.
const MAX_ENTRY: read::Limit = read::Limit::bytes(1 << 16);

#[derive(Default, Serialize, Deserialize)]
struct RunEntry {
    destinations: Vec<PathBuf>,
    /// Those of them that were there before the run, and so are not its own to remove.
    #[serde(default)]
    existed: Vec<PathBuf>,
    /// Nothing of a version before.
    #[serde(default)]
    process: Option<Process>,
    /// As its platform tells its jobs apart.
    #[serde(default)]
    job: Option<String>,
}

/// A living run's entry; gone when this value is.
pub(crate) struct RegisteredRun {
    path: PathBuf,
    /// Keeps the lock.
    _file: File,
}

impl Drop for RegisteredRun {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Registers this run of that job, before anything is written to its destinations. Where
/// one place cannot be used, perhaps because somebody else was there first,
/// the next is.
///
/// # Errors
/// `Kind::Destination` where no registry is ours and can be written.
pub(crate) fn register(
    env: &Environment,
    destinations: &[&Path],
    job: Option<String>,
) -> Result<RegisteredRun> {
    let entry = RunEntry {
        destinations: destinations.iter().map(|&path| path.to_owned()).collect(),
        existed: destinations.iter().filter(|path| path.exists()).map(|&path| path.to_owned()).collect(),
        process: Some(Process::this()),
        job,
    };
    let text = serde_json::to_string(&entry).context(Kind::Internal, "cannot write an entry")?;
    let mut failed = Error::new(Kind::Destination, "there is no place for the registry of runs");
    for directory in directories(env) {
        match write_entry(&directory, &text) {
            Ok(registered) => return Ok(registered),
            Err(error) => {
                failed = error.error(Kind::Destination, format!("cannot write to {}", directory.display()));
            }
        }
    }
    Err(failed)
}

fn write_entry(directory: &Path, text: &str) -> Result<RegisteredRun, Unfit> {
    let (folder, name) = (open(directory, true)?, random::hex::<8>().map_err(std::io::Error::from)?);
    // Locked and written under a name that `dead` passes over, or a `cleanup` at
    // the same time could take the entry for one of a dead run.
    let file = folder.create_locked(&name, text.as_bytes())?;
    Ok(RegisteredRun { path: directory.join(name), _file: file })
}

/// A run that died.
pub(crate) struct DeadRun {
    /// Where it wrote.
    pub destinations: Vec<PathBuf>,
    /// Those of them that were there before it.
    pub existed: Vec<PathBuf>,
    path: PathBuf,
    /// Keeps the lock, so that two `cleanup`s at once do not meet.
    _file: File,
}

impl DeadRun {
    /// Removes its entry, once its destinations are gone.
    pub(crate) fn forget(self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// A run that goes on.
pub(crate) struct LivingRun {
    /// Where it writes.
    pub destinations: Vec<PathBuf>,
    /// Which it is.
    pub process: Process,
    /// The job that it is of, if that is known.
    pub job: Option<String>,
    file: File,
}

impl LivingRun {
    /// Waits for its end; whether that came in time.
    pub(crate) fn ends_before(&self, deadline: Instant) -> bool {
        while self.file.try_lock().is_err() {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        let _ = self.file.unlock();
        true
    }
}

/// Every dead run of this user.
pub(crate) fn dead(env: &Environment) -> Vec<DeadRun> {
    let dead = entries(env).into_iter().filter(|(_, file, _)| file.try_lock().is_ok());
    dead.map(|(path, file, entry)| DeadRun {
        destinations: entry.destinations,
        existed: entry.existed,
        path,
        _file: file,
    })
    .collect()
}

/// Forgets the dead runs of which nothing is left, since all of their destinations
/// have been written anew: what is there now is not theirs to take away.
pub(crate) fn forget_replaced(env: &Environment, destinations: &[&Path]) {
    let is_ours = |path: &PathBuf| destinations.contains(&path.as_path());
    dead(env).into_iter().filter(|dead| dead.destinations.iter().all(is_ours)).for_each(DeadRun::forget);
}

/// Every run of this user that goes on and says of which process it is.
pub(crate) fn living(env: &Environment) -> Vec<LivingRun> {
    let living = entries(env).into_iter().filter(|(_, file, _)| file.try_lock().is_err());
    let known = living.filter_map(|(_, file, entry)| {
        let RunEntry { destinations, process, job, .. } = entry;
        Some(LivingRun { destinations, process: process?, job, file })
    });
    known.collect()
}

/// Every entry of this user. Whatever is not ours is passed over.
fn entries(env: &Environment) -> Vec<(PathBuf, File, RunEntry)> {
    let mut all = Vec::new();
    for directory in directories(env) {
        let Ok(folder) = open(&directory, false) else { continue };
        let names = folder.entries().unwrap_or_default();
        let visible = names.iter().filter(|name| !name.starts_with('.'));
        all.extend(visible.filter_map(|name| entry(&folder, name)));
    }
    all
}

fn entry(folder: &Folder, name: &str) -> Option<(PathBuf, File, RunEntry)> {
    let file = folder.open_file(name).ok()??;
    if Standing::of(&file).ok()?.uid != trust::me() {
        return None;
    }
    let text = read::file(file.try_clone().ok()?, MAX_ENTRY).ok()?;
    let mut entry: RunEntry = serde_json::from_slice(&text).unwrap_or_default();
    entry.destinations.retain(|path| path.is_absolute());
    Some((folder.path().join(name), file, entry))
}

/// Where a registry may be, the place for new entries first. A job's steps do
/// not all have the same variables, so `cleanup` looks in each. None of them is
/// below a directory in which somebody else could put another in its place.
fn directories(env: &Environment) -> Vec<PathBuf> {
    let of_user = format!("machine-id-{}/runs", rustix::process::geteuid().as_raw());
    let cache = ".cache/machine-id/runs".to_owned();
    let places = [
        (env.get("XDG_RUNTIME_DIR"), "machine-id/runs".to_owned()),
        (env.get("TMPDIR"), of_user.clone()),
        (Some("/tmp"), of_user.clone()),
        (env.get("RUNNER_TEMP"), of_user),
        (env.get("HOME"), cache),
    ];
    let mut all = Vec::new();
    for (base, below) in places {
        let directory = base.and_then(|base| trust::fit(Path::new(base)).ok()).map(|base| base.join(below));
        all.extend(directory.filter(|directory| !all.contains(directory)));
    }
    all
}

/// Opens a registry, and creates it if it is to be. Both folders must be ours
/// and nobody else's to write, or somebody could have `cleanup` read what they like.
fn open(directory: &Path, create: bool) -> Result<Folder, Unfit> {
    let parent = directory.parent().unwrap_or(directory);
    if create {
        // With `~/.cache`, if need be.
        replace::make_private(directory).map_err(std::io::Error::from)?;
    }
    trust::stands_in(parent)?;
    private(parent)?;
    private(directory)
}

fn private(path: &Path) -> Result<Folder, Unfit> {
    let folder = Folder::open(path)?;
    if folder.standing()?.others_write() {
        return Err(Unfit::new(format!("{} is not a private directory of this user", path.display())));
    }
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn env(directory: &Path) -> Environment {
        Environment::from_pairs([
            ("XDG_RUNTIME_DIR", directory.to_str().unwrap()),
            ("TMPDIR", directory.to_str().unwrap()),
        ])
    }

    fn dead_below(directory: &Path) -> Vec<DeadRun> {
        dead(&env(directory)).into_iter().filter(|dead| dead.path.starts_with(directory)).collect()
    }

    #[test]
    fn the_living_are_passed_over_and_the_dead_are_found() {
        let temp = tempfile::tempdir().unwrap();
        let d2 = temp.path().to_str().unwrap();
        let registered = register(&env(temp.path()), &[Path::new("/d1"), Path::new(d2)], None).unwrap();
        assert!(dead_below(temp.path()).is_empty());
        // What `kill -9` does: the lock goes, the file stays.
        let copy = registered.path.with_file_name("dead");
        fs::copy(&registered.path, &copy).unwrap();
        let found = dead_below(temp.path());
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].destinations, [Path::new("/d1"), Path::new(d2)]);
        assert_eq!(found[0].existed, [Path::new(d2)]);
        assert!(dead_below(temp.path()).is_empty(), "one cleanup at a time");
        found.into_iter().for_each(DeadRun::forget);
        assert!(!copy.exists());
        let path = registered.path.clone();
        drop(registered);
        assert!(!path.exists());
    }

    #[test]
    fn a_registry_of_others_is_neither_written_nor_read() {
        let temp = tempfile::tempdir().unwrap();
        let elsewhere = temp.path().join("elsewhere");
        fs::create_dir_all(elsewhere.join("runs")).unwrap();
        fs::write(elsewhere.join("runs/x"), r#"{"destinations":["/d"]}"#).unwrap();
        let of_user = format!("machine-id-{}", rustix::process::geteuid().as_raw());
        for name in ["machine-id", &of_user] {
            symlink(&elsewhere, temp.path().join(name)).unwrap();
        }
        let outside = |registered: RegisteredRun| !registered.path.starts_with(temp.path());
        assert!(outside(register(&env(temp.path()), &[Path::new("/d")], None).unwrap()), "the next place");
        assert!(dead_below(temp.path()).is_empty());
        for name in ["machine-id", &of_user] {
            fs::remove_file(temp.path().join(name)).unwrap();
            fs::create_dir_all(temp.path().join(name).join("runs")).unwrap();
            let open = fs::Permissions::from_mode(0o777);
            fs::set_permissions(temp.path().join(name).join("runs"), open).unwrap();
        }
        assert!(outside(register(&env(temp.path()), &[Path::new("/d")], None).unwrap()));
    }

    #[test]
    fn a_place_that_is_taken_or_open_is_passed_over() {
        let temp = tempfile::tempdir().unwrap();
        let here = fs::canonicalize(temp.path()).unwrap();
        let (open, home) = (here.join("open"), here.join("home"));
        fs::create_dir(&open).unwrap();
        fs::create_dir(&home).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let env = Environment::from_pairs([
            ("XDG_RUNTIME_DIR", text(&open).as_str()),
            ("RUNNER_TEMP", text(&here).as_str()),
            ("HOME", text(&home).as_str()),
        ]);
        let places = directories(&env);
        assert!(places.iter().all(|place| !place.starts_with(&open)), "{places:?}");
        assert_eq!(places.last().unwrap(), &home.join(".cache/machine-id/runs"));
        let in_cache = write_entry(places.last().unwrap(), "{}").unwrap();
        assert!(in_cache.path.starts_with(&home));
        // What was registered in the last place is found as well.
        fs::copy(&in_cache.path, in_cache.path.with_file_name("dead")).unwrap();
        assert!(dead(&env).iter().any(|dead| dead.path.starts_with(&home)));
    }

    #[test]
    fn an_entry_that_is_a_link_or_broken_names_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let registered = register(&env(temp.path()), &[Path::new("/d")], None).unwrap();
        let runs = registered.path.parent().unwrap();
        symlink("/etc/passwd", runs.join("link")).unwrap();
        fs::write(runs.join("broken"), "{").unwrap();
        fs::write(runs.join("relative"), r#"{"destinations":["../x"]}"#).unwrap();
        assert!(dead_below(temp.path()).iter().all(|dead| dead.destinations.is_empty()));
    }
}
