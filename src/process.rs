//! Processes other than this one: those that it was started by, and one that
//! is known by its number.
//!
//! Who ends a job signals its shell, and whoever hears nothing of that lives
//! on. So the end of any process that this one was started by counts. Only a
//! process that was cut off from them on purpose is not tied to them: `nohup`
//! ignores HUP where its shell does not, and `setsid` begins another session.

use std::future::{pending, poll_fn};
use std::io;
use std::path::Path;
use std::task::Poll;
use std::time::Duration;

use rustix::process::{Pid, Signal, getpid, getppid, test_kill_process};
use serde::{Deserialize, Serialize};
use tokio::net::unix::pipe::Receiver;

use crate::folder::read::{self, Limit, Trust};
use crate::folder::{self, Unfit};

/// How often the parent is looked for where the system has no descriptors of processes.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// More processes than these stand one above the other nowhere.
const MAX_ANCESTORS: usize = 64;

/// No Linux has more numbers for them, and what else stands in `/proc`.
const MAX_PROCESSES: usize = (4 << 20) + 1000;

/// A process that is not taken for a later one of the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// When it was started, in ticks since the system was; nothing where that does not tell.
    started: Option<u64>,
}

impl Process {
    /// This one.
    pub fn this() -> Self {
        Self { pid: std::process::id(), started: Stat::of(getpid()).map(|stat| stat.started) }
    }

    /// The one of that number, where it can be seen and it can be said when it was started.
    pub fn of(pid: u32) -> Option<Self> {
        let it = Self { pid, started: None };
        Some(Self { started: Some(Stat::of(it.number()?)?.started), ..it })
    }

    /// The one whose child it is now.
    pub fn parent(self) -> Option<Self> {
        let parent = Stat::of(self.number()?)?.parent?;
        Self::of(u32::try_from(parent.as_raw_pid()).ok()?)
    }

    /// From [`Process::name`].
    pub fn named(name: &str) -> Option<Self> {
        let (pid, started) = name.split_once('-')?;
        let it = Self { pid: pid.parse().ok()?, started: Some(started.parse().ok()?) };
        Some(it).filter(|it| it.name() == name)
    }

    /// What no other has for a name until the system is started anew.
    pub fn name(self) -> String {
        format!("{}-{}", self.pid, self.started.unwrap_or_default())
    }

    /// Every one that is there, with the number of the one that started it.
    pub fn all() -> io::Result<Vec<(Self, Option<u32>)>> {
        let pids = folder::names(Path::new("/proc"), MAX_PROCESSES)?;
        let pids = pids.iter().filter_map(|name| Pid::from_raw(name.to_str()?.parse().ok()?));
        // One that has ended meanwhile is none.
        Ok(pids.filter_map(|pid| Stat::of(pid)?.with_parent(pid)).collect())
    }

    /// Whether it has ended: also where nobody has asked yet how it did. Where nothing is known, it has not.
    pub fn is_over(self) -> bool {
        let Some(pid) = self.number() else { return true };
        match Stat::try_of(pid) {
            Ok(stat) => Some(stat.started) != self.started || stat.ended,
            Err(unfit) => unfit.is_missing(),
        }
    }

    /// Sends it a signal, and no later one of its number; whether it was there.
    pub fn signal(self, signal: Signal) -> bool {
        let Some(pid) = self.number() else { return false };
        #[cfg(target_os = "linux")]
        if let Ok(descriptor) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) {
            return self.has(pid) && rustix::process::pidfd_send_signal(descriptor, signal).is_ok();
        }
        self.has(pid) && rustix::process::kill_process(pid, signal).is_ok()
    }

    /// Whether it is there, and not another of its number, as in another container.
    pub fn is_there(self) -> bool {
        self.number().is_some_and(|pid| test_kill_process(pid).is_ok() && self.has(pid))
    }

    /// Whether the number is its own, and of no later one.
    fn has(self, pid: Pid) -> bool {
        Stat::of(pid).map(|stat| stat.started) == self.started
    }

    /// Whether this process was started by it, or by one that was.
    pub fn is_above(self) -> bool {
        let parents = std::iter::successors(getppid(), |&child| Stat::of(child)?.parent);
        parents.take(MAX_ANCESTORS).any(|pid| Some(pid) == self.number())
    }

    /// Not 0, nor negative: those are many processes.
    fn number(self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.pid).ok()?)
    }
}

