//! The store under races, failures and restarts.

use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::super::conformance::fixtures::*;
use super::super::conformance::{Bench as Shared, Engine, sqlite as administrator};
use super::*;

mod bytes;
mod files;
mod full;
mod instances;
mod list_numbers;
mod outside;
mod pruning;
mod sealing;
mod shared;
mod size;
mod strangers;
mod time;
mod version_4;

/// A store in a directory of its own, beside what is the same for every engine.
struct Bench {
    dir: TempDir,
    store: Arc<Sqlite>,
    shared: Shared,
}

/// The engine of one that is open already.
#[derive(Debug)]
struct Open(Arc<Sqlite>, PathBuf);

impl Engine for Open {
    fn open(&self) -> Result<Arc<dyn Store>> {
        let store: Arc<dyn Store> = self.0.clone();
        Ok(store)
    }

    fn number(&self, sql: &str) -> i64 {
        administrator::number(&self.1, sql)
    }

    fn put_back(&self, last: i64) {
        panic!("nobody puts {self:?} back to {last}");
    }

    fn meddle(&self, sql: &str) -> std::result::Result<(), String> {
        administrator::meddle(&self.1, sql)
    }
}

impl Deref for Bench {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("authority.db");
        Sqlite::create(&path, &StoreKey::beside(&path)).unwrap();
        Self::of(dir)
    }

    fn of(dir: TempDir) -> Self {
        let path = dir.path().join("authority.db");
        let store = Arc::new(Sqlite::open(&path, &StoreKey::beside(&path), NOW).unwrap());
        let shared = Shared::new(Open(Arc::clone(&store), path));
        Self { dir, store, shared }
    }

    fn close(self) -> TempDir {
        self.dir
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("authority.db")
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

/// Each job asks for them, and hosts that are good are many.
#[test]
fn revoked_hosts_have_an_index_of_their_own() {
    let bench = Bench::new();
    let connection = rusqlite::Connection::open(bench.path()).unwrap();
    let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {}", hosts::REVOKED)).unwrap();
    let plan = plan.query_map([0, 0, 1], |row| row.get::<_, String>(3)).unwrap();
    let plan: Vec<String> = plan.map(std::result::Result::unwrap).collect();
    assert_eq!(plan, ["SEARCH certificates USING INDEX certificates_hosts_revoked (kind=? AND expires>?)"]);
}

/// However many were issued, and have ended.
#[test]
fn certificates_of_hosts_that_end_are_found_by_an_index() {
    let bench = Bench::new();
    let connection = rusqlite::Connection::open(bench.path()).unwrap();
    let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {}", hosts::CERTIFIED)).unwrap();
    let plan = plan.query_map([0, 0, 1], |row| row.get::<_, String>(3)).unwrap();
    let plan: Vec<String> = plan.map(std::result::Result::unwrap).collect();
    assert_eq!(
        plan,
        [
            "SEARCH certificates USING INDEX certificates_hosts (expires>?)",
            "SEARCH events USING INTEGER PRIMARY KEY (rowid=?)"
        ]
    );
}
