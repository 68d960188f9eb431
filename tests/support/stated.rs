//! An authority of the test's own: what it states, lists and leaves out is the test's to say. By the wire contract alone.

use std::io::{self, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jsonwebtoken::Header;
use machine_id::jws::sign_eddsa;
use machine_id::krl;
use machine_id::wire::{Endorsement, RevokedNow, STATEMENT, Statement, TrustAnchors, Watched};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, RevokedCertParams, SerialNumber, SigningKey as _,
};
use ring::digest::{SHA256, digest};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use ssh_key::LineEnding;
use ssh_key::private::{Ed25519Keypair, PrivateKey};
use tempfile::TempDir;
use time::OffsetDateTime;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _};

use super::process::{self, Running, machine_id};
use super::{base64url, now, wait_for};

/// A CA of X.509.
pub struct TlsCa {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: CertificateDer<'static>,
}

impl TlsCa {
    pub fn fresh() -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).unwrap();
        let (pem, der) = (certificate.pem(), certificate.der().clone());
        Self { issuer: Issuer::new(params, key), pem, der }
    }

    fn server(&self) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&key, &self.issuer).unwrap().der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf, self.der.clone()], key);
        Arc::new(config.unwrap())
    }

    fn crl(&self, number: u64, serials: &[(u64, i64)]) -> Vec<u8> {
        let time = |unix| OffsetDateTime::from_unix_timestamp(unix).unwrap();
        let revoked = |(serial, _): &(u64, i64)| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: time(hour()),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: time(hour()),
            next_update: time(hour() + 86_400),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().der().to_vec()
    }
}

