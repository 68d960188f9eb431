//! The HTTP API: routes, limits, and which error is which
//! `application/problem+json` (RFC 9457).

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, HttpBody as _, to_bytes};
use axum::extract::{Extension, Request, State};
use axum::http::uri::Authority as Host;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use futures_util::stream::unfold;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::timeout;

use super::assertion::Unproven;
use super::connections::Place;
use super::enroll::{self, Refused};
use super::host_proof::{self, ProvenHost};
use super::limits::Exceeded;
use super::statements::Stated;
use super::store::{self, closed};
use super::tls::{CertificateWarning, CurrentCertificate};
use super::{Authority, Ready, discovery, keys, served_list};
use crate::error::Error;
use crate::join::issuers::Unavailable;
use crate::terminal;
use crate::wire::{ExchangeRequest, HOST_HEADER, Problem, RevokeRequest, SUITE_HEADER, TRUSTS_HEADER};

/// The largest body that is read, in bytes: sixteen outputs with RSA keys and a token are about 60 KB.
const MAX_BODY: usize = 96 << 10;
/// What an exchange's answer takes, mostly. One that grows is copied and wiped each time.
const ANSWER: usize = 4 << 10;
/// How long its body may take to come. Our own client gives up after as long.
const BODY_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a request may take, its body included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the authority counts as ready after it was: anybody may ask, and each time some is written.
const READY_AGE: Duration = Duration::from_secs(1);
/// How long it is waited for what is to tell whether it is: five seconds are promised, on a busy machine too.
const READY_WITHIN: Duration = Duration::from_secs(4);

/// What is told of an authority that issues nothing for that; which keys, its log says.
const OTHER_KEYS: &str = "the authority's CA keys are others than those of its store";

/// The address of whoever asks; put there by [`super::serve`].
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

type Shared = State<Arc<Authority>>;
/// An answer, or why there is none; in a box, since it is large.
type Answer = Result<Response, Box<Problem>>;

/// Every route.
pub fn router(authority: Arc<Authority>, certificate: Arc<CurrentCertificate>) -> Router {
    Router::new()
        .route("/v1/exchange", post(exchange))
        .route("/v1/revoke", post(revoke))
        .route("/v1/trust", get(trust))
        .route("/v1/statement", get(statement))
        .route("/v1/watch", get(watch))
        .route("/v1/revoked", get(revoked_ends))
        .route("/v1/revoked/ssh.krl", get(ssh_krl))
        .route("/v1/revoked/tls.crl", get(tls_crl))
        .merge(discovery::routes())
        .route_layer(from_fn_with_state(Arc::clone(&authority), named))
        .route_layer(from_fn_with_state(Arc::clone(&authority), joined))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .fallback(async || problem(404, "not-found", "there is nothing here"))
        .method_not_allowed_fallback(async || {
            problem(405, "method-not-allowed", "this path takes another method")
        })
        .layer(from_fn(in_time))
        .layer(Extension(certificate))
        .with_state(authority)
}

/// Takes a request that is whole, and ends one that takes too long. Until it has come whole, its connection is the first to
/// go where there is no room.
async fn in_time(request: Request, next: Next) -> Answer {
    let too_long = |_| problem(408, "timeout", "the request took too long");
    check_host(&request)?;
    let answer = async {
        let (parts, body) = request.into_parts();
        if body.size_hint().lower() > u64::try_from(MAX_BODY).unwrap_or(u64::MAX) {
            return Err(too_large());
        }
        let body = tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, MAX_BODY)).await.map_err(too_long)?;
        let body = body.map_err(|_| too_large())?;
        let _under_way = parts.extensions.get::<Arc<Place>>().cloned().map(Place::under_way);
        Ok(next.run(Request::from_parts(parts, Body::from(body))).await)
    };
    tokio::time::timeout(REQUEST_TIMEOUT, answer).await.map_err(too_long)?
}

/// Answers nothing with CA keys that are others than those of the store.
async fn joined(State(authority): Shared, request: Request, next: Next) -> Answer {
    if authority.replicas.stopped().is_none() {
        return Ok(next.run(request).await);
    }
    let problem = Problem::new("other-ca-keys", 503, OTHER_KEYS);
    Err(Box::new(Problem { retry_after: Some(10), ..problem }))
}

