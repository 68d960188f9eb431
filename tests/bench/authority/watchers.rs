//! Hosts that watch statements: what they cost, and when the last of them hears.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::serving::load::connector;
use super::support::client::{Keys, assertion_claims};
use super::support::issuer::Issuer;
use super::support::process::succeed;
use super::{MACHINE_ID, start};

/// For how long nothing happens: some heartbeats.
const IDLE: Duration = Duration::from_secs(31);
/// Revocations of each kind, one a second.
const REVOCATIONS: usize = 5;

/// So many watch, and nothing happens; then some revocations, each of which all hear of.
pub(crate) fn bench(count: usize) {
    let issuer = Issuer::start();
    let server = start(&issuer, &std::env::temp_dir(), MACHINE_ID, 0);
    let authority = server.fixture();
    let (client, url) = (authority.client(), authority.url());
    let granted: Vec<_> = (0..2 * REVOCATIONS)
        .map(|_| {
            let keys = Keys::fresh();
            let token = issuer.token("github", &keys.audience(&url)).mint();
            let granted = client.exchange(&keys.request("github-deploy", "github", &token)).granted();
            (keys, granted)
        })
        .collect();
    std::thread::sleep(Duration::from_secs(2));
    let at_rest = server.resident();

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (lines, address) = (Arc::new(AtomicUsize::new(0)), authority.address());
    let heard = Arc::clone(&lines);
    let watching = std::thread::spawn(move || {
        runtime.block_on(async move {
            let connector = connector();
            for _ in 0..count {
                let socket = TcpStream::connect(address).await.unwrap();
                let mut stream = connector.connect(ServerName::from(address.ip()), socket).await.unwrap();
                stream.write_all(b"GET /v1/watch HTTP/1.1\r\nHost: authority\r\n\r\n").await.unwrap();
                let heard = Arc::clone(&heard);
                tokio::spawn(async move {
                    let mut bytes = vec![0; 65_536];
                    while let Ok(read @ 1..) = stream.read(&mut bytes).await {
                        // A statement ends with the one line end that is not of a chunk's frame.
                        let ends = bytes[..read].windows(2).filter(|pair| *pair == b"}\n").count();
                        heard.fetch_add(ends, Ordering::Relaxed);
                    }
                });
            }
            std::future::pending::<()>().await;
        });
    });
    let wait = |lines: &AtomicUsize, all: usize| {
        let begun = Instant::now();
        while lines.load(Ordering::Relaxed) < all {
            assert!(begun.elapsed() < Duration::from_secs(60), "{} of {all}", lines.load(Ordering::Relaxed));
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    wait(&lines, count);
    std::thread::sleep(Duration::from_secs(2));
    let watched = server.resident();
    let (before, begun) = (server.cpu(), Instant::now());
    std::thread::sleep(IDLE);
    let idle = (server.cpu() - before).as_secs_f64() / begun.elapsed().as_secs_f64();

    let mut told = Vec::new();
    for (number, (keys, granted)) in granted.iter().enumerate() {
        let id = granted["issuance_id"].as_str().unwrap();
        std::thread::sleep(Duration::from_secs(1));
        let (all, before, begun) = (lines.load(Ordering::Relaxed) + count, server.cpu(), Instant::now());
        let committed = if number < REVOCATIONS {
            let chain = granted["outputs"][0]["tls_certificate_chain"].as_str().unwrap();
            let assertion = keys.tls_assertion(chain, &assertion_claims(&url));
            let body = serde_json::json!({"issuance_id": id, "assertion": assertion});
            client.post("/v1/revoke", body.to_string()).granted();
            begun
        } else {
            succeed(&mut authority.command(["lock", "--issuance", id]));
            Instant::now()
        };
        wait(&lines, all);
        told.push((committed.elapsed(), server.cpu() - before));
    }
    let (given_back, locked) = told.split_at(REVOCATIONS);
    let longest = |some: &[(Duration, Duration)]| some.iter().map(|one| one.0).max().unwrap();
    let cost = told.iter().map(|one| one.1).sum::<Duration>() / u32::try_from(told.len()).unwrap();
    println!(
        "authority, {count} watchers: {at_rest} MiB at rest, {watched} MiB with them, {} MiB afterwards; {:.2} % of a core while \
         nothing happens; all heard of what a job gave back within {:.0?}, of a lock {:.0?} after its command, for {cost:.0?} of the \
         processor's time, {:.1} % of a core at one a second",
        server.resident(),
        idle * 100.0,
        longest(given_back),
        longest(locked),
        cost.as_secs_f64() * 100.0,
    );
    drop(watching);
}
