//! What is PostgreSQL's alone: roles, upgrades, and a server that fails. What every engine promises is in `conformance/`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::super::conformance::fixtures::{self, *};
use super::super::conformance::postgres::{Database, READER, SERVER, engine, server};
use super::super::testing::{ADMIN, Server};
use super::*;
use crate::error::Kind;

mod keeping;
mod meanwhile;

mod stolen;
mod upgrades;

/// A store, and what it runs on.
struct Bench {
    database: Database,
    runtime: tokio::runtime::Runtime,
    store: Postgres,
}

impl Bench {
    fn of(database: Database) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
        let store = runtime.block_on(database.store()).unwrap();
        Self { database, runtime, store }
    }

    fn new() -> Self {
        Self::of(engine())
    }

    fn sql(&self, sql: &str) -> String {
        self.database.psql(ADMIN, sql).unwrap()
    }

    fn issue(&self, entry: fixtures::Entry) -> Result<Issued> {
        self.runtime.block_on(self.store.issue(entry.entry, entry.plan))
    }

    fn upgrade(&self, role: &str, roles: &Roles) -> Result<Upgraded> {
        let pool = self.database.pool(role);
        self.runtime.block_on(upgrade(&pool, roles))
    }
}

fn roles(server: Option<&str>, reader: Option<&str>) -> Roles {
    let all = |role: Option<&str>| role.into_iter().map(str::to_owned).collect();
    Roles { server: all(server), reader: all(reader) }
}

#[test]
fn no_role_can_do_more_than_it_must() {
    let bench = Bench::new();
    assert_eq!(bench.issue(issuance(1)).unwrap(), FRESH);
    bench.runtime.block_on(bench.store.revoke(revocation(1, "a"))).unwrap();
    bench.sql("UPDATE state SET forgotten = 5, run = 5, list_number = 5");
    let of_both = [
        "UPDATE events SET body = ''",
        "DELETE FROM events",
        "TRUNCATE events",
        "ALTER TABLE events DISABLE TRIGGER ALL",
        "DROP TRIGGER events_stay ON events",
        "SET session_replication_role = replica",
        "CREATE TABLE machine_id.mine (x int)",
        "CREATE OR REPLACE FUNCTION machine_id.clock() RETURNS bigint LANGUAGE sql AS 'SELECT 0::bigint'",
        "DROP SCHEMA machine_id CASCADE",
        "ALTER TABLE events RENAME TO other",
        "CREATE INDEX ON events (body)",
        "COPY events TO PROGRAM 'id'",
        "TRUNCATE proofs",
        "TRUNCATE certificates",
        "UPDATE proofs SET fingerprint = ''",
        "UPDATE proofs SET held_until = 0",
        "DELETE FROM certificates",
        "UPDATE certificates SET expires = 0",
        "UPDATE certificates SET key_hash = key_hash",
        "UPDATE certificates SET revoked = NULL",
        "UPDATE state SET store = 'other'",
        "UPDATE state SET oldest = 0",
        "UPDATE state SET oldest = 3",
        "UPDATE state SET cas = -1",
        "UPDATE ca_keys SET public = ''",
        "UPDATE ca_keys SET is_first = 0",
        "UPDATE ca_keys SET number = 7",
        "DELETE FROM ca_keys",
        "TRUNCATE ca_keys",
        "UPDATE state SET forgotten = 0",
        "UPDATE state SET run = 0",
        "UPDATE state SET list_number = 0",
        "DELETE FROM state",
        "INSERT INTO versions (version, oldest) VALUES (9, 9)",
        "UPDATE secrets SET expires = 0",
        "DELETE FROM instances",
        "UPDATE state SET kept_from = 9999999999",
        "UPDATE state SET kept_run = 9",
        "UPDATE state SET closed = 'moved a b'",
        "UPDATE state SET closed = NULL",
        "SET machine_id.locked = 'yes'; UPDATE state SET kept_from = 9999999999; DELETE FROM events",
    ];
    let of_readers = [
        "INSERT INTO events (sequence, time, event, id, body) VALUES (9, 1, 'issued', 'x', '')",
        "SELECT * FROM secrets",
        "SELECT key FROM proofs",
        "SELECT key FROM instances",
        "SELECT mac FROM instances",
        "SELECT seal_check FROM state",
        "SELECT sealed FROM ca_keys",
        "SELECT cas FROM state",
        "SELECT * FROM usage",
        "SELECT 1 FROM state FOR UPDATE",
        "UPDATE state SET run = 9",
        "DELETE FROM strangers",
    ];
    let of_each = [(SERVER, &of_both[..]), (READER, &of_both[..]), (READER, &of_readers[..])];
    let before = bench.sql("SELECT md5(string_agg(t::text, '' ORDER BY sequence)) FROM events AS t");
    for (role, statements) in of_each {
        for sql in statements {
            let refused = bench.database.psql(role, sql).expect_err(sql);
            let is_refused = [
                "permission denied",
                "must be owner",
                "machine-id: ",
                "to COPY to or from",
                "violates check",
            ];
            assert!(is_refused.iter().any(|why| refused.contains(why)), "{role}: {sql}: {refused}");
        }
    }
    // One that has not expired by the database's clock, though the server may delete those that have.
    bench.sql("CREATE OR REPLACE FUNCTION clock() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT 0::bigint'");
    assert!(bench.database.psql(SERVER, "DELETE FROM proofs").unwrap_err().contains("until it has expired"));
    assert_eq!(bench.sql("SELECT md5(string_agg(t::text, '' ORDER BY sequence)) FROM events AS t"), before);
    // What a reader is for.
    let trail = bench.runtime.block_on(PostgresTrail::open(bench.database.pool(READER))).unwrap();
    let events = trail.events(EventFilter::default(), Cursor::default(), 10);
    assert_eq!(bench.runtime.block_on(events).unwrap().len(), 2);
    assert_eq!(bench.runtime.block_on(trail.dropped()).unwrap(), 0);
    assert_eq!(bench.runtime.block_on(trail.instances()).unwrap(), []);
}