/// Notes which host asks, where it says so. One that cannot prove it is not answered.
async fn named(
    State(authority): Shared,
    Extension(Peer(peer)): Extension<Peer>,
    mut request: Request,
    next: Next,
) -> Answer {
    let said: Vec<&HeaderValue> = request.headers().get_all(HOST_HEADER).iter().collect();
    if request.method() == Method::GET && !said.is_empty() {
        // Several are no more than one that cannot be read.
        let said = match said.as_slice() {
            [said] => said.to_str().unwrap_or_default(),
            _ => "",
        };
        let title = "the header `machine-id-host` does not prove which host asks";
        let host = host_proof::hear(&authority, said, request.uri().path(), peer)
            .await
            .map_err(|why| unproven(why, ("host-unproven", title)))?;
        request.extensions_mut().insert(Arc::new(host));
    }
    Ok(next.run(request).await)
}

/// HTTP/1.1 wants one `Host`, and nobody is to read another out of the same request (RFC 9112, section 3.2).
fn check_host(request: &Request) -> Result<(), Box<Problem>> {
    let hosts: Vec<&HeaderValue> = request.headers().get_all(header::HOST).iter().collect();
    let is_good = match hosts.as_slice() {
        [] => request.version() < Version::HTTP_11,
        [host] => host.to_str().is_ok_and(|host| !host.contains('@') && host.parse::<Host>().is_ok()),
        _ => false,
    };
    let wrong = || problem(400, "malformed", "the request has no `Host`, several, or one that is no host");
    is_good.then_some(()).ok_or_else(wrong)
}

fn too_many(seconds: u64) -> Box<Problem> {
    Box::new(Problem {
        retry_after: Some(seconds),
        ..Problem::new("too-many", 429, "too many refusals lately")
    })
}

/// The problem of that kind and title of an assertion that is not believed.
fn unproven(why: Unproven, (kind, title): (&str, &str)) -> Box<Problem> {
    match why {
        // Why would tell a stranger which serials there are.
        Unproven::Refused(id) => {
            terminal::log_rarely(&format!("refused {id}: {}", kind.replace('-', "_")));
            Box::new(Problem { denial_id: Some(id), ..Problem::new(kind, 401, title) })
        }
        Unproven::TooMany(seconds) => too_many(seconds),
        Unproven::Broken(error) => broken(&error),
    }
}

fn too_large() -> Box<Problem> {
    problem(413, "too-large", "the body is larger than this authority reads, or broke off")
}

/// That it is there, for whoever opens a connection for later; and its suite, by which jobs make their keys.
async fn healthz(State(authority): Shared) -> Answer {
    Ok(([(SUITE_HEADER, authority.suite())], json_response(&json!({"status": "ok"}))?).into_response())
}

async fn exchange(
    State(authority): Shared,
    Extension(Peer(peer)): Extension<Peer>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    // Keys that nobody chose are made anew, and the proof is good for those.
    let suite = authority.suite();
    if headers.get(SUITE_HEADER).is_some_and(|said| said != suite) {
        let title = "the keys are of another suite than this authority's";
        let problem = Problem::new("other-suite", 409, title);
        let hint = "say which keys to make: --key-type (MACHINE_ID_KEY_TYPE)".to_owned();
        let problem = Box::new(Problem { detail: format!("it is `{suite}`"), hint, ..problem });
        return Ok(([(SUITE_HEADER, suite)], problem).into_response());
    }
    let request: ExchangeRequest = read(&body)?;
    let response =
        enroll::exchange(&authority, &request, peer).await.map_err(|why| refused(&authority, why))?;
    authority.note_trust(headers.get(TRUSTS_HEADER).and_then(|said| said.to_str().ok()));
    json_response(&response)
}

async fn revoke(State(authority): Shared, Extension(Peer(peer)): Extension<Peer>, body: Bytes) -> Answer {
    let request: RevokeRequest = read(&body)?;
    let title = "the assertion is not valid for this issuance";
    super::revoke::revoke(&authority, &request, peer)
        .await
        .map_err(|why| unproven(why, ("assertion-invalid", title)))?;
    authority.statements.wake();
    json_response(&json!({"issuance_id": request.issuance_id, "revoked": true}))
}

