//! Migrations under load, and such that are ended anywhere.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::FutureExt as _;
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::super::conformance::fixtures::*;
use super::super::seal::StoreKey;
use super::super::sqlite::Sqlite;
use super::super::sqlite::archive::SqliteArchive;
use super::super::{Cursor, EventFilter, Issued, Revoked, RevokedCertificate, Store, Stranger, closed};
use super::*;

/// Two files, and the store that is served from the first.
struct Stage {
    dir: TempDir,
    runtime: Runtime,
    served: Arc<Served>,
}

/// A store in use: something happens with it whenever a row is read for the migration.
struct Served {
    store: Sqlite,
    used: AtomicUsize,
    has_moved: AtomicBool,
}

impl Served {
    /// An issuance, and the end of the one of two before.
    async fn use_it(&self) {
        let n = self.used.load(Ordering::SeqCst);
        let fresh = issuance(100 + u64::try_from(n).unwrap());
        match self.store.issue(fresh.entry, fresh.plan).await {
            Ok(issued) => {
                assert_eq!(issued, FRESH);
                assert!(!self.has_moved.load(Ordering::SeqCst), "issued by a store that has moved");
                self.used.store(n + 1, Ordering::SeqCst);
            }
            Err(error) => {
                assert!(closed::closed(&error).is_some(), "{error}");
                self.has_moved.store(true, Ordering::SeqCst);
            }
        }
        if n % 3 == 2 {
            let ended = revocation(100 + u64::try_from(n - 2).unwrap(), &format!("end {n}"));
            match self.store.revoke(ended).await {
                Ok(_) => {}
                Err(error) => assert!(closed::closed(&error).is_some(), "{error}"),
            }
        }
    }
}

/// An archive that fails at some time, as if the process were killed then: before something is done, or after it.
struct Killed {
    inner: SqliteArchive,
    left: Arc<AtomicUsize>,
    is_before: bool,
    served: Option<Arc<Served>>,
}

impl Killed {
    fn is_dead(&self) -> bool {
        self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err()
    }

    fn dead<T>() -> Result<T> {
        Err(Error::internal("killed"))
    }
}

macro_rules! until_killed {
    ($self:ident, $work:expr) => {{
        let dead = $self.is_dead();
        if let Some(served) = &$self.served {
            served.use_it().await;
        }
        if dead && $self.is_before {
            return Killed::dead();
        }
        let done = $work.await;
        if dead { Killed::dead() } else { done }
    }};
}

impl Archive for Killed {
    fn place(&self) -> String {
        self.inner.place()
    }

    fn standing(&mut self) -> BoxFuture<'_, Result<Standing>> {
        async { until_killed!(self, self.inner.standing()) }.boxed()
    }

    fn rows<'a>(&'a mut self, table: &'static Table, which: Which<'a>) -> BoxFuture<'a, Result<Vec<Row>>> {
        async move { until_killed!(self, self.inner.rows(table, which)) }.boxed()
    }

    fn certificates(&mut self) -> BoxFuture<'_, Result<[i64; 3]>> {
        async { until_killed!(self, self.inner.certificates()) }.boxed()
    }

    fn write<'a>(&'a mut self, closed: Option<&'a Closed>, what: Vec<Write>) -> BoxFuture<'a, Result<()>> {
        async move { until_killed!(self, self.inner.write(closed, what)) }.boxed()
    }
}

const FROM: &str = "authority.db";
const TO: &str = "new.db";

