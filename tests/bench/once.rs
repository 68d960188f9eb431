//! What `machine-id once` costs as a process of its own, against an authority
//! and an issuer on loopback; beside it, in the same run, what two bare HTTPS
//! requests cost a fresh process with the same cryptography, and what an empty
//! process costs. See `README.md`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::print_stdout,
    reason = "a benchmark that fails ends; its figures are small"
)]

#[allow(dead_code, unreachable_pub, reason = "this crate uses a part of it")]
#[path = "../support/mod.rs"]
mod support;

use std::fmt;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use support::authority::Authority;
use support::client::Keys;
use support::issuer::{Endpoint, Fault, Issuer, REQUEST_TOKEN};
use support::{policies, process};

/// Runs of each program; the first ones only warm up.
const RUNS: usize = 300;
const WARM_UP: usize = 20;
/// Runs that look for the most memory and threads.
const LOOKS: usize = 10;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["empty"] => {}
        ["two-requests", targets @ ..] => two_requests(&Target::read(targets)),
        ["the-two-requests", targets @ .., request] => the_two_requests(&Target::read(targets), request),
        ["two-requests-reqwest", targets @ ..] => two_requests_reqwest(&Target::read(targets)),
        words if words.contains(&"world") => hold_world(),
        // `cargo bench` says `--bench`, `cargo test --benches` does not.
        words if words.contains(&"--bench") => bench_each(),
        ["bench", place] => bench(place),
        _ => println!("once: run with `cargo bench`"),
    }
}

/// Once with every file in memory, where `once` itself is what is measured,
/// and once where temporary files are otherwise: the authority's commit then
/// waits for the disk.
fn bench_each() {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        assert!(itself(["bench", "in memory"]).env("TMPDIR", memory).status().unwrap().success());
    }
    let temporary = std::env::temp_dir();
    assert!(itself(["bench", "on disk"]).env("TMPDIR", temporary).status().unwrap().success());
}

fn bench(place: &str) {
    let issuer = Issuer::start();
    let authority = Authority::trusting(&issuer, &policies::basic(&issuer));
    let world = World { issuer: &issuer, authority: &authority, scratch: tempfile::TempDir::new().unwrap() };
    let mut programs = [
        Program::new(|| world.once()),
        Program::new(|| world.bare("two-requests")),
        Program::new(|| world.bare("two-requests-reqwest")),
        Program::new(|| world.bare_exchange()),
        Program::new(|| itself(["empty"])),
    ];
    for run in 0..WARM_UP + RUNS {
        // In turn, so that whatever else this machine does happens to all alike.
        for program in &mut programs {
            let (wall, cpu) = measure(&mut (program.command)());
            if run >= WARM_UP {
                program.wall.push(wall);
                program.cpu.push(cpu);
            }
        }
        world.tidy();
    }
    // A token endpoint that takes its time leaves time to look.
    issuer.fail(Endpoint::Token, Fault::Delay(Duration::from_millis(100)));
    let looks: Vec<Vec<Look>> = programs[..3]
        .iter()
        .map(|program| (0..LOOKS).map(|_| Look::at(&mut (program.command)())).collect())
        .collect();
    report(place, &programs, &looks);
}