/// Nor one that was given too much: what was let go is the owner's to take away.
#[test]
fn nobody_but_the_owner_takes_from_the_trail() {
    let bench = Bench::new();
    assert_eq!(bench.issue(issuance(1)).unwrap(), FRESH);
    assert_eq!(bench.issue(issuance(2)).unwrap(), FRESH);
    bench.sql("GRANT ALL ON ALL TABLES IN SCHEMA machine_id TO server");
    for (sql, why) in
        [("DELETE FROM certificates", "certificates stay on record"), ("DELETE FROM events", "append-only")]
    {
        let sql = format!("UPDATE state SET kept_from = 9999999999; {sql}");
        assert!(bench.database.psql(SERVER, &sql).unwrap_err().contains(why), "{sql}");
    }
    // In words, before anything is tried.
    let refused = bench.runtime.block_on(bench.store.let_go(NOW + 9999, NOW, true)).unwrap_err();
    assert!(refused.to_string().contains("belongs to the role `admin`, and this connection is `server`'s"));
    assert!(refused.hints()[0].contains("--store"), "{refused:?}");
    assert_eq!(bench.runtime.block_on(bench.store.let_go(NOW + 9999, NOW, false)).unwrap(), 0);
    for (role, why) in [(SERVER, "this connection is `server`'s"), (READER, "this connection is `reader`'s")]
    {
        let key = bench.database.key();
        let target = archive::PostgresArchive::target(bench.database.pool(role), "x", &key);
        let refused = bench.runtime.block_on(target).unwrap_err();
        assert!(refused.kind() == Kind::Usage && refused.to_string().contains(why), "{refused}");
    }
    assert_eq!(bench.sql("SELECT count(*) FROM events"), "2");
}

/// Who may make objects in a schema that is looked at first decides nothing.
#[test]
fn nobody_s_search_path_decides_what_is_meant() {
    let bench = Bench::new();
    let trap = "RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trap'; END $$";
    let name = &bench.database.name;
    bench.sql(&format!(
        "CREATE TABLE public.events (sequence bigint); CREATE TABLE public.state (id bigint, store text);
         CREATE FUNCTION public.current_setting(text, boolean) {trap};
         CREATE FUNCTION public.set_config(text, text, boolean) {trap};
         CREATE FUNCTION public.octet_length(bytea) RETURNS int LANGUAGE sql AS 'SELECT 32';
         CREATE FUNCTION public.equal(bigint, bigint) RETURNS boolean LANGUAGE sql AS 'SELECT true';
         CREATE OPERATOR public.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = public.equal);
         ALTER DATABASE {name} SET search_path = public, pg_catalog, machine_id;
         ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'"
    ));
    let store = bench.runtime.block_on(bench.database.store()).unwrap();
    let fixtures::Entry { entry, plan } = issuance(1);
    assert_eq!(bench.runtime.block_on(store.issue(entry, plan)).unwrap(), FRESH);
    let fixtures::Entry { entry, plan } = other(1, 2);
    assert_eq!(bench.runtime.block_on(store.issue(entry, plan)).unwrap(), Issued::Used);
    bench.runtime.block_on(store.ready()).unwrap();
}