async fn trust(State(authority): Shared) -> Answer {
    json_response(&authority.keys().trust())
}

/// `GET /v1/statement`: the present one, for whoever has no lists.
async fn statement(State(authority): Shared) -> Answer {
    let (_, line) = stated(&authority, None).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], line).into_response())
}

/// `GET /v1/watch?since=NUMBER`: the present one, each that is new, and one each heartbeat, a line each.
async fn watch(
    State(authority): Shared,
    Extension(place): Extension<Arc<Place>>,
    host: Option<Extension<Arc<ProvenHost>>>,
    uri: Uri,
) -> Answer {
    let since = since(uri.query())?;
    // First, so that it hears whatever comes after that.
    let mut watch = authority.statements.watch();
    let (stated, first) = stated(&authority, since).await?;
    let watching = place.watch(host.is_some()).ok_or_else(no_room)?;
    watch.heard(&stated);
    let told = (authority, watch, watching, host, Some(first));
    let lines = unfold(told, |(authority, mut watch, watching, host, first)| async move {
        watching.takes();
        let line = match first {
            Some(line) => line,
            None => {
                // It has taken the last one: days without anything else do not mean that it is away.
                if let Some(Extension(host)) = &host {
                    host.is_there(&authority).await;
                }
                let since = watch.number();
                watch.next().await?.line(since).await.ok()?
            }
        };
        Some((Ok::<_, Infallible>(line), (authority, watch, watching, host, None)))
    });
    let mut response =
        ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response();
    // Its place is that of a watcher until its end.
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    Ok(response)
}

/// The present statement, and as a line for whoever has the lists of that number.
async fn stated(authority: &Authority, since: Option<u64>) -> Result<(Arc<Stated>, Bytes), Box<Problem>> {
    if authority.keys().statement_key().is_none() {
        return Err(problem(404, "not-found", "this authority has no statement key"));
    }
    let stated = authority.statement().await.map_err(|error| broken(&error))?;
    let line = stated.line(since).await.map_err(|error| broken(&error))?;
    Ok((stated, line))
}

/// The number of the lists that the watcher has, if it says one.
fn since(query: Option<&str>) -> Result<Option<u64>, Box<Problem>> {
    let Some(query) = query else { return Ok(None) };
    let number =
        query.strip_prefix("since=").filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
    let wrong = || problem(400, "malformed", "the query is no `since=NUMBER`");
    number.and_then(|number| number.parse().ok()).map(Some).ok_or_else(wrong)
}

fn no_room() -> Box<Problem> {
    let title = "there is no room for another watcher, but for hosts that say who they are";
    Box::new(Problem { retry_after: Some(15), ..Problem::new("too-many-watchers", 503, title) })
}

async fn revoked_ends(State(authority): Shared) -> Answer {
    authority.revocation_lists().await.map_err(|error| broken(&error))?;
    Ok(served_list::ends(authority))
}

async fn ssh_krl(State(authority): Shared) -> Answer {
    let lists = authority.revocation_lists().await.map_err(|error| broken(&error))?;
    Ok(served_list::of("application/octet-stream", &lists, |lists| &lists.krl))
}

/// `GET /v1/revoked/tls.crl?ca=HEX`: that of the CA that signs now, or of another that is trusted.
async fn tls_crl(State(authority): Shared, uri: Uri) -> Answer {
    let lists = authority.revocation_lists().await.map_err(|error| broken(&error))?;
    let kind = "application/pkix-crl";
    let Some(query) = uri.query() else { return Ok(served_list::of(kind, &lists, |lists| &lists.crl)) };
    let ca = query.strip_prefix("ca=").map(str::to_ascii_lowercase);
    let ca = ca.ok_or_else(|| problem(400, "malformed", "the query is no `ca=HEX`"))?;
    let ca =
        ["sha256:", "sha256%3a"].iter().find_map(|before| ca.strip_prefix(before)).unwrap_or(&ca).to_owned();
    if lists.crl_of(&ca).is_none() {
        return Err(problem(404, "unknown-ca", "this authority trusts no TLS CA with that key"));
    }
    Ok(served_list::of(kind, &lists, move |lists| lists.crl_of(&ca).unwrap_or_default()))
}

