//! One exchange: a proof from the platform and a connection to the authority
//! at the same time, then the request, again while that can help.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};

use crate::clock::Clock;
use crate::error::{Context as _, Error, Kind, Result};
use crate::join::prove::{Job, Presented, Storage};
use crate::join::source::TokenSource;
use crate::net::{self, Platform, RequestError};
use crate::once::exchange::check::{Issuance, check};
use crate::once::exchange::keys::OutputKeys;
use crate::once::run::Run;
use crate::once::settings::output::Output;
use crate::retry::{self, Attempts, Verdict, parse_http_date};
use crate::text::shown_long;
use crate::wire::{
    ExchangeRequest, ExchangeResponse, OutputRequest, Problem, Proof, SshRequest, TlsRequest, binding,
    bound_audience,
};

pub mod check;
pub mod keys;
pub mod refusal;

/// How long a connection to the authority is waited for once the proof is
/// there. The request makes its own where that one hangs.
const WARM: Duration = Duration::from_secs(2);

/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 1 << 20;

/// Everything that exchanges of one run share.
#[derive(Debug)]
pub struct Exchanger<'a> {
    run: Run<'a>,
    client: reqwest::Client,
    platform: Platform,
    clock: Clock,
    audience: String,
    /// The authority's clock less ours, by its last answer.
    clock_offset: Cell<Option<i64>>,
    /// The hash of the last token that was handed over.
    handed: Cell<Option<[u8; 32]>>,
    /// The last issuance.
    issued: RefCell<Option<String>>,
}

impl<'a> Exchanger<'a> {
    /// For a run.
    ///
    /// # Errors
    /// `Kind::Usage` for a CA file or pin that is no good.
    pub fn new(run: Run<'a>) -> Result<Self> {
        let Run { settings, keys, .. } = run;
        let client = net::authority_client(&settings.trust, settings.timeout)?;
        let bound: Vec<_> =
            settings.outputs().zip(keys).map(|(output, keys)| keys.bound(&output.name)).collect();
        Ok(Self {
            run,
            client,
            platform: Platform::new(),
            clock: Clock::system(),
            audience: bound_audience(&settings.authority, &binding(&bound)),
            clock_offset: Cell::new(None),
            handed: Cell::new(None),
            issued: RefCell::new(None),
        })
    }

    /// The client for the authority, whose connections are kept.
    #[must_use]
    pub fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// Gets certificates.
    ///
    /// # Errors
    /// Of every kind that an exchange has: proof, refused, unreachable.
    pub async fn exchange(&self) -> Result<Issuance> {
        let deadline = Instant::now() + self.run.settings.timeout;
        let Presented { proof, on_accepted } = self.proof(deadline).await?;
        for signature in proof.0.values().filter_map(|value| signature_of(value.expose())) {
            self.run.progress.mask(signature);
        }
        let request = self.request(proof);
        // Not `serde_json::Value`, which would leave copies of the token behind.
        let body = zeroize::Zeroizing::new(
            serde_json::to_vec(&request).context(Kind::Internal, "cannot write the request")?,
        );
        drop(request);
        let issuance = self.post(&body, deadline).await?;
        let id = &issuance.response.issuance_id;
        // The authority answers a request that it knows as it did then: a lost reply is asked for again so.
        if self.issued.replace(Some(id.clone())).as_ref() == Some(id) {
            let cause = "the proof is the one of before, and buys the same certificates";
            return Err(Error::new(Kind::Proof, cause).hint("the platform gives this job no other just now"));
        }
        if let Some(on_accepted) = on_accepted {
            on_accepted(&issuance.response)?;
        }
        if let Some(warning) = refusal::clock_warning(self.authority_time(), self.clock.now()) {
            self.run.progress.warning(&warning);
        }
        for warning in &issuance.response.warnings {
            self.run.progress.warning(&shown_long(warning));
        }
        Ok(issuance)
    }

