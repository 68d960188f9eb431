//! AWS KMS as a service: one request, signed (SigV4), tried again where it may pass, and an answer of which nothing is
//! believed yet.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{Request, header};
use reqwest::Url;
use ring::digest::{SHA256, digest};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::super::private::away;
use crate::aws::{self, Credentials, Seeker, region};
use crate::clock::Clock;
use crate::environment::Environment;
use crate::error::{Context as _, Error, Kind, Result};
use crate::net::{self, Platform, RequestError};
use crate::retry::{self, Attempts, Verdict};
use crate::runtime;
use crate::terminal;
use crate::text::{hex, shown};

/// The largest answer that is read, in bytes; they are of one or two thousand.
const MAX_ANSWER: usize = 16 << 10;
/// How long a request is tried.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long one attempt may take: of those that hang, more than one fits.
const ATTEMPT: Duration = Duration::from_secs(3);
/// How long all of it may take, looking for credentials too.
const LONGEST: Duration = Duration::from_secs(9);
/// How long is looked for new credentials while the old ones are good.
const RENEWAL: Duration = Duration::from_secs(2);

/// What passes by itself, whatever status it comes with.
const PASSING: &[&str] = &[
    "ThrottlingException",
    "TooManyRequestsException",
    "KMSInternalException",
    "DependencyTimeoutException",
    "KeyUnavailableException",
    "ServiceUnavailableException",
];
/// What AWS says of credentials that others may have to take the place of.
const STALE: &[&str] =
    &["ExpiredTokenException", "ExpiredToken", "UnrecognizedClientException", "InvalidClientTokenId"];
/// And of a signature that it does not take. Its message repeats what was signed, the session token too.
const UNSIGNED: &[&str] =
    &["InvalidSignatureException", "SignatureDoesNotMatch", "IncompleteSignatureException"];

const OUTSIDE: &str = "outside AWS, give it credentials as for the `aws` command: `aws sts get-caller-identity` must work for its user";

/// Why KMS did not do what it was asked.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It is not reached, or has no time; where `perhaps`, it may have done it all the same.
    Away { why: String, perhaps: bool },
    /// It refuses: the error's name and message.
    Refused { code: String, message: String },
    /// There are no credentials to ask with, or AWS does not take them.
    Credentials(Error),
    /// What it answers makes no sense.
    Nonsense(String),
}

/// The service in one region.
pub(super) struct Service {
    env: Environment,
    platform: Platform,
    client: reqwest::Client,
    endpoint: String,
    pub(super) region: String,
    known: Mutex<Option<Arc<Credentials>>>,
    /// Held by whoever looks for credentials.
    seeking: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Service {
    /// As the environment says. KMS itself is not asked anything yet.
    pub(super) fn of(env: Environment) -> Result<Self> {
        let platform = Platform::default();
        let said = env.get("AWS_REGION").or_else(|| env.get("AWS_DEFAULT_REGION")).map(str::to_owned);
        let (env, platform, found) = match said {
            Some(region) => (env, platform, Ok(region)),
            // Of a profile, or the instance's.
            None => runtime::wait_for(
                async move {
                    let found = seek(&env, &platform).await;
                    let region = found.and_then(|credentials| {
                        credentials.region.clone().ok_or_else(|| {
                            Error::usage("AWS_REGION is not set")
                                .hint("set it to the region of the keys, such as eu-west-1")
                        })
                    });
                    (env, platform, region)
                },
                LONGEST,
            )?
            .ok_or_else(|| away("looking for AWS credentials took too long"))?,
        };
        let region = found?;
        let (endpoint, is_here) = endpoint(&env, &region)?;
        let client = if is_here { net::machine_client()? } else { platform.client()?.clone() };
        Ok(Self {
            env,
            platform,
            client,
            endpoint,
            region,
            known: Mutex::default(),
            seeking: tokio::sync::Mutex::default(),
        })
    }

    /// Asks it; where `again`, what may have been done without our hearing of it is asked once more.
    pub(super) fn call<T: DeserializeOwned>(
        self: &Arc<Self>,
        action: &'static str,
        body: &Value,
        again: bool,
    ) -> Result<T, Trouble> {
        let (service, body) = (Arc::clone(self), body.to_string());
        let asked = async move { service.ask(action, &body, again).await };
        let answer = match runtime::wait_for(asked, LONGEST) {
            Ok(Some(answer)) => answer?,
            Ok(None) => return Err(Trouble::Away { why: RequestError::Timeout.to_string(), perhaps: true }),
            Err(error) => return Err(Trouble::Nonsense(error.to_string())),
        };
        // Where there is nothing to say, nothing is said.
        let answer = if answer.is_empty() { b"null" } else { answer.as_slice() };
        // Neither words of the parser's nor the answer: of what there is no telling.
        serde_json::from_slice(answer)
            .map_err(|_| Trouble::Nonsense(format!("it is not what {action} answers")))
    }

    async fn ask(&self, action: &str, body: &str, again: bool) -> Result<Vec<u8>, Trouble> {
        let mut attempts = Attempts::until(Instant::now() + PATIENCE);
        let mut is_renewed = false;
        while let Some(time) = attempts.next() {
            let credentials = self.credentials().await.map_err(Trouble::Credentials)?;
            let (trouble, verdict) = match self.attempt(action, body, &credentials, time.min(ATTEMPT)).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            let told = match (&trouble, verdict) {
                (Trouble::Refused { code, .. }, _) if STALE.contains(&code.as_str()) => {
                    self.forget(&credentials);
                    if is_renewed {
                        return Err(Trouble::Credentials(stale(&credentials)));
                    }
                    is_renewed = true;
                    continue;
                }
                (Trouble::Away { perhaps: true, .. }, _) if !again => return Err(trouble),
                (_, Verdict::Final) => return Err(trouble),
                (_, Verdict::Again(told)) => told,
            };
            match attempts.pause(told) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(trouble),
            }
        }
        Err(Trouble::Away { why: RequestError::Timeout.to_string(), perhaps: true })
    }

