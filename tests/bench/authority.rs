//! Exchanges per second of an authority on one core, asked by 64 clients at
//! once from another: over new connections and kept ones, with the store on disk,
//! with the same in memory, and in PostgreSQL; beside them the bare handshake rate.
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

#[path = "authority/lists.rs"]
mod lists;
#[path = "authority/past.rs"]
mod past;
mod serving;
#[path = "authority/shared.rs"]
mod shared;
#[allow(dead_code, unreachable_pub, reason = "this crate uses a part of it")]
#[path = "../support/mod.rs"]
mod support;
#[path = "authority/watchers.rs"]
mod watchers;

use std::path::Path;
use std::time::{Duration, Instant};

use serving::figures::Rates;
use serving::in_turn;
use serving::server::{Server, builder, health_checks, measure};
use support::issuer::Issuer;
use support::process::MACHINE_ID;

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
/// The store's file in a data directory.
const STORE: &str = "authority.db";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["load", how, clients, addresses, requests] => {
            serving::load::load(how, clients.parse().unwrap(), addresses, Path::new(requests));
        }
        ["millions", count, ..] => millions(count.parse().unwrap()),
        ["lists", count, "beside", binary, ..] => lists::bench(count.parse().unwrap(), Path::new(binary)),
        ["lists", count, ..] => lists::bench(count.parse().unwrap(), Path::new(MACHINE_ID)),
        ["watchers", count, ..] => watchers::bench(count.parse().unwrap()),
        ["beside", binary, ..] => beside(Path::new(binary)),
        // `cargo bench` says `--bench`, `cargo test --benches` does not.
        words if words.contains(&"--bench") => bench(),
        _ => println!("authority: run with `cargo bench`"),
    }
}

fn bench() {
    let issuer = Issuer::start();
    let scratch = tempfile::TempDir::new().unwrap();
    let disk = start(&issuer, &std::env::temp_dir(), MACHINE_ID, 0);
    let memory = start(&issuer, Path::new("/dev/shm"), MACHINE_ID, 0);
    for server in [&disk, &memory] {
        measure(&[server], "new", CLIENTS, &server.mint(&issuer, WARM_UP, &scratch.path().join("requests")));
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
            rates.add(measure(&[server], how, CLIENTS, &requests));
        }
        let empty = scratch.path().join("empty");
        std::fs::write(&empty, health_checks(REQUESTS)).unwrap();
        handshakes.add(measure(&[&memory], "new", CLIENTS, &empty));
    }
    let over = |one: &Rates, other: &Rates| one.per_second() / other.per_second();
    println!(
        "authority, SQLite, one core, {CLIENTS} clients: on disk new {disk_new}, kept {disk_kept}; \
         in memory new {memory_new}, kept {memory_kept}; handshake and GET /healthz {handshakes}; \
         disk / memory: new {:.2}, kept {:.2}; on disk new / handshake {:.2}, p99 / p50 {:.1}, without a store / with it {:.2}",
        over(&disk_new, &memory_new),
        over(&disk_kept, &memory_kept),
        over(&disk_new, &handshakes),
        disk_new.spread(),
        disk_new.cost_without_a_store() / disk_new.cost(),
    );
    drop((disk, memory));
    shared::bench(&issuer, scratch.path(), disk_new.cost_without_a_store());
}

/// An authority with a store of its own in that place, behind so many issuances.
fn start(issuer: &Issuer, place: &Path, binary: impl AsRef<Path>, past: u64) -> Server {
    let fixture = builder(issuer).within(place).start();
    Server::start(fixture, binary.as_ref(), |data_dir| {
        if past > 0 {
            past::fill(&data_dir.join(STORE), past, 10 * REQUESTS);
        }
    })
}

/// What an exchange costs with this build, beside what it costs with another of the same schema.
fn beside(binary: &Path) {
    let issuer = Issuer::start();
    let servers =
        [binary, Path::new(MACHINE_ID)].map(|binary| start(&issuer, &std::env::temp_dir(), binary, 0));
    let [other, this] = in_turn(&issuer, &servers, (CLIENTS, REQUESTS), |round| round < 2 * ROUNDS);
    println!(
        "authority, SQLite on disk: that one {other}; this one {this}; this / that {:.3}",
        this.cost() / other.cost()
    );
}

/// What an exchange costs behind so many others, beside what it costs in an
/// empty store; long enough that what has expired is forgotten meanwhile.
fn millions(count: u64) {
    let issuer = Issuer::start();
    let servers = [0, count].map(|past| start(&issuer, &std::env::temp_dir(), MACHINE_ID, past));
    let begin = Instant::now();
    let [none, past] = in_turn(&issuer, &servers, (CLIENTS, REQUESTS), |_| begin.elapsed() < FORGETTING);
    println!(
        "authority, one core, {CLIENTS} clients: behind none {none}; behind {count} {past}; cost behind {count} / behind none {:.2}",
        past.cost_of_all() / none.cost_of_all()
    );
}
