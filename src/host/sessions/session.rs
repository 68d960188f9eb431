//! What belongs to one of `sshd`'s connections, and its end.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::cgroup::{LOOK_AGAIN, Scope};
use crate::folder::read::{self, Limit, Trust};
use crate::folder::stamp::Nanos;
use crate::process::Process;
use crate::text::shown;

/// How often one looks for what it has started meanwhile.
const MOST_LOOKS: usize = 200;
/// What `sshd` is called: from OpenSSH 9.8 on one program listens, and another is a connection's.
const LISTENER: &str = "sshd";
const CONNECTION: &str = "sshd-session";
/// What is named of a session's remains.
const MOST_NAMED: usize = 32;

/// What became of a connection that was to end, or why it was not ended.
pub(super) type Outcome = Result<Remains, String>;

/// What is left of a session.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Remains {
    /// What is there or may be of it, by number and name.
    pub(super) named: Vec<(u32, String)>,
    /// Whether some of that was killed and is there yet: it is to be ended again.
    pub(super) lasts: bool,
}

/// Ends connections of `sshd`'s with all that belongs to them, and waits so long for it; the outcomes in the same order.
/// Whoever notes processes is another user, and believed for one thing only: which certificate it was. So each must be
/// `sshd`'s, root's, a connection's, and since it was noted the same.
///
/// Of one that is over, what it has left to logind's session ends. Each comes with the time when it was last noted.
pub(super) fn end(processes: &[(Process, Nanos)], patience: Duration) -> Vec<Outcome> {
    let (mut tree, mut checked) = (Vec::new(), Vec::new());
    for (at, (process, noted)) in processes.iter().enumerate() {
        checked.push(Checked::new(*process, *noted));
        // All of that was this process if it has the number still.
        if matches!(checked.last(), Some(Ok(_))) && process.signal(Signal::STOP) {
            tree.push((at, *process));
        }
    }
    stop_children(&mut tree);
    for (at, process) in &tree {
        if let Some(Ok(checked)) = checked.get_mut(*at) {
            checked.trace.learn(*process);
        }
    }
    for (_, process) in &tree {
        process.signal(Signal::KILL);
    }
    let deadline = Instant::now() + patience;
    let mut left: Vec<(usize, Process)> = Vec::new();
    for (at, scope) in
        checked.iter().enumerate().filter_map(|(at, one)| Some((at, one.as_ref().ok()?.scope.as_ref()?)))
    {
        left.extend(scope.empty(deadline).into_iter().map(|process| (at, process)));
    }
    while tree.iter().any(|(_, process)| !process.is_over()) && Instant::now() < deadline {
        std::thread::sleep(LOOK_AGAIN);
    }
    left.extend(tree);
    left.retain(|(_, process)| !process.is_over());
    let lasting: BTreeSet<usize> = left.iter().map(|(at, _)| *at).collect();
    left.extend(traced(&checked).into_iter().filter(|(_, process)| !process.is_over()));
    left.sort_by_key(|(at, process)| (*at, process.pid));
    left.dedup();
    let left = |at| left.iter().filter(move |(of, _)| *of == at).take(MOST_NAMED);
    let remains = |at| Remains {
        named: left(at).map(|(_, process)| (process.pid, name(*process))).collect(),
        lasts: lasting.contains(&at),
    };
    checked.into_iter().enumerate().map(|(at, checked)| checked.map(|_| remains(at))).collect()
}

/// A connection that may be ended.
struct Checked {
    /// Where logind has it.
    scope: Option<Scope>,
    trace: Trace,
}

impl Checked {
    fn new(process: Process, noted: Nanos) -> Result<Self, String> {
        let scope = if process.is_over() {
            Some(Scope::left_by(process, noted).ok_or("it is over")?)
        } else {
            let scope = Scope::led_by(process);
            check(process, scope.is_some())?;
            scope
        };
        Ok(Self { scope, trace: Trace::of(process) })
    }
}

