//! Whether a directory is fit to hold a private one: nobody but this user and
//! root may be able to put something else in its place.
//!
//! A destination holds an `ssh_config`, which names programs to run. Whoever
//! can rename it away and put their own there runs them as this user.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

const STICKY: u32 = 0o1000;
const OTHERS_WRITE: u32 = 0o002;
const GROUP_WRITES: u32 = 0o020;
/// As many as Linux follows.
const MOST_LINKS: u32 = 40;

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
/// either: not in the folders that `path` names, nor in those that its links
/// lead through, nor in those that they lead to.
///
/// # Errors
/// Why not, for a person.
pub fn stands_in(path: &Path) -> Result<(PathBuf, OsString), String> {
    let path = std::path::absolute(path).map_err(|error| error.to_string())?;
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err("it has no name".to_owned());
    };
    Ok((follow(parent, rustix::process::geteuid().as_raw())?, name.to_owned()))
}

/// Where an absolute path of a folder leads, one step at a time: a link in the
/// middle of a chain is in no folder that the path names or leads to.
fn follow(path: &Path, me: u32) -> Result<PathBuf, String> {
    let instead = |place: &Path, why: String| {
        format!("{} {why}, so that another user could put something else in its place", place.display())
    };
    let mut ahead: Vec<PathBuf> = vec![path.to_owned()];
    let (mut here, mut links) = (PathBuf::from("/"), 0);
    while let Some(path) = ahead.pop() {
        let mut steps = path.components();
        let Some(step) = steps.next() else { continue };
        ahead.push(steps.as_path().to_owned());
        let next = match step {
            Component::RootDir => PathBuf::from("/"),
            // Checked on the way down.
            Component::ParentDir => here.parent().unwrap_or(&here).to_owned(),
            Component::Normal(name) => here.join(name),
            Component::CurDir | Component::Prefix(_) => continue,
        };
        let io = |error: std::io::Error| format!("{}: {error}", next.display());
        let metadata = fs::symlink_metadata(&next).map_err(io)?;
        if metadata.is_symlink() {
            links += 1;
            if links > MOST_LINKS {
                return Err(format!("{}: too many symbolic links", next.display()));
            }
            // The sticky bit keeps others from replacing it, and not its owner.
            if metadata.uid() != me && metadata.uid() != 0 {
                return Err(instead(&next, format!("is a link of another user (uid {})", metadata.uid())));
            }
            ahead.push(fs::read_link(&next).map_err(io)?);
            continue;
        }
        if !metadata.is_dir() {
            return Err(format!("{} is not a directory", next.display()));
        }
        Standing::from(&metadata).check(me).map_err(|why| instead(&next, why))?;
        here = next;
    }
    Ok(here)
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

    /// What the first link names and what the last one leads to is all ours.
    #[test]
    fn folders_led_through_count() {
        let temp = tempfile::tempdir().unwrap();
        let here = fs::canonicalize(temp.path()).unwrap();
        let (open, private) = (here.join("open"), here.join("private"));
        fs::create_dir(&open).unwrap();
        fs::create_dir_all(private.join("below")).unwrap();
        symlink("../open/second", private.join("first")).unwrap();
        symlink("../private/below", open.join("second")).unwrap();
        let found = Ok((private.join("below"), OsString::from("trust")));
        assert_eq!(stands_in(&private.join("first/trust")), found);
        assert_eq!(stands_in(&private.join("first/../below/trust")), found);
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        let why = stands_in(&private.join("first/trust")).unwrap_err();
        assert_eq!(why, format!("{} can be written to by everybody, {INSTEAD}", open.display()));
        // Nobody can replace it there; whose it is can be tried as root alone.
        fs::set_permissions(&open, fs::Permissions::from_mode(0o1777)).unwrap();
        assert_eq!(stands_in(&private.join("first/trust")), found);
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::lchown(open.join("second"), Some(65534), None).unwrap();
            let why = stands_in(&private.join("first/trust")).unwrap_err();
            let link = open.join("second");
            assert_eq!(why, format!("{} is a link of another user (uid 65534), {INSTEAD}", link.display()));
        }
        symlink(private.join("loop"), private.join("loop")).unwrap();
        assert!(stands_in(&private.join("loop/trust")).unwrap_err().ends_with("too many symbolic links"));
        fs::write(private.join("file"), "").unwrap();
        assert!(stands_in(&private.join("file/trust")).unwrap_err().ends_with("is not a directory"));
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
