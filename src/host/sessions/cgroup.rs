//! What belongs to a session where systemd's logind is: the control group of
//! its scope, which nobody but root leaves.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::folder;
use crate::folder::read::{self, Limit, Trust};
use crate::folder::stamp::{Nanos, STILL, nanos};
use crate::process::Process;

/// How often one looks whether processes have ended.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Where logind keeps what it knows of a session.
const SESSIONS: &str = "/run/systemd/sessions";
/// More sessions than these are nowhere.
const MOST_SESSIONS: usize = 1 << 17;
/// How long after its last certificate somebody is let in at the latest: `LoginGraceTime`, and what a machine may be busy.
const GRACE: Duration = Duration::from_secs(150);
/// More groups than these stand below a session's nowhere.
const MOST_BELOW: usize = 1000;

/// A session's control groups: the same one in each hierarchy that is mounted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scope {
    /// As `/proc/PID/cgroup` has it.
    path: String,
    /// Its folders, and those below them.
    folders: Vec<PathBuf>,
}

impl Scope {
    /// That of a process which logind has for the leader of its session: nobody else is in there. An `sshd` that
    /// somebody has started within a session of their own is in that one, and no leader.
    pub(super) fn led_by(process: Process) -> Option<Self> {
        let path = path_of(process)?;
        let known = text(&Path::new(SESSIONS).join(id(&path)?))?;
        (field(&known, "LEADER") == Some(process.pid)).then(|| Self::at(path))
    }

    /// What is left of the session that a process led which is over: of one that began when its certificate was noted,
    /// since a later process may have its number, and a session.
    pub(super) fn left_by(process: Process, noted: Nanos) -> Option<Self> {
        let later = Process::of(process.pid).and_then(path_of);
        let mut found = sessions().into_iter().filter_map(|known| left(&known, process.pid, noted));
        found.find(|path| Some(path) != later.as_ref()).map(Self::at)
    }

    fn at(path: String) -> Self {
        let mounts = text(Path::new("/proc/self/mountinfo")).unwrap_or_default();
        Self { folders: folders(&mounts, &path), path }
    }

