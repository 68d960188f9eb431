//! Credentials from where the AWS SDKs find them, and signatures with them
//! (SigV4). `reqsign` knows the places and signs; files, commands and
//! connections are ours.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response, Uri};
use reqsign_aws_v4::{
    AssumeRoleWithWebIdentityCredentialProvider, Credential, ECSCredentialProvider, EnvCredentialProvider,
    IMDSv2CredentialProvider, ProcessCredentialProvider, RequestSigner,
};
use reqsign_core::time::Timestamp;
use reqsign_core::{
    CommandExecute, CommandOutput, Context, Env, FileRead, HttpSend, ProvideCredential as _,
    ProvideCredentialDyn, SignRequest as _, SigningCredential as _,
};

use super::profile::{self, Profile};
use super::seeker::Seeker;
use crate::clock::Clock;
use crate::environment::Environment;
use crate::error::{Error, Kind, Result};
use crate::net;
use crate::retry::{self, Backoff, Verdict};
use crate::text::{shown, shown_unless_secret};

/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 1 << 20;
/// How long an endpoint of this machine may take; one that is not there takes the time to connect.
const LOCAL_TIMEOUT: Duration = Duration::from_secs(3);
/// How long AWS's own may take.
const REMOTE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often an endpoint is asked that has no time.
const ATTEMPTS: u32 = 3;
/// Where the instance metadata service is.
const METADATA: &str = "http://169.254.169.254";
const METADATA_V6: &str = "http://[fd00:ec2::254]";

/// Credentials that were found. What they are is printed nowhere.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The place that gave them.
    pub place: &'static str,
    /// The region where they are to be used, where something says it.
    pub region: Option<String>,
    keys: Credential,
}

impl Credentials {
    /// Whether they are good for another two minutes.
    pub fn are_fresh(&self) -> bool {
        self.keys.is_valid()
    }

    /// Whether they are still good at all.
    pub fn are_good(&self) -> bool {
        self.keys.is_valid_at(Timestamp::now())
    }

    /// Signs a request of which `x-amz-content-sha256` says the hash of the body.
    ///
    /// # Errors
    /// `Kind::Proof` where they have expired.
    pub async fn sign(&self, service: &str, region: &str, request: &mut Parts) -> Result<()> {
        RequestSigner::new(service, region)
            .sign_request(&Context::new(), request, Some(&self.keys), None)
            .await
            .map_err(|error| {
                Error::new(Kind::Proof, self.shown(&told(&error))).context("cannot sign for AWS")
            })
    }

    /// What AWS says, unless that holds one of their secrets.
    pub fn shown(&self, text: &str) -> String {
        let secrets = [Some(&self.keys.secret_access_key), self.keys.session_token.as_ref()];
        shown_unless_secret(text, &secrets.into_iter().flatten().map(String::as_str).collect::<Vec<_>>())
    }
}

/// A place where credentials may be.
type Provider = Box<dyn ProvideCredentialDyn<Credential = Credential>>;

/// Where somebody may have set credentials up, in the order of the SDKs.
fn places(
    env: &Environment,
    profile: Option<&Profile>,
    region: Option<&str>,
) -> Vec<(&'static str, Provider)> {
    let mut places: Vec<(&'static str, Provider)> =
        vec![("the environment", Box::new(EnvCredentialProvider::new()))];
    if let Some(command) = profile.and_then(|profile| profile.get("credential_process")) {
        let process = ProcessCredentialProvider::new().with_command(command);
        places.push(("the profile's credential process", Box::new(process)));
    }
    let mut web_identity = AssumeRoleWithWebIdentityCredentialProvider::new();
    if let Some(region) = region {
        // As the SDKs do by now; the one without a region is far, and not reached from every network.
        web_identity = web_identity.with_region(region.to_owned()).with_regional_sts_endpoint();
    }
    places.push(("a web identity", Box::new(web_identity)));
    let mut container = ECSCredentialProvider::new();
    // Where both are set the SDKs take this one, and reqsign the other.
    if let Some(path) = env.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") {
        container = container.with_relative_uri(path);
    }
    places.push(("the container endpoint", Box::new(container)));
    places
}

