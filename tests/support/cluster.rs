//! A real PostgreSQL for authorities to share: TLS, roles with passwords, a
//! synchronous standby, PgBouncer, and everything that can happen to one.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use super::nginx::find;
use super::port::{self, free_port};
use super::process::{self, command};
use super::{disk, page, wait_for};

#[path = "../../src/authority/store/testing.rs"]
mod server;

use server::{Server, Watched, as_user, signal_to, succeed};

/// The database of a store.
pub const DATABASE: &str = "authority";
/// What it takes for a commit to be on the disk.
const DURABLE: &str = "fsync = on\nfull_page_writes = on\n";
const TLS: &str = "ssl = on\nssl_cert_file = 'server.crt'\nssl_key_file = 'server.key'\n";
/// So little is kept that a small disk fills soon.
const SMALL: &str = "min_wal_size = 32MB\nmax_wal_size = 32MB\n";
/// The socket is where nobody else gets in.
const LOCAL: &str = "local all admin trust\nlocal replication admin trust\n";
const HBA: &str = "host all all 127.0.0.1/32 scram-sha-256\n";
const STANDBY: &str = "standby";

/// The roles that a store has in its database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Upgrades the schema.
    Owner,
    /// An authority that serves.
    Server,
    /// Who reads the trail.
    Reader,
}

impl Role {
    /// Its name in the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Owner => "machine_id_owner",
            Self::Server => "machine_id_server",
            Self::Reader => "machine_id_reader",
        }
    }

    /// Its password.
    pub fn password(self) -> String {
        format!("password-of-{}", self.name())
    }
}

/// The server that takes writes, and perhaps a standby; they end with the value, and with its process.
pub struct Cluster {
    primary: Server,
    standby: Option<Server>,
    authority: Authority,
}

/// Who signed the servers' certificates.
struct Authority {
    folder: TempDir,
    certificate: String,
    key: String,
}

impl Cluster {
    /// One server, with the roles and an empty database.
    #[track_caller]
    pub fn start() -> Self {
        Self::with("", |_| ())
    }

    /// The same on a disk of so many MiB; an empty one needs 60.
    #[track_caller]
    pub fn on_small_disk(mib: u32) -> Self {
        Self::with(SMALL, |folder| {
            let (data, aside) = (folder.join("data"), folder.join("aside"));
            std::fs::rename(&data, &aside).unwrap();
            std::fs::create_dir(&data).unwrap();
            disk::mount(&data, mib);
            process::succeed(command("cp").arg("-a").arg(aside.join(".")).arg(&data));
            std::fs::remove_dir_all(aside).unwrap();
        })
    }

    /// The same, followed by a standby that each commit waits for.
    #[track_caller]
    pub fn with_standby() -> Self {
        let mut cluster = Self::start();
        cluster.follow();
        cluster.make_synchronous();
        cluster
    }

    /// One server and a standby, which no commit waits for, as they are before anything was done for authorities:
    /// without roles and database, and nobody is let in.
    #[track_caller]
    pub fn bare() -> Self {
        let mut cluster = Self::server("", "", |_| ());
        cluster.follow();
        cluster
    }

    fn follow(&mut self) {
        let conf = format!("{DURABLE}{TLS}cluster_name = '{STANDBY}'\n");
        self.standby = Some(self.primary.standby(&conf, |_| ()));
    }

    fn server(conf: &str, hba: &str, prepare: impl FnOnce(&Path)) -> Self {
        let authority = Authority::new();
        let conf = format!("{DURABLE}{TLS}{conf}");
        let primary = Server::start(&conf, &format!("{LOCAL}{hba}"), |folder| {
            authority.certify(&folder.join("data"));
            prepare(folder);
        });
        Self { primary, standby: None, authority }
    }

    fn with(conf: &str, prepare: impl FnOnce(&Path)) -> Self {
        let cluster = Self::server(conf, HBA, prepare);
        for role in [Role::Owner, Role::Server, Role::Reader] {
            cluster.sql_in(
                "postgres",
                &format!("CREATE ROLE {} LOGIN PASSWORD '{}'", role.name(), role.password()),
            );
        }
        cluster.sql_in("postgres", &format!("CREATE DATABASE {DATABASE} OWNER {}", Role::Owner.name()));
        cluster
    }

    /// From now on each commit waits for the standby.
    #[track_caller]
    fn make_synchronous(&self) {
        self.sql_in("postgres", &format!("ALTER SYSTEM SET synchronous_standby_names = '{STANDBY}'"));
        self.sql_in("postgres", "SELECT pg_reload_conf()");
        self.wait_for_standby();
    }

    /// Waits until commits wait for the standby.
    #[track_caller]
    pub fn wait_for_standby(&self) {
        wait_for("the standby", || {
            let state = self.sql_in("postgres", "SELECT sync_state FROM pg_stat_replication");
            ["sync", "quorum"].contains(&state.trim()).then_some(())
        });
    }