#[test]
fn an_upgrade_says_what_is_in_its_way() {
    let bench = Bench::new();
    let both = roles(Some(SERVER), Some(READER));
    assert_eq!(
        bench.upgrade(ADMIN, &both).unwrap(),
        Upgraded { from: schema::newest(), to: schema::newest(), roles: both }
    );
    for (role, of, why) in [
        (ADMIN, roles(Some("nobody"), None), "there is no role `nobody`"),
        (ADMIN, roles(Some("x\"; DROP SCHEMA machine_id; --"), None), "there is no role"),
        (ADMIN, roles(None, Some(ADMIN)), "is a superuser, the owner, a member"),
        (ADMIN, roles(Some(SERVER), Some(SERVER)), "a server's role and a reader's are two"),
        (SERVER, roles(None, None), "belongs to the role `admin`, and this connection is `server`'s"),
    ] {
        let error = bench.upgrade(role, &of).unwrap_err();
        assert!(error.kind() == Kind::Usage && error.to_string().contains(why), "{error}");
        assert!(!error.hints().is_empty() || why.contains("are two"), "{error}");
    }
    // What a role had beside is taken from it.
    bench.sql(
        "GRANT ALL ON ALL TABLES IN SCHEMA machine_id TO reader; GRANT UPDATE (body) ON events TO server",
    );
    bench.upgrade(ADMIN, &roles(Some(SERVER), Some(READER))).unwrap();
    assert!(bench.database.psql(READER, "DELETE FROM strangers").unwrap_err().contains("permission denied"));
    assert!(
        bench.database.psql(SERVER, "UPDATE events SET body = ''").unwrap_err().contains("permission denied")
    );
    // Of what is there and is none, nothing is made a store.
    let server = server();
    for (prepare, why) in [
        ("CREATE SCHEMA machine_id; CREATE TABLE machine_id.x (y int)", "holds something else"),
        ("CREATE SCHEMA machine_id AUTHORIZATION server", ""),
    ] {
        let name = server.database();
        server.sql(&name, prepare);
        let settings = |role| {
            let (url, folder) = (server.url_as(role, &name), std::path::Path::new("/"));
            let env = crate::environment::Environment::default();
            Pool::new(
                settings::Settings::parse(&url, &env, folder, crate::folder::trust::Owner::me()).unwrap(),
            )
        };
        let (admin, other) = (settings(ADMIN), settings(READER));
        let told = |pool| bench.runtime.block_on(upgrade(pool, &Roles::default()));
        assert!(why.is_empty() || told(&admin).unwrap_err().to_string().contains(why));
        assert_eq!(told(&other).unwrap_err().kind(), Kind::Usage);
        let error = bench.runtime.block_on(PostgresTrail::open(admin)).unwrap_err();
        assert!(error.to_string().contains("no store of an authority"), "{error}");
        assert!(error.hints()[0].contains("authority upgrade"), "{error:?}");
    }
    let name = server.database();
    server.sql(
        "postgres",
        &format!("CREATE DATABASE {name}_latin ENCODING 'LATIN1' TEMPLATE template0 LOCALE 'C'"),
    );
    let url = server.url(&format!("{name}_latin"));
    let env = crate::environment::Environment::default();
    let owner = crate::folder::trust::Owner::me();
    let pool = Pool::new(settings::Settings::parse(&url, &env, std::path::Path::new("/"), owner).unwrap());
    let error = bench.runtime.block_on(upgrade(&pool, &Roles::default())).unwrap_err();
    assert!(error.to_string().contains("encoding is LATIN1"), "{error}");
}

/// A refusal whose commit was in doubt.
#[test]
fn a_stranger_s_refusal_that_was_tried_before_stands_there_once() {
    let bench = Bench::new();
    let (client, shared) =
        (bench.runtime.block_on(bench.database.pool(SERVER).get()).unwrap(), &bench.store.shared);
    let refusal = fixtures::stranger("d-1", super::super::Stranger::Unverified, 1);
    let (stranger, event) = (refusal.stranger.unwrap(), event::refused(&refusal));
    for was_tried in [true, true, false] {
        bench
            .runtime
            .block_on(writes::append_stranger(&client, shared, stranger, &event, was_tried))
            .unwrap();
    }
    assert_eq!(
        bench.sql("SELECT count(*), max(nth) FROM strangers"),
        "2|2",
        "only where it was tried it is looked for"
    );
}

