//! The real authority, in a temporary folder, on a loopback port; ended with
//! its value.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tempfile::TempDir;

use super::client::{Client, timed};
use super::cluster::Role;
use super::issuer::Issuer;
use super::port::free_port;
use super::process::{self, MACHINE_ID, Running, machine_id};
use super::replicas::{self, DONE, FORGET, PASS, SET};
use super::{PATIENCE, wait_for};

/// The cluster of every test authority.
pub const CLUSTER: &str = "id.test";

/// What is done to a folder of keys.
type Exchange = Box<dyn FnOnce(&Path)>;

/// An authority before it starts.
pub struct Builder {
    policy: String,
    cluster: &'static str,
    issuer_ca: Option<PathBuf>,
    environment: Vec<(String, String)>,
    config: String,
    store: Option<[String; 2]>,
    init: Vec<String>,
    keys: String,
    keys_environment: Vec<(String, String)>,
    within: PathBuf,
    exchange: Option<Exchange>,
}

/// A running authority.
pub struct Authority {
    directory: TempDir,
    address: SocketAddr,
    url: String,
    /// Where its clock is held, which then stands at so many seconds since 1970 when it starts.
    clock: Option<i64>,
    environment: Vec<(String, String)>,
    /// What every command needs to find its keys.
    keys_environment: Vec<(String, String)>,
    program: PathBuf,
    process: Option<Running>,
    client: Client,
}

impl Builder {
    /// Of another cluster than [`CLUSTER`].
    #[must_use]
    pub fn cluster(self, cluster: &'static str) -> Self {
        Self { cluster, ..self }
    }

    /// Trusts this issuer's CA for discovery and key sets.
    #[must_use]
    pub fn issuer(mut self, issuer: &Issuer) -> Self {
        self.issuer_ca = Some(issuer.ca_file());
        self
    }

    /// Reaches issuers through this proxy: see [`Issuer::proxy`].
    #[must_use]
    pub fn proxy(self, url: &str) -> Self {
        self.environment("HTTPS_PROXY", url)
    }

    /// With this variable in its environment.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With these lines in its `authority.yaml`.
    #[must_use]
    pub fn config(mut self, lines: &str) -> Self {
        self.config.push_str(lines);
        self
    }

    /// With its store there: its URL for the database's owner, who makes the schema, and for the authority.
    #[must_use]
    pub fn store(mut self, owner: &str, server: &str) -> Self {
        self.store = Some([owner, server].map(str::to_owned));
        self
    }

    /// With these options of `init`.
    #[must_use]
    pub fn init<const N: usize>(mut self, options: [&str; N]) -> Self {
        self.init.extend(options.map(str::to_owned));
        self
    }

    /// With what this does to the folder of its keys before it starts.
    #[must_use]
    pub fn exchanging_keys(mut self, exchange: impl FnOnce(&Path) + 'static) -> Self {
        self.exchange = Some(Box::new(exchange));
        self
    }

    /// With its data directory somewhere in this folder.
    #[must_use]
    pub fn within(mut self, folder: &Path) -> Self {
        folder.clone_into(&mut self.within);
        self
    }

    /// Makes its keys there (`init --keys`); all its commands find them by this environment.
    #[must_use]
    pub fn keys(self, keys: &str, environment: &[(&str, &str)]) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let keys_environment = environment.iter().map(owned).collect();
        Self { keys: keys.to_owned(), keys_environment, ..self }
    }

    /// `authority init`, then `authority serve`.
    #[track_caller]
    pub fn start(self) -> Authority {
        let directory = TempDir::new_in(&self.within).unwrap();
        let address = free_port();
        let url = format!("https://{address}");
        let data = data_dir(&directory);
        process::succeed(
            machine_id(["authority", "init", "--cluster", self.cluster, "--public-url", &url, "--data-dir"])
                .arg(&data)
                .args(&self.init)
                .args(["--keys", &self.keys])
                .envs(self.keys_environment.iter().cloned()),
        );
        self.configure(&data, address);
        if let Some(exchange) = self.exchange {
            exchange(&data.join("keys"));
        }
        let mut authority = Authority {
            client: Client::new(address),
            directory,
            address,
            url,
            clock: None,
            environment: self.environment.clone(),
            keys_environment: self.keys_environment.clone(),
            program: MACHINE_ID.into(),
            process: None,
        };
        if let Some([owner, server]) = &self.store {
            authority.set_store(owner);
            let roles = [Role::Server, Role::Reader].map(Role::name);
            let upgrade = ["upgrade", "--server-role", roles[0], "--reader-role", roles[1]];
            process::succeed(&mut authority.command(upgrade));
            authority.set_store(server);
        }
        authority.restart();
        let ca = process::succeed(&mut authority.command(["export", "tls-ca"]));
        std::fs::write(authority.ca_file(), &ca).unwrap();
        authority.client = Client::trusting(address, &ca);
        authority
    }

    /// What `init` wrote stays, but for the keys that a test needs otherwise.
    fn configure(&self, data: &Path, address: SocketAddr) {
        let file = data.join("authority.yaml");
        let ours = ["listen:", "issuer_ca_file:"];
        let is_kept = |line: &&str| !ours.iter().any(|key| line.starts_with(key));
        let text = process::read(&file);
        let mut config: String = text.lines().filter(is_kept).map(|line| format!("{line}\n")).collect();
        config.push_str(&format!("listen: {address}\n{}", self.config));
        if let Some(path) = &self.issuer_ca {
            config.push_str(&format!("issuer_ca_file: {}\n", path.display()));
        }
        std::fs::write(file, config).unwrap();
        std::fs::write(data.join("policy/test.yaml"), &self.policy).unwrap();
    }
}

