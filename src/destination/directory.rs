//! A private directory that is written through its descriptor.
//!
//! Everything is done relative to descriptors that were opened without
//! following links and found to be ours, so that nobody can put another
//! directory, link or file in the way between a check and a use.

use std::path::Path;

use rustix::fs::Mode;
use rustix::io::Errno;

use super::manifest::{self, Manifest, Plan};
use super::material::File;
use super::wipe;
use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::trust::{self, Standing};
use crate::folder::{self, Folder, Made, NotMade, PRIVATE_FILE, PRIVATE_FOLDER, replace::is_temporary};

/// What to do where another user could swap the destination: where it is made unasked is checked, too.
const ELSEWHERE: &str = "leave --destination out, and a new one is made in the first of $RUNNER_TEMP, $XDG_RUNTIME_DIR, $TMPDIR and /tmp that others cannot change; or choose one below folders that only this user and root can write to";

/// A destination, open. Unless it is kept ([`Directory::keep`]), it is wiped
/// when it goes, whatever the reason.
#[derive(Debug)]
pub struct Directory {
    folder: Folder,
    /// What was or will be written, and so is to be wiped.
    plan: Plan,
    created: bool,
    /// Whether the directory stays when it is wiped, since it is not one that we made.
    stays: bool,
    /// The permissions of one that was there before, and empty.
    mode_before: Option<Mode>,
    written: bool,
    kept: bool,
}

impl Directory {
    /// Opens the directory of that absolute path, creating it if need be, and
    /// makes sure that it is ours, private, writable, and in no other run's
    /// use: it is locked as long as this value lives. The kernel drops the lock
    /// with the process, and COMMAND does not inherit it.
    ///
    /// # Errors
    /// `Kind::Destination` where it is a link, not a directory, not ours, in
    /// use, or not writable, and where another user could put something else
    /// in its place.
    pub fn prepare(path: &Path) -> Result<Self> {
        let refuse =
            |why: &str| Error::new(Kind::Destination, format!("cannot use {}: {why}", path.display()));
        let Made { folder, created, standing } =
            Folder::make(path, PRIVATE_FOLDER).map_err(|failed| match failed {
                NotMade::Above(unfit) if unfit.is_missing() => {
                    refuse("the directory above it does not exist")
                        .hint("create it, or choose another --destination")
                }
                NotMade::Above(unfit) => refuse(&unfit.to_string()).hint(ELSEWHERE),
                NotMade::Create(error) => {
                    refuse(&error.to_string()).hint("choose a --destination that this user can write to")
                }
                NotMade::Open(error) => refuse(&folder::not_mine(error)).hint("choose another --destination"),
            })?;
        if standing.uid != trust::me() {
            return Err(refuse(&folder::not_mine(Errno::PERM)).hint("choose another --destination"));
        }
        folder.lock_itself().map_err(|_| {
            refuse("another machine-id that is running uses it")
                .hint("give each its own --destination; `once -- COMMAND` without one makes a new directory")
        })?;
        let mut directory = Self {
            folder,
            plan: Plan::new(),
            created,
            stays: !created,
            mode_before: None,
            written: false,
            kept: false,
        };
        if !created {
            directory
                .check_existing(standing)
                .map_err(|why| refuse(&why).hint("choose a new or empty --destination"))?;
            // One that could be created just now can be written to.
            directory.folder.try_writing().map_err(|error| {
                refuse(&format!("cannot write to it: {error}"))
                    .hint("choose a --destination that this user can write to")
            })?;
        }
        Ok(directory)
    }

    /// A directory that was there must be empty or hold a manifest of ours.
    fn check_existing(&mut self, standing: Standing) -> Result<(), String> {
        let ours = match self.manifest() {
            Ok(found) => found,
            Err(why) => return Err(format!("its {} is not one of machine-id: {why}", manifest::FILE_NAME)),
        };
        let io = |error: Errno| std::io::Error::from(error).to_string();
        match ours {
            Some(manifest) => self.stays = manifest.keep_directory,
            None if !self.folder.entries().map_err(io)?.iter().all(|name| is_temporary(name)) => {
                return Err("it holds something else".to_owned());
            }
            None => self.mode_before = Some(Mode::from_raw_mode(standing.mode)),
        }
        self.folder.set_mode(PRIVATE_FOLDER).map_err(io)
    }

