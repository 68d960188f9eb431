//! A real PostgreSQL for tests: Debian's, or another that is on the path.
//!
//! It ends with the process, also where that is killed: a shell waits at its
//! standard input, which is then closed. What unit tests alone do with it is in
//! `conformance/postgres.rs`, and what befalls one in `tests/support/cluster.rs`.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::port::free_port;

/// The database's owner, who comes through the socket without a password.
pub(crate) const ADMIN: &str = "admin";

/// Who ends the server, and takes its folder away: another process than the first by now where it was started again,
/// and it may be paused; a test may have put a disk of its own under it.
const WATCH: &str = r#"dir=$1; shift
("$@" </dev/null >"$dir/log" 2>&1 & echo $! >"$dir/pid"; wait) &
read -r _
exec 2>/dev/null
for file in "$dir/pid" "$dir/data/postmaster.pid"; do
    read -r pid <"$file" && grep -qF "$dir" "/proc/$pid/cmdline" || continue
    kill -QUIT "$pid"; kill -TERM "$pid"; kill -CONT "$pid" $(ps -o pid= --ppid "$pid")
    tries=300
    while [ $tries -gt 0 ] && kill -0 "$pid"; do tries=$((tries - 1)); sleep 0.02; done
done
umount -l "$dir/data"
rm -rf "$dir""#;

/// A server on a socket and a port of loopback.
#[derive(Debug)]
pub(crate) struct Server {
    folder: PathBuf,
    port: u16,
    _process: Watched,
}

/// A process that ends with this, and with the test process; its folder goes with it.
#[derive(Debug)]
pub(crate) struct Watched(Child);

impl Server {
    /// One with these lines in `postgresql.conf`, this `pg_hba.conf`, and what `prepare` puts into its folder.
    pub(crate) fn start(conf: &str, hba: &str, prepare: impl FnOnce(&Path)) -> Self {
        let folder = folder();
        succeed(Command::new("cp").arg("-a").arg(template()).arg(folder.join("data")));
        std::fs::write(folder.join("data/pg_hba.conf"), hba).unwrap();
        prepare(&folder);
        Self::run(folder, conf)
    }

    /// A standby that follows this server.
    pub(crate) fn standby(&self, conf: &str, prepare: impl FnOnce(&Path)) -> Self {
        let folder = folder();
        let mut backup = as_user("pg_basebackup");
        backup.args(["-R", "-X", "stream", "-c", "fast", "--no-sync", "-U", ADMIN, "-h"]).arg(&self.folder);
        succeed(backup.args(["-p", &self.port.to_string(), "-D"]).arg(folder.join("data")));
        prepare(&folder);
        Self::run(folder, conf)
    }