/// Whether this process was started with that signal ignored; only Linux tells.
pub fn ignores(signal: Signal) -> bool {
    Stat::of(getpid()).is_some_and(|stat| stat.ignores(signal))
}

/// What Linux says of a process; see `proc_pid_stat(5)`.
struct Stat {
    parent: Option<Pid>,
    session: u64,
    ignored: u64,
    started: u64,
    ended: bool,
}

impl Stat {
    fn of(pid: Pid) -> Option<Self> {
        Self::try_of(pid).ok()
    }

    fn try_of(pid: Pid) -> Result<Self, Unfit> {
        let path = format!("/proc/{}/stat", pid.as_raw_pid());
        let stat = read::raw(Path::new(&path), Trust::Anyone, Limit::FILE)?;
        Self::parse(&String::from_utf8_lossy(&stat)).ok_or_else(|| Unfit::new("it is not as proc(5) says"))
    }

    fn process(&self, pid: Pid) -> Option<Process> {
        Some(Process { pid: u32::try_from(pid.as_raw_pid()).ok()?, started: Some(self.started) })
    }

    fn with_parent(&self, pid: Pid) -> Option<(Process, Option<u32>)> {
        let parent = self.parent.and_then(|parent| u32::try_from(parent.as_raw_pid()).ok());
        Some((self.process(pid)?, parent))
    }

    /// The name in parentheses may hold anything; what is counted here follows it.
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        let parent = i32::try_from(number(4)?).ok().and_then(Pid::from_raw);
        let ended = matches!(*fields.first()?, "Z" | "X");
        Some(Self { parent, session: number(6)?, ignored: number(33)?, started: number(22)?, ended })
    }

    fn ignores(&self, signal: Signal) -> bool {
        u32::try_from(signal.as_raw() - 1)
            .is_ok_and(|bit| self.ignored.checked_shr(bit).is_some_and(|mask| mask & 1 == 1))
    }
}

/// The processes that this one was started by, as long as they are there.
#[derive(Debug, Default)]
pub struct Ancestors {
    /// Descriptors of processes, not of pipes: each is ready to be read from when its process has ended.
    watched: Vec<Receiver>,
    /// Looked for again and again.
    parent: Option<Pid>,
}

impl Ancestors {
    /// Watches them from now on. One that has ended before, so that another
    /// took its place, is not missed: this process was meant to outlive it.
    pub fn watch() -> Self {
        let mut all = Self::default();
        let mut child = getpid();
        while all.watched.len() < MAX_ANCESTORS
            && let Some(parent) = tied_to(child)
        {
            match open(parent) {
                // The number was still that of the parent when it was opened.
                Some(descriptor) if parent_of(child) == Some(parent) => all.watched.push(descriptor),
                Some(_) => break,
                None => {
                    all.parent = Some(parent).filter(|_| child == getpid());
                    break;
                }
            }
            child = parent;
        }
        all
    }

