//! One exchange: a proof from the platform and a connection to the authority
//! at the same time, then the request, again while that can help.
//!
//! Which keys a job is to have, where nobody says, the authority's suite tells, and the proof may be bound to them. So they are
//! made by the usual suite first; an authority of another says so as the connection is opened, while the platform is at
//! work, or else refuses them before it looks at the proof. Others are made then.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::time::{Duration, Instant};

use reqwest::header::{CONTENT_TYPE, DATE, HeaderMap};

use crate::clock::Clock;
use crate::error::{Context as _, Error, Kind, Result};
use crate::join::prove::{Job, Presented, Storage};
use crate::join::source::TokenSource;
use crate::net::{self, Platform, RequestError};
use crate::once::exchange::check::{Issuance, check};
use crate::once::exchange::keys::JobKeys;
use crate::once::exchange::refusal::Refusal;
use crate::once::run::Run;
use crate::once::settings::output::Output;
use crate::retry::{self, Attempts, Verdict, parse_http_date};
use crate::suite::Suite;
use crate::text::shown_long;
use crate::wire::{
    ExchangeRequest, ExchangeResponse, OutputRequest, Problem, Proof, SUITE_HEADER, SshRequest, TlsRequest,
    binding, bound_audience,
};

pub(crate) mod check;
pub mod keys;
pub(crate) mod refusal;

/// How long a connection to the authority is waited for once the proof is
/// there. The request makes its own where that one hangs.
const WARM: Duration = Duration::from_secs(2);

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

/// Everything that exchanges of one run share.
pub(crate) struct Exchanger<'a> {
    run: Run<'a>,
    clock: Clock,
    audience: String,
    /// The authority's clock less ours, by its last answer.
    clock_offset: Cell<Option<i64>>,
    /// The authority's suite, once it has told it.
    suite: Cell<Option<Suite>>,
    /// The hash of the last token that was handed over.
    handed: Cell<Option<[u8; 32]>>,
    /// The last issuance.
    issued: RefCell<Option<String>>,
    /// Whether the request may have been accepted though there is no answer that says so.
    may_be_accepted: Cell<bool>,
}

impl<'a> Exchanger<'a> {
    pub(crate) fn new(run: Run<'a>) -> Self {
        let bound: Vec<_> = run.keys.iter().map(JobKeys::bound).collect();
        Self {
            run,
            clock: Clock::system(),
            audience: bound_audience(&run.settings.authority, &binding(&bound, &[])),
            clock_offset: Cell::new(None),
            suite: Cell::new(None),
            handed: Cell::new(None),
            issued: RefCell::new(None),
            may_be_accepted: Cell::new(false),
        }
    }

    /// Gets certificates before the deadline.
    ///
    /// # Errors
    /// Among others [`OtherSuite`], and nothing is used up then.
    pub(crate) async fn exchange(&self, deadline: Instant) -> Result<Issuance> {
        loop {
            if let Some(issuance) = self.with_one_proof(deadline).await? {
                return Ok(issuance);
            }
            self.run.progress.line("the proof has aged without an answer, and makes room for another");
        }
    }

    /// Gets certificates, or nothing where the proof is too old for another attempt and there may be a newer one.
    async fn with_one_proof(&self, deadline: Instant) -> Result<Option<Issuance>> {
        let progress = self.run.progress;
        let Presented { proof, lasts, settle } = self.proof(deadline).await?;
        let good_until = lasts.and_then(|lasts| Instant::now().checked_add(lasts));
        for signature in proof.0.values().filter_map(|value| signature_of(value.expose())) {
            progress.mask(signature);
        }
        let request = self.request(proof);
        // Not `serde_json::Value`, which would leave copies of the token behind.
        let body = zeroize::Zeroizing::new(
            serde_json::to_vec(&request).context(Kind::Internal, "cannot write the request")?,
        );
        drop(request);
        let answer = match self.post(&body, deadline, good_until).await {
            Ok(Some(answer)) => answer,
            unanswered => {
                if let Some(settle) = settle.filter(|_| !self.may_be_accepted.get())
                    && let Err(why) = settle(None)
                {
                    progress.step(&format!("what was not sent stays accounted for: {why}"));
                }
                return unanswered.map(|_| None);
            }
        };
        let issuance = check(answer, self.run.keys, &self.run.settings.authority)?;
        let tokens = issuance.response.outputs.iter().filter_map(|output| output.jwt.as_ref());
        for signature in tokens.filter_map(|token| signature_of(token.expose())) {
            progress.mask(signature);
        }
        let id = &issuance.response.issuance_id;
        // The authority answers a request that it knows as it did then: a lost reply is asked for again so.
        if self.issued.replace(Some(id.clone())).as_ref() == Some(id) {
            let cause = "the proof is the one of before, and buys the same certificates";
            return Err(Error::new(Kind::Proof, cause).hint("the platform gives this job no other just now"));
        }
        if let Some(settle) = settle {
            settle(Some(&issuance.response))?;
        }
        let clock_warning = refusal::clock_warning(self.authority_time(), self.clock.now());
        let warnings = issuance.response.warnings.iter().map(|warning| shown_long(warning));
        clock_warning.into_iter().chain(warnings).for_each(|warning| progress.warning(&warning));
        Ok(Some(issuance))
    }

