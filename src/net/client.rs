//! HTTPS clients. Redirects are never followed.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::header::HeaderMap;
use rustls::RootCertStore;
use rustls::client::danger::ServerCertVerifier;

use super::error::RequestError;
use super::pin::Pinned;
use super::proxy;
use super::roots::{USER_AGENT, config, roots_of_file, system_roots, verifier};
use crate::error::{Context as _, Kind, Result};
use crate::folder::read::{Limit, Trust};
use crate::folder::trust::Owner;

/// How long a connection may take to be made, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The way to a CI platform's endpoints, made when it is first needed:
/// reading the system's trust store costs a millisecond.
#[derive(Debug, Default)]
pub struct Platform(OnceLock<reqwest::Client>);

impl Platform {
    /// The client.
    pub fn client(&self) -> Result<&reqwest::Client> {
        if let Some(client) = self.0.get() {
            return Ok(client);
        }
        let client = client(system_roots()?)?;
        Ok(self.0.get_or_init(|| client))
    }
}

/// A client for the issuers of an authority: the system's roots and those of `extra`.
pub fn issuer_client(extra: Option<&PathBuf>, owner: Owner) -> Result<reqwest::Client> {
    let mut roots = RootCertStore::empty();
    // An authority with its own issuer CA, or with static key sets alone, needs no system roots.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = extra {
        roots.extend(roots_of_file(path, Trust::Operators(owner), Limit::FILE)?.roots);
    }
    if roots.is_empty() {
        // Nothing can be verified, which each fetch will say.
        return client_of(Arc::new(Pinned::new(Vec::new())), HeaderMap::new());
    }
    client(roots)
}

/// How long a connection to an endpoint of this machine may take to be made.
const MACHINE_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// A client for plain HTTP to endpoints of this very machine, such as a
/// cloud's metadata service: no proxy is asked for them, whatever the
/// environment says, and no server is trusted over TLS.
pub fn machine_client() -> Result<reqwest::Client> {
    build(builder(Arc::new(Pinned::new(Vec::new()))).connect_timeout(MACHINE_CONNECT_TIMEOUT))
}

/// Sends a request; where the proxy is why it got no answer, that is said.
pub async fn send(request: reqwest::RequestBuilder) -> Result<reqwest::Response, RequestError> {
    let (client, request) = request.build_split();
    execute(&client, request?).await
}

/// The same for a request that is made already.
pub async fn execute(
    client: &reqwest::Client,
    request: reqwest::Request,
) -> Result<reqwest::Response, RequestError> {
    let url = request.url().clone();
    match client.execute(request).await {
        Ok(response) => Ok(response),
        Err(error) => Err(proxy::blamed(error.into(), &url).await),
    }
}

pub(super) fn client(roots: RootCertStore) -> Result<reqwest::Client> {
    client_of(verifier(roots)?, HeaderMap::new())
}

/// One whose requests all have these headers.
pub(super) fn client_of(
    verifier: Arc<dyn ServerCertVerifier>,
    headers: HeaderMap,
) -> Result<reqwest::Client> {
    let builder = builder(verifier).default_headers(headers);
    build(match proxy::of_process()? {
        Some(proxy) => builder.proxy(proxy.route()),
        None => builder,
    })
}

/// Without a proxy: what the environment has is read by [`proxy`], more strictly.
fn builder(verifier: Arc<dyn ServerCertVerifier>) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .tls_backend_preconfigured(config(verifier))
        .no_proxy()
        .user_agent(USER_AGENT)
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
}

fn build(builder: reqwest::ClientBuilder) -> Result<reqwest::Client> {
    builder.build().context(Kind::Internal, "cannot set up the HTTP client")
}
