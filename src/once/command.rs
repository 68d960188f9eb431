//! COMMAND: run with the certificates, which are renewed while it runs, and
//! taken away when it ends, however it ends.

use std::cell::{Cell, RefCell};
use std::ffi::{OsStr, OsString};
use std::future::{Future as _, pending, poll_fn};
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitCode, ExitStatus};
use std::task::Poll;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::clock::{Clock, rfc3339};
use crate::error::{Error, Kind, Result};
use crate::once::command::program::not_runnable;
use crate::once::command::signals::{Signals, Told, exit_status, in_foreground};
use crate::once::delivery::OpenDestinations;
use crate::once::delivery::bash_env;
use crate::once::delivery::ci::JobReport;
use crate::once::exchange::keys::JobKeys;
use crate::once::exchange::{Exchanger, Obtained};
use crate::once::revoke::{Own, revoke_own};
use crate::once::run::Run;
use crate::retry::Backoff;
use crate::text::shown;

pub(crate) mod program;
pub(crate) mod signals;

/// How long COMMAND may go on with its certificates after TERM or HUP in a CI
/// system's job: GitHub's and Azure's runners kill everything after 2.5 s.
const GRACE: Duration = Duration::from_secs(2);

/// The same on machines that stay and in pods, to which at least 10 s are
/// given (`docker stop`; Kubernetes 30 s, systemd 90 s); some are for revoking.
const LONG_GRACE: Duration = Duration::from_secs(7);

/// The same after INT, which asks for an orderly end, such as unlocking a
/// state: GitHub's and Azure's runners send TERM after 7.5 s, and a container
/// whose `STOPSIGNAL` it is has 10 s.
const INTERRUPTED: Duration = Duration::from_secs(7);

/// The same when a process that started this run has ended. COMMAND is told
/// late, and what is left of a job is killed at any time.
const ORPHANED: Duration = Duration::from_secs(1);

/// Two interrupts within this time are meant: a program at a terminal may take
/// one for its own use, and goes on.
const INSISTING: Duration = Duration::from_secs(1);

/// How long a renewal under way may take to end once COMMAND has.
const SETTLE: Duration = Duration::from_secs(2);

/// How often a file is looked at for another token.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The longest pause between attempts to renew.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A run of COMMAND.
pub(crate) struct WrappedCommand<'a> {
    run: Run<'a>,
    exchanger: &'a Exchanger<'a>,
    /// Nothing once wiped.
    destinations: RefCell<Option<OpenDestinations>>,
    /// What it has now.
    obtained: RefCell<Option<Obtained>>,
    /// Every issuance of the run.
    issued: RefCell<Vec<Own>>,
    /// Whether an exchange is under way.
    renewing: Cell<bool>,
}

impl<'a> WrappedCommand<'a> {
    /// With certificates in place.
    pub(crate) fn new(
        run: Run<'a>,
        exchanger: &'a Exchanger<'a>,
        destinations: OpenDestinations,
        (obtained, issued): (Obtained, Vec<Own>),
    ) -> Self {
        Self {
            run,
            exchanger,
            destinations: RefCell::new(Some(destinations)),
            obtained: RefCell::new(Some(obtained)),
            issued: RefCell::new(issued),
            renewing: Cell::new(false),
        }
    }

    /// Runs COMMAND to its end, wipes, revokes, and returns COMMAND's status as ours.
    pub(crate) async fn run(&self, report: &JobReport, signals: &mut Signals) -> ExitCode {
        let expires_at = self.obtained.borrow().as_ref().map_or(0, |obtained| obtained.expires_at().0);
        let command = &self.run.settings.command;
        let program = command.first().map(OsString::as_os_str).unwrap_or_default();
        let status = match self.spawn(program, command.get(1..).unwrap_or_default(), report) {
            Ok(mut child) => self.watch(&mut child, expires_at, signals).await,
            Err(error) => not_runnable(program, &error, self.run.progress),
        };
        self.wipe();
        self.revoke().await;
        ExitCode::from(status)
    }

