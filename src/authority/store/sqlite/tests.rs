//! The store under races, failures and restarts.

use std::fs;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::super::{CertificateKind, NewCertificate, PlanRecord};
use super::*;
use crate::clock::Held;
use crate::join::verify::Replay;

mod bytes;
mod files;
mod full;
mod instances;
mod list_numbers;
mod outside;
mod strangers;
mod time;

const NOW: i64 = 1_795_348_800;

/// Of a proof of five minutes.
const HELD: Held = Held { until: NOW + 300, lasts: 300 };

/// Recorded now, for a job.
const FRESH: Issued = Issued::Accepted { plan: None, generation: None };

/// Recorded before, with that plan.
fn retry(plan: &str) -> Issued {
    Issued::Accepted { plan: Some(plan.to_owned()), generation: None }
}

/// A store in a directory of its own, and a runtime with threads that race.
struct Bench {
    dir: TempDir,
    store: Arc<Sqlite>,
    runtime: Runtime,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Sqlite::create(&dir.path().join("authority.db")).unwrap();
        let store = Arc::new(Sqlite::open(&dir.path().join("authority.db"), Owner::me(), NOW).unwrap());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(8).build().unwrap();
        Self { dir, store, runtime }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("authority.db")
    }

    fn wait<T>(&self, future: impl Future<Output = Result<T>>) -> T {
        self.runtime.block_on(future).unwrap()
    }

    fn issue(&self, entry: Entry) -> Issued {
        self.wait(self.store.issue(entry.entry, entry.plan))
    }

    fn try_issue(&self, entry: Entry) -> Result<Issued> {
        self.runtime.block_on(self.store.issue(entry.entry, entry.plan))
    }

    /// All at once, in whatever order.
    fn issue_all(&self, entries: Vec<Entry>) -> Vec<Result<Issued>> {
        self.runtime.block_on(async {
            let mut all = JoinSet::new();
            for entry in entries {
                let store = Arc::clone(&self.store);
                all.spawn(async move { store.issue(entry.entry, entry.plan).await });
            }
            all.join_all().await
        })
    }

    /// Holds the writer up for a moment, so that what comes next waits together.
    fn hold_up(&self) {
        let store = Arc::clone(&self.store);
        let nap = |_: &_| {
            std::thread::sleep(Duration::from_millis(400));
            Ok(())
        };
        self.runtime.spawn(async move { store.writer.write(Room::Any, nap).await });
        std::thread::sleep(Duration::from_millis(100));
    }

    /// How many transactions the write-ahead log holds: its frames with the size of the file
    /// end one each (SQLite's file format, section 4.1).
    fn commits(&self) -> usize {
        let log = fs::read(self.dir.path().join("authority.db-wal")).unwrap();
        log[32..].chunks(24 + 4096).filter(|frame| frame[4..8] != [0; 4]).count()
    }

    fn events(&self, filter: EventFilter) -> Vec<Value> {
        let events = self.wait(self.store.events(filter, Cursor::default(), 10_000));
        events.into_iter().map(|event| Value::from(event.body)).collect()
    }

    fn names(&self, filter: EventFilter) -> Vec<String> {
        let name = |event: &Value| {
            let id = event.get("issuance_id").or(event.get("denial_id")).unwrap().as_str().unwrap();
            format!("{} {id}", event["event"].as_str().unwrap())
        };
        self.events(filter).iter().map(name).collect()
    }

    /// How many used proofs are remembered.
    fn proofs(&self) -> i64 {
        let count = |connection: &_| {
            rusqlite::Connection::query_row(connection, "SELECT count(*) FROM proofs", [], |row| row.get(0))
        };
        self.wait(self.store.reader.read(count))
    }

    fn revoke(&self, issuance: u64, assertion: &str) -> Revoked {
        self.wait(self.store.revoke(revocation(issuance, assertion)))
    }
}

/// An exchange, and what is recorded of its plan.
#[derive(Clone)]
struct Entry {
    entry: NewIssuance,
    plan: PlanRecord,
}

