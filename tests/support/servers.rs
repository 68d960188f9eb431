//! What the tests' servers share: a folder with a server certificate, and a
//! user who is not root, which PostgreSQL and MariaDB refuse to be.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::authority::Authority;
use super::nginx::find;
use super::once::World;
use super::page;
use super::port::free_port;
use super::process::{self, Running, command};
use super::repository;

/// A world whose bot has the roles of these pages besides its own.
#[track_caller]
pub fn world_of(pages: &[&str], roles: &[&str], more: &str) -> World {
    assert!(repository("docs/resources").is_dir());
    World::with_policy(|policy| {
        let policy = policy.replace("roles: [deploy]", &format!("roles: [deploy, {}]", roles.join(", ")));
        let pages: String =
            pages.iter().map(|page| format!("---\n{}", page::file(page, "policy.yaml"))).collect();
        format!("{policy}{pages}{more}")
    })
}

/// A folder that a server runs in, with `server.key`, `server.crt` and `ca.crt`.
pub struct Folder {
    directory: TempDir,
    user: Option<String>,
}

impl Folder {
    /// For a server that runs as this user where the tests run as root.
    #[track_caller]
    pub fn new(authority: &Authority, user: &str) -> Self {
        let directory = TempDir::new().unwrap();
        process::succeed(
            authority
                .command(["sign-server", "--name", "localhost", "--name", "127.0.0.1"])
                .arg("--out")
                .arg(directory.path().join("tls")),
        );
        let known = process::run(command("id").arg("-u").arg(user)).status.success();
        let user =
            rustix::process::geteuid().is_root().then(|| if known { user } else { "nobody" }.to_owned());
        let folder = Self { directory, user };
        folder.give_away();
        folder
    }

    /// Where the certificate is.
    pub fn tls(&self) -> PathBuf {
        self.path("tls")
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file, for the server to read.
    #[track_caller]
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        self.give_away();
        path
    }

    /// Has a new certificate, in the place of the other.
    #[track_caller]
    pub fn certify_anew(&self, authority: &Authority) {
        let mut sign = authority.command(["sign-server", "--name", "localhost", "--name", "127.0.0.1"]);
        process::succeed(sign.arg("--out").arg(self.path("new")));
        for name in ["server.crt", "server.key"] {
            std::fs::rename(self.path("new").join(name), self.tls().join(name)).unwrap();
        }
        self.give_away();
    }

    fn give_away(&self) {
        if let Some(user) = &self.user {
            process::succeed(command("chown").arg("-R").arg(format!("{user}:")).arg(self.directory.path()));
        }
    }

    /// A command of the server's user.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let Some(user) = &self.user else { return command(program.as_ref()) };
        let mut command = command(find("setpriv"));
        command.args(["--reuid", user, "--regid"]);
        // The group of that name need not be: its own is.
        let group = process::succeed(process::command("id").arg("-g").arg(user));
        command.arg(group.trim()).arg("--clear-groups").arg("--").arg(program.as_ref());
        command.current_dir(self.directory.path()).env("HOME", self.directory.path());
        command
    }
}

/// Starts a server on a free port; `start` makes its command.
#[track_caller]
pub fn listening(start: impl FnOnce(SocketAddr) -> Command) -> (SocketAddr, Running) {
    let address = free_port();
    let mut command = start(address);
    (address, Running::listening(command.stdout(Stdio::piped()).stderr(Stdio::piped()), address))
}