impl Stage {
    /// With something of every kind in the first store.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FROM);
        Sqlite::create(&path, &StoreKey::beside(&path)).unwrap();
        let store = Sqlite::open(&path, &StoreKey::beside(&path), NOW).unwrap();
        let served = Served { store, used: AtomicUsize::new(0), has_moved: AtomicBool::new(false) };
        let stage = Self {
            dir,
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
            served: Arc::new(served),
        };
        let store = &stage.served.store;
        for n in 1..=6 {
            assert_eq!(stage.wait(store.issue(issuance(n).entry, issuance(n).plan)), FRESH);
        }
        assert_eq!(stage.wait(store.revoke(revocation(1, "one"))), Revoked::Now);
        stage.wait(store.refuse(refusal("d-1", Some(r#"{"sub":"other"}"#))));
        for (n, kind) in [(2, Stranger::Unverified), (3, Stranger::Verified)] {
            stage.wait(store.refuse(stranger(&format!("d-{n}"), kind, 10)));
        }
        for hash in [[5; 32], [6; 32], [8; 32]] {
            stage.wait(store.add_secret(secret(hash, "github-deploy")));
        }
        for (n, worker) in [(20, "w1"), (21, "w2")] {
            let hash = [u8::try_from(n - 15).unwrap(); 32];
            let Entry { entry, plan } = registration(n, worker, hash);
            assert_eq!(stage.wait(store.issue(entry, plan)), joined(1));
        }
        // A copy of its storage: it is locked, and what it has is revoked.
        for (n, generation) in [(22, 1), (23, 1)] {
            let Entry { entry, plan } = join(n, "w2", generation);
            stage.wait(store.issue(entry, plan));
        }
        stage.wait(store.list_number(NOW, [1; 32]));
        stage
    }

    fn wait<T>(&self, future: impl Future<Output = Result<T>>) -> T {
        self.runtime.block_on(future).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn key(&self) -> StoreKey {
        StoreKey::beside(&self.path(FROM))
    }

    fn archive(&self, name: &'static str) -> Result<SqliteArchive> {
        let place = format!("sqlite:{name}");
        match name {
            FROM => SqliteArchive::source(&self.path(name), &place, &self.key(), NOW),
            _ => SqliteArchive::target(&self.path(name), &place, &self.key()),
        }
    }

    /// Migrates until something is done for the `steps`th time, under load.
    fn migrate(&self, steps: usize, is_before: bool) -> Result<bool> {
        let left = Arc::new(AtomicUsize::new(steps));
        let killed = |name, served| {
            Ok::<_, Error>(Killed { inner: self.archive(name)?, left: Arc::clone(&left), is_before, served })
        };
        let (mut from, mut to) = (killed(FROM, Some(Arc::clone(&self.served)))?, killed(TO, None)?);
        self.runtime.block_on(migrate(&mut from, &mut to, &mut |_| ()))
    }

    fn closed(&self, name: &str) -> Option<Closed> {
        let connection = rusqlite::Connection::open(self.path(name)).unwrap();
        Closed::read(connection.query_row("SELECT closed FROM state", [], |row| row.get(0)).unwrap())
    }

    fn open(&self, name: &str) -> Result<Sqlite> {
        Sqlite::open(&self.path(name), &self.key(), NOW)
    }

    fn events(&self, store: &Sqlite) -> Vec<Event> {
        use super::super::Trail as _;
        self.wait(store.events(EventFilter::default(), Cursor::default(), 10_000))
    }

    /// That the second store goes on as the first would have.
    fn check(&self) {
        let old = &self.served.store;
        let new = self.open(TO).unwrap();
        let refused = |error: Error| assert!(closed::closed(&error).is_some(), "{error}");
        assert_eq!(self.events(old), self.events(&new));
        assert!(new.restored().is_none());
        self.runtime.block_on(old.revoked(0)).map(drop).map_err(refused).unwrap_err();
        self.runtime.block_on(old.list_number(NOW, [1; 32])).map(drop).map_err(refused).unwrap_err();
        self.open(FROM).map(drop).map_err(refused).unwrap_err();

        let revoked = |serial: &u64| {
            self.wait(new.revoked(0)).iter().any(|one: &RevokedCertificate| one.serial == *serial)
        };
        let used = u64::try_from(self.served.used.load(Ordering::SeqCst)).unwrap();
        for event in self.events(&new).iter().filter(|event| event.body["event"] == "revoked") {
            for serial in event.body["serials"].as_array().unwrap() {
                assert!(revoked(&serial.as_str().unwrap().parse().unwrap()), "{:?}", event.body);
            }
        }
        assert!(revoked(&2) && !revoked(&4) && revoked(&44), "of the job, of nobody, of the locked worker");
        // What was used is used, for whoever asks with other keys; whoever asked is answered again.
        for n in (1..=6).chain(100..100 + used) {
            let again = other(n, 50_001);
            assert_eq!(self.wait(new.issue(again.entry, again.plan)), Issued::Used, "{n}");
        }
        assert_eq!(self.wait(new.issue(issuance(2).entry, issuance(2).plan)), retry(2));
        let worker = |n, name, generation| {
            let Entry { entry, plan } = join(n, name, generation);
            self.wait(new.issue(entry, plan))
        };
        assert_eq!(worker(24, "w1", 1), joined(2));
        assert!(matches!(worker(25, "w2", 2), Issued::Refused(_)));
        let register = |n, name, hash| {
            let Entry { entry, plan } = registration(n, name, hash);
            self.wait(new.issue(entry, plan))
        };
        assert!(matches!(register(26, "w3", [5; 32]), Issued::Refused(_)), "that secret was used");
        assert_eq!(register(27, "w4", [8; 32]), joined(1));
        let connection = rusqlite::Connection::open(self.path(FROM)).unwrap();
        let last: u64 = connection.query_row("SELECT list_number FROM state", [], |row| row.get(0)).unwrap();
        assert!(
            last > 0 && self.wait(new.list_number(0, [1; 32])).number > last,
            "also where the clock is behind"
        );
    }
}

use super::super::Event;

#[test]
fn everything_is_carried_while_the_first_store_is_served() {
    let stage = Stage::new();
    assert!(stage.migrate(usize::MAX, true).unwrap());
    assert!(stage.served.used.load(Ordering::SeqCst) > 5, "it was in use meanwhile");
    stage.check();
    // The same again finds nothing to do, also once the second is used.
    assert!(!stage.migrate(usize::MAX, true).unwrap());
    assert!(stage.closed(TO).is_none());
}

/// Each run gets one step further than the one before.
#[test]
fn a_migration_that_is_killed_at_each_step_goes_on_and_never_are_both_stores_open() {
    for is_before in [true, false] {
        let stage = Stage::new();
        let mut steps = 0;
        while let Err(error) = stage.migrate(steps, is_before) {
            assert_eq!(error.to_string(), "killed");
            let open = [FROM, TO].map(|name| stage.path(name).exists() && stage.closed(name).is_none());
            let has_begun = stage.closed(FROM).is_some() || stage.closed(TO).is_some();
            assert!(open != [true, true] || !has_begun, "both at {steps}");
            steps += 1;
        }
        assert!(steps > 30, "{steps}");
        if stage.closed(TO).is_some() {
            panic!("it is not open");
        }
        stage.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    #[test]
    fn kills_at_any_steps_lose_nothing(kills in prop::collection::vec((0_usize..70, any::<bool>()), 0..6)) {
        let stage = Stage::new();
        for (steps, is_before) in kills {
            drop(stage.migrate(steps, is_before));
        }
        let _ = stage.migrate(usize::MAX, true).unwrap();
        stage.check();
    }
}

#[test]
fn a_migration_that_is_given_up_leaves_the_first_store_as_it_was() {
    let stage = Stage::new();
    let give_up = || {
        let mut to = SqliteArchive::known(&stage.path(TO), "sqlite:new.db", &stage.key())?;
        stage.runtime.block_on(give_up(&mut stage.archive(FROM)?, &mut to))
    };
    // Behind the step that closes the first store.
    let mut steps = 0;
    while stage.closed(FROM).is_none() {
        assert!(stage.migrate(steps, false).is_err());
        steps += 1;
    }
    assert!(stage.open(FROM).is_err() && stage.open(TO).is_err());
    give_up().unwrap();
    give_up().unwrap();
    drop(stage.open(FROM).unwrap());
    let error = stage.open(TO).unwrap_err();
    assert!(error.to_string().contains("was given up"), "{error}");
    let error = stage.migrate(usize::MAX, true).unwrap_err();
    assert!(error.to_string().contains("was given up"), "nor is it filled again: {error}");
    std::fs::remove_file(stage.path(TO)).unwrap();
    stage.served.has_moved.store(false, Ordering::SeqCst);
    for end in ["-wal", "-shm", ".mark", "-reserve"] {
        drop(std::fs::remove_file(stage.path(&format!("{TO}{end}"))));
    }
    assert!(stage.migrate(usize::MAX, true).unwrap());
    stage.check();
    let error = give_up().unwrap_err();
    assert!(error.to_string().contains("no migration into sqlite:new.db is under way"), "{error}");
}

#[test]
fn a_store_with_records_or_of_another_migration_is_refused() {
    let stage = Stage::new();
    let migrate_to = |name: &Path| {
        let mut to = SqliteArchive::target(name, "sqlite:other", &StoreKey::beside(name)).unwrap();
        stage.runtime.block_on(migrate(&mut stage.archive(FROM).unwrap(), &mut to, &mut |_| ())).unwrap_err()
    };
    let other = Stage::new();
    let error = migrate_to(&other.path(FROM));
    assert_eq!(error.to_string(), "cannot migrate to sqlite:other: records stand there already");
    assert!(other.closed(FROM).is_none(), "and it goes on");
    assert!(migrate_to(&stage.path(FROM)).to_string().ends_with("are the same store"));
    drop(other.migrate(8, true));
    let error = migrate_to(&other.path(TO));
    assert!(
        error.to_string().contains("a migration into this store, from sqlite:authority.db, is not finished"),
        "{error}"
    );
    assert!(stage.closed(FROM).is_none());
    // From a store that has moved elsewhere, or is itself not whole.
    assert!(stage.migrate(usize::MAX, true).unwrap());
    let third = stage.path("third.db");
    let mut to = SqliteArchive::target(&third, "sqlite:third.db", &stage.key()).unwrap();
    let error =
        stage.runtime.block_on(migrate(&mut stage.archive(FROM).unwrap(), &mut to, &mut |_| ())).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot migrate from sqlite:authority.db: the store has moved to sqlite:new.db, and issues nothing any more"
    );
}

#[test]
fn what_is_changed_on_its_way_is_found() {
    for meddle in [
        "DROP TRIGGER events_stay_the_same; UPDATE events SET packed = x'00' WHERE sequence = 3",
        "UPDATE certificates SET expires = 9999999999 WHERE serial = 4",
        "DROP TRIGGER certificates_stay; DELETE FROM certificates WHERE serial = 4",
    ] {
        let stage = Stage::new();
        // So far that something stands there.
        let mut steps = 0;
        loop {
            drop(stage.migrate(steps, false));
            let there = |connection: rusqlite::Connection| {
                connection
                    .query_row("SELECT count(*) FROM certificates", [], |row| row.get::<_, i64>(0))
                    .unwrap_or(0)
            };
            if stage.path(TO).exists() && there(rusqlite::Connection::open(stage.path(TO)).unwrap()) > 0 {
                break;
            }
            steps += 1;
        }
        rusqlite::Connection::open(stage.path(TO)).unwrap().execute_batch(meddle).unwrap();
        let error = stage.migrate(usize::MAX, true).unwrap_err();
        assert!(error.to_string().starts_with("the two stores differ in"), "{error}");
        assert!(stage.closed(TO).is_some() && stage.closed(FROM).is_none(), "{meddle}");
    }
}
