//! A host's labels, from the command line and from files.

use std::path::Path;

use crate::error::{Error, Kind, Result};
use crate::folder::read::{self, Limit, Trust};
use crate::folder::stamp::{self, Stamp};
use crate::principal::Labels;

/// The largest file that is read; it is read at each login.
const LIMIT: Limit = Limit::bytes(64 << 10);

/// The labels of texts (`k=v,…`) and of files; each key once over all of them.
pub fn read<'a>(
    texts: impl IntoIterator<Item = &'a str>,
    files: impl IntoIterator<Item = &'a Path>,
) -> Result<Labels> {
    let mut labels = Labels::default();
    for text in texts {
        labels.add(text).map_err(|why| Error::usage(why).context("--labels"))?;
    }
    for path in files {
        let what = format!("--labels-file {}", path.display());
        // Who can write to it decides who gets in, as for `sshd`'s own files.
        let text = read::raw(path, Trust::Ours, LIMIT)
            .and_then(read::utf8)
            .map_err(|unfit| unfit.error(Kind::Usage, what.clone()))?;
        // Cut off within a line, `team=website` is `team=web`: another host than this.
        let is_being_written = || Stamp::of(path).is_none_or(|stamp| stamp.is_young(stamp::now()));
        if !text.ends_with('\n') && is_being_written() {
            let why = "the last line has no end, and it was written within the last second";
            return Err(Error::usage(why).context(what).hint("replace the file by renaming"));
        }
        labels.add_lines(&text).map_err(|why| Error::usage(why).context(what))?;
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn refused<'a>(texts: impl IntoIterator<Item = &'a str>, file: &'a Path) -> String {
        format!("{:?}", read(texts, [file]).unwrap_err())
    }

    #[test]
    fn files_are_read_if_nobody_else_writes_to_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("labels");
        std::fs::write(&path, "env=prod\n").unwrap();
        let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        mode(0o644);
        let labels = read(["team=web"], [path.as_path()]).unwrap();
        assert!(crate::principal::holds("a@env=prod,team=web", "a", &labels));
        assert!(refused(["env=prod"], &path).contains("the label `env` is given twice"));
        for open in [0o664, 0o646] {
            mode(open);
            assert!(refused([], &path).contains("others can write to it"));
        }
        assert!(refused([], directory.path()).contains("not a plain file"));
        assert!(read([], [Path::new("/dev/null")]).is_err() && read([], [Path::new("/no/such")]).is_err());
        mode(0o644);
        std::fs::write(&path, "#".repeat(70_000)).unwrap();
        assert!(refused([], &path).contains("longer than"));
    }

    #[test]
    fn a_file_that_is_being_written_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("labels");
        std::fs::write(&path, "team=web").unwrap();
        let why = refused([], &path);
        assert!(
            why.contains("labels: the last line has no end, and it was written within the last second"),
            "{why}"
        );
        std::fs::write(&path, "team=website\n").unwrap();
        assert!(read([], [path.as_path()]).is_ok());
        // `touch -d` and `rsync -t` set one time back, and not the other.
        std::fs::write(&path, "team=web").unwrap();
        let file = std::fs::File::options().append(true).open(&path).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        assert!(refused([], &path).contains("the last line has no end"));
    }

    #[test]
    fn files_that_others_could_replace_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (open, link) = (directory.path().join("open"), directory.path().join("link"));
        std::fs::create_dir_all(open.join("below")).unwrap();
        std::fs::write(open.join("below/labels"), "env=prod\n").unwrap();
        std::os::unix::fs::symlink(open.join("below/labels"), &link).unwrap();
        assert!(read([], [open.join("below/labels").as_path()]).is_ok());
        let why = refused([], &link);
        assert!(why.contains("/link: it is a symbolic link (hints: [\"give the file itself\"])"), "{why}");
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
        let why = refused([], &open.join("below/labels"));
        assert!(why.contains("/open can be written to by everybody"), "{why}");
    }
}
