//! A host's labels, from the command line and from files.

use std::path::Path;

use crate::folder::read::{self, Limit, Trust};
use crate::principal::Labels;

/// The largest file that is read; it is read at each login.
const LIMIT: Limit = Limit::bytes(64 << 10);

/// The labels of texts (`k=v,…`) and of files; each key once over all of them.
///
/// # Errors
/// Which of them is wrong, and why.
pub fn read<'a>(
    texts: impl IntoIterator<Item = &'a str>,
    files: impl IntoIterator<Item = &'a Path>,
) -> Result<Labels, String> {
    let mut labels = Labels::default();
    for text in texts {
        labels.add(text).map_err(|why| format!("--labels: {why}"))?;
    }
    for path in files {
        text_of(path)
            .and_then(|text| labels.add_lines(&text))
            .map_err(|why| format!("--labels-file {}: {why}", path.display()))?;
    }
    Ok(labels)
}

/// Who can write to it decides who gets in, as for `sshd`'s own files.
fn text_of(path: &Path) -> Result<String, String> {
    let text = read::raw(path, Trust::Ours, LIMIT).and_then(read::utf8);
    text.map(|text| text.to_string()).map_err(|unfit| unfit.to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn files_are_read_if_nobody_else_writes_to_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("labels");
        std::fs::write(&path, "env=prod\n").unwrap();
        let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        mode(0o644);
        let labels = read(["team=web"], [path.as_path()]).unwrap();
        assert!(crate::principal::holds("a@env=prod,team=web", "a", &labels));
        assert!(
            read(["env=prod"], [path.as_path()]).unwrap_err().ends_with("the label `env` is given twice")
        );
        for open in [0o664, 0o646] {
            mode(open);
            assert!(read([], [path.as_path()]).unwrap_err().contains("others can write to it"));
        }
        assert!(read([], [directory.path()]).unwrap_err().contains("not a plain file"));
        assert!(read([], [Path::new("/dev/null")]).is_err() && read([], [Path::new("/no/such")]).is_err());
        mode(0o644);
        std::fs::write(&path, "#".repeat(70_000)).unwrap();
        assert!(read([], [path.as_path()]).unwrap_err().contains("longer than"));
    }

    #[test]
    fn files_that_others_could_replace_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (open, link) = (directory.path().join("open"), directory.path().join("link"));
        std::fs::create_dir_all(open.join("below")).unwrap();
        std::fs::write(open.join("below/labels"), "env=prod\n").unwrap();
        std::os::unix::fs::symlink(open.join("below/labels"), &link).unwrap();
        assert!(read([], [open.join("below/labels").as_path()]).is_ok());
        let why = read([], [link.as_path()]).unwrap_err();
        assert!(why.ends_with("/link: it is a symbolic link; give the file itself"), "{why}");
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
        let why = read([], [open.join("below/labels").as_path()]).unwrap_err();
        assert!(why.contains("/open can be written to by everybody"), "{why}");
    }
}
