//! Real `sshd`s whose hosts have labels, configured as `docs/resources/ssh.md`
//! says, with what `machine-id host refresh` fetched; and a job that logs in.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use super::authority::{Authority, Builder};
use super::issuer::Issuer;
use super::port::free_port;
use super::process::{self, Running, command};
use super::{policies, repository};

/// The user that `sshd` lets in: whoever runs the tests.
pub fn login() -> String {
    process::succeed(command("id").arg("-un")).trim().to_owned()
}

/// An issuer, an authority, and a role `deploy` for [`login`] with these lines.
pub struct Estate {
    /// The platform.
    pub issuer: Issuer,
    /// The authority.
    pub authority: Authority,
    folder: TempDir,
}

impl Estate {
    /// With `allow.node_labels` and `options` of the role, as flow mappings of YAML.
    #[track_caller]
    pub fn start(labels: &str, options: &str) -> Self {
        Self::with(labels, options, |builder| builder)
    }

    /// The same with more of its authority.
    #[track_caller]
    pub fn with(labels: &str, options: &str, more: impl FnOnce(Builder) -> Builder) -> Self {
        let issuer = Issuer::start();
        let builder = Authority::with_policy(&policy(&issuer, labels, options)).issuer(&issuer);
        let authority = more(builder).start();
        Self { issuer, authority, folder: TempDir::new().unwrap() }
    }

    /// `machine-id once ARGS` in a GitHub job that has a folder `NAME` to write to.
    pub fn once<const N: usize>(&self, name: &str, args: [&str; N]) -> Command {
        let mut once = process::machine_id(["once", "--join-method", "github", "--token", "github-deploy"]);
        once.args(["--authority", &self.authority.url()]).arg("--ca-file").arg(self.authority.ca_file());
        once.arg("--destination").arg(self.path(name)).args(args);
        once.env("XDG_RUNTIME_DIR", self.folder.path()).envs(self.issuer.github_environment());
        once
    }

    /// A destination with certificates.
    #[track_caller]
    pub fn certificates(&self, name: &str) -> PathBuf {
        process::succeed(&mut self.once(name, ["--output", "ssh"]));
        self.path(name)
    }

    /// A path in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `machine-id host refresh` into a folder.
    pub fn refresh(&self, into: &Path) -> Command {
        self.host("refresh", into)
    }

    /// `machine-id host WHAT` for a folder.
    pub fn host(&self, what: &str, into: &Path) -> Command {
        let mut host = process::machine_id(["host", what, "--authority", &self.authority.url(), "--dir"]);
        host.arg(into).arg("--ca-file").arg(self.authority.ca_file());
        host
    }
}

fn policy(issuer: &Issuer, labels: &str, options: &str) -> String {
    policies::basic(issuer)
        .replace("values: [ubuntu]", &format!("values: ['{}']", login()))
        .replace("node_labels: {'*': '*'}", &format!("node_labels: {labels}"))
        .replace("options: {max_session_ttl: 2h}", &format!("options: {options}"))
}

/// An `sshd` on a host with labels; it ends with the value.
pub struct LabelledSshd {
    address: SocketAddr,
    process: Running,
    /// Its files; `trust` is what `host refresh` writes to.
    pub directory: TempDir,
}

