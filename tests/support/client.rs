//! A small HTTPS client for the authority's API: one connection for a request,
//! every byte in the test's hands; and a job's keys.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _};
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Map, Value, json};
use ssh_key::private::{Ed25519Keypair, KeypairData, PrivateKey};
use ssh_key::{LineEnding, PublicKey};

use super::{PATIENCE, base64url, fresh, now, random};

/// A connection to the authority.
pub type Stream = StreamOwned<ClientConnection, TcpStream>;

/// A client of one authority.
#[derive(Clone)]
pub struct Client {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
}

/// Reads alone: a `Stream` wants to be rid of what it could not write first.
struct Incoming<'s>(&'s mut Stream);

impl Read for Incoming<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.conn.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
            unbroken(|| self.0.conn.read_tls(&mut self.0.sock))?;
            self.0.conn.process_new_packets().map_err(io::Error::other)?;
        }
    }
}

/// Does it again where a signal came between: tests in one process send some to
/// themselves, and a socket with a time to wait is not taken up again by itself.
fn unbroken<T>(mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match work() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// Its headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Client {
    /// One that trusts nobody.
    pub fn new(address: SocketAddr) -> Self {
        Self::trusting(address, "")
    }

    /// One that trusts the CAs of this PEM.
    pub fn trusting(address: SocketAddr, ca: &str) -> Self {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { address, tls: Arc::new(tls) }
    }

    /// The same of another authority with the same CA.
    pub fn of(&self, address: SocketAddr) -> Self {
        Self { address, tls: Arc::clone(&self.tls) }
    }

    /// A TLS connection; reads and writes end after [`PATIENCE`].
    pub fn connect(&self) -> io::Result<Stream> {
        let socket = TcpStream::connect(self.address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.set_nodelay(true)?;
        self.over(socket)
    }

    /// The same from another address of loopback; the authority limits what one address may do.
    pub fn connect_from(&self, source: Ipv4Addr) -> io::Result<Stream> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let socket = runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4()?;
            socket.bind((source, 0).into())?;
            socket.connect(self.address).await?.into_std()
        })?;
        socket.set_nonblocking(false)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_nodelay(true)?;
        self.over(socket)
    }

    /// `POST /v1/exchange` over a connection that is kept.
    pub fn exchange_over(&self, stream: &mut Stream, request: &Value) -> io::Result<Response> {
        let body = request.to_string();
        write!(
            stream,
            "POST /v1/exchange HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        )?;
        stream.flush()?;
        Response::read(&mut Incoming(stream))
    }

    /// TLS over a connection that there is.
    pub fn over(&self, socket: TcpStream) -> io::Result<Stream> {
        let name = ServerName::from(self.address.ip());
        let connection = ClientConnection::new(Arc::clone(&self.tls), name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(connection, socket);
        while stream.conn.is_handshaking() {
            unbroken(|| stream.conn.complete_io(&mut stream.sock))?;
        }
        Ok(stream)
    }

    /// Sends these bytes on a new connection and reads one answer.
    pub fn try_raw(&self, request: &[u8]) -> io::Result<Response> {
        let mut stream = self.connect()?;
        // A server that has heard enough may answer and close before the end.
        let sent = stream.write_all(request).and_then(|()| unbroken(|| stream.flush()));
        Response::read(&mut Incoming(&mut stream)).map_err(|error| sent.err().unwrap_or(error))
    }

    /// A request, which may fail on the way.
    pub fn try_send(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> io::Result<Response> {
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
            self.address,
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        self.try_raw(&request)
    }

    /// `GET`.
    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        self.try_send("GET", path, "", b"").unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// `POST` of JSON text.
    #[track_caller]
    pub fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Response {
        self.try_send("POST", path, "Content-Type: application/json\r\n", body.as_ref())
            .unwrap_or_else(|error| panic!("POST {path}: {error}"))
    }

    /// `POST /v1/exchange`.
    #[track_caller]
    pub fn exchange(&self, request: &Value) -> Response {
        self.post("/v1/exchange", request.to_string())
    }

    /// Sends an exchange, waits, and hangs up without reading the answer.
    pub fn exchange_and_hang_up(&self, request: &Value, after: std::time::Duration) {
        let body = request.to_string();
        let mut stream = self.connect().expect("a connection");
        let head = format!("POST /v1/exchange HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).expect("sent");
        stream.flush().expect("sent");
        std::thread::sleep(after);
    }

    /// The same, where the authority may be gone.
    pub fn try_exchange(&self, request: &Value) -> io::Result<Response> {
        let body = request.to_string();
        self.try_send("POST", "/v1/exchange", "Content-Type: application/json\r\n", body.as_bytes())
    }
}

impl Response {
    /// Reads one answer.
    pub fn read(stream: &mut impl Read) -> io::Result<Self> {
        let mut bytes = Vec::new();
        let mut chunk = [0; 16_384];
        loop {
            if let Some(whole) = Self::parse(&bytes, false)? {
                return Ok(whole);
            }
            match unbroken(|| stream.read(&mut chunk)) {
                Ok(0) => break,
                Ok(read) => bytes.extend_from_slice(&chunk[..read]),
                // Many close without `close_notify`; the length says whether all is there.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(error),
            }
        }
        Self::parse(&bytes, true)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn parse(bytes: &[u8], ended: bool) -> io::Result<Option<Self>> {
        let Some(head) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
        let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let text = std::str::from_utf8(&bytes[..head]).map_err(|_| invalid("header"))?;
        let mut lines = text.split("\r\n");
        let status =
            lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let rest = &bytes[head + 4..];
        let mut response =
            Self { status: status.ok_or_else(|| invalid("status"))?, headers, body: Vec::new() };
        let length = response.header("content-length").map(str::parse::<usize>).transpose();
        response.body = match length.map_err(|_| invalid("length"))? {
            Some(length) if rest.len() >= length => rest[..length].to_vec(),
            Some(_) => return Ok(None),
            None if response.header("transfer-encoding").is_some() => match chunks(rest) {
                Some(body) => body,
                None => return Ok(None),
            },
            None if ended || response.status == 204 => rest.to_vec(),
            None => return Ok(None),
        };
        Ok(Some(response))
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The body of a success.
    #[track_caller]
    pub fn granted(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()
    }

    /// The problem of a failure with this status (RFC 9457): its shape is checked.
    #[track_caller]
    pub fn problem(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.text());
        let problem = self.json();
        assert_eq!(problem["status"], status, "{problem}");
        for member in ["type", "title"] {
            assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "no {member}: {problem}");
        }
        problem
    }

    /// The denial id of a refusal with this status.
    #[track_caller]
    pub fn denial(&self, status: u16) -> String {
        let problem = self.problem(status);
        problem["denial_id"].as_str().unwrap_or_else(|| panic!("no denial id: {problem}")).to_owned()
    }
}

fn chunks(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).ok()?, 16).ok()?;
        let data = rest.get(end + 2..)?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(data.get(..size)?);
        rest = data.get(size + 2..)?;
    }
}