/// What it has, which a test may change.
pub struct State {
    pub cluster: String,
    pub number: u64,
    /// Which of its statement keys signs, and which it lists.
    pub signer: u8,
    pub keys: Vec<u8>,
    pub ssh_user_cas: Vec<u8>,
    pub tls: Vec<TlsCa>,
    pub endorsements: Vec<Endorsement>,
    pub ssh: Vec<(u64, i64)>,
    pub x509: Vec<(u64, i64)>,
    pub urgent: u64,
    /// When what it makes is made; nothing for now.
    pub made: Option<i64>,
    /// What is given at a path in place of the truth: a status, and a body.
    pub lies: Vec<(&'static str, u16, Vec<u8>)>,
    /// Watchers hear nothing, at first either.
    pub is_silent: bool,
    server: Arc<ServerConfig>,
    watchers: Vec<Sender<Vec<u8>>>,
    asked: Vec<String>,
}

/// The authority; it ends with the test.
pub struct Stated {
    state: Arc<Mutex<State>>,
    address: SocketAddr,
    pub folder: TempDir,
}

fn ssh_ca(index: u8) -> PrivateKey {
    PrivateKey::from(Ed25519Keypair::from_seed(&[index + 1; 32]))
}

/// A statement key as statements list it.
pub fn statement_key(index: u8) -> String {
    base64url(Ed25519KeyPair::from_seed_unchecked(&[40 + index; 32]).unwrap().public_key())
}

/// When lists are made: the last full hour.
fn hour() -> i64 {
    (now() - 60) / 3600 * 3600
}

fn hex_hash(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl State {
    fn trust(&self) -> TrustAnchors {
        let line = |index: &u8| ssh_ca(*index).public_key().to_openssh().unwrap();
        TrustAnchors {
            ssh_host_cas: vec![line(&9)],
            ssh_user_cas: self.ssh_user_cas.iter().map(line).collect(),
            tls_cas: self.tls.iter().map(|ca| ca.pem.clone()).collect(),
        }
    }

    fn krl(&self) -> Vec<u8> {
        let serials: Vec<u64> = self.ssh.iter().map(|(serial, _)| *serial).collect();
        let of_ca = |ca: &u8| (ssh_ca(*ca).public_key().to_bytes().unwrap(), serials.clone());
        krl::write(self.number, u64::try_from(hour()).unwrap(), self.ssh_user_cas.iter().map(of_ca).collect())
    }

    /// The list in DER, signed anew as by another replica, and what is signed of it.
    fn crl(&self) -> (Vec<u8>, Vec<u8>) {
        let der = self.tls.last().unwrap().crl(self.number, &self.x509);
        let (_, list) = CertificateRevocationList::from_der(&der).unwrap();
        let signed = list.tbs_cert_list.as_ref().to_vec();
        (der, signed)
    }

    /// What it states now, with what is new since a number.
    pub fn statement(&self, since: Option<u64>, revoked: Vec<RevokedNow>) -> Statement {
        let made = self.made.unwrap_or_else(now);
        Statement {
            cluster: self.cluster.clone(),
            number: self.number,
            made,
            until: made + 600,
            trust: self.trust(),
            endorsements: self.endorsements.clone(),
            statement_keys: self.keys.iter().map(|key| statement_key(*key)).collect(),
            krl: hex_hash(&self.krl()),
            crl: hex_hash(&self.crl().1),
            since,
            revoked,
            urgent: self.urgent,
        }
    }

    /// A line of it.
    pub fn line(&self, statement: &Statement) -> Vec<u8> {
        let header = Header { typ: Some(STATEMENT.to_owned()), ..Header::default() };
        let jws = sign_eddsa(&[40 + self.signer; 32], header, statement).unwrap();
        let mut line = serde_json::to_vec(&Watched { statement: jws.expose().to_owned() }).unwrap();
        line.push(b'\n');
        line
    }

    /// That the first TLS CA vouches for another one of that kind.
    pub fn endorse(&mut self, kind: &str, new: &str) {
        let message = Endorsement::message(&self.cluster, kind, new);
        let signature = base64url(self.tls[0].issuer.key().sign(message.as_bytes()).unwrap());
        let by = self.tls[0].pem.clone();
        self.endorsements.push(Endorsement { kind: kind.to_owned(), new: new.to_owned(), by, signature });
    }

    /// A new TLS CA, which the first one vouches for, signs from now on.
    pub fn rotate_tls(&mut self) {
        let next = TlsCa::fresh();
        self.server = next.server();
        self.endorse("tls", &next.pem);
        self.tls.push(next);
    }

    /// What is given at a path.
    pub fn answer(&self, path: &str) -> (u16, Vec<u8>) {
        if let Some((_, status, body)) = self.lies.iter().find(|lie| lie.0 == path) {
            return (*status, body.clone());
        }
        let body = match path {
            "/v1/statement" => self.line(&self.statement(None, Vec::new())),
            "/v1/trust" => serde_json::to_vec(&self.trust()).unwrap(),
            "/v1/revoked/ssh.krl" => self.krl(),
            "/v1/revoked/tls.crl" => self.crl().0,
            "/v1/revoked" => {
                let all: Vec<String> = self
                    .ssh
                    .iter()
                    .chain(&self.x509)
                    .map(|(serial, end)| format!("\"{serial}\":{end}"))
                    .collect();
                format!("{{\"expires\":{{{}}}}}", all.join(",")).into_bytes()
            }
            _ => return (404, Vec::new()),
        };
        (200, body)
    }
}

impl Stated {
    pub fn start() -> Self {
        let tls = TlsCa::fresh();
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("ca.crt"), &tls.pem).unwrap();
        let key = ssh_ca(0).to_openssh(LineEnding::LF).unwrap();
        std::fs::write(folder.path().join("user_ca"), key.as_bytes()).unwrap();
        process::succeed(process::command("chmod").arg("600").arg(folder.path().join("user_ca")));
        let state = State {
            cluster: "id.example.com".to_owned(),
            number: 1 << 40,
            signer: 0,
            keys: vec![0],
            ssh_user_cas: vec![0],
            server: tls.server(),
            tls: vec![tls],
            endorsements: Vec::new(),
            ssh: Vec::new(),
            x509: Vec::new(),
            urgent: 0,
            made: None,
            lies: Vec::new(),
            is_silent: false,
            watchers: Vec::new(),
            asked: Vec::new(),
        };
        let state = Arc::new(Mutex::new(state));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn({
            let state = Arc::downgrade(&state);
            move || {
                for stream in listener.incoming().flatten() {
                    let Some(state) = state.upgrade() else { return };
                    std::thread::spawn(move || serve(stream, &state));
                }
            }
        });
        Self { state, address, folder }
    }

    /// What it has, to be looked at and changed.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `machine-id host WHAT` for its folder `trust`.
    pub fn host(&self, what: &str) -> Command {
        self.host_in(what, &self.path("trust"))
    }

    /// The same for another one.
    pub fn host_in(&self, what: &str, trust: &Path) -> Command {
        let mut host = machine_id(["host", what, "--authority", &format!("https://{}", self.address)]);
        host.arg("--dir").arg(trust).arg("--ca-file").arg(self.path("ca.crt"));
        host
    }

    /// Runs `host watch` with these arguments until all its files are there.
    #[track_caller]
    pub fn watch<const N: usize>(&self, args: [&str; N]) -> Running {
        let running = self.begin(args);
        wait_for("the files", || self.path("trust/tls_ca.crt").exists().then_some(()));
        wait_for("a watcher", || (!self.state().watchers.is_empty()).then_some(()));
        running
    }

    #[track_caller]
    pub fn begin<const N: usize>(&self, args: [&str; N]) -> Running {
        let mut watch = self.host("watch");
        watch.args(args).stderr(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        Running::start(&mut watch)
    }

    /// Revokes a certificate, and tells the watchers.
    pub fn revoke(&self, ssh: bool, serial: u64, is_urgent: bool) {
        let mut state = self.state();
        let (before, expires) = (state.number, now() + 3600);
        if ssh { &mut state.ssh } else { &mut state.x509 }.push((serial, expires));
        state.number += 1;
        if is_urgent {
            state.urgent = state.number;
        }
        let line = state.line(&state.statement(Some(before), vec![RevokedNow { serial, ssh, expires }]));
        drop(state);
        self.say(&line);
    }

    /// Tells the watchers what is so.
    pub fn beat(&self) {
        let state = self.state();
        let line = state.line(&state.statement(Some(state.number), Vec::new()));
        drop(state);
        self.say(&line);
    }

    /// Tells the watchers that.
    pub fn say(&self, line: &[u8]) {
        self.state().watchers.retain(|watcher| watcher.send(line.to_vec()).is_ok());
    }

    /// Ends the connections of its watchers.
    pub fn hang_up(&self) {
        self.state().watchers.clear();
    }

    /// How often something was asked for that begins like this.
    pub fn asked(&self, path: &str) -> usize {
        self.state().asked.iter().filter(|asked| *asked == path).count()
    }

    /// How many connections watchers have made.
    pub fn watched(&self) -> usize {
        self.state().asked.iter().filter(|asked| asked.starts_with("/v1/watch")).count()
    }

    /// The last question of a watcher.
    pub fn last_watch(&self) -> String {
        let state = self.state();
        state.asked.iter().rfind(|asked| asked.starts_with("/v1/watch")).cloned().unwrap_or_default()
    }

    /// The serials that the folder's KRL has.
    pub fn serials(&self) -> Vec<u64> {
        krl::read(&std::fs::read(self.path("trust/revoked.krl")).unwrap_or_default())
            .map(|krl| krl.serials)
            .unwrap_or_default()
    }

    /// A certificate by its user CA.
    pub fn certificate(&self, serial: u64) -> PathBuf {
        let key = self.path(&format!("key-{serial}"));
        process::succeed(
            process::command("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key),
        );
        let mut sign = process::command("ssh-keygen");
        sign.args(["-q", "-I", "job", "-n", "deploy", "-V", "+1h", "-z", &serial.to_string(), "-s"]);
        process::succeed(sign.arg(self.path("user_ca")).arg(key.with_extension("pub")));
        self.path(&format!("key-{serial}-cert.pub"))
    }

    /// Whether `sshd` would refuse it by the folder's KRL.
    pub fn refuses(&self, certificate: &Path) -> bool {
        let mut query = process::command("ssh-keygen");
        let output =
            process::run(query.arg("-Q").arg("-f").arg(self.path("trust/revoked.krl")).arg(certificate));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(said.contains("REVOKED"), !output.status.success(), "{output:?}");
        !output.status.success()
    }
}

fn serve(socket: TcpStream, state: &Mutex<State>) {
    let _ = socket.set_read_timeout(Some(Duration::from_secs(60)));
    let _ = socket.set_nodelay(true);
    let server = Arc::clone(&state.lock().unwrap().server);
    let Ok(connection) = ServerConnection::new(server) else { return };
    let mut stream = BufReader::new(StreamOwned::new(connection, socket));
    while let Ok(path) = read(&mut stream) {
        let to = stream.get_mut();
        state.lock().unwrap().asked.push(path.clone());
        if let Some(query) = path.strip_prefix("/v1/watch") {
            let _ = watched(to, state, query);
            return;
        }
        let (status, body) = state.lock().unwrap().answer(&path);
        let head = format!("HTTP/1.1 {status} Test\r\nContent-Length: {}\r\n\r\n", body.len());
        if to.write_all(&[head.as_bytes(), &body].concat()).and_then(|()| to.flush()).is_err() {
            return;
        }
    }
}

fn watched(to: &mut impl Write, state: &Mutex<State>, query: &str) -> io::Result<()> {
    let (sender, lines): (_, Receiver<Vec<u8>>) = channel();
    let first = {
        let mut state = state.lock().unwrap();
        if state.lies.iter().any(|lie| lie.0 == "/v1/watch") {
            return to.write_all(b"HTTP/1.1 503 Test\r\nContent-Length: 0\r\n\r\n");
        }
        let since = query.strip_prefix("?since=").and_then(|since| since.parse().ok());
        let is_known = since == Some(state.number);
        state.watchers.push(sender);
        (!state.is_silent).then(|| state.line(&state.statement(since.filter(|_| is_known), Vec::new())))
    };
    to.write_all(b"HTTP/1.1 200 Test\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    to.flush()?;
    for line in first.into_iter().chain(lines.iter()) {
        write!(to, "{:x}\r\n", line.len())?;
        to.write_all(&line)?;
        to.write_all(b"\r\n")?;
        to.flush()?;
    }
    Ok(())
}

fn read(stream: &mut impl io::BufRead) -> io::Result<String> {
    let mut path = None;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line.trim_end().is_empty() {
            return path.ok_or_else(|| io::ErrorKind::InvalidData.into());
        }
        path.get_or_insert_with(|| line.split(' ').nth(1).unwrap_or_default().to_owned());
    }
}
