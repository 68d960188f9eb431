//! Whether a directory is fit to hold a private one: nobody but this user and
//! root may be able to put something else in its place.
//!
//! A destination holds an `ssh_config`, which names programs to run. Whoever
//! can rename it away and put their own there runs them as this user.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

const STICKY: u32 = 0o1000;
const OTHERS_WRITE: u32 = 0o002;
const GROUP_WRITES: u32 = 0o020;

/// Whose a directory is, and who may change what is in it.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its permissions.
    pub mode: u32,
}

impl From<&Metadata> for Standing {
    fn from(metadata: &Metadata) -> Self {
        Self { uid: metadata.uid(), gid: metadata.gid(), mode: metadata.mode() }
    }
}

impl Standing {
    /// Whether somebody else than `me` and root could replace an entry of it.
    ///
    /// # Errors
    /// Who, for a person.
    pub fn check(self, me: u32) -> Result<(), String> {
        // With the sticky bit, only an entry's owner and the directory's may.
        let sticky = self.mode & STICKY != 0;
        if self.uid != me && self.uid != 0 {
            Err(format!("belongs to another user (uid {})", self.uid))
        } else if !sticky && self.mode & OTHERS_WRITE != 0 {
            Err("can be written to by everybody".to_owned())
        } else if !sticky && self.mode & GROUP_WRITES != 0 && !is_private_group(self.gid, me) {
            Err(format!("can be written to by its group (gid {})", self.gid))
        } else {
            Ok(())
        }
    }

    /// The stricter test of a place that nobody chose by hand: ours alone, or
    /// the system's as `/tmp` is.
    fn check_unasked(self, me: u32) -> Result<(), String> {
        self.check(me)?;
        let open = self.mode & (OTHERS_WRITE | GROUP_WRITES) != 0;
        let system = self.uid == 0 && self.mode & STICKY != 0;
        if open && !system { Err("can be written to by others".to_owned()) } else { Ok(()) }
    }
}

/// Root's, or one that by the usual convention has this user as its only
/// member: with it, a umask of 002 opens nothing.
fn is_private_group(gid: u32, me: u32) -> bool {
    gid == 0 || gid == me
}

/// The place that `path` names, with links resolved, if a private directory
/// can be made there without being asked for: this user's own or the system's,
/// and nobody else's above it.
///
/// # Errors
/// Why not, for a person.
pub fn fit(path: &Path) -> Result<PathBuf, String> {
    let me = rustix::process::geteuid().as_raw();
    if !path.is_absolute() {
        return Err("it is not absolute".to_owned());
    }
    // What the links lead to now is what is used, whatever they lead to later.
    let resolved = fs::canonicalize(path).map_err(|error| error.to_string())?;
    let metadata = fs::metadata(&resolved).map_err(|error| error.to_string())?;
    if !metadata.is_dir() {
        return Err("it is not a directory".to_owned());
    }
    Standing::from(&metadata).check_unasked(me).map_err(|why| format!("it {why}"))?;
    check_each(resolved.ancestors().skip(1), me)?;
    Ok(resolved)
}