    /// What each server's `pg_hba.conf` has beside what the test itself needs, once it is read again.
    pub fn let_in(&self, hba: &str) {
        for server in self.servers() {
            std::fs::write(server.folder().join("data/pg_hba.conf"), format!("{LOCAL}{hba}")).unwrap();
        }
    }

    /// Of each server, the variables by which `psql` is the administrator there.
    pub fn administrators(&self) -> Vec<[(&'static str, String); 4]> {
        let of = |server: &Server| {
            let (folder, port) = (server.folder().display().to_string(), server.port().to_string());
            let (user, database) = (server::ADMIN.to_owned(), "postgres".to_owned());
            [("PGHOST", folder), ("PGPORT", port), ("PGUSER", user), ("PGDATABASE", database)]
        };
        self.servers().map(of).collect()
    }

    fn servers(&self) -> impl Iterator<Item = &Server> {
        std::iter::once(&self.primary).chain(&self.standby)
    }

    /// The certificate of the CA that signed theirs.
    pub fn ca_file(&self) -> PathBuf {
        self.authority.file()
    }

    /// From now on no commit waits for the standby, which may be behind.
    pub fn make_asynchronous(&self) {
        self.sql_in("postgres", "ALTER SYSTEM SET synchronous_standby_names = ''");
        self.sql_in("postgres", "SELECT pg_reload_conf()");
        wait_for("no standby", || self.sql("SHOW synchronous_standby_names").trim().is_empty().then_some(()));
    }

    /// The standby gets nothing more of what is committed.
    pub fn leave_standby_behind(&self) {
        let standby = self.standby.as_ref().expect("a standby");
        standby.sql("postgres", "ALTER SYSTEM SET primary_conninfo = ''");
        standby.sql("postgres", "SELECT pg_reload_conf()");
        wait_for("that nobody follows", || {
            (self.sql("SELECT count(*) FROM pg_stat_replication").trim() == "0").then_some(())
        });
    }

    /// Where the servers listen, the one that took writes at first before the other.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.servers().map(|server| SocketAddr::from((Ipv4Addr::LOCALHOST, server.port()))).collect()
    }

    /// The URL of the store for a role, with TLS as a company has it.
    pub fn url(&self, role: Role) -> String {
        self.url_through(role, &self.addresses())
    }

    /// The same by way of what stands before the servers, and ends TLS itself.
    pub fn url_through(&self, role: Role, addresses: &[SocketAddr]) -> String {
        let roots = self.authority.file();
        self.url_by(role, addresses, &format!("sslmode=verify-full&sslrootcert={}", roots.display()))
    }

    /// The same by way of what stands before the servers, without TLS.
    pub fn plain_url(&self, role: Role, addresses: &[SocketAddr]) -> String {
        self.url_by(role, addresses, "sslmode=disable")
    }

    fn url_by(&self, role: Role, addresses: &[SocketAddr], more: &str) -> String {
        let hosts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        format!("postgres://{}:{}@{}/{DATABASE}?{more}", role.name(), role.password(), hosts.join(","))
    }

    /// What `psql` prints of this in the store's database, as the administrator.
    #[track_caller]
    pub fn sql(&self, sql: &str) -> String {
        self.sql_in(DATABASE, sql)
    }

    fn sql_in(&self, database: &str, sql: &str) -> String {
        self.primary.sql(database, sql)
    }

    /// `psql` as this role, with its password and TLS, to run this.
    pub fn psql(&self, role: Role, sql: &str) -> Command {
        let mut psql = command("psql");
        psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", &self.url(role), "-c", sql]);
        psql
    }

    /// Stops everything that the server does, connections and all, without closing them.
    pub fn pause(&self) {
        self.primary.pause(true);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.primary.pause(false);
    }

    /// The same with the standby.
    pub fn pause_standby(&self, is_paused: bool) {
        self.standby.as_ref().expect("a standby").pause(is_paused);
    }

    /// Restarts it; `mode` is `fast` or `immediate`, which is a crash.
    pub fn restart(&self, mode: &str) {
        self.primary.ctl(&format!("stop -m {mode}"));
        self.primary.start_again();
    }

    /// `kill -9` of the server.
    pub fn kill(&self) {
        self.primary.kill();
    }

    /// Starts it again, where it has ended.
    pub fn start_again(&self) {
        self.primary.start_again();
    }

    /// Keeps the server to this core.
    #[allow(dead_code, reason = "for benchmarks")]
    pub fn pin(&self, core: &str) {
        self.primary.pin(core);
    }

    /// Whether it answers.
    pub fn is_up(&self) -> bool {
        self.primary.answers()
    }