impl Entry {
    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

impl Deref for Entry {
    type Target = NewIssuance;

    fn deref(&self) -> &NewIssuance {
        &self.entry
    }
}

impl DerefMut for Entry {
    fn deref_mut(&mut self) -> &mut NewIssuance {
        &mut self.entry
    }
}

fn object(json: &str) -> Map<String, Value> {
    serde_json::from_str(json).unwrap()
}

/// Issuance `n` for proof `n`, with an SSH certificate of serial `2n` and a TLS one of `2n + 1`.
fn issuance(n: u64) -> Entry {
    let certificate = |serial, kind, name: &str| NewCertificate {
        serial,
        kind,
        output: "identity".into(),
        output_type: Some("identity".into()),
        options: Default::default(),
        principals: vec![name.into()],
        groups: Vec::new(),
        expires: NOW + 3600,
        key_hash: [u8::try_from(serial % 256).unwrap(); 32],
    };
    let entry = NewIssuance {
        time: NOW,
        bot: "deployer".into(),
        token: "github-deploy".into(),
        join_method: "github".into(),
        provenance: format!("github:octo-org/app@refs/heads/main run {n} attempt 1"),
        claims: object(r#"{"sub":"repo:octo-org/app"}"#),
        peer: "192.0.2.7".into(),
        replay: Replay { issuer: "https://issuer".into(), id: format!("jti-{n}"), held: HELD },
        max_uses: 1,
        join: None,
    };
    let plan = PlanRecord {
        id: format!("i{n}"),
        fingerprint: [7; 32],
        certificates: vec![
            certificate(2 * n, CertificateKind::Ssh, "deploy"),
            certificate(2 * n + 1, CertificateKind::Tls, "deployer"),
        ],
        json: format!("plan {n}"),
    };
    Entry { entry, plan }
}

fn refusal(id: &str, claims: Option<&str>) -> NewRefusal {
    NewRefusal {
        id: id.into(),
        time: NOW + 1,
        token: "other".into(),
        join_method: "github".into(),
        bot: None,
        reason: "no_rule_matches",
        detail: "the nearest rule wanted repository octo-org/app".into(),
        claims: claims.map(object),
        verified: true,
        peer: "192.0.2.8".into(),
        stranger: None,
    }
}

fn revocation(issuance: u64, assertion: &str) -> NewRevocation {
    NewRevocation {
        issuance_id: format!("i{issuance}"),
        time: NOW + 2,
        assertion_id: assertion.into(),
        held: Held { until: NOW + 62, lasts: 62 },
        peer: "192.0.2.7".into(),
    }
}

/// The same proof `n`, for something else.
fn other(n: u64, what: u64) -> Entry {
    let mut entry = issuance(what);
    entry.replay = issuance(n).entry.replay;
    entry.plan.fingerprint = [u8::try_from(what % 256).unwrap(); 32];
    entry
}

#[test]
fn of_twenty_at_once_with_other_keys_one_is_fresh() {
    let bench = Bench::new();
    for round in 0..20 {
        let entries = (0..20).map(|n| other(round, 1000 + round * 20 + n)).collect();
        let answers: Vec<Issued> = bench.issue_all(entries).into_iter().map(Result::unwrap).collect();
        assert_eq!(answers.iter().filter(|answer| **answer == FRESH).count(), 1);
        assert_eq!(answers.iter().filter(|answer| **answer == Issued::Used).count(), 19);
    }
    assert_eq!(bench.events(EventFilter::default()).len(), 20);
}

#[test]
fn of_twenty_at_once_as_many_are_fresh_as_the_proof_has_uses() {
    let bench = Bench::new();
    let uses = |n: u64| other(0, 1000 + n).with(|entry| entry.max_uses = 3);
    let answers: Vec<Issued> =
        bench.issue_all((0..20).map(uses).collect()).into_iter().map(Result::unwrap).collect();
    assert_eq!(answers.iter().filter(|answer| **answer == FRESH).count(), 3);
    assert_eq!(answers.iter().filter(|answer| **answer == Issued::Used).count(), 17);
    // Each of the three is answered again, and none is a use of another proof.
    let again = bench.issue_all((0..20).map(uses).collect()).into_iter().map(Result::unwrap);
    assert_eq!(again.filter(|answer| matches!(answer, Issued::Accepted { plan: Some(_), .. })).count(), 3);
    assert_eq!(bench.issue(issuance(1)), FRESH);
    // A rule that was made stricter meanwhile counts what was used before.
    assert_eq!(bench.issue(other(0, 2000).with(|entry| entry.max_uses = 2)), Issued::Used);
}

#[test]
fn of_twenty_at_once_with_the_same_keys_all_get_one_plan() {
    let bench = Bench::new();
    let same = |n: u64| issuance(100 + n).with(|entry| entry.replay = issuance(0).entry.replay);
    let answers: Vec<Issued> =
        bench.issue_all((0..20).map(same).collect()).into_iter().map(Result::unwrap).collect();
    assert_eq!(answers.iter().filter(|answer| **answer == FRESH).count(), 1);
    let event = &bench.events(EventFilter::default())[0];
    let plan = format!("plan {}", event["issuance_id"].as_str().unwrap().trim_start_matches('i'));
    let repeats = answers.iter().filter(|answer| **answer == retry(&plan));
    assert_eq!(repeats.count(), 19, "{answers:?}");
}

#[test]
fn a_proof_is_of_its_issuer_and_lives_until_it_is_pruned() {
    let bench = Bench::new();
    assert_eq!(bench.issue(issuance(1)), FRESH);
    let mut elsewhere = other(1, 2);
    elsewhere.replay.issuer = "https://elsewhere".into();
    assert_eq!(bench.issue(elsewhere), FRESH);
    // Until and at its time it holds, restarted or not.
    bench.wait(bench.store.prune(NOW + 300));
    let again = Sqlite::open(&bench.path(), Owner::me(), NOW).unwrap();
    let other_keys = other(1, 3);
    assert_eq!(bench.wait(again.issue(other_keys.entry, other_keys.plan)), Issued::Used);
    assert_eq!(bench.issue(issuance(1)), retry("plan 1"));
    bench.store.odometer.advance(301);
    bench.wait(bench.store.prune(NOW + 301));
    assert_eq!(bench.proofs(), 0);
}

#[test]
fn pruning_takes_more_than_one_step() {
    let bench = Bench::new();
    let many = u64::try_from(PRUNE_STEP * 2 + 1).unwrap();
    for answer in bench.issue_all((0..many).map(issuance).collect()) {
        assert_eq!(answer.unwrap(), FRESH);
    }
    bench.store.odometer.advance(301);
    bench.wait(bench.store.prune(NOW + 301));
    assert_eq!(bench.proofs(), 0);
    // Certificates and the trail stay.
    assert!(bench.wait(bench.store.certificate(2)).is_some());
    assert_eq!(bench.events(EventFilter::default()).len(), PRUNE_STEP * 2 + 1);
}

#[test]
fn commits_are_shared() {
    let bench = Bench::new();
    bench.hold_up();
    let answers = bench.issue_all((0..500).map(issuance).collect());
    assert!(answers.into_iter().all(|answer| answer.unwrap() == FRESH));
    let commits = bench.commits();
    assert!((2..50).contains(&commits), "{commits} commits of 500 entries");
}

#[test]
fn an_entry_that_fails_leaves_its_neighbours_alone() {
    let bench = Bench::new();
    bench.issue(issuance(0));
    // Every third takes the serial of issuance 0 for its second certificate.
    let entries = (1..=300)
        .map(|n| {
            let mut entry = issuance(n);
            if n % 3 == 0 {
                entry.plan.certificates[1].serial = 0;
            }
            entry
        })
        .collect();
    bench.hold_up();
    let answers = bench.issue_all(entries);
    assert_eq!(answers.iter().filter(|answer| answer.is_err()).count(), 100);
    assert!(bench.commits() < 50, "they were in one transaction");
    let trail = bench.names(EventFilter::default());
    assert_eq!(trail.len(), 201);
    assert!(!trail.contains(&"issued i3".into()) && trail.contains(&"issued i4".into()));
    // Nothing of it is left: neither its other certificate nor the used proof.
    assert_eq!(bench.wait(bench.store.certificate(6)), None);
    assert_eq!(bench.issue(issuance(3)), FRESH);
}

#[test]
fn serials_are_unique_over_both_kinds_and_fit() {
    let bench = Bench::new();
    bench.issue(issuance(1));
    let mut entry = issuance(2);
    entry.plan.certificates[0].serial = 3; // of 1's TLS certificate
    assert!(bench.try_issue(entry).is_err());
    let mut entry = issuance(2);
    entry.plan.certificates[0].serial = 1 << 63;
    assert!(bench.try_issue(entry).is_err());
    let mut entry = issuance(2);
    entry.plan.certificates.clear();
    assert!(bench.try_issue(entry).is_err());
    assert_eq!(bench.names(EventFilter::default()), ["issued i1"]);
    assert_eq!(bench.wait(bench.store.certificate(1 << 63)), None);
}

#[test]
fn a_failed_commit_fails_everyone_in_it() {
    let bench = Bench::new();
    // A commit that cannot succeed: a reference that holds nowhere, looked at in the end.
    let poison = bench.store.writer.write(Room::Any, |connection| {
        connection.execute_batch(
            "PRAGMA defer_foreign_keys = ON;
             INSERT INTO certificates (serial, issuance, kind, expires, key_hash) VALUES (1, 999, 0, 0, zeroblob(32))",
        )
    });
    bench.hold_up();
    let Entry { entry, plan } = issuance(1);
    let issued = bench.store.issue(entry, plan);
    let (poison, issued) = bench.runtime.block_on(async { tokio::join!(poison, issued) });
    assert!(poison.unwrap_err().to_string().contains("FOREIGN KEY"));
    assert!(issued.unwrap_err().to_string().starts_with("cannot write to the store: "));
    assert!(bench.events(EventFilter::default()).is_empty());
    assert_eq!(bench.issue(issuance(1)), FRESH);
}

#[test]
fn what_ends_within_a_minute_of_its_revocation_is_on_no_list() {
    let bench = Bench::new();
    for (n, left) in [(1, 60), (2, 61)] {
        let revoked = revocation(n, "a").time;
        let ends = |one: &mut NewCertificate| one.expires = revoked + left;
        bench.issue(issuance(n).with(|entry| entry.plan.certificates.iter_mut().for_each(ends)));
        assert_eq!(bench.revoke(n, "a"), Revoked::Now);
    }
    let list = bench.wait(bench.store.revoked(NOW));
    assert_eq!(list.iter().map(|one| one.serial).collect::<Vec<_>>(), [4, 5]);
}

#[test]
fn an_issuance_is_revoked_whole_and_an_assertion_used_once() {
    let bench = Bench::new();
    bench.issue(issuance(1));
    bench.issue(issuance(2));
    let recorded = bench.wait(bench.store.certificate(2)).unwrap();
    assert_eq!((recorded.issuance_id.as_str(), recorded.key_hash), ("i1", [2; 32]));
    assert_eq!((recorded.kind, recorded.expires, recorded.revoked), (CertificateKind::Ssh, NOW + 3600, None));
    assert!(bench.wait(bench.store.revoked(NOW)).is_empty());

    assert_eq!(bench.revoke(9, "a"), Revoked::Unknown);
    assert_eq!(bench.revoke(1, "a"), Revoked::Now);
    assert_eq!(bench.revoke(1, "a"), Revoked::AssertionUsed);
    assert_eq!(bench.revoke(1, "b"), Revoked::Before);
    // Another issuance's assertions are its own.
    assert_eq!(bench.revoke(2, "b"), Revoked::Now);

    assert_eq!(bench.wait(bench.store.certificate(3)).unwrap().revoked, Some(NOW + 2));
    let list = bench.wait(bench.store.revoked(NOW));
    assert_eq!((list[0].revoked, list[0].expires), (NOW + 2, NOW + 3600));
    let serials: Vec<_> = list.iter().map(|one| (one.serial, one.kind)).collect();
    let (ssh, tls) = (CertificateKind::Ssh, CertificateKind::Tls);
    assert_eq!(serials, [(2, ssh), (3, tls), (4, ssh), (5, tls)]);
    assert_eq!(bench.wait(bench.store.revoked(NOW + 3600)).len(), 4);
    assert!(bench.wait(bench.store.revoked(NOW + 3601)).is_empty());

    // The retry of what was revoked gets nothing.
    assert_eq!(bench.issue(issuance(1)), Issued::Used);
    assert_eq!(bench.names(EventFilter::default()), ["issued i1", "issued i2", "revoked i1", "revoked i2"]);
    assert_eq!(
        bench.events(EventFilter { event: Some("revoked".into()), ..Default::default() })[0],
        json!({
            "time": "2026-11-22T12:00:02Z", "event": "revoked", "issuance_id": "i1", "bot": "deployer",
            "token": "github-deploy", "join_method": "github", "serials": ["2", "3"],
            "provenance": "github:octo-org/app@refs/heads/main run 1 attempt 1",
            "reason": "given_back", "peer": "192.0.2.7",
        })
    );
    // A pruned assertion no longer matters, for the issuance is revoked.
    bench.store.odometer.advance(63);
    bench.wait(bench.store.prune(NOW + 63));
    assert_eq!(bench.revoke(1, "a"), Revoked::Before);
}

#[test]
fn of_twenty_revocations_at_once_one_is_now() {
    let bench = Bench::new();
    bench.issue(issuance(1));
    let answers = bench.runtime.block_on(async {
        let mut all = JoinSet::new();
        for n in 0..20 {
            let store = Arc::clone(&bench.store);
            all.spawn(async move { store.revoke(revocation(1, &format!("a{}", n % 10))).await.unwrap() });
        }
        all.join_all().await
    });
    let count = |wanted| answers.iter().filter(|answer| **answer == wanted).count();
    assert_eq!((count(Revoked::Now), count(Revoked::Before), count(Revoked::AssertionUsed)), (1, 18, 1));
}

/// A caller that hangs up once its entry is queued does not keep the lists as they were.
#[test]
fn a_revocation_counts_though_nobody_waits_for_it() {
    let bench = Bench::new();
    bench.issue(issuance(1));
    let dir = bench.dir.path().join("keys");
    crate::authority::keys::file::create(&dir, "id.test", NOW).unwrap();
    let keys = crate::authority::keys::file::load(&dir, Owner::me()).unwrap();
    let cache = crate::authority::revocation::ListCache::default();
    let krl = || bench.wait(cache.lists(bench.store.as_ref(), &keys, NOW)).krl.clone();
    let before = krl();
    assert_eq!((krl(), bench.store.revocations()), (before.clone(), 0));
    assert_eq!(krl().as_ptr(), before.as_ptr(), "each answer has a list of its own");
    bench.runtime.block_on(async {
        let mut asked = bench.store.revoke(revocation(1, "a"));
        drop(asked.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())));
    });
    // Whoever writes next is answered after it.
    bench.wait(bench.store.ready());
    let after = krl();
    assert_ne!(after, before);
    // Nothing is built anew where nothing was revoked.
    let count = bench.store.revocations();
    assert_eq!(bench.revoke(1, "a"), Revoked::AssertionUsed);
    assert_eq!(bench.revoke(1, "b"), Revoked::Before);
    assert_eq!(bench.store.revocations(), count);
}
