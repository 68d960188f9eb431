//! A machine of its own for `host install`: namespaces in which `/etc`, `/var/lib` and `/run` can be written to, with a real
//! `sshd`, real users, and of systemd as much as is asked for.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::authority::Authority;
use super::once::Outcome;
use super::port::free_port;
use super::process::{self, MACHINE_ID, Running, command};
use super::workers::SECRET;
use super::{repository, wait_for};

/// A bot whose role lets it log in as `deploy` where `env=prod` holds, and one that gets certificates for hosts.
pub const POLICY: &str = "kind: bot
version: v1
metadata: {name: deployer}
spec: {roles: [deploy]}
---
kind: role
version: v7
metadata: {name: deploy}
spec: {options: {max_session_ttl: 1h}, allow: {logins: [deploy], node_labels: {env: prod}}}
---
kind: bot
version: v1
metadata: {name: hosts}
spec: {roles: [host], max_session_ttl: 7d}
---
kind: role
version: v7
metadata: {name: host}
spec: {options: {max_session_ttl: 7d}, allow: {ssh_host_principals: [127.0.0.1]}}
---
kind: token
version: v2
metadata: {name: job}
spec: {roles: [Bot], bot_name: deployer, join_method: token, token: {}}
---
kind: token
version: v2
metadata: {name: web}
spec: {roles: [Bot], bot_name: hosts, join_method: token, token: {}}
";

/// Whether such machines can be had: only by root, who may mount.
pub fn can_be_had() -> bool {
    rustix::process::geteuid().is_root()
        && process::run(command("unshare").args(["--mount", "true"])).status.success()
}

/// The machine, an authority outside of it, and a job.
pub struct Machine {
    /// The authority.
    pub authority: Authority,
    folder: TempDir,
    address: SocketAddr,
    init: u32,
    _running: Running,
}

impl Machine {
    /// A machine whose authority lets in what [`POLICY`] says.
    #[track_caller]
    pub fn start() -> Self {
        let (authority, folder, address) = (Authority::start(POLICY), TempDir::new().unwrap(), free_port());
        let support = repository("tests/support/host");
        let mut init = command("unshare");
        init.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        init.arg(support.join("machine")).arg(MACHINE_ID).arg(folder.path()).arg(&support);
        let running =
            Running::start(init.arg(address.port().to_string()).stderr(Stdio::piped()).stdout(Stdio::null()));
        wait_for(&format!("the machine: {}", running.stderr()), || {
            folder.path().join("ready").exists().then_some(())
        });
        let children = format!("/proc/{0}/task/{0}/children", running.id());
        let init = process::read(children).trim().parse().unwrap();
        Self { authority, folder, address, init, _running: running }
    }

    /// A path outside of it that it sees too.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A program on it.
    pub fn command(&self, program: &str) -> Command {
        let mut nsenter = command("nsenter");
        nsenter.args(["--target", &self.init.to_string(), "--mount", "--pid"]);
        nsenter.arg(format!("--wd={}", self.folder.path().display())).arg(program);
        nsenter
    }

    /// A line of shell on it, which must succeed; what it printed.
    #[track_caller]
    pub fn sh(&self, line: &str) -> String {
        process::succeed(self.command("bash").args(["-euo", "pipefail", "-c", line]))
    }

    /// `machine-id host ARGS`.
    pub fn host<const N: usize>(&self, args: [&str; N]) -> Outcome {
        Outcome::of(&process::run(&mut self.host_command(args)))
    }

    /// The same, to be run.
    pub fn host_command<const N: usize>(&self, args: [&str; N]) -> Command {
        let mut host = self.command("/usr/local/bin/machine-id");
        host.arg("host").args(args);
        host
    }

    /// A secret that registers somebody once, in a file.
    #[track_caller]
    pub fn secret(&self, token: &str) -> String {
        let add = ["token", "add", "--token", token, "--format", "json"];
        let told: serde_json::Value =
            serde_json::from_str(&process::succeed(&mut self.authority.command(add))).unwrap();
        let path = self.path(&format!("secret-{token}"));
        std::fs::write(&path, told["secret"].as_str().unwrap()).unwrap();
        path.display().to_string()
    }