impl LabelledSshd {
    /// On a host with these labels, with these lines in front of its configuration.
    #[track_caller]
    pub fn start(estate: &Estate, labels: &str, lines: &str) -> Self {
        // A machine that never started sshd lacks the folder, which root's needs.
        if rustix::process::geteuid().is_root() {
            let _ = std::fs::create_dir_all("/run/sshd");
        }
        let (directory, address) = (TempDir::new().unwrap(), free_port());
        let path = |name: &str| directory.path().join(name);
        process::succeed(
            command("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path("host_key")),
        );
        let mut sign = estate.authority.command(["sign-host", "--principal", "127.0.0.1"]);
        let certificate = process::succeed(sign.arg(path("host_key.pub")));
        process::succeed(&mut estate.refresh(&path("trust")));
        std::fs::write(path("trust/ssh_host_ed25519_key-cert.pub"), certificate).unwrap();
        let dir = directory.path().display();
        let config = format!(
            "{lines}\nListenAddress {address}\nHostKey {dir}/host_key\n\
             AuthorizedKeysFile none\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\n\
             StrictModes no\nPidFile none\nLogLevel VERBOSE\nPermitRootLogin yes\n{}",
            documented(&format!("{dir}/trust"), labels)
        );
        std::fs::write(path("sshd_config"), config).unwrap();
        let program = if Path::new("/usr/sbin/sshd").exists() { "/usr/sbin/sshd" } else { "/usr/bin/sshd" };
        let mut start = command(program);
        start.args(["-D", "-e", "-f"]).arg(path("sshd_config"));
        let process = Running::listening(start.stdout(Stdio::null()).stderr(Stdio::piped()), address);
        Self { address, process, directory }
    }

    /// Its port.
    pub fn port(&self) -> String {
        self.address.port().to_string()
    }

    /// `ssh -F DEST/ssh_config OPTIONS` to it, to run a command.
    pub fn ssh<const N: usize>(&self, destination: &Path, options: [&str; N], run: &str) -> Command {
        let mut ssh = command("ssh");
        ssh.arg("-F").arg(destination.join("ssh_config")).args(["-o", "BatchMode=yes", "-p", &self.port()]);
        ssh.args(options).arg(format!("{}@127.0.0.1", login())).arg(run);
        ssh
    }

    /// Runs [`LabelledSshd::ssh`] to its end.
    #[track_caller]
    pub fn run<const N: usize>(&self, destination: &Path, options: [&str; N], run: &str) -> Output {
        process::run(&mut self.ssh(destination, options, run))
    }

    /// A login that must work; what the command printed.
    #[track_caller]
    pub fn lets_in(&self, destination: &Path, run: &str) -> String {
        let output = self.run(destination, [], run);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}\nsshd's log:\n{}", self.log());
        String::from_utf8(output.stdout).unwrap()
    }

    /// The name of the terminal that a login gets.
    #[track_caller]
    pub fn lets_in_with_terminal(&self, destination: &Path) -> String {
        let output = self.run(destination, ["-tt"], "tty");
        String::from_utf8(output.stdout).unwrap()
    }

    /// A login that must be refused.
    #[track_caller]
    pub fn refuses(&self, destination: &Path) {
        let output = self.run(destination, [], "true");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(255), "{stderr}\nsshd's log:\n{}", self.log());
        assert!(stderr.contains("Permission denied"), "{stderr}");
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.process.stderr()
    }

    /// Its files from the authority.
    pub fn trust(&self) -> PathBuf {
        self.directory.path().join("trust")
    }
}

/// The configuration of `docs/resources/ssh.md`, with the folder and labels of
/// a test. `sshd` runs only what root owns, up to the root of the file system,
/// which a test's binary is not: `env` is.
#[track_caller]
fn documented(trust: &str, labels: &str) -> String {
    let page = process::read(repository("docs/resources/ssh.md"));
    let block = page.split("```sshd_config\n").nth(1).and_then(|rest| rest.split("```").next());
    let block = block.expect("an sshd_config in docs/resources/ssh.md");
    let mut config = block.to_owned();
    for (documented, ours) in [
        ("/etc/ssh/machine-id", trust),
        ("/usr/local/bin/machine-id", &format!("/usr/bin/env {}", process::MACHINE_ID)),
        ("env=prod,team=web", labels),
        ("CommandUser nobody", &format!("CommandUser {}", login())),
    ] {
        assert!(config.contains(documented), "no {documented} in:\n{block}");
        config = config.replace(documented, ours);
    }
    config
}