    fn spawn(&self, program: &OsStr, arguments: &[OsString], report: &JobReport) -> io::Result<Child> {
        let spawn = |mut command: Command| {
            let Run { settings, env, .. } = self.run;
            for name in env.names().filter(|name| !settings.inherited.has(name)) {
                command.env_remove(name);
            }
            command.envs(report.variables.iter().map(|(name, value)| (name, value)));
            if let Some(path) = self.destinations.borrow().as_ref().and_then(OpenDestinations::bash_env) {
                command.env(bash_env::VARIABLE, path);
            }
            command.spawn()
        };
        let mut alone = Command::new(program);
        alone.args(arguments);
        program::tied(program, arguments).and_then(spawn).or_else(|_| spawn(alone))
    }

    async fn watch(&self, child: &mut Child, expires_at: i64, signals: &mut Signals) -> u8 {
        let renewals = self.renewals(expires_at);
        tokio::pin!(renewals);
        let (grace, end_of_grace) = watch::channel(None);
        let taking_away = self.taking_away(end_of_grace);
        tokio::pin!(taking_away);
        let mut taken = false;
        let mut interrupted: Option<Instant> = None;
        let status = loop {
            tokio::select! {
                biased;
                status = child.wait() => break self.status(status),
                told = signals.next() => {
                    if told == Told::Orphaned {
                        self.run.progress.line(&format!("ending {told}"));
                    }
                    let forwarded = forward(told, child);
                    let interrupt = told == Told::Signal(Signal::INT);
                    let before = interrupted.filter(|_| interrupt).map(|before| before.elapsed());
                    interrupted = if interrupt { Some(Instant::now()) } else { interrupted };
                    if let Some(time) = allowed(told, forwarded, before, self.run.settings.method.is_ci) {
                        let end = Instant::now() + time;
                        grace.send_if_modified(|until| {
                            let sooner = until.is_none_or(|until| end < until);
                            *until = if sooner { Some(end) } else { *until };
                            sooner
                        });
                    }
                }
                () = &mut renewals => {}
                () = &mut taking_away, if !taken => taken = true,
            }
        };
        let wiped = self.destinations.borrow().is_none();
        // Certificates that are on their way are to be revoked too.
        let settled = poll_fn(|context| {
            let _ = renewals.as_mut().poll(context);
            if self.renewing.get() { Poll::Pending } else { Poll::Ready(()) }
        });
        if self.renewing.get() {
            self.wipe();
            let _ = timeout(SETTLE, settled).await;
        }
        if wiped && !taken {
            // In the middle of revoking.
            taking_away.await;
        }
        status
    }

    /// Wipes and revokes when the time is up that COMMAND was given to end in,
    /// whether or not it does. To be polled behind `renewals`.
    async fn taking_away(&self, mut end_of_grace: watch::Receiver<Option<Instant>>) {
        loop {
            let end = *end_of_grace.borrow_and_update();
            let sooner = end_of_grace.changed();
            match end {
                None => drop(sooner.await),
                Some(end) if timeout_at(end, sooner).await.is_err() => break,
                Some(_) => {}
            }
        }
        self.wipe();
        let settled = poll_fn(|_| if self.renewing.get() { Poll::Pending } else { Poll::Ready(()) });
        let _ = timeout(SETTLE, settled).await;
        // Now: if we are killed next, nobody could do it any more.
        self.revoke().await;
    }

    /// Revokes what is not yet revoked.
    async fn revoke(&self) {
        revoke_own(&self.issued.take(), self.run).await;
    }

    fn status(&self, status: io::Result<ExitStatus>) -> u8 {
        match status {
            Ok(status) => status.code().map_or_else(
                || exit_status(status.signal().unwrap_or(0)),
                |code| u8::try_from(code & 0xff).unwrap_or(1),
            ),
            Err(error) => {
                self.run.progress.failure(&format!("cannot wait for COMMAND: {error}"));
                1
            }
        }
    }

