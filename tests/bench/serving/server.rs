//! Authorities on their core, what is asked of them, and what that costs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use super::figures::Rate;
use super::{AUTHORITY_CORE, CLIENTS_CORE};
use crate::support::authority::{Authority as Fixture, Builder};
use crate::support::client::Keys;
use crate::support::issuer::Issuer;
use crate::support::process::{self, Running};
use crate::support::replicas::QUOTAS;
use crate::support::{policies, wait_for};

/// Pairs of keys that the requests share.
const KEYS: usize = 64;

/// An authority on its core, and its data directory.
pub(crate) struct Server {
    fixture: Fixture,
    process: Running,
}

/// An authority with quotas that nothing reaches.
pub(crate) fn builder(issuer: &Issuer) -> Builder {
    Fixture::with_policy(&policies::basic(issuer)).issuer(issuer).config(QUOTAS)
}

impl Server {
    /// What the product's own command serves, started anew by this binary; `prepare` sees its data directory before.
    pub(crate) fn start(mut fixture: Fixture, binary: &Path, prepare: impl FnOnce(&Path)) -> Self {
        fixture.terminate();
        prepare(&fixture.data_dir());
        let mut command = pinned(AUTHORITY_CORE, binary);
        command.args(["authority", "serve", "--data-dir"]).arg(fixture.data_dir());
        command.envs(fixture.keys_environment());
        let process = Running::start(command.stderr(Stdio::piped()));
        wait_for("the authority", || process.stderr().contains("listening on").then_some(()));
        Self { fixture, process }
    }

    /// Another that shares its store.
    pub(crate) fn replica(&self, binary: &Path) -> Self {
        Self::start(self.fixture.replica(), binary, |_| ())
    }

    /// The authority, for its commands and its address.
    pub(crate) fn fixture(&self) -> &Fixture {
        &self.fixture
    }

    /// The processor's time that it has taken.
    pub(crate) fn cpu(&self) -> Duration {
        cpu_times(self.process.id())[0]
    }

    /// The memory that it holds (`VmRSS`), in MiB.
    pub(crate) fn resident(&self) -> usize {
        let status = process::read(format!("/proc/{}/status", self.process.id()));
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() / 1024
    }

    /// The same, and the most that it ever held.
    pub(crate) fn memory(&self) -> String {
        let status = process::read(format!("/proc/{}/status", self.process.id()));
        let mib = |what: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
            line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() / 1024
        };
        format!("{} MiB, at most {} MiB", mib("VmRSS:"), mib("VmHWM:"))
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Requests with fresh tokens, each bound to its keys, in a file.
    pub(crate) fn mint(&self, issuer: &Issuer, count: usize, file: &Path) -> PathBuf {
        let keys: Vec<Keys> = (0..KEYS).map(|_| Keys::fresh()).collect();
        let url = self.fixture.url();
        let next = AtomicUsize::new(0);
        let some = || {
            let mut bytes = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return bytes;
                }
                let keys = &keys[number % KEYS];
                let token = issuer.token("github", &keys.audience(&url)).mint();
                let body = keys.request("github-deploy", "github", &token).to_string();
                frame(
                    &mut bytes,
                    &format!(
                        "POST /v1/exchange HTTP/1.1\r\nHost: authority\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                        body.len()
                    ),
                );
            }
        };
        let bytes = std::thread::scope(|scope| {
            let halves = [scope.spawn(some), scope.spawn(some)];
            halves.map(|half| half.join().unwrap()).concat()
        });
        std::fs::write(file, bytes).unwrap();
        file.to_owned()
    }
}

/// Has so many clients send these requests to the authorities, on new connections or kept ones.
pub(crate) fn measure(servers: &[&Server], how: &str, clients: usize, requests: &Path) -> Rate {
    let addresses: Vec<String> = servers.iter().map(|server| server.fixture.address().to_string()).collect();
    let mut command = pinned(CLIENTS_CORE, &std::env::current_exe().unwrap());
    command.args(["load", how, &clients.to_string(), &addresses.join(",")]).arg(requests);
    let cpu = || {
        let times = servers.iter().map(|server| cpu_times(server.process.id()));
        times.fold([Duration::ZERO; 2], |all, one| [all[0] + one[0], all[1] + one[1]])
    };
    let before = cpu();
    let said = process::succeed(&mut command);
    let after = cpu();
    let [server, store] = [0, 1].map(|which| after[which].saturating_sub(before[which]));
    let numbers: Vec<u64> = said.split_whitespace().map(|number| number.parse().unwrap()).collect();
    let [requests, wall, clients, p50, p99] = numbers.as_slice() else { panic!("five numbers: {said}") };
    Rate {
        requests: usize::try_from(*requests).unwrap(),
        wall: Duration::from_nanos(*wall),
        server,
        store,
        clients: Duration::from_nanos(*clients),
        p50: Duration::from_nanos(*p50),
        p99: Duration::from_nanos(*p99),
    }
}

/// This program on one core, from its first instruction on.
fn pinned(core: &str, program: &Path) -> Command {
    let mut command = process::command("taskset");
    command.args(["-c", core]).arg(program);
    command
}

/// The processor's time of all threads of a process, and of those of its store.
pub(crate) fn cpu_times(process: u32) -> [Duration; 2] {
    let mut times = [Duration::ZERO; 2];
    for thread in std::fs::read_dir(format!("/proc/{process}/task")).unwrap() {
        let read = |what| std::fs::read_to_string(thread.as_ref().unwrap().path().join(what)).unwrap();
        let time = Duration::from_nanos(read("schedstat").split(' ').next().unwrap().parse().unwrap());
        times[0] += time;
        times[1] += if read("comm").starts_with("store-") { time } else { Duration::ZERO };
    }
    times
}

pub(crate) fn health_checks(count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..count {
        frame(&mut bytes, "GET /healthz HTTP/1.1\r\nHost: authority\r\n\r\n");
    }
    bytes
}

/// A request in a file: its length in four bytes, then itself.
fn frame(bytes: &mut Vec<u8>, request: &str) {
    bytes.extend_from_slice(&u32::try_from(request.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(request.as_bytes());
}
