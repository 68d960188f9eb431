//! `kill -9` of the authority at any moment under load: whatever a client
//! holds afterwards is in the audit trail.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a helper that fails fails its test"
)]

#[allow(dead_code, unreachable_pub, reason = "this crate uses a part of it")]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use support::authority::Authority;
use support::client::{Client, Keys};
use support::issuer::Issuer;
use support::{policies, random, wait_for};

const ROUNDS: usize = 10;
const CLIENTS: usize = 8;

/// What a client sent and what it got, if anything.
struct Attempt {
    keys: Keys,
    token: String,
    granted: Option<Value>,
}

#[test]
fn what_a_client_holds_is_recorded() {
    let issuer = Issuer::start();
    let mut authority = Authority::trusting(&issuer, &policies::basic(&issuer));
    let mut attempts = Vec::new();
    for round in 0..ROUNDS {
        attempts.extend(load_until_killed(&mut authority, &issuer));
        authority.restart();
        let held = attempts.iter().filter(|attempt| attempt.granted.is_some()).count();
        assert_recorded(&authority, &attempts);
        println!(
            "round {round}: {held} issuances held, {} requests without an answer",
            attempts.len() - held
        );
    }
    assert!(attempts.iter().any(|attempt| attempt.granted.is_some()), "no load");
    lost_replies_can_be_asked_for_again(&authority, &attempts);
}

/// Clients that exchange as fast as they can, until the authority is killed
/// at a moment of chance.
fn load_until_killed(authority: &mut Authority, issuer: &Issuer) -> Vec<Attempt> {
    let (url, client) = (authority.url(), authority.client().clone());
    let answered = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| scope.spawn(|| exchange_until_gone(&client, issuer, &url, &answered)))
            .collect();
        wait_for("load", || (answered.load(Ordering::Relaxed) >= CLIENTS).then_some(()));
        std::thread::sleep(Duration::from_micros(u64::from(u16::from_le_bytes(random())) * 5));
        authority.kill();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    })
}

fn exchange_until_gone(client: &Client, issuer: &Issuer, url: &str, answered: &AtomicUsize) -> Vec<Attempt> {
    let mut attempts = Vec::new();
    loop {
        let keys = Keys::fresh();
        let token = issuer.token("github", &keys.audience(url)).mint();
        let reply = client.try_exchange(&keys.request("github-deploy", "github", &token));
        let granted = reply.ok().map(|response| response.granted());
        let gone = granted.is_none();
        attempts.push(Attempt { keys, token, granted });
        if gone {
            return attempts;
        }
        answered.fetch_add(1, Ordering::Relaxed);
    }
}

fn serials(granted: &Value) -> BTreeSet<String> {
    ["serial", "tls_serial"]
        .iter()
        .map(|name| granted["outputs"][0][name].as_str().unwrap().to_owned())
        .collect()
}

#[track_caller]
fn assert_recorded(authority: &Authority, attempts: &[Attempt]) {
    let mut recorded: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut all = BTreeSet::new();
    assert!(!authority.stderr().contains("put back"), "no kill makes a store look like an old copy");
    for event in authority.audit().into_iter().filter(|event| event["event"] == "issued") {
        let mine: BTreeSet<String> = event["serials"].as_array().unwrap().iter().map(plain).collect();
        for serial in &mine {
            assert!(all.insert(serial.clone()), "the serial {serial} stands twice");
        }
        recorded.insert(event["issuance_id"].as_str().unwrap().to_owned(), mine);
    }
    for granted in attempts.iter().filter_map(|attempt| attempt.granted.as_ref()) {
        let id = granted["issuance_id"].as_str().unwrap();
        let record = recorded.get(id).unwrap_or_else(|| panic!("{id} is held and not recorded"));
        assert!(record.is_superset(&serials(granted)), "{id}: {record:?} lacks {:?}", serials(granted));
    }
}

/// A serial, as text or as a number, or with its kind beside it.
fn plain(serial: &Value) -> String {
    match serial {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn lost_replies_can_be_asked_for_again(authority: &Authority, attempts: &[Attempt]) {
    let ask = |keys: &Keys, token: &str| {
        let request = keys.request("github-deploy", "github", token);
        authority.client().exchange(&request)
    };
    for attempt in attempts.iter().filter(|attempt| attempt.granted.is_none()) {
        ask(&attempt.keys, &attempt.token).granted();
    }
    let last = attempts.iter().rfind(|attempt| attempt.granted.is_some()).unwrap();
    let again = ask(&last.keys, &last.token).granted();
    assert_eq!(serials(&again), serials(last.granted.as_ref().unwrap()));
    let before = authority.audit().iter().filter(|event| event["event"] == "issued").count();
    ask(&Keys::fresh(), &last.token).problem(401);
    assert_eq!(authority.audit().iter().filter(|event| event["event"] == "issued").count(), before);
}