    async fn attempt(
        &self,
        action: &str,
        body: &str,
        credentials: &Credentials,
        time: Duration,
    ) -> Result<Vec<u8>, (Trouble, Verdict)> {
        let request = self.signed(action, body, credentials).await;
        let mut request = request.map_err(|error| (Trouble::Credentials(error), Verdict::Final))?;
        *request.timeout_mut() = Some(time);
        let lost = |error: RequestError| {
            let perhaps = !matches!(
                error,
                RequestError::Connect(_) | RequestError::Untrusted(_) | RequestError::Proxy { .. }
            );
            let verdict = retry::of_error(&error);
            (Trouble::Away { why: format!("{} is not reached: {error}", self.endpoint), perhaps }, verdict)
        };
        let response = net::execute(&self.client, request).await.map_err(lost)?;
        let status = response.status().as_u16();
        let verdict = retry::of_answer(status, response.headers(), Clock::system().now());
        let body = net::body(response, MAX_ANSWER).await.map_err(lost)?;
        if status == 200 {
            return Ok(body);
        }
        let Said { code, message } = serde_json::from_slice(&body).unwrap_or_default();
        let code = code.rsplit('#').next().unwrap_or_default();
        let is_name = (1..=64).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_alphanumeric());
        let code = if is_name { code } else { "" };
        if verdict != Verdict::Final || PASSING.contains(&code) {
            let why = format!("{} answers with status {status} {code}", self.endpoint);
            let again = if verdict == Verdict::Final { Verdict::Again(None) } else { verdict };
            // One that has no time has done nothing.
            let perhaps = !["ThrottlingException", "TooManyRequestsException"].contains(&code);
            return Err((Trouble::Away { why: why.trim_end().to_owned(), perhaps }, again));
        }
        let trouble = match code {
            "" => Trouble::Nonsense(format!("its status is {status}, and no error of AWS's")),
            code if UNSIGNED.contains(&code) => Trouble::Credentials(unsigned(credentials)),
            code => Trouble::Refused { code: code.to_owned(), message: credentials.shown(&message) },
        };
        Err((trouble, Verdict::Final))
    }

    async fn signed(&self, action: &str, body: &str, credentials: &Credentials) -> Result<reqwest::Request> {
        let request = Request::post(&self.endpoint)
            .header(header::CONTENT_TYPE, "application/x-amz-json-1.1")
            .header("x-amz-content-sha256", hex(digest(&SHA256, body.as_bytes()).as_ref()))
            .header("x-amz-target", format!("TrentService.{action}"))
            .body(())
            .context(Kind::Internal, "cannot make the request to sign")?;
        let (mut parts, ()) = request.into_parts();
        credentials.sign("kms", &self.region, &mut parts).await?;
        reqwest::Request::try_from(Request::from_parts(parts, body.to_owned()))
            .context(Kind::Internal, "cannot make the request")
    }

    /// Those that there are, renewed before they expire.
    async fn credentials(&self) -> Result<Arc<Credentials>> {
        let known = self.known();
        if let Some(known) = known.as_ref().filter(|known| known.are_fresh()) {
            return Ok(Arc::clone(known));
        }
        if let Some(known) = known.filter(|known| known.are_good()) {
            // Nobody waits for others to renew what is still good.
            if let Ok(_held) = self.seeking.try_lock()
                && let Ok(Ok(found)) = tokio::time::timeout(RENEWAL, seek(&self.env, &self.platform)).await
            {
                return Ok(self.keep(found));
            }
            return Ok(known);
        }
        let _held = self.seeking.lock().await;
        // Perhaps whoever held it has found them.
        if let Some(known) = self.known().filter(|known| known.are_good()) {
            return Ok(known);
        }
        Ok(self.keep(seek(&self.env, &self.platform).await?))
    }

    fn known(&self) -> Option<Arc<Credentials>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn keep(&self, found: Credentials) -> Arc<Credentials> {
        let found = Arc::new(found);
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&found));
        found
    }

    /// Has others looked for, unless others were found already.
    fn forget(&self, credentials: &Arc<Credentials>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref().is_some_and(|known| Arc::ptr_eq(known, credentials)) {
            *known = None;
        }
    }
}

