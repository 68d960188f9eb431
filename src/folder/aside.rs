//! A folder that is filled beside its place, and put there when it is whole:
//! whatever ends the process before leaves nothing that passes for finished.

use std::io;
use std::path::{Path, PathBuf};

use super::access;
use super::open::Folder;
use super::replace::{make_private, sync};
use super::trust::{self, Owner};
use super::unfit::Unfit;
use crate::random;

/// What the name of such a folder has before its random part.
const UNFINISHED: &str = ".unfinished-";

/// A folder that is not yet in its place. Dropped before, it is taken away.
#[derive(Debug)]
pub struct Aside {
    at: PathBuf,
    place: PathBuf,
    /// Whether `place` was there, and only what is in this is moved: a mounted volume cannot be replaced.
    inside: bool,
    /// Locked, which tells it from what a killed process left.
    _lock: Folder,
}

impl Aside {
    /// One for `place`, which is missing, with the folders above it made if
    /// need be; or is a folder. What killed processes left of theirs is removed.
    ///
    /// # Errors
    /// Where others could replace it, or it cannot be made.
    pub fn of(place: &Path) -> Result<Self, Unfit> {
        let place = std::path::absolute(place)?;
        let inside = place.exists();
        let (Some(above), Some(name)) = (place.parent(), place.file_name()) else {
            return Err(Unfit::new("it has no name"));
        };
        let (folder, prefix) = match inside {
            true => (place.as_path(), UNFINISHED.to_owned()),
            false => (above, format!(".{}{UNFINISHED}", name.to_string_lossy())),
        };
        if inside {
            // It may be open to others, and so may be what it stands in.
            trust::operators(folder, Owner::me())?;
        } else {
            make_private(folder).map_err(|error| Unfit::new(error.to_string()))?;
        }
        remove_leftovers(folder, &prefix);
        let at = folder.join(format!("{prefix}{}", random::hex::<8>().map_err(io::Error::from)?));
        access::check(&at, true)?;
        make_private(&at).map_err(|error| Unfit::new(error.to_string()))?;
        let lock = Folder::open(&at)?;
        if !lock.lock_itself() {
            return Err(Unfit::new("another process is at work there"));
        }
        let aside = Self { at, place, inside, _lock: lock };
        trust::operators(&aside.at, Owner::me())?;
        Ok(aside)
    }

    /// Where it is filled.
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// Puts it in its place: whole, or where that was there, what is in it, in
    /// the order of `names`. Of those only `kept` may be there already, and stays.
    pub fn put(self, names: &[&str], kept: &str) -> io::Result<()> {
        sync(&self.at)?;
        if self.inside {
            for name in names {
                let place = self.place.join(name);
                if *name != kept || !place.exists() {
                    std::fs::rename(self.at.join(name), place)?;
                }
            }
            return sync(&self.place);
        }
        std::fs::rename(&self.at, &self.place)?;
        self.place.parent().map_or(Ok(()), sync)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.at);
    }
}

/// Removes folders of this user's that nobody is filling any more.
fn remove_leftovers(folder: &Path, prefix: &str) {
    for name in Folder::judged(folder).and_then(|folder| folder.entries()).unwrap_or_default() {
        let path = folder.join(&name);
        let is_left =
            name.starts_with(prefix) && Folder::open(&path).is_ok_and(|folder| folder.lock_itself());
        if is_left {
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(path: &Path) -> Vec<String> {
        let mut names = Folder::judged(path).unwrap().entries().unwrap();
        names.sort();
        names
    }

    fn fill(aside: &Aside) {
        std::fs::write(aside.path().join("a"), "new").unwrap();
        std::fs::write(aside.path().join("b"), "new").unwrap();
    }

    #[test]
    fn it_appears_whole_or_not_at_all() {
        let temp = tempfile::tempdir().unwrap();
        let place = temp.path().join("up/data");
        let aside = Aside::of(&place).unwrap();
        fill(&aside);
        assert!(!place.exists());
        // Another that is filled at the same time is let alone.
        let other = Aside::of(&place).unwrap();
        assert_eq!(list(&temp.path().join("up")).len(), 2);
        aside.put(&["a", "b"], "").unwrap();
        assert_eq!(list(&place), ["a", "b"]);
        fill(&other);
        assert!(other.put(&["a", "b"], "").is_err(), "somebody was faster");
        assert_eq!(list(&temp.path().join("up")), ["data"]);
    }

    #[test]
    fn a_folder_that_is_there_is_filled_and_stays() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join("a"), "old").unwrap();
        let aside = Aside::of(temp.path()).unwrap();
        fill(&aside);
        aside.put(&["b", "a"], "a").unwrap();
        assert_eq!(list(temp.path()), ["a", "b"]);
        assert_eq!(std::fs::read_to_string(temp.path().join("a")).unwrap(), "old");
    }

    #[test]
    fn what_a_killed_process_left_is_removed() {
        let temp = tempfile::tempdir().unwrap();
        let place = temp.path().join("data");
        std::fs::create_dir_all(temp.path().join(".data.unfinished-0123456789abcdef/keys")).unwrap();
        std::fs::create_dir(temp.path().join(".other.unfinished-0123456789abcdef")).unwrap();
        drop(Aside::of(&place).unwrap());
        assert_eq!(list(temp.path()), [".other.unfinished-0123456789abcdef"]);
    }
}
