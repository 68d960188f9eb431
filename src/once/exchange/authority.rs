//! Asking an authority, the one that a job joins or a leaf's: one request, again while that can help.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::time::{Duration, Instant};

use reqwest::header::{CONTENT_TYPE, DATE, HeaderMap};

use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::join::method::Method;
use crate::net::{self, AuthorityTrust, RequestError};
use crate::once::exchange::refusal::Refusal;
use crate::retry::{self, Attempts, Verdict, parse_http_date};
use crate::suite::Suite;
use crate::terminal::Progress;
use crate::wire::{ExchangeResponse, Problem, SUITE_HEADER};

/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 1 << 20;

/// That the authority has another suite than the one by which keys were made that nobody chose.
#[derive(Debug)]
pub(crate) struct OtherSuite(pub Suite);

impl fmt::Display for OtherSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the authority's suite is `{}`", self.0.name())
    }
}

/// Where an authority is, and how it is reached.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The leaf cluster whose it is; none for the one that the job joins.
    pub leaf: Option<String>,
    pub url: String,
    pub trust: AuthorityTrust,
    /// For it alone; its connections are kept.
    pub client: reqwest::Client,
}

/// An authority, and what it has told of itself.
pub(super) struct Authority<'a> {
    pub place: Place,
    progress: &'a Progress,
    pub clock: Clock,
    /// Its clock less ours, by its last answer.
    clock_offset: Cell<Option<i64>>,
    /// Its suite, once it has told it.
    suite: Cell<Option<Suite>>,
    /// Whether the request may have been accepted though there is no answer that says so.
    may_be_accepted: Cell<bool>,
    /// What its last refusal is known by.
    denial: RefCell<Option<String>>,
}

/// Who asks, for what is said of a refusal: see [`Refusal`].
#[derive(Clone, Copy, Default)]
pub(super) struct Asker<'q> {
    pub audience: Option<&'q str>,
    pub one_token: bool,
    pub method: Option<&'static Method>,
}

/// What is asked.
pub(super) struct Question<'q> {
    pub body: &'q [u8],
    /// The suite by which the keys were made, as long as they may be others.
    pub suite: Option<Suite>,
    pub asker: Asker<'q>,
}

impl<'a> Authority<'a> {
    pub(super) fn new(place: Place, progress: &'a Progress) -> Self {
        Self {
            place,
            progress,
            clock: Clock::system(),
            clock_offset: Cell::new(None),
            suite: Cell::new(None),
            may_be_accepted: Cell::new(false),
            denial: RefCell::new(None),
        }
    }

    /// Opens the connection that the request will use. Whether it works, the
    /// request itself will tell.
    pub(super) async fn open_connection(&self, deadline: Instant) {
        let Some(time) = Attempts::until(deadline).next() else { return };
        let Place { url, client, .. } = &self.place;
        match net::send(client.get(format!("{url}/healthz")).timeout(time)).await {
            // Only a connection whose answer was read is used again.
            Ok(response) => {
                self.note(response.headers());
                let _ = net::body(response, MAX_ANSWER).await;
                self.progress.step(&format!("connected to {url}"));
            }
            Err(error) => {
                self.progress.step(&format!("no connection yet to {url}: {error}"));
            }
        }
    }

    /// Its answer; nothing where the asker gives up, who is asked before each attempt but the first, and told how long
    /// that may take.
    pub(super) async fn post(
        &self,
        question: &Question<'_>,
        deadline: Instant,
        mut gives_up: impl AsyncFnMut(Duration) -> bool,
    ) -> Result<Option<ExchangeResponse>> {
        let mut attempts = Attempts::until(deadline);
        let mut last = None;
        self.may_be_accepted.set(false);
        while let Some(time) = attempts.next() {
            if last.is_some() && gives_up(time).await {
                return Ok(None);
            }
            let (error, verdict) = match self.attempt(question, time).await {
                Ok(response) => return Ok(Some(response)),
                Err(failed) => failed,
            };
            let Verdict::Again(at_least) = verdict else { return Err(error) };
            let Some(pause) = attempts.pause(at_least) else { return Err(error) };
            self.progress.line(&format!("{error}; trying again in {:.1} s", pause.as_secs_f64()));
            last = Some(error);
            tokio::time::sleep(pause).await;
        }
        Err(last.unwrap_or_else(|| self.unreachable(&RequestError::Timeout)))
    }

