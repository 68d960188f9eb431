//! Who can change what stands at a path: each folder on the way counts, and
//! each link, those in the middle of a chain too.
//!
//! There are two answers. *Ours* is what nobody but this user and root can
//! change or replace: a destination holds an `ssh_config`, which names
//! programs to run, and whoever can rename it away and put their own there
//! runs them as this user. *The operator's* is what `authority.yaml` and the
//! like name: groups are whom the operator chose, owners are root, this user
//! and the [`Owner`] of the data directory. Nothing that is named there vouches
//! for itself.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Access, StatVfsMountFlags};

use super::unfit::Unfit;

const STICKY: u32 = 0o1000;
const OTHERS_WRITE: u32 = 0o002;
const GROUP_WRITES: u32 = 0o020;
/// As many as Linux follows.
const MOST_LINKS: u32 = 40;
/// What the kubelet makes in a volume of its own, and leads to the files of today.
const KUBELETS_LINK: &str = "..data";

/// What to do where others could change a place.
const ELSEWHERE: &str = "take that from them (`chmod go-w`), or use a place below folders that nobody else can write to, or that have the sticky bit; in a pod, an `emptyDir: {medium: Memory}` has it";

/// This process's user.
pub fn me() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Whose an authority is: whoever owns the data directory that a command was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner(u32);

impl Owner {
    /// Of that data directory; where anybody could have put it there, this user.
    pub fn of(data_dir: &Path) -> Result<Self, Unfit> {
        let place = fs::canonicalize(data_dir)?;
        let is_open = |above: &Path| fs::metadata(above).is_ok_and(|above| above.mode() & OTHERS_WRITE != 0);
        let owner = fs::metadata(&place)?.uid();
        Ok(if place.parent().is_some_and(is_open) { Self::me() } else { Self(owner) })
    }

    /// This user.
    pub fn me() -> Self {
        Self(me())
    }

    fn trusted(self) -> Trusted {
        Trusted { me: me(), owner: Some(self.0) }
    }
}

/// Who may change a place.
#[derive(Clone, Copy, Debug)]
struct Trusted {
    /// This user; root always may.
    me: u32,
    /// The authority's; then groups are the operator's choice too.
    owner: Option<u32>,
}

impl Trusted {
    fn ours() -> Self {
        Self { me: me(), owner: None }
    }

    fn has(self, uid: u32) -> bool {
        uid == self.me || uid == 0 || Some(uid) == self.owner
    }

    /// With a group that is root's, or that by the usual convention has this
    /// user as its only member, a umask of 002 opens nothing.
    fn has_group(self, gid: u32) -> bool {
        gid == 0 || gid == self.me || self.owner.is_some()
    }
}

/// Whose a folder or file is, and who may change it.
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
        Self { uid: metadata.uid(), gid: metadata.gid(), mode: metadata.mode() & 0o7777 }
    }
}

impl Standing {
    /// Of what is open.
    pub fn of(fd: impl AsFd) -> rustix::io::Result<Self> {
        let stat = rustix::fs::fstat(fd)?;
        Ok(Self { uid: stat.st_uid, gid: stat.st_gid, mode: stat.st_mode & 0o7777 })
    }

    /// Whether somebody else could replace an entry of it.
    fn check(self, trusted: Trusted) -> Result<(), String> {
        // With the sticky bit, only an entry's owner and the directory's may.
        let sticky = self.mode & STICKY != 0;
        if !trusted.has(self.uid) {
            Err(format!("belongs to another user (uid {})", self.uid))
        } else if !sticky && self.mode & OTHERS_WRITE != 0 {
            Err("can be written to by everybody".to_owned())
        } else if !sticky && self.mode & GROUP_WRITES != 0 && !trusted.has_group(self.gid) {
            Err(format!("can be written to by its group (gid {})", self.gid))
        } else {
            Ok(())
        }
    }

    /// The stricter test of a place that nobody chose by hand: ours alone, or
    /// the system's as `/tmp` is.
    fn check_unasked(self, trusted: Trusted) -> Result<(), String> {
        self.check(trusted)?;
        let system = self.uid == 0 && self.mode & STICKY != 0;
        if self.others_write() && !system { Err("can be written to by others".to_owned()) } else { Ok(()) }
    }

    /// Whether its mode lets anybody but its owner write.
    pub fn others_write(self) -> bool {
        self.mode & (OTHERS_WRITE | GROUP_WRITES) != 0
    }

    /// Whether its mode lets anybody but its owner do anything.
    pub fn others_use(self) -> bool {
        self.mode & 0o077 != 0
    }

    /// Whether it is a file that nobody else can change.
    pub(super) fn check_ours(self) -> Result<(), Unfit> {
        if self.others_write() {
            let why = format!("others can write to it (mode {:o}); `chmod go-w` it", self.mode);
            return Err(Unfit::new(why));
        }
        self.check(Trusted::ours()).map_err(|why| Unfit::new(format!("it {why}")))
    }

