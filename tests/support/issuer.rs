//! A loopback OIDC issuer over real TLS, shaped like GitHub's and CircleCI's:
//! discovery and key sets under any path, GitHub's token endpoint, a proxy
//! that brings every host to it, and ways to fail.
//!
//! It answers for whatever host it is asked for (its certificate names
//! 127.0.0.1, localhost and [`NAMES`]); through [`Issuer::proxy`] it stands in
//! for all of them.

mod answers;
mod connection;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Map, Value};
use tempfile::TempDir;

use super::keys::{self, Key};
use super::template::{self, Variables};
use super::token::Token;

/// The hosts, besides this one, that the issuer's certificate names.
pub const NAMES: &[&str] = &[
    "localhost",
    "token.actions.githubusercontent.com",
    "token.actions.octo.ghe.com",
    "oidc.circleci.com",
    "gitlab.com",
    "api.github.com",
    "circleci.com",
    "agent.buildkite.com",
    "api.bitbucket.org",
    "vstoken.dev.azure.com",
    "octo.app.spacelift.io",
    "app.terraform.io",
    "ghes.example.com",
    "other.example.com",
    "sts.amazonaws.com",
    "sts.us-east-1.amazonaws.com",
    "sts.eu-west-1.amazonaws.com",
    "sts.eu-central-1.amazonaws.com",
    "sts.cn-north-1.amazonaws.com.cn",
    "kms.eu-central-1.amazonaws.com",
];

/// The platforms that it can be: those whose fixtures have claims for it.
const PLATFORMS: &[&str] = &[
    "github",
    "circleci",
    "gitlab",
    "buildkite",
    "bitbucket",
    "azure-devops",
    "spacelift",
    "terraform_cloud",
];

/// What a job presents to the token endpoint.
pub const REQUEST_TOKEN: &str = "request-token-that-nobody-may-print-0c6f1e";

/// The part of the issuer that a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Endpoint {
    /// `…/.well-known/openid-configuration`.
    Discovery,
    /// `…/.well-known/jwks`.
    Keys,
    /// GitHub's or Azure DevOps' token endpoint, or CircleCI's or Buildkite's command.
    Token,
    /// Anything else.
    Other,
}

/// What an endpoint does in place of its work.
#[derive(Clone, Debug)]
pub enum Fault {
    /// This status, with a short body.
    Status(u16),
    /// 200 with this body.
    Body(String),
    /// This status, a header line (`Retry-After: 1`) and this body.
    Answer(u16, String, String),
    /// 302 to this URL.
    Redirect(String),
    /// The request goes to this server, and its answer comes back.
    Forward(SocketAddr),
    /// Its work, this much later.
    Delay(Duration),
    /// 200 and that many bytes of JSON white space, then its end.
    Huge(usize),
    /// 200, and then white space for ever, a byte each time.
    Drip(Duration),
    /// No answer, until the client or the issuer goes.
    Hang,
    /// The connection is closed without an answer.
    Drop,
}

/// A request that the issuer has had.
#[derive(Clone, Debug)]
pub struct Request {
    /// What it was for.
    pub endpoint: Endpoint,
    /// `GET`, `POST`.
    pub method: String,
    /// The `Host` header.
    pub host: String,
    /// Path and query.
    pub target: String,
    /// Its headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Request {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// The issuer; it ends with the value.
pub struct Issuer {
    shared: Arc<Shared>,
    directory: TempDir,
    tls: Option<Port>,
    plain: Option<Port>,
}

struct Shared {
    address: SocketAddr,
    config: Arc<ServerConfig>,
    state: Mutex<State>,
    closing: AtomicBool,
}

struct State {
    keys: Vec<Value>,
    faults: BTreeMap<Endpoint, (usize, Fault)>,
    requests: Vec<Request>,
    claims: BTreeMap<&'static str, Map<String, Value>>,
    signer: &'static Key,
    minted: Vec<String>,
}

struct Port {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Issuer {
    /// Starts one with [`keys::ISSUER`] for its key.
    pub fn start() -> Self {
        let directory = TempDir::new().unwrap();
        let config = certify(directory.path());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let state = State {
            keys: vec![keys::ISSUER.jwk()],
            faults: BTreeMap::new(),
            requests: Vec::new(),
            claims: PLATFORMS.iter().map(|method| (*method, template::claims(method))).collect(),
            signer: &keys::ISSUER,
            minted: Vec::new(),
        };
        let shared = Arc::new(Shared {
            address: listener.local_addr().unwrap(),
            config,
            state: Mutex::new(state),
            closing: AtomicBool::new(false),
        });
        let tls = Port::open(listener, {
            let shared = Arc::clone(&shared);
            move |stream| connection::tls(&shared, stream)
        });
        let plain = Port::open(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(), {
            let shared = Arc::clone(&shared);
            move |stream| connection::plain(&shared, stream)
        });
        Self { shared, directory, tls: Some(tls), plain: Some(plain) }
    }

