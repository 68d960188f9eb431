//! The real MariaDB, on loopback, as its page configures it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::authority::Authority;
use super::nginx::find;
use super::page;
use super::process::{self, Running, command};
use super::servers::{Folder, listening};

/// A MariaDB with a database `orders` and the accounts of the page.
pub struct Mariadb {
    port: u16,
    process: Running,
    folder: Folder,
}

impl Mariadb {
    /// One that believes this authority.
    #[track_caller]
    pub fn start(authority: &Authority) -> Self {
        let folder = Folder::new(authority, "mysql");
        let data = folder.path("data");
        let mut install = folder.command(find("mariadb-install-db"));
        install.args(["--no-defaults", "--skip-test-db", "--auth-root-authentication-method=normal"]);
        process::succeed(install.arg(format!("--datadir={}", data.display())).stdout(Stdio::null()));
        // One statement a line, as `--init-file` wants them.
        let accounts = page::file("mariadb.md", "accounts.sql");
        let accounts = folder.write("accounts.sql", &format!("CREATE DATABASE orders;\n{accounts}"));
        let config = page::file_in("mariadb.md", "mariadb.cnf", &folder.tls());
        let config = folder.write("mariadb.cnf", &config);
        let (address, process) = listening(|address| {
            let mut start = folder.command(find("mariadbd"));
            start.arg(format!("--defaults-file={}", config.display()));
            start.arg(format!("--datadir={}", data.display()));
            start.arg(format!("--socket={}", folder.path("socket").display()));
            start.arg(format!("--pid-file={}", folder.path("pid").display()));
            start.arg(format!("--init-file={}", accounts.display()));
            start.args(["--bind-address=127.0.0.1", "--skip-name-resolve"]);
            start.arg(format!("--port={}", address.port()));
            start
        });
        Self { port: address.port(), process, folder }
    }

    /// The client with the files of a destination, as this user.
    pub fn client(&self, destination: &Path, user: &str) -> Command {
        let mut client = command("mariadb");
        client.args(["--no-defaults", "--protocol=tcp", "--host=localhost", "--user", user, "--port"]);
        client.arg(self.port.to_string()).arg("--ssl-verify-server-cert").arg("--ssl-ca");
        client.arg(destination.join("ca.crt")).arg("--ssl-cert").arg(destination.join("tls.crt"));
        client.arg("--ssl-key").arg(destination.join("tls.key"));
        client.args(["--batch", "--skip-column-names", "--execute=SELECT current_user()", "orders"]);
        client
    }

    /// Its files.
    pub fn tls(&self) -> PathBuf {
        self.folder.tls()
    }

    /// Where its socket is.
    pub fn socket(&self) -> PathBuf {
        self.folder.path("socket")
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.process.stderr()
    }
}