    /// Whether what the operator named, and what stands there, is closed to
    /// everybody. It may be of whoever was let into a folder by its group.
    pub(super) fn check_operators(self, place: &Path, owner: Owner) -> Result<(), Unfit> {
        if self.mode & OTHERS_WRITE != 0 {
            return Err(Unfit::new(format!("anybody may write to it (mode {:o})", self.mode))
                .hint(format!("chmod o-w {}", place.display())));
        }
        let is_shared = |above: &Path| {
            fs::metadata(above)
                .is_ok_and(|above| above.mode() & (GROUP_WRITES | OTHERS_WRITE) == GROUP_WRITES)
        };
        if place.parent().is_some_and(is_shared) { Ok(()) } else { self.check_owner(place, owner) }
    }

    /// Whether it is root's, this user's or the authority's.
    fn check_owner(self, place: &Path, owner: Owner) -> Result<(), Unfit> {
        if owner.trusted().has(self.uid) {
            return Ok(());
        }
        Err(Unfit::new(format!("it belongs to another user (uid {})", self.uid)).hint(format!(
            "chown {} {}, if what it says is right",
            owner.0,
            place.display()
        )))
    }

    /// Whether it is the authority's, and nobody else can read it.
    pub(super) fn check_secret(self, path: &Path, owner: Owner, may_share: bool) -> Result<(), Unfit> {
        self.check_owner(path, owner)?;
        let groups = rustix::process::getgroups().unwrap_or_default();
        let is_in = |gid: u32| {
            rustix::process::getegid().as_raw() == gid || groups.iter().any(|group| group.as_raw() == gid)
        };
        let open = if self.is_for_group(me(), is_in, may_share) { 0o037 } else { 0o077 };
        if self.mode & open == 0 {
            return Ok(());
        }
        Err(Unfit::new(format!("others than its owner may use it (mode {:o})", self.mode))
            .hint(format!("chmod 600 {}; in a pod, give the volume `defaultMode: 0400`", path.display())))
    }

    /// Whether its group's mode is how this process reads it: root's, with the
    /// mask of a systemd credential's ACL there. A server's key may be for a
    /// group too, as Debian's and a Secret's with an `fsGroup` are.
    fn is_for_group(self, me: u32, is_in: impl Fn(u32) -> bool, may_share: bool) -> bool {
        let shared = may_share && (me == 0 || is_in(self.gid));
        self.uid == 0 && (shared || me != 0 && self.gid == 0)
    }

    /// Whether it is the machine's that this container runs on, which knows no
    /// name for its owner; nobody in here can change it.
    fn is_outside(self, place: &Path) -> bool {
        let is = |file, is: &dyn Fn(&str) -> bool| fs::read_to_string(file).is_ok_and(|text| is(&text));
        let kept = !self.others_write() && rustix::fs::access(place, Access::WRITE_OK).is_err();
        (kept || self.mode & STICKY != 0)
            && is("/proc/sys/kernel/overflowuid", &|uid| uid.trim().parse() == Ok(self.uid))
            // The machine itself has names for all of them.
            && is("/proc/self/uid_map", &|map| map.split_whitespace().nth(2) != Some("4294967295"))
    }
}

/// The place that `path` names, with links resolved, if a private directory
/// can be made there without being asked for: this user's own or the system's,
/// and nobody else's on the way.
pub fn fit(path: &Path) -> Result<PathBuf, Unfit> {
    if !path.is_absolute() {
        return Err(Unfit::new("it is not absolute"));
    }
    // What the links lead to now is what is used, whatever they lead to later.
    let resolved = fs::canonicalize(path)?;
    let metadata = fs::metadata(&resolved)?;
    if !metadata.is_dir() {
        return Err(Unfit::new("it is not a directory"));
    }
    let trusted = Trusted::ours();
    Standing::from(&metadata).check_unasked(trusted).map_err(|why| Unfit::new(format!("it {why}")))?;
    if let Some(above) = resolved.parent() {
        walk(above, trusted)?;
    }
    Ok(resolved)
}

/// The folder that `path` stands in, with links resolved, and its name there,
/// if nobody but this user and root can put something else in the place of
/// either: not in the folders that `path` names, nor in those that its links
/// lead through, nor in those that they lead to.
pub fn stands_in(path: &Path) -> Result<(PathBuf, OsString), Unfit> {
    let path = std::path::absolute(path)?;
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Unfit::new("it has no name"));
    };
    let parent = walk(parent, Trusted::ours())?;
    if fs::symlink_metadata(&parent)?.is_dir() {
        Ok((parent, name.to_owned()))
    } else {
        Err(Unfit::new(format!("{} is not a directory", parent.display())))
    }
}

/// Where a path leads that the operator named, be it a file or a folder, if
/// nobody can change it to whom the operator did not give it.
pub fn operators(path: &Path, owner: Owner) -> Result<PathBuf, Unfit> {
    let place = fs::canonicalize(path)?;
    let metadata = fs::metadata(&place)?;
    if !is_sealed(&place, &metadata) {
        Standing::from(&metadata).check_operators(&place, owner)?;
    }
    walk(&std::path::absolute(path)?, owner.trusted())
}

