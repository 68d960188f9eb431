//! HAProxy with the file of `docs/high-availability.md`: it knows nothing of what
//! passes, and asks each authority whether it is ready.

use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;

use tempfile::TempDir;

use super::nginx::find;
use super::port::free_port;
use super::process::{Running, command};
use super::{page, wait_for};

/// It ends with the value.
pub struct Balancer {
    address: SocketAddr,
    _process: Running,
    _folder: TempDir,
}

impl Balancer {
    /// One before these.
    #[track_caller]
    pub fn before(servers: [SocketAddr; 3]) -> Self {
        let (folder, address) = (TempDir::new().unwrap(), free_port());
        let text = page::file("../high-availability.md", "haproxy.cfg")
            .replace("bind :443", &format!("bind {address}"))
            // The tests have less time.
            .replace("inter 2s", "inter 200ms");
        let text = (1..).zip(servers).fold(text, |text, (number, server)| {
            text.replace(&format!(" id-{number}.example.com:443"), &format!(" {server}"))
        });
        let file = folder.path().join("haproxy.cfg");
        std::fs::write(&file, text).unwrap();
        let mut haproxy = command(find("haproxy"));
        let process = Running::start(haproxy.arg("-db").arg("-f").arg(file).stderr(Stdio::piped()));
        wait_for("HAProxy", || TcpStream::connect(address).ok());
        Self { address, _process: process, _folder: folder }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