    /// Renews at two thirds of the certificates' life, as long as this is polled; never ends.
    async fn renewals(&self, mut expires_at: i64) {
        let Run { settings, progress, .. } = self.run;
        if let Err(why) = self.exchanger.renews() {
            let end = rfc3339(expires_at);
            progress.warning(&format!("cannot renew: {why}; the certificates end at {end}"));
            return pending().await;
        }
        loop {
            // Whatever this machine's clock says, they live no longer than was asked for.
            let tokens = self.run.keys.iter().filter_map(JobKeys::jwt_seconds);
            let asked = tokens.fold(settings.ttl_seconds, i64::min).max(0);
            let left = (expires_at - Clock::system().now()).clamp(0, asked);
            // They may end with the authority's CA, and the next no later.
            wait((left.saturating_mul(2) / 3).max(1), &Clock::system()).await;
            self.another_proof(expires_at).await;
            let mut backoff = Backoff::new(Duration::from_secs(1), LONGEST_PAUSE);
            expires_at = loop {
                if self.destinations.borrow().is_none() {
                    return pending().await;
                }
                match self.renew().await {
                    Ok(renewed) => break renewed,
                    // It would be the same again, and each time a line in the authority's audit trail. A
                    // platform that gives no proof now may give one while the certificates are good.
                    Err(error)
                        if matches!(error.kind(), Kind::Refused | Kind::Usage)
                            || (error.kind() == Kind::Proof && Clock::system().now() >= expires_at) =>
                    {
                        let end = rfc3339(expires_at);
                        progress
                            .warning(&format!("cannot renew the certificates, which end at {end}: {error}"));
                        return pending().await;
                    }
                    Err(error) => {
                        let pause = backoff.pause();
                        progress.warning(&format!(
                            "cannot renew the certificates, trying again in {:.1} s: {error}",
                            pause.as_secs_f64()
                        ));
                        sleep(pause).await;
                    }
                }
            };
        }
    }