/// The keys of a job: Ed25519 for SSH, P-256 for TLS.
pub struct Keys {
    seed: [u8; 32],
    /// The SSH public key on one line.
    pub ssh: String,
    /// Its blob.
    pub ssh_blob: Vec<u8>,
    /// The TLS key.
    pub tls: KeyPair,
    /// A certificate signing request of it, in PEM.
    pub csr: String,
}

impl Keys {
    /// New ones.
    pub fn fresh() -> Self {
        let seed = random();
        let public = PublicKey::from(Ed25519Keypair::from_seed(&seed).public);
        let tls = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let csr = CertificateParams::new(Vec::new()).unwrap().serialize_request(&tls).unwrap().pem().unwrap();
        Self { seed, ssh: public.to_openssh().unwrap(), ssh_blob: public.to_bytes().unwrap(), tls, csr }
    }

    /// The SubjectPublicKeyInfo of the TLS key, in DER.
    pub fn spki(&self) -> Vec<u8> {
        self.tls.subject_public_key_info()
    }

    /// The SSH private key in OpenSSH's format.
    pub fn ssh_private(&self) -> String {
        let pair = Ed25519Keypair::from_seed(&self.seed);
        let key = PrivateKey::new(KeypairData::Ed25519(pair), "test").unwrap();
        key.to_openssh(LineEnding::LF).unwrap().to_string()
    }

