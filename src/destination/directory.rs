//! A private directory that is written through its descriptor.

use std::path::Path;

use rustix::fs::Mode;

use super::manifest::{self, Manifest, WipePlan};
use super::material::File;
use super::wipe::{self, Found};
use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::replace::is_temporary;
use crate::folder::{Folder, PRIVATE_FILE, PRIVATE_FOLDER, Unfit};

/// What to do where another user could swap the destination: where it is made unasked is checked, too.
const ELSEWHERE: &str = "leave --destination out, and a new one is made in the first of $RUNNER_TEMP, $XDG_RUNTIME_DIR, $TMPDIR and /tmp that others cannot change; or choose one below folders that only this user and root can write to";

/// A destination, open. Unless it is kept ([`Directory::keep`]), it is wiped
/// when it goes, whatever the reason.
#[derive(Debug)]
pub(crate) struct Directory {
    folder: Folder,
    /// What an earlier issuance left in it.
    pub(crate) earlier: Option<Found>,
    /// What was or will be written, and so is to be wiped.
    plan: WipePlan,
    /// Whether the directory stays when it is wiped, since it is not one that we made.
    pub(crate) stays: bool,
    /// The permissions of one that was there before, and empty.
    mode_before: Option<Mode>,
    written: bool,
    kept: bool,
}

impl Directory {
    /// Opens the directory of that absolute path, creating it if need be, and
    /// makes sure that it is ours, private, writable, and in no other run's
    /// use: it is locked as long as this value lives. `Kind::Destination` where
    /// it is not, or another user could put something else in its place.
    pub(crate) fn prepare(path: &Path) -> Result<Self> {
        Self::open(path)
            .map_err(|unfit| unfit.error(Kind::Destination, format!("cannot use {}", path.display())))
    }

    fn open(path: &Path) -> Result<Self, Unfit> {
        let (folder, created) = Folder::make(path, PRIVATE_FOLDER, "--destination", ELSEWHERE)?;
        if !folder.lock_itself() {
            return Err(Unfit::new("another machine-id that is running uses it").hint(
                "give each its own --destination; `once -- COMMAND` without one makes a new directory",
            ));
        }
        let mut directory = Self {
            folder,
            earlier: None,
            plan: WipePlan::new(),
            stays: false,
            mode_before: None,
            written: false,
            kept: false,
        };
        if !created {
            let existing = directory.check_existing();
            existing.map_err(|unfit| unfit.hint("choose a new or empty --destination"))?;
            // One that could be created just now can be written to.
            directory.folder.try_writing().map_err(|error| {
                Unfit::new(format!("cannot write to it: {error}"))
                    .hint("choose a --destination that this user can write to")
            })?;
        }
        Ok(directory)
    }

    /// A directory that was there must be empty or hold a manifest of ours.
    fn check_existing(&mut self) -> Result<(), Unfit> {
        // Until that is known, nothing of it is taken away.
        self.stays = true;
        let manifest = Manifest::read(&self.folder).map_err(|why| {
            Unfit::new(format!("its {} is not one of machine-id: {why}", manifest::FILE_NAME))
        })?;
        if let Some(manifest) = manifest {
            self.stays = manifest.keep_directory;
            self.plan = manifest.plan();
            self.earlier = Some(Found { manifest, folder: self.folder.below("")? });
        } else if self.folder.entries()?.iter().all(|name| is_temporary(name) || name == wipe::WIPED) {
            self.mode_before = Some(Mode::from_raw_mode(self.folder.standing()?.mode));
        } else {
            return Err(Unfit::new("it holds something else"));
        }
        Ok(self.folder.set_mode(PRIVATE_FOLDER)?)
    }

    /// Its absolute path.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a whole issuance: the manifest first, so that whatever happens
    /// `cleanup` finds the rest, then the files of each folder (`` for the
    /// destination itself). What an earlier issuance left goes before that,
    /// while its own manifest still stands: `cleanup` finds it too whatever
    /// happens, and nothing of it is in the way, such as a file where a folder
    /// is to be. Where it fails, what is there is wiped when this value goes.
    pub(crate) fn write(&mut self, manifest: &Manifest, folders: &[(String, Vec<File>)]) -> Result<()> {
        self.written = true;
        wipe::remove_files(&self.folder, &self.plan).map_err(|left| {
            let failed = format!("cannot remove what an earlier issuance left in {}", self.path().display());
            Error::new(Kind::Destination, left).context(failed)
        })?;
        self.plan = manifest.plan();
        put(&self.folder, &File::new(manifest::FILE_NAME, manifest.to_json()))?;
        folders.iter().try_for_each(|(folder, files)| self.write_files(folder, files.iter()))
    }

    /// Replaces what a renewal changes; the keys that are there stay, so that key and
    /// certificate always fit.
    pub(crate) fn renew(&mut self, manifest: &Manifest, folders: &[(String, Vec<File>)]) -> Result<()> {
        // An authority that has another version by now may give other files: until those that it gives no more are gone,
        // both are to be wiped.
        let (mut gone, plan) = (self.plan.clone(), manifest.plan());
        let before = self.plan.clone();
        for (folder, names) in &plan {
            self.plan.entry(folder.clone()).or_default().extend(names.iter().cloned());
            gone.entry(folder.clone()).or_default().retain(|name| !names.contains(name));
        }
        gone.retain(|_, names| !names.is_empty());
        for (folder, files) in folders {
            let is_there = |file: &&File| {
                before.get(folder).is_some_and(|names| names.iter().any(|name| *name == file.name))
            };
            self.write_files(folder, files.iter().filter(|file| !file.is_key || !is_there(file)))?;
        }
        wipe::remove_files(&self.folder, &gone).map_err(|left| {
            Error::new(Kind::Destination, left).context("cannot remove what is of no use any more")
        })?;
        self.plan = plan;
        put(&self.folder, &File::new(manifest::FILE_NAME, manifest.to_json()))
    }

    fn write_files<'f>(&self, folder: &str, mut files: impl Iterator<Item = &'f File>) -> Result<()> {
        let cannot = || format!("cannot write {}", self.path().join(folder).display());
        let below = self.folder.make_below(folder).context(Kind::Destination, cannot())?;
        files.try_for_each(|file| put(&below, file))
    }

    /// Leaves everything where it is.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }

    /// Wipes it now.
    pub(crate) fn wipe(mut self) -> Result<(), String> {
        self.kept = true;
        self.take_away()
    }

    fn take_away(&self) -> Result<(), String> {
        let wiped = if self.written { wipe::remove_all(&self.folder, &self.plan) } else { Ok(()) };
        if !self.stays {
            self.folder.remove_if_empty();
        }
        wiped.map(|()| {
            if let Some(mode) = self.mode_before {
                let _ = self.folder.set_mode(mode);
            }
        })
    }
}

fn put(folder: &Folder, file: &File) -> Result<()> {
    let path = folder.path().join(file.name.as_ref());
    let written = folder.replace(&file.name, &file.content, PRIVATE_FILE);
    written.context(Kind::Destination, format!("cannot write {}", path.display()))
}

impl Drop for Directory {
    fn drop(&mut self) {
        if !self.kept {
            // There is nobody left to tell.
            let _ = self.take_away();
        }
    }
}

#[cfg(test)]
#[path = "directory_tests.rs"]
mod tests;