fn report(place: &str, programs: &[Program<'_>; 5], looks: &[Vec<Look>]) {
    let [once, lean, reqwest, exchange, empty] = programs;
    let memory = |of: usize| looks[of].iter().map(|look| look.peak_kib).max().unwrap() as f64 / 1024.0;
    let threads = looks[0].iter().map(|look| look.threads).max().unwrap();
    println!(
        "once, files {place}: wall {}, cpu {}, peak {:.1} MiB, {threads} thread(s); \
         two bare requests: lean {} cpu {} {:.1} MiB, reqwest {} cpu {} {:.1} MiB; mint and exchange {} cpu {}; \
         empty process {}; once / lean: wall {} cpu {}, once / reqwest: wall {} cpu {}, \
         once / mint and exchange: wall {} cpu {}",
        once.wall,
        once.cpu,
        memory(0),
        lean.wall,
        lean.cpu,
        memory(1),
        reqwest.wall,
        reqwest.cpu,
        memory(2),
        exchange.wall,
        exchange.cpu,
        empty.wall,
        ratio(&once.wall, &lean.wall),
        ratio(&once.cpu, &lean.cpu),
        ratio(&once.wall, &reqwest.wall),
        ratio(&once.cpu, &reqwest.cpu),
        ratio(&once.wall, &exchange.wall),
        ratio(&once.cpu, &exchange.cpu),
    );
}

/// The world alone, for profilers: prints the programs as shell commands, and
/// stays until its standard input ends.
fn hold_world() {
    let issuer = Issuer::start();
    let authority = Authority::trusting(&issuer, &policies::basic(&issuer));
    let world = World { issuer: &issuer, authority: &authority, scratch: tempfile::TempDir::new().unwrap() };
    for command in [world.once(), world.bare("two-requests"), world.bare("two-requests-reqwest")] {
        println!("{command:?}");
    }
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// A program to be measured, and what was.
struct Program<'w> {
    command: Box<dyn Fn() -> Command + 'w>,
    wall: Figures,
    cpu: Figures,
}

impl<'w> Program<'w> {
    fn new(command: impl Fn() -> Command + 'w) -> Self {
        Self { command: Box::new(command), wall: Figures::default(), cpu: Figures::default() }
    }
}

/// Times of one kind.
#[derive(Clone, Debug, Default)]
struct Figures(Vec<Duration>);

impl Figures {
    /// One more.
    fn push(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// The time that this share of them does not exceed, in milliseconds.
    fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        sorted[(last as f64 * share).round() as usize].as_secs_f64() * 1e3
    }
}

/// Median and ninetieth percentile.
impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} ms (p90 {:.2})", self.quantile(0.5), self.quantile(0.9))
    }
}

/// One median over another.
fn ratio(one: &Figures, other: &Figures) -> String {
    format!("{:.2}", one.quantile(0.5) / other.quantile(0.5))
}

/// What the programs run against.
struct World<'w> {
    issuer: &'w Issuer,
    authority: &'w Authority,
    scratch: tempfile::TempDir,
}

impl World<'_> {
    /// As a step of a GitHub job.
    fn once(&self) -> Command {
        let runner = self.scratch.path().join("runner");
        if !runner.exists() {
            std::fs::DirBuilder::new().mode(0o700).create(&runner).unwrap();
        }
        let mut command = process::machine_id(["once", "--token", "github-deploy", "--authority"]);
        command.arg(self.authority.url()).arg("--ca-file").arg(self.authority.ca_file());
        command.envs(self.issuer.github_environment()).env("RUNNER_TEMP", runner);
        for name in ["GITHUB_OUTPUT", "GITHUB_ENV", "GITHUB_STEP_SUMMARY"] {
            let file = self.scratch.path().join(name);
            std::fs::write(&file, "").unwrap();
            command.env(name, file);
        }
        command
    }

    fn bare(&self, mode: &str) -> Command {
        let mut command = itself([mode]);
        command.args([self.issuer.host(), self.authority.address().to_string()]);
        command.args([self.issuer.ca_file(), self.authority.ca_file()]);
        command
    }

    /// The two requests that `once` makes and nothing else: the token, and the
    /// exchange with keys that are there already and are used each time.
    fn bare_exchange(&self) -> Command {
        let request = self.scratch.path().join("request.json");
        if !request.exists() {
            let body = Keys::fresh().request("github-deploy", "github", TOKEN_GOES_HERE);
            std::fs::write(&request, body.to_string()).unwrap();
        }
        let mut command = self.bare("the-two-requests");
        command.arg(request);
        command
    }

    /// Away with the destinations, so that no run finds more of them than another.
    fn tidy(&self) {
        let _ = std::fs::remove_dir_all(self.scratch.path().join("runner"));
    }
}

/// This benchmark's own binary, as another program.
fn itself<const N: usize>(arguments: [&str; N]) -> Command {
    let mut command = process::command(std::env::current_exe().unwrap());
    command.args(arguments);
    command
}

/// Runs it to its end: wall time, and user and system time.
fn measure(command: &mut Command) -> (Duration, Duration) {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let begin = Instant::now();
    let mut child = command.spawn().unwrap();
    let pid = Pid::from_child(&child);
    waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
    let wall = begin.elapsed();
    // What has ended and is not collected yet still has its times, in nanoseconds.
    let cpu = std::fs::read_to_string(format!("/proc/{}/schedstat", child.id())).unwrap_or_default();
    let cpu = cpu.split(' ').next().and_then(|nanoseconds| nanoseconds.parse().ok()).unwrap_or(0);
    assert!(child.wait().unwrap().success(), "{command:?}");
    (wall, Duration::from_nanos(cpu))
}

/// The most that a process had while it ran.
#[derive(Clone, Copy, Default)]
struct Look {
    peak_kib: u64,
    threads: u64,
}

