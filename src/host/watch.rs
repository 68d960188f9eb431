//! `host watch`: the files of a folder follow the authority within a second, over one connection on which it states each
//! change. What is new in the KRL stands in the statement; whole lists are fetched at once for what operators revoke, and
//! seldom for what jobs give back.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::fetch::{Fetcher, RefreshSettings};
use super::gate;
use super::heard::{Heard, Moment, silent};
use super::link::{self, Said, Shared};
use super::lists::{KRL, MAX_FILE};
use super::refresh::LOCK_PATIENCE;
use super::reload::{Reload, SELDOM};
use super::round::{Refreshed, Round};
use super::store;
use crate::clock::Clock;
use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::Folder;
use crate::retry::Backoff;
use crate::terminal;
use crate::wire::{HEARTBEAT, Statement};

/// How often the KRL is fetched whole, so that it loses what is over.
const ANEW: Duration = Duration::from_secs(3600);
/// How often it is said which host this is, where nothing else gives cause.
const NAMED_EVERY: Duration = Duration::from_secs(600);
/// The first pause after a fetch that failed, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), SELDOM);
/// How long a watcher that begins may take to hear something, whatever was heard before.
const BEGINNING: Duration = Duration::from_secs(5);
/// More things that are wrong at once are not told apart.
const MAX_TOLD: usize = 64;

/// What is to be watched, and what follows from it.
#[derive(Clone, Debug)]
pub struct WatchSettings {
    /// What is to be kept up to date.
    pub refresh: RefreshSettings,
    /// What has servers read their files again.
    pub reload: Option<String>,
    /// After how long without news nobody gets in.
    pub fail_closed: Option<Duration>,
}

/// Watches until it is told to end.
///
/// # Errors
/// `Kind::Usage` for a CA file or pin that is no good, `Kind::Destination` where the folder cannot be used. What happens
/// later is told, and tried again.
pub async fn run(settings: &WatchSettings) -> Result<()> {
    let store = store::open(&settings.refresh.directory)?;
    let fetcher = Fetcher::new(&settings.refresh, &store)?;
    let handler = |kind| signal(kind).context(Kind::Internal, "cannot wait for signals");
    let (mut ended, mut interrupted) = (handler(SignalKind::terminate())?, handler(SignalKind::interrupt())?);
    // Wherever it is: each file is whole, and what was heard is kept.
    tokio::select! {
        _ = ended.recv() => {}
        _ = interrupted.recv() => {}
        () = watch(settings, &fetcher, &store) => {}
    }
    Ok(())
}

async fn watch(settings: &WatchSettings, fetcher: &Fetcher<'_>, store: &Folder) {
    let shared = Shared::default();
    let mut watcher = Watcher::new(settings, fetcher, store, &shared);
    let (told, mut lines) = mpsc::channel(1);
    let link = link::run(fetcher, &shared, told);
    let naming = name_again(fetcher, &shared);
    tokio::pin!(link, naming);
    loop {
        let due = watcher.due();
        tokio::select! {
            never = &mut link => match never {},
            never = &mut naming => match never {},
            Some(line) = lines.recv() => watcher.take(line).await,
            failed = watcher.reload.step() => watcher.reloaded(failed),
            () = sleep_until(due) => {}
        }
        // Also where something comes all the time.
        watcher.do_what_is_due().await;
    }
}

/// Says again and again which host this is: its certificate may be another by now, or believed by now.
async fn name_again(fetcher: &Fetcher<'_>, shared: &Shared) -> Infallible {
    loop {
        sleep(NAMED_EVERY).await;
        if let Ok(fetcher) = fetcher.again() {
            fetcher.tell().await;
            shared.heard_of_proof(&fetcher);
        }
    }
}

struct Watcher<'w> {
    settings: &'w WatchSettings,
    fetcher: &'w Fetcher<'w>,
    store: &'w Folder,
    shared: &'w Shared,
    reload: Reload,
    /// The last that was believed by this process.
    statement: Option<Statement>,
    /// When certificates end that were revoked since the last CRL; nothing where some may be missing.
    ends: Option<BTreeMap<u64, i64>>,
    /// When lists are to be fetched.
    fetch: Option<Instant>,
    /// Whether that has failed.
    is_behind: bool,
    /// When they were last.
    fetched: Option<Instant>,
    /// When the KRL was, whole.
    anew: Option<Instant>,
    backoff: Backoff,
    /// It is not looked before whether nobody is to get in.
    not_before: Instant,
    heard: Option<Moment>,
    closed: bool,
    /// Whether the authority did not believe which host this is, the last time.
    is_unproven: bool,
    told: BTreeSet<String>,
}

