//! Adding to files of somebody else's, to which others add as well.

use std::fs::{File, Metadata};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use super::open::PUBLIC_FILE;
use super::trust::me;
use super::unfit::Unfit;

/// Such a file, open.
#[derive(Debug)]
pub struct Addition {
    file: File,
    path: PathBuf,
    /// How long it was before, and what was added; none of a pipe or device.
    added: Option<(u64, String)>,
}

impl Addition {
    /// Opens the file; creates it if need be. A pipe that nobody reads is an error.
    pub fn open(path: &Path) -> Result<Self, Unfit> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let mode = PUBLIC_FILE | Mode::WGRP | Mode::WOTH;
        let file = rustix::fs::openat(CWD, path, flags, mode).map_err(|error| explained(error, path))?;
        Ok(Self { file: file.into(), path: path.to_owned(), added: None })
    }

    /// Adds whole lines at once, so that a line of another process does not end
    /// up inside, and where the last line has no end, not behind it. All of
    /// them or none.
    pub fn add(&mut self, lines: &str) -> io::Result<()> {
        let before = self.length();
        let begin = if self.ends_within_a_line(before) { "\n" } else { "" };
        let text = format!("{begin}{lines}");
        let added = self.file.write_all(text.as_bytes());
        self.added = before.map(|before| (before, text));
        added.inspect_err(|_| self.undo())
    }

    /// Takes back what was added, unless somebody has written to it since.
    pub fn undo(&self) {
        let Some((before, added)) = &self.added else { return };
        let length = self.length().and_then(|length| length.checked_sub(*before));
        let Some(there) = length.and_then(|length| added.as_bytes().get(..usize::try_from(length).ok()?))
        else {
            return;
        };
        let mut found = vec![0; there.len()];
        let read = super::read::open(&self.path).map_err(io::Error::from);
        // Others write there too: no line of theirs goes.
        let is_ours = read.and_then(|file| file.read_exact_at(&mut found, *before));
        // Where nobody may read it, its length has to do.
        if is_ours.map_or(there.len() == added.len(), |()| found == there) {
            let _ = self.file.set_len(*before);
        }
    }

    fn length(&self) -> Option<u64> {
        self.file.metadata().ok().filter(Metadata::is_file).map(|file| file.len())
    }

    /// Where nobody may read it, an empty line does no harm.
    fn ends_within_a_line(&self, length: Option<u64>) -> bool {
        let Some(last) = length.and_then(|length| length.checked_sub(1)) else { return false };
        let mut byte = [0];
        let read = super::read::open(&self.path).map_err(io::Error::from);
        !read.and_then(|file| file.read_exact_at(&mut byte, last)).is_ok_and(|()| byte == *b"\n")
    }
}

/// With what is in the way: mostly an earlier step that ran as another user.
fn explained(error: Errno, path: &Path) -> Unfit {
    let unfit = Unfit::from(error);
    if error == Errno::NOENT {
        return unfit.hint(
            "its folder is not there: a step in a container, or on another machine, has other folders than its runner",
        );
    }
    let there = path.ancestors().find_map(|path| Some((path, std::fs::metadata(path).ok()?.uid())));
    match there {
        Some((path, owner)) if owner != me() => unfit.hint(format!(
            "{} belongs to uid {owner}, and this is uid {}: let the steps of a job, in a container and with `sudo` too, run as one user",
            path.display(),
            me()
        )),
        _ => unfit,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_added_is_whole_lines_and_can_be_taken_back(
            before in "[a-z\n]{0,12}",
            lines in "([a-z]{0,5}\n){0,3}",
        ) {
            let temp = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(temp.path(), &before).unwrap();
            let mut addition = Addition::open(temp.path()).unwrap();
            addition.add(&lines).unwrap();
            let after = std::fs::read_to_string(temp.path()).unwrap();
            prop_assert!(after.lines().eq(before.lines().chain(lines.lines())), "{after:?}");
            addition.undo();
            prop_assert_eq!(std::fs::read_to_string(temp.path()).unwrap(), before);
        }
    }

    #[test]
    fn what_others_added_stays() {
        let temp = tempfile::NamedTempFile::new().unwrap();
        let (mut ours, mut theirs) =
            (Addition::open(temp.path()).unwrap(), Addition::open(temp.path()).unwrap());
        ours.add("ours\n").unwrap();
        theirs.add("theirs\n").unwrap();
        ours.undo();
        assert_eq!(std::fs::read_to_string(temp.path()).unwrap(), "ours\ntheirs\n");
        // Nor does what somebody put in the place of ours.
        for theirs in ["x\n", "other\n", ""] {
            std::fs::write(temp.path(), "").unwrap();
            let mut ours = Addition::open(temp.path()).unwrap();
            ours.add("ours 1\n").unwrap();
            std::fs::write(temp.path(), theirs).unwrap();
            ours.undo();
            assert_eq!(std::fs::read_to_string(temp.path()).unwrap(), theirs);
        }
    }

    #[test]
    fn devices_take_lines_and_a_pipe_without_a_reader_none() {
        Addition::open(Path::new("/dev/null")).unwrap().add("x\n").unwrap();
        assert!(Addition::open(Path::new("/dev/full")).unwrap().add("x\n").is_err());
        let temp = tempfile::tempdir().unwrap();
        let pipe = temp.path().join("pipe");
        rustix::fs::mkfifoat(CWD, &pipe, Mode::RWXU).unwrap();
        assert!(Addition::open(&pipe).is_err());
    }

    #[test]
    fn who_is_in_the_way_is_said() {
        let temp = tempfile::tempdir().unwrap();
        let hint = |path: &Path| {
            let unfit = Addition::open(path).unwrap_err();
            unfit.error(crate::error::Kind::Destination, "x").hints().join("\n")
        };
        assert!(hint(&temp.path().join("none/env")).starts_with("its folder is not there"));
        // Where nothing keeps this user out, as root, a directory does.
        let (theirs, me) = (temp.path().join("theirs"), me());
        std::fs::create_dir(&theirs).unwrap();
        assert_eq!(hint(&theirs), "");
        if me == 0 {
            std::os::unix::fs::chown(&theirs, Some(4242), None).unwrap();
            let said = hint(&theirs);
            assert!(said.contains("theirs belongs to uid 4242, and this is uid 0"), "{said}");
        }
        std::fs::set_permissions(&theirs, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}