#[test]
fn of_two_upgrades_at_once_one_waits() {
    let server = server();
    let name = server.database();
    let bench = Bench::new();
    let env = crate::environment::Environment::default();
    let owner = crate::folder::trust::Owner::me();
    let settings =
        settings::Settings::parse(&server.url(&name), &env, std::path::Path::new("/"), owner).unwrap();
    let pool = Pool::new(settings);
    let done = bench.runtime.block_on(async {
        let all = (0..6).map(|_| {
            let pool = pool.clone();
            async move { upgrade(&pool, &Roles::default()).await.unwrap() }
        });
        futures_util::future::join_all(all).await
    });
    let newest = schema::newest();
    assert_eq!(done.iter().filter(|done| (done.from, done.to) == (0, newest)).count(), 1);
    assert_eq!(done.iter().filter(|done| (done.from, done.to) == (newest, newest)).count(), 5);
}

/// While tables are brought up to date, and afterwards.
#[test]
fn a_server_goes_on_beside_a_neighbouring_schema_alone() {
    let bench = Bench::new();
    let opened = || bench.runtime.block_on(bench.database.store());
    bench.sql("INSERT INTO versions (version, oldest) VALUES (3, 1)");
    assert_eq!(bench.issue(issuance(1)).unwrap(), FRESH);
    opened().unwrap();
    bench.sql("UPDATE versions SET oldest = 3 WHERE version = 3; UPDATE state SET oldest = 3");
    let error = bench.issue(issuance(2)).unwrap_err();
    assert!(is_displaced(&error) && error.to_string().contains("takes a newer one"), "{error}");
    assert!(opened().unwrap_err().to_string().contains("newer machine-id"));
    assert_eq!(bench.upgrade(ADMIN, &Roles::default()).unwrap_err().kind(), Kind::Usage);
    bench.sql("DELETE FROM versions; UPDATE state SET oldest = 1");
    let error = opened().unwrap_err();
    assert!(error.kind() == Kind::Usage && error.hints()[0].contains("authority upgrade"), "{error:?}");
    assert_eq!(bench.sql("SELECT count(*) FROM events"), "1");
}

#[test]
fn another_store_in_its_place_is_written_to_no_more() {
    let other = Bench::new();
    other.sql("ALTER TABLE state DISABLE TRIGGER ALL; UPDATE state SET store = 'other'");
    let error = other.issue(issuance(1)).unwrap_err();
    assert!(is_displaced(&error) && error.to_string().contains("another store"), "{error}");
}

/// One entry that the database does not take is no reason to refuse those that share its commit.
#[test]
fn of_a_batch_only_what_cannot_be_recorded_is_refused() {
    let bench = Bench::new();
    assert_eq!(bench.issue(issuance(1000)).unwrap(), FRESH);
    let answers = bench.runtime.block_on(async {
        let all = (0..40).map(|n| {
            let entry = issuance(n).with(|entry| {
                if n == 20 {
                    entry.plan.certificates[0].serial = issuance(1000).plan.certificates[0].serial;
                }
            });
            bench.store.issue(entry.entry, entry.plan)
        });
        futures_util::future::join_all(all).await
    });
    for (n, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.is_ok_and(|answer| answer == FRESH), n != 20, "{n}");
    }
    assert_eq!(bench.sql("SELECT count(*), max(sequence) FROM events"), "40|40");
}

/// Of many authorities and clients, each proof is of one.
#[test]
fn of_replicas_one_alone_uses_a_proof() {
    let bench = Bench::new();
    let answers = bench.runtime.block_on(async {
        let mut all = tokio::task::JoinSet::new();
        for replica in 0..3 {
            let store = bench.database.store().await.unwrap();
            for n in 0..20 {
                let (store, entry) = (store.clone(), other(7, 1000 + replica * 20 + n));
                all.spawn(async move { store.issue(entry.entry, entry.plan).await.unwrap() });
            }
        }
        all.join_all().await
    });
    assert_eq!(answers.iter().filter(|answer| **answer == FRESH).count(), 1);
    assert_eq!(answers.iter().filter(|answer| **answer == Issued::Used).count(), 59);
    assert_eq!(bench.sql("SELECT count(*) FROM events"), "1");
}

