//! Sessions of one certificate beside a real `sshd` with `host watch`, over two authorities that share a PostgreSQL; and how long
//! they go on once it is given back or locked.

use std::fs::{Permissions, create_dir, set_permissions};
use std::io::Read as _;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::authority::Authority;
use super::cluster::{Cluster, Role};
use super::once::manifest;
use super::port::free_port;
use super::process::{self, Running, command, machine_id, succeed};
use super::replicas::QUOTAS;
use super::sshd_labels::{Estate, LabelledSshd, login};
use super::{PATIENCE, wait_for, wait_slowly_for};

/// Who revokes what a session was let in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The job, at its end.
    Cleanup,
    /// An operator, at one replica.
    LockAtOne,
    /// An operator, at the other one, which the host watches.
    LockAtOther,
}

/// The authorities, the host, and somebody whose session goes on.
pub struct Stage {
    estate: Estate,
    other: Authority,
    sshd: LabelledSshd,
    watch: Running,
    goes_on: Running,
    runs: usize,
    _cluster: Cluster,
}

impl Stage {
    /// With one process that fetches, reloads and ends sessions.
    #[track_caller]
    pub fn start() -> Self {
        let cluster = Cluster::start();
        let urls = [Role::Owner, Role::Server].map(|role| cluster.url(role));
        let estate = Estate::with("{env: test}", "{max_session_ttl: 2h, port_forwarding: true}", |builder| {
            builder.store(&urls[0], &urls[1]).config(QUOTAS)
        });
        let other = estate.authority.replica();
        let sessions = estate.path("sessions");
        create_dir(&sessions).unwrap();
        set_permissions(&sessions, Permissions::from_mode(0o700)).unwrap();
        let labels = format!("env=test --sessions {}", sessions.display());
        let sshd = LabelledSshd::start(&estate, &labels, "Subsystem sftp internal-sftp");
        let at = format!("https://{}", other.address());
        let mut watch = machine_id(["host", "watch", "--end-sessions", "--authority", &at, "--dir"]);
        watch.arg(sshd.trust()).arg("--ca-file").arg(estate.authority.ca_file());
        watch.arg("--sessions").arg(sessions).arg("--reload");
        watch.arg(format!("printf x >> {}", estate.path("reloads").display()));
        let watch = Running::start(watch.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let held = estate.certificates("goes-on");
        let mut goes_on = sshd.ssh(&held, [], "while echo up; do sleep 0.1; done");
        let goes_on = begun(&mut goes_on, &sshd);
        Self { estate, other, sshd, watch, goes_on, runs: 0, _cluster: cluster }
    }

    /// How often servers were told to reload.
    pub fn reloads(&self) -> usize {
        std::fs::read(self.estate.path("reloads")).unwrap_or_default().len()
    }

    /// Opens all kinds of sessions by a new certificate, has it revoked, and waits until nobody gets in by it and all have ended:
    /// how long each took, from the end of the command that revoked it. One that goes on fails.
    #[track_caller]
    pub fn shut_out(&mut self, way: Way) -> Vec<(&'static str, Duration)> {
        self.runs += 1;
        let job = format!("job-{}", self.runs);
        succeed(&mut self.estate.once(&job, []));
        let job = self.estate.path(&job);
        // The thief's copy: the job's own is gone after `cleanup`.
        let stolen = self.estate.path(&format!("stolen-{}", self.runs));
        succeed(command("cp").arg("-a").arg(&job).arg(&stolen));
        let config = process::read(job.join("ssh_config"));
        let config = config.replace(&job.display().to_string(), &stolen.display().to_string());
        std::fs::write(stolen.join("ssh_config"), config).unwrap();
        let serial = manifest(&job)["outputs"][0]["serial"].as_str().unwrap().to_owned();
        let (mut sessions, left) = self.open(&stolen);
        let before = self.goes_on.stdout_bytes().len();

        let took = std::thread::scope(|scope| {
            let waiting: Vec<_> = sessions
                .iter_mut()
                .map(|(what, session)| {
                    scope.spawn(move || {
                        let ended = session.wait_at_most(PATIENCE).is_some();
                        (*what, ended.then(Instant::now))
                    })
                })
                .collect();
            match way {
                Way::Cleanup => succeed(machine_id(["cleanup"]).arg(&job)),
                Way::LockAtOne => succeed(&mut self.estate.authority.command(["lock", "--serial", &serial])),
                Way::LockAtOther => succeed(&mut self.other.command(["lock", "--serial", &serial])),
            };
            let revoked = Instant::now();
            let list = self.sshd.trust().join("revoked.krl");
            let number: u64 = serial.parse().unwrap();
            let listed = wait_slowly_for("sshd's list", Duration::from_millis(5), || {
                let list = machine_id::krl::read(&std::fs::read(&list).unwrap()).unwrap();
                list.serials.contains(&number).then(Instant::now)
            });
            // Whoever begins from then on is refused; it takes as long as a login does.
            let refused = self.sshd.run(&stolen, [], "true");
            assert_eq!(refused.status.code(), Some(255), "{}", self.sshd.log());
            let mut took =
                vec![("sshd's list", listed - revoked), ("a login that is refused", revoked.elapsed())];
            for waiting in waiting {
                let (what, ended) = waiting.join().unwrap();
                let ended = ended.unwrap_or_else(|| panic!("{what} goes on\n{}", self.watch.stderr()));
                took.push((what, ended.saturating_duration_since(revoked)));
            }
            took
        });

        // Without logind what has left its session is named.
        let named = format!("{left} (`sleep`)");
        wait_for("what has left to be named", || self.watch.stderr().contains(&named).then_some(()));
        succeed(command("kill").arg(left));
        wait_for("the other's session to go on", || {
            assert!(self.goes_on.ended().is_none(), "{}", self.watch.stderr());
            (self.goes_on.stdout_bytes().len() > before).then_some(())
        });
        for folder in [&job, &stolen] {
            let _ = std::fs::remove_dir_all(folder);
        }
        took
    }

    /// A command, with a process that leaves it, whose number comes with them; a forward with a connection through it; a shared connection with two
    /// channels; and a file on its way.
    #[track_caller]
    fn open(&self, held: &Path) -> (Vec<(&'static str, Running)>, String) {
        let path = |name: &str| -> PathBuf { self.estate.path(name) };
        let leaves = "(setsid sleep 654 </dev/null >/dev/null 2>&1 & echo $!); echo up; exec sleep 600";
        let plain = begun(&mut self.sshd.ssh(held, [], leaves), &self.sshd);
        let left = plain.stdout().lines().next().unwrap().to_owned();
        let control = format!("ControlPath={}", path("control").display());
        let stays = "echo up; exec sleep 600";
        let master = begun(&mut self.sshd.ssh(held, ["-M", "-o", &control], stays), &self.sshd);
        let shared = begun(&mut self.sshd.ssh(held, ["-o", &control], stays), &self.sshd);

        let local = free_port();
        let forward = format!("{local}:127.0.0.1:{}", self.sshd.port());
        let options = ["-N", "-o", "ExitOnForwardFailure=yes", "-L", &forward];
        let mut forward = self.sshd.ssh(held, options, "");
        let forward = Running::start(forward.stdout(Stdio::null()).stderr(Stdio::piped()));
        let mut through = wait_for("the forward", || TcpStream::connect(local).ok());
        let mut greeting = [0; 8];
        through.set_read_timeout(Some(PATIENCE)).unwrap();
        through.read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting, b"SSH-2.0-");
        // It stays open for as long as the forward does.
        std::thread::spawn(move || through.read_to_end(&mut Vec::new()));

        let (large, copy) = (path("large"), path("copy"));
        std::fs::File::create(&large).unwrap().set_len(1 << 30).unwrap();
        let _ = std::fs::remove_file(&copy);
        let mut scp = command("scp");
        // Slow enough to last, and so fast that it does not sleep through its end.
        scp.args(["-q", "-l", "40000", "-F"]).arg(held.join("ssh_config"));
        scp.args(["-o", "BatchMode=yes", "-P", &self.sshd.port()]);
        scp.arg(large).arg(format!("{}@127.0.0.1:{}", login(), copy.display()));
        let scp = Running::start(scp.stdout(Stdio::null()).stderr(Stdio::piped()));
        wait_for("the copy to begin", || {
            std::fs::metadata(&copy).ok().filter(|copy| copy.len() > 0).map(drop)
        });
        let sessions = vec![
            ("a command", plain),
            ("a shared connection", master),
            ("its second channel", shared),
            ("a forward", forward),
            ("scp", scp),
        ];
        (sessions, left)
    }
}

/// A session that has begun.
#[track_caller]
fn begun(ssh: &mut Command, sshd: &LabelledSshd) -> Running {
    let mut session = Running::start(ssh.stdout(Stdio::piped()).stderr(Stdio::piped()));
    wait_for("the session to begin", || {
        let ended = session.ended().map(|status| format!("{status}\n{}\n{}", session.stderr(), sshd.log()));
        assert!(ended.is_none(), "{}", ended.unwrap_or_default());
        session.stdout().contains("up\n").then_some(())
    });
    session
}
