//! Issuers' key sets: discovered, cached, refreshed in the background, and
//! bounded in size and time.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use serde_json::Value;
use tokio::sync::{Semaphore, watch};

use crate::clock::Clock;
use crate::net::{self, AuthorityTrust, RequestError};
use crate::random;
use crate::text::shown_exactly;

mod key_set;

pub use key_set::KeySet;

/// Keys older than this are fetched anew while the old ones serve.
const REFRESH_AFTER: Duration = Duration::from_secs(600);
/// Keys older than this serve only where a refresh was tried first: a key that
/// was withdrawn while nobody came is not believed once more.
const AWAIT_AFTER: Duration = Duration::from_secs(3600);
/// Keys older than this serve no more: an issuer that withdrew a key is believed within a day.
const SERVE_AT_MOST: Duration = Duration::from_secs(24 * 3600);
/// An issuer is asked at most once in this time, whatever tokens name.
const COOL_DOWN: Duration = Duration::from_secs(10);
/// How long one fetch may take, discovery included.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_DISCOVERY: usize = 64 << 10;
const MAX_KEY_SET: usize = 256 << 10;
/// Requests that may wait for one issuer at once. Each holds a connection to
/// the authority for as long, which jobs of other issuers need too.
const MAX_WAITING: usize = 128;
/// The same for all issuers together: one dead proxy stands before many.
const MAX_WAITING_IN_ALL: usize = 1024;
/// Tokens of one issuer that are remembered to have come with a key that it did not have.
const MAX_CAME: usize = 256;
/// The longest that a job is asked to wait beyond the cool-down, in seconds: those that came together do not come
/// back together.
const MAX_JITTER: u64 = 2;

/// Every issuer's keys. Only issuers that a join token names are ever asked.
#[derive(Debug)]
pub struct Issuers {
    client: reqwest::Client,
    clock: Clock,
    issuers: Mutex<HashMap<Asked, Arc<CachedIssuer>>>,
    waiting: Semaphore,
}

/// An issuer's URL, and the pins of its CA where it has some.
type Asked = (String, Option<String>);

/// Why it cannot be told whether a proof is good, which is no refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable {
    /// For the log.
    pub why: String,
    /// After how many seconds it may be told.
    pub retry_after: u64,
}

/// One issuer's cache.
#[derive(Debug)]
struct CachedIssuer {
    /// Who asks it.
    client: reqwest::Client,
    state: Mutex<CacheState>,
    waiting: Semaphore,
}

#[derive(Debug, Default)]
struct CacheState {
    /// With when they were asked for: what the issuer has published since is not among them.
    keys: Option<(Arc<KeySet>, Instant)>,
    asked: Option<Instant>,
    /// The question under way, if any: it ends when its sender goes.
    answer: Option<watch::Receiver<()>>,
    /// Why the last answer was none; nothing where it was one.
    failure: Option<String>,
    /// When tokens first came whose key was not known, oldest first.
    came: VecDeque<(String, Instant)>,
}

impl CacheState {
    fn serving(&self, now: Instant) -> Option<(&Arc<KeySet>, Duration)> {
        let (keys, since) = self.keys.as_ref()?;
        Some((keys, now.saturating_duration_since(*since))).filter(|(_, age)| *age < SERVE_AT_MOST)
    }

    /// When this token first came, which is now unless it is remembered; from now on it is.
    fn came(&mut self, token: &str, now: Instant) -> Instant {
        if let Some((_, when)) = self.came.iter().find(|(came, _)| came == token) {
            return *when;
        }
        self.came.push_back((token.to_owned(), now));
        if self.came.len() > MAX_CAME {
            self.came.pop_front();
        }
        now
    }

    /// The keys, and whether they say all that there is to know for a token that came then: they were asked for since.
    fn known(&self, came: Instant, now: Instant) -> Option<(Arc<KeySet>, bool)> {
        let (keys, _) = self.serving(now)?;
        let asked_since = self.keys.as_ref().is_some_and(|(_, asked)| *asked >= came);
        Some((Arc::clone(keys), self.failure.is_none() && asked_since))
    }

    /// After how many seconds the issuer may be asked again, and a little more.
    fn retry_after(&self, now: Instant) -> u64 {
        let asked = self.asked.map_or(COOL_DOWN, |asked| now.saturating_duration_since(asked));
        let left = COOL_DOWN.saturating_sub(asked).as_secs().saturating_add(1);
        left.saturating_add(random::bytes().map_or(0, |[chance]| u64::from(chance) % (MAX_JITTER + 1)))
    }
}