fn check_each<'p>(mut folders: impl Iterator<Item = &'p Path>, me: u32) -> Result<(), String> {
    folders.try_for_each(|folder| {
        let metadata = fs::metadata(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        Standing::from(&metadata).check(me).map_err(|why| format!("{} {why}", folder.display()))
    })
}

/// The folder that `path` stands in, with links resolved, and its name there,
/// if nobody but this user and root can put something else in the place of
/// either: not in the folders that `path` names, nor in those that it leads to.
///
/// # Errors
/// Why not, for a person.
pub fn stands_in(path: &Path) -> Result<(PathBuf, OsString), String> {
    let me = rustix::process::geteuid().as_raw();
    let path = std::path::absolute(path).map_err(|error| error.to_string())?;
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err("it has no name".to_owned());
    };
    let resolved = fs::canonicalize(parent).map_err(|error| format!("{}: {error}", parent.display()))?;
    check_each(parent.ancestors().chain(resolved.ancestors()), me)
        .map_err(|why| format!("{why}, so that another user could put something else in its place"))?;
    Ok((resolved, name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    const ME: u32 = 1000;
    const OTHER: u32 = 1001;
    const INSTEAD: &str = "so that another user could put something else in its place";

    #[test]
    fn who_could_put_something_else_there() {
        let standing = |uid, gid, mode| Standing { uid, gid, mode };
        for (uid, gid, mode, asked, unasked) in [
            (ME, ME, 0o700, true, true),
            (ME, 100, 0o755, true, true),
            (0, 0, 0o755, true, true),
            (0, 0, 0o1777, true, true),
            // A user's own group, and root's.
            (ME, ME, 0o775, true, false),
            (0, 0, 0o775, true, false),
            (ME, 100, 0o775, false, false),
            (0, 100, 0o775, false, false),
            (ME, ME, 0o777, false, false),
            (0, 0, 0o777, false, false),
            (ME, ME, 0o1777, true, false),
            // The owner can always change it.
            (OTHER, OTHER, 0o700, false, false),
            (OTHER, OTHER, 0o1777, false, false),
        ] {
            let place = standing(uid, gid, mode);
            assert_eq!(place.check(ME).is_ok(), asked, "{place:?}");
            assert_eq!(place.check_unasked(ME).is_ok(), unasked, "{place:?}");
        }
        let error = standing(OTHER, OTHER, 0o700).check(0).unwrap_err();
        assert_eq!(error, "belongs to another user (uid 1001)");
    }

    #[test]
    fn folders_named_and_folders_led_to_count() {
        let temp = tempfile::tempdir().unwrap();
        let here = fs::canonicalize(temp.path()).unwrap();
        let (open, private) = (here.join("open"), here.join("private"));
        for path in [&open, &private, &open.join("below"), &private.join("below")] {
            fs::create_dir(path).unwrap();
        }
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        symlink(private.join("below"), open.join("link")).unwrap();
        symlink(open.join("below"), private.join("link")).unwrap();
        symlink(private.join("below"), private.join("good")).unwrap();
        let found = (private.join("below"), OsString::from("trust"));
        for good in [private.join("below/trust"), private.join("good/trust"), private.join("below/./trust/.")]
        {
            assert_eq!(stands_in(&good), Ok(found.clone()), "{good:?}");
        }
        for bad in ["open/trust", "open/below/trust", "open/link/trust", "private/link/trust"] {
            let why = stands_in(&here.join(bad)).unwrap_err();
            assert_eq!(why, format!("{} can be written to by everybody, {INSTEAD}", open.display()), "{bad}");
        }
        assert!(stands_in(Path::new("/")).is_err() && stands_in(&here.join("none/trust")).is_err());
    }

    #[test]
    fn what_a_link_leads_to_counts() {
        let temp = tempfile::tempdir().unwrap();
        let here = fs::canonicalize(temp.path()).unwrap();
        let (open, private) = (here.join("open"), here.join("private"));
        for (path, mode) in [(&open, 0o777), (&private, 0o700)] {
            fs::create_dir(path).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        symlink(&private, open.join("link")).unwrap();
        symlink(&open, private.join("link")).unwrap();
        assert_eq!(fit(&open.join("link")), Ok(private.clone()));
        assert!(fit(&private.join("link")).is_err());
        fs::create_dir(open.join("below")).unwrap();
        let error = fit(&open.join("below")).unwrap_err();
        assert!(error.starts_with(open.to_str().unwrap()), "{error}");
        fs::write(private.join("file"), "").unwrap();
        for bad in [private.join("file"), private.join("none"), PathBuf::from("relative")] {
            assert!(fit(&bad).is_err(), "{bad:?}");
        }
    }
}
