//! Exchanges per second with the CA keys in sealed files, a token and AWS KMS, beside those with keys in plain files: an
//! authority on one core, asked by 16 clients from another. See `README.md`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::print_stdout,
    reason = "a benchmark that fails ends; its figures are small"
)]

#[allow(dead_code, reason = "this crate uses a part of it")]
#[path = "authority/figures.rs"]
mod figures;
#[path = "authority/load.rs"]
mod load;
#[allow(dead_code, reason = "this crate uses a part of it")]
#[path = "authority/server.rs"]
mod server;
#[allow(dead_code, unreachable_pub, reason = "this crate uses a part of it")]
#[path = "../support/mod.rs"]
mod support;

use std::path::Path;

use figures::Rates;
use server::{Server, measure};
use support::issuer::Issuer;
use support::key_store::{KeyStore, Kind};
use support::process::MACHINE_ID;

/// The two cores: one for authorities alone, one for their clients.
const AUTHORITY_CORE: &str = "0";
const CLIENTS_CORE: &str = "1";
/// Clients at once.
const CLIENTS: usize = 16;
/// Requests of one measurement.
const REQUESTS: usize = 1000;
/// Measurements of each place, in turn, after one that does not count.
const ROUNDS: usize = 3;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["load", how, clients, addresses, requests] => {
            load::load(how, clients.parse().unwrap(), addresses, Path::new(requests));
        }
        // `cargo bench` says `--bench`, `cargo test --benches` does not.
        words if words.contains(&"--bench") => {
            bench(Kind::Modern);
            bench(Kind::Compatible);
        }
        _ => println!("keys: run with `cargo bench`"),
    }
}

fn bench(kind: Kind) {
    let issuer = Issuer::start();
    let places = [
        ("files", KeyStore::Files),
        ("sealed files", KeyStore::sealed()),
        ("SoftHSM", KeyStore::token()),
        ("moto", KeyStore::kms()),
    ];
    let servers: Vec<Server> = places
        .iter()
        .map(|(_, place)| {
            Server::start(place.authority(&issuer, kind).start(), Path::new(MACHINE_ID), |_| ())
        })
        .collect();
    let mut rates: Vec<Rates> = places.iter().map(|_| Rates::default()).collect();
    let scratch = tempfile::TempDir::new().unwrap();
    for round in 0..=ROUNDS {
        for (server, rates) in servers.iter().zip(&mut rates) {
            let requests = server.mint(&issuer, REQUESTS, &scratch.path().join("requests"));
            let rate = measure(&[server], "new", CLIENTS, &requests);
            if round > 0 {
                rates.add(rate);
            }
        }
    }
    let told: Vec<String> = places
        .iter()
        .zip(&rates)
        .map(|((name, _), rate)| {
            format!("{name} {rate}, {:.2} of files", rate.per_second() / rates[0].per_second())
        })
        .collect();
    println!("keys, {kind:?}, one core, {CLIENTS} clients: {}", told.join("; "));
}
