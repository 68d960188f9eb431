//! Exchanges per second of an authority on one core, asked by 64 clients at
//! once from another: over new connections and kept ones, with the store on disk
//! and with the same in memory; beside them the bare handshake rate.
//! See `README.md`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark that fails ends; its figures are small"
)]

#[path = "authority/past.rs"]
mod past;
#[allow(dead_code, unreachable_pub, reason = "this crate uses a part of it")]
#[path = "../support/mod.rs"]
mod support;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use machine_id::authority::store::sqlite::Sqlite;
use machine_id::authority::{Authority, config::Config, keys, serve};
use machine_id::clock::Clock;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use support::client::Keys;
use support::issuer::Issuer;
use support::process::Running;
use support::{authority::Authority as Fixture, policies, process};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// The two cores: one for the authority alone, one for its clients.
const AUTHORITY_CORE: &str = "0";
const CLIENTS_CORE: &str = "1";
/// Clients at once.
const CLIENTS: usize = 64;
/// Requests of one measurement.
const REQUESTS: usize = 3000;
/// Measurements of each kind, in turn.
const ROUNDS: usize = 4;
/// Exchanges before the first measurement: caches, the issuer's keys.
const WARM_UP: usize = 300;
/// For how long it is measured what forgetting costs too, which begins a minute after the start.
const FORGETTING: Duration = Duration::from_secs(90);
/// The store's file in its folder.
const STORE: &str = "authority.db";
/// Pairs of keys that the requests share.
const KEYS: usize = 64;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["serve", store, data_dir, listen] => {
            serve_with(Path::new(store), Path::new(data_dir), listen.parse().unwrap())
        }
        ["load", how, address, requests] => load(how, address.parse().unwrap(), Path::new(requests)),
        ["millions", count, ..] => millions(count.parse().unwrap()),
        // `cargo bench` says `--bench`, `cargo test --benches` does not.
        words if words.contains(&"--bench") => bench(),
        _ => println!("authority: run with `cargo bench`"),
    }
}

fn bench() {
    let issuer = Issuer::start();
    let scratch = tempfile::TempDir::new().unwrap();
    let disk = Server::start(&issuer, &std::env::temp_dir(), 0);
    let memory = Server::start(&issuer, Path::new("/dev/shm"), 0);
    for server in [&disk, &memory] {
        let requests = server.mint(&issuer, WARM_UP, &scratch.path().join("warm-up"));
        server.measure("new", &requests);
    }
    let [mut disk_new, mut disk_kept, mut memory_new, mut memory_kept, mut handshakes] =
        [(); 5].map(|()| Rates::default());
    for _ in 0..ROUNDS {
        for (server, how, rates) in [
            (&disk, "new", &mut disk_new),
            (&memory, "new", &mut memory_new),
            (&disk, "kept", &mut disk_kept),
            (&memory, "kept", &mut memory_kept),
        ] {
            let requests = server.mint(&issuer, REQUESTS, &scratch.path().join("requests"));
            rates.add(server.measure(how, &requests));
        }
        let empty = scratch.path().join("empty");
        std::fs::write(&empty, health_checks(REQUESTS)).unwrap();
        handshakes.add(memory.measure("new", &empty));
    }
    let over = |one: &Rates, other: &Rates| one.per_second() / other.per_second();
    println!(
        "authority, one core, {CLIENTS} clients: on disk new {disk_new}, kept {disk_kept}; \
         in memory new {memory_new}, kept {memory_kept}; handshake and GET /healthz {handshakes}; \
         disk / memory: new {:.2}, kept {:.2}; on disk new / handshake {:.2}, with its store / without {:.2}",
        over(&disk_new, &memory_new),
        over(&disk_kept, &memory_kept),
        over(&disk_new, &handshakes),
        disk_new.without_a_store(),
    );
}

