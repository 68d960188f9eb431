//! The real nginx, on loopback, with its files in a temporary folder.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::Signal;
use tempfile::TempDir;

use super::port::free_port;
use super::process::{self, Running, command};
use super::{PATIENCE, wait_for};

/// An nginx that serves one site over mTLS; it ends with the value.
pub struct Nginx {
    address: SocketAddr,
    process: Running,
    _directory: TempDir,
}

impl Nginx {
    /// With a certificate from `authority sign-server` in `server`, for clients
    /// of the CAs in `ca`, less those that the list in `crl` names.
    #[track_caller]
    pub fn start(server: &Path, ca: &Path, crl: Option<&Path>) -> Self {
        let crl = crl.map_or_else(String::new, |path| format!("ssl_crl {};", path.display()));
        Self::with_site(|address| {
            format!(
                "  server {{\n    listen {address} ssl;\n    ssl_certificate {server}/server.crt;\n    ssl_certificate_key {server}/server.key;\n    \
                 ssl_client_certificate {ca};\n    ssl_verify_client on;\n    {crl}\n    location / {{ return 200 \"hello $ssl_client_s_dn\"; }}\n  }}\n",
                server = server.display(),
                ca = ca.display(),
            )
        })
    }

    /// With what `site` puts inside `http { … }` for an address.
    #[track_caller]
    pub fn with_site(site: impl FnOnce(SocketAddr) -> String) -> Self {
        Self::with("master_process off", site)
    }

    /// The same as services run it: with workers, which a reload replaces.
    #[track_caller]
    pub fn with_workers(site: impl FnOnce(SocketAddr) -> String) -> Self {
        Self::with("worker_processes 1", site)
    }

    #[track_caller]
    fn with(how: &str, site: impl FnOnce(SocketAddr) -> String) -> Self {
        let program = process::installed("nginx").then(|| find("nginx"));
        let program = program.unwrap_or_else(|| panic!("nginx is not installed; tests/run installs it"));
        let (directory, address) = (TempDir::new().unwrap(), free_port());
        let dir = directory.path().display();
        let folders: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|name| format!("  {name}_temp_path {dir}/{name};\n"))
            .collect();
        let config = format!(
            "daemon off;\n{how};\npid {dir}/pid;\nerror_log stderr info;\nevents {{}}\nhttp {{\n  access_log off;\n{folders}{}}}\n",
            site(address)
        );
        let file = directory.path().join("nginx.conf");
        std::fs::write(&file, config).unwrap();
        let mut start = command(program);
        start.arg("-e").arg("stderr").arg("-p").arg(directory.path()).arg("-c").arg(&file);
        let process = Running::listening(start.stdout(Stdio::null()).stderr(Stdio::piped()), address);
        Self { address, process, _directory: directory }
    }

    /// Has it read its files anew.
    pub fn reload(&self) {
        self.process.signal(Signal::HUP);
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `https://127.0.0.1:PORT/`.
    pub fn url(&self) -> String {
        format!("https://{}/", self.address)
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.process.stderr()
    }

    /// Waits until its log holds this.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) {
        wait_for(&format!("{text:?} in nginx's log"), || self.log().contains(text).then_some(()));
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // It takes its workers with it, which a kill would leave behind.
        self.process.signal(Signal::TERM);
        self.process.wait_at_most(PATIENCE);
    }
}

/// A program's absolute path; servers stand where `PATH` may not lead.
#[track_caller]
pub fn find(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
        .unwrap_or_else(|| panic!("{program} is not installed; tests/run installs it"))
}
