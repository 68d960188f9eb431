//! Two places, a store in use, and what must be true of it once it has moved.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::FutureExt as _;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::super::super::conformance::fixtures::*;
use super::super::super::conformance::postgres::{self, Database, SERVER};
use super::super::super::conformance::sqlite;
use super::super::super::postgres::archive::PostgresArchive;
use super::super::super::postgres::pool::Pool;
use super::super::super::postgres::{Postgres, PostgresTrail};
use super::super::super::replicas::Replica;
use super::super::super::seal::{Seal, StoreKey};
use super::super::super::sqlite::archive::SqliteArchive;
use super::super::super::sqlite::{Sqlite, SqliteTrail};
use super::super::super::testing::ADMIN;
use super::super::super::{
    Cursor, Event, EventFilter, Issued, Revoked, RevokedCertificate, Spent, Store, Stranger, Trail, closed,
};
use super::super::*;
use crate::folder::trust::Owner;

/// Where a store is.
#[derive(Debug)]
pub(super) enum End {
    Sqlite(PathBuf),
    Postgres(Box<Database>, Pool, Pool),
}

/// Which engine has which end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Engine {
    InFile,
    Shared,
}

pub(super) use Engine::{InFile, Shared};

/// All ways.
pub(super) const WAYS: [[Engine; 2]; 4] =
    [[InFile, InFile], [InFile, Shared], [Shared, InFile], [Shared, Shared]];

/// Two places, and the store that is served from the first.
pub(super) struct Stage {
    pub(super) from: End,
    pub(super) to: End,
    pub(super) key: StoreKey,
    pub(super) runtime: Runtime,
    pub(super) served: Arc<Served>,
    pub(super) dir: TempDir,
}

/// A store in use: something happens with it whenever a row is read for the migration.
pub(super) struct Served {
    pub(super) store: Box<dyn Store>,
    pub(super) used: AtomicUsize,
    pub(super) has_moved: AtomicBool,
}

