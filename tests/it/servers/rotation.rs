//! `authority rotate`: with the real binary, a host that watches, and `sshd`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::authority::Authority;
use crate::support::once::{Job, World};
use crate::support::process::{self, Running, command, machine_id, succeed};
use crate::support::sshd::{self, Sshd};
use crate::support::{now, wait_for};

mod federation;
mod load;
mod trouble;

/// A host that says which it is, and whose files follow an authority; and its `sshd`, which reads them.
struct Host {
    folder: TempDir,
    names: Vec<String>,
    /// The last one counts; those before serve whom they serve.
    sshds: Mutex<Vec<Arc<Sshd>>>,
    watch: Option<Running>,
}

impl Host {
    /// One that watches.
    #[track_caller]
    fn start(authority: &Authority) -> Self {
        let mut host = Self::new(authority, &["127.0.0.1"]);
        host.watch(authority, &[]);
        host.start_sshd();
        host
    }

    /// One that follows nobody yet.
    #[track_caller]
    fn new(authority: &Authority, names: &[&str]) -> Self {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let host = Self { folder: TempDir::new().unwrap(), names, sshds: Mutex::default(), watch: None };
        succeed(
            command("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(host.path("host_key")),
        );
        host.certify(authority);
        host
    }

    fn follow(&self, how: &str, authority: &Authority) -> Command {
        let mut follow = machine_id(["host", how, "--authority", &authority.url(), "--dir"]);
        follow.arg(self.path("trust")).arg("--ca-file").arg(authority.ca_file());
        follow.arg("--host-key").arg(self.path("host_key"));
        follow
    }

    #[track_caller]
    fn watch(&mut self, authority: &Authority, more: &[&str]) {
        let mut watch = self.follow("watch", authority);
        self.watch = Some(Running::start(watch.args(more).stdout(Stdio::null()).stderr(Stdio::piped())));
        wait_for("the lists", || {
            ["revoked.krl", "tls.crl"].iter().all(|file| self.path("trust").join(file).exists()).then_some(())
        });
    }

    /// Asks once.
    fn refresh(&self, authority: &Authority) -> Output {
        process::run(&mut self.follow("refresh", authority))
    }

    /// What its watcher has said.
    fn said(&self) -> String {
        self.watch.as_ref().unwrap().stderr()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Has a certificate of its own by the host CA that signs now.
    #[track_caller]
    fn certify(&self, authority: &Authority) {
        let mut sign = authority.command(["sign-host"]);
        for name in &self.names {
            sign.args(["--principal", name]);
        }
        let certificate = succeed(sign.arg(self.path("host_key.pub")));
        let new = self.path("host_key-cert.new");
        std::fs::write(&new, certificate).unwrap();
        std::fs::rename(new, self.path("host_key-cert.pub")).unwrap();
    }

    /// Starts another with the certificate that there is now.
    #[track_caller]
    fn start_sshd(&self) {
        let dir = self.folder.path().display();
        let sshd = Sshd::with_config(&format!(
            "HostKey {dir}/host_key\nHostCertificate {dir}/host_key-cert.pub\n\
             TrustedUserCAKeys {dir}/trust/ssh_user_ca.pub\nRevokedKeys {dir}/trust/revoked.krl\nAuthorizedKeysFile none\n"
        ));
        self.sshds.lock().unwrap().push(Arc::new(sshd));
    }

    fn sshd(&self) -> Arc<Sshd> {
        Arc::clone(self.sshds.lock().unwrap().last().unwrap())
    }

    /// Writes where its `sshd` listens into a file that is read all the while.
    fn write_port(&self, file: &Path) {
        let new = file.with_extension("new");
        std::fs::write(&new, self.sshd().port()).unwrap();
        std::fs::rename(new, file).unwrap();
    }

    /// The lines of a file that it keeps.
    fn lines(&self, name: &str) -> usize {
        let text = std::fs::read_to_string(self.path("trust").join(name)).unwrap_or_default();
        text.lines().filter(|line| line.starts_with("ssh-") || line.contains("BEGIN CERT")).count()
    }
}

/// What lets whoever runs the tests log in.
fn world() -> World {
    World::with_policy(|policy| policy.replace("values: [ubuntu]", &format!("values: [{}]", sshd::login())))
}

/// A job with its certificates.
#[track_caller]
fn job(world: &World) -> (Job, PathBuf) {
    let job = world.github();
    let destination = PathBuf::from(job.once([]).good().stdout.trim());
    (job, destination)
}

/// It gives back what it has.
#[track_caller]
fn end((job, destination): &(Job, PathBuf)) {
    job.run(["cleanup", &destination.display().to_string()]).good();
}

fn rotate(authority: &Authority, ca: &str, phase: &str, more: &[&str]) -> Output {
    process::run(authority.command(["rotate", "--ca", ca, "--phase", phase]).args(more))
}

/// Takes a step, as soon as nobody is waited for.
#[track_caller]
fn step(authority: &Authority, ca: &str, phase: &str) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let output = rotate(authority, ca, phase, &[]);
        match output.status.code() {
            Some(0) => return,
            Some(4) => {}
            _ => panic!("{ca} {phase}: {output:?}"),
        }
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(std::time::Instant::now() < end, "{ca} {phase}: {said}\n{}", authority.stderr());
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

#[track_caller]
fn refused(output: &Output, code: i32, words: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(words), "no {words:?} in {said}");
}

fn status(authority: &Authority, ca: &str) -> Value {
    let lines = succeed(
        machine_id(["authority", "rotate", "status", "--format", "json", "--data-dir"])
            .arg(authority.data_dir()),
    );
    let all = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    all.into_iter().find(|one| one["ca"] == ca).unwrap()
}

fn key_files(data_dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(data_dir.join("keys")).unwrap();
    let mut names: Vec<String> = names.map(|name| name.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_user_ca_goes_round_and_back_and_no_login_fails() {
    let world = world();
    let authority = &world.authority;
    let host = Host::start(authority);
    let old = job(&world);
    host.sshd().logs_in(&old.1);
    assert_eq!(status(authority, "ssh-user")["phase"], "settled");
    refused(&rotate(authority, "ssh-user", "activate", &[]), 2, "no rotation of it has begun");
    step(authority, "ssh-user", "start");
    refused(&rotate(authority, "ssh-user", "start", &[]), 2, "a rotation of it has begun");
    host.sshd().logs_in(&old.1);
    step(authority, "ssh-user", "activate");
    assert_eq!(host.lines("ssh_user_ca.pub"), 2, "it was waited for");
    let new = job(&world);
    [&old, &new].iter().for_each(|job| host.sshd().logs_in(&job.1));
    refused(&rotate(authority, "ssh-user", "finish", &[]), 4, "1 certificate of the CA");
    // Back: the old one signs, both are trusted.
    step(authority, "ssh-user", "rollback");
    let back = job(&world);
    [&old, &new, &back].iter().for_each(|job| host.sshd().logs_in(&job.1));
    refused(&rotate(authority, "ssh-user", "rollback", &[]), 4, "of the CA that would be trusted no more");
    step(authority, "ssh-user", "activate");
    [&old, &new, &back].iter().for_each(|job| host.sshd().logs_in(&job.1));
    [&old, &back].into_iter().for_each(end);
    step(authority, "ssh-user", "finish");
    wait_for("one CA", || (host.lines("ssh_user_ca.pub") == 1).then_some(()));
    host.sshd().logs_in(&new.1);
    host.sshd().logs_in(&job(&world).1);
    assert!(!key_files(&authority.data_dir()).contains(&"ssh_user_ca".to_owned()));
    refused(&rotate(authority, "ssh-user", "rollback", &[]), 2, "what is over is over");
    let phases: Vec<Value> = authority
        .audit()
        .into_iter()
        .filter(|event| event["event"] == "rotated")
        .map(|one| one["phase"].clone())
        .collect();
    assert_eq!(phases, ["start", "activate", "rollback", "activate", "finish"]);
}

#[test]
fn every_other_key_goes_round() {
    for ca in ["statement", "ssh-host", "tls"] {
        let world = world();
        let authority = &world.authority;
        let host = Host::start(authority);
        let old = job(&world);
        host.sshd().logs_in(&old.1);
        step(authority, ca, "start");
        if ca != "statement" {
            refused(&rotate(authority, ca, "activate", &[]), 4, "knows the old one alone");
            end(&old);
        }
        // One that was told whom to trust in the second of the start may have come before it.
        let started = now();
        wait_for("another second", || (now() > started + 2).then_some(()));
        let between = job(&world);
        if ca == "statement" {
            // What a host has heard the store learns within a minute and a heartbeat.
            wait_for("the new key", || {
                let heard = std::fs::read_to_string(host.path("trust/authority.heard")).unwrap();
                let heard: Value = serde_json::from_str(&heard).unwrap();
                (heard["known"]["statement_keys"].as_array().unwrap().len() == 2).then_some(())
            });
            assert!(rotate(authority, ca, "activate", &["--force"]).status.success());
        } else {
            step(authority, ca, "activate");
        }
        host.certify(authority);
        host.start_sshd();
        let new = job(&world);
        [&between, &new].iter().for_each(|job| host.sshd().logs_in(&job.1));
        end(&between);
        // A host's certificate of the old one is good for months; it has another by now.
        let forced = if ca == "ssh-host" { &["--force"][..] } else { &[] };
        if forced.is_empty() {
            step(authority, ca, "finish");
        } else {
            refused(&rotate(authority, ca, "finish", &[]), 4, "the host 127.0.0.1");
            assert!(rotate(authority, ca, "finish", forced).status.success());
        }
        assert_eq!(status(authority, ca)["phase"], "settled");
        if ca == "tls" {
            let ca = succeed(&mut authority.command(["export", "tls-ca"]));
            // Those that know the old one alone believe it no more.
            wait_for("the certificate of the new one", || {
                let outcome = world.github().once([]);
                (outcome.code == 5).then_some(())
            });
            std::fs::write(authority.ca_file(), ca).unwrap();
        }
        host.sshd().logs_in(&job(&world).1);
    }
}

#[test]
fn a_compromised_user_ca_ends_every_login() {
    let world = world();
    let authority = &world.authority;
    let host = Host::start(authority);
    let old = job(&world);
    host.sshd().logs_in(&old.1);
    let output = rotate(authority, "ssh-user", "compromised", &[]);
    refused(&output, 2, "--yes");
    assert!(String::from_utf8_lossy(&output.stderr).contains("within a second: hosts that watch"));
    host.sshd().logs_in(&old.1);
    assert!(rotate(authority, "ssh-user", "compromised", &["--yes"]).status.success());
    wait_for("no login by the old one", || {
        (!host.sshd().try_login(&old.1, &sshd::login()).status.success()).then_some(())
    });
    assert_eq!(host.lines("ssh_user_ca.pub"), 1);
    host.sshd().logs_in(&job(&world).1);
    // Its key is in the list, whoever trusts it still.
    let mut query = command("ssh-keygen");
    let listed = process::run(
        query.args(["-Q", "-f"]).arg(host.path("trust/revoked.krl")).arg(old.1.join("key-cert.pub")),
    );
    assert!(!listed.status.success(), "{listed:?}");
}
