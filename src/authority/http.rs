//! The HTTP API: routes, limits, and which error is which
//! `application/problem+json` (RFC 9457).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Extension, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::Authority;
use super::enroll::{self, Refused};
use super::revoke::{self, Unrevoked};
use crate::error::Error;
use crate::terminal;
use crate::wire::{ExchangeRequest, Problem, RevokeRequest};

/// The largest body that is read, in bytes: sixteen outputs with RSA keys and a token are about 60 KB.
const MAX_BODY: usize = 96 << 10;
/// How long a request may take, its body included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the store counts as writable after it was.
const READY_AGE: Duration = Duration::from_secs(1);

/// The address of whoever asks; put there by [`super::serve`].
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

type Shared = State<Arc<Authority>>;

/// Every route.
pub fn router(authority: Arc<Authority>) -> Router {
    Router::new()
        .route("/v1/exchange", post(exchange))
        .route("/v1/revoke", post(revoke))
        .route("/v1/trust", get(trust))
        .route("/v1/revoked/ssh.krl", get(ssh_krl))
        .route("/v1/revoked/tls.crl", get(tls_crl))
        .route("/healthz", get(async || json_response(StatusCode::OK, &json!({"status": "ok"}))))
        .route("/readyz", get(readyz))
        .fallback(async || problem(404, "not-found", "there is nothing here").into_response())
        .method_not_allowed_fallback(async || {
            problem(405, "method-not-allowed", "this path takes another method").into_response()
        })
        .layer(from_fn(in_time))
        .with_state(authority)
}

/// Ends a request that takes too long, so that a slow body holds nothing for long.
async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => problem(408, "timeout", "the request took too long").into_response(),
    }
}

async fn exchange(
    State(authority): Shared,
    Extension(Peer(peer)): Extension<Peer>,
    body: Body,
) -> Result<Response, ProblemResponse> {
    let request: ExchangeRequest = read(body).await?;
    let response =
        enroll::exchange(&authority, &request, peer).await.map_err(|why| refused(&authority, why))?;
    Ok(json_response(StatusCode::OK, &response))
}

async fn revoke(
    State(authority): Shared,
    Extension(Peer(peer)): Extension<Peer>,
    body: Body,
) -> Result<Response, ProblemResponse> {
    let request: RevokeRequest = read(body).await?;
    revoke::revoke(&authority, &request, peer).await.map_err(|why| match why {
        // Why would tell a stranger which serials there are.
        Unrevoked::Refused(_) => {
            problem(401, "assertion-invalid", "the assertion is not valid for this issuance")
        }
        Unrevoked::Broken(error) => broken(&error),
    })?;
    Ok(json_response(StatusCode::OK, &json!({"issuance_id": request.issuance_id, "revoked": true})))
}

async fn trust(State(authority): Shared) -> Response {
    json_response(StatusCode::OK, &authority.keys.trust())
}

async fn ssh_krl(State(authority): Shared) -> Result<Response, ProblemResponse> {
    let lists = authority.revocation_lists().await.map_err(|error| broken(&error))?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], lists.krl.clone()).into_response())
}

async fn tls_crl(State(authority): Shared) -> Result<Response, ProblemResponse> {
    let lists = authority.revocation_lists().await.map_err(|error| broken(&error))?;
    Ok(([(header::CONTENT_TYPE, "application/pkix-crl")], lists.crl.clone()).into_response())
}

async fn readyz(State(authority): Shared) -> Result<Response, ProblemResponse> {
    // The keys were read and the policy parsed before this served anything.
    // It writes to the store, and anybody may ask.
    let mut since = authority.ready.lock().await;
    if since.is_some_and(|since| since.elapsed() < READY_AGE) {
        return Ok(json_response(StatusCode::OK, &json!({"status": "ready"})));
    }
    authority.store.ready().await.map_err(|error| {
        terminal::log_rarely(&format!("not ready: {error}"));
        problem(503, "not-ready", "the store cannot be written to")
    })?;
    *since = Some(Instant::now());
    Ok(json_response(StatusCode::OK, &json!({"status": "ready"})))
}

/// Reads a JSON body of limited size.
async fn read<T: DeserializeOwned>(body: Body) -> Result<T, ProblemResponse> {
    let bytes = to_bytes(body, MAX_BODY).await.map_err(|_| {
        problem(413, "too-large", "the body is larger than this authority reads, or broke off")
    })?;
    serde_json::from_slice(&bytes).map_err(|error| {
        // A parser's words may quote the body, and a body holds a token.
        let detail = format!("line {}, column {}", error.line(), error.column());
        let problem = Problem::new("malformed", 400, "the body is not the JSON that this path takes");
        Problem { detail, ..problem }.into()
    })
}

fn json_response(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => (status, [(header::CONTENT_TYPE, "application/json")], bytes).into_response(),
        Err(error) => broken(&Error::internal(error.to_string())).into_response(),
    }
}

/// A problem on its way out.
#[derive(Debug)]
struct ProblemResponse {
    problem: Box<Problem>,
    retry_after: Option<u64>,
}

fn problem(status: u16, kind: &str, title: &str) -> ProblemResponse {
    Problem::new(kind, status, title).into()
}

impl From<Problem> for ProblemResponse {
    fn from(problem: Problem) -> Self {
        Self { problem: Box::new(problem), retry_after: None }
    }
}

impl IntoResponse for ProblemResponse {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self.problem).unwrap_or_default();
        let mut response =
            (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

fn broken(error: &Error) -> ProblemResponse {
    // What broke inside is for the operator; the caller can only try again.
    terminal::log(&format!("internal error: {error}"));
    problem(500, "internal", "something broke inside the authority")
}

fn refused(authority: &Authority, why: Refused) -> ProblemResponse {
    match why {
        Refused::Malformed(detail) => {
            let problem = Problem::new("malformed", 400, "the request is not one that can be answered");
            Problem { detail, ..problem }.into()
        }
        Refused::Denied { denial, id } => {
            terminal::log(&format!("refused {id}: {}", denial.reason.row().code));
            denial.problem(id, authority.clock.now()).into()
        }
        Refused::TooMany(seconds) => {
            let problem = problem(429, "too-many", "too many refusals lately");
            ProblemResponse { retry_after: Some(seconds), ..problem }
        }
        Refused::Unavailable(detail) => {
            terminal::log_rarely(&format!("issuer unavailable: {detail}"));
            let why = "whoever vouches for this proof cannot be asked just now";
            ProblemResponse { retry_after: Some(2), ..problem(503, "issuer-unavailable", why) }
        }
        Refused::Broken(error) => broken(&error),
    }
}
