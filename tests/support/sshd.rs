//! OpenSSH's real sshd, on loopback, as the user who runs the tests (so that
//! it need not be root), with its files in a temporary folder.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::process::Signal;
use tempfile::TempDir;

use super::authority::Authority;
use super::nginx::find;
use super::once::Job;
use super::port::free_port;
use super::process::{self, Running, command};
use super::wait_for;

/// An sshd that trusts an authority's user CA; it ends with the value.
pub struct Sshd {
    address: SocketAddr,
    process: Running,
    directory: TempDir,
}

/// What `crypto-policies` of Red Hat's systems, set to FIPS, leaves to OpenSSH.
fn fips() -> String {
    let signatures =
        ["ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "rsa-sha2-256", "rsa-sha2-512"];
    let both = signatures.iter().map(|name| format!("{name},{name}-cert-v01@openssh.com"));
    let both = both.collect::<Vec<_>>().join(",");
    format!(
        "CASignatureAlgorithms {}\nPubkeyAcceptedAlgorithms {both}\nHostKeyAlgorithms {both}\n\
         KexAlgorithms ecdh-sha2-nistp256,ecdh-sha2-nistp384,ecdh-sha2-nistp521,diffie-hellman-group-exchange-sha256,\
         diffie-hellman-group14-sha256,diffie-hellman-group16-sha512,diffie-hellman-group18-sha512\n\
         Ciphers aes256-gcm@openssh.com,aes256-ctr,aes128-gcm@openssh.com,aes128-ctr\n\
         MACs hmac-sha2-256-etm@openssh.com,hmac-sha2-256,hmac-sha2-512-etm@openssh.com,hmac-sha2-512\n",
        signatures.join(",")
    )
}

/// The user that sshd lets in: whoever runs the tests.
pub fn login() -> String {
    process::succeed(command("id").arg("-un")).trim().to_owned()
}

impl Sshd {
    /// One whose users and whose host certificate are this authority's.
    #[track_caller]
    pub fn start(authority: &Authority) -> Self {
        Self::of(authority, authority)
    }

    /// One whose users are certified by one authority, and its host by another.
    #[track_caller]
    pub fn of(users: &Authority, host: &Authority) -> Self {
        Self::with_key(users, host, "ed25519", "")
    }

    /// One that takes the algorithms alone which are left to it by a policy of FIPS 140.
    #[track_caller]
    pub fn of_fips(authority: &Authority) -> Self {
        Self::with_key(authority, authority, "ecdsa", &fips())
    }

    #[track_caller]
    fn with_key(users: &Authority, host: &Authority, key_type: &str, lines: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let path = |name: &str| directory.path().join(name);
        process::succeed(
            command("ssh-keygen").args(["-q", "-t", key_type, "-N", "", "-f"]).arg(path("host_key")),
        );
        let mut sign = host.command(["sign-host", "--principal", "127.0.0.1"]);
        let certificate = process::succeed(sign.arg(path("host_key.pub")));
        std::fs::write(path("host_key-cert.pub"), certificate).unwrap();
        let ca = process::succeed(&mut users.command(["export", "ssh-user-ca"]));
        std::fs::write(path("user_ca.pub"), ca).unwrap();
        fetch_krl(users, &path("revoked"));
        let dir = directory.path().display();
        let config = format!(
            "{lines}HostKey {dir}/host_key\nHostCertificate {dir}/host_key-cert.pub\n\
             TrustedUserCAKeys {dir}/user_ca.pub\nRevokedKeys {dir}/revoked\nAuthorizedKeysFile none\n"
        );
        Self::within(directory, &config)
    }

    /// One with these lines in place of ours about keys and trust.
    #[track_caller]
    pub fn with_config(lines: &str) -> Self {
        Self::within(TempDir::new().unwrap(), lines)
    }

    #[track_caller]
    fn within(directory: TempDir, lines: &str) -> Self {
        // A machine that never started sshd lacks the folder, which root's needs.
        if rustix::process::geteuid().is_root() {
            let _ = std::fs::create_dir_all("/run/sshd");
        }
        let address = free_port();
        let path = |name: &str| directory.path().join(name);
        let config = format!(
            "{lines}ListenAddress {address}\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nStrictModes no\n\
             PidFile none\nLogLevel VERBOSE\nSubsystem sftp internal-sftp\nPermitRootLogin prohibit-password\n"
        );
        std::fs::write(path("sshd_config"), config).unwrap();
        let mut start = command(find("sshd"));
        start.args(["-D", "-e", "-f"]).arg(path("sshd_config"));
        // From 9.8 on it shuts out an address whose logins fail, and all come from this one; before, it does not know the line.
        let lenient = ["-o", "PerSourcePenalties=no"];
        if process::run(command(find("sshd")).args(["-t", "-f"]).arg(path("sshd_config")).args(lenient))
            .status
            .success()
        {
            start.args(lenient);
        }
        let process = Running::listening(start.stdout(Stdio::null()).stderr(Stdio::piped()), address);
        Self { address, process, directory }
    }

    /// Its port.
    pub fn port(&self) -> String {
        self.address.port().to_string()
    }

    /// Takes the authority's list of revoked certificates.
    #[track_caller]
    pub fn refresh_revoked(&self, authority: &Authority) {
        fetch_krl(authority, &self.directory.path().join("revoked"));
    }

    /// `ssh -F DEST/ssh_config` to it, to run this command.
    pub fn ssh(&self, destination: &Path, user: &str, run: &str) -> Command {
        let mut ssh = command("ssh");
        ssh.arg("-F").arg(destination.join("ssh_config")).args(["-o", "BatchMode=yes", "-p", &self.port()]);
        ssh.arg(format!("{user}@127.0.0.1")).arg(run);
        ssh
    }

    /// Runs [`Sshd::ssh`] to its end.
    #[track_caller]
    pub fn try_login(&self, destination: &Path, user: &str) -> Output {
        process::run(&mut self.ssh(destination, user, "echo hello from $(id -un)"))
    }

    /// A login that must work.
    #[track_caller]
    pub fn logs_in(&self, destination: &Path) {
        let output = self.try_login(destination, &login());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}\nsshd's log:\n{}", self.log());
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("hello from {}\n", login()), "{stderr}");
    }

    /// A job that logs in, again after a renewal, by an agent that has the key alone.
    #[track_caller]
    pub fn lets_in_an_agent(&self, job: &Job, algorithm: &str) {
        let ssh = format!(
            "ssh -F \"$MACHINE_ID_DESTINATION/ssh_config\" -o BatchMode=yes -p {} {}@127.0.0.1 true",
            self.port(),
            login()
        );
        let script = format!(
            "ssh-add -L > listed && {ssh} && touch first && until [ -e renewed ]; do sleep 0.05; done && {ssh} && touch second; exec sleep 300"
        );
        let mut once = job.start(["--agent", "--ttl", "10s", "--", "sh", "-c", &script]);
        let ended = |once: &mut Running, name: &str| {
            wait_for(name, || {
                assert!(once.ended().is_none(), "{}", once.stderr());
                job.path(name).exists().then_some(())
            });
        };
        ended(&mut once, "first");
        assert!(
            job.said("listed").starts_with(&format!("{algorithm}-cert-v01@openssh.com ")),
            "{}",
            job.said("listed")
        );
        wait_for("a renewal", || once.stderr().contains("renewed the certificates").then_some(()));
        std::fs::write(job.path("renewed"), "").unwrap();
        ended(&mut once, "second");
        once.signal(Signal::TERM);
        once.wait();
        assert!(!once.stderr().contains("warning"), "{}", once.stderr());
    }

    /// A login that sshd must refuse, with these words in its log.
    #[track_caller]
    pub fn refuses(&self, destination: &Path, words: &str) {
        let output = self.try_login(destination, &login());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(255), "{stderr}\nsshd's log:\n{}", self.log());
        assert!(stderr.contains("Permission denied"), "{stderr}");
        self.wait_for_log(words);
    }

    /// Ends the one that listens, and no connection.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.process.stderr()
    }

    /// Waits until its log holds this.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) {
        wait_for(&format!("{text:?} in sshd's log:\n{}", self.log()), || {
            self.log().contains(text).then_some(())
        });
    }
}

#[track_caller]
fn fetch_krl(authority: &Authority, to: &Path) {
    let response = authority.client().get("/v1/revoked/ssh.krl");
    assert_eq!(response.status, 200);
    let new = to.with_extension("new");
    std::fs::write(&new, response.body).unwrap();
    std::fs::rename(new, to).unwrap();
}
