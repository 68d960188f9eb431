//! Authorities of the tests' own, a root and leaves, by the wire contract alone: what each answers is the test's to say.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use machine_id::wire::{BoundKeys, LeafRequest, binding};
use rcgen::{CertificateParams, CertificateSigningRequestParams, DnType};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use ssh_key::certificate::{Builder, CertType};
use ssh_key::private::{Ed25519Keypair, PrivateKey};
use tempfile::TempDir;
use time::OffsetDateTime;

use super::once::Job;
use super::process::{self, command};
use super::sshd::{Sshd, login};
use super::stated::TlsCa;
use super::{base64url, fresh, now, random};

/// What becomes of a request for certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manner {
    /// It is granted.
    Grants,
    /// It is granted, and the answer is lost on the way.
    Loses,
    /// It is refused, with that denial id.
    Refuses(&'static str),
    /// The connection is cut.
    Cuts,
}

/// What an authority has and does, which a test may change.
pub struct State {
    pub cluster: String,
    /// For each request in turn, and the last for all that follow.
    pub manners: Vec<Manner>,
    /// Which CA signs users, and which hosts.
    user_ca: PrivateKey,
    host_ca: PrivateKey,
    tls: TlsCa,
    /// What it says of leaf clusters: a proof is added to each.
    pub leaves: Vec<Value>,
    /// How long certificates live, in seconds.
    pub life: i64,
    /// The requests for certificates, and the issuances that were given back.
    pub asked: Vec<Value>,
    pub revoked: Vec<String>,
    /// What it has issued.
    pub issued: Vec<String>,
}

/// An authority; it ends with the test.
pub struct Fake {
    state: Arc<Mutex<State>>,
    address: SocketAddr,
    pub pin: String,
}

impl Fake {
    pub fn start(cluster: &str) -> Self {
        let tls = TlsCa::fresh();
        let (pin, server) = (tls.pin(), tls.server(std::slice::from_ref(&tls.der)));
        let ca = || PrivateKey::from(Ed25519Keypair::from_seed(&random::<32>()));
        let state = Arc::new(Mutex::new(State {
            cluster: cluster.to_owned(),
            manners: vec![Manner::Grants],
            user_ca: ca(),
            host_ca: ca(),
            tls,
            leaves: Vec::new(),
            life: 3600,
            asked: Vec::new(),
            revoked: Vec::new(),
            issued: Vec::new(),
        }));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let weak = Arc::downgrade(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let Some(state) = weak.upgrade() else { return };
                let server = Arc::clone(&server);
                std::thread::spawn(move || serve(stream, server, &state));
            }
        });
        Self { state, address, pin }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// What a root says of it, whose hosts are these.
    pub fn as_leaf(&self, hosts: &[&str]) -> Value {
        json!({"name": self.state().cluster, "url": self.url(), "ca_pin": self.pin, "hosts": hosts})
    }

    /// The job, which joins this one.
    pub fn joined_by(&self, job: Job) -> Job {
        job.env("MACHINE_ID_AUTHORITY", self.url())
            .env("MACHINE_ID_CA_PIN", &self.pin)
            .env("MACHINE_ID_TOKEN", "github-deploy")
    }

    /// Whether everything that it has issued was given back.
    pub fn has_all_back(&self) -> bool {
        let state = self.state();
        state.issued.iter().all(|issued| state.revoked.contains(issued))
    }

    /// An sshd whose host certificate is by this one's CA, for these names, and which lets in the users of another.
    pub fn sshd(&self, principals: &[&str], users: &Self) -> FakeHost {
        let folder = TempDir::new().unwrap();
        let path = |name: &str| folder.path().join(name);
        process::succeed(
            command("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path("host_key")),
        );
        let key = ssh_key::PublicKey::from_openssh(&process::read(path("host_key.pub"))).unwrap();
        let certificate = self.state().ssh_certificate(&key, CertType::Host, principals, "host");
        std::fs::write(path("host_key-cert.pub"), certificate).unwrap();
        let ca = users.state().user_ca.public_key().to_openssh().unwrap();
        std::fs::write(path("user_ca.pub"), ca).unwrap();
        let dir = folder.path().display();
        let sshd = Sshd::with_config(&format!(
            "HostKey {dir}/host_key\nHostCertificate {dir}/host_key-cert.pub\nTrustedUserCAKeys {dir}/user_ca.pub\n\
             AuthorizedKeysFile none\n"
        ));
        FakeHost::of(sshd, folder)
    }
}