    /// An output `identity` with both keys.
    pub fn output(&self) -> Value {
        json!({
            "name": "identity", "type": "identity",
            "ssh": {"public_key": self.ssh}, "tls": {"csr": self.csr},
        })
    }

    /// The key binding of a request with [`Keys::output`] alone, as `interface.md`
    /// defines it and independently of the product.
    pub fn binding(&self) -> String {
        binding(&[("identity ssh", &self.ssh_blob), ("identity tls", &self.spki())])
    }

    /// The audience that binds a token to these keys.
    pub fn audience(&self, url: &str) -> String {
        format!("{url}#{}", self.binding())
    }

    /// A request for [`Keys::output`].
    pub fn request(&self, join_token: &str, method: &str, id_token: &str) -> Value {
        request(join_token, method, id_token, json!([self.output()]))
    }

    /// An assertion by the TLS key, with its certificate chain (PEM) in the header.
    pub fn tls_assertion(&self, chain: &str, claims: &Map<String, Value>) -> String {
        let certificates: Vec<Value> = CertificateDer::pem_slice_iter(chain.as_bytes())
            .map(|der| {
                use base64::Engine as _;
                base64::engine::general_purpose::STANDARD.encode(der.unwrap()).into()
            })
            .collect();
        let header = json!({"alg": "ES256", "typ": "JWT", "x5c": certificates});
        self.sign_es256(&header, claims)
    }

    /// A JWS by the TLS key under any header.
    pub fn sign_es256(&self, header: &Value, claims: &Map<String, Value>) -> String {
        let random = SystemRandom::new();
        let der = self.tls.serialize_der();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der, &random).unwrap();
        jws(header, claims, |message| pair.sign(&random, message).unwrap().as_ref().to_vec())
    }

    /// An assertion by the SSH key, with its certificate in the header.
    pub fn ssh_assertion(&self, certificate: &str, claims: &Map<String, Value>) -> String {
        let header = json!({"alg": "EdDSA", "typ": "JWT", "ssh_certificate": certificate});
        let pair = Ed25519KeyPair::from_seed_unchecked(&self.seed).unwrap();
        jws(&header, claims, |message| pair.sign(message).as_ref().to_vec())
    }
}

/// The claims of a good assertion for `POST /v1/revoke`.
pub fn assertion_claims(url: &str) -> Map<String, Value> {
    let claims = json!({"aud": format!("{url}/v1/revoke"), "iat": now(), "exp": now() + 60, "jti": fresh()});
    claims.as_object().unwrap().clone()
}

/// A request for these outputs.
pub fn request(join_token: &str, method: &str, id_token: &str, outputs: Value) -> Value {
    json!({
        "token": join_token, "join_method": method, "proof": {"id_token": id_token},
        "ttl_seconds": 600, "outputs": outputs,
    })
}

/// The key binding over keys, each under `NAME ssh` or `NAME tls`.
pub fn binding(keys: &[(&str, &[u8])]) -> String {
    let hash = |bytes: &[u8]| base64url(digest(&SHA256, bytes));
    let lines: String = keys.iter().map(|(name, key)| format!("{name} {}\n", hash(key))).collect();
    hash(format!("machine-id-binding-v1\n{lines}").as_bytes())
}

fn jws(header: &Value, claims: &Map<String, Value>, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let claims = serde_json::to_string(claims).unwrap();
    let message = format!("{}.{}", base64url(header.to_string()), base64url(claims));
    let signature = base64url(sign(message.as_bytes()));
    format!("{message}.{signature}")
}

/// How long a request took.
pub fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = std::time::Instant::now();
    let done = work();
    (done, start.elapsed())
}
