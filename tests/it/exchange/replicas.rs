//! Authorities that share a store. With SQLite that is for these tests alone: two processes may open one file.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::Bench;
use super::quotas::{bench, of_run};
use super::revocation::{Held, revoke};
use crate::support::client::{Client, Response};
use crate::support::port::free_port;
use crate::support::process::{self, Running, machine_id};
use crate::support::wait_for;

/// Another authority on the store of the bench's, with a copy of its data directory.
struct Replica {
    folder: TempDir,
    client: Client,
    listen: String,
    process: Option<Running>,
}

impl Replica {
    fn of(bench: &Bench) -> Self {
        let folder = TempDir::new().unwrap();
        let (from, to) = (bench.authority.data_dir(), folder.path().join("authority"));
        process::succeed(std::process::Command::new("cp").arg("-a").args([&from, &to]));
        // Where the store is, and nothing of it here.
        for entry in fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.file_name().unwrap().to_string_lossy().starts_with("authority.db") {
                fs::remove_file(entry).unwrap();
            }
        }
        let file = to.join("authority.yaml");
        let config = process::read(&file);
        let kept = config.lines().filter(|line| !line.starts_with("store:"));
        let mut config: String = kept.map(|line| format!("{line}\n")).collect();
        config.push_str(&format!("store: sqlite:{}\n", from.join("authority.db").display()));
        fs::write(&file, config).unwrap();
        let address = free_port();
        let ca = process::read(bench.authority.ca_file());
        Self { folder, client: Client::trusting(address, &ca), listen: address.to_string(), process: None }
    }

    fn data_dir(&self) -> PathBuf {
        self.folder.path().join("authority")
    }

    fn command(&self) -> std::process::Command {
        let mut command = machine_id(["authority", "serve", "--listen", &self.listen, "--data-dir"]);
        command.arg(self.data_dir());
        command
    }

    /// Starts it, and waits until it serves.
    #[track_caller]
    fn start(mut self) -> Self {
        self.process = Some(Running::start(self.command().stdout(Stdio::null()).stderr(Stdio::piped())));
        self.says("listening on");
        self
    }

    #[track_caller]
    fn says(&self, text: &str) -> String {
        let process = self.process.as_ref().unwrap();
        wait_for(&format!("{text:?} on the replica's stderr"), || {
            let said = process.stderr();
            said.contains(text).then_some(said)
        })
    }
}

fn readyz(client: &Client) -> (u16, Value) {
    let Response { status, .. } = client.get("/readyz");
    (status, client.get("/readyz").json())
}

/// What was issued by one of them is taken from the quota of both; a restart does not fill it.
#[test]
fn a_quota_is_one_for_all_and_a_restart_does_not_fill_it() {
    let mut bench = bench("limits: {certificates_per_hour_of_run: 64}\n");
    let replica = Replica::of(&bench).start();
    let ask = |client: &Client, bench: &Bench| client.exchange(&of_run(bench, "1", 16, &[]));
    ask(bench.authority.client(), &bench).granted();
    ask(bench.authority.client(), &bench).granted();
    // Within a second the other hears of it: a denied job costs one certificate, and tells when it is so.
    wait_for("the quota is used up at the replica too", || {
        let response = replica.client.exchange(&of_run(&bench, "1", 1, &["admin"]));
        (response.status == 429).then(|| assert_eq!(response.json()["type"], "urn:machine-id:quota-run"))
    });
    replica.client.exchange(&of_run(&bench, "2", 16, &[])).granted();
    // As it is told when an authority ends, and known when one starts.
    assert!(bench.authority.terminate().success());
    bench.authority.restart();
    assert_eq!(ask(bench.authority.client(), &bench).problem(429)["type"], "urn:machine-id:quota-run");
    bench.authority.kill();
    bench.authority.restart();
    assert_eq!(ask(bench.authority.client(), &bench).problem(429)["type"], "urn:machine-id:quota-run");
    replica.says("serves this store too, which is made for one authority");
}

