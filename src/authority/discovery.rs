//! This authority as an OIDC issuer, to those who verify its tokens: who it is, and by which keys (OpenID Connect
//! Discovery 1.0). Nobody logs in here: there is no endpoint but these two.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use serde_json::{Value, json};

use super::Authority;
use super::keys::CaKeys;
use crate::error::Result;
use crate::terminal;
use crate::wire::Problem;

/// For how many seconds whoever has asked may keep the answer: for so long a key that is published no more is believed.
pub const KEPT: i64 = 300;

const KEY_SET: &str = "/.well-known/jwks.json";

type Answer = Result<Response, Box<Problem>>;

/// Where both are, which is what its tokens have as `iss`, and what stands behind that: a public URL has no path.
pub(super) fn routes() -> Router<Arc<Authority>> {
    let configuration = async |State(authority): State<Arc<Authority>>| {
        served(
            key_set(&authority.keys()).map(|keys| keys.map(|_| configuration(&authority.config.public_url))),
        )
    };
    let keys = async |State(authority): State<Arc<Authority>>| served(key_set(&authority.keys()));
    Router::new().route("/.well-known/openid-configuration", get(configuration)).route(KEY_SET, get(keys))
}

/// What AWS, Google and Kubernetes ask for, and GitHub's issuer gives: without an endpoint for logins, which the
/// specification wants of those who have logins.
fn configuration(issuer: &str) -> Value {
    json!({
        "issuer": issuer,
        "jwks_uri": format!("{issuer}{KEY_SET}"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
        "scopes_supported": ["openid"],
        "claims_supported": [
            "iss", "sub", "aud", "iat", "nbf", "exp", "jti",
            "cluster", "bot", "roles", "join_token", "join_method", "provenance", "issuance_id",
        ],
    })
}

/// Every key whose tokens are to be believed, as a JWK Set (RFC 7517, section 5); none where there is no key yet.
///
/// # Errors
/// Where a key is none of ES256.
pub fn key_set(keys: &CaKeys) -> Result<Option<Value>> {
    let keys = keys.federation_keys()?;
    Ok((!keys.is_empty()).then(|| json!({ "keys": keys })))
}

fn served(document: Result<Option<Value>>) -> Answer {
    let problem = |kind, status, title| Box::new(Problem::new(kind, status, title));
    let document = document.map_err(|error| {
        terminal::log_rarely(&format!("internal error: {error}"));
        problem("internal", 500, "something broke inside the authority")
    })?;
    let document =
        document.ok_or_else(|| problem("not-found", 404, "this authority has no federation key"))?;
    let kept = format!("public, max-age={KEPT}");
    let headers = [(header::CONTENT_TYPE, "application/json".to_owned()), (header::CACHE_CONTROL, kept)];
    Ok((headers, document.to_string()).into_response())
}