    /// The CA that its certificate is signed by, in PEM: `issuer_ca_file`, `SSL_CERT_FILE`.
    pub fn ca_file(&self) -> PathBuf {
        self.directory.path().join("issuer-ca.pem")
    }

    /// `127.0.0.1:PORT`, as `enterprise_server_host` takes it.
    pub fn host(&self) -> String {
        self.shared.address.to_string()
    }

    /// `https://127.0.0.1:PORT` and this path, which may be empty.
    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.shared.address)
    }

    /// Its name as a GitHub Enterprise Server.
    pub fn ghes(&self) -> String {
        self.url("/_services/token")
    }

    /// `http://127.0.0.1:PORT`: as `HTTPS_PROXY`, it brings every host to this issuer.
    pub fn proxy(&self) -> String {
        format!("http://{}", self.plain.as_ref().unwrap().address)
    }

    /// `issuer`, `issuer_host`, `ghes` and `static_jwks`, for templates.
    pub fn variables(&self) -> Variables {
        Variables::new()
            .with("issuer_host", self.host())
            .with("ghes", self.ghes())
            .with("static_jwks", self.key_set().to_string())
    }

    /// Its key set, as it is served.
    pub fn key_set(&self) -> Value {
        serde_json::json!({"keys": self.state(|state| state.keys.clone())})
    }

    /// Changes the key set.
    pub fn set_keys(&self, keys: Vec<Value>) {
        self.state(|state| state.keys = keys);
    }

    /// The key that the token endpoint signs with.
    pub fn set_signer(&self, signer: &'static Key) {
        self.state(|state| state.signer = signer);
    }

    /// Changes the claims that the token endpoint puts into a platform's tokens.
    pub fn change_claims(&self, platform: &str, change: impl FnOnce(&mut Map<String, Value>)) {
        self.state(|state| change(state.claims.get_mut(platform).unwrap()));
    }

    /// From now on, the endpoint fails like this.
    pub fn fail(&self, endpoint: Endpoint, fault: Fault) {
        self.fail_times(endpoint, usize::MAX, fault);
    }

    /// The endpoint fails like this for the next `times` requests.
    pub fn fail_times(&self, endpoint: Endpoint, times: usize, fault: Fault) {
        self.state(|state| state.faults.insert(endpoint, (times, fault)));
    }

    /// The endpoint works again.
    pub fn heal(&self, endpoint: Endpoint) {
        self.state(|state| state.faults.remove(&endpoint));
    }

