//! What the authority states to its servers, and those who watch it.

use std::io;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use ring::digest::{SHA256, digest};
use serde_json::Value;

use super::Bench;
use super::revocation::{Held, revoke};
use super::serving::serve_after;
use crate::support::client::{Keys, timed};
use crate::support::now;
use crate::support::process::succeed;
use crate::support::watcher::{Watcher, exported_key, number, present, revoked};

/// What is new is told within that time: a second, on a machine with nothing else to do, and before a heartbeat.
const AT_ONCE: Duration = Duration::from_secs(5);
/// Something is told within that time.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// What need not be quick.
const SOON: Duration = Duration::from_secs(10);

impl Bench {
    fn watch(&self, since: Option<u64>) -> (Watcher, Value) {
        let mut watcher = Watcher::start(&self.authority, since);
        let first = watcher.next(SOON);
        (watcher, first)
    }

    /// Has a job give its certificates back.
    #[track_caller]
    fn give_back(&self, held: &Held) {
        revoke(self, held.id(), &held.assertion(self)).granted();
    }
}

fn sha256(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_statement_is_by_the_exported_key_and_of_the_lists() {
    let bench = Bench::start();
    bench.give_back(&Held::new(&bench));
    let client = bench.authority.client();
    let key = exported_key(&bench.authority);
    let told = present(client, &key);
    let (krl, crl) = (client.get("/v1/revoked/ssh.krl").body, client.get("/v1/revoked/tls.crl").body);
    let (_, crl) = x509_parser::parse_x509_crl(&crl).unwrap();
    assert_eq!(told["krl"], sha256(&krl));
    assert_eq!(told["crl"], sha256(crl.tbs_cert_list.as_ref()));
    assert_eq!(u64::from_be_bytes(krl[12..20].try_into().unwrap()), number(&told), "of PROTOCOL.krl");
    assert_eq!(told["trust"], client.get("/v1/trust").json());
    assert_eq!(
        (told["cluster"].as_str(), told["statement_keys"].as_array().unwrap().len()),
        (Some("id.test"), 1)
    );
    assert_eq!(told["statement_keys"][0], key.as_str());
    let made = told["made"].as_i64().unwrap();
    assert!((now() - 5..=now()).contains(&made) && told["until"] == made + 600, "{told}");
    assert_eq!((&told["since"], revoked(&told)), (&Value::Null, vec![]), "for whoever has no list");
    for query in ["?since=", "?since=-1", "?since=1&since=2", "?from=1", "?", "?since=99999999999999999999"] {
        client.get(&format!("/v1/watch{query}")).problem(400);
    }
    client.post("/v1/watch", "{}").problem(405);
}

#[test]
fn what_is_revoked_is_told_at_once_and_who_was_away_misses_nothing() {
    let mut bench = Bench::start();
    let held: Vec<Held> = (0..3).map(|_| Held::new(&bench)).collect();
    let (mut watcher, first) = bench.watch(None);
    assert_eq!((&first["since"], &first["urgent"]), (&Value::Null, &first["number"]));

    // A job's own, and then an operator's, by a command beside the authority.
    bench.give_back(&held[0]);
    let given_back = watcher.wait(AT_ONCE, |told| !revoked(told).is_empty());
    assert_eq!((&given_back["since"], revoked(&given_back).len()), (&first["number"], 2));
    assert!(number(&given_back) > number(&first) && given_back["urgent"] == first["urgent"]);
    succeed(&mut bench.authority.command(["lock", "--issuance", held[1].id()]));
    let locked = watcher.wait(AT_ONCE, |told| !revoked(told).is_empty());
    assert_eq!((&locked["since"], &locked["urgent"]), (&given_back["number"], &locked["number"]));

    // Of those who were away, one knew of the first.
    let (_, told) = bench.watch(Some(number(&first)));
    assert_eq!((&told["since"], revoked(&told).len()), (&first["number"], 4));
    assert_eq!(revoked(&told)[..2], revoked(&given_back));
    let (mut watcher, told) = bench.watch(Some(number(&given_back)));
    assert_eq!((&told["since"], revoked(&told)), (&given_back["number"], revoked(&locked)));
    let (_, told) = bench.watch(Some(number(&first) - 1));
    assert_eq!((&told["since"], revoked(&told)), (&Value::Null, vec![]), "nobody knows that one");

    // The end of the authority is told, and comes soon.
    bench.authority.term();
    let ended = watcher.try_next(SOON).unwrap_err();
    assert_eq!(ended.kind(), io::ErrorKind::UnexpectedEof);
    let (status, took) = timed(|| bench.authority.wait());
    assert!(status.success() && took < Duration::from_secs(3), "{took:?}");
    bench.authority.restart();
    let (mut watcher, told) = bench.watch(Some(number(&locked)));
    assert_eq!(
        (&told["since"], &told["number"], revoked(&told)),
        (&locked["number"], &locked["number"], vec![])
    );
    bench.give_back(&held[2]);
    let told = watcher.wait(AT_ONCE, |told| !revoked(told).is_empty());
    assert_eq!((&told["since"], revoked(&told).len()), (&locked["number"], 2));
}

#[test]
fn a_watcher_hears_that_nothing_is_new() {
    let bench = Bench::start();
    let (mut watcher, first) = bench.watch(None);
    // The first may come between two.
    let begun = watcher.next(HEARTBEAT + AT_ONCE);
    let (told, took) = timed(|| watcher.next(HEARTBEAT + AT_ONCE));
    assert!(took > HEARTBEAT - AT_ONCE, "{took:?}");
    assert_eq!((&told["number"], &told["since"]), (&first["number"], &first["number"]));
    assert!(
        told["made"].as_i64() > begun["made"].as_i64() && told["until"].as_i64() > first["until"].as_i64()
    );
}

#[test]
fn watchers_that_read_nothing_hold_nobody_up() {
    let bench = Bench::start();
    let held = Held::new(&bench);
    let before = bench.authority.resident();
    let slow: Vec<Watcher> = (0..500)
        .map(|n: u16| {
            let source = Ipv4Addr::new(127, 0, 8, u8::try_from(n % 50).unwrap() + 1);
            let stream = bench.authority.client().connect_from(source).unwrap();
            Watcher::over(stream, &bench.authority, None).unwrap()
        })
        .collect();
    let grown = bench.authority.resident().saturating_sub(before) / slow.len();
    let (mut watcher, _) = bench.watch(None);
    bench.give_back(&held);
    watcher.wait(AT_ONCE, |told| !revoked(told).is_empty());
    for _ in 0..10 {
        let (_, took) = timed(|| bench.grant(&Keys::fresh()));
        assert!(took < Duration::from_secs(3), "{took:?}");
    }
    println!("{grown} KiB each");
    assert!(grown < 128, "{grown} KiB each");
}

/// With 576 descriptors there are 160 connections of jobs and 160 of watchers: neither those of watchers nor those of one
/// network are everybody's.
#[test]
fn strangers_who_watch_take_their_own_places_away() {
    let mut bench = Bench::start();
    let _serving = serve_after(&mut bench, "ulimit -n 576", |_| {});
    let from = |address: [u8; 4]| {
        let stream = bench.authority.client().connect_from(address.into()).unwrap();
        Watcher::over(stream, &bench.authority, None)
    };
    let mut quiet = from([127, 0, 9, 1]).unwrap();
    quiet.next(SOON);
    let mut flood: Vec<Watcher> =
        (0..200).map(|n: u8| from([127, 0, 1 + n / 50, 1 + n % 50]).unwrap()).collect();
    let begun = Instant::now();
    bench.grant(&Keys::fresh());
    assert!(begun.elapsed() < SOON);
    let mut late = from([127, 0, 10, 1]).unwrap();
    late.next(SOON);
    succeed(&mut bench.authority.command(["lock", "--bot", "deployer"]));
    for one in [&mut quiet, &mut late] {
        one.wait(AT_ONCE, |told| !revoked(told).is_empty());
    }
    // It hears of the lock too, and not the end before.
    let is_there = |watcher: &mut Watcher| {
        let told = std::iter::from_fn(|| watcher.try_next(AT_ONCE).ok());
        told.take(9).any(|told| !revoked(&told).is_empty())
    };
    let there = flood.iter_mut().map(is_there).filter(|is_there| *is_there).count();
    assert!((150..=158).contains(&there), "{there}");
}

#[test]
fn a_directory_from_before_gets_its_key_once() {
    let mut bench = Bench::start();
    let key = exported_key(&bench.authority);
    bench.authority.terminate();
    let file = bench.authority.data_dir().join("keys/statement_key");
    let kept = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let said = bench.authority.run(["export", "statement-key"]);
    let said = (said.status.code(), String::from_utf8(said.stderr).unwrap());
    assert!(
        said.0 == Some(2) && said.1.contains("no statement key yet") && said.1.contains("serve` makes it"),
        "{said:?}"
    );
    // Which was lost since it was made.
    let refused = bench.authority.refuses_to_start();
    assert!(
        refused.contains(&format!("none here, statement {key} there"))
            && refused.contains("copy the folder of the keys from one that is right"),
        "{refused}"
    );
    assert!(!file.exists());
    let store = rusqlite::Connection::open(bench.authority.data_dir().join("authority.db")).unwrap();
    store.execute("DELETE FROM cas WHERE key LIKE 'statement %'", []).unwrap();
    drop(store);
    bench.authority.restart();
    assert!(bench.authority.stderr().contains("made the keys statement beside the CA keys: back them up"));
    let new = exported_key(&bench.authority);
    assert_ne!(new, key);
    present(bench.authority.client(), &new);
    bench.authority.restart();
    assert!(!bench.authority.stderr().contains("statement_key") && exported_key(&bench.authority) == new);
    // Another's is not this store's.
    bench.authority.terminate();
    std::fs::write(&file, kept).unwrap();
    let refused = bench.authority.refuses_to_start();
    assert!(refused.contains(&format!("statement {key} here, statement {new} there")), "{refused}");
}