async fn readyz(
    State(authority): Shared,
    Extension(certificate): Extension<Arc<CurrentCertificate>>,
) -> Answer {
    if authority.replicas.stopped().is_some() {
        return Err(Box::new(Problem::new("not-ready", 503, OTHER_KEYS)));
    }
    let late = |_| {
        let seconds = READY_WITHIN.as_secs();
        Err(Arc::new(Error::internal(format!("the store has not answered within {seconds} seconds"))))
    };
    let (alarm, list) =
        timeout(READY_WITHIN, alarm(&authority)).await.unwrap_or_else(late).map_err(|error| {
            // What the mark is told by is told once.
            if !store::is_displaced(&error) && store::lost(&error).is_none() {
                terminal::log_rarely(&format!("not ready: {error}"));
            }
            let cannot = || problem(503, "not-ready", "the store or a key cannot be used");
            let whereto = |problem| Box::new(Problem { detail: error.to_string(), ..problem });
            let told = moved(&error).map(whereto).or_else(|| store_lost(&error, true));
            told.or_else(|| disk_full(&error)).unwrap_or_else(cannot)
        })?;
    let warnings = certificate.warnings(&authority);
    let told = warnings.iter().map(CertificateWarning::told);
    if warnings.iter().any(|warning| warning.is_fault) {
        let problem = Problem::new("not-ready", 503, "a certificate is not valid now");
        return Err(Box::new(Problem { detail: told.collect::<Vec<_>>().join("; "), ..problem }));
    }
    // Whoever watches it must learn that revocations may be lost.
    let (restored, replicas) = (authority.restored_warning(), authority.replicas.warning());
    let store = [restored, authority.unmarked(), authority.tampered(), replicas, authority.lacking()];
    let store = store.into_iter().flatten();
    let told: Vec<String> = told.chain(alarm).chain(store).collect();
    let now = authority.clock.now();
    let mut expires = certificate.endings(&authority);
    expires.push(list);
    let expires: Vec<_> = expires.iter().map(|one| one.json(now)).collect();
    let keys = authority.keys().signers().ok();
    json_response(&match told.as_slice() {
        [] => json!({"status": "ready", "keys": keys, "expires": expires}),
        _ => json!({"status": "ready", "keys": keys, "warnings": told, "expires": expires}),
    })
}

/// What whoever watches must know, where all that an exchange needs was there within the last second. The policy was
/// parsed before this served anything.
async fn alarm(authority: &Authority) -> Ready {
    let asked = Instant::now();
    // It writes to the store, and anybody may ask.
    let mut last = authority.ready.lock().await;
    match &*last {
        Some((at, told)) if *at >= asked || told.is_ok() && at.elapsed() < READY_AGE => told.clone(),
        _ => {
            let told = authority.ready().await.map_err(Arc::new);
            last.insert((Instant::now(), told)).1.clone()
        }
    }
}

/// Reads a JSON body.
fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Box<Problem>> {
    serde_json::from_slice(body).map_err(|error| {
        // A parser's words may quote the body, and a body holds a token.
        let detail = format!("line {}, column {}", error.line(), error.column());
        let problem = Problem::new("malformed", 400, "the body is not the JSON that this path takes");
        Box::new(Problem { detail, ..problem })
    })
}

fn json_response(body: &impl Serialize) -> Answer {
    let mut bytes = Vec::with_capacity(ANSWER);
    serde_json::to_writer(&mut bytes, body).map_err(|error| broken(&Error::internal(error)))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], bytes).into_response())
}

fn problem(status: u16, kind: &str, title: &str) -> Box<Problem> {
    Box::new(Problem::new(kind, status, title))
}