/// Whether it is one of `sshd`'s connections.
fn check(process: Process, leads_session: bool) -> Result<(), String> {
    let status = proc(process, "status").ok_or("it cannot be seen")?;
    // Its own is another while it asks for principals.
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next());
    let uid: u32 = uid.and_then(|uid| uid.parse().ok()).ok_or("it cannot be seen")?;
    if uid != 0 && uid != rustix::process::geteuid().as_raw() {
        return Err(format!("it is no process of root's (uid {uid})"));
    }
    let program = sshd(process)?;
    // Whoever notes the one that listens would end it, and nobody could log in.
    let parent = process.parent().ok_or("it cannot be seen")?;
    if program == CONNECTION || leads_session || sshd(parent).is_ok() || is_titled(process) {
        return Ok(());
    }
    Err("whether it listens or is a connection's cannot be told: nothing but `sshd` starts those".to_owned())
}

/// Whether it calls itself a connection, as one does whose listener was started anew since: `sshd: USER [priv]`.
fn is_titled(process: Process) -> bool {
    proc(process, "cmdline").is_some_and(|title| title.starts_with("sshd: ") && !title.contains("[listener]"))
}

/// Which of `sshd`'s programs it runs; the file may have been replaced since.
fn sshd(process: Process) -> Result<&'static str, String> {
    let link = format!("/proc/{}/exe", process.pid);
    let unseen = |error| format!("its program cannot be seen ({error}); this needs CAP_SYS_PTRACE");
    let path = std::fs::read_link(&link).map_err(unseen)?;
    let path = path.to_string_lossy();
    let path = PathBuf::from(path.strip_suffix(" (deleted)").unwrap_or(&path));
    let known =
        [LISTENER, CONNECTION].into_iter().find(|name| path.file_name().is_some_and(|file| file == *name));
    let name =
        known.ok_or_else(|| format!("it runs `{}`, which is no `sshd`", shown(&path.to_string_lossy())))?;
    let is_roots = |path: &Path| {
        std::fs::metadata(path).is_ok_and(|there| there.uid() == 0 && there.mode() & 0o022 == 0)
    };
    if is_roots(Path::new(&link)) && path.ancestors().skip(1).all(is_roots) {
        return Ok(name);
    }
    Err(format!("others than root could have put `{}` there", shown(&path.to_string_lossy())))
}

/// Stops all that stopped processes have started, however deep, so that none of them starts another or loses its parent.
/// No descriptor is kept: there may be more processes than this one may have.
fn stop_children(tree: &mut Vec<(usize, Process)>) {
    let mut known: BTreeMap<u32, usize> = tree.iter().map(|(at, process)| (process.pid, *at)).collect();
    for _ in 0..MOST_LOOKS {
        // Only children of those that are stopped: their numbers are no others'.
        let children = Process::all().unwrap_or_default().into_iter().filter_map(|(process, parent)| {
            let at = known.get(&parent?)?;
            (!known.contains_key(&process.pid) && process.pid != std::process::id()).then_some((*at, process))
        });
        let new: Vec<(usize, Process)> =
            children.filter(|(_, process)| process.signal(Signal::STOP)).collect();
        if new.is_empty() {
            break;
        }
        known.extend(new.iter().map(|(at, process)| (process.pid, *at)));
        tree.extend(new);
    }
}

/// What tells processes of a session that have left its tree, to name them. None is ended for it: a service that a
/// job has restarted by hand carries the same.
struct Trace {
    sshd: Process,
    /// Of the kernel's audit, where PAM's `pam_loginuid` has begun one.
    audit: Option<String>,
    /// `SSH_CONNECTION` as `sshd` has set it.
    connections: Vec<Vec<u8>>,
    /// What `sshd` itself has from whoever started it.
    inherited: Option<Vec<u8>>,
}

impl Trace {
    fn of(sshd: Process) -> Self {
        let above = sshd.parent().and_then(audit);
        let audit = audit(sshd).filter(|id| Some(id) != above.as_ref());
        Self { sshd, audit, connections: Vec::new(), inherited: connection(sshd) }
    }

    fn learn(&mut self, process: Process) {
        let found = connection(process).filter(|_| process != self.sshd);
        self.connections.extend(found.filter(|found| Some(found) != self.inherited.as_ref()));
    }
}