impl<'w> Watcher<'w> {
    fn new(
        settings: &'w WatchSettings,
        fetcher: &'w Fetcher<'w>,
        store: &'w Folder,
        shared: &'w Shared,
    ) -> Self {
        let heard = Heard::read(store).ok().flatten();
        let there = store.read(KRL, MAX_FILE).ok().flatten();
        let krl = heard.as_ref().filter(|heard| there.is_some_and(|krl| heard.has(&krl)));
        shared.since.set(krl.map(|heard| heard.lists.krl));
        let after = settings.fail_closed.unwrap_or_default();
        Self {
            settings,
            fetcher,
            store,
            shared,
            reload: Reload::new(settings.reload.clone()),
            statement: None,
            ends: None,
            fetch: None,
            is_behind: false,
            fetched: None,
            anew: None,
            backoff: Backoff::new(PAUSES.0, PAUSES.1),
            not_before: Instant::now() + if heard.is_some() { BEGINNING.min(after) } else { after },
            heard: heard.map(|heard| heard.at),
            closed: false,
            is_unproven: false,
            told: BTreeSet::new(),
        }
    }

    /// Takes what the connection brings.
    async fn take(&mut self, line: Result<Said>) {
        let taken = match line {
            // What was not taken is to be said again.
            Ok(said) => self.hear(&said).await.inspect_err(|_| self.shared.refused.notify_one()),
            Err(error) => Err(error),
        };
        match taken {
            Ok(true) => self.told.clear(),
            Ok(false) => {}
            Err(error) => self.tell(&error),
        }
    }

    /// Whether all is as it should be.
    async fn hear(&mut self, (jws, by_given): &Said) -> Result<bool> {
        let fetcher = self.fetcher.again()?;
        let lock = store::lock(self.store, std::time::Instant::now() + LOCK_PATIENCE).await?;
        let mut round = Round::begin(&fetcher, self.store)?;
        let known = round.heard.as_ref().map(|heard| heard.known.trust.clone());
        let statement = round.hear(jws, *by_given)?;
        let is_current = round.step(&statement);
        let Some(heard) = &round.heard else { return Err(Error::internal("nothing was heard")) };
        let (lists, at) = (heard.lists.clone(), heard.at.clone());
        let urgent = statement.urgent > lists.crl;
        self.shared.since.set(is_current.then_some(lists.krl));
        let is_news = self.heard.as_ref() != Some(&at);
        let was_closed = is_news && std::mem::take(&mut self.closed);
        let done = round.end();
        let is_good = done.errors.is_empty();
        self.changed(done, urgent || was_closed);
        if was_closed {
            terminal::log("the authority is heard again: who may, gets in");
            self.fetch = Some(Instant::now());
        }
        self.heard = Some(at);
        self.learn(&statement);
        let is_first = self.statement.is_none();
        let is_settled = is_current && !is_first && known.as_ref() == Some(&statement.trust);
        if !is_settled || urgent {
            self.fetch = Some(Instant::now());
        } else if lists.crl < statement.number && self.fetch.is_none() {
            self.fetch = self.fetched.map(|last| last + SELDOM).or_else(|| Some(Instant::now()));
        }
        self.statement = Some(statement);
        drop(lock);
        if self.fetch.is_some_and(|due| due <= Instant::now()) {
            self.fetch().await;
        }
        Ok(is_good && !self.is_behind)
    }

    /// Collects when what is new ends, where nothing is missing between this one and the last.
    fn learn(&mut self, statement: &Statement) {
        let last = self.statement.as_ref().map(|last| last.number);
        let follows = last == Some(statement.number) || last.is_some() && statement.since == last;
        let new = statement.revoked.iter().map(|revoked| (revoked.serial, revoked.expires));
        match &mut self.ends {
            Some(ends) if follows => ends.extend(new),
            ends => *ends = None,
        }
    }

    /// Fetches what the last statement is about.
    async fn fetch(&mut self) {
        let Some(statement) = self.statement.clone() else { return };
        self.fetch = None;
        let fetched = self.try_fetch(&statement).await;
        self.is_behind = !matches!(fetched, Ok(true));
        match fetched {
            Ok(true) => {
                self.backoff = Backoff::new(PAUSES.0, PAUSES.1);
                self.fetched = Some(Instant::now());
                self.ends = Some(BTreeMap::new());
            }
            failed => {
                self.fetch = Some(Instant::now() + self.backoff.pause());
                if let Err(error) = failed {
                    self.tell(&error);
                }
            }
        }
    }

