//! Why this process cannot use a file, in words that say whose the file is and
//! who we are: what SQLite says of it is a number.

use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::Access;
use rustix::io::Errno;

use super::trust::me;
use super::unfit::Unfit;

/// Whether this process can read a file, and where `write`, change it and make
/// others beside it; the file itself may be missing.
///
/// # Errors
/// Says which part of the path is in the way, and what to do about it; one
/// that is [missing](Unfit::is_missing) is a folder above the file.
pub fn check(path: &Path, write: bool) -> Result<(), Unfit> {
    let path = std::path::absolute(path)?;
    let folder = path.parent().unwrap_or(&path);
    match std::fs::metadata(folder) {
        Ok(above) if above.is_dir() => {}
        Ok(_) => return Err(Unfit::new(format!("{} is not a directory", folder.display()))),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let why = format!("the folder {} does not exist", folder.display());
            return Err(io::Error::new(ErrorKind::NotFound, why).into());
        }
        // A folder further up keeps us out.
        Err(error) => return Err(refused(folder, "look into it", &error)),
    }
    let (in_folder, why) = match write {
        true => (Access::WRITE_OK | Access::EXEC_OK, "make files in it"),
        false => (Access::EXEC_OK, "look into it"),
    };
    rustix::fs::access(folder, in_folder).map_err(|error| refused(folder, why, &error.into()))?;
    match std::fs::metadata(&path) {
        Ok(file) if file.is_file() => {}
        Ok(_) => return Err(Unfit::new("it is not a plain file")),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(refused(&path, "read it", &error)),
    }
    let (to_file, why) = match write {
        true => (Access::READ_OK | Access::WRITE_OK, "write to it"),
        false => (Access::READ_OK, "read it"),
    };
    rustix::fs::access(&path, to_file).map_err(|error| refused(&path, why, &error.into()))
}

fn refused(at: &Path, what: &str, error: &io::Error) -> Unfit {
    let place = at.display();
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::ROFS) => Unfit::new(format!("{place} is on a file system that is mounted read-only"))
            .hint("mount it for writing; `audit`, `explain` and `instances` read it as it is"),
        Some(Errno::ACCESS | Errno::PERM) => {
            let (me, there) = (me(), std::fs::metadata(at).ok());
            let whose = there.as_ref().map_or_else(
                || ":".to_owned(),
                |there| {
                    let mode = there.mode() & 0o7777;
                    format!(" belongs to uid {}, gid {} (mode {mode:o}), and", there.uid(), there.gid())
                },
            );
            let hint = match there.map(|there| there.uid()) {
                Some(uid) if uid == me => format!("chmod u+rwX {place}"),
                Some(uid) => format!("run it as the user of uid {uid}, or `chown {me} {place}`"),
                None => "run it as the user whose the data directory is".to_owned(),
            };
            Unfit::new(format!("{place}{whose} this process, of uid {me}, may not {what}")).hint(hint)
        }
        _ => Unfit::new(format!("{place}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_the_way_is_named() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        std::fs::write(at("file"), "").unwrap();
        check(&at("file"), true).unwrap();
        check(&at("missing"), true).unwrap();
        let missing = check(&at("no/file"), true).unwrap_err();
        assert!(missing.is_missing() && missing.to_string().ends_with("/no does not exist"), "{missing}");
        let through = check(&at("file/below"), false).unwrap_err().to_string();
        assert!(through.ends_with("/file is not a directory"), "{through}");
        assert_eq!(check(temp.path(), false).unwrap_err().to_string(), "it is not a plain file");
    }

    #[test]
    fn whose_it_is_and_who_we_are() {
        let temp = tempfile::tempdir().unwrap();
        let of = |error: Errno| refused(temp.path(), "read it", &error.into()).to_string();
        let (place, me) = (temp.path().display(), me());
        let there = std::fs::metadata(temp.path()).unwrap();
        let (gid, mode) = (there.gid(), there.mode() & 0o7777);
        assert_eq!(
            of(Errno::ACCESS),
            format!(
                "{place} belongs to uid {me}, gid {gid} (mode {mode:o}), and this process, of uid {me}, may not read it"
            )
        );
        assert_eq!(of(Errno::ROFS), format!("{place} is on a file system that is mounted read-only"));
        assert_eq!(of(Errno::IO), format!("{place}: {}", io::Error::from(Errno::IO)));
    }
}
