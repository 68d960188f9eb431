//! `host watch`: the files of a folder follow the authority within a second, over one connection on which it states each
//! change. What is new in the KRL stands in the statement; whole lists are fetched at once for what operators revoke, and
//! seldom for what jobs give back.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::pin::Pin;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::fetch::{Fetched, Fetcher, RefreshSettings, STATEMENT_PATH};
use super::gate;
use super::heard::{Current, Heard, InPlace, Moment, behind, silent};
use super::link::{self, Said, Shared};
use super::lists::{CRL, KRL, MAX_FILE, useless};
use super::reload::{Reload, SELDOM};
use super::round::{ATTEMPTS, Believed, LOCK_PATIENCE, Refreshed, Round};
use super::seen::collected;
use super::statement::number_of;
use super::store::{self, HOST_CA, KNOWN_HOSTS, TLS_CA, USER_CA};
use crate::clock::Clock;
use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::Folder;
use crate::folder::stamp::Stamp;
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
/// For longer nobody waits.
const CENTURY: Duration = Duration::from_secs(100 * 366 * 86_400);
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
        // Nothing that the network may hold up is waited for in between.
        tokio::select! {
            never = &mut link => match never {},
            never = &mut naming => match never {},
            Some(line) = lines.recv() => watcher.take(line).await,
            lists = arrived(&mut watcher.fetching) => watcher.arrived(lists).await,
            failed = watcher.reload.step() => watcher.reloaded(failed),
            () = sleep_until(due) => {}
        }
        // Also where something comes all the time.
        watcher.do_what_is_due().await;
    }
}

/// Lists on their way, if any are.
type Fetching<'w> = Option<Pin<Box<dyn Future<Output = Arrived> + 'w>>>;

/// Waits for them.
async fn arrived(fetching: &mut Fetching<'_>) -> Arrived {
    let Some(on_their_way) = fetching else { return std::future::pending().await };
    let arrived = on_their_way.await;
    *fetching = None;
    arrived
}

/// What was fetched of lists.
struct Arrived {
    /// What was told when that began; or what was asked for since, and whether who said it was verified by the given options.
    told: Believed,
    asked: Option<Result<(Option<String>, bool)>>,
    lists: Fetched,
    /// Whether the KRL was to lose what is over.
    is_anew: bool,
    /// When certificates end that were revoked before that began; nothing where some may be missing.
    ends: Option<BTreeMap<u64, i64>>,
    proven: Option<Result<()>>,
}