impl Served {
    /// An issuance, and the end of the one of two before.
    pub(super) async fn use_it(&self) {
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
pub(super) struct Killed {
    inner: Box<dyn Archive>,
    left: Arc<AtomicUsize>,
    is_before: bool,
    served: Option<Arc<Served>>,
}

impl Killed {
    pub(super) fn is_dead(&self) -> bool {
        self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err()
    }

    pub(super) fn dead<T>() -> Result<T> {
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

    fn is_marked_as(&self, store: &str) -> Result<bool> {
        self.inner.is_marked_as(store)
    }

    fn write<'a>(&'a mut self, closed: Option<&'a Closed>, what: Vec<Write>) -> BoxFuture<'a, Result<()>> {
        async move { until_killed!(self, self.inner.write(closed, what)) }.boxed()
    }
}

impl End {
    /// A store with nothing in it, or the place of a file.
    pub(super) fn new(engine: Engine, path: PathBuf) -> Self {
        match engine {
            InFile => Self::Sqlite(path),
            Shared => {
                let database = Box::new(postgres::engine());
                let [owner, reader] = [ADMIN, postgres::READER].map(|role| database.pool(role));
                Self::Postgres(database, owner, reader)
            }
        }
    }

    /// What messages call it.
    pub(super) fn place(&self) -> String {
        match self {
            Self::Sqlite(path) => format!("sqlite:{}", path.file_name().unwrap().to_str().unwrap()),
            Self::Postgres(database, ..) => format!("postgres://h/{}", database.name),
        }
    }

    pub(super) fn sql(&self, sql: &str) -> Result<(), String> {
        match self {
            Self::Sqlite(path) => sqlite::meddle(path, sql),
            Self::Postgres(database, ..) => database.psql(ADMIN, sql).map(drop),
        }
    }

    pub(super) fn number(&self, sql: &str) -> i64 {
        match self {
            Self::Sqlite(path) => sqlite::number(path, sql),
            Self::Postgres(database, ..) => database.psql(ADMIN, sql).unwrap().parse().unwrap(),
        }
    }

    pub(super) fn store(&self) -> String {
        match self {
            Self::Sqlite(path) => {
                let connection = rusqlite::Connection::open(path).unwrap();
                connection.query_row("SELECT store FROM state", [], |row| row.get(0)).unwrap()
            }
            Self::Postgres(database, ..) => database.psql(ADMIN, "SELECT store FROM state").unwrap(),
        }
    }

    pub(super) async fn open(&self, key: &StoreKey) -> Result<Box<dyn Store>> {
        Ok(match self {
            Self::Sqlite(path) => Box::new(Sqlite::open(path, key, NOW)?),
            Self::Postgres(database, ..) => Box::new(Postgres::open(database.pool(SERVER), key).await?),
        })
    }

    /// For whoever may let something go.
    pub(super) async fn owner(&self, key: &StoreKey) -> Result<Box<dyn Store>> {
        Ok(match self {
            Self::Sqlite(_) => self.open(key).await?,
            Self::Postgres(_, owner, _) => Box::new(Postgres::open(owner.clone(), key).await?),
        })
    }

    /// Why it is closed, if it is there, as whoever reads it hears it.
    pub(super) async fn closed(&self) -> Option<Closed> {
        match self {
            Self::Sqlite(path) => SqliteTrail::open(path, Owner::me()).unwrap().closed().await.unwrap(),
            Self::Postgres(_, _, reader) => {
                PostgresTrail::open(reader.clone()).await.unwrap().closed().await.unwrap()
            }
        }
    }

    pub(super) fn is_there(&self) -> bool {
        match self {
            Self::Sqlite(path) => path.exists(),
            Self::Postgres(..) => true,
        }
    }

    pub(super) async fn source(&self, key: &StoreKey) -> Result<Box<dyn Archive>> {
        Ok(match self {
            Self::Sqlite(path) => Box::new(SqliteArchive::source(path, &self.place(), key, NOW)?),
            Self::Postgres(_, owner, _) => {
                Box::new(PostgresArchive::source(owner.clone(), &self.place(), key).await?)
            }
        })
    }

    pub(super) async fn target(&self, key: &StoreKey) -> Result<Box<dyn Archive>> {
        Ok(match self {
            Self::Sqlite(path) => Box::new(SqliteArchive::target(path, &self.place(), key)?),
            Self::Postgres(_, owner, _) => {
                Box::new(PostgresArchive::target(owner.clone(), &self.place(), key).await?)
            }
        })
    }
}

pub(super) const LIMIT: [u8; 16] = [7; 16];

impl Stage {
    /// With something of every kind in the first store.
    pub(super) fn new([from, to]: [Engine; 2]) -> Self {
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
        let stage = Self { from, to, key, runtime, served: Arc::new(served), dir };
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
        let replica =
            Replica { id: "r".into(), keys: vec!["ssh-user SHA256:x".into()], ..Default::default() };
        stage.wait(store.announce(replica));
        stage.wait(store.mark());
        stage
    }

    pub(super) fn wait<T>(&self, future: impl Future<Output = Result<T>>) -> T {
        self.runtime.block_on(future).unwrap()
    }

    /// Migrates until something is done for the `steps`th time, under load.
    pub(super) fn migrate(&self, steps: usize, is_before: bool) -> Result<bool> {
        let left = Arc::new(AtomicUsize::new(steps));
        let killed = |inner, served| Killed { inner, left: Arc::clone(&left), is_before, served };
        self.runtime.block_on(async {
            let mut from = killed(self.from.source(&self.key).await?, Some(Arc::clone(&self.served)));
            let mut to = killed(self.to.target(&self.key).await?, None);
            migrate(&mut from, &mut to, &self.key.load()?, &mut |_| ()).await
        })
    }

    pub(super) fn give_up(&self) -> Result<()> {
        self.runtime.block_on(async {
            let mut from = self.from.source(&self.key).await?;
            give_up(&mut *from, &mut *self.to.target(&self.key).await?).await
        })
    }

    pub(super) fn closed(&self, end: &End) -> Option<Closed> {
        self.runtime.block_on(end.closed())
    }

    pub(super) fn open(&self, end: &End) -> Result<Box<dyn Store>> {
        self.runtime.block_on(end.open(&self.key))
    }

    pub(super) fn events(&self, store: &dyn Store) -> Vec<Event> {
        self.wait(store.events(EventFilter::default(), Cursor::default(), 10_000))
    }

    /// That the second store goes on as the first would have.
    pub(super) fn check(&self) {
        let old = &self.served.store;
        let new = self.open(&self.to).unwrap();
        let refused = |error: Error| assert!(closed::closed(&error).is_some(), "{error}");
        assert_eq!(self.events(&**old), self.events(&*new));
        assert!(new.restored().is_none());
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