impl Authority {
    /// An authority with this policy, not started yet.
    pub fn with_policy(policy: &str) -> Builder {
        Builder {
            policy: policy.to_owned(),
            cluster: CLUSTER,
            issuer_ca: None,
            environment: Vec::new(),
            config: String::new(),
            store: None,
            init: Vec::new(),
            keys: "file:keys".to_owned(),
            keys_environment: Vec::new(),
            within: std::env::temp_dir(),
            exchange: None,
        }
    }

    /// One with this policy that asks no issuer (`static_jwks`).
    #[track_caller]
    pub fn start(policy: &str) -> Self {
        Self::with_policy(policy).start()
    }

    /// One with this policy that trusts this issuer.
    #[track_caller]
    pub fn trusting(issuer: &Issuer, policy: &str) -> Self {
        Self::with_policy(policy).issuer(issuer).start()
    }

    /// Another that shares its store: a copy of its data directory, with an address of its own.
    #[track_caller]
    pub fn replica(&self) -> Self {
        let directory = TempDir::new().unwrap();
        process::succeed(
            process::command("cp").arg("-a").arg(self.directory.path().join(".")).arg(directory.path()),
        );
        let address = free_port();
        let mut replica = self.replica_in(directory, address);
        replica.configure("listen", &address.to_string());
        replica.restart();
        replica
    }

    /// The one whose data directory is `authority` in that folder; it is not started yet.
    pub fn replica_in(&self, directory: TempDir, address: SocketAddr) -> Self {
        Self {
            client: self.client.of(address),
            directory,
            address,
            url: self.url(),
            clock: None,
            environment: self.environment.clone(),
            keys_environment: self.keys_environment.clone(),
            program: self.program.clone(),
            process: None,
        }
    }

    /// Changes a line of its `authority.yaml`, or adds it; it reads it when it starts.
    #[track_caller]
    pub fn configure(&self, key: &str, value: &str) {
        let file = self.data_dir().join("authority.yaml");
        let is_other = |line: &&str| !line.starts_with(&format!("{key}:"));
        let others: String =
            process::read(&file).lines().filter(is_other).map(|line| format!("{line}\n")).collect();
        std::fs::write(file, format!("{others}{key}: {value}\n")).unwrap();
    }

    /// Has its store there, from its next start on.
    #[track_caller]
    pub fn set_store(&self, url: &str) {
        self.configure("store", &format!("'{url}'"));
    }

    /// Its public URL, `https://127.0.0.1:PORT` of the first of its replicas: the audience of tokens.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its TLS CA in PEM, for `--ca-file`.
    pub fn ca_file(&self) -> PathBuf {
        self.directory.path().join("tls-ca.pem")
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        data_dir(&self.directory)
    }

    /// TLS of whoever has its address and a certificate by its TLS CA.
    #[track_caller]
    pub fn tls_of_another(&self) -> Arc<ServerConfig> {
        let folder = TempDir::new().unwrap();
        let out = folder.path().join("server");
        process::succeed(self.command(["sign-server", "--name", "127.0.0.1"]).arg("--out").arg(&out));
        let chain =
            CertificateDer::pem_file_iter(out.join("server.crt")).unwrap().map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(out.join("server.key")).unwrap();
        let tls = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        Arc::new(tls)
    }

    /// A client that trusts it.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Its answer to whoever asks whether it is ready.
    #[track_caller]
    pub fn is_ready(&self) -> bool {
        let (answer, time) = timed(|| self.client.get("/readyz"));
        assert!(time < Duration::from_secs(5), "{time:?}");
        if answer.status != 200 {
            assert_eq!(answer.problem(503)["type"], "urn:machine-id:not-ready");
        }
        answer.status == 200
    }

    /// `machine-id authority ARGS --data-dir DIR`; the first argument is the subcommand.
    pub fn command<const N: usize>(&self, args: [&str; N]) -> Command {
        let mut command = process::command(&self.program);
        command.arg("authority").args(args).arg("--data-dir").arg(self.data_dir());
        command.envs(self.keys_environment());
        command
    }

    /// What it needs to find its keys.
    pub fn keys_environment(&self) -> impl Iterator<Item = (String, String)> {
        self.keys_environment.iter().cloned()
    }

    /// Runs [`Authority::command`] to its end, whatever that is.
    #[track_caller]
    pub fn run<const N: usize>(&self, args: [&str; N]) -> Output {
        process::run(&mut self.command(args))
    }

