//! The real Redis, on loopback, as its page configures it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;

use super::PATIENCE;
use super::authority::Authority;
use super::nginx::find;
use super::page;
use super::process::{Running, command};
use super::servers::{Folder, listening};

/// A Redis over mTLS.
pub struct Redis {
    address: SocketAddr,
    process: Running,
    folder: Folder,
}

impl Redis {
    /// One that believes this authority.
    #[track_caller]
    pub fn start(authority: &Authority) -> Self {
        let folder = Folder::new(authority, "redis");
        let text = page::file_in("redis.md", "redis.conf", &folder.tls());
        let (address, process) = listening(|address| {
            let port = format!("tls-port {}", address.port());
            assert!(text.contains("tls-port 6379"));
            let dir = folder.path("").display().to_string();
            let config = folder.write(
                "redis.conf",
                &format!("{}bind 127.0.0.1\ndir {dir}\nsave \"\"\n", text.replace("tls-port 6379", &port)),
            );
            let mut start = folder.command(find("redis-server"));
            start.arg(config);
            start
        });
        Self { address, process, folder }
    }

    /// Its files.
    pub fn tls(&self) -> PathBuf {
        self.folder.tls()
    }

    /// As its service is restarted.
    #[track_caller]
    pub fn restart(&mut self) {
        self.process.signal(Signal::TERM);
        assert!(self.process.wait_at_most(PATIENCE).is_some(), "{}", self.log());
        let mut start = self.folder.command(find("redis-server"));
        start.arg(self.folder.path("redis.conf")).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.process = Running::listening(&mut start, self.address);
    }

    /// `redis-cli` with the CA of a destination, and its certificate unless it is to have none.
    pub fn client(&self, destination: &Path, certificate: bool) -> Command {
        let mut client = command("redis-cli");
        client.args(["--tls", "-h", "localhost", "-p", &self.address.port().to_string(), "--cacert"]);
        client.arg(destination.join("ca.crt"));
        if certificate {
            client.arg("--cert").arg(destination.join("tls.crt"));
            client.arg("--key").arg(destination.join("tls.key"));
        }
        client
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.process.stdout()
    }
}