/// Where a path leads, if it is a file that nobody but root can change, nor anything above it: `sshd` runs no other
/// program. Unlike elsewhere the sticky bit does not help, nor does a group that is root's.
pub fn roots(path: &Path) -> Result<PathBuf, Unfit> {
    let place = fs::canonicalize(path)?;
    if !fs::metadata(&place)?.is_file() {
        return Err(Unfit::new("it is not a plain file"));
    }
    for part in place.ancestors() {
        let standing = Standing::from(&fs::metadata(part)?);
        if standing.uid != 0 {
            return Err(Unfit::new(format!(
                "{} belongs to another user than root (uid {})",
                part.display(),
                standing.uid
            )));
        }
        if standing.others_write() {
            let why = format!("others than root can write to {} (mode {:o})", part.display(), standing.mode);
            return Err(Unfit::new(why).hint(format!("chmod go-w {}", part.display())));
        }
    }
    Ok(place)
}

/// Whether nobody but root and the user of that number can change what stands at a path, or put something else there.
pub fn held_by(path: &Path, uid: u32) -> Result<(), Unfit> {
    let trusted = Trusted { me: uid, owner: None };
    let place = walk(&std::path::absolute(path)?, trusted)?;
    let standing = Standing::from(&fs::symlink_metadata(&place)?);
    standing.check_unasked(trusted).map_err(|why| Unfit::new(format!("it {why}")))
}

/// The same of a file that is the authority's alone, whoever shares its folder.
pub fn owners(path: &Path, owner: Owner) -> Result<(), Unfit> {
    let place = operators(path, owner)?;
    Standing::from(&fs::symlink_metadata(&place)?).check_owner(&place, owner)
}

/// A volume as the kubelet makes them of a ConfigMap or a Secret: everybody's
/// by its mode, but root's, and mounted here for reading alone. The mount and
/// the link tell it from what a unit with `ProtectSystem=strict` merely cannot
/// write to while others can.
fn is_sealed(place: &Path, metadata: &Metadata) -> bool {
    let is_roots_link = |metadata: Metadata| metadata.is_symlink() && metadata.uid() == 0;
    let above = place.parent().and_then(|above| fs::metadata(above).ok());
    metadata.uid() == 0
        && above.is_some_and(|above| above.dev() != metadata.dev())
        && fs::symlink_metadata(place.join(KUBELETS_LINK)).is_ok_and(is_roots_link)
        && rustix::fs::statvfs(place).is_ok_and(|fs| fs.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// Where an absolute path leads, one step at a time: a link in the middle of a
/// chain is in no folder that the path names or leads to. What is no folder
/// ends the way; whether it is believed depends on what it is opened for.
fn walk(path: &Path, trusted: Trusted) -> Result<PathBuf, Unfit> {
    let instead = |place: &Path, why: String| {
        Unfit::new(format!(
            "{} {why}, so that another user could put something else in its place",
            place.display()
        ))
        .hint(ELSEWHERE)
    };
    let mut ahead: Vec<PathBuf> = vec![path.to_owned()];
    let (mut here, mut links) = (PathBuf::from("/"), 0);
    while let Some(path) = ahead.pop() {
        let mut steps = path.components();
        let Some(step) = steps.next() else { continue };
        ahead.push(steps.as_path().to_owned());
        let next = match step {
            Component::RootDir => PathBuf::from("/"),
            Component::Normal(name) => here.join(name),
            Component::ParentDir => {
                // Checked on the way down.
                here.pop();
                continue;
            }
            Component::CurDir | Component::Prefix(_) => continue,
        };
        let io = |error: std::io::Error| {
            Unfit::from(std::io::Error::new(error.kind(), format!("{}: {error}", next.display())))
        };
        let metadata = fs::symlink_metadata(&next).map_err(io)?;
        if metadata.is_symlink() {
            links += 1;
            if links > MOST_LINKS {
                return Err(Unfit::new(format!("{}: too many symbolic links", next.display())));
            }
            // The sticky bit keeps others from replacing it, and not its owner.
            if !trusted.has(metadata.uid()) {
                return Err(instead(&next, format!("is a link of another user (uid {})", metadata.uid())));
            }
            ahead.push(fs::read_link(&next).map_err(io)?);
            continue;
        }
        if !metadata.is_dir() {
            if ahead.iter().all(|rest| rest.as_os_str().is_empty()) {
                return Ok(next);
            }
            return Err(Unfit::new(format!("{} is not a directory", next.display())));
        }
        let standing = Standing::from(&metadata);
        let is_sealed = || trusted.owner.is_some() && is_sealed(&next, &metadata);
        match standing.check(trusted) {
            Err(why) if !is_sealed() && !standing.is_outside(&next) => return Err(instead(&next, why)),
            _ => here = next,
        }
    }
    Ok(here)
}

#[cfg(test)]
#[path = "trust/tests.rs"]
mod tests;
