//! Authorities side by side over one store, which end and come back at any
//! moment; and an authority's process whose clock a test holds.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::authority::Authority;
use super::cluster::{Cluster, Role};
use super::cut::Cut;
use super::issuer::Issuer;
use super::load::Load;
use super::process::command;
use super::{policies, random};

/// So many that load reaches none.
pub const QUOTAS: &str =
    "limits: {certificates_per_hour_of_token: 100000000, certificates_per_hour_of_run: 100000000}\n";

/// The replicas; each ends with the value.
pub struct Replicas(Vec<Authority>);

impl Replicas {
    /// One authority with a store of its own, in a folder.
    #[track_caller]
    pub fn alone(issuer: &Issuer, within: &Path) -> Self {
        let builder = Authority::with_policy(&policies::basic(issuer)).issuer(issuer).config(QUOTAS);
        Self(vec![builder.within(within).start()])
    }

    /// One authority, and others that share its store.
    pub fn of(authorities: Vec<Authority>) -> Self {
        Self(authorities)
    }

    /// So many that share this PostgreSQL.
    #[track_caller]
    pub fn sharing(issuer: &Issuer, cluster: &Cluster, count: usize) -> Self {
        let urls = [Role::Owner, Role::Server].map(|role| cluster.url(role));
        let builder = Authority::with_policy(&policies::basic(issuer)).issuer(issuer).config(QUOTAS);
        let first = builder.store(&urls[0], &urls[1]).start();
        let others: Vec<Authority> = (1..count).map(|_| first.replica()).collect();
        Self(std::iter::once(first).chain(others).collect())
    }

    /// The same, the last of them by a way that can be cut.
    #[track_caller]
    pub fn sharing_by_a_cut(issuer: &Issuer, cluster: &Cluster, count: usize) -> (Self, Cut) {
        let mut replicas = Self::sharing(issuer, cluster, count);
        let way = Cut::before(cluster.addresses()[0]);
        let last = replicas.one(count - 1);
        last.set_store(&cluster.plain_url(Role::Server, &[way.address()]));
        last.restart();
        (replicas, way)
    }

    /// Jobs that ask all of them.
    pub fn load<'i>(&self, issuer: &'i Issuer) -> Load<'i> {
        let clients = self.0.iter().map(|one| one.client().clone()).collect();
        Load::new(issuer, &self.0[0].url(), clients)
    }

    /// One of them.
    pub fn one(&mut self, number: usize) -> &mut Authority {
        &mut self.0[number]
    }

    /// Kills any of them at a moment of chance, and starts it again.
    #[track_caller]
    pub fn kill_one(&mut self) {
        std::thread::sleep(Duration::from_micros(u64::from(u16::from_le_bytes(random())) * 5));
        let number = usize::from(random::<1>()[0]) % self.0.len();
        let one = self.one(number);
        one.kill();
        one.restart();
        assert!(!one.stderr().contains("put back"), "no kill makes a store look like an old copy");
    }

    /// Ends any of them as a service manager does, and starts it again.
    #[track_caller]
    pub fn restart_one(&mut self) {
        let number = usize::from(random::<1>()[0]) % self.0.len();
        let one = self.one(number);
        assert!(one.terminate().success(), "{}", one.stderr());
        one.restart();
    }

    /// Ends one of them as a service manager does, and starts it as another version of machine-id.
    #[track_caller]
    pub fn replace(&mut self, number: usize, program: &Path) {
        let one = self.one(number);
        assert!(one.terminate().success(), "{}", one.stderr());
        one.set_program(program);
        one.restart();
    }

    /// The audit trail, which they share.
    #[track_caller]
    pub fn audit(&self) -> Vec<Value> {
        self.0[0].audit()
    }
}

/// Sets the clock of the process below.
pub const SET: &str = "set";
/// Has time pass for it.
pub const PASS: &str = "pass";
/// Has it forget what has expired.
pub const FORGET: &str = "forget";
/// What it says when that is done.
pub const DONE: &str = "as told";

const DATA_DIR: &str = "HELD_DATA_DIR";
const LISTEN: &str = "HELD_LISTEN";
const CLOCK: &str = "HELD_CLOCK";

/// The process of an authority with a held clock: this test binary, which runs the one test below. The product has no
/// clock that anybody outside could hold.
pub fn with_held_clock(data_dir: &Path, listen: SocketAddr, unix: i64) -> Command {
    let mut command = command(std::env::current_exe().unwrap());
    command.args(["--exact", "support::replicas::the_process_with_a_held_clock", "--nocapture"]);
    command.env(DATA_DIR, data_dir).env(LISTEN, listen.to_string()).env(CLOCK, unix.to_string());
    command.stdin(Stdio::piped());
    command
}

/// `authority serve` as the product does it, but for the clock: the process that another test holds, where its environment says
/// so. It ends with whoever started it, and where it cannot serve.
#[test]
fn the_process_with_a_held_clock() {
    // Benchmarks have no tests, and then none of these.
    use std::sync::Arc;

    use machine_id::authority::{Authority, serve};
    use machine_id::clock::Clock;

    if std::env::var_os(DATA_DIR).is_none() {
        let output =
            super::process::run(&mut with_held_clock(Path::new("/nowhere"), ([127, 0, 0, 1], 0).into(), 0));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("/nowhere/authority.yaml"), "{said}");
        return;
    }
    let variable = |name: &str| std::env::var(name).expect("what `with_held_clock` sets");
    machine_id::net::install_crypto();
    let clock = Clock::held(variable(CLOCK).parse().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let data_dir = variable(DATA_DIR);
    let opened = Authority::open(Path::new(&data_dir), clock.clone());
    let authority = Arc::new(runtime.block_on(opened).unwrap());
    let (serving, listen) = (Arc::clone(&authority), variable(LISTEN).parse().unwrap());
    runtime.spawn(async move {
        serve::serve(serving, listen).await.unwrap();
        std::process::exit(0);
    });
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let (word, number) = line.split_once(' ').unwrap_or((&line, "0"));
        match word {
            SET => clock.set(number.parse().unwrap()),
            PASS => clock.pass(number.parse().unwrap()),
            FORGET => runtime.block_on(authority.forget()).unwrap(),
            other => panic!("{other}"),
        }
        eprintln!("{DONE}");
    }
}
