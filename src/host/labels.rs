//! A host's labels, from the command line and from files.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::folder::trust;
use crate::principal::Labels;

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 64 << 10;

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

fn text_of(path: &Path) -> Result<String, String> {
    let (parent, name) = trust::stands_in(path)?;
    // NONBLOCK: a pipe must not hang every login.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(parent.join(name), flags, Mode::empty()).map_err(|error| match error {
        Errno::LOOP => "it is a symbolic link; give the file itself".to_owned(),
        error => std::io::Error::from(error).to_string(),
    })?;
    let file = File::from(file);
    check_owner(&file)?;
    let mut text = String::new();
    let length = file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if u64::try_from(length).is_ok_and(|length| length > MAX_FILE) {
        return Err(format!("it is longer than {MAX_FILE} bytes"));
    }
    Ok(text)
}

/// Who can write to it decides who gets in, as for `sshd`'s own files.
fn check_owner(file: &File) -> Result<(), String> {
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("it is not a plain file".to_owned());
    }
    if metadata.uid() != 0 && metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(
            "it belongs to another user, who could give this host any label; it should be root's".to_owned()
        );
    }
    if metadata.mode() & 0o022 != 0 {
        return Err("others can write to it, and so give this host any label; `chmod go-w` it".to_owned());
    }
    Ok(())
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