/// What an exchange costs behind so many others, beside what it costs in an
/// empty store; long enough that what has expired is forgotten meanwhile.
fn millions(count: u64) {
    let issuer = Issuer::start();
    let scratch = tempfile::TempDir::new().unwrap();
    let servers = [0, count].map(|past| Server::start(&issuer, &std::env::temp_dir(), past));
    let mut rates = [(); 2].map(|()| Rates::default());
    for server in &servers {
        server.measure("new", &server.mint(&issuer, WARM_UP, &scratch.path().join("requests")));
    }
    let begin = Instant::now();
    while begin.elapsed() < FORGETTING {
        for (server, rates) in servers.iter().zip(&mut rates) {
            rates.add(
                server.measure("new", &server.mint(&issuer, REQUESTS, &scratch.path().join("requests"))),
            );
        }
    }
    let [none, past] = rates;
    let cost = |rates: &Rates| {
        let all = |of: fn(&Rate) -> f64| rates.0.iter().map(of).sum::<f64>();
        all(|rate| rate.server.as_secs_f64()) / all(|rate| rate.requests as f64)
    };
    println!(
        "authority, one core, {CLIENTS} clients: behind none {none}; behind {count} {past}; cost behind {count} / behind none {:.2}",
        cost(&past) / cost(&none)
    );
}

/// Requests answered, the time that it took, and the share of it that the
/// server's core and the clients' were at work.
#[derive(Clone, Copy, Default)]
struct Rate {
    requests: usize,
    wall: Duration,
    server: Duration,
    /// The part of the server's that its store's threads take.
    store: Duration,
    clients: Duration,
    /// How long half of the clients waited at most, and 99 of a hundred.
    p50: Duration,
    p99: Duration,
}

/// Several measurements; the median counts.
#[derive(Default)]
struct Rates(Vec<Rate>);

impl Rates {
    fn add(&mut self, rate: Rate) {
        self.0.push(rate);
    }

    fn median(&self, of: impl Fn(&Rate) -> f64) -> f64 {
        let mut all: Vec<f64> = self.0.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        f64::midpoint(all[(all.len() - 1) / 2], all[all.len() / 2])
    }

    /// What is left of the processor's time without the store's threads: what
    /// an exchange would be, over what it is, if it needed no store.
    fn without_a_store(&self) -> f64 {
        self.median(|rate| 1.0 - rate.store.as_secs_f64() / rate.server.as_secs_f64())
    }

    fn per_second(&self) -> f64 {
        self.median(|rate| rate.requests as f64 / rate.wall.as_secs_f64())
    }
}

impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = |part: Duration, rate: &Rate| part.as_secs_f64() / rate.wall.as_secs_f64() * 100.0;
        write!(
            f,
            "{:.0}/s ({:.0} us cpu each, {:.0} of them the store's threads, p50 {:.1} ms, p99 {:.1} ms; server {:.0} % busy, clients {:.0} %)",
            self.per_second(),
            self.median(|rate| rate.server.as_secs_f64() * 1e6 / rate.requests as f64),
            self.median(|rate| rate.store.as_secs_f64() * 1e6 / rate.requests as f64),
            self.median(|rate| rate.p50.as_secs_f64() * 1e3),
            self.median(|rate| rate.p99.as_secs_f64() * 1e3),
            self.median(|rate| share(rate.server, rate)),
            self.median(|rate| share(rate.clients, rate)),
        )
    }
}

/// An authority on its core, and its data directory.
struct Server {
    fixture: Fixture,
    process: Running,
    /// Goes after the process that uses it.
    _store: tempfile::TempDir,
}

