//! The registry of wrapped runs, so that `cleanup` finds what a run left that
//! was killed before it could wipe.
//!
//! One file a run, in a private directory of this user: it holds the
//! destinations' paths, and the run holds a lock on it as long as it lives.
//! The kernel drops the lock with the process, whatever ended it; COMMAND
//! does not inherit it, since the descriptor is closed on exec.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::destination::random;
use crate::environment::Environment;
use crate::error::{Context as _, Error, Kind, Result};

/// The largest entry that is read, in bytes.
const MAX_ENTRY: u64 = 1 << 16;

#[derive(Serialize, Deserialize)]
struct Entry {
    destinations: Vec<PathBuf>,
}

/// A living run's entry; gone when this value is.
#[derive(Debug)]
pub struct Registered {
    path: PathBuf,
    /// Keeps the lock.
    _file: File,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Registers this run, before anything is written to its destinations.
///
/// # Errors
/// `Kind::Destination` where the registry is not ours or cannot be written.
pub fn register(env: &Environment, destinations: &[&Path]) -> Result<Registered> {
    let Some(directory) = directories(env).into_iter().next() else {
        return Err(Error::internal("no place for the registry of runs"));
    };
    let failed = format!("cannot write to {}", directory.display());
    create(&directory).context(Kind::Destination, failed.clone())?;
    let name = random::hex::<8>();
    let (new, path) = (directory.join(format!(".{name}")), directory.join(&name));
    let entry = Entry { destinations: destinations.iter().map(|&path| path.to_owned()).collect() };
    let text = serde_json::to_string(&entry).context(Kind::Internal, failed.clone())?;
    let open = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new);
    let mut file = open.context(Kind::Destination, failed.clone())?;
    // Locked and written under a name that `dead` passes over, or a `cleanup` at
    // the same time could take the entry for one of a dead run.
    let ready =
        file.lock().and_then(|()| file.write_all(text.as_bytes())).and_then(|()| fs::rename(&new, &path));
    if ready.is_err() {
        let _ = fs::remove_file(&new);
    }
    ready.context(Kind::Destination, failed)?;
    Ok(Registered { path, _file: file })
}

/// A run that died.
#[derive(Debug)]
pub struct Dead {
    /// Where it wrote.
    pub destinations: Vec<PathBuf>,
    path: PathBuf,
    /// Keeps the lock, so that two `cleanup`s at once do not meet.
    _file: File,
}

impl Dead {
    /// Removes its entry, once its destinations are gone.
    pub fn forget(self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Every dead run of this user. Living ones are passed over, as is whatever is not ours.
#[must_use]
pub fn dead(env: &Environment) -> Vec<Dead> {
    let directories = directories(env).into_iter().filter(|directory| check(directory).is_ok());
    let entries = directories.filter_map(|directory| fs::read_dir(directory).ok()).flatten();
    let visible = |entry: &fs::DirEntry| !entry.file_name().as_encoded_bytes().starts_with(b".");
    entries
        .filter_map(std::result::Result::ok)
        .filter(visible)
        .filter_map(|entry| dead_entry(&entry.path()))
        .collect()
}

fn dead_entry(path: &Path) -> Option<Dead> {
    let flags = rustix::fs::OFlags::NOFOLLOW.union(rustix::fs::OFlags::NONBLOCK).bits();
    let mut file = OpenOptions::new().read(true).custom_flags(i32::try_from(flags).ok()?).open(path).ok()?;
    let metadata = file.metadata().ok()?;
    if !metadata.is_file() || metadata.uid() != rustix::process::geteuid().as_raw() {
        return None;
    }
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => return None,
    }
    let mut text = String::new();
    (&mut file).take(MAX_ENTRY).read_to_string(&mut text).ok()?;
    let entry: Entry = serde_json::from_str(&text).unwrap_or(Entry { destinations: Vec::new() });
    let destinations = entry.destinations.into_iter().filter(|path| path.is_absolute()).collect();
    Some(Dead { destinations, path: path.to_owned(), _file: file })
}

/// Where a registry may be, the place for new entries first. A job's steps do
/// not all have the same variables, so `cleanup` looks in each.
fn directories(env: &Environment) -> Vec<PathBuf> {
    let of_user = format!("machine-id-{}", rustix::process::geteuid().as_raw());
    let is_directory = |path: &&str| path.starts_with('/') && Path::new(path).is_dir();
    let runtime =
        env.get("XDG_RUNTIME_DIR").filter(is_directory).map(|path| Path::new(path).join("machine-id/runs"));
    let temporary = [env.get("TMPDIR").filter(is_directory), Some("/tmp")].into_iter().flatten();
    runtime.into_iter().chain(temporary.map(|path| Path::new(path).join(&of_user).join("runs"))).collect()
}

fn create(directory: &Path) -> std::io::Result<()> {
    let parent = directory.parent().unwrap_or(directory);
    for path in [parent, directory] {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    check(directory)
}

/// Both folders must be ours and nobody else's to write, or somebody could have `cleanup` read what they like.
fn check(directory: &Path) -> std::io::Result<()> {
    for path in [directory.parent().unwrap_or(directory), directory] {
        let metadata = fs::symlink_metadata(path)?;
        let ours = metadata.is_dir() && metadata.uid() == rustix::process::geteuid().as_raw();
        if !ours || metadata.mode() & 0o022 != 0 {
            return Err(std::io::Error::other(format!(
                "{} is not a private directory of this user",
                path.display()
            )));
        }
    }
    Ok(())
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

    fn dead_below(directory: &Path) -> Vec<Dead> {
        dead(&env(directory)).into_iter().filter(|dead| dead.path.starts_with(directory)).collect()
    }

    #[test]
    fn the_living_are_passed_over_and_the_dead_are_found() {
        let temp = tempfile::tempdir().unwrap();
        let registered = register(&env(temp.path()), &[Path::new("/d1"), Path::new("/d2")]).unwrap();
        assert!(dead_below(temp.path()).is_empty());
        // What `kill -9` does: the lock goes, the file stays.
        let copy = registered.path.with_file_name("dead");
        fs::copy(&registered.path, &copy).unwrap();
        let found = dead_below(temp.path());
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].destinations, [Path::new("/d1"), Path::new("/d2")]);
        assert!(dead_below(temp.path()).is_empty(), "one cleanup at a time");
        found.into_iter().for_each(Dead::forget);
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
        symlink(&elsewhere, temp.path().join("machine-id")).unwrap();
        assert_eq!(register(&env(temp.path()), &[Path::new("/d")]).unwrap_err().kind(), Kind::Destination);
        assert!(dead_below(temp.path()).is_empty());
        fs::remove_file(temp.path().join("machine-id")).unwrap();
        fs::create_dir_all(temp.path().join("machine-id/runs")).unwrap();
        fs::set_permissions(temp.path().join("machine-id/runs"), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(register(&env(temp.path()), &[Path::new("/d")]).is_err());
    }

    #[test]
    fn an_entry_that_is_a_link_or_broken_names_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let registered = register(&env(temp.path()), &[Path::new("/d")]).unwrap();
        let runs = registered.path.parent().unwrap();
        symlink("/etc/passwd", runs.join("link")).unwrap();
        fs::write(runs.join("broken"), "{").unwrap();
        fs::write(runs.join("relative"), r#"{"destinations":["../x"]}"#).unwrap();
        assert!(dead_below(temp.path()).iter().all(|dead| dead.destinations.is_empty()));
    }
}