/// Each proof once, each acknowledged issuance there, whatever becomes of connections and of the server meanwhile.
fn nothing_is_lost_while(trouble: impl FnOnce(&Bench, &'static Server)) {
    let server: &'static Server = Box::leak(Box::new(Server::start("", "local all all trust\n", |_| ())));
    let bench = Bench::of(Database::on(server));
    let (next, is_over) = (Arc::new(AtomicU64::new(1)), Arc::new(AtomicBool::new(false)));
    let store = &bench.store;
    let replica = bench.runtime.block_on(bench.database.store()).unwrap();
    let clients: Vec<_> = (0..16)
        .map(|n| {
            let (next, is_over) = (Arc::clone(&next), Arc::clone(&is_over));
            let store = if n % 2 == 0 { store.clone() } else { replica.clone() };
            bench.runtime.spawn(async move {
                let (mut fresh, mut failed) = (Vec::new(), 0);
                while !is_over.load(Ordering::SeqCst) {
                    let n = next.fetch_add(1, Ordering::SeqCst);
                    let entry = issuance(n);
                    match store.issue(entry.entry, entry.plan).await {
                        Ok(FRESH) => fresh.push(n),
                        Ok(other) => panic!("{n}: {other:?}"),
                        Err(error) => {
                            assert!(is_away(&error), "{error:?}");
                            failed += 1;
                        }
                    }
                }
                (fresh, failed)
            })
        })
        .collect();
    let reached = |count: u64| {
        let end = std::time::Instant::now() + Duration::from_secs(20);
        while next.load(Ordering::SeqCst) < count {
            assert!(std::time::Instant::now() < end, "it does not go on");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    reached(200);
    trouble(&bench, server);
    reached(next.load(Ordering::SeqCst) + 200);
    is_over.store(true, Ordering::SeqCst);
    let (mut fresh, mut failed) = (Vec::new(), 0);
    for client in clients {
        let (more, lost) = bench.runtime.block_on(client).unwrap();
        fresh.extend(more);
        failed += lost;
    }
    assert_eq!(failed, 0, "it is shorter than a request's patience");
    fresh.sort_unstable();
    let recorded = bench.sql("SELECT substr(id, 2)::bigint FROM events WHERE event = 'issued' ORDER BY 1");
    let recorded: Vec<u64> = recorded.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(recorded, fresh, "each once, and none that was not acknowledged");
    let (count, last) =
        (bench.sql("SELECT count(*) FROM proofs"), bench.sql("SELECT max(sequence) FROM events"));
    assert_eq!((count.parse().unwrap(), last.parse().unwrap()), (fresh.len(), fresh.len()));
}

#[test]
fn connections_may_be_cut_at_any_moment() {
    nothing_is_lost_while(|bench, _| {
        for _ in 0..20 {
            bench.sql(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'server'",
            );
        }
    });
}

#[test]
fn statements_may_be_cancelled_at_any_moment() {
    nothing_is_lost_while(|bench, _| {
        for _ in 0..40 {
            bench.sql("SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE usename = 'server'");
        }
    });
}

#[test]
fn the_server_may_crash_and_start_again() {
    nothing_is_lost_while(|_, server| server.ctl("restart -m immediate"));
}

#[test]
fn the_server_may_pause() {
    nothing_is_lost_while(|_, server| {
        server.pause(true);
        std::thread::sleep(Duration::from_millis(500));
        server.pause(false);
    });
}

/// A replica that went away in the middle of a transaction keeps the others waiting for three seconds.
#[test]
fn a_lock_that_nobody_gives_back_is_taken() {
    let bench = Bench::new();
    let held = bench.runtime.block_on(async {
        let connection = bench.database.pool(SERVER).get().await.unwrap();
        let known = &bench.store.shared.known;
        transaction::begin(&connection, known, transaction::Judged::now(known), &[]).await.unwrap();
        connection
    });
    assert_eq!(bench.issue(issuance(1)).unwrap(), FRESH);
    drop(held);
}

#[test]
fn a_server_that_cannot_be_reached_is_told_within_the_time_of_a_request() {
    let server: &'static Server = Box::leak(Box::new(Server::start("", "local all all trust\n", |_| ())));
    let bench = Bench::of(Database::on(server));
    assert_eq!(bench.issue(issuance(1)).unwrap(), FRESH);
    server.ctl("stop -m immediate");
    let since = Instant::now();
    let ready = bench.runtime.block_on(bench.store.ready()).unwrap_err();
    assert!(is_away(&ready) && since.elapsed() < Duration::from_secs(5), "{ready:?}");
    let error = bench.issue(issuance(2)).unwrap_err();
    assert!(is_away(&error) && error.kind() == Kind::Unreachable, "{error:?}");
    assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
}
