//! `--reload COMMAND`: servers that read their files only when they are told to. One at a time; at once after an operator's
//! revocation, else not more often than every 30 s; again where it fails.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use crate::retry::Backoff;

/// How often servers are told of what jobs give back.
pub(super) const SELDOM: Duration = Duration::from_secs(30);
/// How long COMMAND may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The first pause after it failed, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// COMMAND, and when it is to be run.
#[derive(Debug)]
pub(super) struct Reload {
    command: Option<String>,
    patience: Duration,
    due: Option<Instant>,
    last: Option<Instant>,
    running: Option<JoinHandle<Result<(), String>>>,
    backoff: Backoff,
}

impl Reload {
    pub(super) fn new(command: Option<String>) -> Self {
        let backoff = Backoff::new(PAUSES.0, PAUSES.1);
        Self { command, patience: PATIENCE, due: None, last: None, running: None, backoff }
    }

    /// It is to be run, since files have changed.
    pub(super) fn want(&mut self, now: bool) {
        let soonest = Instant::now();
        let due = match self.last.filter(|_| !now) {
            Some(last) => soonest.max(last + SELDOM),
            None => soonest,
        };
        self.due = Some(self.due.map_or(due, |before| before.min(due)));
    }

    /// Waits for the next thing that happens to it; why it failed, where it did. Nothing is lost where that is not waited for.
    pub(super) async fn step(&mut self) -> Option<String> {
        if let Some(running) = &mut self.running {
            let ended = running.await;
            self.running = None;
            let failed = ended.unwrap_or_else(|error| Err(error.to_string())).err();
            if failed.is_some() {
                let again = Instant::now() + self.backoff.pause();
                self.due = Some(self.due.map_or(again, |due| due.min(again)));
            } else {
                self.backoff = Backoff::new(PAUSES.0, PAUSES.1);
            }
            return failed;
        }
        let (Some(due), Some(command)) = (self.due, &self.command) else {
            return std::future::pending().await;
        };
        sleep_until(due).await;
        self.due = None;
        self.last = Some(Instant::now());
        self.running = Some(tokio::spawn(run(command.clone(), self.patience)));
        None
    }
}

/// Runs it to its end, or ends it and all that it has started.
async fn run(command: String, patience: Duration) -> Result<(), String> {
    let mut shell = Command::new("/bin/sh");
    // What begins with a dash is no option of the shell; it waits for nobody's input, and is a group of its own.
    shell.args(["-c", "--", &command]).stdin(Stdio::null()).process_group(0);
    // Whose stdout is read reads of files.
    shell.stdout(Stdio::null());
    let mut child = shell.spawn().map_err(|error| format!("cannot run /bin/sh: {error}"))?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    match timeout(patience, child.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("it ended with {status}")),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => {
            if let Some(group) = group {
                let _ = kill_process_group(group, Signal::KILL);
            }
            let _ = child.wait().await;
            Err(format!("it did not end within {}", humantime::format_duration(patience)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
    }

    #[test]
    fn seldom_unless_it_is_urgent_and_again_where_it_fails() {
        block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let log = folder.path().join("log");
            let runs = || std::fs::read_to_string(&log).unwrap_or_default().len();
            let mut reload =
                Reload::new(Some(format!("printf x >> {}; test $(wc -c < {0}) != 2", log.display())));
            reload.want(false);
            assert_eq!((reload.step().await, reload.step().await, runs()), (None, None, 1));
            // What jobs give back waits, and an operator's revocation does not.
            reload.want(false);
            let wait = reload.due.unwrap().duration_since(Instant::now());
            assert!(wait > SELDOM / 2 && wait <= SELDOM, "{wait:?}");
            reload.want(true);
            assert_eq!(reload.step().await, None);
            assert_eq!(reload.step().await.unwrap(), "it ended with exit status: 1");
            let again = reload.due.unwrap().duration_since(Instant::now());
            assert!(again <= PAUSES.0, "{again:?}");
            assert_eq!((reload.step().await, reload.step().await, runs(), reload.due), (None, None, 3, None));
        });
    }

    #[test]
    fn what_hangs_is_ended_with_what_it_started() {
        block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let pid = folder.path().join("pid");
            let command = format!("sleep 60 & echo $! > {}; wait", pid.display());
            let error = run(command, Duration::from_millis(300)).await.unwrap_err();
            assert_eq!(error, "it did not end within 300ms");
            let pid = std::fs::read_to_string(pid).unwrap().trim().parse().unwrap();
            let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // Where nobody reaps it, it is dead all the same.
            let end = Instant::now() + Duration::from_secs(10);
            while !state().is_empty() && !state().contains(") Z ") {
                assert!(Instant::now() < end, "{}", state());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let _: i32 = pid;
            // A dash in front is the command's.
            assert!(
                run("-x".to_owned(), PATIENCE)
                    .await
                    .unwrap_err()
                    .starts_with("it ended with exit status: 127")
            );
        });
    }
}