    fn run(folder: PathBuf, conf: &str) -> Self {
        let port = free_port().port();
        let common = format!(
            "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{}'\nfsync = off\n\
             shared_buffers = 16MB\nautovacuum = off\nlog_min_messages = warning\n",
            folder.display()
        );
        std::fs::write(folder.join("data/postgresql.conf"), format!("{common}{conf}")).unwrap();
        give_away(&folder);
        let mut postgres = as_user("postgres");
        let process = Watched::start(&folder, postgres.arg("-D").arg(folder.join("data")));
        let server = Self { folder, port, _process: process };
        let end = Instant::now() + Duration::from_secs(30);
        while !server.answers() {
            let said = || std::fs::read_to_string(server.folder.join("log")).unwrap_or_default();
            assert!(Instant::now() < end, "PostgreSQL does not start: {}", said());
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    /// Where its socket is, and its data in `data`.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its port, of the socket too.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What `psql` prints of this, as the owner.
    pub(crate) fn sql(&self, database: &str, sql: &str) -> String {
        let mut psql = Command::new(bin("psql"));
        psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-U", ADMIN, "-d", database, "-h"]).arg(&self.folder);
        succeed(psql.args(["-p", &self.port.to_string(), "-c", sql]))
    }

    /// `pg_ctl` with this, such as `restart -m immediate`.
    pub(crate) fn ctl(&self, command: &str) {
        let mut ctl = as_user("pg_ctl");
        ctl.args(command.split(' ')).args(["-s", "-w", "-D"]).arg(self.folder.join("data"));
        succeed(ctl.arg("-l").arg(self.folder.join("data/log")).stdout(Stdio::null()));
    }

    /// Stops everything that it does, or lets that go on.
    pub(crate) fn pause(&self, is_paused: bool) {
        let (pid, children) = (self.pid(), self.children());
        let signal = if is_paused { "-STOP" } else { "-CONT" };
        // First whoever could start another.
        for pid in std::iter::once(&*pid).chain(children.split_whitespace()) {
            signal_to(pid, signal);
        }
    }

    /// Whether it takes connections.
    pub(crate) fn answers(&self) -> bool {
        let mut asked = Command::new(bin("pg_isready"));
        asked.args(["-q", "-p", &self.port.to_string(), "-h"]).arg(&self.folder);
        asked.status().unwrap().success()
    }

    /// The processes that it has started.
    pub(crate) fn children(&self) -> String {
        let listed = Command::new("ps").args(["-o", "pid=", "--ppid", &self.pid()]).output();
        String::from_utf8(listed.unwrap().stdout).unwrap()
    }

    /// The number of its first process.
    pub(crate) fn pid(&self) -> String {
        let file = std::fs::read_to_string(self.folder.join("data/postmaster.pid")).unwrap();
        file.lines().next().unwrap().to_owned()
    }
}

/// One that has ended meanwhile does not matter.
pub(crate) fn signal_to(pid: &str, signal: &str) {
    Command::new("kill").args([signal, pid]).stderr(Stdio::null()).status().unwrap();
}

impl Watched {
    /// Starts a command, whose output goes into `log` in its folder.
    pub(crate) fn start(folder: &Path, command: &Command) -> Self {
        let mut watch = Command::new("sh");
        watch.args(["-c", WATCH, "sh"]).arg(folder).arg(command.get_program()).args(command.get_args());
        Self(watch.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// A database directory as `initdb` makes it, once for all test processes: a second of work.
fn template() -> PathBuf {
    let version = succeed(Command::new(bin("postgres")).arg("--version"));
    let version: String = version.chars().filter(char::is_ascii_digit).collect();
    let built = std::env::current_exe().unwrap();
    let template = built.parent().unwrap().join(format!("postgresql-{version}"));
    if !template.is_dir() {
        let folder = folder();
        let mut initdb = as_user("initdb");
        initdb.args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", "-U", ADMIN, "-D"]);
        succeed(initdb.arg(folder.join("data")));
        // Tests begin together, as threads or as processes.
        let begun = template.with_extension(folder.file_name().unwrap());
        succeed(Command::new("cp").arg("-a").arg(folder.join("data")).arg(&begun));
        // Where another process was faster, its own is as good.
        if std::fs::rename(&begun, &template).is_err() {
            std::fs::remove_dir_all(begun).unwrap();
        }
        std::fs::remove_dir_all(folder).unwrap();
    }
    template
}

/// A new folder of the server's user.
pub(crate) fn folder() -> PathBuf {
    let folder = tempfile::Builder::new().prefix("machine-id-pg").tempdir().unwrap().keep();
    give_away(&folder);
    folder
}

/// Everything there becomes the server's user's.
pub(crate) fn give_away(folder: &Path) {
    if rustix::process::geteuid().is_root() {
        succeed(Command::new("chown").arg("-R").arg("postgres:").arg(folder));
    }
}

/// A program of the server's, as its user: it refuses to be root's.
pub(crate) fn as_user(program: &str) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(bin(program));
    }
    let group = succeed(Command::new("id").args(["-g", "postgres"]));
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "postgres", "--regid", group.trim(), "--clear-groups", "--"]).arg(bin(program));
    command.current_dir("/");
    command
}

/// Debian keeps the servers of each version apart.
fn bin(program: &str) -> PathBuf {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin").join(program))
        .filter(|path| path.is_file())
        .collect();
    versions.sort();
    versions.pop().unwrap_or_else(|| program.into())
}

/// Runs what must succeed; what it prints.
#[track_caller]
pub(crate) fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}
