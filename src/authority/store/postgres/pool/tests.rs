//! Against a real PostgreSQL and a real PgBouncer.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU32;

use super::super::failure::Failure;
use super::super::transaction::silent;
use super::super::work::give_back;
use super::*;
use crate::authority::store::conformance::postgres::server;
use crate::authority::store::testing::{self, ADMIN, Server, Watched, as_user, succeed};
use crate::environment::Environment;
use crate::folder::trust::Owner;

mod world;

use world::{MARKED, closed_port, world};

async fn one(connection: &Connection, sql: &str) -> String {
    let rows = connection.query_typed(sql, &[]).await.unwrap();
    rows[0].get::<_, String>(0)
}

#[tokio::test]
async fn whoever_may_is_let_in_and_tls_is_what_was_asked_for() {
    let world = world();
    for (url, is_encrypted) in [
        ("postgres://scram:MARKED@localhost:PORT/postgres?sslrootcert=ca.crt", true),
        ("postgres://scram:MARKED@127.0.0.1:PORT/postgres?sslrootcert=ca.crt", true),
        ("postgres://scram:MARKED@localhost:PORT/postgres?sslrootcert=ca.crt&channel_binding=require", true),
        (
            "postgres://scram:MARKED@db.test:PORT/postgres?hostaddr=127.0.0.1&sslrootcert=ca.crt&sslmode=verify-ca",
            true,
        ),
        (
            "postgres://scram:MARKED@db.test:PORT/postgres?hostaddr=127.0.0.1&sslrootcert=ca.crt&sslmode=require",
            true,
        ),
        ("postgres://scram:MARKED@localhost:PORT/postgres?sslmode=require", true),
        ("postgres://scram:MARKED@localhost:PORT/postgres?sslmode=prefer", true),
        ("postgres://clear:MARKED@localhost:PORT/postgres?sslmode=allow", true),
        ("postgres://hashed:MARKED@localhost:PORT/postgres?sslrootcert=ca.crt", true),
        ("postgres://plain:MARKED@localhost:PORT/postgres?sslmode=disable", false),
        (
            "postgres://certified@localhost:PORT/postgres?sslrootcert=ca.crt&sslcert=ca-client.crt&sslkey=ca-client.key",
            true,
        ),
    ] {
        let connection =
            world.pool(url).unwrap().get().await.unwrap_or_else(|error| panic!("{url}: {error:?}"));
        let ssl = one(&connection, "SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()").await;
        assert_eq!(ssl, is_encrypted.to_string(), "{url}");
    }
    let socket = world.server.url("postgres");
    let connection = world.pool(&socket).unwrap().get().await.unwrap();
    assert_eq!(one(&connection, "SELECT current_user::text").await, ADMIN);
}