/// A pair of which one is set alone was meant to be whole.
fn check_pair(env: &Environment, pair: [&str; 2]) -> Result<bool> {
    match pair.map(|name| env.get(name).is_some()) {
        [first, second] if first == second => Ok(first),
        [first, _] => {
            let [set, unset] = if first { pair } else { [pair[1], pair[0]] };
            Err(Error::new(Kind::Proof, format!("{set} is set, and {unset} is not or is empty"))
                .context("the environment gave no AWS credentials")
                .hint(format!("set both; or unset {set} for the credentials of another place")))
        }
    }
}

/// The first that there are, in the order of the SDKs.
///
/// # Errors
/// `Kind::Proof` where there are none, or what was set up cannot be used; `Kind::Unreachable` where an endpoint that
/// was set up does not answer.
pub async fn find(seeker: &Seeker<'_>) -> Result<Credentials> {
    let Seeker { who, env, say, .. } = *seeker;
    let context = context(seeker)?;
    let by_environment = check_pair(env, ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])?;
    let said = env.get("AWS_REGION").or_else(|| env.get("AWS_DEFAULT_REGION"));
    let profile = match by_environment {
        true if said.is_some() => None,
        // Of which only the region counts.
        true => profile::read(seeker, &context).await.ok(),
        false => Some(profile::read(seeker, &context).await?),
    };
    let region = said.or_else(|| profile.as_ref()?.get("region")).map(str::to_owned);
    if !by_environment {
        if let Some(profile) = &profile {
            say("looking for AWS credentials in the shared files");
            profile.check()?;
            if let Some(keys) = profile.keys() {
                return Ok(Credentials { place: "the shared files", region, keys });
            }
        }
        check_pair(env, ["AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE"])?;
    }
    for (place, provider) in places(env, profile.as_ref(), region.as_deref()) {
        say(&format!("looking for AWS credentials in {place}"));
        match provider.provide_credential_dyn(&context).await {
            Ok(Some(keys)) => return Ok(Credentials { place, region, keys }),
            Ok(None) => {}
            // Whoever set a place up means that one.
            Err(error) => {
                let later = error.is_retryable() && !is_misconfigured(&error);
                let kind = if later { Kind::Unreachable } else { Kind::Proof };
                return Err(Error::new(kind, words(env, &error))
                    .context(format!("{place} gave no AWS credentials"))
                    .hint(format!("in AWS_PROFILE, AWS_WEB_IDENTITY_TOKEN_FILE and AWS_CONTAINER_CREDENTIALS_* stands where {who} looks")));
            }
        }
    }
    // Nobody has to set this one up.
    let place = "the instance metadata service";
    say(&format!("looking for AWS credentials in {place}"));
    let endpoint = metadata(env);
    let provider = IMDSv2CredentialProvider::new().with_endpoint(endpoint.clone());
    match provider.provide_credential(&context).await {
        Ok(Some(keys)) if region.is_some() => Ok(Credentials { place, region, keys }),
        Ok(Some(keys)) => Ok(Credentials { place, region: instance_region(&endpoint, &context).await, keys }),
        Ok(None) => Err(none_found(seeker, "AWS_EC2_METADATA_DISABLED is set")),
        Err(error) => Err(none_found(seeker, &words(env, &error))),
    }
}

fn none_found(seeker: &Seeker<'_>, why: &str) -> Error {
    let who = seeker.who;
    Error::new(
        Kind::Proof,
        format!("{who} has no AWS credentials: none in its environment, in the shared files or for its container, and the instance metadata service gave none: {why}"),
    )
    .hint("give the instance, task, function or pod an IAM role")
    .hint("in a container on an instance, IMDSv2 needs a hop limit of 2 (`aws ec2 modify-instance-metadata-options`)")
    .hint(seeker.outside)
}