    /// The audit trail, oldest first as it is printed.
    #[track_caller]
    pub fn audit(&self) -> Vec<Value> {
        let lines = process::succeed(&mut self.command(["audit", "--format", "json"]));
        lines.lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect()
    }

    /// The `refused` record of a denial.
    #[track_caller]
    pub fn refusal(&self, denial_id: &str) -> Value {
        let mine = |event: &Value| event["event"] == "refused" && event["denial_id"] == denial_id;
        self.audit().into_iter().find(mine).unwrap_or_else(|| panic!("no record of the denial {denial_id}"))
    }

    /// The `issued` record of an issuance.
    #[track_caller]
    pub fn issuance(&self, issuance_id: &str) -> Value {
        let mine = |event: &Value| event["event"] == "issued" && event["issuance_id"] == issuance_id;
        let found = self.audit().into_iter().find(mine);
        found.unwrap_or_else(|| panic!("no record of the issuance {issuance_id}"))
    }

    /// What it has said on standard error since it was last started.
    pub fn stderr(&self) -> String {
        self.process.as_ref().map(Running::stderr).unwrap_or_default()
    }

    /// Waits until its standard error holds this.
    #[track_caller]
    pub fn wait_for_stderr(&self, text: &str) {
        wait_for(&format!("{text:?} on the authority's stderr"), || {
            self.stderr().contains(text).then_some(())
        });
    }

    /// Changes its policy; it re-reads it by itself, or on [`Authority::hup`].
    pub fn write_policy(&self, policy: &str) {
        let file = self.data_dir().join("policy/test.yaml");
        let new = self.directory.path().join("new-policy");
        std::fs::write(&new, policy).unwrap();
        std::fs::rename(new, file).unwrap();
    }

    /// The memory that its process holds now (`VmRSS`), in KiB.
    pub fn resident(&self) -> usize {
        let id = self.process.as_ref().expect("a running authority").id();
        let status = process::read(format!("/proc/{id}/status"));
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Is another version of machine-id from its next start on; its commands are at once.
    pub fn set_program(&mut self, program: &Path) {
        program.clone_into(&mut self.program);
    }

    /// Starts it again, which must fail; what it says.
    #[track_caller]
    pub fn refuses_to_start(&mut self) -> String {
        self.kill();
        self.serve().expect_err("it starts")
    }

    /// SIGHUP.
    pub fn hup(&self) {
        self.process.as_ref().expect("a running authority").signal(Signal::HUP);
    }

    /// SIGTERM, without waiting.
    pub fn term(&self) {
        self.process.as_ref().expect("a running authority").signal(Signal::TERM);
    }

    /// SIGTERM, and its status when it has ended.
    #[track_caller]
    pub fn terminate(&mut self) -> ExitStatus {
        self.term();
        self.wait()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        self.process.as_mut().expect("a running authority").wait()
    }

    /// Starts it again with a clock that stands at so many seconds since 1970.
    #[track_caller]
    pub fn restart_with_clock(&mut self, unix: i64) {
        self.clock = Some(unix);
        self.restart();
    }

    /// Sets its clock, which is held.
    #[track_caller]
    pub fn set_clock(&mut self, unix: i64) {
        self.tell(&format!("{SET} {unix}"));
    }

    /// So many seconds seem to pass for it, whose clock is held, without a step of that.
    #[track_caller]
    pub fn pass(&mut self, seconds: i64) {
        self.tell(&format!("{PASS} {seconds}"));
    }

    /// Has it forget what has expired, which it does by itself once a minute.
    #[track_caller]
    pub fn forget(&mut self) {
        self.tell(FORGET);
    }

    fn tell(&mut self, line: &str) {
        let process = self.process.as_mut().expect("a running authority");
        let done = process.stderr().matches(DONE).count();
        process.tell(line);
        wait_for(line, || (process.stderr().matches(DONE).count() > done).then_some(()));
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Starts it again, on the same port and data, after its end or a kill.
    #[track_caller]
    pub fn restart(&mut self) {
        self.kill();
        self.serve().unwrap_or_else(|why| panic!("the authority does not start:\n{why}"));
    }

    fn serve(&mut self) -> Result<(), String> {
        let listen = self.address.to_string();
        let mut command = match self.clock {
            None => self.command(["serve", "--listen", &listen]),
            Some(unix) => replicas::with_held_clock(&self.data_dir(), self.address, unix),
        };
        command.envs(self.environment.iter().cloned()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = Running::start(&mut command);
        let end = Instant::now() + PATIENCE;
        loop {
            let said = process.stderr();
            if said.lines().any(|line| line.contains(&format!("listening on https://{listen}"))) {
                self.process = Some(process);
                return Ok(());
            }
            if process.ended().is_some() {
                // With all that it has said.
                let status = process.wait();
                return Err(format!("it ended with {status}:\n{}", process.stderr()));
            }
            if Instant::now() > end {
                return Err(format!("it does not say that it listens on {listen}:\n{said}"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn data_dir(directory: &TempDir) -> PathBuf {
    directory.path().join("authority")
}