#[tokio::test]
async fn what_is_in_the_way_is_said_with_what_to_do() {
    let world = world();
    let trusted = "sslrootcert=ca.crt";
    let (free, plain) = (closed_port(), server());
    for (url, kind, said, hint) in [
        (
            format!("scram:wrong@localhost:PORT/postgres?{trusted}"),
            Kind::Usage,
            "it refuses the password of `scram`",
            "the password is from the URL",
        ),
        (
            format!("scram@localhost:PORT/postgres?{trusted}"),
            Kind::Usage,
            "it asks for the password of `scram`, and there is none",
            "passfile=FILE",
        ),
        (
            format!("scram:MARKED@localhost:PORT/none?{trusted}"),
            Kind::Usage,
            "database \"none\" does not exist",
            "CREATE DATABASE \"none\"",
        ),
        (
            format!("scram:MARKED@localhost:PORT/closed?{trusted}"),
            Kind::Usage,
            "permission denied for database \"closed\"",
            "GRANT CONNECT ON DATABASE \"closed\" TO \"scram\"",
        ),
        (
            format!("nobody:MARKED@localhost:PORT/postgres?{trusted}"),
            Kind::Usage,
            "no pg_hba.conf entry",
            "pg_hba.conf of the server must let `nobody` in",
        ),
        (
            format!("stranger:MARKED@localhost:PORT/postgres?{trusted}"),
            Kind::Usage,
            "it refuses the password of `stranger`",
            "from the URL",
        ),
        (
            format!("certified@localhost:PORT/postgres?{trusted}"),
            Kind::Usage,
            "connection requires a valid client certificate",
            "pg_hba.conf",
        ),
        (
            format!("crowd:MARKED@localhost:PORT/postgres?{trusted}"),
            Kind::Unreachable,
            "too many connections",
            "max_connections",
        ),
        (
            format!("scram:MARKED@localhost:PORT/standing?{trusted}"),
            Kind::Unreachable,
            "it takes no writes",
            "HOST,HOST",
        ),
        (
            "scram:MARKED@localhost:PORT/postgres".to_owned(),
            Kind::Unreachable,
            "it is signed by an unknown authority",
            "the system's trust store",
        ),
        (
            "scram:MARKED@localhost:PORT/postgres?sslrootcert=other.crt".to_owned(),
            Kind::Unreachable,
            "it is signed by an unknown authority",
            "/other.crt",
        ),
        (
            "scram:MARKED@localhost:PORT/postgres?sslrootcert=other.crt&sslmode=require".to_owned(),
            Kind::Unreachable,
            "it is signed by an unknown authority",
            "/other.crt",
        ),
        (
            format!("scram:MARKED@db.test:PORT/postgres?hostaddr=127.0.0.1&{trusted}"),
            Kind::Unreachable,
            "it is for another name",
            "subjectAltName",
        ),
        (
            format!("scram:MARKED@localhost:PORT/postgres?{trusted}&sslnegotiation=direct"),
            Kind::Unreachable,
            "localhost:PORT: ",
            "sslnegotiation",
        ),
        (
            format!("plain:MARKED@localhost:PORT/postgres?{trusted}"),
            Kind::Usage,
            "no pg_hba.conf entry",
            "pg_hba.conf",
        ),
        (
            format!("x:MARKED@localhost:{}/postgres?{trusted}", plain.port()),
            Kind::Unreachable,
            "it speaks no TLS",
            "ssl = on",
        ),
        (
            format!("x:MARKED@localhost:{free}/postgres?{trusted}"),
            Kind::Unreachable,
            "refused",
            "does it listen there",
        ),
        (
            format!("x:MARKED@no-such-host.invalid/postgres?{trusted}"),
            Kind::Unreachable,
            "its name is not resolved",
            "",
        ),
        (
            "x:MARKED@/postgres?host=/nonexistent".to_owned(),
            Kind::Unreachable,
            "/nonexistent:5432: there is no socket",
            "postgres://USER@HOST/DATABASE",
        ),
        (
            "x:MARKED@localhost/postgres?sslrootcert=none.crt".to_owned(),
            Kind::Usage,
            "cannot read the CA file",
            "",
        ),
        (
            format!("x@localhost/postgres?{trusted}&sslcert=ca-client.crt&sslkey=other-client.key"),
            Kind::Usage,
            "cannot use ",
            "",
        ),
        (
            format!("x@localhost/postgres?{trusted}&sslcert=ca-client.crt"),
            Kind::Usage,
            "`sslcert` and `sslkey` go together",
            "",
        ),
        (
            format!("x@localhost/postgres?{trusted}&passfile=none"),
            Kind::Usage,
            "cannot use the password file",
            "",
        ),
        (
            "x@localhost/postgres?sslmode=verify-ca".to_owned(),
            Kind::Usage,
            "without `sslrootcert`",
            "sslrootcert=FILE",
        ),
        (
            "x@localhost/postgres?sslmode=prefer&sslrootcert=system".to_owned(),
            Kind::Usage,
            "believes anybody",
            "verify-full",
        ),
        (
            "x@localhost/postgres?sslmode=prefer&sslnegotiation=direct".to_owned(),
            Kind::Usage,
            "contradict",
            "",
        ),
    ] {
        let (is, words, hints) = world.trouble(&format!("postgres://{url}")).await;
        assert!(words.contains(said) && hints.join("\n").contains(hint), "{url}: {words} {hints:?}");
        assert_eq!(is, kind, "{url}: {words}");
    }
}

