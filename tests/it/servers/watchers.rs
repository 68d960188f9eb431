//! `host watch` beside a real authority: away, over its restart and its failover, and behind whoever holds, repeats or swaps
//! what it says. An old list is never believed, no revocation is taken back, and where it was told to it lets nobody in.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::authority::Authority;
use crate::support::client::Keys;
use crate::support::cluster::Cluster;
use crate::support::cut::{Cut, Way};
use crate::support::issuer::Issuer;
use crate::support::middle::Middle;
use crate::support::process::{self, Running, machine_id, read, run, succeed};
use crate::support::replicas::Replicas;
use crate::support::sshd_labels::Estate;
use crate::support::wait_for;

const TEN_MINUTES: i64 = 600;

/// What was issued to jobs, and a folder that is watched.
struct Host {
    folder: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        Self { folder: tempfile::TempDir::new().unwrap() }
    }

    fn trust(&self) -> PathBuf {
        self.folder.path().join("trust")
    }

    fn command(&self, what: &str, authority: &Authority, url: &str) -> Command {
        let mut host = machine_id(["host", what, "--authority", url, "--dir"]);
        host.arg(self.trust()).arg("--ca-file").arg(authority.ca_file());
        host
    }

    fn watch(&self, authority: &Authority, url: &str) -> Running {
        let mut watch = self.command("watch", authority, url);
        watch.args(["--fail-closed", "9m"]).stdout(Stdio::null()).stderr(Stdio::piped());
        Running::start(&mut watch)
    }

    /// Of these certificates, those that `sshd` would let in by the folder's list.
    fn lets_in<'n>(&self, certificates: &[(&'n str, PathBuf)]) -> Vec<&'n str> {
        let is_in = |certificate: &Path| {
            let mut query = process::command("ssh-keygen");
            run(query.arg("-Q").arg("-f").arg(self.trust().join("revoked.krl")).arg(certificate))
                .status
                .success()
        };
        certificates.iter().filter(|(_, path)| is_in(path)).map(|(name, _)| *name).collect()
    }

    #[track_caller]
    fn wait_for(&self, certificates: &[(&str, PathBuf)], names: &[&str]) {
        let mut found = Vec::new();
        let mut matches = || {
            found = self.lets_in(certificates);
            (found == names).then_some(())
        };
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while matches().is_none() {
            assert!(std::time::Instant::now() < end, "not {names:?}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// The code of what `sshd` asks at a login.
    fn asks(&self, certificate: &Path) -> Option<i32> {
        let text = read(certificate);
        let mut asks =
            machine_id(["host", "principals", "--labels", "env=prod", "--fail-closed", "9m", "--dir"]);
        run(asks.arg(self.trust()).args(["root", text.split(' ').nth(1).unwrap()])).status.code()
    }

    /// All that was heard was heard so much earlier.
    fn age(&self, seconds: i64) {
        let file = self.trust().join("authority.heard");
        let mut heard: Value = serde_json::from_str(&read(&file)).unwrap();
        for list in ["krl", "crl"] {
            let at = &mut heard["lists"][list]["at"];
            let earlier = |time: &Value| json!(time.as_i64().unwrap() - seconds);
            at["unix"] = earlier(&at["unix"]);
            at["boot"][1] = earlier(&at["boot"][1]);
        }
        std::fs::write(file, heard.to_string()).unwrap();
    }

    /// The serials of the CRL.
    fn crl(&self) -> usize {
        let pem = std::fs::read(self.trust().join("tls.crl")).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).unwrap();
        let (_, list) = x509_parser::parse_x509_crl(&pem.contents).unwrap();
        list.iter_revoked_certificates().count()
    }

    /// Certificates of a job, whose lock is by the id that is returned.
    fn grant(&self, issuer: &Issuer, authority: &Authority, name: &str) -> (PathBuf, String) {
        let keys = Keys::fresh();
        let token = issuer.token("github", &keys.audience(&authority.url())).mint();
        let request = keys.request("github-deploy", "github", &token);
        let granted = wait_for("certificates", || {
            authority.client().try_exchange(&request).ok().filter(|answer| answer.status == 200)
        });
        let (granted, path) = (granted.granted(), self.folder.path().join(name));
        std::fs::write(&path, granted["outputs"][0]["ssh_certificate"].as_str().unwrap()).unwrap();
        (path, granted["issuance_id"].as_str().unwrap().to_owned())
    }
}

fn lock(authority: &Authority, id: &str) {
    succeed(&mut authority.command(["lock", "--issuance", id]));
}

#[test]
fn one_that_was_away_for_ten_minutes_and_over_a_restart_misses_nothing() {
    let (mut estate, host) = (Estate::start("{env: prod}", "{max_session_ttl: 2h}"), Host::new());
    let granted =
        ["one", "two", "three"].map(|name| (name, host.grant(&estate.issuer, &estate.authority, name)));
    let certificates = granted.clone().map(|(name, (path, _))| (name, path));
    let id = |number: usize| granted[number].1.1.as_str();
    let cut = Cut::before(estate.authority.address());
    let url = format!("https://{}", cut.address());
    let mut watch = host.watch(&estate.authority, &url);
    wait_for("the files", || host.trust().join("tls_ca.crt").exists().then_some(()));
    lock(&estate.authority, id(0));
    host.wait_for(&certificates, &["two", "three"]);
    wait_for("the other list", || (host.crl() == 1).then_some(()));
    assert_eq!(host.asks(&certificates[2].1), Some(0));

    // The host is away; so is the authority, which is locked meanwhile.
    watch.signal(Signal::KILL);
    watch.wait();
    estate.authority.terminate();
    lock(&estate.authority, id(1));
    host.age(TEN_MINUTES);
    assert_eq!(host.asks(&certificates[2].1), Some(5));
    estate.authority.restart();
    // Nothing passes yet.
    cut.set(Way::Stopped);
    let tls_ca = read(host.trust().join("tls_ca.crt"));
    let watch = host.watch(&estate.authority, &url);
    host.wait_for(&certificates, &[]);
    wait_for("nobody's CA", || (read(host.trust().join("tls_ca.crt")) != tls_ca).then_some(()));
    cut.set(Way::Open);
    host.wait_for(&certificates, &["three"]);
    wait_for("the other list", || (host.crl() == 2).then_some(()));
    wait_for("the CA", || (read(host.trust().join("tls_ca.crt")) == tls_ca).then_some(()));
    // What was heard is kept last.
    wait_for("a login", || (host.asks(&certificates[2].1) == Some(0)).then_some(()));
    // Nor does it miss what is revoked while the authority is away, and the connection is there.
    estate.authority.kill();
    lock(&estate.authority, id(2));
    estate.authority.restart();
    host.wait_for(&certificates, &[]);
    assert!(watch.stderr().contains("nobody gets in until it is heard again"), "{}", watch.stderr());
}

#[test]
fn whoever_holds_repeats_or_swaps_what_is_said_takes_nothing_back() {
    let (mut estate, host) = (Estate::start("{env: prod}", "{max_session_ttl: 2h}"), Host::new());
    let granted =
        ["one", "two", "three"].map(|name| (name, host.grant(&estate.issuer, &estate.authority, name)));
    let certificates = granted.clone().map(|(name, (path, _))| (name, path));
    let id = |number: usize| granted[number].1.1.as_str();
    let middle = Middle::before(&estate.authority);
    let watch = host.watch(&estate.authority, &middle.url());
    let refresh = || {
        let output = run(&mut host.command("refresh", &estate.authority, &middle.url()));
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    wait_for("the files", || host.trust().join("tls_ca.crt").exists().then_some(()));
    assert_eq!(refresh(), (Some(0), String::new()));
    lock(&estate.authority, id(0));
    host.wait_for(&certificates, &["two", "three"]);
    wait_for("the other list", || (host.crl() == 1).then_some(()));
    assert_eq!(watch.stderr(), "");

    // What was said at first, and the lists of then.
    middle.repeat([
        "/v1/watch",
        "/v1/statement",
        "/v1/revoked/ssh.krl",
        "/v1/revoked/tls.crl",
        "/v1/revoked",
    ]);
    wait_for("a warning", || watch.stderr().contains("it is older than what was heard before").then_some(()));
    let (code, said) = refresh();
    assert!(code == Some(5) && said.contains("it is older than what was heard before"), "{said}");
    lock(&estate.authority, id(1));
    assert_eq!((host.lets_in(&certificates), host.crl()), (vec!["two", "three"], 1));
    // It holds back, which shows by the age, and is over with it.
    middle.repeat([]);
    host.wait_for(&certificates, &["three"]);
    wait_for("the other list", || (host.crl() == 2).then_some(()));

    // The lists alone: an authority that begins anew knows of no number of before.
    middle.repeat(["/v1/revoked/ssh.krl", "/v1/revoked/tls.crl"]);
    estate.authority.kill();
    lock(&estate.authority, id(2));
    estate.authority.restart();
    let is_told =
        || watch.stderr().contains("ssh.krl cannot be used: it is not the list that the authority states");
    wait_for("a warning", || is_told().then_some(()));
    assert_eq!((host.lets_in(&certificates), host.crl()), (vec!["three"], 2));
    middle.repeat([]);
    host.wait_for(&certificates, &[]);
    wait_for("the other list", || (host.crl() == 3).then_some(()));

    // Silence, in which time passes.
    middle.hold(true);
    drop(watch);
    host.age(TEN_MINUTES);
    let (path, _) = host.grant(&estate.issuer, &estate.authority, "four");
    assert_eq!(host.asks(&path), Some(5));
    let later = [("four", path)];
    let watch = host.watch(&estate.authority, &middle.url());
    assert_eq!(host.lets_in(&later), ["four"]);
    host.wait_for(&later, &[]);
    middle.hold(false);
    host.wait_for(&later, &["four"]);
    assert!(host.lets_in(&certificates).is_empty());
    wait_for("the end", || watch.stderr().contains("the authority is heard again").then_some(()));
}

#[test]
fn a_failover_that_loses_a_revocation_takes_it_back_from_no_host() {
    let (issuer, mut cluster, host) = (Issuer::start(), Cluster::with_standby(), Host::new());
    let mut replicas = Replicas::sharing(&issuer, &cluster, 2);
    let granted = ["one", "two", "three"].map(|name| (name, host.grant(&issuer, replicas.one(0), name)));
    let certificates = granted.clone().map(|(name, (path, _))| (name, path));
    let id = |number: usize| granted[number].1.1.as_str();
    cluster.make_asynchronous();
    let way = Cut::before(replicas.one(0).address());
    let url = format!("https://{}", way.address());
    let watch = host.watch(replicas.one(0), &url);
    wait_for("the files", || host.trust().join("tls_ca.crt").exists().then_some(()));
    lock(replicas.one(1), id(0));
    host.wait_for(&certificates, &["two", "three"]);
    cluster.leave_standby_behind();
    lock(replicas.one(1), id(1));
    host.wait_for(&certificates, &["three"]);
    wait_for("the other list", || (host.crl() == 2).then_some(()));
    cluster.fail_over();
    let ready = replicas.one(0).client().clone();
    wait_for("that it is noticed", || (ready.get("/readyz").status == 503).then_some(()));
    succeed(&mut replicas.one(0).command(["resume", "--accept-loss"]));
    wait_for("that it goes on", || (ready.get("/readyz").status == 200).then_some(()));
    lock(replicas.one(1), id(2));
    host.wait_for(&certificates, &[]);
    // The list for TLS servers is the old one until what it forgot is over, and that is told.
    wait_for("a warning", || watch.stderr().contains("the authority has forgotten that").then_some(()));
    assert_eq!(host.crl(), 2);
    // The other replica goes on from there.
    let (path, id) = host.grant(&issuer, replicas.one(1), "four");
    replicas.one(0).kill();
    drop(watch);
    let url = format!("https://{}", replicas.one(1).address());
    let _watch = host.watch(replicas.one(1), &url);
    lock(replicas.one(1), &id);
    host.wait_for(&[("four", path)], &[]);
    assert!(host.lets_in(&certificates).is_empty());
}

/// So many times a second that there are others by the time that a host has heard which: it gets those that it has heard of.
#[test]
fn hosts_that_begin_while_jobs_give_back_without_end_have_their_lists_at_once() {
    let (issuer, cluster) = (Issuer::start(), Cluster::start());
    let mut replicas = Replicas::sharing(&issuer, &cluster, 2);
    let load = replicas.load(&issuer).giving_all_back();
    let known = Host::new();
    let begun = std::time::Instant::now();
    let mut watchers = Vec::new();
    load.during(4, || {
        load.goes_on(4);
        for turn in 0..12 {
            let one = replicas.one(turn % 2);
            for host in [&known, &Host::new()] {
                let output = run(&mut host.command("refresh", one, &one.url()));
                assert!(output.status.success() && output.stderr.is_empty(), "{turn}: {output:?}");
            }
            if turn % 4 == 0 {
                let host = Host::new();
                let watch = host.watch(one, &one.url());
                wait_for("the files", || host.trust().join("tls_ca.crt").exists().then_some(()));
                watchers.push((host, watch));
            }
        }
    });
    println!("{} were given back in {:?}", load.given_back(), begun.elapsed());
    for (_, watch) in &watchers {
        assert_eq!(watch.stderr(), "");
    }
    assert!(load.given_back() > 20 && load.troubles().is_empty(), "{:?}", load.troubles());
}