/// A host that jobs know by a name which no resolver has.
pub struct FakeHost {
    pub sshd: Sshd,
    _folder: TempDir,
}

impl FakeHost {
    /// One whose files are in that folder, which goes with it.
    pub fn of(sshd: Sshd, folder: TempDir) -> Self {
        Self { sshd, _folder: folder }
    }

    /// `ssh -F CONFIG -p PORT NAME` to it, whatever name and port these are; an error is what `ssh` says.
    pub fn login(&self, config: &PathBuf, name: &str, port: &str) -> Result<String, String> {
        let way = format!(
            "ProxyCommand=bash -c 'exec 3<>/dev/tcp/127.0.0.1/{}; cat <&3 & exec cat >&3'",
            self.sshd.port()
        );
        let mut ssh = command("ssh");
        ssh.arg("-F").arg(config).args(["-o", "BatchMode=yes", "-o", &way, "-p", port]);
        let output = process::run(ssh.arg(format!("{}@{name}", login())).arg("echo $SSH_CONNECTION let in"));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }
}

impl State {
    fn ssh_certificate(
        &self,
        key: &ssh_key::PublicKey,
        kind: CertType,
        principals: &[&str],
        id: &str,
    ) -> String {
        let start = u64::try_from(now() - 60).unwrap();
        let end = u64::try_from(now() + self.life).unwrap();
        let mut builder = Builder::new(random::<16>(), key.key_data().clone(), start, end).unwrap();
        builder.cert_type(kind).unwrap().key_id(id).unwrap().serial(u64::from(random::<1>()[0])).unwrap();
        for principal in principals {
            builder.valid_principal(*principal).unwrap();
        }
        if kind == CertType::User {
            builder.extension("permit-pty", "").unwrap();
        }
        let ca = if kind == CertType::User { &self.user_ca } else { &self.host_ca };
        builder.sign(ca).unwrap().to_openssh().unwrap()
    }

    fn exchange(&mut self, request: &Value) -> Value {
        let end = OffsetDateTime::from_unix_timestamp(now() + self.life).unwrap();
        let id = format!("deployer {}", self.cluster);
        let output = |output: &Value| {
            let ssh = output["ssh"]["public_key"].as_str().map(|line| {
                let key = ssh_key::PublicKey::from_openssh(line).unwrap();
                self.ssh_certificate(&key, CertType::User, &[&login()], &id)
            });
            let tls = output["tls"]["csr"].as_str().map(|csr| {
                let mut csr = CertificateSigningRequestParams::from_pem(csr).unwrap();
                csr.params = CertificateParams::default();
                csr.params.distinguished_name.push(DnType::CommonName, "deploy");
                csr.params.not_after = end;
                csr.signed_by(&self.tls.issuer).unwrap().pem()
            });
            json!({"name": output["name"], "serial": "7", "ssh_certificate": ssh, "tls_certificate_chain": tls})
        };
        let outputs: Vec<Value> = request["outputs"].as_array().unwrap().iter().map(output).collect();
        let proof = |leaf: &Value| {
            let mut leaf = leaf.clone();
            let claims = json!({"exp": now() + 300, "iat": now(), "leaf": leaf["name"], "jti": fresh()});
            leaf["proof"] = format!("e30.{}.c2ln{}", base64url(claims.to_string()), fresh()).into();
            leaf
        };
        let named = |leaf: &&Value| {
            request["leaves"].as_array().into_iter().flatten().any(|it| it["name"] == leaf["name"])
        };
        let leaves: Vec<Value> = self.leaves.iter().filter(named).map(proof).collect();
        let issuance = format!("{}-{}", self.cluster, fresh());
        self.issued.push(issuance.clone());
        let line = |key: &PrivateKey| key.public_key().to_openssh().unwrap();
        json!({
            "issuance_id": issuance, "cluster": self.cluster, "bot": "deployer",
            "expires_at": machine_id::clock::rfc3339(end.unix_timestamp()), "outputs": outputs, "leaves": leaves,
            "trust": {"ssh_host_cas": [line(&self.host_ca)], "ssh_user_cas": [line(&self.user_ca)], "tls_cas": [self.tls.pem]},
        })
    }