    async fn attempt(
        &self,
        question: &Question<'_>,
        time: Duration,
    ) -> Result<ExchangeResponse, (Error, Verdict)> {
        let Place { url, client, .. } = &self.place;
        self.progress.step(&format!("asking {url} for certificates"));
        let request = client
            .post(format!("{url}/v1/exchange"))
            .header(CONTENT_TYPE, "application/json")
            .body(question.body.to_vec())
            .timeout(time);
        let request = match question.suite {
            Some(suite) => request.header(SUITE_HEADER, suite.name()),
            None => request,
        };
        let before = self.may_be_accepted.replace(true);
        let failed = |why: RequestError| {
            // Without a connection nothing was sent.
            if matches!(
                why,
                RequestError::Connect(_) | RequestError::Untrusted(_) | RequestError::Proxy { .. }
            ) {
                self.may_be_accepted.set(before);
            }
            (self.unreachable(&why), retry::of_error(&why))
        };
        let response = net::send(request).await.map_err(failed)?;
        self.note(response.headers());
        let (status, now) = (response.status().as_u16(), self.clock.now());
        let verdict = retry::of_answer(status, response.headers(), now);
        let body = net::body(response, MAX_ANSWER).await.map_err(failed)?;
        if status == 200 {
            // The parser's words may repeat what was sent, which is none of a log's business.
            let why = RequestError::Other("its answer is not one of an authority".to_owned());
            return serde_json::from_slice(&body).map_err(|_| (self.unreachable(&why), Verdict::Final));
        }
        let problem = serde_json::from_slice::<Problem>(&body).ok();
        // The authority itself says no: unless it gave up waiting, nothing was recorded.
        if problem.as_ref().is_some_and(|problem| problem.is_ours() && !problem.is("timeout")) {
            self.may_be_accepted.set(before);
        }
        if problem.as_ref().is_some_and(|problem| problem.is("other-suite")) {
            self.check_suite(question.suite).map_err(|other| (other, Verdict::Final))?;
        }
        self.denial.replace(problem.as_ref().and_then(|problem| problem.denial_id.clone()));
        let refusal = Refusal {
            authority: url,
            status,
            problem: problem.as_ref(),
            date: self.time(),
            now,
            audience: question.asker.audience,
            one_token: question.asker.one_token,
            method: question.asker.method,
        };
        let error = if verdict == Verdict::Final { refusal.error() } else { refusal.trouble() };
        Err((error, verdict))
    }

    fn unreachable(&self, why: &RequestError) -> Error {
        let Place { leaf, url, trust, .. } = &self.place;
        match leaf {
            None => net::unreachable(url, why, trust, self.clock.now()),
            Some(_) => Error::new(Kind::Unreachable, why.to_string()).context(format!("cannot reach {url}")).hint(
                "where a leaf cluster is, and by which `ca_pin` it is trusted, is in the authority's policy (`leaf_cluster`), or in `leaves` of --config",
            ),
        }
    }

    /// Whether its suite is that of the keys, where it is to be.
    pub(super) fn check_suite(&self, of_keys: Option<Suite>) -> Result<()> {
        match self.suite.get() {
            Some(told) if of_keys.is_some_and(|own| own != told) => {
                Err(Error::new(Kind::Unreachable, OtherSuite(told)))
            }
            _ => Ok(()),
        }
    }

    /// What an answer's head tells of the authority: its clock, and its suite.
    fn note(&self, headers: &HeaderMap) {
        let suite = headers.get(SUITE_HEADER).and_then(|name| Suite::named(name.to_str().ok()?));
        self.suite.set(suite.or(self.suite.get()));
        let date = headers.get(DATE).and_then(|date| parse_http_date(date.to_str().ok()?));
        self.clock_offset.set(date.map(|date| date - self.clock.now()).or(self.clock_offset.get()));
    }

    /// What its clock says.
    pub(super) fn time(&self) -> Option<i64> {
        Some(self.clock.now() + self.clock_offset.get()?)
    }

    /// Whether the last request may have been accepted though there is no answer that says so.
    pub(super) fn may_have_accepted(&self) -> bool {
        self.may_be_accepted.get()
    }

    /// What its last refusal is known by.
    pub(super) fn denial(&self) -> Option<String> {
        self.denial.borrow().clone()
    }
}
