//! A host's labels, from the command line and from files.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

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
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits();
    let custom = i32::try_from(nonblocking).unwrap_or(0);
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(custom) // a pipe must not hang every login
        .open(path)
        .map_err(|error| error.to_string())?;
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
}
