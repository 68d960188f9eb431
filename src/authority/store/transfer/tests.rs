//! Migrations under load, and such that are ended anywhere.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::FutureExt as _;
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::super::conformance::fixtures::*;
use super::super::conformance::postgres::{self, Database, SERVER};
use super::super::conformance::sqlite;
use super::super::postgres::archive::PostgresArchive;
use super::super::postgres::{Postgres, PostgresTrail};
use super::super::replicas::Replica;
use super::super::seal::{Seal, StoreKey};
use super::super::sqlite::archive::SqliteArchive;
use super::super::sqlite::{Sqlite, SqliteTrail};
use super::super::testing::ADMIN;
use super::super::{Cursor, EventFilter, Issued, Revoked, RevokedCertificate, Spent, Store, Stranger, Trail, closed};
use super::*;
use crate::folder::trust::Owner;

/// Where a store is.
#[derive(Debug)]
enum End {
    Sqlite(PathBuf),
    Postgres(Box<Database>),
}

/// Which engine has which end.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Engine {
    InFile,
    Shared,
}

use Engine::{InFile, Shared};

/// All ways.
const WAYS: [[Engine; 2]; 4] =
    [[InFile, InFile], [InFile, Shared], [Shared, InFile], [Shared, Shared]];

/// Two places, and the store that is served from the first.
struct Stage {
    from: End,
    to: End,
    key: StoreKey,
    runtime: Runtime,
    served: Arc<Served>,
    _dir: TempDir,
}

/// A store in use: something happens with it whenever a row is read for the migration.
struct Served {
    store: Box<dyn Store>,
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
                assert!(closed::closed(&error).is_some(), "{error:?}");
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
    inner: Box<dyn Archive>,
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

    fn judge<'a>(&'a mut self, seal: &'a Seal) -> BoxFuture<'a, Result<()>> {
        async move { until_killed!(self, self.inner.judge(seal)) }.boxed()
    }

    fn write<'a>(&'a mut self, closed: Option<&'a Closed>, what: Vec<Write>) -> BoxFuture<'a, Result<()>> {
        async move { until_killed!(self, self.inner.write(closed, what)) }.boxed()
    }
}

impl End {
    /// A store with nothing in it, or the place of a file.
    fn new(engine: Engine, path: PathBuf) -> Self {
        match engine {
            InFile => Self::Sqlite(path),
            Shared => Self::Postgres(Box::new(postgres::engine())),
        }
    }

    /// What messages call it.
    fn place(&self) -> String {
        match self {
            Self::Sqlite(path) => format!("sqlite:{}", path.file_name().unwrap().to_str().unwrap()),
            Self::Postgres(database) => format!("postgres://h/{}", database.name),
        }
    }

    fn sql(&self, sql: &str) -> Result<(), String> {
        match self {
            Self::Sqlite(path) => sqlite::meddle(path, sql),
            Self::Postgres(database) => database.psql(ADMIN, sql).map(drop),
        }
    }

    fn number(&self, sql: &str) -> i64 {
        match self {
            Self::Sqlite(path) => sqlite::number(path, sql),
            Self::Postgres(database) => database.psql(ADMIN, sql).unwrap().parse().unwrap(),
        }
    }

    fn store(&self) -> String {
        match self {
            Self::Sqlite(path) => {
                let connection = rusqlite::Connection::open(path).unwrap();
                connection.query_row("SELECT store FROM state", [], |row| row.get(0)).unwrap()
            }
            Self::Postgres(database) => database.psql(ADMIN, "SELECT store FROM state").unwrap(),
        }
    }

    async fn open(&self, key: &StoreKey) -> Result<Box<dyn Store>> {
        Ok(match self {
            Self::Sqlite(path) => Box::new(Sqlite::open(path, key, NOW)?),
            Self::Postgres(database) => Box::new(Postgres::open(database.pool(SERVER), key).await?),
        })
    }

    /// Why it is closed, if it is there, as whoever reads it hears it.
    async fn closed(&self) -> Option<Closed> {
        match self {
            Self::Sqlite(path) => SqliteTrail::open(path, Owner::me()).unwrap().closed().await.unwrap(),
            Self::Postgres(database) => {
                let trail = PostgresTrail::open(database.pool(postgres::READER)).await.unwrap();
                trail.closed().await.unwrap()
            }
        }
    }

