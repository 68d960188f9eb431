//! Wiping: the files that we write, their folders, the destination; nothing
//! else, and never through a link. What somebody else put there is named.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, FileType};
use rustix::io::Errno;

use super::manifest::{self, Manifest, WipePlan};
use super::mux;
use crate::error::{Error, Result};
use crate::folder::{Folder, PRIVATE_FILE};

/// Marks a destination from which everything of ours is gone, and something of somebody else's is not.
pub(super) const WIPED: &str = ".machine-id-wiped";

/// How long all connections of `ssh` in a destination may take to end.
const PATIENCE: Duration = Duration::from_secs(2);

/// How many files of others are named.
const MOST_NAMED: usize = 10;

/// A destination that holds a manifest of ours.
#[derive(Debug)]
pub(crate) struct Found {
    /// Its manifest, not to be believed (see [`Manifest::plan`]).
    pub(crate) manifest: Manifest,
    pub(super) folder: Folder,
}

/// Looks for a destination: nothing where there is no directory, and
/// `Kind::Usage` where there is something that is not ours to touch.
pub(crate) fn find(path: &Path) -> Result<Option<Found>> {
    let refuse = |why: &str| {
        Error::usage(format!("{} is not touched: {why}", path.display()))
            .hint("only a destination that `machine-id once` wrote is ever wiped")
    };
    match rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
            return Err(refuse("it is a symbolic link"));
        }
        _ => {}
    }
    let folder = Folder::open(path).map_err(|unfit| refuse(&unfit.to_string()))?;
    match Manifest::read(&folder) {
        Ok(Some(manifest)) => Ok(Some(Found { manifest, folder })),
        // What `once` was given and never wrote to, or what it took everything of its own from.
        Ok(None) if folder.entries().is_ok_and(|names| names.is_empty()) || is_wiped(&folder) => Ok(None),
        Ok(None) => Err(refuse("it has no manifest of ours")),
        Err(why) => Err(refuse(&format!("its {} is not ours: {why}", manifest::FILE_NAME))),
    }
}

impl Found {
    /// The path that it was found by.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Whether a run that lives holds it.
    pub(crate) fn is_in_use(&self) -> bool {
        !self.folder.lock_itself()
    }

    /// Reads a file of ours in it; nothing where it is not plainly there.
    pub(crate) fn read(&self, folder: &str, name: &str) -> Option<Vec<u8>> {
        self.folder.below(folder).ok()?.read(name, 1 << 20).ok()?
    }

    /// Wipes what its manifest names.
    pub(crate) fn wipe(self) -> Result<(), String> {
        let left = remove_all(&self.folder, &self.manifest.plan());
        if !self.manifest.keep_directory {
            self.folder.remove_if_empty();
        }
        left
    }
}

/// Removes an empty directory of ours that a dead run created and never wrote to.
pub(crate) fn remove_empty(path: &Path) {
    if let Ok(folder) = Folder::open(path) {
        folder.remove_temporaries(0);
        folder.remove_if_empty();
    }
}

/// Removes everything of the plan, temporary files, folders, and last the
/// manifest, so that a wiping that was interrupted, or could not remove
/// everything, can be taken up again. What others left in it is named; a
/// connection of `ssh` among it is ended.
pub(super) fn remove_all(folder: &Folder, plan: &WipePlan) -> Result<(), String> {
    let removed = remove_files(folder, plan);
    folder.remove_temporaries(0);
    removed?;
    folder.remove(manifest::FILE_NAME)?;
    strangers(folder, plan)
}

/// What is in a destination from which everything of ours is gone. It has a
/// mark then, by which it is known: `cleanup` is given no folder of somebody else's.
fn strangers(folder: &Folder, plan: &WipePlan) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    let others = |folder: &Folder| {
        let names = folder.entries().unwrap_or_default().into_iter();
        let names = names.filter(|name| name != WIPED && !mux::is_ended(&folder.path().join(name), deadline));
        names.collect::<Vec<_>>()
    };
    let mut left = Vec::new();
    for name in plan.keys().filter(|name| !name.is_empty()) {
        if let Ok(inner) = folder.below(name) {
            left.extend(others(&inner).iter().map(|other| format!("{name}/{other}")));
            folder.remove_empty_below(name);
        }
    }
    let is_named = |name: &String| left.iter().any(|path| path.split('/').next() == Some(name));
    let beside: Vec<String> = others(folder).into_iter().filter(|name| !is_named(name)).collect();
    left.extend(beside);
    if left.is_empty() {
        return folder.remove(WIPED);
    }
    // Without it, the next `cleanup` takes this for somebody else's folder.
    let _ = folder.replace(WIPED, b"", PRIVATE_FILE);
    left.sort();
    let more = left.len().saturating_sub(MOST_NAMED);
    left.truncate(MOST_NAMED);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    Err(format!("left, since machine-id did not write it: {}{more}", left.join(", ")))
}

/// Looks again at a destination from which everything of ours is gone already.
pub(crate) fn look_again(path: &Path) -> Result<(), String> {
    let folder = Folder::open(path).ok().filter(is_wiped);
    folder.map_or(Ok(()), |folder| strangers(&folder, &WipePlan::new()))
}

fn is_wiped(folder: &Folder) -> bool {
    folder.entries().is_ok_and(|names| names.iter().any(|name| name == WIPED))
}

/// Removes the plan's files and the folders that are empty then.
pub(super) fn remove_files(folder: &Folder, plan: &WipePlan) -> Result<(), String> {
    let mut left = Vec::new();
    for (name, files) in plan {
        match folder.below(name) {
            Ok(inner) => {
                left.extend(files.iter().filter_map(|file| inner.remove(file).err()));
                inner.remove_temporaries(0);
                folder.remove_empty_below(name);
            }
            // A link, or not there: nothing of ours is behind it.
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => {}
            Err(error) => left.push(format!("{name}: {}", std::io::Error::from(error))),
        }
    }
    if left.is_empty() { Ok(()) } else { Err(left.join(", ")) }
}