impl Look {
    /// Runs it to its end and looks all the while; the peak of memory only grows.
    fn at(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let file = format!("/proc/{}/status", child.id());
        let mut most = Self::default();
        while child.try_wait().unwrap().is_none() {
            let status = std::fs::read_to_string(&file).unwrap_or_default();
            let field = |name: &str| -> u64 {
                let line = status.lines().find_map(|line| line.strip_prefix(name));
                line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
            };
            most.peak_kib = most.peak_kib.max(field("VmHWM:"));
            most.threads = most.threads.max(field("Threads:"));
        }
        most
    }
}

/// Where the bare requests go.
struct Target {
    issuer: SocketAddr,
    authority: SocketAddr,
    issuer_ca: String,
    authority_ca: String,
}

impl Target {
    fn read(words: &[&str]) -> Self {
        let [issuer, authority, issuer_ca, authority_ca] = words else { panic!("four arguments") };
        Self {
            issuer: issuer.parse().unwrap(),
            authority: authority.parse().unwrap(),
            issuer_ca: (*issuer_ca).to_owned(),
            authority_ca: (*authority_ca).to_owned(),
        }
    }
}

/// What `once` asks the issuer, with an audience of the same length.
const TOKEN_PATH: &str = "/actions/idtoken?api-version=2.0\
    &audience=https%3A%2F%2F127.0.0.1%3A40000%23AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Stands in a prepared request where the token will.
const TOKEN_GOES_HERE: &str = "@TOKEN@";

fn roots(file: impl AsRef<Path>) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    roots
}

fn tls(roots: RootCertStore) -> ClientConfig {
    ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()
}

/// The leanest client there is: blocking, one buffer, nothing kept.
fn two_requests(target: &Target) {
    rustls::crypto::ring::default_provider().install_default().unwrap();
    let authorization =
        format!("Authorization: Bearer {REQUEST_TOKEN}\r\nAccept: application/json; api-version=2.0\r\n");
    bare_get(target.issuer, &target.issuer_ca, TOKEN_PATH, &authorization);
    bare_get(target.authority, &target.authority_ca, "/healthz", "");
}

/// The same with the exchange itself as the second one, whose record the
/// authority commits before it answers.
fn the_two_requests(target: &Target, request: &str) {
    rustls::crypto::ring::default_provider().install_default().unwrap();
    let path = format!("/actions/idtoken?api-version=2.0&audience=https%3A%2F%2F{}", target.authority);
    let headers =
        format!("Authorization: Bearer {REQUEST_TOKEN}\r\nAccept: application/json; api-version=2.0\r\n");
    let answer = bare(target.issuer, &target.issuer_ca, &format!("GET {path}"), &headers, "");
    let token = answer.split("\"value\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let body = std::fs::read_to_string(request).unwrap().replace(TOKEN_GOES_HERE, token);
    let headers = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    bare(target.authority, &target.authority_ca, "POST /v1/exchange", &headers, &body);
}

fn bare_get(address: SocketAddr, ca: &str, path: &str, headers: &str) {
    bare(address, ca, &format!("GET {path}"), headers, "");
}

/// One request on a connection of its own; the answer, head and body.
fn bare(address: SocketAddr, ca: &str, line: &str, headers: &str, body: &str) -> String {
    let config = Arc::new(tls(roots(ca)));
    let socket = TcpStream::connect(address).unwrap();
    socket.set_nodelay(true).unwrap();
    let connection = ClientConnection::new(config, ServerName::from(address.ip())).unwrap();
    let mut stream = StreamOwned::new(connection, socket);
    let request = format!("{line} HTTP/1.1\r\nHost: {address}\r\n{headers}Connection: close\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    answer
}

/// The same two requests with reqwest.
fn two_requests_reqwest(target: &Target) {
    rustls::crypto::ring::default_provider().install_default().unwrap();
    let get = async |address: SocketAddr, ca: &str, path: &str, token: Option<&str>| {
        let client = reqwest::Client::builder().tls_backend_preconfigured(tls(roots(ca))).build().unwrap();
        let mut request = client.get(format!("https://{address}{path}"));
        if let Some(token) = token {
            request = request.bearer_auth(token).header("Accept", "application/json; api-version=2.0");
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.bytes().await.unwrap();
    };
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        get(target.issuer, &target.issuer_ca, TOKEN_PATH, Some(REQUEST_TOKEN)).await;
        get(target.authority, &target.authority_ca, "/healthz", None).await;
    });
}