    fn is_there(&self) -> bool {
        match self {
            Self::Sqlite(path) => path.exists(),
            Self::Postgres(_) => true,
        }
    }

    async fn source(&self, key: &StoreKey) -> Result<Box<dyn Archive>> {
        Ok(match self {
            Self::Sqlite(path) => Box::new(SqliteArchive::source(path, &self.place(), key, NOW)?),
            Self::Postgres(database) => {
                Box::new(PostgresArchive::source(database.pool(ADMIN), &self.place(), key).await?)
            }
        })
    }

    async fn target(&self, key: &StoreKey) -> Result<Box<dyn Archive>> {
        Ok(match self {
            Self::Sqlite(path) => Box::new(SqliteArchive::target(path, &self.place(), key)?),
            Self::Postgres(database) => {
                Box::new(PostgresArchive::target(database.pool(ADMIN), &self.place(), key).await?)
            }
        })
    }
}

const LIMIT: [u8; 16] = [7; 16];

impl Stage {
    /// With something of every kind in the first store.
    fn new([from, to]: [Engine; 2]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("authority.db");
        let key = StoreKey::beside(&path);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        match from {
            InFile => Sqlite::create(&path, &key).unwrap(),
            Shared => drop(key.create().unwrap()),
        }
        let (from, to) = (End::new(from, path), End::new(to, dir.path().join("new.db")));
        let store = runtime.block_on(from.open(&key)).unwrap();
        let served = Served { store, used: AtomicUsize::new(0), has_moved: AtomicBool::new(false) };
        let stage = Self { from, to, key, runtime, served: Arc::new(served), _dir: dir };
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
        stage.wait(store.spend(vec![Spent { key: LIMIT, seconds: 1000.0, age: 0.0 }]));
        let replica = Replica { id: "r".into(), keys: vec!["ssh-user SHA256:x".into()], ..Default::default() };
        stage.wait(store.announce(replica));
        stage
    }

    fn wait<T>(&self, future: impl Future<Output = Result<T>>) -> T {
        self.runtime.block_on(future).unwrap()
    }

    /// Migrates until something is done for the `steps`th time, under load.
    fn migrate(&self, steps: usize, is_before: bool) -> Result<bool> {
        let left = Arc::new(AtomicUsize::new(steps));
        let killed = |inner, served| Killed { inner, left: Arc::clone(&left), is_before, served };
        self.runtime.block_on(async {
            let mut from = killed(self.from.source(&self.key).await?, Some(Arc::clone(&self.served)));
            let mut to = killed(self.to.target(&self.key).await?, None);
            migrate(&mut from, &mut to, &self.key.load()?, &mut |_| ()).await
        })
    }

    fn give_up(&self) -> Result<()> {
        self.runtime.block_on(async {
            let mut from = self.from.source(&self.key).await?;
            give_up(&mut *from, &mut *self.to.target(&self.key).await?).await
        })
    }

    fn closed(&self, end: &End) -> Option<Closed> {
        self.runtime.block_on(end.closed())
    }

    fn open(&self, end: &End) -> Result<Box<dyn Store>> {
        self.runtime.block_on(end.open(&self.key))
    }

    fn events(&self, store: &dyn Store) -> Vec<Event> {
        self.wait(store.events(EventFilter::default(), Cursor::default(), 10_000))
    }

