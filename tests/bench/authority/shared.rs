//! The same over PostgreSQL, which is on the clients' core.
//!
//! Authorities that share it write one after the other: each holds the lock of one row until its commit is on the disk,
//! and one commit is of all that waits at one authority. So what all of them do together is what they compute, as long as
//! that is less than the commits of a second times the exchanges of a commit. Both are shown: by authorities that have a
//! third of the core each, as if on machines of their own, and by commits that are slow.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use super::serving::CLIENTS_CORE;
use super::serving::figures::Rates;
use super::serving::server::{Server, builder, measure};
use super::support::cluster::{Cluster, Role};
use super::support::issuer::Issuer;
use super::support::process::MACHINE_ID;
use super::{CLIENTS, REQUESTS, ROUNDS, WARM_UP};

const REPLICAS: usize = 3;
/// A slow commit waits so long before it is written, in microseconds.
const SLOW: u32 = 50_000;
/// How long the core is one authority's, where each has its part.
const SLICE: Duration = Duration::from_millis(2);

/// A database as it is installed, but for its roles and TLS.
struct Database(Cluster);

impl Database {
    fn start() -> Self {
        let cluster = Cluster::start();
        for setting in ["shared_buffers = '128MB'", "autovacuum = on", "commit_siblings = 0"] {
            cluster.sql(&format!("ALTER SYSTEM SET {setting}"));
        }
        cluster.restart("fast");
        cluster.pin(CLIENTS_CORE);
        Self(cluster)
    }

    fn authority(&self, issuer: &Issuer) -> Server {
        let [owner, server] = [Role::Owner, Role::Server].map(|role| self.0.url(role));
        Server::start(builder(issuer).store(&owner, &server).start(), Path::new(MACHINE_ID), |_| ())
    }

    fn commits_take(&self, microseconds: u32) {
        self.0.sql(&format!("ALTER SYSTEM SET commit_delay = {microseconds}"));
        self.0.sql("SELECT pg_reload_conf()");
    }

    /// How many transactions have written something.
    fn written(&self) -> u64 {
        self.0.sql("SELECT pg_snapshot_xmax(pg_current_snapshot())").trim().parse().unwrap()
    }
}

/// Prints the figures; `without_a_store` is what an exchange costs without one, in microseconds.
pub(crate) fn bench(issuer: &Issuer, scratch: &Path, without_a_store: f64) {
    let database = Database::start();
    let first = database.authority(issuer);
    let run = |servers: &[&Server], clients: usize, rounds: usize| {
        let (mut rates, mut commits) = (Rates::default(), 0);
        for _ in 0..rounds {
            let requests = first.mint(issuer, REQUESTS, &scratch.join("requests"));
            let before = database.written();
            rates.add(measure(servers, "new", clients, &requests));
            commits += database.written() - before;
        }
        let exchanges = (rounds * REQUESTS) as f64 / commits as f64;
        (rates, exchanges)
    };
    let told = |(rates, exchanges): &(Rates, f64)| {
        format!("{rates}, {:.0} commits/s of {exchanges:.1} exchanges", rates.per_second() / exchanges)
    };
    measure(&[&first], "new", CLIENTS, &first.mint(issuer, WARM_UP, &scratch.join("requests")));
    let one = run(&[&first], CLIENTS, ROUNDS);
    println!(
        "authority, PostgreSQL, one core, {CLIENTS} clients: {}; p99 / p50 {:.1}; without a store / with PostgreSQL {:.2}",
        told(&one),
        one.0.spread(),
        without_a_store / one.0.cost(),
    );

    let others: Vec<Server> = (1..REPLICAS).map(|_| first.replica(Path::new(MACHINE_ID))).collect();
    let all: Vec<&Server> = std::iter::once(&first).chain(&others).collect();
    measure(&all, "new", CLIENTS, &first.mint(issuer, WARM_UP, &scratch.join("requests")));
    let [alone, together] = [&all[..1], &all].map(|servers| in_turn(&all, || run(servers, CLIENTS, 2)));
    println!(
        "authority, PostgreSQL, a third of a core each, {CLIENTS} clients: one {}; {REPLICAS} replicas {}; {REPLICAS} replicas / one {:.2}",
        told(&alone),
        told(&together),
        together.0.per_second() / alone.0.per_second(),
    );

    database.commits_take(SLOW);
    let slow = [(&all[..1], CLIENTS), (&all, CLIENTS), (&all, REPLICAS * CLIENTS)];
    let [alone, together, with_more] = slow.map(|(servers, clients)| run(servers, clients, 1));
    println!(
        "authority, PostgreSQL whose commits take {} ms: one {}; {REPLICAS} replicas {}; {REPLICAS} replicas with {} clients {}",
        SLOW / 1000,
        told(&alone),
        told(&together),
        REPLICAS * CLIENTS,
        told(&with_more),
    );
}

/// Meanwhile the core is each one's in turn.
fn in_turn<T>(servers: &[&Server], work: impl FnOnce() -> T) -> T {
    let ended = AtomicBool::new(false);
    servers.iter().for_each(|server| server.signal(Signal::STOP));
    let done = std::thread::scope(|scope| {
        scope.spawn(|| {
            for server in servers.iter().cycle() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                server.signal(Signal::CONT);
                std::thread::sleep(SLICE);
                server.signal(Signal::STOP);
            }
        });
        let done = work();
        ended.store(true, Ordering::Relaxed);
        done
    });
    servers.iter().for_each(|server| server.signal(Signal::CONT));
    done
}