    async fn proof(&self, deadline: Instant) -> Result<Presented> {
        if let Some(source) = &self.run.settings.source {
            let token = source.read(self.run.env, deadline).await?;
            self.handed.set(Some(TokenSource::fingerprint(&token)));
            return Ok(Proof::id_token(token).into());
        }
        let say = |text: &str| self.run.progress.step(text);
        let warn = |text: &str| self.run.progress.warning(text);
        let job = Job {
            env: self.run.env,
            authority: &self.run.settings.authority,
            join_token: &self.run.settings.token,
            storage: self.run.settings.storage.folder.as_ref().map(|folder| {
                let storage: &dyn Storage = folder;
                storage
            }),
            registration_secret: self.run.settings.storage.secret.as_ref(),
            audience: &self.audience,
            platform: &self.platform,
            deadline,
            say: &say,
            warn: &warn,
        };
        let method = self.run.settings.method;
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
                Ok(proof)
            }
            () = &mut warm => prove.await,
        }
    }

    /// Whether another exchange would have another proof: a token that was
    /// handed over in a file may still be the one that was used.
    #[must_use]
    pub async fn has_another_proof(&self) -> bool {
        let Some(source) = &self.run.settings.source else { return true };
        let token = source.read(self.run.env, Instant::now()).await;
        token.is_ok_and(|token| self.handed.get() != Some(TokenSource::fingerprint(&token)))
    }

    /// Opens the connection that the request will use. Whether it works, the
    /// request itself will tell.
    async fn open_connection(&self, deadline: Instant) {
        let Some(time) = Attempts::until(deadline).next() else { return };
        let request = self.client.get(format!("{}/healthz", self.run.settings.authority)).timeout(time);
        match request.send().await {
            // Only a connection whose answer was read is used again.
            Ok(response) => {
                self.note_clock(response.headers());
                let _ = net::body(response, MAX_ANSWER).await;
                self.run.progress.step(&format!("connected to {}", self.run.settings.authority));
            }
            Err(error) => self.run.progress.step(&format!(
                "no connection yet to {}: {}",
                self.run.settings.authority,
                RequestError::from(error)
            )),
        }
    }

    fn request(&self, proof: Proof) -> ExchangeRequest {
        let output = |(output, keys): (&Output, &OutputKeys)| OutputRequest {
            name: output.name.clone(),
            kind: output.kind.declaration.name.to_owned(),
            roles: output.roles.clone(),
            options: output.asked(),
            ssh: keys.ssh_line().map(|line| SshRequest { public_key: line.to_owned() }),
            tls: keys.tls.as_ref().map(|key| TlsRequest { csr: key.csr.clone() }),
        };
        ExchangeRequest {
            token: self.run.settings.token.clone(),
            join_method: self.run.settings.method.name.to_owned(),
            proof,
            ttl_seconds: self.run.settings.ttl_seconds,
            outputs: self.run.settings.outputs().zip(self.run.keys).map(output).collect(),
        }
    }

    async fn post(&self, body: &[u8], deadline: Instant) -> Result<Issuance> {
        let mut attempts = Attempts::until(deadline);
        let mut last = None;
        while let Some(time) = attempts.next() {
            let (error, verdict) = match self.attempt(body, time).await {
                Ok(response) => {
                    let asked: Vec<_> = self
                        .run
                        .settings
                        .outputs()
                        .map(|output| output.name.as_str())
                        .zip(self.run.keys)
                        .collect();
                    return check(response, &asked);
                }
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
        self.run.progress.step(&format!("asking {} for certificates", self.run.settings.authority));
        let request = self
            .client
            .post(format!("{}/v1/exchange", self.run.settings.authority))
            .header("Content-Type", "application/json")
            .body(body.to_vec())
            .timeout(time);
        let failed = |why: RequestError| (self.unreachable(&why), retry::of_error(&why));
        let response = request.send().await.map_err(|error| failed(error.into()))?;
        self.note_clock(response.headers());
        let status = response.status().as_u16();
        let retry_after =
            response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let body = net::body(response, MAX_ANSWER).await.map_err(failed)?;
        if status == 200 {
            // The parser's words may repeat what was sent, which is none of a log's business.
            let why = RequestError::Other("its answer is not one of an authority".to_owned());
            return serde_json::from_slice(&body).map_err(|_| (self.unreachable(&why), Verdict::Final));
        }
        let problem = serde_json::from_slice::<Problem>(&body).ok();
        let verdict = retry::of_status(status, retry_after.as_deref(), self.clock.now());
        let error = match verdict {
            Verdict::Again(_) => {
                let words = problem.as_ref().map(refusal::words);
                let said = words.map_or_else(String::new, |words| format!(": {words}"));
                Error::new(
                    Kind::Unreachable,
                    format!(
                        "the authority {} answers with status {status}{said}",
                        self.run.settings.authority
                    ),
                )
                .hint("it may be busy or in trouble: see its log and GET /readyz, or run the job again")
            }
            Verdict::Final => refusal::refused(&refusal::Refusal {
                authority: &self.run.settings.authority,
                status,
                problem: problem.as_ref(),
                date: self.authority_time(),
                now: self.clock.now(),
                audience: self.run.settings.source.is_none().then_some(self.audience.as_str()),
                one_token: !self.run.settings.by_hand
                    && self.run.settings.source.as_ref().is_some_and(|source| source.renews().is_err()),
                telling: self.run.settings.method.telling,
            }),
        };
        Err((error, verdict))
    }

    fn unreachable(&self, why: &RequestError) -> Error {
        net::unreachable(&self.run.settings.authority, why, &self.run.settings.trust, self.clock.now())
    }

    fn note_clock(&self, headers: &HeaderMap) {
        let date = headers.get(DATE).and_then(|value| value.to_str().ok()).and_then(parse_http_date);
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