    /// Waits until one of them has ended.
    pub async fn one_ends(&self) {
        let told = poll_fn(|context| {
            let ended = |descriptor: &Receiver| descriptor.poll_read_ready(context).is_ready();
            if self.watched.iter().any(ended) { Poll::Ready(()) } else { Poll::Pending }
        });
        let looked = async {
            let Some(parent) = self.parent else { return pending().await };
            while getppid() == Some(parent) {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        tokio::select! {
            () = told => {}
            () = looked => {}
        }
    }
}

fn parent_of(child: Pid) -> Option<Pid> {
    if child == getpid() { getppid() } else { Stat::of(child)?.parent }
}

/// The parent whose end is to be this one's too. Process 1 takes in whoever
/// has lost a parent, and ends with the machine.
fn tied_to(child: Pid) -> Option<Pid> {
    let parent = parent_of(child).filter(|parent| *parent != Pid::INIT)?;
    let cut_off = |child: Stat, parent: Stat| {
        child.session != parent.session || (child.ignores(Signal::HUP) && !parent.ignores(Signal::HUP))
    };
    let on_purpose =
        Stat::of(child).zip(Stat::of(parent)).is_some_and(|(child, parent)| cut_off(child, parent));
    (!on_purpose).then_some(parent)
}

#[cfg(target_os = "linux")]
fn open(pid: Pid) -> Option<Receiver> {
    let descriptor = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()?;
    // What waits for any descriptor in place of this one is unsafe or deprecated.
    Receiver::from_owned_fd_unchecked(descriptor).ok()
}

/// What kqueue could say cannot be asked for without `unsafe`.
#[cfg(not(target_os = "linux"))]
fn open(_: Pid) -> Option<Receiver> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_behind_the_name_counts() {
        let text =
            "7 (a) R (b) c) S 4 7 6 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 2222 1 1 1 1 1 1 1 1 0 0 3 4 0\n";
        let stat = Stat::parse(text).unwrap();
        assert_eq!(
            (stat.parent.unwrap().as_raw_pid(), stat.session, stat.started, stat.ignored),
            (4, 6, 2222, 3)
        );
        // SIGHUP is 1, SIGINT is 2.
        assert!(stat.ignores(Signal::HUP) && stat.ignores(Signal::INT) && !stat.ignores(Signal::QUIT));
        for cut in ["", "7 (a", "7 (a) S 4 7"] {
            assert!(Stat::parse(cut).is_none(), "{cut}");
        }
    }

    #[tokio::test]
    async fn a_parent_is_looked_for_where_nothing_tells() {
        let mut ancestors = Ancestors { watched: Vec::new(), parent: getppid() };
        let waits = tokio::time::timeout(2 * LOOK_AGAIN, ancestors.one_ends());
        assert!(waits.await.is_err(), "it is there");
        ancestors.parent = Some(getpid());
        ancestors.one_ends().await;
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_number_alone_is_no_process() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_child(&child);
        let it = Process { pid: child.id(), started: Some(Stat::of(pid).unwrap().started) };
        let later = Process { started: Some(0), ..it };
        assert!(it.is_there() && !later.is_there());
        assert!(!later.signal(Signal::KILL) && child.try_wait().unwrap().is_none());
        assert!(it.signal(Signal::KILL));
        child.wait().unwrap();
        assert!(!it.signal(Signal::KILL));
        let parent = std::os::unix::process::parent_id();
        assert!(Process { pid: parent, started: None }.is_above() && !it.is_above());
        for many in [0, u32::MAX] {
            assert!(!Process { pid: many, started: None }.signal(Signal::CONT));
        }
        assert!(Process::this().signal(Signal::CONT));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_ends_is_over() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let it = Process::of(child.id()).unwrap();
        assert_eq!((Process::named(&it.name()), it.parent()), (Some(it), Some(Process::this())));
        assert!(Process::all().unwrap().contains(&(it, Some(std::process::id()))));
        let later = Process { started: Some(0), ..it };
        assert!(!it.is_over() && later.is_over());
        child.kill().unwrap();
        while !it.is_over() {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(it.is_over() && !it.signal(Signal::KILL) && Process::of(it.pid).is_none());
        for name in ["", "-", "1", "1-", "01-1", "1-01", "+1-1", "1-1-1", "-1-1", "1-1 ", ".machine-id-0.tmp"]
        {
            assert_eq!(Process::named(name), None, "{name}");
        }
    }
}