    /// The options by which it finds the authority and joins it.
    #[track_caller]
    pub fn joins(&self) -> Vec<String> {
        let (url, ca, secret) =
            (self.authority.url(), self.authority.ca_file().display().to_string(), self.secret("web"));
        let args = [
            "--authority",
            &url,
            "--ca-file",
            &ca,
            "--token",
            "web",
            "--join-method",
            "token",
            "--principal",
            "127.0.0.1",
            "--registration-secret-file",
            &secret,
        ];
        args.map(str::to_owned).to_vec()
    }

    /// `host install ARGS`, joining.
    pub fn install<const N: usize>(&self, args: [&str; N]) -> Outcome {
        Outcome::of(&process::run(self.host_command(["install"]).args(self.joins()).args(args)))
    }

    /// A job's destination with certificates.
    #[track_caller]
    pub fn job(&self, name: &str) -> PathBuf {
        let destination = self.path(name);
        let mut once =
            process::machine_id(["once", "--join-method", "token", "--token", "job", "--output", "ssh"]);
        once.args(["--authority", &self.authority.url()]).arg("--ca-file").arg(self.authority.ca_file());
        once.arg("--destination")
            .arg(&destination)
            .arg("--storage")
            .arg(self.path(&format!("{name}-storage")));
        process::succeed(once.env(SECRET, process::read(self.secret("job"))));
        destination
    }

    /// `ssh` as that job, to run a command.
    pub fn ssh(&self, job: &std::path::Path, run: &str) -> Command {
        let mut ssh = command("ssh");
        ssh.arg("-F").arg(job.join("ssh_config")).args([
            "-o",
            "BatchMode=yes",
            "-p",
            &self.address.port().to_string(),
        ]);
        ssh.args(["deploy@127.0.0.1", run]);
        ssh
    }

    /// Whether that job gets in.
    pub fn lets_in(&self, job: &std::path::Path) -> bool {
        process::run(&mut self.ssh(job, "true")).status.success()
    }

    /// Whether who has always got in does, by a plain key and no certificate of the host's.
    pub fn lets_in_as_before(&self) -> bool {
        let mut ssh = command("ssh");
        ssh.args([
            "-F",
            "none",
            "-o",
            "BatchMode=yes",
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "IdentitiesOnly=yes",
        ]);
        ssh.args(["-o", "UserKnownHostsFile=/dev/null", "-p", &self.address.port().to_string(), "-i"]);
        process::run(ssh.arg(self.path("plain")).args(["deploy@127.0.0.1", "true"])).status.success()
    }

    /// What systemd was asked for since this was asked the last time, but for questions.
    #[track_caller]
    pub fn asked(&self) -> Vec<String> {
        let all = self.sh("cat /run/units/asked 2>/dev/null || true; rm -f /run/units/asked");
        let is_question = |line: &str| line.starts_with("is-") || line.starts_with("show");
        all.lines().filter(|line| !is_question(line)).map(str::to_owned).collect()
    }

    /// Every file that was changed since the machine is there, with owner, mode and content; and folders of ours.
    #[track_caller]
    pub fn state(&self) -> String {
        // What `useradd` and `userdel` leave of what was there before, and the ids that are next.
        let besides = "! -name '*-' ! -name 'sub?id' ! -name .pwd.lock ! -name lastlog";
        self.sh(&format!(
            "cd {}; find . ! -type d {besides} -printf '%p %u:%g %m %l\\n' | sort; \
             find . -type f {besides} -exec sha256sum {{}} + | sort -k 2; \
             ls -d /etc/ssh/* /etc/systemd/system/machine* /var/lib/machine* /run/* 2>/dev/null || true",
            self.path("rw/upper").display()
        ))
    }

    /// What `sshd` has logged.
    #[track_caller]
    pub fn log(&self) -> String {
        self.sh("cat /run/sshd.log")
    }
}
