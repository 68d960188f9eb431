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

#[path = "keys/outage.rs"]
mod outage;
#[allow(dead_code, reason = "this crate uses a part of it")]
mod serving;
#[allow(dead_code, unreachable_pub, reason = "this crate uses a part of it")]
#[path = "../support/mod.rs"]
mod support;

use std::path::Path;

use serving::in_turn;
use serving::server::Server;
use support::issuer::Issuer;
use support::key_store::{KeyStore, Kind};
use support::process::MACHINE_ID;

/// Clients at once.
const CLIENTS: usize = 16;
/// Requests of one measurement.
const REQUESTS: usize = 400;
/// Measurements of each place, in turn, after one that does not count.
const ROUNDS: usize = 9;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["load", how, clients, addresses, requests] => {
            serving::load::load(how, clients.parse().unwrap(), addresses, Path::new(requests));
        }
        ["outage", seconds, ..] => outage::bench(seconds.parse().unwrap_or(60)),
        ["modern", ..] => bench(Kind::Modern),
        ["compatible", ..] => bench(Kind::Compatible),
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
    let servers = places.each_ref().map(|(_, place)| {
        Server::start(place.authority(&issuer, kind).start(), Path::new(MACHINE_ID), |_| ())
    });
    let rates = in_turn(&issuer, &servers, (CLIENTS, REQUESTS), |round| round <= ROUNDS);
    let told: Vec<String> = places
        .iter()
        .zip(&rates)
        .map(|((name, _), rate)| {
            format!("{name} {rate}, {:.2} of files", rate.per_second() / rates[0].per_second())
        })
        .collect();
    println!("keys, {kind:?}, one core, {CLIENTS} clients: {}", told.join("; "));
}