    /// Ends whatever is in it until nothing is, or until the deadline; what is left.
    pub(super) fn empty(&self, deadline: Instant) -> Vec<Process> {
        loop {
            for folder in &self.folders {
                // The kernel does it at once where it can (version 2, Linux 5.14), and nothing forks away from it.
                let _ = folder::replace::write_to(&folder.join("cgroup.kill"), b"1");
            }
            let mut left = self.processes();
            left.retain(|process| process.pid != std::process::id());
            if left.is_empty() || Instant::now() >= deadline {
                return left;
            }
            for process in left {
                // Its number may be another's by now, who is elsewhere.
                if path_of(process).as_ref() == Some(&self.path) {
                    process.signal(Signal::KILL);
                }
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    fn processes(&self) -> Vec<Process> {
        let listed = self.folders.iter().filter_map(|folder| text(&folder.join("cgroup.procs")));
        let pids = listed.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>());
        pids.filter_map(|pid| Process::of(pid.parse().ok()?)).collect()
    }
}

/// The group of a process that is a session's.
fn path_of(process: Process) -> Option<String> {
    let groups = text(&PathBuf::from(format!("/proc/{}/cgroup", process.pid)))?;
    groups.lines().find_map(|line| {
        let path =
            line.strip_prefix("0::").or_else(|| line.split_once(":name=systemd:").map(|(_, path)| path))?;
        let end =
            path.split('/').position(|part| part.starts_with("session-") && part.ends_with(".scope"))?;
        Some(path.split('/').take(end + 1).collect::<Vec<_>>().join("/"))
    })
}

/// What logind calls the session of such a group.
fn id(path: &str) -> Option<&str> {
    let id = path.rsplit('/').next()?.strip_prefix("session-")?.strip_suffix(".scope")?;
    (!id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric())).then_some(id)
}

/// What logind's file about a session has for a field.
fn field<T: FromStr>(session: &str, name: &str) -> Option<T> {
    session.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}

/// The group of a session of `sshd`'s that a process of that number led from when its certificate was noted.
fn left(session: &str, pid: u32, noted: Nanos) -> Option<String> {
    let began = field::<Nanos>(session, "REALTIME")?.checked_mul(1000)?;
    let is_its = field(session, "LEADER") == Some(pid)
        && field::<String>(session, "SERVICE").as_deref() == Some("sshd")
        && (noted - nanos(STILL)..noted + nanos(GRACE)).contains(&began);
    let (uid, scope): (u32, String) = (field(session, "UID")?, field(session, "SCOPE")?);
    let path = format!("/user.slice/user-{uid}.slice/{scope}");
    (is_its && !scope.contains('/') && id(&path).is_some()).then_some(path)
}

/// The numbers of those that have led a session which is not over, as whatever they have left behind keeps it.
pub(super) fn leaders() -> BTreeSet<u32> {
    sessions().iter().filter_map(|session| field(session, "LEADER")).collect()
}

fn sessions() -> Vec<String> {
    let names = folder::names(Path::new(SESSIONS), MOST_SESSIONS).unwrap_or_default();
    let is_file = |name: &&OsString| name.as_bytes().iter().all(u8::is_ascii_alphanumeric);
    names.iter().filter(is_file).filter_map(|name| text(&Path::new(SESSIONS).join(name))).collect()
}

/// Where that group stands in the hierarchies that systemd knows sessions by, and what stands below it.
fn folders(mounts: &str, path: &str) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = mounts
        .lines()
        .filter_map(|line| {
            let (mount, kind) = line.split_once(" - ")?;
            let mut kind = kind.split(' ');
            let is_known = match kind.next()? {
                "cgroup2" => true,
                "cgroup" => kind.nth(1)?.split(',').any(|option| option == "name=systemd"),
                _ => false,
            };
            let mut mount = mount.split(' ').skip(3);
            let (root, place) = (mount.next()?, mount.next()?);
            let below = path.strip_prefix(root.trim_end_matches('/'))?.strip_prefix('/')?;
            is_known.then(|| Path::new(place).join(below)).filter(|folder| folder.is_dir())
        })
        .collect();
    let mut at = 0;
    while let Some(folder) = folders.get(at).filter(|_| at < MOST_BELOW) {
        let names = folder::names(folder, 10 * MOST_BELOW).unwrap_or_default();
        let below: Vec<PathBuf> =
            names.iter().map(|name| folder.join(name)).filter(|path| path.is_dir()).collect();
        folders.extend(below);
        at += 1;
    }
    folders
}