impl Issuers {
    /// With the client that asks them, and what tells how old their answers are.
    pub fn new(client: reqwest::Client, clock: Clock) -> Self {
        let waiting = Semaphore::new(MAX_WAITING_IN_ALL);
        Self { client, clock, issuers: Mutex::default(), waiting }
    }

    /// The client that asks them, for methods that ask something else.
    pub fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// The keys of the issuer with that URL and the pins of its CA, if it has some, with the one that is wanted if the issuer
    /// has it; `token` names the token that is signed with it.
    ///
    /// # Errors
    /// Where that cannot be told: the keys that there are do not have it, or are too old, and the issuer
    /// did not answer when last asked, or was last asked before that token came and may have the key since; or
    /// too many wait for its answer already.
    pub async fn keys(
        &self,
        (url, pins): (&str, Option<&str>),
        token: &str,
        has_it: &(dyn Fn(&KeySet) -> bool + Sync),
    ) -> Result<Arc<KeySet>, Unavailable> {
        let issuer = self.issuer(url, pins)?;
        let fresh = issuer.state().serving(self.clock.instant()).map(|(keys, age)| (Arc::clone(keys), age));
        if let Some((keys, age)) = fresh
            && age < AWAIT_AFTER
            && has_it(&keys)
        {
            if age > REFRESH_AFTER {
                drop(self.ask(&issuer, url));
            }
            return Ok(keys);
        }
        let came = issuer.state().came(token, self.clock.instant());
        let unavailable = |why: &str| Unavailable {
            why: format!("the keys of {url} cannot be had: {why}"),
            retry_after: issuer.state().retry_after(self.clock.instant()),
        };
        if let Some(mut answer) = self.ask(&issuer, url) {
            let (Ok(_of_this), Ok(_of_all)) = (issuer.waiting.try_acquire(), self.waiting.try_acquire())
            else {
                return Err(unavailable("too many requests wait for its answer"));
            };
            // Nothing is ever sent: it ends when the question has.
            let _ = answer.changed().await;
        }
        let (known, failure) = {
            let state = issuer.state();
            (state.known(came, self.clock.instant()), state.failure.clone())
        };
        let why = || "the token's is not among them, and came later than they".to_owned();
        match known {
            Some((keys, is_all)) if is_all || has_it(&keys) => Ok(keys),
            _ => Err(unavailable(&failure.unwrap_or_else(why))),
        }
    }

    fn issuer(&self, url: &str, pins: Option<&str>) -> Result<Arc<CachedIssuer>, Unavailable> {
        let mut issuers = self.issuers.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (url.to_owned(), pins.map(str::to_owned));
        if let Some(issuer) = issuers.get(&key) {
            return Ok(Arc::clone(issuer));
        }
        let client = pins.map_or_else(|| Ok(self.client.clone()), |pins| pinned(url, pins));
        let client = client.map_err(|why| Unavailable { why, retry_after: COOL_DOWN.as_secs() })?;
        let issuer = Arc::new(CachedIssuer::new(client));
        issuers.insert(key, Arc::clone(&issuer));
        Ok(issuer)
    }

    /// The question under way, or a new one unless the issuer was just asked.
    /// It is asked in a task of its own: whoever waits may hang up, and the
    /// answer is for everybody. Otherwise a stranger could start the cool-down
    /// and take the question away. The cool-down starts before the answer, so
    /// that a slow or dead issuer is not asked more often.
    fn ask(&self, issuer: &Arc<CachedIssuer>, url: &str) -> Option<watch::Receiver<()>> {
        let (asking, answer) = watch::channel(());
        let asked = self.clock.instant();
        {
            let mut state = issuer.state();
            if let Some(answer) = state.answer.as_ref().filter(|answer| answer.has_changed().is_ok()) {
                return Some(answer.clone());
            }
            if state.asked.is_some_and(|last| asked.saturating_duration_since(last) < COOL_DOWN) {
                return None;
            }
            state.asked = Some(asked);
            state.answer = Some(answer.clone());
        }
        let (client, url, issuer) = (issuer.client.clone(), url.to_owned(), Arc::clone(issuer));
        tokio::spawn(async move {
            let fetched = tokio::time::timeout(FETCH_TIMEOUT, fetch(&client, &url)).await;
            let keys = fetched.unwrap_or_else(|_| Err("no answer in time".to_owned())).map(|(keys, _)| keys);
            issuer.learn(asked, keys);
            drop(asking);
        });
        Some(answer)
    }
}

/// A client for the issuer of that URL alone, which believes the CAs with these pins.
///
/// # Errors
/// Why there is none, for a person.
pub fn pinned(url: &str, pins: &str) -> Result<reqwest::Client, String> {
    let trust = AuthorityTrust::new(None, Some(pins));
    net::authority_client(&trust, url, Duration::ZERO).map_err(|error| error.to_string())
}

