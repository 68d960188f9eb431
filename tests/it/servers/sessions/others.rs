//! What of other servers goes on, and until when, as `docs/revocation.md` says: nginx after a reload, and whoever came to PostgreSQL
//! by a pool.

use std::fs::{Permissions, create_dir, set_permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::{begun, ends, says, watch};
use crate::support::nginx::{Nginx, find};
use crate::support::once::{World, manifest};
use crate::support::postgres::Postgres;
use crate::support::process::{Running, command, machine_id, succeed};
use crate::support::servers::{Folder, listening, world_of};
use crate::support::wait_for;

/// `host refresh`, until there is something new.
#[track_caller]
fn refresh(world: &World, trust: &Path) {
    wait_for("the list", || {
        let mut refresh = machine_id(["host", "refresh", "--authority", &world.authority.url(), "--dir"]);
        let changed = succeed(refresh.arg(trust).arg("--ca-file").arg(world.authority.ca_file()));
        (!changed.is_empty()).then_some(())
    });
}

/// `openssl s_client` by the certificate of a destination.
fn tls(nginx: &Nginx, destination: &Path, more: &[&str]) -> Command {
    let mut client = command("openssl");
    client.args(["s_client", "-connect", &nginx.address().to_string(), "-CAfile"]);
    client.arg(destination.join("ca.crt")).arg("-cert").arg(destination.join("tls.crt"));
    client.arg("-key").arg(destination.join("tls.key")).args(more);
    client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    client
}

/// Asks for a page on it; what has come in all once it has been answered so often.
fn ask(client: &mut Running, connection: &str, answers: usize) -> String {
    client.tell(&format!("GET / HTTP/1.1\r\nHost: x\r\nConnection: {connection}\r\n\r"));
    wait_for("an answer", || {
        let said = client.stdout();
        let is_over = client.ended().is_some() || said.matches("hello CN=").count() == answers;
        is_over.then_some(said)
    })
}

/// What a new connection gets, perhaps by an old session.
fn visit(nginx: &Nginx, destination: &Path, more: &[&str]) -> String {
    let mut client = Running::start(&mut tls(nginx, destination, more));
    let said = ask(&mut client, "close", 1);
    client.wait();
    said + &client.stdout()
}

#[test]
fn nginx_goes_on_with_sessions_that_it_has_kept() {
    let world = World::start();
    let (job, spared) = (world.github(), world.github());
    let [held, other] = [&job, &spared].map(|job| job.once([]).good().destination());
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    let mut sign = world.authority.command(["sign-server", "--name", "127.0.0.1"]);
    succeed(sign.arg("--out").arg(path("server")));
    refresh(&world, &path("trust"));
    let server = |sessions: &str| {
        Nginx::with_workers(|address| {
            let dir = folder.path().display();
            format!(
                "  server {{\n    listen {address} ssl;\n    ssl_certificate {dir}/server/server.crt;\n    ssl_certificate_key {dir}/server/server.key;\n    \
                 ssl_client_certificate {dir}/trust/tls_ca.crt;\n    ssl_crl {dir}/trust/tls.crl;\n    ssl_verify_client on;\n    ssl_session_tickets off;\n    \
                 ssl_session_cache {sessions};\n    keepalive_timeout 600s;\n    location / {{ return 200 \"hello $ssl_client_s_dn\\n\"; }}\n  }}\n"
            )
        })
    };
    let servers = [server("shared:s:1m"), server("off")];
    let kept = |at: usize| path(&format!("session-{at}")).display().to_string();
    let mut open: Vec<Running> = Vec::new();
    for (at, nginx) in servers.iter().enumerate() {
        assert!(visit(nginx, &held, &["-tls1_2", "-sess_out", &kept(at)]).contains("hello CN="));
        let mut client = Running::start(&mut tls(nginx, &held, &["-tls1_2"]));
        ask(&mut client, "keep-alive", 1);
        open.push(client);
    }

    // Its other certificate with it.
    let serial = manifest(&held)["outputs"][0]["serial"].as_str().unwrap().to_owned();
    succeed(&mut world.authority.command(["lock", "--serial", &serial]));
    refresh(&world, &path("trust"));
    for (at, (nginx, open)) in servers.iter().zip(&mut open).enumerate() {
        // Until it is told, an open connection goes on, and anybody gets in.
        assert_eq!(ask(open, "keep-alive", 2).matches("hello CN=").count(), 2);
        assert!(visit(nginx, &held, &["-tls1_2"]).contains("hello CN="));
        nginx.reload();
        wait_for("the list to be read", || {
            (!visit(nginx, &held, &["-tls1_2"]).contains("hello CN=")).then_some(())
        });
        assert!(visit(nginx, &other, &["-tls1_2"]).contains("hello CN="), "{}", nginx.log());
        // A reload closes connections on which nobody waits for anything.
        open.wait();
        // A session that was kept is resumed, and nobody looks at the list.
        let resumed = visit(nginx, &held, &["-tls1_2", "-sess_in", &kept(at)]);
        let is_kept = at == 0;
        assert_eq!(resumed.contains("Reused, TLSv1.2"), is_kept, "{resumed}");
        assert_eq!(resumed.contains("hello CN="), is_kept, "{resumed}");
    }
}

#[test]
fn who_comes_by_a_pool_is_the_pools_to_end() {
    let world = world_of(&["postgresql.md"], &["orders"], "");
    let postgres = Postgres::start(&world.authority);
    let folder = Folder::new(&world.authority, "postgres");
    folder.write("userlist.txt", "\"deploy\" \"\"\n\"admin\" \"\"\n");
    folder.write("hba", "local all admin trust\nhostssl all all 127.0.0.1/32 cert\n");
    let dir = folder.path("").display().to_string();
    let (address, _pool) = listening(|address| {
        let config = format!(
            "[databases]\norders = host={} port={} dbname=orders user=reporter\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {}\n\
             unix_socket_dir = {dir}\nauth_type = hba\nauth_hba_file = {dir}/hba\nauth_file = {dir}/userlist.txt\nadmin_users = admin\n\
             client_tls_sslmode = verify-full\nclient_tls_ca_file = {dir}/tls/ca.crt\nclient_tls_cert_file = {dir}/tls/server.crt\n\
             client_tls_key_file = {dir}/tls/server.key\n",
            postgres.socket().display(),
            postgres.port(),
            address.port()
        );
        let mut start = folder.command(find("pgbouncer"));
        start.arg(folder.write("pgbouncer.ini", &config));
        start
    });
    let port = address.port().to_string();
    let console = |sql: &str| {
        let mut psql = command("psql");
        succeed(psql.args(["-h", &dir, "-p", &port, "-U", "admin", "-d", "pgbouncer", "-c", sql]));
    };
    let job = world.github();
    let destination = job.once(["--output", "database,service=orders,database=orders"]).good().destination();
    let sleep = ["-c", r"\echo up", "-c", "SELECT pg_sleep(600)"];
    let by_pool = || {
        let mut psql = postgres.psql_with(&destination, "deploy", "orders");
        psql.args(["-p", &port]);
        psql
    };
    let mut pooled = begun(by_pool().args(sleep), || postgres.log());
    let mut direct = postgres.psql_with(&destination, "deploy", "orders");
    let mut direct = begun(direct.args(sleep), || postgres.log());
    let own = TempDir::new().unwrap();
    let (trust, sessions) = (own.path().join("trust"), own.path().join("sessions"));
    create_dir(&sessions).unwrap();
    set_permissions(&sessions, Permissions::from_mode(0o700)).unwrap();
    refresh(&world, &trust);
    let serial = manifest(&destination)["outputs"][0]["serial"].as_str().unwrap().to_owned();
    succeed(&mut world.authority.command(["lock", "--serial", &serial]));
    refresh(&world, &trust);
    let watch = watch(&trust, &sessions, ["--postgres", &postgres.url("admin")]);
    ends("the session of its own", &mut direct, std::time::Instant::now());
    says(&watch, &format!("serial {serial}, which is revoked"));
    // The pool's goes on, and it reads no list: whoever has a revoked certificate gets in.
    console("RECONNECT orders");
    succeed(by_pool().args(["-c", "SELECT 1"]));
    assert!(pooled.ended().is_none(), "{}", pooled.stderr());
    console("KILL orders");
    ends("the pool's", &mut pooled, std::time::Instant::now());
    console("RESUME orders");
    succeed(by_pool().args(["-c", "SELECT 1"]));
}
