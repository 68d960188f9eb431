//! The demo's platform: an OIDC issuer shaped like that of GitHub Enterprise
//! Server, on loopback, over TLS with a CA of its own.
//!
//! Its signing key is public, in this repository. That endangers nobody: only
//! the demo's authority believes it, through a CA that lives as long as the
//! demo, and both end with it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use rcgen::CertifiedKey;
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;

use crate::error::{Context as _, Error, Kind, Result};
use crate::random;

/// What the platform gives a job to ask for tokens with.
pub(super) const REQUEST_TOKEN: &str = "demo-request-token";
const KEY: &str = include_str!("issuer_key.pem");

/// A running issuer; it ends with the process.
pub(super) struct DemoIssuer {
    /// `127.0.0.1:PORT`.
    pub(super) host: String,
    /// Its CA in PEM.
    pub(super) ca_file: PathBuf,
    key: RsaKeyPair,
}

impl DemoIssuer {
    pub(super) fn start(dir: &Path) -> Result<Arc<Self>> {
        let (acceptor, ca) = tls().context(Kind::Internal, "the demo's issuer")?;
        let ca_file = dir.join("issuer-ca.crt");
        std::fs::write(&ca_file, ca).context(Kind::Destination, "cannot write the issuer's CA")?;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").context(Kind::Internal, "no free port")?;
        let host = listener.local_addr().context(Kind::Internal, "no address")?.to_string();
        let der = PrivatePkcs8KeyDer::from_pem_slice(KEY.as_bytes()).context(Kind::Internal, "demo key")?;
        let key = RsaKeyPair::from_pkcs8(der.secret_pkcs8_der())
            .map_err(|_| Error::internal("the demo's key cannot be used"))?;
        let issuer = Arc::new(Self { host, ca_file, key });
        let app = router(Arc::clone(&issuer));
        std::thread::spawn(move || serve(listener, acceptor, app));
        Ok(issuer)
    }

    /// The `iss` of its tokens.
    fn url(&self) -> String {
        format!("https://{}/_services/token", self.host)
    }

    /// Where a job asks for its tokens.
    pub(super) fn request_url(&self) -> String {
        format!("https://{}/request?api-version=2.0", self.host)
    }

    /// A token, as it might be found in a log.
    pub(super) fn mint(&self, audience: &str) -> Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let claims = json!({
            "iss": self.url(), "aud": audience, "sub": "repo:octo-org/app:ref:refs/heads/main",
            "jti": random::id("jti")?, "iat": now, "nbf": now.saturating_sub(300), "exp": now + 300,
            "repository": "octo-org/app", "repository_id": "74", "repository_owner": "octo-org",
            "repository_owner_id": "65", "repository_visibility": "private", "ref": "refs/heads/main",
            "ref_type": "branch", "ref_protected": "true", "event_name": "push", "actor": "octocat",
            "actor_id": "12", "run_id": "20143266074", "run_number": "2", "run_attempt": "1",
            "runner_environment": "github-hosted", "workflow": "deploy",
            "workflow_ref": "octo-org/app/.github/workflows/deploy.yml@refs/heads/main",
            "job_workflow_ref": "octo-org/app/.github/workflows/deploy.yml@refs/heads/main",
        });
        let header = json!({"alg": "RS256", "kid": "demo", "typ": "JWT"});
        let text = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", text(&header), text(&claims));
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature)
            .map_err(|_| Error::internal("the demo's issuer cannot sign"))?;
        Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// A certificate that is its own CA, and what serves with it.
fn tls() -> std::result::Result<(TlsAcceptor, String), anyhow::Error> {
    let CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
    let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], private)?;
    Ok((TlsAcceptor::from(Arc::new(config)), cert.pem()))
}

fn serve(listener: std::net::TcpListener, acceptor: TlsAcceptor, app: Router) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    let accept = async move {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            let (acceptor, app) = (acceptor.clone(), app.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = TowerToHyperService::new(app);
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    };
    let _: std::io::Result<()> = runtime.block_on(accept);
}

fn router(issuer: Arc<DemoIssuer>) -> Router {
    Router::new()
        .route("/_services/token/.well-known/openid-configuration", get(discovery))
        .route("/_services/token/jwks", get(key_set))
        .route("/request", get(request))
        .with_state(issuer)
}

async fn discovery(State(issuer): State<Arc<DemoIssuer>>) -> Json<Value> {
    Json(json!({"issuer": issuer.url(), "jwks_uri": format!("{}/jwks", issuer.url())}))
}

async fn key_set(State(issuer): State<Arc<DemoIssuer>>) -> Json<Value> {
    let PublicKeyComponents::<Vec<u8>> { n, e } = issuer.key.public().into();
    let text = |bytes| URL_SAFE_NO_PAD.encode::<Vec<u8>>(bytes);
    Json(
        json!({"keys": [{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "demo", "n": text(n), "e": text(e)}]}),
    )
}

/// GitHub's token endpoint: the job says for which audience.
async fn request(
    State(issuer): State<Arc<DemoIssuer>>,
    request: Request,
) -> std::result::Result<Json<Value>, StatusCode> {
    let wanted = format!("bearer {REQUEST_TOKEN}");
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if !given.is_some_and(|given| given.eq_ignore_ascii_case(&wanted)) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let url = reqwest::Url::parse(&format!("https://issuer{}", request.uri()))
        .map_err(|_| StatusCode::BAD_REQUEST)?;
    let audience = url.query_pairs().find(|(name, _)| name == "audience").ok_or(StatusCode::BAD_REQUEST)?.1;
    let token = issuer.mint(&audience).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(Json(json!({"value": token})))
}