    async fn proof(&self, deadline: Instant) -> Result<Presented> {
        let Run { settings, env, progress, .. } = self.run;
        if let Some(source) = &settings.source {
            let token = source.read(env, deadline).await?;
            self.handed.set(Some(TokenSource::fingerprint(&token)));
            return Ok(Presented::handed_over(token, self.authority_time().unwrap_or(self.clock.now())));
        }
        let method = settings.method;
        // Its connections go with it, and the token that they brought.
        let platform = Platform::default();
        let job = Job {
            env,
            authority: &settings.authority,
            join_token: &settings.token,
            storage: settings.storage.folder.as_ref().map(|folder| -> &dyn Storage { folder }),
            registration_secret: settings.storage.secret.as_ref(),
            audience: &self.audience,
            platform: &platform,
            deadline,
            say: &|text| progress.step(text),
            warn: &|text| progress.warning(text),
        };
        let prove = async {
            tokio::time::timeout_at(deadline.into(), (method.prove)(&job)).await.unwrap_or_else(|_| {
                let error = Error::new(Kind::Unreachable, "time is up")
                    .context(format!("{} gave no proof", method.name));
                Err(error.hint("--timeout waits longer"))
            })
        };
        tokio::pin!(prove);
        let warm = self.open_connection(deadline);
        tokio::pin!(warm);
        // A failed proof ends this at once; a good one waits for the connection,
        // which the request needs anyway. The platform is asked first, since it
        // takes longer: this side's half of the other handshake fits into its time.
        tokio::select! {
            biased;
            proof = &mut prove => {
                let proof = proof?;
                let _ = tokio::time::timeout(WARM, warm).await;
                // What is accounted for is refused by the authority, and taken back.
                if proof.settle.is_none() {
                    self.check_suite()?;
                }
                Ok(proof)
            }
            () = &mut warm => {
                // No use in waiting for one that is bound to other keys.
                self.check_suite()?;
                prove.await
            }
        }
    }

    /// Whether the platform can give this job another proof later; if not, why, in words that follow "cannot renew: ".
    pub(crate) fn renews(&self) -> Result<(), String> {
        let Run { settings, env, .. } = self.run;
        settings.source.as_ref().map_or_else(|| (settings.method.renews)(env), TokenSource::renews)
    }

    /// Whether another exchange would have another proof: a token that was
    /// handed over in a file may still be the one that was used.
    pub(crate) async fn has_another_proof(&self) -> bool {
        let Some(source) = &self.run.settings.source else { return true };
        let token = source.read(self.run.env, Instant::now()).await;
        token.is_ok_and(|token| self.handed.get() != Some(TokenSource::fingerprint(&token)))
    }

    /// Opens the connection that the request will use. Whether it works, the
    /// request itself will tell.
    async fn open_connection(&self, deadline: Instant) {
        let Run { settings, progress, client, .. } = self.run;
        let Some(time) = Attempts::until(deadline).next() else { return };
        let authority = &settings.authority;
        match net::send(client.get(format!("{authority}/healthz")).timeout(time)).await {
            // Only a connection whose answer was read is used again.
            Ok(response) => {
                self.note(response.headers());
                let _ = net::body(response, MAX_ANSWER).await;
                progress.step(&format!("connected to {authority}"));
            }
            Err(error) => {
                progress.step(&format!("no connection yet to {authority}: {error}"));
            }
        }
    }