/// Whether one of the causes is the configuration, whatever the outermost says.
fn is_misconfigured(error: &reqsign_core::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref());
    error.kind() == reqsign_core::ErrorKind::ConfigInvalid || cause.is_some_and(is_misconfigured)
}

/// What went wrong, with the causes that `reqsign` keeps apart.
fn words(env: &Environment, error: &reqsign_core::Error) -> String {
    let secret = ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN"];
    let secrets: Vec<&str> = secret.iter().filter_map(|name| env.get(name)).collect();
    shown_unless_secret(&told(error), &secrets)
}

fn told(error: &reqsign_core::Error) -> String {
    let outermost: &dyn std::error::Error = error;
    let causes = std::iter::successors(Some(outermost), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn metadata(env: &Environment) -> String {
    let mode = env.get("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE").unwrap_or_default();
    let usual = if mode.eq_ignore_ascii_case("ipv6") { METADATA_V6 } else { METADATA };
    env.get("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or(usual).trim_end_matches('/').to_owned()
}

async fn instance_region(endpoint: &str, context: &Context) -> Option<String> {
    let ask = async |method, path, header, value: &str| {
        let request =
            Request::builder().method(method).uri(format!("{endpoint}{path}")).header(header, value);
        let answer = context.http_send_as_string(request.body(Bytes::new()).ok()?).await.ok()?;
        answer.status().is_success().then(|| answer.into_body())
    };
    let token = ask(Method::PUT, "/latest/api/token", "x-aws-ec2-metadata-token-ttl-seconds", "60").await?;
    let path = "/latest/meta-data/placement/region";
    ask(Method::GET, path, "x-aws-ec2-metadata-token", &token).await.map(|region| region.trim().to_owned())
}

fn context(seeker: &Seeker<'_>) -> Result<Context> {
    // The trust store may be missing where no AWS endpoint is asked, on an instance say.
    let remote = seeker.platform.client().cloned().map_err(|error| error.to_string());
    let http = Http { remote, local: net::machine_client()? };
    Ok(Context::new()
        .with_env(seeker.env.clone())
        .with_file_read(Machine)
        .with_http_send(http)
        .with_command_execute(Machine))
}

impl Env for Environment {
    fn var(&self, key: &str) -> Option<String> {
        self.get(key).map(str::to_owned)
    }

    fn vars(&self) -> HashMap<String, String> {
        self.pairs().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn home_dir(&self) -> Option<PathBuf> {
        self.get("HOME").map(PathBuf::from)
    }
}

/// Reads files, and runs a profile's `credential_process`.
#[derive(Debug)]
struct Machine;

impl FileRead for Machine {
    async fn file_read(&self, path: &str) -> reqsign_core::Result<Vec<u8>> {
        let read = profile::contents(path).await;
        read.map(|mut bytes| std::mem::take(&mut *bytes))
            .map_err(|unfit| reqsign_core::Error::config_invalid(unfit.to_string()))
    }
}

impl CommandExecute for Machine {
    async fn command_execute<'a>(
        &'a self,
        program: &'a str,
        arguments: &'a [&'a str],
    ) -> reqsign_core::Result<CommandOutput> {
        let mut command = tokio::process::Command::new(program);
        command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        let output = command.output().await.map_err(|error| {
            reqsign_core::Error::config_invalid(format!("{} cannot be run: {error}", shown(program)))
        })?;
        let status = output.status.code().unwrap_or(-1);
        Ok(CommandOutput { status, stdout: output.stdout, stderr: output.stderr })
    }
}

/// Two clients: one for endpoints of this machine, without a proxy, and one for AWS's own.
#[derive(Debug)]
struct Http {
    remote: Result<reqwest::Client, String>,
    local: reqwest::Client,
}

impl HttpSend for Http {
    async fn http_send(&self, request: Request<Bytes>) -> reqsign_core::Result<Response<Bytes>> {
        let failed = |why: String| reqsign_core::Error::unexpected(why).set_retryable(true);
        let local = is_local(request.uri());
        let (client, timeout) = match (&self.remote, request.uri().scheme_str()) {
            (_, Some("http")) if local => (&self.local, LOCAL_TIMEOUT),
            (Ok(remote), Some("https")) => (remote, REMOTE_TIMEOUT),
            (Err(why), Some("https")) => return Err(failed(why.clone())),
            _ => {
                return Err(reqsign_core::Error::config_invalid(
                    "it is neither https nor an address of this machine: credentials would travel in the clear",
                ));
            }
        };
        let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(1));
        let mut left = ATTEMPTS;
        loop {
            left -= 1;
            match attempt(client, request.clone(), timeout, local).await {
                // One that wants to be left alone for longer is not waited for.
                Err((_, Verdict::Again(told))) if left > 0 && told.unwrap_or_default() <= timeout => {
                    tokio::time::sleep(backoff.pause_after(told.unwrap_or_default())).await;
                }
                answer => return answer.map_err(|(why, _)| failed(why)),
            }
        }
    }
}

/// One attempt; where it failed, whether another may help.
async fn attempt(
    client: &reqwest::Client,
    request: Request<Bytes>,
    timeout: Duration,
    local: bool,
) -> Result<Response<Bytes>, (String, Verdict)> {
    let mut request =
        reqwest::Request::try_from(request).map_err(|error| (error.to_string(), Verdict::Final))?;
    *request.timeout_mut() = Some(timeout);
    let host = request.url().host_str().unwrap_or_default().to_owned();
    let response = net::execute(client, request).await.map_err(|error| {
        // Nothing listens there, or something that swallows packets: this is no such machine.
        let verdict = if local { Verdict::Final } else { retry::of_error(&error) };
        (format!("{host}: {error}"), verdict)
    })?;
    let status = response.status();
    let verdict = retry::of_answer(status.as_u16(), response.headers(), Clock::system().now());
    if verdict != Verdict::Final {
        return Err((format!("{host}: status {}", status.as_u16()), verdict));
    }
    let body = net::body(response, MAX_ANSWER)
        .await
        .map_err(|why| (format!("{host}: {why}"), Verdict::Again(None)))?;
    let mut answer = Response::new(Bytes::from(body));
    *answer.status_mut() = status;
    Ok(answer)
}

/// Loopback, and the link-local addresses where AWS puts its endpoints.
fn is_local(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    match host.parse() {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_link_local(),
        Ok(IpAddr::V6(address)) => {
            address == Ipv6Addr::LOCALHOST || matches!(address.segments(), [0xfd00, 0x0ec2, ..])
        }
        Err(_) => host == "localhost",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_stays_on_this_machine() {
        for (url, local) in [
            ("http://169.254.169.254/latest", true),
            ("http://169.254.170.2/v2/credentials/x", true),
            ("http://169.254.170.23/v1/credentials", true),
            ("http://[fd00:ec2::254]/latest", true),
            ("http://[fd00:ec2::23]/v1/credentials", true),
            ("http://127.0.0.1:8080/", true),
            ("http://[::1]:8080/", true),
            ("http://localhost/", true),
            ("http://10.0.0.1/", false),
            ("http://localhost.example.com/", false),
            ("http://169.254.169.254.example.com/", false),
            ("http://[fd00:ec3::254]/", false),
            ("http://2852039166/", false),
        ] {
            assert_eq!(is_local(&url.parse().unwrap()), local, "{url}");
        }
    }

    #[test]
    fn endpoints_of_the_instance() {
        let of = |pairs: &[(&str, &str)]| metadata(&Environment::from_pairs(pairs.iter().copied()));
        assert_eq!(of(&[]), METADATA);
        assert_eq!(of(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "IPv6")]), METADATA_V6);
        assert_eq!(of(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1/")]), "http://127.0.0.1:1");
    }
}
