//! Tokens that an endpoint of the platform's own mints, asked over HTTPS.

use std::time::Duration;

use reqwest::{Client, RequestBuilder, StatusCode, Url};
use serde::Deserialize;
use tokio::time::{sleep, timeout};

use super::prove::{Job, Presented};
use super::source::token;
use crate::clock::Clock;
use crate::error::{Context as _, Error, Kind, Result};
use crate::net::{self, RequestError};
use crate::retry::{self, Attempts, Verdict};
use crate::secret::Secret;
use crate::text::shown_unless_secret;
use crate::wire::Proof;

/// The longest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 << 10;
/// How long one request for a token may take.
const ATTEMPT: Duration = Duration::from_secs(10);

/// A platform's token endpoint, and what to say of it.
pub(super) struct Endpoint<'a> {
    /// The platform's name.
    pub platform: &'a str,
    /// What the job shows to be let in, which no message may repeat.
    pub secret: &'a str,
    /// Whether a 403 with this body, in small letters, means "not yet".
    pub pending: fn(&str) -> bool,
    /// What to do where it refuses.
    pub refused: &'a str,
    /// What to do where its certificate is not trusted.
    pub untrusted: &'a str,
    /// Where the platform says how it is.
    pub status_page: &'a str,
}

/// What an endpoint answers, whatever else is in it.
#[derive(Deserialize)]
struct Minted {
    /// The token, as GitHub has it and as Azure DevOps has it.
    #[serde(alias = "oidcToken")]
    value: Secret,
}

/// Why there is no token: for good, or for now.
enum NoToken {
    Refused(Error),
    NotNow(NotNow),
}

#[derive(Default)]
struct NotNow {
    why: String,
    /// When to ask again, as the platform says.
    at_least: Option<Duration>,
    /// What to do, where it is not the platform's trouble.
    hint: Option<&'static str>,
}

impl NotNow {
    fn because(why: impl ToString) -> Self {
        Self { why: why.to_string(), ..Self::default() }
    }
}

/// The URL in a variable; not one that would send a secret in the clear.
pub(super) fn url(text: &str, variable: &str) -> Result<Url> {
    let url = Url::parse(text).context(Kind::Proof, format!("{variable} is not a URL"))?;
    if url.scheme() != "https" && !matches!(url.host_str(), Some("127.0.0.1" | "[::1]" | "localhost")) {
        return Err(Error::new(Kind::Proof, format!("{variable} is not https"))
            .hint("the request token would travel in the clear; ask the operator of this runner"));
    }
    Ok(url)
}