    /// Waits for whoever refreshes a token that is handed over in a file: the
    /// one that was used buys nothing new.
    async fn another_proof(&self, expires_at: i64) {
        let mut said = false;
        while !self.exchanger.has_another_proof().await {
            if !std::mem::replace(&mut said, true) {
                self.run.progress.line(&format!(
                    "waiting for another token to renew the certificates, which end at {}",
                    rfc3339(expires_at)
                ));
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    async fn renew(&self) -> Result<i64> {
        self.renewing.set(true);
        let deadline = std::time::Instant::now() + self.run.settings.timeout;
        let exchanged = self.exchanger.exchange(deadline).await;
        self.renewing.set(false);
        let mut new = exchanged?;
        let own = Own::of(&new, self.run.keys);
        let now = Clock::system().now();
        self.issued.borrow_mut().retain(|earlier| !earlier.revocable.is_over(now));
        self.issued.borrow_mut().extend(own);
        if let Some(error) = new.failure(false) {
            return Err(error);
        }
        // What a leaf cluster does not give again is good as long as it lasts, and asked for with the rest.
        let obtained = match self.obtained.take() {
            Some(earlier) => new.keeping(earlier, now),
            None => new,
        };
        let mut held = self.obtained.borrow_mut();
        let obtained = held.insert(obtained);
        if let Some(destinations) = self.destinations.borrow_mut().as_mut() {
            destinations.renew(self.run, obtained)?;
        }
        let (expires_at, end) = obtained.expires_at();
        if expires_at <= Clock::system().now() {
            return Err(Error::internal("the new certificates have expired by this machine's clock"));
        }
        self.run.progress.line(&format!("renewed the certificates, valid until {end}"));
        Ok(expires_at)
    }

    fn wipe(&self) {
        if let Some(Err(left)) = self.destinations.take().map(OpenDestinations::wipe) {
            self.run.progress.warning(&format!("could not wipe all of the destination: {}", shown(&left)));
        }
    }
}

/// How long COMMAND may go on with its certificates, if it was told to end;
/// `before` is how long ago it was interrupted, if this is an interrupt again.
fn allowed(told: Told, forwarded: bool, before: Option<Duration>, in_ci: bool) -> Option<Duration> {
    let ending = if in_ci { GRACE } else { LONG_GRACE };
    match (told, before) {
        (Told::Orphaned, _) => Some(ORPHANED),
        (Told::Signal(Signal::TERM | Signal::HUP), _) => Some(ending),
        (Told::Signal(Signal::INT), None) => forwarded.then_some(INTERRUPTED),
        (Told::Signal(Signal::INT), Some(before)) => (forwarded || before < INSISTING).then_some(ending),
        (Told::Signal(_), _) => None,
    }
}

/// Sleeps for so many seconds, or until that time of the clock, whichever comes first: the clock may be moved, back
/// too, and what counts seconds stands still while the machine sleeps.
async fn wait(seconds: i64, clock: &Clock) {
    let seconds = u64::try_from(seconds).unwrap_or(0);
    let (end, unix) =
        (Instant::now() + Duration::from_secs(seconds), clock.now().saturating_add_unsigned(seconds));
    while clock.now() < unix && Instant::now() < end {
        let left = u64::try_from(unix - clock.now()).unwrap_or(0);
        sleep(Duration::from_secs(left.min(30)).min(end.saturating_duration_since(Instant::now()))).await;
    }
}

/// Passes a signal on to COMMAND, unless the terminal has: then returns false.
///
/// Nobody tells us where a signal comes from. In the foreground of a terminal,
/// INT and QUIT are taken for its own (Ctrl-C, Ctrl-\), which it sends to
/// COMMAND as well; COMMAND would get each of them twice otherwise. So a
/// `kill -INT` of us alone, while we are there, does not reach COMMAND: `kill`
/// sends TERM unless told otherwise, and two INT in a row take the
/// certificates away all the same ([`INSISTING`]).
fn forward(told: Told, child: &Child) -> bool {
    let signal = told.signal();
    if matches!(signal, Signal::INT | Signal::QUIT) && in_foreground() {
        return false;
    }
    // Not yet waited for, so that the number is still COMMAND's.
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        let _ = kill_process(pid, signal);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_has_the_time_that_the_platform_gives() {
        const QUICK: Option<Duration> = Some(Duration::from_millis(999));
        const SLOW: Option<Duration> = Some(Duration::from_secs(1));
        let [int, term, hup, quit] = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT].map(Told::Signal);
        for (told, forwarded, before, in_ci, seconds) in [
            (term, true, None, true, Some(2)),
            (term, true, None, false, Some(7)),
            (hup, true, None, true, Some(2)),
            (int, true, None, true, Some(7)),
            (int, true, SLOW, true, Some(2)),
            (int, true, SLOW, false, Some(7)),
            // At a terminal.
            (int, false, None, false, None),
            (int, false, SLOW, false, None),
            (int, false, QUICK, false, Some(7)),
            (quit, true, None, true, None),
            (Told::Orphaned, true, None, true, Some(1)),
            (Told::Orphaned, true, None, false, Some(1)),
        ] {
            let time = allowed(told, forwarded, before, in_ci);
            assert_eq!(time.map(|time| time.as_secs()), seconds, "{told:?} {before:?} {in_ci}");
        }
    }

    #[tokio::test]
    async fn a_wait_ends_though_the_clock_goes_back() {
        wait(-1, &Clock::held(0)).await;
        let (clock, started) = (Clock::held(1000), Instant::now());
        let moved = clock.clone();
        tokio::join!(wait(1, &clock), async { moved.set(0) });
        assert!(started.elapsed() >= Duration::from_secs(1));
    }
}
