//! Wiping: the files that we write, their folders, the destination; nothing
//! else, and never through a link.

use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType};
use rustix::io::Errno;

use super::manifest::{self, Manifest, WipePlan};
use crate::error::{Error, Result};
use crate::folder::Folder;

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
        // What `once` was given, and never wrote to.
        Ok(None) if folder.entries().is_ok_and(|entries| entries.is_empty()) => Ok(None),
        Ok(None) => Err(refuse("it has no manifest of ours")),
        Err(why) => Err(refuse(&format!("its {} is not ours: {why}", manifest::FILE_NAME))),
    }
}

impl Found {
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
/// everything, can be taken up again.
pub(super) fn remove_all(folder: &Folder, plan: &WipePlan) -> Result<(), String> {
    let removed = remove_files(folder, plan);
    folder.remove_temporaries(0);
    removed?;
    folder.remove(manifest::FILE_NAME)
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
