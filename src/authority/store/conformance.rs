//! What every engine promises, as tests: each promise is written once, over
//! [`Store`], and run on every engine of [`on_each_engine`].

use std::fmt;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::*;
use fixtures::{Entry, revocation};

pub(super) mod fixtures;
pub(super) mod postgres;
pub(super) mod sqlite;

/// A database of its own, for one test.
pub(super) trait Engine: Send + Sync + fmt::Debug {
    /// Opens its store, as one more process does.
    fn open(&self) -> Result<Arc<dyn Store>>;

    /// The same as the database's owner, where there is such a role.
    fn open_as_owner(&self) -> Result<Arc<dyn Store>> {
        self.open()
    }

    /// What a query of its administrator answers.
    fn number(&self, sql: &str) -> i64;

    /// Puts it back to what it was before the events behind that one, as a standby does that had not received them.
    fn put_back(&self, last: i64);

    /// What the database's own clock says from now on, where it has one.
    fn set_clock(&self, _now: i64) {}

    /// Has its administrator meddle with it.
    fn meddle(&self, sql: &str) -> std::result::Result<(), String>;

    /// Has him take the triggers away that keep the audit trail; by default in SQLite's words.
    fn disarm(&self) {
        self.meddle("DROP TRIGGER events_stay; DROP TRIGGER events_stay_the_same").unwrap();
    }
}

/// Makes a test of each promise for each engine: one that is new gets a line here.
macro_rules! on_each_engine {
    ($($promise:ident)*) => {
        on_engine!(sqlite $($promise)*);
        on_engine!(postgres $($promise)*);
    };
}

macro_rules! on_engine {
    ($engine:ident $($promise:ident)*) => {
        mod $engine {
            $(
                #[test]
                fn $promise() {
                    let engine = crate::authority::store::conformance::$engine::engine();
                    super::$promise(&crate::authority::store::conformance::Bench::new(engine));
                }
            )*
        }
    };
}

/// The promises of a file.
macro_rules! promises {
    ($($promise:ident,)*) => {
        on_each_engine!($($promise)*);
    };
}

mod cas;
mod hosts;
mod instances;
mod locks;
mod losses;
mod proofs;
pub(super) mod pruning;
mod revocations;
mod seals;
mod shared;
mod time;
mod trail;

/// A store, and a runtime with threads that race.
#[derive(Debug)]
pub(super) struct Bench {
    pub(super) store: Arc<dyn Store>,
    pub(super) runtime: Runtime,
    engine: Arc<dyn Engine>,
}

impl Bench {
    pub(super) fn new(engine: impl Engine + 'static) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(8).enable_all().build();
        let runtime = runtime.unwrap();
        let store = runtime.block_on(async { engine.open().unwrap() });
        Self { store, runtime, engine: Arc::new(engine) }
    }

    /// The same database, opened once more.
    pub(super) fn again(&self) -> Arc<dyn Store> {
        self.runtime.block_on(async { self.engine.open().unwrap() })
    }

    /// The store, as the one who may let go of its trail has it.
    pub(super) fn owner(&self) -> Arc<dyn Store> {
        self.runtime.block_on(async { self.engine.open_as_owner().unwrap() })
    }

    pub(super) fn number(&self, sql: &str) -> i64 {
        self.engine.number(sql)
    }

    pub(super) fn put_back(&self, last: i64) {
        self.engine.put_back(last);
    }

    pub(super) fn set_clock(&self, now: i64) {
        self.engine.set_clock(now);
    }

    pub(super) fn meddle(&self, sql: &str) -> std::result::Result<(), String> {
        self.engine.meddle(sql)
    }

    pub(super) fn disarm(&self) {
        self.engine.disarm();
    }

    pub(super) fn wait<T>(&self, future: impl Future<Output = Result<T>>) -> T {
        self.runtime.block_on(future).unwrap()
    }

    pub(super) fn issue(&self, entry: Entry) -> Issued {
        self.wait(self.store.issue(entry.entry, entry.plan))
    }

    pub(super) fn try_issue(&self, entry: Entry) -> Result<Issued> {
        self.runtime.block_on(self.store.issue(entry.entry, entry.plan))
    }

    /// All at once, in whatever order.
    pub(super) fn issue_all(&self, entries: Vec<Entry>) -> Vec<Result<Issued>> {
        self.runtime.block_on(async {
            let mut all = JoinSet::new();
            for entry in entries {
                let store = Arc::clone(&self.store);
                all.spawn(async move { store.issue(entry.entry, entry.plan).await });
            }
            all.join_all().await
        })
    }

    pub(super) fn events(&self, filter: EventFilter) -> Vec<Value> {
        let events = self.wait(self.store.events(filter, Cursor::default(), 10_000));
        events.into_iter().map(|event| Value::from(event.body)).collect()
    }

    pub(super) fn names(&self, filter: EventFilter) -> Vec<String> {
        let name = |event: &Value| {
            let id = event.get("issuance_id").or(event.get("denial_id")).unwrap().as_str().unwrap();
            format!("{} {id}", event["event"].as_str().unwrap())
        };
        self.events(filter).iter().map(name).collect()
    }

    /// How many used proofs are remembered.
    pub(super) fn proofs(&self) -> i64 {
        self.number("SELECT count(*) FROM proofs")
    }

    pub(super) fn revoke(&self, issuance: u64, assertion: &str) -> Revoked {
        self.wait(self.store.revoke(revocation(issuance, assertion)))
    }

    /// Lets the authority run for so many seconds.
    pub(super) fn advance(&self, seconds: i64) {
        self.store.run_for(seconds);
    }
}