    /// Whether all is as it should be.
    async fn try_fetch(&mut self, statement: &Statement) -> Result<bool> {
        let fetcher = self.fetcher.again()?;
        let _lock = store::lock(self.store, std::time::Instant::now() + LOCK_PATIENCE).await?;
        let mut round = Round::begin(&fetcher, self.store)?;
        let anew = self.anew.is_none_or(|last| last.elapsed() >= ANEW);
        let Some(heard) = &mut round.heard else { return Err(Error::internal("nothing was heard")) };
        let urgent = statement.urgent > heard.lists.crl;
        if anew {
            heard.lists.hash.clear();
        }
        round.follow(Some(statement.clone()), self.ends.as_ref()).await;
        let krl = round.krl().and(round.heard.as_ref()).map(|heard| heard.lists.krl);
        self.shared.since.set(krl);
        let done = round.end_and_tell().await;
        self.shared.heard_of_proof(&fetcher);
        let is_good = done.errors.is_empty();
        if anew && is_good {
            self.anew = Some(Instant::now());
        }
        self.changed(done, urgent);
        Ok(is_good)
    }

    /// What follows from files that have changed: each is named on stdout, and servers are told, but for the KRL, which `sshd`
    /// reads at each login. Called for the KRL as soon as it is there: what ends sessions of what it refuses belongs here.
    fn changed(&mut self, done: Refreshed, urgent: bool) {
        for error in &done.errors {
            self.tell(error);
        }
        let krl = self.store.path().join(KRL);
        if done.changed.iter().any(|path| *path != krl) {
            self.reload.want(urgent);
        }
        let names: String = done.changed.iter().map(|path| format!("{}\n", path.display())).collect();
        if let Err(error) = terminal::print(&names) {
            self.tell(&error);
        }
    }

    fn reloaded(&mut self, failed: Option<String>) {
        if let Some(why) = failed {
            let error = Error::new(Kind::Internal, why).context("the command of --reload failed");
            self.tell(&error.hint("it is run again; until then servers have the lists of before"));
        }
    }

    /// When there is something to do that nobody asks for.
    fn due(&self) -> Instant {
        // What was asleep did not see its time pass, so it is looked at again and again.
        let look = Duration::from_secs(HEARTBEAT).min(self.closes_in().unwrap_or(Duration::MAX));
        let look = Instant::now() + look.max(Duration::from_millis(100));
        self.fetch.map_or(look, |fetch| fetch.min(look))
    }

    /// In what time nobody is let in any more, where that is so.
    fn closes_in(&self) -> Option<Duration> {
        let after = self.settings.fail_closed?;
        // What was never heard, or is of a clock that was put back, is as old as can be.
        let age = self.heard.as_ref().and_then(|heard| heard.age(&Moment::now(&Clock::system())));
        let left = after.saturating_sub(age.unwrap_or(Duration::MAX));
        Some(left.max(self.not_before.saturating_duration_since(Instant::now())))
    }

    async fn do_what_is_due(&mut self) {
        if let Some(proven) = self.shared.proven.take() {
            let was_unproven = std::mem::replace(&mut self.is_unproven, proven.is_err());
            // Once until it is believed again: lists are there all the same.
            proven.err().filter(|_| !was_unproven).iter().for_each(warn);
        }
        if self.fetch.is_some_and(|due| due <= Instant::now()) {
            self.fetch().await;
        }
        if self.closes_in() == Some(Duration::ZERO)
            && let Err(error) = self.close().await
        {
            self.tell(&error);
        }
    }

    /// Lets nobody in, unless another run has heard something.
    async fn close(&mut self) -> Result<()> {
        let _lock = store::lock(self.store, std::time::Instant::now() + LOCK_PATIENCE).await?;
        if let Ok(Some(heard)) = Heard::read(self.store) {
            self.heard = Some(heard.at);
        }
        if self.closes_in() != Some(Duration::ZERO) {
            self.closed = false;
            return Ok(());
        }
        // Whoever opens it meanwhile may fall silent too.
        self.not_before = Instant::now() + BEGINNING;
        let mut done = Refreshed::default();
        for closed in gate::close(self.store) {
            done.add(closed);
        }
        let was_closed = std::mem::replace(&mut self.closed, done.errors.is_empty());
        if self.closed && !was_closed {
            let age = self.heard.as_ref().and_then(|heard| heard.age(&Moment::now(&Clock::system())));
            terminal::log(&format!("warning: {}: nobody gets in until it is heard again", silent(age)));
        }
        self.changed(done, true);
        Ok(())
    }

    /// Says what is wrong, once until all is well again.
    fn tell(&mut self, error: &Error) {
        // Times and counts in it are others each time.
        let words: String = error.to_string().chars().filter(|c| !c.is_ascii_digit()).collect();
        if self.told.len() < MAX_TOLD && self.told.insert(words) {
            warn(error);
        }
    }
}

fn warn(error: &Error) {
    let hints: String = error.hints().iter().map(|hint| format!("\nhint: {hint}")).collect();
    terminal::log(&format!("warning: {error}{hints}"));
}