    /// How many requests the endpoint has had.
    pub fn count(&self, endpoint: Endpoint) -> usize {
        self.state(|state| state.requests.iter().filter(|request| request.endpoint == endpoint).count())
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Request> {
        self.state(|state| state.requests.clone())
    }

    /// Every token that its endpoints have handed out.
    pub fn minted(&self) -> Vec<String> {
        self.state(|state| state.minted.clone())
    }

    /// Stops listening for TLS: connections are refused.
    pub fn stop(&mut self) {
        self.tls = None;
    }

    /// Listens again, on the same port.
    pub fn resume(&mut self) {
        let listener = super::wait_for("the issuer's port", || TcpListener::bind(self.shared.address).ok());
        let shared = Arc::clone(&self.shared);
        self.tls = Some(Port::open(listener, move |stream| connection::tls(&shared, stream)));
    }

    /// A token of a platform's usual claims for this audience, as its endpoint would mint it.
    pub fn token(&self, platform: &str, audience: &str) -> Token {
        self.shared.token(platform, audience)
    }

    /// What a GitHub job has in its environment: `GITHUB_ACTIONS`, the token
    /// endpoint and trust in it. Files and `RUNNER_TEMP` are the test's affair.
    pub fn github_environment(&self) -> Vec<(String, String)> {
        [
            ("CI", "true".to_owned()),
            ("GITHUB_ACTIONS", "true".to_owned()),
            ("GITHUB_REPOSITORY", "octo-org/octo-repo".to_owned()),
            ("GITHUB_RUN_ID", "20143266074".to_owned()),
            ("GITHUB_RUN_ATTEMPT", "1".to_owned()),
            ("ACTIONS_ID_TOKEN_REQUEST_URL", self.url("/actions/idtoken?api-version=2.0")),
            ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", REQUEST_TOKEN.to_owned()),
            ("SSL_CERT_FILE", self.ca_file().display().to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// What a CircleCI job has in its environment. With `program`, a folder,
    /// a command `circleci` that mints tokens is put into it; it belongs in
    /// front of `PATH`.
    pub fn circleci_environment(&self, program: Option<&Path>) -> Vec<(String, String)> {
        if let Some(folder) = program {
            self.write_minter(&folder.join("circleci"), "circleci");
        }
        let claims = self.state(|state| state.claims["circleci"].clone());
        let organization = claims["oidc.circleci.com/org-id"].as_str().unwrap().to_owned();
        let token = self.token("circleci", &organization).mint();
        [
            ("CI", "true".to_owned()),
            ("CIRCLECI", "true".to_owned()),
            ("CIRCLE_OIDC_TOKEN_V2", token.clone()),
            ("CIRCLE_OIDC_TOKEN", token),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// What an Azure DevOps job has in its environment, when it passes its access token on.
    pub fn azure_environment(&self) -> Vec<(String, String)> {
        [
            ("TF_BUILD", "True".to_owned()),
            ("SYSTEM_OIDCREQUESTURI", self.url("/octo-org/project/_apis/distributedtask/jobs/1/oidctoken")),
            ("SYSTEM_ACCESSTOKEN", REQUEST_TOKEN.to_owned()),
            ("SSL_CERT_FILE", self.ca_file().display().to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// Writes a platform's own command, which has this issuer mint tokens.
    pub fn write_minter(&self, path: &Path, platform: &str) {
        connection::write_minter(path, platform, self.plain.as_ref().unwrap().address);
    }

    fn state<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        with(&mut self.shared.state.lock().unwrap())
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Relaxed);
    }
}

impl Port {
    /// Serves every connection on a thread of its own.
    fn open(listener: TcpListener, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            let serve = Arc::new(serve);
            move || {
                for stream in listener.incoming() {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let Ok(stream) = stream else { continue };
                    let serve = Arc::clone(&serve);
                    std::thread::spawn(move || serve(stream));
                }
            }
        });
        Self { address, stop, thread: Some(thread) }
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes `accept`, which then closes the port.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A throw-away CA, written to `issuer-ca.pem`, and a server certificate by it.
fn certify(directory: &Path) -> Arc<ServerConfig> {
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "test issuer CA");
    let ca_key = KeyPair::generate().unwrap();
    let root = ca.self_signed(&ca_key).unwrap();
    std::fs::write(directory.join("issuer-ca.pem"), root.pem()).unwrap();
    let ca = rcgen::Issuer::new(ca, ca_key);
    let names = NAMES.iter().map(|name| (*name).to_owned()).chain(["127.0.0.1".to_owned()]);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(names.collect::<Vec<_>>()).unwrap().signed_by(&key, &ca).unwrap();
    let chain: Vec<CertificateDer<'static>> = vec![leaf.der().clone(), root.der().clone()];
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    Arc::new(config)
}