impl Endpoint<'_> {
    /// Asks for a token, again while the platform says that it is not ready.
    pub(super) async fn ask(
        &self,
        job: &Job<'_>,
        url: &Url,
        request: impl Fn(&Client) -> RequestBuilder,
    ) -> Result<Presented> {
        let platform = self.platform;
        let client = job.platform.client()?;
        let mut attempts = Attempts::until(job.deadline);
        let mut last = NotNow::because(RequestError::Timeout);
        while let Some(time) = attempts.next() {
            (job.say)(&format!("asking {platform} for an OIDC token"));
            // One request that hangs must not take the time of the next, which may be answered.
            last = match timeout(time.min(ATTEMPT), self.answer(request(client), url)).await {
                Ok(Ok(token)) => return Ok(Proof::id_token(token).into()),
                Ok(Err(NoToken::Refused(error))) => return Err(error),
                Ok(Err(NoToken::NotNow(why))) => why,
                // Cut short by our own end, it says nothing of the platform.
                Err(_) if time < ATTEMPT => last,
                Err(_) => NotNow::because(RequestError::Timeout),
            };
            let Some(pause) = attempts.pause(last.at_least) else { break };
            let why = &last.why;
            (job.say)(&format!(
                "{platform} gave no token ({why}), trying again in {:.1} s",
                pause.as_secs_f64()
            ));
            sleep(pause).await;
        }
        let asked = last.at_least.map_or_else(String::new, |time| {
            format!(", and is to be asked again in {} s: --timeout waits longer", time.as_secs())
        });
        Err(Error::new(Kind::Unreachable, last.why + &asked)
            .context(format!("{platform}'s token endpoint at {} gave no token in time", host(url)))
            .hint("check that this runner's network and proxy (HTTPS_PROXY, NO_PROXY) let it through, and run the job again")
            .hint(last.hint.unwrap_or(self.status_page)))
    }

    async fn answer(&self, request: RequestBuilder, url: &Url) -> Result<Secret, NoToken> {
        let platform = self.platform;
        let response = net::send(request).await.map_err(|error| self.unanswered(&error, url))?;
        let status = response.status();
        let verdict = retry::of_answer(status.as_u16(), response.headers(), Clock::system().now());
        let body = net::body(response, MAX_ANSWER).await;
        let body = zeroize::Zeroizing::new(body.map_err(|error| NoToken::NotNow(NotNow::because(error)))?);
        let pending = || (self.pending)(&String::from_utf8_lossy(&body).to_ascii_lowercase());
        match (status, verdict) {
            (StatusCode::OK, _) => {}
            // The platform answers so for a moment after the job has started.
            (StatusCode::FORBIDDEN, _) if pending() => {
                return Err(NoToken::NotNow(NotNow::because("the job is still pending")));
            }
            (_, Verdict::Again(at_least)) => {
                let why = NotNow::because(format!("status {}", status.as_u16()));
                return Err(NoToken::NotNow(NotNow { at_least, ..why }));
            }
            (_, Verdict::Final) => {
                let words = shown_unless_secret(&String::from_utf8_lossy(&body), &[self.secret]);
                let said = if status.is_client_error() { format!(": {words}") } else { String::new() };
                let cause =
                    format!("{platform} refused to give an OIDC token: status {}{said}", status.as_u16());
                return Err(NoToken::Refused(Error::new(Kind::Proof, cause).hint(self.refused)));
            }
        }
        // What the answer holds may be secret, so the parser's words stay out.
        let without = format!("{platform}'s token endpoint answered without a token");
        let minted: Minted = serde_json::from_slice(&body)
            .map_err(|_| NoToken::Refused(Error::new(Kind::Proof, without).hint(self.status_page)))?;
        if minted.value.expose().trim_ascii().is_empty() {
            let empty = format!("{platform}'s token endpoint answered with an empty token");
            return Err(NoToken::Refused(
                Error::new(Kind::Proof, empty)
                    .hint("nothing is wrong with this job or its authority: run the job again")
                    .hint(self.status_page),
            ));
        }
        token(minted.value.expose(), Kind::Proof).map_err(|error| {
            NoToken::Refused(error.context(format!("{platform}'s token endpoint")).hint(self.status_page))
        })
    }

    fn unanswered(&self, error: &RequestError, url: &Url) -> NoToken {
        let platform = self.platform;
        let refused = |cause: String| Error::new(Kind::Unreachable, cause);
        match (error, retry::of_error(error)) {
            (RequestError::Untrusted(why), _) => {
                let cause = format!("the certificate of {platform}'s token endpoint is not trusted: {why}");
                NoToken::Refused(refused(cause).hint(self.untrusted))
            }
            (RequestError::Proxy { why, .. }, Verdict::Again(_)) => {
                NoToken::NotNow(NotNow { hint: Some(why.hint()), ..NotNow::because(error) })
            }
            (RequestError::Proxy { why, .. }, Verdict::Final) => {
                let context = format!("cannot reach {platform}'s token endpoint at {}", host(url));
                NoToken::Refused(refused(error.to_string()).context(context).hint(why.hint()))
            }
            _ => NoToken::NotNow(NotNow::because(error)),
        }
    }
}

fn host(url: &Url) -> &str {
    url.host_str().unwrap_or_default()
}
