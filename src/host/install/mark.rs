//! The mark by which what `host install` wrote is known again: the first line, a comment, with the hash of what follows.
//!
//! Without it a file is somebody else's, and with another hash somebody has edited it. Neither is overwritten or removed.

use std::path::Path;

use ring::digest::{SHA256, digest};

use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::{Folder, PUBLIC_FILE};
use crate::text::hex;

const LEAD: &str = "# machine-id host install ";
const TAIL: &str = ": `machine-id host uninstall` takes this file away, unless it was edited";
/// The largest file of ours, in bytes; CA files may be long.
const MOST: usize = 1 << 20;

/// A text with its mark.
pub(super) fn marked(text: &str) -> String {
    format!("{LEAD}{}{TAIL}\n{text}", sum(text))
}

fn sum(text: &str) -> String {
    hex(digest(&SHA256, text.as_bytes()).as_ref())
}

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing.
    Nothing,
    /// What we wrote, as we wrote it.
    Ours(String),
    /// What we wrote, and somebody has edited.
    Edited,
    /// Something else.
    Foreign,
}

/// What stands there.
pub(super) fn found(path: &Path) -> Found {
    let (folder, name) = match open(path) {
        Ok(opened) => opened,
        // A folder that is not there holds nothing; another's holds nothing of ours.
        Err(_) if std::fs::symlink_metadata(path).is_err() => return Found::Nothing,
        Err(_) => return Found::Foreign,
    };
    match folder.read(name, MOST) {
        Ok(None) => Found::Nothing,
        Err(_) => Found::Foreign,
        Ok(Some(bytes)) => String::from_utf8(bytes).map_or(Found::Foreign, judge),
    }
}

fn judge(text: String) -> Found {
    let Some((sum_of, rest)) = text.strip_prefix(LEAD).and_then(|rest| rest.split_once('\n')) else {
        return Found::Foreign;
    };
    match sum_of.strip_suffix(TAIL) {
        Some(told) if told == sum(rest) => Found::Ours(text),
        _ => Found::Edited,
    }
}

/// Puts a text in place, whole and durably; `Kind::Usage` where it cannot.
pub(super) fn write(path: &Path, text: &str) -> Result<()> {
    let what = || format!("cannot write {}", path.display());
    let (folder, name) = open(path).map_err(|error| error.context(what()))?;
    folder.remove_temporaries(0);
    folder.replace_durably(name, text.as_bytes(), PUBLIC_FILE).context(Kind::Usage, what())
}

/// Takes a file away, so that it is gone after a power cut, too.
pub(super) fn remove(path: &Path) -> Result<()> {
    let what = || format!("cannot remove {}", path.display());
    let (folder, name) = open(path).map_err(|error| error.context(what()))?;
    folder.remove_temporaries(0);
    folder.drop_durably(name).context(Kind::Usage, what())
}

/// The folder that it stands in, which is root's, and its name there.
fn open(path: &Path) -> Result<(Folder, &str)> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Err(Error::internal(format!("{} has no name", path.display())));
    };
    let folder = Folder::open(folder)
        .map_err(|unfit| unfit.error(Kind::Usage, format!("cannot use {}", folder.display())))?;
    Ok((folder, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ours_is_known_again() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a.conf");
        assert_eq!(found(&path), Found::Nothing);
        assert_eq!(found(&temp.path().join("none/a.conf")), Found::Nothing);
        let text = marked("A b\n");
        write(&path, &text).unwrap();
        assert_eq!(found(&path), Found::Ours(text.clone()));
        for edited in [
            format!("{text}C d\n"),
            text.replace("A b", "A c"),
            text.replace(TAIL, ""),
            text.replace("\nA b\n", "\n"),
        ] {
            std::fs::write(&path, &edited).unwrap();
            assert_eq!(found(&path), Found::Edited, "{edited}");
        }
        for foreign in ["", "A b\n", &format!("\n{text}"), LEAD] {
            std::fs::write(&path, foreign).unwrap();
            assert_eq!(found(&path), Found::Foreign, "{foreign}");
        }
        std::fs::write(&path, b"\xff").unwrap();
        assert_eq!(found(&path), Found::Foreign);
        remove(&path).unwrap();
        remove(&path).unwrap();
        std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        assert_eq!(found(&path), Found::Foreign, "a unit that is masked");
    }
}