/// Says again and again which host this is: its certificate may be another by now, or believed by now. At once where what
/// it has is another thing by now.
async fn name_again(fetcher: &Fetcher<'_>, shared: &Shared) -> Infallible {
    loop {
        let _ = timeout(NAMED_EVERY, shared.has_changed.notified()).await;
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
    /// Files of servers that are told of them, as they were then; and what was urgent that they have.
    reloaded: ([Option<Stamp>; 5], u64),
    /// The last that was believed by this process.
    told: Option<Believed>,
    /// Those that came while lists were on their way: they may follow them.
    missed: Vec<Believed>,
    /// When certificates end that were revoked since the last CRL; nothing where some may be missing.
    ends: Option<BTreeMap<u64, i64>>,
    /// When lists are to be fetched.
    fetch: Option<Instant>,
    fetching: Fetching<'w>,
    /// What was urgent when that began.
    tried: u64,
    /// How often in a row lists came that are of another statement.
    overtaken: usize,
    /// Whether the last fetch has failed.
    is_behind: bool,
    /// When they were last.
    fetched: Option<Instant>,
    /// When the KRL was, whole.
    anew: Option<Instant>,
    backoff: Backoff,
    /// It is not looked before whether nobody is to get in.
    not_before: Instant,
    lists: InPlace,
    /// Where nobody gets in, whether that is so by SSH too.
    closed: Option<bool>,
    /// Whether the authority did not believe which host this is, the last time.
    is_unproven: bool,
    complaints: BTreeSet<String>,
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
        shared.since.set(krl.map(|heard| heard.lists.krl.number));
        let after = settings.fail_closed.unwrap_or_default().min(CENTURY);
        Self {
            settings,
            fetcher,
            store,
            shared,
            reload: Reload::new(settings.reload.clone()),
            reloaded: ([None; 5], 0),
            told: None,
            missed: Vec::new(),
            ends: None,
            fetch: None,
            fetching: None,
            tried: 0,
            overtaken: 0,
            is_behind: false,
            fetched: None,
            anew: None,
            backoff: Backoff::new(PAUSES.0, PAUSES.1),
            not_before: Instant::now() + if heard.is_some() { BEGINNING.min(after) } else { after },
            lists: heard.map(|heard| heard.lists).unwrap_or_default(),
            closed: None,
            is_unproven: false,
            complaints: BTreeSet::new(),
        }
    }

    fn round(&self) -> impl Future<Output = Result<Round<'w>>> + use<'w> {
        let settings = &self.settings.refresh;
        Round::begin(settings, self.store, std::time::Instant::now() + settings.timeout)
    }

    /// Takes what the connection brings.
    async fn take(&mut self, line: Result<Said>) {
        let taken = match line {
            // What was not taken is to be said again.
            Ok(said) => self.hear(&said).await.inspect_err(|_| self.shared.refused.notify_one()),
            Err(error) => Err(error),
        };
        match taken {
            Ok(true) => self.complaints.clear(),
            Ok(false) => {}
            Err(error) => self.tell(&error),
        }
    }

    /// Whether all is as it should be.
    async fn hear(&mut self, (jws, by_given): &Said) -> Result<bool> {
        let mut round = self.round().await?;
        let trusted = round.trust();
        let told = round.hear(jws, *by_given)?;
        let is_current = round.step(&told);
        let is_settled = self.told.is_some() && trusted == round.trust();
        let is_good = self.end(round, is_current.then_some(told.statement.number), told.statement.urgent);
        if !is_current && self.fetching.is_some() {
            self.missed.push(told.clone());
        }
        self.learn(&told.statement);
        self.told = Some(told);
        self.plan(!is_settled || self.closed.is_some() && !self.is_behind);
        Ok(is_good && !self.is_behind)
    }

    /// Ends a round in which it was heard what is `urgent`, and after which the KRL is of the number `krl`; whether it went well.
    fn end(&mut self, round: Round<'_>, krl: Option<u64>, urgent: u64) -> bool {
        self.shared.since.set(krl);
        self.lists = round.heard.as_ref().map(|heard| heard.lists.clone()).unwrap_or_default();
        let done = round.end();
        let is_good = done.errors.is_empty();
        let now = self.closed.is_some() || urgent > self.reloaded.1;
        self.changed(done, now);
        if self.lists.crl.number >= urgent && urgent > self.reloaded.1 {
            self.reloaded.1 = urgent;
            // Operators look for that, also where no file is another for it.
            self.shared.has_changed.notify_one();
        }
        let [ssh, tls] = self.left().map(|left| left > Duration::ZERO);
        self.closed = match self.closed {
            Some(true) if ssh => Some(false),
            closed => closed,
        };
        if self.closed.is_some() && tls {
            self.closed = None;
            terminal::log("the authority is heard again: who may, gets in");
        }
        is_good
    }

    /// Collects when what is new ends, where nothing is missing between this one and the last, nor too much is there.
    fn learn(&mut self, statement: &Statement) {
        let last = self.told.as_ref().map(|last| last.statement.number);
        let follows = last == Some(statement.number) || last.is_some() && statement.since == last;
        let new = statement.revoked.iter().map(|revoked| (revoked.serial, revoked.expires));
        self.ends = collected(self.ends.take().filter(|_| follows), new);
    }

    /// Sets when lists are to be fetched, where they are not on their way.
    fn plan(&mut self, at_once: bool) {
        let Some(Statement { number, urgent, .. }) = self.told.as_ref().map(|told| &told.statement) else {
            return;
        };
        let (crl, is_current) = (self.lists.crl.number, self.shared.since.get() >= Some(*number));
        // What fails is not tried more often for what comes meanwhile, but for what operators revoke.
        let waits = self.is_behind && self.fetch.is_some() && *urgent <= self.tried && !at_once;
        if self.fetching.is_some() || waits {
            return;
        }
        if at_once || !is_current || *urgent > crl {
            self.fetch = Some(Instant::now());
        } else if crl < *number && self.fetch.is_none() {
            self.fetch = self.fetched.map(|last| last + SELDOM).or_else(|| Some(Instant::now()));
        }
    }

    /// Begins to fetch what the last statement is about.
    fn begin_fetch(&mut self) -> Result<()> {
        self.fetch = None;
        let Some(told) = self.told.clone() else { return Ok(()) };
        let fetcher = self.fetcher.again()?;
        let is_anew = self.anew.is_none_or(|last| last.elapsed() >= ANEW);
        let is_current = self.shared.since.get() >= Some(told.statement.number);
        let (krl, is_late) = (is_anew || !is_current, self.overtaken > 0);
        self.tried = told.statement.urgent;
        let ends = self.ends.replace(BTreeMap::new());
        self.missed.clear();
        self.fetching = Some(Box::pin(async move {
            let asked = match is_late {
                true => Some(fetcher.statement().await.map(|jws| (jws, fetcher.is_by_given()))),
                false => None,
            };
            let number = match &asked {
                None => Some(told.statement.number),
                Some(asked) => asked.as_ref().ok().and_then(|(jws, _)| number_of(jws.as_deref()?)),
            };
            let ends_known = ends.clone().filter(|_| !is_late);
            let lists = fetcher.lists(number, krl, &told.statement.crls, ends_known).await;
            let proven = fetcher.proven.take();
            Arrived { told, asked, lists, is_anew, ends, proven }
        }));
        Ok(())
    }

    /// Takes what has arrived.
    async fn arrived(&mut self, arrived: Arrived) {
        let (is_anew, ends) = (arrived.is_anew, arrived.ends.clone());
        let put = self.put(arrived).await;
        self.is_behind = !matches!(put, Ok(true));
        if let Ok(true) = put {
            self.backoff = Backoff::new(PAUSES.0, PAUSES.1);
            self.fetched = Some(Instant::now());
            if is_anew {
                self.anew = self.fetched;
            }
            self.plan(false);
            return;
        }
        self.ends = self.ends.take().and_then(|since| collected(ends, since));
        // Of replicas one may be late by a moment.
        let pause = if self.overtaken == 1 { Duration::ZERO } else { self.backoff.pause() };
        self.fetch = Some(Instant::now() + pause);
        if let Err(error) = put {
            self.tell(&error);
        }
    }

    /// Whether all is as it should be.
    async fn put(&mut self, arrived: Arrived) -> Result<bool> {
        let Arrived { mut told, asked, lists, proven, .. } = arrived;
        self.heard_of_proof(proven);
        let mut round = self.round().await?;
        if let Some((jws, by_given)) = asked.transpose()? {
            let gone = || useless(STATEMENT_PATH, "it is not there any more");
            told = round.hear(&jws.ok_or_else(gone)?, by_given)?;
        }
        let cas = round.trust();
        round.put(Some(&told), Ok(cas), lists);
        for missed in std::mem::take(&mut self.missed) {
            round.step(&missed);
        }
        let overtaken = std::mem::take(&mut round.overtaken);
        self.overtaken = if overtaken.is_empty() { 0 } else { self.overtaken + 1 };
        let is_right = overtaken.is_empty();
        if self.overtaken >= ATTEMPTS {
            round.done.join(Refreshed { errors: overtaken, ..Refreshed::default() });
        }
        let krl = round.krl().and(round.heard.as_ref()).map(|heard| heard.lists.krl.number);
        if !round.done.changed.is_empty() {
            self.shared.has_changed.notify_one();
        }
        let is_good = self.end(round, krl, told.statement.urgent);
        Ok(is_good && is_right)
    }

    fn heard_of_proof(&mut self, proven: Option<Result<()>>) {
        let Some(proven) = proven else { return };
        let was_unproven = std::mem::replace(&mut self.is_unproven, proven.is_err());
        // Once until it is believed again: lists are there all the same.
        proven.err().filter(|_| !was_unproven).iter().for_each(warn);
    }

    /// What follows from files that have changed: each is named on stdout, and servers are told, but for the KRL, which `sshd`
    /// reads at each login. By the files, since another run may have put them there, or this one ended before it came to it.
    fn changed(&mut self, done: Refreshed, now: bool) {
        for error in &done.errors {
            self.tell(error);
        }
        let files = [CRL, TLS_CA, USER_CA, HOST_CA, KNOWN_HOSTS];
        let files = files.map(|name| Stamp::of(&self.store.path().join(name)));
        let before = std::mem::replace(&mut self.reloaded.0, files);
        if before != files {
            // What somebody is to be let in or kept out by for good does not wait.
            let ([_, before @ ..], [_, after @ ..]) = (before, files);
            self.reload.want(now || before != after);
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
        let look = Duration::from_secs(HEARTBEAT).min(self.closes_in().map_or(Duration::MAX, |[_, tls]| tls));
        let look = Instant::now() + look.max(Duration::from_millis(100));
        self.fetch.filter(|_| self.fetching.is_none()).map_or(look, |fetch| fetch.min(look))
    }

    /// In what time nobody is let in any more, where that is so: by SSH, and by TLS.
    fn closes_in(&self) -> Option<[Duration; 2]> {
        self.settings.fail_closed?;
        let beginning = self.not_before.saturating_duration_since(Instant::now());
        Some(self.left().map(|left| left.max(beginning)))
    }

    /// How long what is in place is good for.
    fn left(&self) -> [Duration; 2] {
        let after = self.settings.fail_closed.unwrap_or(Duration::MAX);
        let now = Moment::now(&Clock::system());
        // What was never heard, or is of a clock that was put back, is as old as can be.
        let left =
            |list: &Current, after: Duration| after.saturating_sub(list.age(&now).unwrap_or(Duration::MAX));
        let ssh = left(&self.lists.krl, after);
        // What jobs give back may be on its way for so long.
        [ssh, left(&self.lists.crl, after.saturating_add(SELDOM)).min(ssh)]
    }

    async fn do_what_is_due(&mut self) {
        self.heard_of_proof(self.shared.proven.take());
        if self.fetching.is_none()
            && self.fetch.is_some_and(|due| due <= Instant::now())
            && let Err(error) = self.begin_fetch()
        {
            self.fetch = Some(Instant::now() + self.backoff.pause());
            self.tell(&error);
        }
        if self.closes_in().is_some_and(|[_, tls]| tls == Duration::ZERO)
            && let Err(error) = self.close().await
        {
            self.tell(&error);
        }
    }

    /// Lets nobody in, unless another run has heard something.
    async fn close(&mut self) -> Result<()> {
        let _lock = store::lock(self.store, std::time::Instant::now() + LOCK_PATIENCE).await?;
        if let Ok(Some(heard)) = Heard::read(self.store) {
            self.lists = heard.lists;
        }
        let closes = self.closes_in().map(|left| left.map(|left| left == Duration::ZERO));
        let Some([ssh, true]) = closes else {
            self.closed = None;
            return Ok(());
        };
        // Whoever opens it meanwhile may fall silent too.
        self.not_before = Instant::now() + BEGINNING;
        let mut done = Refreshed::default();
        for closed in gate::close(self.store, ssh) {
            done.add(closed);
        }
        let closed = done.errors.is_empty().then_some(ssh);
        if closed.is_some() && closed != self.closed {
            let [krl, crl] =
                [&self.lists.krl, &self.lists.crl].map(|list| list.age(&Moment::now(&Clock::system())));
            terminal::log(&match ssh {
                true => format!("warning: {}: nobody gets in until it is heard again", silent(krl)),
                false => format!("warning: {}: nobody gets in by TLS until it can be fetched", behind(crl)),
            });
        }
        self.closed = closed;
        self.changed(done, true);
        Ok(())
    }

    /// Says what is wrong, once until all is well again.
    fn tell(&mut self, error: &Error) {
        // Times and counts in it are others each time.
        let words: String = error.to_string().chars().filter(|c| !c.is_ascii_digit()).collect();
        if self.complaints.len() < MAX_TOLD && self.complaints.insert(words) {
            warn(error);
        }
    }
}

fn warn(error: &Error) {
    let hints: String = error.hints().iter().map(|hint| format!("\nhint: {hint}")).collect();
    terminal::log(&format!("warning: {error}{hints}"));
}