impl Server {
    /// The fixture makes a data directory; then the same authority, assembled
    /// here with its store in that place, takes its place.
    fn start(issuer: &Issuer, place: &Path, past: u64) -> Self {
        let store = tempfile::TempDir::new_in(place).unwrap();
        let limits =
            "limits: {certificates_per_hour_of_run: 100000000, certificates_per_hour_of_token: 100000000}\n";
        let fixture = Fixture::with_policy(&policies::basic(issuer)).issuer(issuer).config(limits);
        let mut fixture = fixture.start();
        fixture.terminate();
        let file = store.path().join(STORE);
        Sqlite::create(&file, &Config::load(&fixture.data_dir()).unwrap().store_key()).unwrap();
        if past > 0 {
            past::fill(&file, past, 10 * REQUESTS);
        }
        let mut command = pinned(AUTHORITY_CORE);
        command.arg("serve").arg(store.path()).arg(fixture.data_dir()).arg(fixture.address().to_string());
        let process = Running::start(command.stderr(Stdio::piped()));
        support::wait_for("the authority", || process.stderr().contains("listening on").then_some(()));
        Self { fixture, process, _store: store }
    }

    /// Requests with fresh tokens, each bound to its keys, in a file.
    fn mint(&self, issuer: &Issuer, count: usize, file: &Path) -> PathBuf {
        let keys: Vec<Keys> = (0..KEYS).map(|_| Keys::fresh()).collect();
        let (url, address) = (self.fixture.url(), self.fixture.address());
        let next = AtomicUsize::new(0);
        let some = || {
            let mut bytes = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return bytes;
                }
                let keys = &keys[number % KEYS];
                let token = issuer.token("github", &keys.audience(&url)).mint();
                let body = keys.request("github-deploy", "github", &token).to_string();
                frame(
                    &mut bytes,
                    &format!(
                        "POST /v1/exchange HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                        body.len()
                    ),
                );
            }
        };
        let bytes = std::thread::scope(|scope| {
            let halves = [scope.spawn(some), scope.spawn(some)];
            halves.map(|half| half.join().unwrap()).concat()
        });
        std::fs::write(file, bytes).unwrap();
        file.to_owned()
    }

    /// Has 64 clients send these requests, on new connections or kept ones.
    fn measure(&self, how: &str, requests: &Path) -> Rate {
        let mut command = pinned(CLIENTS_CORE);
        command.args(["load", how, &self.fixture.address().to_string()]).arg(requests);
        let before = cpu_times(self.process.id());
        let said = process::succeed(&mut command);
        let after = cpu_times(self.process.id());
        let [server, store] = [0, 1].map(|which| after[which].saturating_sub(before[which]));
        let numbers: Vec<u64> = said.split_whitespace().map(|number| number.parse().unwrap()).collect();
        let [requests, wall, clients, p50, p99] = numbers.as_slice() else { panic!("five numbers: {said}") };
        Rate {
            requests: usize::try_from(*requests).unwrap(),
            wall: Duration::from_nanos(*wall),
            server,
            store,
            clients: Duration::from_nanos(*clients),
            p50: Duration::from_nanos(*p50),
            p99: Duration::from_nanos(*p99),
        }
    }
}

/// This benchmark's own binary on one core, from its first instruction on.
fn pinned(core: &str) -> Command {
    let mut command = process::command("taskset");
    command.args(["-c", core]).arg(std::env::current_exe().unwrap());
    command
}

/// The processor's time of all threads of a process, and of those of its store.
fn cpu_times(process: u32) -> [Duration; 2] {
    let mut times = [Duration::ZERO; 2];
    for thread in std::fs::read_dir(format!("/proc/{process}/task")).unwrap() {
        let read = |what| std::fs::read_to_string(thread.as_ref().unwrap().path().join(what)).unwrap();
        let time = Duration::from_nanos(read("schedstat").split(' ').next().unwrap().parse().unwrap());
        times[0] += time;
        times[1] += if read("comm").starts_with("store-") { time } else { Duration::ZERO };
    }
    times
}

fn health_checks(count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..count {
        frame(&mut bytes, "GET /healthz HTTP/1.1\r\nHost: authority\r\n\r\n");
    }
    bytes
}