impl CachedIssuer {
    fn new(client: reqwest::Client) -> Self {
        Self { client, state: Mutex::default(), waiting: Semaphore::new(MAX_WAITING) }
    }

    fn state(&self) -> MutexGuard<'_, CacheState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn learn(&self, asked: Instant, fetched: Result<KeySet, String>) {
        let mut state = self.state();
        match fetched {
            Ok(keys) => (state.keys, state.failure) = (Some((Arc::new(keys), asked)), None),
            // The old keys serve on.
            Err(why) => state.failure = Some(why),
        }
    }
}

/// Whether an issuer gives its keys now, and what time it says that it is, in seconds since 1970.
///
/// # Errors
/// Why it gives none, for a person.
pub async fn probe(client: &reqwest::Client, issuer: &str) -> Result<Option<i64>, String> {
    let fetched = tokio::time::timeout(FETCH_TIMEOUT, fetch(client, issuer)).await;
    fetched.unwrap_or_else(|_| Err("no answer in time".to_owned())).map(|(_, date)| date)
}

/// OpenID Connect Discovery 1.0, section 4, then the key set; with the time that stands on the first answer.
async fn fetch(client: &reqwest::Client, issuer: &str) -> Result<(KeySet, Option<i64>), String> {
    let discovery = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let (document, date) = get(client, &discovery, MAX_DISCOVERY).await?;
    let document: Value =
        serde_json::from_slice(&document).map_err(|error| format!("{discovery} is not JSON: {error}"))?;
    let named = document.get("issuer").and_then(Value::as_str).unwrap_or_default();
    if named != issuer {
        return Err(format!("{discovery} is of another issuer: `{}`", shown_exactly(named)));
    }
    let jwks = document.get("jwks_uri").and_then(Value::as_str).ok_or("the discovery has no `jwks_uri`")?;
    if !jwks.starts_with("https://") {
        return Err("the discovery's `jwks_uri` is not https".to_owned());
    }
    let (keys, _) = get(client, jwks, MAX_KEY_SET).await?;
    KeySet::parse(&keys).map(|keys| (keys, date)).map_err(|why| format!("{jwks}: {why}"))
}

async fn get(client: &reqwest::Client, url: &str, limit: usize) -> Result<(Vec<u8>, Option<i64>), String> {
    let said = |why: RequestError| match why {
        RequestError::Untrusted(_) => {
            format!(
                "{url}: {why}; a CA that this machine does not know belongs into `issuer_ca_file` of authority.yaml, or \
                 by its pin into `ca_pin` of the trusted cluster"
            )
        }
        why => format!("{url}: {why}"),
    };
    let response = net::send(client.get(url)).await.map_err(said)?;
    if response.status() != reqwest::StatusCode::OK {
        // A redirect too: nobody else speaks for an issuer.
        return Err(format!("{url}: status {}", response.status().as_u16()));
    }
    let date = response.headers().get(reqwest::header::DATE).and_then(|date| date.to_str().ok());
    let date = date.and_then(|date| httpdate::parse_http_date(date).ok()?.duration_since(UNIX_EPOCH).ok());
    let date = date.and_then(|since| i64::try_from(since.as_secs()).ok());
    Ok((net::body(response, limit).await.map_err(said)?, date))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An issuer that takes connections and says nothing.
    #[tokio::test]
    async fn one_question_for_all_who_wait_and_not_too_many_do() {
        crate::net::install_crypto();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let issuers = Arc::new(Issuers::new(client, Clock::system()));
        let mut jobs = tokio::task::JoinSet::new();
        for _ in 0..MAX_WAITING + 50 {
            let (issuers, url) = (Arc::clone(&issuers), url.clone());
            jobs.spawn(async move {
                issuers.keys((&url, None), "token", &|keys| keys.has("kid")).await.unwrap_err().why
            });
        }
        let (silent, _) = listener.accept().await.unwrap();
        for _ in 0..50 {
            let why = jobs.join_next().await.unwrap().unwrap();
            assert!(why.ends_with("too many requests wait for its answer"), "{why}");
        }
        assert_eq!(issuers.waiting.available_permits(), MAX_WAITING_IN_ALL - MAX_WAITING);
        drop(silent);
        let answers = jobs.join_all().await;
        assert!(answers.len() == MAX_WAITING && answers.iter().all(|why| *why == answers[0]), "{answers:?}");
        assert_eq!(issuers.waiting.available_permits(), MAX_WAITING_IN_ALL);
        let asked_again = tokio::time::timeout(Duration::from_millis(100), listener.accept()).await;
        assert!(asked_again.is_err(), "asked more than once");
    }
}