    /// That the second store goes on as the first would have.
    fn check(&self) {
        let old = &self.served.store;
        let new = self.open(&self.to).unwrap();
        let refused = |error: Error| assert!(closed::closed(&error).is_some(), "{error}");
        assert_eq!(self.events(&**old), self.events(&*new));
        assert_eq!(new.restored(), None);
        self.runtime.block_on(old.revoked(0)).map(drop).map_err(refused).unwrap_err();
        self.runtime.block_on(old.list_number(NOW, [1; 32])).map(drop).map_err(refused).unwrap_err();
        self.open(&self.from).map(drop).map_err(refused).unwrap_err();

        let revoked = |serial: &u64| {
            self.wait(new.revoked(0)).iter().any(|one: &RevokedCertificate| one.serial == *serial)
        };
        let used = u64::try_from(self.served.used.load(Ordering::SeqCst)).unwrap();
        for event in self.events(&*new).iter().filter(|event| event.body["event"] == "revoked") {
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
        let last = u64::try_from(self.from.number("SELECT list_number FROM state")).unwrap();
        assert!(
            last > 0 && self.wait(new.list_number(0, [1; 32])).number > last,
            "also where the clock is behind"
        );
        let levels = self.wait(new.spend(Vec::new()));
        assert!(levels.iter().any(|level| level.key == LIMIT && level.seconds > 900.0), "{levels:?}");
        let announced = self.wait(new.announce(Replica { id: "s".into(), ..Default::default() }));
        assert_eq!(announced.keys, ["ssh-user SHA256:x"], "who has other keys does not start");
        assert_eq!(new.tampered(), None);
        assert_ne!(self.from.store(), self.to.store());
    }
}

use super::super::Event;

#[test]
fn everything_is_carried_while_the_first_store_is_served() {
    for ways in WAYS {
        let stage = Stage::new(ways);
        assert!(stage.migrate(usize::MAX, true).unwrap());
        assert!(stage.served.used.load(Ordering::SeqCst) > 5, "it was in use meanwhile");
        stage.check();
        // The same again finds nothing to do, also once the second is used.
        assert!(!stage.migrate(usize::MAX, true).unwrap());
        assert!(stage.closed(&stage.to).is_none());
        let moved = stage.closed(&stage.from).unwrap().to_string();
        assert_eq!(moved, format!("the store has moved to {}, and issues nothing any more", stage.to.place()));
    }
}

/// Each run gets one step further than the one before.
#[test]
fn a_migration_that_is_killed_at_each_step_goes_on_and_never_are_both_stores_open() {
    for (ways, is_before) in WAYS.into_iter().flat_map(|ways| [(ways, true), (ways, false)]) {
        let stage = Stage::new(ways);
        let mut steps = 0;
        while let Err(error) = stage.migrate(steps, is_before) {
            assert_eq!(error.to_string(), "killed");
            let [from, to] = [&stage.from, &stage.to].map(|end| end.is_there().then(|| stage.closed(end)));
            let open = [&from, &to].map(|closed| matches!(closed, Some(None)));
            let has_begun = matches!(from, Some(Some(_))) || matches!(to, Some(Some(_)));
            assert!(open != [true, true] || !has_begun, "both at {steps}");
            steps += 1;
        }
        assert!(steps > 30, "{steps}");
        assert!(stage.closed(&stage.to).is_none());
        stage.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn kills_at_any_steps_lose_nothing(
        ways in prop::sample::select(&WAYS[..]),
        kills in prop::collection::vec((0_usize..70, any::<bool>()), 0..6),
    ) {
        let stage = Stage::new(ways);
        for (steps, is_before) in kills {
            drop(stage.migrate(steps, is_before));
        }
        let _ = stage.migrate(usize::MAX, true).unwrap();
        stage.check();
    }
}

#[test]
fn a_migration_that_is_given_up_leaves_the_first_store_as_it_was() {
    for ways in WAYS {
        let mut stage = Stage::new(ways);
        // Behind the step that closes the first store.
        let mut steps = 0;
        while stage.closed(&stage.from).is_none() {
            assert!(stage.migrate(steps, false).is_err());
            steps += 1;
        }
        assert!(stage.open(&stage.from).is_err() && stage.open(&stage.to).is_err());
        stage.give_up().unwrap();
        stage.give_up().unwrap();
        drop(stage.open(&stage.from).unwrap());
        let error = stage.open(&stage.to).unwrap_err();
        assert!(error.to_string().contains("was given up"), "{error}");
        let error = stage.migrate(usize::MAX, true).unwrap_err();
        assert!(error.to_string().contains("was given up"), "nor is it filled again: {error}");
        stage.to = End::new(ways[1], stage._dir.path().join("third.db"));
        stage.served.has_moved.store(false, Ordering::SeqCst);
        assert!(stage.migrate(usize::MAX, true).unwrap());
        stage.check();
        let error = stage.give_up().unwrap_err();
        let wanted = format!("no migration into {} is under way", stage.to.place());
        assert!(error.to_string().contains(&wanted), "{error}");
    }
}

#[test]
fn a_store_with_records_or_of_another_migration_is_refused() {
    for ways in WAYS {
        let stage = Stage::new(ways);
        let migrate_to = |other: &End, key: &StoreKey| {
            stage.runtime.block_on(async {
                let mut from = stage.from.source(&stage.key).await.unwrap();
                let mut to = other.target(key).await.unwrap();
                migrate(&mut *from, &mut *to, &stage.key.load().unwrap(), &mut |_| ()).await.unwrap_err()
            })
        };
        let other = Stage::new([ways[1], ways[1]]);
        let error = migrate_to(&other.from, &other.key);
        let wanted = format!("cannot migrate to {}: records stand there already", other.from.place());
        assert_eq!(error.to_string(), wanted);
        assert!(other.closed(&other.from).is_none(), "and it goes on");
        assert!(migrate_to(&stage.from, &stage.key).to_string().ends_with("are the same store"));
        drop(other.migrate(8, true));
        let error = migrate_to(&other.to, &other.key);
        let wanted = format!("a migration into this store, from {}, is not finished", other.from.place());
        assert!(error.to_string().contains(&wanted), "{error}");
        assert!(stage.closed(&stage.from).is_none());
        // From a store that has moved elsewhere, or is itself not whole.
        assert!(stage.migrate(usize::MAX, true).unwrap());
        let third = End::new(ways[1], stage._dir.path().join("third.db"));
        let wanted = format!(
            "cannot migrate from {}: the store has moved to {}, and issues nothing any more",
            stage.from.place(),
            stage.to.place()
        );
        assert_eq!(migrate_to(&third, &stage.key).to_string(), wanted);
    }
}

#[test]
fn what_is_changed_on_its_way_is_found() {
    for (ways, column) in [([InFile, InFile], "packed"), ([InFile, Shared], "body")] {
        let disarm = match ways[1] {
            InFile => "DROP TRIGGER events_stay_the_same; DROP TRIGGER certificates_stay;",
            Shared => {
                "ALTER TABLE events DISABLE TRIGGER ALL; ALTER TABLE certificates DISABLE TRIGGER ALL;"
            }
        };
        let body = format!(
            "UPDATE events SET {column} = (SELECT {column} FROM events WHERE sequence = 2) WHERE sequence = 3"
        );
        for meddle in [
            &body,
            "UPDATE certificates SET expires = 9999999999 WHERE serial = 4",
            "DELETE FROM certificates WHERE serial = 4",
        ] {
            let stage = Stage::new(ways);
            // So far that something stands there.
            let mut steps = 0;
            while !stage.to.is_there() || stage.to.number("SELECT count(*) FROM certificates") == 0 {
                drop(stage.migrate(steps, false));
                steps += 3;
            }
            stage.to.sql(&format!("{disarm} {meddle}")).unwrap();
            let error = stage.migrate(usize::MAX, true).unwrap_err();
            assert!(error.to_string().starts_with("the two stores differ in"), "{error}");
            assert!(stage.closed(&stage.to).is_some() && stage.closed(&stage.from).is_none(), "{meddle}");
        }
    }
}

/// What an administrator of the database has put there grants as little afterwards.
#[test]
fn rows_without_a_good_seal_are_named_and_stay_void() {
    for ways in WAYS {
        let stage = Stage::new(ways);
        let seal = stage.key.load().unwrap();
        let carry = |is_first: bool| {
            stage.runtime.block_on(async {
                let mut from = stage.from.source(&stage.key).await.unwrap();
                let mut to = stage.to.target(&stage.key).await.unwrap();
                assert_eq!(migrate(&mut *from, &mut *to, &seal, &mut |_| ()).await.unwrap(), is_first);
            });
        };
        for meddle in [
            "UPDATE secrets SET token = 'other' WHERE id = 'k-8'",
            "UPDATE instances SET locked = NULL, reason = NULL WHERE id = 'w2'",
            "UPDATE proofs SET fingerprint = mac WHERE certificate = 6",
        ] {
            stage.from.sql(meddle).unwrap();
        }
        carry(true);
        let told = seal.warning().unwrap();
        assert!(told.contains("(3 seen, instances w2 among them)"), "{told}");
        let new = stage.open(&stage.to).unwrap();
        let Entry { entry, plan } = registration(27, "w4", [8; 32]);
        assert!(matches!(stage.wait(new.issue(entry, plan)), Issued::Refused(_)));
        let Entry { entry, plan } = join(25, "w2", 1);
        assert!(matches!(stage.wait(new.issue(entry, plan)), Issued::Refused(_)));
        assert_eq!(stage.wait(new.issue(issuance(3).entry, issuance(3).plan)), Issued::Used);
        assert!(new.tampered().is_some());
        carry(false);
    }
}