/// Which processes carry whose traces.
fn traced(checked: &[Result<Checked, String>]) -> Vec<(usize, Process)> {
    let traces = checked.iter().enumerate().filter_map(|(at, one)| Some((at, &one.as_ref().ok()?.trace)));
    let traces: Vec<(usize, &Trace)> =
        traces.filter(|(_, trace)| trace.audit.is_some() || !trace.connections.is_empty()).collect();
    if traces.is_empty() {
        return Vec::new();
    }
    let all = Process::all().unwrap_or_default().into_iter();
    all.flat_map(|(process, _)| {
        let (audit, connection) = (audit(process), connection(process));
        let carries = move |(at, trace): &(usize, &Trace)| {
            let is = audit.is_some() && audit == trace.audit
                || connection.as_ref().is_some_and(|found| trace.connections.contains(found));
            is.then_some((*at, process))
        };
        traces.iter().filter_map(carries).collect::<Vec<_>>()
    })
    .collect()
}

fn audit(process: Process) -> Option<String> {
    proc(process, "sessionid").filter(|id| id.trim().parse() != Ok(u32::MAX))
}

fn connection(process: Process) -> Option<Vec<u8>> {
    let path = format!("/proc/{}/environ", process.pid);
    let environment = read::raw(Path::new(&path), Trust::Anyone, Limit::FILE).ok()?;
    let mut variables = environment.split(|byte| *byte == 0);
    variables.find(|variable| variable.starts_with(b"SSH_CONNECTION=")).map(<[u8]>::to_vec)
}

/// What a process calls itself.
fn name(process: Process) -> String {
    proc(process, "comm").map(|name| name.trim_end().to_owned()).unwrap_or_default()
}

fn proc(process: Process, file: &str) -> Option<String> {
    let bytes =
        read::raw(Path::new(&format!("/proc/{}/{file}", process.pid)), Trust::Anyone, Limit::FILE).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn marked(mark: &str) -> Vec<Process> {
        let mark = format!("SESSION_TEST={mark}");
        let has = |process: &Process| {
            let environment = std::fs::read(format!("/proc/{}/environ", process.pid)).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
        };
        let all = Process::all().unwrap().into_iter().map(|(process, _)| process);
        all.filter(|process| has(process) && !process.is_over()).collect()
    }

    /// Processes that start others meanwhile, several deep.
    #[test]
    fn a_tree_that_grows_is_stopped_whole() {
        let mark = format!("tree-{}", std::process::id());
        let script = "trap '' TERM; for i in 1 2 3; do (while :; do sh -c 'sleep 60 & sleep 60; :' & sleep 0.005; done) & done; wait";
        let mut shell = Command::new("sh");
        let mut shell =
            shell.args(["-c", script]).env("SESSION_TEST", &mark).stdin(Stdio::null()).spawn().unwrap();
        while marked(&mark).len() < 20 {
            std::thread::sleep(LOOK_AGAIN);
        }
        let it = Process::of(shell.id()).unwrap();
        it.signal(Signal::STOP);
        let mut tree = vec![(0, it)];
        stop_children(&mut tree);
        assert!(tree.len() >= 20);
        for (_, process) in &tree {
            process.signal(Signal::KILL);
        }
        shell.wait().unwrap();
        let end = Instant::now() + Duration::from_secs(3);
        while !marked(&mark).is_empty() {
            assert!(Instant::now() < end, "{:?}", marked(&mark));
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    #[test]
    fn only_sshd_is_ended() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let it = Process::of(child.id()).unwrap();
        let recycled = Process::named(&format!("{}-1", it.pid)).unwrap();
        let temp = tempfile::tempdir().unwrap();
        // What is said of it is one line, whatever it is called.
        let theirs = temp.path().join("a\nended the session");
        std::fs::create_dir(&theirs).unwrap();
        std::fs::copy("/bin/sleep", theirs.join("sshd")).unwrap();
        let mut disguised = Command::new(theirs.join("sshd")).arg("60").spawn().unwrap();
        let all =
            [it, recycled, Process::of(disguised.id()).unwrap(), Process::named("999999999-1").unwrap()];
        let whys: Vec<String> = end(&all.map(|process| (process, 0)), Duration::ZERO)
            .into_iter()
            .map(Result::unwrap_err)
            .collect();
        assert!(whys[0].ends_with("which is no `sshd`"), "{whys:?}");
        assert_eq!((whys[1].as_str(), whys[3].as_str()), ("it is over", "it is over"));
        assert!(whys[2].starts_with("others than root could have put "), "{whys:?}");
        assert!(!whys[2].contains('\n'), "{whys:?}");
        for child in [&mut child, &mut disguised] {
            assert!(child.try_wait().unwrap().is_none());
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