/// With other CA keys it does not start, and says whose are right.
#[test]
fn one_with_other_ca_keys_does_not_start() {
    let bench = Bench::start();
    let pin = |data_dir: PathBuf| {
        let mut command = machine_id(["authority", "export", "tls-ca-pin", "--data-dir"]);
        process::succeed(command.arg(data_dir)).trim().to_owned()
    };
    let (replica, other) = (Replica::of(&bench), TempDir::new().unwrap());
    let made = other.path().join("authority");
    process::succeed(
        machine_id([
            "authority",
            "init",
            "--cluster",
            "id.test",
            "--public-url",
            &bench.authority.url(),
            "--data-dir",
        ])
        .arg(&made),
    );
    let keys = replica.data_dir().join("keys");
    fs::remove_dir_all(&keys).unwrap();
    fs::rename(made.join("keys"), &keys).unwrap();
    let events = bench.authority.audit().len();
    let mut started = Running::start(replica.command().stdout(Stdio::null()).stderr(Stdio::piped()));
    wait_for("its end", || started.ended().map(drop));
    let (status, said) = (started.wait(), started.stderr());
    assert_eq!(status.code(), Some(2), "{said}");
    let (ours, theirs) = (pin(replica.data_dir()), pin(bench.authority.data_dir()));
    let others = "the CA keys here are others than those of the store: federation ";
    assert!(said.contains(others) && said.contains(", ssh-host SHA256:"), "{said}");
    assert!(
        said.contains(&format!("tls {ours} here")) && said.contains(&format!("tls {theirs} there")),
        "{said}"
    );
    let name = format!(":{} has", bench.authority.address().port());
    assert!(said.contains(&name), "{said}");
    assert!(said.contains("hint: all authorities of a store have the same CA keys"), "{said}");
    assert_eq!(bench.authority.audit().len(), events, "nothing was signed");
}

/// A running one whose store is another's now stops, and goes on when it is right again.
#[test]
fn one_that_finds_out_later_stops_issuing() {
    let bench = Bench::start();
    let replica = Replica::of(&bench).start();
    let store = rusqlite::Connection::open(bench.authority.data_dir().join("authority.db")).unwrap();
    let set = |sql: &str| store.execute(sql, []).unwrap();
    set("UPDATE cas SET key = key || 'x' WHERE key LIKE 'tls%'");
    replica.says("nothing is issued: the CA keys here are others than those of the store: tls sha256:");
    for path in ["/v1/trust", "/v1/revoked/ssh.krl"] {
        let response = replica.client.get(path);
        assert_eq!(response.problem(503)["type"], "urn:machine-id:other-ca-keys");
    }
    let asked = replica.client.exchange(&of_run(&bench, "1", 1, &[]));
    assert_eq!(asked.problem(503)["type"], "urn:machine-id:other-ca-keys");
    assert_eq!(readyz(&replica.client).0, 503);
    assert_eq!(replica.client.get("/healthz").status, 200);
    set("UPDATE cas SET key = substr(key, 1, length(key) - 1) WHERE key LIKE 'tls%'");
    replica.says("the CA keys are those of the store again");
    replica.client.exchange(&of_run(&bench, "1", 1, &[])).granted();
    let (status, ready) = readyz(&replica.client);
    assert_eq!((status, &ready["status"], &ready["warnings"]), (200, &json!("ready"), &Value::Null));
}

/// What is revoked through one of them is on the lists of the other within a second, and the lists are the same.
#[test]
fn lists_are_those_of_all() {
    let bench = Bench::start();
    let replica = Replica::of(&bench).start();
    let krls =
        || [bench.authority.client(), &replica.client].map(|client| client.get("/v1/revoked/ssh.krl").body);
    let [one, other] = krls();
    assert_eq!(one, other, "one number");
    let held = Held::new(&bench);
    assert_eq!(revoke(&bench, held.id(), &held.assertion(&bench)).status, 200);
    wait_for("the revocation at the replica", || {
        let [here, there] = krls();
        (there != other).then(|| assert_eq!(here, there, "the same list under the same number"))
    });
}