    /// The standby takes the place of the server, which is gone for good.
    #[track_caller]
    pub fn fail_over(&mut self) {
        self.primary.kill();
        let standby = self.standby.take().expect("a standby");
        standby.ctl("promote");
        // Kept, so that its port is nobody else's: it answers no more.
        self.standby = Some(std::mem::replace(&mut self.primary, standby));
    }

    /// Takes all the room that there is on a disk of its own; removing the file gives it back.
    #[track_caller]
    pub fn fill_disk(&self) -> PathBuf {
        disk::fill(&self.primary.folder().join("data/filler"))
    }

    /// PgBouncer before the server, with the file of `docs/high-availability.md`.
    #[track_caller]
    pub fn bouncer(&self) -> Bouncer {
        Bouncer::start(self)
    }
}

/// What befalls one.
impl Server {
    /// Keeps it, and whatever it starts, to this core.
    #[allow(dead_code, reason = "for benchmarks")]
    fn pin(&self, core: &str) {
        for pid in std::iter::once(&*self.pid()).chain(self.children().split_whitespace()) {
            succeed(command("taskset").args(["-a", "-c", "-p", core, pid]));
        }
    }

    /// `kill -9`, as a machine does it that has no memory left; what it started has ended afterwards.
    fn kill(&self) {
        let children = self.children();
        signal_to(&self.pid(), "-KILL");
        let end = Instant::now() + Duration::from_secs(30);
        for child in children.split_whitespace() {
            let left = PathBuf::from(format!("/proc/{child}"));
            while left.exists() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// Starts it again, once it has ended.
    fn start_again(&self) {
        let log = std::fs::File::options().append(true).open(self.folder().join("log")).unwrap();
        let mut postgres = as_user("postgres");
        postgres.arg("-D").arg(self.folder().join("data")).stdin(Stdio::null());
        let mut child = postgres.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        // One that nobody waits for would seem to be there after its end.
        std::thread::spawn(move || child.wait());
        let end = Instant::now() + Duration::from_secs(30);
        while !self.answers() {
            let log = || std::fs::read_to_string(self.folder().join("log")).unwrap();
            assert!(Instant::now() < end, "PostgreSQL does not start again: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A pool of connections that changes server connections between transactions; it ends with the value.
pub struct Bouncer {
    address: SocketAddr,
    _process: Watched,
}

impl Bouncer {
    #[track_caller]
    fn start(cluster: &Cluster) -> Self {
        let folder = server::folder();
        let page = |name| page::file("../high-availability.md", name);
        let administrator = cluster.administrators().swap_remove(0);
        let users = page("userlist").replace("sudo -u postgres ", "");
        let users = process::succeed(command("sh").args(["-euc", &users]).envs(administrator));
        std::fs::write(folder.join("userlist.txt"), users).unwrap();
        cluster.authority.certify(&folder);
        let address = free_port();
        let config = [
            ("machine_id =", format!("{DATABASE} =")),
            ("port=5432", format!("port={}", cluster.primary.port())),
            ("listen_addr = *", "listen_addr = 127.0.0.1\nunix_socket_dir =".to_owned()),
            ("6432", address.port().to_string()),
            ("/etc/pgbouncer", folder.display().to_string()),
        ];
        let config =
            config.iter().fold(page("pgbouncer.ini"), |text, (theirs, ours)| text.replace(theirs, ours));
        // So few that transactions of one client are on several of them.
        let config = config + "default_pool_size = 4\n";
        std::fs::write(folder.join("pgbouncer.ini"), config).unwrap();
        server::give_away(&folder);
        // It refuses to be root.
        let mut bouncer = server::as_user(find("pgbouncer").to_str().unwrap());
        let process = Watched::start(&folder, bouncer.arg(folder.join("pgbouncer.ini")));
        wait_for("PgBouncer", || TcpStream::connect(address).ok());
        Self { address, _process: process }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Authority {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let (params, key) = (Self::params(), KeyPair::generate().unwrap());
        let certificate = params.self_signed(&key).unwrap().pem();
        std::fs::write(folder.path().join("ca.crt"), &certificate).unwrap();
        // libpq reads it as another user in some tests.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder, certificate, key: key.serialize_pem() }
    }

    fn params() -> CertificateParams {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // OpenSSL takes a certificate for self-signed whose subject is its issuer's.
        params.distinguished_name.push(DnType::CommonName, "test database CA");
        params
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    /// A server's certificate and key, in its data directory.
    fn certify(&self, data: &Path) {
        let issuer = rcgen::Issuer::new(Self::params(), KeyPair::from_pem(&self.key).unwrap());
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(names.to_vec()).unwrap().signed_by(&key, &issuer).unwrap();
        std::fs::write(data.join("server.crt"), leaf.pem() + &self.certificate).unwrap();
        let file = data.join("server.key");
        std::fs::write(&file, key.serialize_pem()).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
}
