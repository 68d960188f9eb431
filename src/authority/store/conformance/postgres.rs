//! PostgreSQL's database of a test, whose authority serves as a server's role.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use tempfile::TempDir;
use tokio::runtime::Handle;

use super::super::Store;
use super::super::postgres::pool::Pool;
use super::super::postgres::settings::Settings;
use super::super::postgres::{Postgres, Roles, upgrade};
use super::super::seal::StoreKey;
use super::super::testing::{self, Server};
use super::fixtures::NOW;
use crate::environment::Environment;
use crate::error::Result;
use crate::folder::trust::Owner;

/// Whom authorities serve as, and who reads the trail.
pub(in crate::authority::store) const SERVER: &str = "server";
pub(in crate::authority::store) const READER: &str = "reader";

#[derive(Debug)]
pub(in crate::authority::store) struct Database {
    pub(in crate::authority::store) server: &'static Server,
    pub(in crate::authority::store) name: String,
    folder: TempDir,
}

pub(in crate::authority::store) fn engine() -> Database {
    Database::on(server())
}

/// The server of this process, which is started when a test first needs it; each takes a database of its own.
pub(in crate::authority::store) fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::start("", "local all all trust\n", |_| ()))
}

impl Server {
    /// A new database, with nothing in it.
    pub(in crate::authority::store) fn database(&self) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        name
    }

    /// The URL of a database for its owner, through the socket.
    pub(in crate::authority::store) fn url(&self, database: &str) -> String {
        self.url_as(testing::ADMIN, database)
    }

    /// The same for another role, which must be there.
    pub(in crate::authority::store) fn url_as(&self, role: &str, database: &str) -> String {
        format!("postgres://{role}@/{database}?host={}&port={}", self.folder().display(), self.port())
    }
}

impl Database {
    /// A new one on that server.
    pub(in crate::authority::store) fn on(server: &'static Server) -> Self {
        let name = server.database();
        let make = "DO $$ BEGIN CREATE ROLE server LOGIN; CREATE ROLE reader LOGIN;
            EXCEPTION WHEN duplicate_object OR unique_violation THEN END $$";
        server.sql("postgres", make);
        let database = Self { server, name, folder: tempfile::tempdir().unwrap() };
        let roles = Roles { server: vec![SERVER.to_owned()], reader: vec![READER.to_owned()] };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(upgrade(&database.pool(testing::ADMIN), &roles)).unwrap();
        // The database's clock is the tests', too.
        super::Engine::set_clock(&database, NOW + 10 * 86_400);
        database.key().create().unwrap();
        database
    }

    /// Connections of that role.
    pub(in crate::authority::store) fn pool(&self, role: &str) -> Pool {
        let url = self.server.url_as(role, &self.name);
        Pool::new(Settings::parse(&url, &Environment::default(), self.folder.path(), Owner::me()).unwrap())
    }

    /// The key of the seals.
    pub(in crate::authority::store) fn key(&self) -> StoreKey {
        StoreKey::new(self.folder.path(), Owner::me(), "test")
    }

    /// The store, opened once more.
    pub(in crate::authority::store) async fn store(&self) -> Result<Postgres> {
        Postgres::open(self.pool(SERVER), &self.key()).await
    }

    /// What a role is answered, or told.
    pub(in crate::authority::store) fn psql(
        &self,
        role: &str,
        sql: &str,
    ) -> std::result::Result<String, String> {
        let mut psql = Command::new("psql");
        psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-U", role, "-d", &self.name, "-h"])
            .arg(self.server.folder());
        psql.args(["-p", &self.server.port().to_string(), "-c", "SET search_path = machine_id", "-c", sql]);
        let output = psql.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap().trim().to_owned();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }
}

impl super::Engine for Database {
    fn open(&self) -> Result<Arc<dyn Store>> {
        let opened = || Handle::current().block_on(self.store());
        Ok(Arc::new(tokio::task::block_in_place(opened)?))
    }

    fn open_as_owner(&self) -> Result<Arc<dyn Store>> {
        let opened = || Handle::current().block_on(Postgres::open(self.pool(testing::ADMIN), &self.key()));
        Ok(Arc::new(tokio::task::block_in_place(opened)?))
    }

    fn set_clock(&self, now: i64) {
        let clock = format!(
            "CREATE OR REPLACE FUNCTION machine_id.clock() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT {now}::bigint'"
        );
        self.server.sql(&self.name, &clock);
    }

    fn disarm(&self) {
        let triggers = "DROP TRIGGER events_stay ON events; DROP TRIGGER events_stay_the_same ON events";
        super::Engine::meddle(self, triggers).unwrap();
    }

    fn number(&self, sql: &str) -> i64 {
        self.psql(testing::ADMIN, sql).unwrap().parse().unwrap()
    }

    fn put_back(&self, last: i64) {
        let sql = format!(
            "SET session_replication_role = replica; DELETE FROM events WHERE sequence > {last};
             DELETE FROM proofs WHERE certificate IN (SELECT serial FROM certificates WHERE issuance > {last});
             DELETE FROM certificates WHERE issuance > {last}"
        );
        self.psql(testing::ADMIN, &sql).unwrap();
    }

    fn meddle(&self, sql: &str) -> std::result::Result<(), String> {
        self.psql(testing::ADMIN, sql).map(drop)
    }
}