#[tokio::test]
async fn a_password_is_read_from_a_file_that_is_nobody_elses() {
    let world = world();
    let file = world.files.path().join("passwords");
    let write = |line: &str, mode: &str| {
        std::fs::write(&file, line).unwrap();
        succeed(std::process::Command::new("chmod").arg(mode).arg(&file));
    };
    let url = "postgres://scram@localhost:PORT/postgres?sslrootcert=ca.crt&passfile=passwords";
    write(&format!("elsewhere:*:*:*:x\nlocalhost:{}:postgres:scram:{MARKED}\n", world.server.port()), "600");
    let pool = world.pool(url).unwrap();
    drop(pool.get().await.unwrap());
    // It is read again for each connection.
    write(&format!("*:*:*:*:{MARKED}x\n"), "600");
    let error = pool.get().await.unwrap_err();
    assert!(error.hints()[0].contains("/passwords"), "{error:?}");
    write(&format!("*:*:*:*:{MARKED}\n"), "640");
    let error = pool.get().await.unwrap_err();
    assert!(error.to_string().contains("others than its owner may use it (mode 640)"), "{error}");
    assert!(world.pool(url).is_err());
    write("*:*:*:other:x\n", "600");
    let (kind, said, hints) = world.trouble(url).await;
    assert!(
        said.contains("and there is none") && hints[0].contains("/passwords has no line"),
        "{said} {hints:?}"
    );
    assert_eq!(kind, Kind::Usage);
}

#[tokio::test]
async fn a_connection_is_kept_where_it_is_given_back_and_only_there() {
    let server = server();
    let settings = Settings::parse(
        &server.url(&server.database()),
        &Environment::default(),
        Path::new("/"),
        Owner::me(),
    );
    let pool = Pool::new(settings.unwrap());
    let pid = "SELECT pg_backend_pid()::text";
    let first = pool.get().await.unwrap();
    let of_first = one(&first, pid).await;
    first.give_back();
    let again = pool.get().await.unwrap();
    assert_eq!(one(&again, pid).await, of_first);
    // In the middle of a transaction: the server undoes it, and nobody gets the connection.
    again.batch_execute("CREATE TABLE t (x int)").await.unwrap();
    again.batch_execute("BEGIN; INSERT INTO t VALUES (1)").await.unwrap();
    drop(again);
    let other = pool.get().await.unwrap();
    assert_ne!(one(&other, pid).await, of_first);
    assert_eq!(one(&other, "SELECT count(*)::text FROM t").await, "0");
    // What the server ended is not kept, and neither is what was idle then.
    let idle = pool.get().await.unwrap();
    idle.give_back();
    let ended = other.batch_execute("SELECT pg_terminate_backend(pg_backend_pid())").await;
    let failure = Failure::from(ended.unwrap_err());
    assert_eq!(failure.error("").kind(), Kind::Unreachable, "{failure}");
    give_back::<()>(other, &Err(failure));
    assert!(pool.0.idle().is_empty());
    // One that has no answer in time is broken.
    let slow = pool.get().await.unwrap();
    assert!(timeout(Duration::from_millis(50), slow.batch_execute("SELECT pg_sleep(9)")).await.is_err());
    give_back::<()>(slow, &Err(silent(Duration::from_millis(50))));
    assert!(pool.0.idle().is_empty());
    // There are so many, and no more.
    let mut all = Vec::new();
    for _ in 0..MOST {
        all.push(pool.get().await.unwrap());
    }
    assert!(timeout(Duration::from_millis(50), pool.get()).await.is_err());
    all.pop().unwrap().give_back();
    pool.get().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_server_is_not_stormed() {
    // It takes connections, and ends each.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let tries = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&tries);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            drop(stream);
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    let url = format!("postgres://x:{MARKED}@127.0.0.1:{port}/x?sslmode=disable");
    let pool =
        Pool::new(Settings::parse(&url, &Environment::default(), Path::new("/"), Owner::me()).unwrap());
    let began = Instant::now();
    let asking: Vec<_> = (0..200)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move { pool.get().await.unwrap_err().to_string() })
        })
        .collect();
    for asked in asking {
        let said = asked.await.unwrap();
        assert!(said.starts_with(&format!("the database: 127.0.0.1:{port}: ")), "{said}");
    }
    let (tries, took) = (tries.load(Ordering::Relaxed), began.elapsed());
    assert!(tries <= 200 / 4 && took < Duration::from_secs(9), "{tries} tries in {took:?}");
}

