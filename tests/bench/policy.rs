//! What a large policy costs: 10,000 join tokens, 1,000 roles and 1,000 bots
//! beside ten of each. Loading, in time and memory, as a process of its own;
//! then whole exchanges inside one process (token verified, policy asked,
//! recorded in SQLite, signed), in turn against both, so that their ratio
//! means something. See `README.md`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::print_stdout,
    reason = "a benchmark that fails ends; its figures are small"
)]

#[allow(dead_code, unreachable_pub, reason = "this crate uses a part of it")]
#[path = "../support/mod.rs"]
mod support;

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use machine_id::authority::config::Config;
use machine_id::authority::{Authority, enroll};
use machine_id::clock::Clock;
use support::client::Keys;
use support::issuer::Issuer;
use support::process::{self, machine_id};
use tempfile::TempDir;

/// Exchanges with each policy, one here and one there in turn, so that whatever
/// else the machine does strikes both.
const EXCHANGES: usize = 1000;
/// The first of them, which are not measured.
const WARM_UP: usize = 100;
/// Makes this benchmark load a policy and say what that took.
const LOAD: &str = "load";

/// A policy of that many join tokens and a tenth as many roles and bots; for
/// ten tokens, ten of each. Every name has its use: no rule, role or bot is the same.
fn policy(tokens: usize, issuer: &Issuer) -> String {
    let others = (tokens / 10).max(10);
    let mut text = String::new();
    for n in 0..others {
        write!(
            text,
            "---\nkind: bot\nversion: v1\nmetadata: {{name: bot-{n}}}\nspec:\n  roles: [role-{n}, role-{}]\n  \
             traits: [{{name: logins, values: [user-{n}, ubuntu]}}]\n  max_session_ttl: 1h\n\
             ---\nkind: role\nversion: v7\nmetadata: {{name: role-{n}}}\nspec:\n  options: {{max_session_ttl: 1h}}\n  \
             allow:\n    logins: ['{{{{internal.logins}}}}', deploy-{n}]\n    node_labels: {{env: prod, app: app-{n}}}\n  \
             deny: {{logins: [root, 'admin-*']}}\n",
            (n + 1) % others
        )
        .unwrap();
    }
    for n in 0..tokens {
        // The last is the one that is asked for.
        let repository = if n + 1 == tokens { "octo-repo".to_owned() } else { format!("repo-{n}") };
        write!(
            text,
            "---\nkind: token\nversion: v2\nmetadata: {{name: token-{n}}}\nspec:\n  roles: [Bot]\n  bot_name: bot-{}\n  \
             join_method: github\n  github:\n    enterprise_server_host: {}\n    require_key_binding: true\n    allow:\n    \
             - repository: octo-org/{repository}\n      repository_owner_id: \"650065\"\n      environment: production\n    \
             - repository: octo-org/{repository}\n      ref: refs/heads/release/*\n",
            n % others,
            issuer.host()
        )
        .unwrap();
    }
    text
}

/// A data directory with that policy.
fn data(folder: &Path, name: &str, issuer: &Issuer, policy: &str) -> Config {
    let data = folder.join(name);
    let init = ["authority", "init", "--cluster", "id.test", "--public-url", URL, "--data-dir"];
    process::succeed(machine_id(init).arg(&data));
    let file = data.join("authority.yaml");
    let ca = format!("issuer_ca_file: {}\n", issuer.ca_file().display());
    std::fs::write(&file, process::read(&file) + &ca).unwrap();
    std::fs::write(data.join("policy/policy.yaml"), policy).unwrap();
    Config::load(&data).unwrap()
}

const URL: &str = "https://id.test";

/// Loads the policy of a data directory, and says what it took: milliseconds
/// for the policy, for the lints, peak memory in KiB before and after.
fn load(data: &str) {
    let config = Config::load(Path::new(data)).unwrap();
    let before = peak();
    let start = Instant::now();
    let policy = config.load_policy().unwrap();
    let loaded = start.elapsed();
    let after = peak();
    let found = policy.lint().findings.len();
    println!("{} {} {before} {after} {found}", loaded.as_millis(), (start.elapsed() - loaded).as_millis());
}

/// The most memory that this process ever had, in KiB (proc(5), `VmHWM`).
fn peak() -> u64 {
    let status = process::read(Path::new("/proc/self/status"));
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// One authority of a comparison.
struct Side {
    authority: Authority,
    token: String,
    keys: Keys,
    took: Vec<Duration>,
}

impl Side {
    async fn open(config: &Config, token: String) -> Self {
        let data = config.policy.parent().unwrap();
        let authority = Authority::open(data, Clock::system()).await.unwrap();
        Self { authority, token, keys: Keys::fresh(), took: Vec::new() }
    }

    /// One exchange, with a fresh token.
    async fn exchange(&mut self, issuer: &Issuer) {
        let token = issuer.token("github", &self.keys.audience(URL)).mint();
        let request = serde_json::from_value(self.keys.request(&self.token, "github", &token)).unwrap();
        let start = Instant::now();
        enroll::exchange(&self.authority, &request, IpAddr::V4(Ipv4Addr::LOCALHOST)).await.unwrap();
        self.took.push(start.elapsed());
    }

    /// Microseconds for one exchange.
    fn median(&mut self) -> f64 {
        let measured = &mut self.took[WARM_UP..];
        measured.sort_unstable();
        measured[measured.len() / 2].as_micros() as f64
    }
}

fn main() {
    machine_id::net::install_crypto();
    let args: Vec<String> = std::env::args().collect();
    if let Some(at) = args.iter().position(|arg| arg == LOAD) {
        return load(&args[at + 1]);
    }
    let issuer = Issuer::start();
    // In memory: how long a disk takes to be sure is no cost of the policy, and drowns it.
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.unwrap();
    let text = policy(10_000, &issuer);
    let large = data(folder.path(), "large", &issuer, &text);
    let small = data(folder.path(), "small", &issuer, &policy(10, &issuer));

    let mut loading = Command::new(std::env::current_exe().unwrap());
    let said = process::succeed(loading.arg(LOAD).arg(large.policy.parent().unwrap()));
    let figures: Vec<u64> = said.split_whitespace().map(|figure| figure.parse().unwrap()).collect();

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (small, large) = runtime.block_on(async {
        let mut small = Side::open(&small, "token-9".to_owned()).await;
        let mut large = Side::open(&large, "token-9999".to_owned()).await;
        for _ in 0..EXCHANGES {
            small.exchange(&issuer).await;
            large.exchange(&issuer).await;
        }
        (small.median(), large.median())
    });
    println!(
        "policy: 10,000 join tokens, 1,000 roles, 1,000 bots ({:.1} MB) load in {} ms at a peak of {:.0} MiB \
         ({:.0} MiB before), linted in {} ms ({} findings); an exchange takes {large:.0} us, with ten of each {small:.0} us: ratio {:.2}",
        text.len() as f64 / 1e6,
        figures[0],
        figures[3] as f64 / 1024.0,
        figures[2] as f64 / 1024.0,
        figures[1],
        figures[4],
        large / small
    );
}