    /// The answer; nothing where there is none.
    fn answer(&mut self, path: &str, body: &[u8]) -> Option<(u16, Value)> {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        match path {
            "/v1/exchange" => {
                self.asked.push(body.clone());
                let manner =
                    if self.manners.len() > 1 { self.manners.remove(0) } else { self.manners[0].clone() };
                match manner {
                    Manner::Grants => Some((200, self.exchange(&body))),
                    Manner::Loses => {
                        self.exchange(&body);
                        None
                    }
                    Manner::Cuts => None,
                    Manner::Refuses(id) => Some((
                        403,
                        json!({"type": "urn:machine-id:denied", "title": "nothing is mapped", "status": 403, "denial_id": id}),
                    )),
                }
            }
            "/v1/revoke" => {
                self.revoked.push(body["issuance_id"].as_str().unwrap_or_default().to_owned());
                Some((200, json!({})))
            }
            _ => Some((200, json!({"status": "ok"}))),
        }
    }
}

/// What a request of these outputs is bound to, when it asks for these leaves too.
pub fn binding_of(request: &Value) -> String {
    let outputs: Vec<_> = request["outputs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|output| {
            let ssh = output["ssh"]["public_key"].as_str();
            let ssh = ssh.map(|line| ssh_key::PublicKey::from_openssh(line).unwrap().to_bytes().unwrap());
            let tls = output["tls"]["csr"].as_str().map(|csr| {
                use rcgen::PublicKeyData as _;
                CertificateSigningRequestParams::from_pem(csr).unwrap().public_key.subject_public_key_info()
            });
            (output["name"].as_str().unwrap(), ssh, tls)
        })
        .collect();
    let bound: Vec<_> = outputs
        .iter()
        .map(|(name, ssh, tls)| BoundKeys {
            name,
            ssh_blob: ssh.as_deref(),
            tls_spki: tls.as_deref(),
            jwt: None,
        })
        .collect();
    let leaves = request["leaves"].as_array().into_iter().flatten();
    let leaves: Vec<LeafRequest> = leaves.map(|leaf| serde_json::from_value(leaf.clone()).unwrap()).collect();
    binding(&bound, &leaves)
}

fn serve(socket: TcpStream, server: Arc<ServerConfig>, state: &Mutex<State>) {
    let _ = socket.set_read_timeout(Some(std::time::Duration::from_secs(60)));
    let Ok(connection) = ServerConnection::new(server) else { return };
    let mut stream = BufReader::new(StreamOwned::new(connection, socket));
    while let Ok((path, body)) = read(&mut stream) {
        let answered = state.lock().unwrap().answer(&path, &body);
        let Some((status, answer)) = answered else { return };
        let (answer, to) = (answer.to_string(), stream.get_mut());
        let head = format!("HTTP/1.1 {status} Test\r\nContent-Length: {}\r\n\r\n", answer.len());
        if to.write_all(&[head.as_bytes(), answer.as_bytes()].concat()).and_then(|()| to.flush()).is_err() {
            return;
        }
    }
}

fn read(stream: &mut impl BufRead) -> io::Result<(String, Vec<u8>)> {
    let (mut path, mut length) = (None, 0);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line.trim_end().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
        path.get_or_insert_with(|| line.split(' ').nth(1).unwrap_or_default().to_owned());
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((path.unwrap_or_default(), body))
}