fn text(path: &Path) -> Option<String> {
    let bytes = read::raw(path, Trust::Anyone, Limit::FILE).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};
    use std::time::Duration;

    use super::*;

    const PATH: &str = "/user.slice/user-1000.slice/session-3.scope";

    #[test]
    fn a_session_is_known_by_its_scope_and_its_leader() {
        assert_eq!(id(PATH), Some("3"));
        assert_eq!(id("/user.slice/session-c12.scope"), Some("c12"));
        for path in [
            "/system.slice/ssh.service",
            "/session-.scope",
            "/session-..%2f.scope",
            "/a/session-3.scope/b",
            "",
        ] {
            assert_eq!(id(path), None, "{path}");
        }
        let known = "# do not parse\nUID=1000\nLEADER=4711\nSCOPE=session-3.scope\n";
        assert_eq!(field(known, "LEADER"), Some(4711));
        for other in ["LEADER=\n", "XLEADER=4711\n", "LEADER 4711", "LEADER=4711x"] {
            assert_eq!(field::<u32>(other, "LEADER"), None, "{other}");
        }
        // What is left when its leader is over: the one that began when it was noted.
        let known = format!("{known}SERVICE=sshd\nREALTIME=1700000000500000\n");
        let noted = 1_700_000_000_000_000_000;
        assert_eq!(left(&known, 4711, noted).as_deref(), Some(PATH));
        let (early, late) = (noted - nanos(GRACE), noted + 2 * nanos(STILL));
        assert!(left(&known, 4711, early).is_none() && left(&known, 4711, late).is_none());
        assert!(left(&known, 4712, noted).is_none());
        for (had, has) in [("SERVICE=sshd", "SERVICE=login"), ("session-3.scope", "../x"), ("REALTIME", "X")]
        {
            assert!(left(&known.replace(had, has), 4711, noted).is_none(), "{has}");
        }
        assert_eq!(Scope::led_by(Process::this()), None);
    }

    #[test]
    fn it_stands_in_each_hierarchy_of_systemds() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        for name in ["unified", "systemd", "cpu"] {
            std::fs::create_dir_all(at(name).join("user.slice/user-1000.slice/session-3.scope/below/deep"))
                .unwrap();
        }
        std::fs::create_dir_all(at("part/session-3.scope")).unwrap();
        let line = |root: &str, name: &str, kind: &str| {
            format!("30 1 0:26 {root} {} rw,relatime shared:4 - {kind}\n", at(name).display())
        };
        let mounts = [
            line("/", "unified", "cgroup2 none rw,nsdelegate"),
            line("/", "systemd", "cgroup cgroup rw,xattr,name=systemd"),
            line("/", "cpu", "cgroup cgroup rw,cpu,cpuacct"),
            line("/user.slice/user-1000.slice", "part", "cgroup2 none rw"),
            line("/other", "unified", "cgroup2 none rw"),
            line("/", "missing", "cgroup2 none rw"),
            "broken - cgroup2\n\n".to_owned(),
        ]
        .concat();
        let scope = |name: &str, below: &str| at(name).join(&PATH[1..]).join(below);
        let mut expected = vec![at("part/session-3.scope")];
        for name in ["unified", "systemd"] {
            expected.extend([scope(name, ""), scope(name, "below"), scope(name, "below/deep")]);
        }
        let mut found = folders(&mounts, PATH);
        let same = |path: &PathBuf| path.components().collect::<PathBuf>();
        found.sort();
        expected.sort();
        assert_eq!(found.iter().map(same).collect::<Vec<_>>(), expected.iter().map(same).collect::<Vec<_>>());
    }

    struct Group(PathBuf);

    impl Drop for Group {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir(self.0.join("session-3.scope/below"));
            let _ = std::fs::remove_dir(self.0.join("session-3.scope"));
            let _ = std::fs::remove_dir(&self.0);
        }
    }

    /// One that goes on to start others, which leave it.
    fn restless(folder: &Path) -> Child {
        let script = "echo $$ > \"$0/cgroup.procs\"; while :; do (setsid sleep 60 &); sleep 0.01; done";
        Command::new("sh").args(["-c", script]).arg(folder).spawn().unwrap()
    }

    /// Of the system's own, where this user may make one: whatever its processes do.
    #[test]
    fn whatever_is_in_it_ends() {
        let mounts = text(Path::new("/proc/self/mountinfo")).unwrap();
        // Not those that stand there already, nor those of a container that nobody may write to.
        let roots = folders(&mounts, "/").into_iter().filter(|root| {
            let writable = rustix::fs::access(root, rustix::fs::Access::WRITE_OK).is_ok();
            root.to_string_lossy().ends_with('/') && root.join("cgroup.procs").is_file() && writable
        });
        for root in roots {
            let group = Group(root.join(format!("machine-id-test-{}", std::process::id())));
            let scope = group.0.join("session-3.scope");
            std::fs::create_dir_all(scope.join("below")).unwrap();
            let mut children = [restless(&scope), restless(&scope.join("below"))];
            let path = wait_for_path(children[0].id());
            let it = Scope { folders: folders(&mounts, &path), path };
            while it.processes().len() < 8 {
                std::thread::sleep(Duration::from_millis(5));
            }
            assert_eq!(it.empty(Instant::now() + Duration::from_secs(10)), []);
            for child in &mut children {
                assert!(!child.wait().unwrap().success());
            }
            assert_eq!(it.processes(), []);
        }
    }

    fn wait_for_path(pid: u32) -> String {
        loop {
            if let Some(path) = Process::of(pid).and_then(path_of) {
                return path;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A number that stands there and is somebody's who is elsewhere by now.
    #[test]
    fn who_is_not_in_it_lives_on() {
        let temp = tempfile::tempdir().unwrap();
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        std::fs::write(temp.path().join("cgroup.procs"), format!("{}\n999999999\nx\n", child.id())).unwrap();
        let it = Scope { folders: vec![temp.path().to_owned()], path: PATH.to_owned() };
        let left = it.empty(Instant::now() + Duration::from_millis(50));
        assert_eq!(left.iter().map(|process| process.pid).collect::<Vec<_>>(), [child.id()]);
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