async fn seek(env: &Environment, platform: &Platform) -> Result<Credentials> {
    let warn = |text: &str| terminal::log_rarely(text);
    aws::find(&Seeker { who: "the authority", outside: OUTSIDE, env, platform, say: &|_| {}, warn: &warn })
        .await
}

/// An error of AWS's, in JSON 1.1.
#[derive(Default, Deserialize)]
struct Said {
    #[serde(rename = "__type", default)]
    code: String,
    #[serde(alias = "Message", default)]
    message: String,
}

fn stale(credentials: &Credentials) -> Error {
    Error::new(Kind::Proof, format!("AWS does not take the credentials of {}, or does no more", credentials.place))
        .hint("`aws sts get-caller-identity` must work with them; a key that was taken back, or a session that has ended, is replaced where they are set")
}

fn unsigned(credentials: &Credentials) -> Error {
    Error::new(
        Kind::Proof,
        format!("AWS does not take what is signed with the credentials of {}", credentials.place),
    )
    .hint(
        "this machine's clock must be right to five minutes, and the secret access key belong to the key id",
    )
}

/// Where KMS is, and whether that is on this machine.
fn endpoint(env: &Environment, region: &str) -> Result<(String, bool)> {
    let Some(variable) =
        ["AWS_ENDPOINT_URL_KMS", "AWS_ENDPOINT_URL"].into_iter().find(|name| env.get(name).is_some())
    else {
        let service = if env.is_true("AWS_USE_FIPS_ENDPOINT") { "kms-fips" } else { "kms" };
        let host = region::host_of(service, region).ok_or_else(|| {
            Error::usage(format!("`{}` is no AWS region that has a known KMS", shown(region)))
                .hint("set AWS_REGION, for example to eu-west-1")
        })?;
        return Ok((format!("https://{host}/"), false));
    };
    let wrong = |why: &str| {
        Err(Error::usage(format!("{variable} is no endpoint of KMS: {why}"))
            .hint("it is https://HOST[:PORT], or http:// on this machine alone"))
    };
    // Neither repeated: there may be a password in it.
    let Ok(url) = Url::parse(env.get(variable).unwrap_or_default()) else { return wrong("it is no URL") };
    if !url.username().is_empty() || url.password().is_some() {
        return wrong("it has a user");
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return wrong("it has more than a host");
    }
    let host = url.host_str().unwrap_or_default();
    let address: Result<IpAddr, _> = host.trim_matches(['[', ']']).parse();
    let is_here = address.map_or(host == "localhost", |address| address.is_loopback());
    match url.scheme() {
        "https" => Ok((url.to_string(), false)),
        "http" if is_here => Ok((url.to_string(), true)),
        "http" => wrong("without TLS whoever is in between could sign in its place"),
        _ => wrong("it is neither https nor http"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(pairs: &[(&str, &str)]) -> Result<(String, bool)> {
        endpoint(&Environment::from_pairs(pairs.iter().copied()), "eu-west-1")
    }

    #[test]
    fn endpoints() {
        assert_eq!(at(&[]).unwrap().0, "https://kms.eu-west-1.amazonaws.com/");
        assert_eq!(
            at(&[("AWS_USE_FIPS_ENDPOINT", "true")]).unwrap().0,
            "https://kms-fips.eu-west-1.amazonaws.com/"
        );
        let of = |region| endpoint(&Environment::default(), region);
        assert_eq!(of("cn-north-1").unwrap().0, "https://kms.cn-north-1.amazonaws.com.cn/");
        assert!(of("eu-west-1.evil.example/").is_err() && of("").is_err());
        let both =
            [("AWS_ENDPOINT_URL", "https://a.example"), ("AWS_ENDPOINT_URL_KMS", "https://b.example:8443/")];
        assert_eq!(at(&both).unwrap(), ("https://b.example:8443/".to_owned(), false));
        assert_eq!(at(&both[..1]).unwrap().0, "https://a.example/");
        for here in ["http://127.0.0.1:4566", "http://[::1]:4566/", "http://localhost:1/"] {
            assert!(at(&[("AWS_ENDPOINT_URL", here)]).unwrap().1, "{here}");
        }
        for bad in [
            "http://10.0.0.1/",
            "http://kms.eu-west-1.amazonaws.com",
            "http://localhost.example.com/",
            "http://127.0.0.1.example.com/",
            "http://[::ffff:10.0.0.1]/",
            "https://user:hush@kms.example/",
            "https://kms.example/path",
            "https://kms.example/?a",
            "https://kms.example/#a",
            "ftp://kms.example/",
            "kms.example",
        ] {
            let error = at(&[("AWS_ENDPOINT_URL", bad)]).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage, "{bad}");
            assert!(!format!("{error:?}").contains("hush"));
        }
    }
}
