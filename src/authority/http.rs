//! The HTTP API: routes, limits, and the only map from errors to
//! `application/problem+json` (RFC 9457).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Extension, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::Authority;
use super::enroll::{self, Refused};
use super::revoke::{self, Unrevoked};
use crate::clock::rfc3339;
use crate::denial::{Denial, Reason};
use crate::error::Error;
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
) -> Result<Response, Answer> {
    let request: ExchangeRequest = read(body).await?;
    let response =
        enroll::exchange(&authority, &request, peer).await.map_err(|why| refused(&authority, why))?;
    Ok(json_response(StatusCode::OK, &response))
}

async fn revoke(
    State(authority): Shared,
    Extension(Peer(peer)): Extension<Peer>,
    body: Body,
) -> Result<Response, Answer> {
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

async fn ssh_krl(State(authority): Shared) -> Result<Response, Answer> {
    let lists = revoke::lists(&authority).await.map_err(|error| broken(&error))?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], lists.krl.clone()).into_response())
}

async fn tls_crl(State(authority): Shared) -> Result<Response, Answer> {
    let lists = revoke::lists(&authority).await.map_err(|error| broken(&error))?;
    Ok(([(header::CONTENT_TYPE, "application/pkix-crl")], lists.crl.clone()).into_response())
}

async fn readyz(State(authority): Shared) -> Result<Response, Answer> {
    // The keys were read and the policy parsed before this served anything.
    // It writes to the store, and anybody may ask.
    let mut since = authority.ready.lock().await;
    if since.is_some_and(|since| since.elapsed() < READY_AGE) {
        return Ok(json_response(StatusCode::OK, &json!({"status": "ready"})));
    }
    authority.store.ready().await.map_err(|error| {
        super::serve::log_of_strangers(&format!("not ready: {error}"));
        problem(503, "not-ready", "the store cannot be written to")
    })?;
    *since = Some(Instant::now());
    Ok(json_response(StatusCode::OK, &json!({"status": "ready"})))
}

/// Reads a JSON body of limited size.
async fn read<T: DeserializeOwned>(body: Body) -> Result<T, Answer> {
    let bytes = to_bytes(body, MAX_BODY).await.map_err(|_| {
        problem(413, "too-large", "the body is larger than this authority reads, or broke off")
    })?;
    serde_json::from_slice(&bytes).map_err(|error| {
        let mut answer = problem(400, "malformed", "the body is not the JSON that this path takes");
        // A parser's words may quote the body, and a body holds a token.
        answer.problem.detail = format!("line {}, column {}", error.line(), error.column());
        answer
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
struct Answer {
    problem: Box<Problem>,
    retry_after: Option<u64>,
}

fn problem(status: u16, kind: &str, title: &str) -> Answer {
    let problem = Problem {
        kind: format!("urn:machine-id:{kind}"),
        title: title.to_owned(),
        status,
        detail: String::new(),
        hint: String::new(),
        denial_id: None,
        claims: None,
        authority_time: None,
    };
    Answer { problem: Box::new(problem), retry_after: None }
}

impl axum::response::IntoResponse for Answer {
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

fn broken(error: &Error) -> Answer {
    // What broke inside is for the operator; the caller can only try again.
    super::serve::log(&format!("internal error: {error}"));
    problem(500, "internal", "something broke inside the authority")
}

fn refused(authority: &Authority, why: Refused) -> Answer {
    match why {
        Refused::Malformed(detail) => {
            let mut answer = problem(400, "malformed", "the request is not one that can be answered");
            answer.problem.detail = detail;
            answer
        }
        Refused::Denied { denial, id } => denied(authority, &denial, id),
        Refused::TooMany(seconds) => {
            let mut answer = problem(429, "too-many", "too many refusals lately");
            answer.retry_after = Some(seconds);
            answer
        }
        Refused::Unavailable(detail) => {
            super::serve::log_of_strangers(&format!("issuer unavailable: {detail}"));
            let mut answer =
                problem(503, "issuer-unavailable", "whoever vouches for this proof cannot be asked just now");
            answer.retry_after = Some(2);
            answer
        }
        Refused::Broken(error) => broken(&error),
    }
}

fn denied(authority: &Authority, denial: &Denial, id: String) -> Answer {
    let row = denial.reason.row();
    let mut answer = problem(row.status, "", row.told);
    answer.problem.kind = row.problem_type();
    answer.problem.detail = denial.told.clone().unwrap_or_default();
    answer.problem.hint = hint(denial.reason).to_owned();
    answer.problem.claims = denial.claims.clone();
    if matches!(denial.reason, Reason::TokenExpired | Reason::TokenNotYetValid) {
        answer.problem.authority_time = Some(rfc3339(authority.clock.now()));
    }
    super::serve::log(&format!("refused {id}: {}", row.code));
    answer.problem.denial_id = Some(id);
    answer
}

/// What the caller can do; nothing that depends on the rules.
fn hint(reason: Reason) -> &'static str {
    match reason {
        Reason::AudienceWrong => "reach the authority by its public URL, which is the audience it expects",
        Reason::TokenExpired => "get a fresh token for each exchange, and check the clocks",
        Reason::TokenNotYetValid => "check the clocks of the runner and the authority",
        Reason::TokenUsed => "get a fresh token for each exchange",
        Reason::IssuerWrong => "check --token and --join-method: the join token is for another issuer",
        Reason::InstanceUnknown => {
            "register it: run once with a secret from `machine-id authority token add` in MACHINE_ID_REGISTRATION_SECRET"
        }
        Reason::RegistrationRefused => {
            "a secret registers one worker, once, for a limited time: ask for another (`machine-id authority token add`)"
        }
        // Why it came to this, `docs/join-methods.md` tells.
        Reason::GenerationAhead | Reason::InstanceLocked => {
            "to register anew, run once with a new secret (`machine-id authority token add`) in MACHINE_ID_REGISTRATION_SECRET and the same --storage; other workers are not touched"
        }
        Reason::TokenUnknown
        | Reason::MethodMismatch
        | Reason::BindingRequired
        | Reason::NoRuleMatches
        | Reason::RiskyEvent => {
            "check --token and --join-method, and ask the authority's operator about the denial id"
        }
        _ => "",
    }
}