    fn request(&self, proof: Proof) -> ExchangeRequest {
        let Run { settings, keys, .. } = self.run;
        let output = |(output, keys): (&Output, &JobKeys)| OutputRequest {
            name: output.name.clone(),
            kind: output.kind.declaration.name.to_owned(),
            roles: output.roles.clone(),
            options: output.asked(),
            ssh: keys.ssh.as_ref().map(|key| SshRequest { public_key: key.public_line.clone() }),
            tls: keys.tls.as_ref().map(|key| TlsRequest { csr: key.csr.clone() }),
        };
        ExchangeRequest {
            token: settings.token.clone(),
            join_method: settings.method.name.to_owned(),
            proof,
            ttl_seconds: settings.ttl_seconds,
            outputs: settings.outputs().zip(keys).map(output).collect(),
            leaves: Vec::new(),
        }
    }

    /// The authority's answer; nothing where the proof would end before another attempt does.
    async fn post(
        &self,
        body: &[u8],
        deadline: Instant,
        good_until: Option<Instant>,
    ) -> Result<Option<ExchangeResponse>> {
        let mut attempts = Attempts::until(deadline);
        let (mut last, mut said) = (None, false);
        self.may_be_accepted.set(false);
        while let Some(time) = attempts.next() {
            // The same proof gets the same answer, a new one new certificates: so only where the old one is of no more use.
            let has_aged = good_until.is_some_and(|end| Instant::now() + time >= end);
            if last.is_some() && has_aged && !said {
                match self.renews() {
                    Ok(()) if self.has_another_proof().await => return Ok(None),
                    Ok(()) => {}
                    Err(why) => {
                        self.run.progress.line(&format!(
                            "the proof may end before an answer comes, and there is no other: {why}"
                        ));
                        said = true;
                    }
                }
            }
            let (error, verdict) = match self.attempt(body, time).await {
                Ok(response) => return Ok(Some(response)),
                Err(failed) => failed,
            };
            let Verdict::Again(at_least) = verdict else { return Err(error) };
            let Some(pause) = attempts.pause(at_least) else { return Err(error) };
            self.run.progress.line(&format!("{error}; trying again in {:.1} s", pause.as_secs_f64()));
            last = Some(error);
            tokio::time::sleep(pause).await;
        }
        Err(last.unwrap_or_else(|| self.unreachable(&RequestError::Timeout)))
    }

    async fn attempt(&self, body: &[u8], time: Duration) -> Result<ExchangeResponse, (Error, Verdict)> {
        let Run { settings, progress, client, .. } = self.run;
        let authority = &settings.authority;
        progress.step(&format!("asking {authority} for certificates"));
        let request = client
            .post(format!("{authority}/v1/exchange"))
            .header(CONTENT_TYPE, "application/json")
            .body(body.to_vec())
            .timeout(time);
        let request = match self.suite_of_keys() {
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
            self.check_suite().map_err(|other| (other, Verdict::Final))?;
        }
        let refusal = Refusal {
            authority,
            status,
            problem: problem.as_ref(),
            date: self.authority_time(),
            now,
            audience: settings.source.is_none().then_some(self.audience.as_str()),
            one_token: !settings.by_hand
                && settings.source.as_ref().is_some_and(|source| source.renews().is_err()),
            method: settings.method,
        };
        let error = if verdict == Verdict::Final { refusal.error() } else { refusal.trouble() };
        Err((error, verdict))
    }

    fn unreachable(&self, why: &RequestError) -> Error {
        let settings = self.run.settings;
        net::unreachable(&settings.authority, why, &settings.trust, self.clock.now())
    }

    /// The suite by which the keys were made, as long as they may be others.
    fn suite_of_keys(&self) -> Option<Suite> {
        self.run.suite.filter(|_| self.issued.borrow().is_none())
    }

    /// Whether the authority's suite is that of the keys, where it is to be.
    fn check_suite(&self) -> Result<()> {
        match self.suite.get() {
            Some(told) if self.suite_of_keys().is_some_and(|own| own != told) => {
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

    fn authority_time(&self) -> Option<i64> {
        Some(self.clock.now() + self.clock_offset.get()?)
    }
}

/// The signature part of a JWT in compact form.
fn signature_of(token: &str) -> Option<&str> {
    let (rest, signature) = token.rsplit_once('.')?;
    (rest.contains('.') && !signature.is_empty()).then_some(signature)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_signature_is_masked() {
        assert_eq!(signature_of("eyJh.eyJp.c2ln"), Some("c2ln"));
        for other in ["secret", "a.b", "a.b.", ""] {
            assert_eq!(signature_of(other), None, "{other}");
        }
    }
}