/// A request in a file: its length in four bytes, then itself.
fn frame(bytes: &mut Vec<u8>, request: &str) {
    bytes.extend_from_slice(&u32::try_from(request.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(request.as_bytes());
}

// The authority's process.

/// The product's own server with its store in that folder.
fn serve_with(store: &Path, data_dir: &Path, listen: SocketAddr) {
    machine_id::net::install_crypto();
    let config = Config::load(data_dir).unwrap();
    let keys = keys::file::load(&config.keys, config.owner).unwrap();
    let policy = config.load_policy().unwrap();
    let clock = Clock::system();
    let store = Box::new(Sqlite::open(&store.join(STORE), &config.store_key(), clock.now()).unwrap());
    let authority = Authority::assemble(config, keys, store, policy, clock).unwrap();
    // As `authority serve` does it: as many threads as the process has cores.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(serve::serve(Arc::new(authority), listen)).unwrap();
}

// The clients' process: one thread, and as little work as TLS allows.

/// Sends every request once; prints how many, the wall time and its own CPU time in nanoseconds.
fn load(how: &str, address: SocketAddr, requests: &Path) {
    let requests = unframe(&std::fs::read(requests).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let work = Arc::new(Work {
        address,
        connector: connector(),
        requests,
        next: AtomicUsize::new(0),
        waited: Mutex::default(),
    });
    let before = own_cpu_time();
    let begin = Instant::now();
    let keep = how == "kept";
    runtime.block_on(async {
        let clients: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(Arc::clone(&work).client(keep))).collect();
        for client in clients {
            client.await.unwrap();
        }
    });
    let wall = begin.elapsed();
    let mut waited = work.waited.lock().unwrap().clone();
    waited.sort();
    let cpu = own_cpu_time() - before;
    let [p50, p99] =
        [50, 99].map(|percent| waited[(waited.len() * percent / 100).min(waited.len() - 1)].as_nanos());
    println!("{} {} {} {p50} {p99}", work.requests.len(), wall.as_nanos(), cpu.as_nanos());
}

fn own_cpu_time() -> Duration {
    let schedstat = std::fs::read_to_string("/proc/self/schedstat").unwrap();
    Duration::from_nanos(schedstat.split(' ').next().unwrap().parse().unwrap())
}

fn unframe(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut requests = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let (request, rest) = rest.split_at(usize::try_from(u32::from_be_bytes(*length)).unwrap());
        requests.push(request.to_owned());
        bytes = rest;
    }
    requests
}

struct Work {
    address: SocketAddr,
    connector: TlsConnector,
    requests: Vec<Vec<u8>>,
    next: AtomicUsize,
    waited: Mutex<Vec<Duration>>,
}

impl Work {
    async fn client(self: Arc<Self>, keep: bool) {
        let mut kept = None;
        while let Some(request) = self.requests.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let begin = Instant::now();
            let mut stream = match kept.take() {
                Some(stream) => stream,
                None => self.connect().await,
            };
            exchange(&mut stream, request).await;
            self.waited.lock().unwrap().push(begin.elapsed());
            kept = keep.then_some(stream);
        }
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        let socket = TcpStream::connect(self.address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        self.connector.connect(ServerName::from(self.address.ip()), socket).await.unwrap()
    }
}

/// Sends a request and reads one answer, which must be a success.
async fn exchange(stream: &mut TlsStream<TcpStream>, request: &[u8]) {
    stream.write_all(request).await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = Vec::with_capacity(8192);
    loop {
        let read = stream.read_buf(&mut answer).await.unwrap();
        assert!(read > 0, "the answer broke off");
        let Some(head) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
        let text = std::str::from_utf8(&answer[..head]).unwrap();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        if answer.len() >= head + 4 + length.parse::<usize>().unwrap() {
            return;
        }
    }
}

fn connector() -> TlsConnector {
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Unchecked))
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

/// Checks nothing: these clients are here to keep the authority busy, and the
/// checks would cost them what the signatures cost it.
#[derive(Debug)]
struct Unchecked;

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