impl IntoResponse for Box<Problem> {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response =
            (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// The problem of an error that is for want of room.
fn disk_full(error: &Error) -> Option<Box<Problem>> {
    let title = "the authority's disk is full or fails, and it signs nothing that it cannot record";
    let problem = Problem { retry_after: Some(10), ..Problem::new("disk-full", 503, title) };
    store::no_room(error).then(|| Box::new(problem))
}

/// The problem of a store whose records are elsewhere, or on their way; or for another version of this.
fn moved(error: &Error) -> Option<Problem> {
    let (kind, title) = match closed::closed(error)? {
        closed if closed.is_outgrown() => {
            ("store-unavailable", "the authority's store takes a newer version of machine-id")
        }
        _ => (
            "store-moved",
            "the authority's store has moved, and it issues nothing until it is started with the other one",
        ),
    };
    Some(Problem { retry_after: Some(5), ..Problem::new(kind, 503, title) })
}

/// The problem of an error that is since the store has lost something; in full for whoever watches the authority.
fn store_lost(error: &Error, in_full: bool) -> Option<Box<Problem>> {
    let lost = store::lost(error)?;
    let title = "the authority's store has lost records, and nothing is issued, used up or revoked until its operator has seen to it";
    // Nothing that a job could wait for.
    let problem = Problem { retry_after: Some(3600), ..Problem::new("store-lost-commits", 503, title) };
    let told = |problem| Problem { detail: lost.to_string(), hint: error.hints().join("; "), ..problem };
    Some(Box::new(if in_full { told(problem) } else { problem }))
}

fn broken(error: &Error) -> Box<Problem> {
    if let Some(problem) = moved(error) {
        terminal::log_rarely(&error.to_string());
        return Box::new(problem);
    }
    if let Some(problem) = disk_full(error) {
        terminal::log_rarely(&error.to_string());
        return problem;
    }
    if let Some(problem) = store_lost(error, false) {
        return problem;
    }
    if store::is_displaced(error) {
        // It was said once.
        let problem = Problem::new("store-unavailable", 503, "the authority's store is not in its place");
        return Box::new(Problem { retry_after: Some(2), ..problem });
    }
    if store::is_away(error) {
        terminal::log_rarely(&error.to_string());
        let problem = Problem::new("store-unavailable", 503, "the authority's database cannot be reached");
        return Box::new(Problem { retry_after: Some(2), ..problem });
    }
    if keys::is_away(error) {
        terminal::log_rarely(&error.to_string());
        let problem = Problem::new("keys-unavailable", 503, "the authority's CA keys cannot be reached");
        return Box::new(Problem { retry_after: Some(2), ..problem });
    }
    // What broke inside is for the operator; the caller can only try again.
    terminal::log(&format!("internal error: {error}"));
    problem(500, "internal", "something broke inside the authority")
}

fn refused(authority: &Authority, why: Refused) -> Box<Problem> {
    Box::new(match why {
        Refused::Malformed(detail) => {
            let problem = Problem::new("malformed", 400, "the request is not one that can be answered");
            Problem { detail, ..problem }
        }
        Refused::Denied { denial, id } => {
            let log = if denial.is_of_stranger() { terminal::log_rarely } else { terminal::log };
            log(&format!("refused {id}: {}", denial.reason.row().code));
            denial.problem(id, authority.clock.now())
        }
        Refused::TooMany(seconds) => return too_many(seconds),
        Refused::Quota(Exceeded { kind, whose, quota, retry_after }) => {
            let title = format!("{whose} has been given as many certificates as it may have in an hour");
            terminal::log_rarely(&format!("{kind}: {title}, {quota}"));
            let detail = format!("at most {quota} at once, and then each hour");
            let hint =
                "ask for fewer outputs, or renew less often; the authority's operator can raise `limits`"
                    .to_owned();
            Problem { detail, hint, retry_after: Some(retry_after), ..Problem::new(kind, 429, &title) }
        }
        Refused::Unavailable(Unavailable { why, retry_after }) => {
            terminal::log_rarely(&format!("issuer unavailable: {why}"));
            let why = "whoever vouches for this proof cannot be asked just now";
            Problem { retry_after: Some(retry_after), ..Problem::new("issuer-unavailable", 503, why) }
        }
        Refused::CaNotValid(detail) => {
            terminal::log_rarely(&format!("nothing issued: {detail}"));
            // Nothing that a job could wait for: an operator puts it right.
            let problem = Problem::new("ca-not-valid", 503, "the CA of X.509 certificates is not valid now");
            Problem { detail, retry_after: Some(3600), ..problem }
        }
        Refused::CasChange => {
            let why = "the CAs were changed again and again while this was asked";
            Problem { retry_after: Some(1), ..Problem::new("cas-changed", 503, why) }
        }
        Refused::Broken(error) => return broken(&error),
    })
}
