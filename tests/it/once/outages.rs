//! An authority in trouble: what is asked again, what is not, and for how long.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::{events, world};
use crate::support::client::timed;
use crate::support::gateway::{Gateway, Trouble};
use crate::support::issuer::Endpoint;
use crate::support::once::{Job, World, manifest};
use crate::support::port::free_port;

const EXCHANGE: &str = "/v1/exchange";

fn behind(world: &World, gateway: &Gateway) -> Job {
    world.github().env("HTTPS_PROXY", gateway.url())
}

fn status(code: u16, header: &str) -> Trouble {
    Trouble::Answer(code, header.into(), "{}".into())
}

#[test]
fn passing_troubles_are_waited_out() {
    let world = world();
    for (what, troubles) in [
        ("statuses", vec![status(503, ""), status(500, ""), status(502, "Content-Type: text/html")]),
        ("a reset", vec![Trouble::Reset, Trouble::Reset]),
    ] {
        let gateway = Gateway::with(&world.authority, &troubles);
        let job = behind(&world, &gateway);
        let outcome = job.once([]).good();
        outcome.says(&["trying again in"]);
        assert_eq!(gateway.times(EXCHANGE).len(), troubles.len() + 1, "{what}");
    }
    // One token each, whatever happened on the way.
    assert_eq!(world.issuer.count(Endpoint::Token), 2);
    assert_eq!(events(&world, "issued").len(), 2);
}

#[test]
fn retry_after_is_respected() {
    let world = world();
    let gateway =
        Gateway::with(&world.authority, &[status(429, "Retry-After: 2"), status(503, "Retry-After: 1")]);
    behind(&world, &gateway).once([]).good();
    let times = gateway.times(EXCHANGE);
    assert_eq!(times.len(), 3);
    assert!(times[1] - times[0] >= Duration::from_secs(2), "{times:?}");
    assert!(times[2] - times[1] >= Duration::from_secs(1), "{times:?}");
    // Longer than there is time: not waited for.
    gateway.meet(&[status(429, "Retry-After: 3600")]);
    let start = Instant::now();
    behind(&world, &gateway).once(["--timeout", "5s"]).failed(5).says(&["status 429"]);
    assert!(start.elapsed() < Duration::from_secs(4));
}

#[test]
fn a_lost_reply_is_asked_for_again_and_is_the_same() {
    let world = world();
    let gateway = Gateway::with(&world.authority, &[Trouble::LostReply, Trouble::LostReply]);
    let job = behind(&world, &gateway);
    let destination = job.once([]).good().destination();
    assert_eq!(gateway.times(EXCHANGE).len(), 3);
    let issued = events(&world, "issued");
    assert_eq!(issued.len(), 1, "one issuance, asked for three times");
    let output = &manifest(&destination)["outputs"][0];
    assert_eq!(issued[0]["serials"], serde_json::json!([output["serial"], output["tls_serial"]]));
    assert!(events(&world, "refused").is_empty());
}

#[test]
fn a_refusal_is_final() {
    let world = world();
    let gateway = Gateway::with(&world.authority, &[]);
    world.issuer.change_claims("github", |claims| {
        claims.insert("repository".into(), "octo-org/another".into());
    });
    let job = behind(&world, &gateway);
    let outcome = job.once([]).failed(4);
    outcome.says(&[
        "the authority refused",
        "        repository: octo-org/another\n",
        "authority explain d-",
    ]);
    assert_eq!(gateway.times(EXCHANGE).len(), 1);
    assert!(job.left().is_empty());
    let refused = events(&world, "refused");
    assert_eq!(refused.len(), 1);
    outcome.says(&[refused[0]["denial_id"].as_str().unwrap()]);
}

#[test]
fn what_is_no_authority_is_told() {
    let world = world();
    let gateway = Gateway::start(&world.authority);
    for (status, body) in
        [(404, "<html>"), (301, ""), (200, "{}"), (200, "<html>hello</html>"), (403, "denied")]
    {
        let header = if status == 301 { "Location: https://127.0.0.1:1/" } else { "" };
        gateway.meet(&[Trouble::Answer(status, header.into(), body.into())]);
        let before = gateway.times(EXCHANGE).len();
        let job = behind(&world, &gateway);
        job.once([]).failed(5).says(&["answer", "hint: "]);
        assert_eq!(gateway.times(EXCHANGE).len(), before + 1, "{status} {body}");
        assert!(job.left().is_empty());
    }
}

#[test]
fn an_authority_that_hangs_or_is_gone_ends_at_the_timeout() {
    let world = world();
    let gateway = Gateway::with(&world.authority, &[Trouble::Hang, Trouble::Hang, Trouble::Hang]);
    let job = behind(&world, &gateway);
    let (outcome, took) = timed(|| job.once(["--timeout", "2s"]));
    outcome.failed(5).says(&["did not answer in time", "hint: "]);
    assert!(took < Duration::from_secs(6), "{took:?}");
    let job = world.github().env("MACHINE_ID_AUTHORITY", format!("https://{}", free_port()));
    let (outcome, took) = timed(|| job.once(["--timeout", "2s"]));
    outcome.failed(5).says(&["cannot reach the authority", "hint: check --authority"]);
    assert!(took < Duration::from_secs(6), "{took:?}");
    assert!(job.left().is_empty());
}

#[test]
fn an_authority_that_comes_back_is_found() {
    let mut world = world();
    world.authority.kill();
    let job = world.github();
    let mut running = job.start(["--timeout", "30s"]);
    crate::support::wait_for("a first attempt", || running.stderr().contains("trying again").then_some(()));
    world.authority.restart();
    assert!(running.wait().success(), "{}", running.stderr());
}

#[test]
fn an_authority_that_does_not_answer_when_greeted_is_asked_all_the_same() {
    let world = World::start();
    // Less than a connection may take to be made.
    let proxy = HangingFirst::start(world.authority.address());
    let job = world.github().env("HTTPS_PROXY", format!("http://{}", proxy.0));
    job.once(["--timeout", "9s"]).good();
}

/// A `CONNECT` proxy whose first connection to an address is never served.
struct HangingFirst(std::net::SocketAddr);

impl HangingFirst {
    fn start(target: std::net::SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut held: Vec<TcpStream> = Vec::new();
            for client in listener.incoming() {
                let client = client.unwrap();
                let mut reader = BufReader::new(client.try_clone().unwrap());
                let mut first = String::new();
                let mut line = String::new();
                while reader.read_line(&mut line).unwrap_or(0) > 2 {
                    first = if first.is_empty() { line.clone() } else { first };
                    line.clear();
                }
                let to = first.split(' ').nth(1).unwrap_or_default().to_owned();
                if held.is_empty() && to == target.to_string() {
                    held.push(client);
                } else {
                    std::thread::spawn(move || tunnel(client, &to));
                }
            }
        });
        Self(address)
    }
}

fn tunnel(mut client: TcpStream, to: &str) {
    let Ok(server) = TcpStream::connect(to) else { return };
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").unwrap();
    let (mut to_client, mut from_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let back = std::thread::spawn(move || {
        let _ = std::io::copy(&mut from_server, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Write);
    });
    let mut server = server;
    let _ = std::io::copy(&mut client, &mut server);
    let _ = server.shutdown(Shutdown::Write);
    let _ = back.join();
}
