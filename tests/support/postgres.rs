//! The real PostgreSQL, on loopback, as its page configures it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::authority::Authority;
use super::page;
use super::process::{self, Running, command};
use super::servers::{Folder, listening};
use super::wait_for;

/// A PostgreSQL with a database `orders` and the users `deploy`, `reporter` and `other`.
pub struct Postgres {
    port: u16,
    process: Running,
    folder: Folder,
}

impl Postgres {
    /// One that believes this authority.
    #[track_caller]
    pub fn start(authority: &Authority) -> Self {
        Self::with(authority, "")
    }

    /// The same, with these lines in its `postgresql.conf`.
    #[track_caller]
    pub fn with(authority: &Authority, lines: &str) -> Self {
        let folder = Folder::new(authority, "postgres");
        let data = folder.path("data");
        let mut initdb = folder.command(bin("initdb"));
        initdb.args(["--no-sync", "--auth=trust", "--username=admin", "--encoding=UTF8", "--locale=C", "-D"]);
        process::succeed(initdb.arg(&data));
        let config = page::file_in("postgresql.md", "postgresql.conf", &folder.tls());
        folder.write(
            "data/postgresql.conf",
            &format!(
                "{config}{lines}fsync = off\nunix_socket_directories = '{}'\n",
                folder.path("").display()
            ),
        );
        // The administrator comes through the socket, which nobody else reaches.
        folder.write(
            "data/pg_hba.conf",
            &format!("local all admin,reporter trust\n{}", page::file("postgresql.md", "pg_hba.conf")),
        );
        let (address, process) = listening(|address| {
            let mut start = folder.command(bin("postgres"));
            start.arg("-D").arg(&data).args(["-h", "127.0.0.1", "-p", &address.port().to_string()]);
            start
        });
        let admin = |database: &str, sql: &str| {
            let mut psql = folder.command("psql");
            psql.args(["-h", folder.path("").to_str().unwrap(), "-p", &address.port().to_string()]);
            psql.args(["-U", "admin", "-d", database, "-v", "ON_ERROR_STOP=1", "-c", sql]);
            psql.stdout(Stdio::null());
            psql
        };
        wait_for("PostgreSQL to be ready", || {
            process::run(&mut admin("postgres", "SELECT 1")).status.success().then_some(())
        });
        process::succeed(&mut admin("postgres", "CREATE DATABASE orders"));
        process::succeed(&mut admin(
            "orders",
            "CREATE TABLE t(x int); CREATE USER deploy; CREATE USER reporter; CREATE USER other; GRANT SELECT ON t TO deploy",
        ));
        Self { port: address.port(), process, folder }
    }

    /// Has a new certificate, and reads it.
    #[track_caller]
    pub fn certify_anew(&self, authority: &Authority) {
        self.folder.certify_anew(authority);
        self.process.signal(rustix::process::Signal::HUP);
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Its port.
    pub fn port(&self) -> String {
        self.port.to_string()
    }

    /// `psql` with the environment that it is given, to run this.
    pub fn psql(&self, sql: &str) -> Vec<String> {
        ["psql", "-h", "localhost", "-p", &self.port(), "-At", "-c", sql].map(str::to_owned).to_vec()
    }

    /// The same with the files of a destination, as this user.
    pub fn psql_with(&self, destination: &Path, user: &str, database: &str) -> Command {
        let mut psql = command("psql");
        psql.args(self.psql("SELECT current_user")[1..].iter()).args(["-U", user, "-d", database]);
        psql.env("PGSSLMODE", "verify-full");
        for (variable, file) in
            [("PGSSLCERT", "tls.crt"), ("PGSSLKEY", "tls.key"), ("PGSSLROOTCERT", "ca.crt")]
        {
            psql.env(variable, destination.join(file));
        }
        psql
    }

    /// Its files.
    pub fn tls(&self) -> PathBuf {
        self.folder.tls()
    }

    /// Where its socket is.
    pub fn socket(&self) -> PathBuf {
        self.folder.path("")
    }

    /// By which one of its users comes through its socket.
    pub fn url(&self, user: &str) -> String {
        format!("postgres:///orders?user={user}&host={}&port={}", self.folder.path("").display(), self.port)
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.process.stderr()
    }
}

/// Debian keeps the servers of each version apart.
fn bin(program: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    versions
        .map(|version| version.path().join("bin").join(program))
        .find(|path| path.is_file())
        .unwrap_or_else(|| super::nginx::find(program))
}