    /// Its absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The manifest that is in it now.
    ///
    /// # Errors
    /// Why the one that is there is none of ours.
    pub fn manifest(&self) -> Result<Option<Manifest>, String> {
        Manifest::read(&self.folder)
    }

    /// What an earlier issuance left in it.
    ///
    /// # Errors
    /// `Kind::Destination` where it cannot be looked at any more.
    pub fn earlier(&self) -> Result<Option<wipe::Found>> {
        let failed = || format!("cannot read {}", self.path().display());
        let manifest = self.manifest().map_err(|why| Error::new(Kind::Destination, why).context(failed()))?;
        let Some(manifest) = manifest else { return Ok(None) };
        let folder = self.folder.try_clone().context(Kind::Destination, failed())?;
        Ok(Some(wipe::Found::new(manifest, folder)))
    }

    /// Whether the directory stays when it is wiped, for the manifest.
    #[must_use]
    pub fn stays(&self) -> bool {
        self.stays
    }

    /// Writes a whole issuance: the manifest first, so that whatever happens
    /// `cleanup` finds the rest, then the files of each folder (`` for the
    /// destination itself). What an earlier issuance left goes before that,
    /// while its own manifest still stands: `cleanup` finds it too whatever
    /// happens, and nothing of it is in the way, such as a file where a folder
    /// is to be.
    ///
    /// # Errors
    /// `Kind::Destination`. What is there then is wiped when this value goes.
    pub fn write(&mut self, manifest: &Manifest, folders: &[(String, Vec<File>)]) -> Result<()> {
        self.plan = self.manifest().ok().flatten().map(|earlier| earlier.plan()).unwrap_or_default();
        self.written = true;
        let left = wipe::remove_files(&self.folder, &self.plan);
        if !left.is_empty() {
            let failed = format!("cannot remove what an earlier issuance left in {}", self.path().display());
            return Err(Error::new(Kind::Destination, left.join(", ")).context(failed));
        }
        self.plan = manifest.plan();
        self.write_manifest(manifest)?;
        for (folder, files) in folders {
            for file in files {
                self.write_file(folder, file)?;
            }
        }
        Ok(())
    }

    /// Replaces what a renewal changes; the keys stay, so that key and
    /// certificate always fit.
    ///
    /// # Errors
    /// `Kind::Destination`.
    pub fn renew(&mut self, manifest: &Manifest, folders: &[(String, Vec<File>)]) -> Result<()> {
        for (folder, files) in folders {
            for file in files.iter().filter(|file| !file.is_key) {
                self.write_file(folder, file)?;
            }
        }
        self.write_manifest(manifest)
    }

    fn write_manifest(&self, manifest: &Manifest) -> Result<()> {
        let text = manifest.to_json();
        self.folder.replace(manifest::FILE_NAME, text.as_bytes(), PRIVATE_FILE).context(
            Kind::Destination,
            format!("cannot write {}", self.path().join(manifest::FILE_NAME).display()),
        )
    }

    fn write_file(&self, folder: &str, file: &File) -> Result<()> {
        let written = if folder.is_empty() {
            self.folder.replace(&file.name, &file.content, PRIVATE_FILE)
        } else {
            let below = self.folder.make_below(folder).map_err(Into::into);
            below.and_then(|below| below.replace(&file.name, &file.content, PRIVATE_FILE))
        };
        let path = self.path().join(folder).join(file.name.as_ref());
        written.context(Kind::Destination, format!("cannot write {}", path.display()))
    }

    /// Leaves everything where it is.
    pub fn keep(mut self) {
        self.kept = true;
    }

    /// Wipes it now.
    ///
    /// # Errors
    /// What could not be removed, for a person.
    pub fn wipe(mut self) -> Result<(), String> {
        self.kept = true;
        self.take_away()
    }

    fn take_away(&self) -> Result<(), String> {
        let leftovers = if self.written { wipe::remove_all(&self.folder, &self.plan) } else { Vec::new() };
        if self.created || (self.written && !self.stays) {
            self.folder.remove_if_empty();
        }
        if !leftovers.is_empty() {
            return Err(leftovers.join(", "));
        }
        if let Some(mode) = self.mode_before {
            let _ = self.folder.set_mode(mode);
        }
        Ok(())
    }
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
