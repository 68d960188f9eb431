//! An authority of the test's own: what it states, lists and leaves out is the test's to say. By the wire contract alone.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard};

use jsonwebtoken::Header;
use machine_id::jws::sign_eddsa;
use machine_id::krl;
use machine_id::wire::{CrlHash, Endorsement, RevokedNow, STATEMENT, Statement, TrustAnchors, Watched};
use rcgen::SigningKey as _;
use ring::digest::{SHA256, digest};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustls::ServerConfig;
use ssh_key::LineEnding;
use ssh_key::private::{Ed25519Keypair, PrivateKey};
use tempfile::TempDir;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _};

use super::process::{self, Running, machine_id};
use super::{base64url, now, wait_for};

mod serve;
mod tls_ca;

pub use tls_ca::TlsCa;

/// What it has, which a test may change.
pub struct State {
    pub cluster: String,
    pub number: u64,
    /// Which of its statement keys signs, and which it lists.
    pub signer: u8,
    pub keys: Vec<u8>,
    pub ssh_user_cas: Vec<u8>,
    pub ssh_host_cas: Vec<u8>,
    /// Those that are believed no more, by index; and the TLS ones in PEM.
    pub revoked_cas: Vec<u8>,
    pub revoked_tls: Vec<String>,
    pub tls: Vec<TlsCa>,
    /// Which of them signs.
    pub signing: usize,
    pub endorsements: Vec<Endorsement>,
    pub ssh: Vec<(u64, i64)>,
    /// What the TLS CA that signs has revoked, and what the others have.
    pub x509: Vec<(u64, i64)>,
    pub former: Vec<(u64, i64)>,
    pub urgent: u64,
    /// When what it makes is made; nothing for now.
    pub made: Option<i64>,
    /// What is given at a path in place of the truth: a status, and a body.
    pub lies: Vec<(&'static str, u16, Vec<u8>)>,
    /// What is given byte by byte, for as long as it stands here.
    pub slow: Vec<&'static str>,
    /// Watchers hear nothing, at first either.
    pub is_silent: bool,
    server: Arc<ServerConfig>,
    watchers: Vec<Sender<Vec<u8>>>,
    asked: Vec<String>,
    /// Whom those who asked believe, by what they say.
    pub trusts: Vec<Option<String>>,
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
            ssh_host_cas: self.ssh_host_cas.iter().map(line).collect(),
            ssh_user_cas: self.ssh_user_cas.iter().map(line).collect(),
            tls_cas: self.tls.iter().map(|ca| ca.pem.clone()).collect(),
        }
    }

    fn krl(&self) -> Vec<u8> {
        let serials: Vec<u64> = self.ssh.iter().map(|(serial, _)| *serial).collect();
        let blob = |ca: &u8| ssh_ca(*ca).public_key().to_bytes().unwrap();
        let of_cas = self.ssh_user_cas.iter().map(|ca| (blob(ca), serials.clone())).collect();
        let list = krl::write(self.number, u64::try_from(hour()).unwrap(), of_cas);
        krl::revoking_keys(list, &self.revoked_cas.iter().map(blob).collect::<Vec<_>>()).unwrap()
    }

    /// The list of the CA that signs in DER, signed anew as by another replica, and what is signed of it.
    fn crl(&self) -> (Vec<u8>, Vec<u8>) {
        self.crl_of(self.signing)
    }

    fn crl_of(&self, ca: usize) -> (Vec<u8>, Vec<u8>) {
        let revoked = if ca == self.signing { &self.x509 } else { &self.former };
        let der = self.tls[ca].crl(self.number, revoked);
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
            crls: (0..self.tls.len()).filter(|ca| *ca != self.signing).map(|ca| self.crl_hash(ca)).collect(),
            revoked_cas: self
                .revoked_cas
                .iter()
                .map(|ca| ssh_ca(*ca).public_key().to_openssh().unwrap())
                .chain(self.revoked_tls.iter().cloned())
                .collect(),
            since,
            revoked,
            urgent: self.urgent,
        }
    }

    fn crl_hash(&self, ca: usize) -> CrlHash {
        let pin = self.tls[ca].pin();
        CrlHash { ca: pin.trim_start_matches("sha256:").to_owned(), hash: hex_hash(&self.crl_of(ca).1) }
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

    /// A new TLS CA, which the first one vouches for, is trusted besides; its pin.
    pub fn add_tls(&mut self) -> String {
        let next = TlsCa::fresh();
        self.endorse("tls", &next.pem);
        let pin = next.pin();
        self.tls.push(next);
        pin
    }

    /// It signs from now on, and nobody else's word is in the chain.
    pub fn rotate_tls(&mut self) {
        self.add_tls();
        self.sign_by(1);
        let next = &self.tls[1];
        self.server = next.server(std::slice::from_ref(&next.der));
    }

    /// That TLS CA signs from now on; where it is not the first, with the first one's word for it.
    pub fn sign_by(&mut self, ca: usize) {
        if ca != self.signing {
            (self.signing, self.x509, self.former) =
                (ca, std::mem::take(&mut self.former), std::mem::take(&mut self.x509));
        }
        let (first, next) = (&self.tls[0], &self.tls[ca]);
        let mut chain = vec![first.der.clone()];
        if ca != 0 {
            chain.insert(0, next.params.signed_by(next.issuer.key(), &first.issuer).unwrap().der().clone());
        }
        self.server = next.server(&chain);
    }

    /// From now on its certificate is by that CA, whoever is stated; what it was before.
    pub fn serve_by(&mut self, ca: &TlsCa) -> Arc<ServerConfig> {
        std::mem::replace(&mut self.server, ca.server(std::slice::from_ref(&ca.der)))
    }

    /// So it is again.
    pub fn serve(&mut self, server: Arc<ServerConfig>) {
        self.server = server;
    }

    /// The first TLS CA is trusted no more.
    pub fn finish_tls(&mut self) {
        self.tls.remove(0);
        self.signing = 0;
        let next = &self.tls[0];
        self.server = next.server(std::slice::from_ref(&next.der));
        self.former.clear();
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
            _ => match path.strip_prefix("/v1/revoked/tls.crl?ca=") {
                Some(ca) => match (0..self.tls.len()).find(|at| self.tls[*at].pin().ends_with(ca)) {
                    Some(at) => self.crl_of(at).0,
                    None => return (404, Vec::new()),
                },
                None => return (404, Vec::new()),
            },
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
            ssh_host_cas: vec![9],
            revoked_cas: Vec::new(),
            revoked_tls: Vec::new(),
            server: tls.server(std::slice::from_ref(&tls.der)),
            tls: vec![tls],
            signing: 0,
            endorsements: Vec::new(),
            ssh: Vec::new(),
            x509: Vec::new(),
            former: Vec::new(),
            urgent: 0,
            made: None,
            lies: Vec::new(),
            slow: Vec::new(),
            is_silent: false,
            watchers: Vec::new(),
            asked: Vec::new(),
            trusts: Vec::new(),
        };
        let state = Arc::new(Mutex::new(state));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn({
            let state = Arc::downgrade(&state);
            move || {
                for stream in listener.incoming().flatten() {
                    let Some(state) = state.upgrade() else { return };
                    std::thread::spawn(move || serve::serve(stream, &state));
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

    /// Its URL.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The key of one of its SSH CAs, in a file.
    pub fn ssh_ca_file(&self, index: u8) -> PathBuf {
        let path = self.path(&format!("ssh_ca-{index}"));
        std::fs::write(&path, ssh_ca(index).to_openssh(LineEnding::LF).unwrap().as_bytes()).unwrap();
        process::succeed(process::command("chmod").arg("600").arg(&path));
        path
    }

    /// `machine-id host WHAT` for its folder `trust`.
    pub fn host(&self, what: &str) -> Command {
        self.host_in(what, &self.path("trust"))
    }

    /// The same for another one.
    pub fn host_in(&self, what: &str, trust: &Path) -> Command {
        let mut host = self.host_by(what, trust);
        host.arg("--ca-file").arg(self.path("ca.crt"));
        host
    }

    /// The same, believing nobody yet.
    pub fn host_by(&self, what: &str, trust: &Path) -> Command {
        let mut host = machine_id(["host", what, "--authority", &self.url()]);
        host.arg("--dir").arg(trust);
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

    /// Whether `tls.crl` is the present one, whoever has signed it.
    pub fn has_crl(&self) -> bool {
        let there = std::fs::read(self.path("trust/tls.crl")).unwrap_or_default();
        let present = self.state().crl().1;
        x509_parser::pem::Pem::iter_from_buffer(&there).flatten().any(|pem| {
            let (_, list) = CertificateRevocationList::from_der(&pem.contents).unwrap();
            list.tbs_cert_list.as_ref() == present
        })
    }

    /// A certificate by its first user CA.
    pub fn certificate(&self, serial: u64) -> PathBuf {
        self.certificate_by(&self.path("user_ca"), serial)
    }

    /// A certificate by a user CA whose key is in that file.
    pub fn certificate_by(&self, ca: &Path, serial: u64) -> PathBuf {
        let key = self.path(&format!("key-{serial}"));
        process::succeed(
            process::command("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key),
        );
        let mut sign = process::command("ssh-keygen");
        let principals = format!("deploy,{}", super::sshd::login());
        sign.args(["-q", "-I", "job", "-n", &principals, "-V", "+1h", "-z", &serial.to_string(), "-s"]);
        process::succeed(sign.arg(ca).arg(key.with_extension("pub")));
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