/// A primary fails, its standby is promoted: the URL names both, and stays what it is.
#[tokio::test(flavor = "multi_thread")]
async fn the_server_that_takes_writes_is_found_and_followed() {
    let hba = "local all all trust\nlocal replication all trust\nhost all all 127.0.0.1/32 trust\n";
    let primary = Server::start("", hba, |_| ());
    let standby = primary.standby("", |_| ());
    let url = format!(
        "postgres://{ADMIN}@127.0.0.1:{},127.0.0.1:{},127.0.0.1:{}/postgres?sslmode=disable&connect_timeout=1",
        closed_port(),
        standby.port(),
        primary.port()
    );
    let pool =
        Pool::new(Settings::parse(&url, &Environment::default(), Path::new("/"), Owner::me()).unwrap());
    let port = "SELECT current_setting('port')";
    let connection = pool.get().await.unwrap();
    assert_eq!(one(&connection, port).await, primary.port().to_string());
    connection.give_back();
    // Paused: who asks has an answer in time, and so has who wants a connection.
    let connection = pool.get().await.unwrap();
    primary.pause(true);
    assert!(timeout(Duration::from_millis(200), connection.batch_execute("SELECT 1")).await.is_err());
    give_back::<()>(connection, &Err(silent(Duration::from_millis(50))));
    let began = Instant::now();
    let error = pool.get().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable);
    let said = error.to_string();
    assert!(
        said.contains("refused") && said.contains("takes no writes") && said.contains("no answer within 1"),
        "{said}"
    );
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let waiting = tokio::spawn(async move {
        let connection = pool.wait(|_| ()).await.unwrap();
        one(&connection, port).await
    });
    standby.ctl("promote");
    // The old one is still silent.
    let found = timeout(Duration::from_secs(20), waiting).await.unwrap().unwrap();
    assert_eq!(found, standby.port().to_string());
    primary.pause(false);
}

#[tokio::test]
async fn pgbouncer_stands_between_with_scram_and_tls() {
    let world = world();
    let folder = testing::folder();
    for name in ["ca-server.crt", "ca-server.key"] {
        std::fs::copy(world.files.path().join(name), folder.join(name)).unwrap();
    }
    let port = closed_port();
    let (at, server) = (folder.display(), &world.server);
    std::fs::write(folder.join("users"), format!("\"scram\" \"{MARKED}\"\n")).unwrap();
    std::fs::write(
        folder.join("pgbouncer.ini"),
        format!(
            "[databases]\npostgres = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {at}/users\npool_mode = transaction\n\
             default_pool_size = 1\nclient_tls_sslmode = require\nclient_tls_key_file = {at}/ca-server.key\n\
             client_tls_cert_file = {at}/ca-server.crt\nserver_tls_sslmode = require\n",
            server.port()
        ),
    )
    .unwrap();
    testing::give_away(&folder);
    let program = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"]
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.is_file());
    let mut pgbouncer = as_user(program.expect("PgBouncer is not installed").to_str().unwrap());
    let _process = Watched::start(&folder, pgbouncer.arg(folder.join("pgbouncer.ini")));
    let url = format!("postgres://scram:{MARKED}@localhost:{port}/postgres?sslrootcert=ca.crt");
    let pool = world.pool(&url).unwrap();
    // It may take a moment to listen.
    let mut told = String::new();
    let waited = timeout(Duration::from_secs(10), pool.wait(|error| told = format!("{error:?}"))).await;
    let two = [waited.unwrap_or_else(|_| panic!("{told}")).unwrap(), pool.get().await.unwrap()];
    // Two connections to it share one to the server, transaction by transaction.
    let mut pids = Vec::new();
    for connection in two.iter().chain(&two) {
        connection.batch_execute("BEGIN; SET LOCAL lock_timeout = '2s'").await.unwrap();
        pids.push(one(connection, "SELECT pg_backend_pid()::text").await);
        connection.batch_execute("COMMIT").await.unwrap();
    }
    pids.dedup();
    assert_eq!(pids.len(), 1, "{pids:?}");
    let (_, said, _) = world
        .trouble(&format!("postgres://scram:{MARKED}x@localhost:{port}/postgres?sslrootcert=ca.crt"))
        .await;
    assert!(said.contains(&format!("localhost:{port}: ")), "{said}");
}
