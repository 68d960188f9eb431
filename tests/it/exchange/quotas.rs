//! What a job that is let in may have, and what it takes of the disk.

use serde_json::{Value, json};

use super::Bench;
use crate::support::authority::Authority;
use crate::support::client::{Keys, request};
use crate::support::issuer::Issuer;
use crate::support::softhsm::{CONF, SoftHsm};
use crate::support::token::Token;
use crate::support::{base64url, fresh, policies, wait_for};

pub(super) fn bench(limits: &str) -> Bench {
    let issuer = Issuer::start();
    let authority = Authority::with_policy(&policies::basic(&issuer)).issuer(&issuer).config(limits).start();
    Bench { issuer, authority }
}

/// A request for so many outputs of one job, through a token of this run.
pub(super) fn of_run(bench: &Bench, run: &str, outputs: usize, roles: &[&str]) -> Value {
    let keys = Keys::fresh();
    let output = |n| {
        let mut output = keys.output();
        output["name"] = json!(format!("output-{n}"));
        if !roles.is_empty() {
            output["roles"] = json!(roles);
        }
        output
    };
    let outputs: Vec<Value> = (0..outputs).map(output).collect();
    request("github-deploy", "github", &token(bench, run).mint(), json!(outputs))
}

/// Not bound to keys, so that one token serves any outputs.
fn token(bench: &Bench, run: &str) -> Token {
    bench.unbound().claim("run_id", run).claim("jti", fresh())
}

#[test]
fn what_could_not_be_issued_is_not_taken_from_the_quota() {
    let bench = bench("limits: {certificates_per_hour_of_run: 32, certificates_per_hour_of_token: 32}\n");
    let ask = || bench.authority.client().exchange(&of_run(&bench, "1", 16, &[]));
    let [store, away] = ["authority.db", "away"].map(|name| bench.authority.data_dir().join(name));
    std::fs::rename(&store, &away).unwrap();
    for _ in 0..3 {
        assert_eq!(ask().problem(503)["type"], "urn:machine-id:store-unavailable");
    }
    std::fs::rename(&away, &store).unwrap();
    ask().granted();
    assert_eq!(ask().problem(429)["type"], "urn:machine-id:quota-token");
}

#[test]
fn what_was_recorded_and_not_signed_is_not_taken_from_the_quota() {
    let folder = tempfile::TempDir::new().unwrap();
    let hsm = SoftHsm::new(folder.path());
    hsm.add("ca");
    let issuer = Issuer::start();
    let limits = "limits: {certificates_per_hour_of_run: 32, certificates_per_hour_of_token: 32}\n";
    let builder = Authority::with_policy(&policies::basic(&issuer)).issuer(&issuer).config(limits);
    let builder = builder.keys(&hsm.uri("ca"), &[(CONF, hsm.conf().to_str().unwrap())]);
    let bench = Bench { issuer, authority: builder.start() };
    let request = of_run(&bench, "1", 16, &[]);
    let ask = || bench.authority.client().exchange(&request);
    let is_ready = || bench.authority.client().get("/readyz").status == 200;
    hsm.take_away();
    wait_for("not to be ready", || (!is_ready()).then_some(()));
    for _ in 0..3 {
        assert_eq!(ask().problem(503)["type"], "urn:machine-id:keys-unavailable");
    }
    hsm.put_back();
    wait_for("to be ready", || is_ready().then_some(()));
    ask().granted();
    assert_eq!(ask().problem(429)["type"], "urn:machine-id:quota-token");
}

#[test]
fn a_run_has_a_quota_and_others_go_on() {
    let bench = bench("limits: {certificates_per_hour_of_run: 64, certificates_per_hour_of_token: 190}\n");
    let ask = |run: &str, outputs, roles: &[&str]| {
        bench.authority.client().exchange(&of_run(&bench, run, outputs, roles))
    };
    // 32 certificates each.
    for _ in 0..2 {
        ask("1", 16, &[]).granted();
    }
    let refused = ask("1", 16, &[]);
    let problem = refused.problem(429);
    assert_eq!(problem["type"], "urn:machine-id:quota-run");
    assert_eq!(problem["title"], "this run has been given as many certificates as it may have in an hour");
    assert_eq!(problem["detail"], "at most 64 at once, and then each hour");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1700..=1800).contains(&wait), "32 certificates at 64 an hour: {wait} s");
    ask("2", 1, &[]).granted();
    // A job that is let in and refused each time fills the trail no further.
    let denied = (0..100).take_while(|_| ask("3", 1, &["admin"]).status == 403).count();
    assert_eq!(denied, 64);
    ask("3", 1, &["admin"]).problem(429);
    ask("4", 16, &[]).granted();
    assert_eq!(ask("5", 16, &[]).problem(429)["type"], "urn:machine-id:quota-token");
    let events = |event: &str| bench.authority.audit().iter().filter(|one| one["event"] == event).count();
    assert_eq!((events("issued"), events("refused")), (4, 64), "what is over the quota leaves no record");
    bench.authority.wait_for_stderr("quota-run: this run has been given as many");
}

/// What an issuance takes of the disk for good, and until its token has expired.
#[test]
fn an_issuance_takes_a_bounded_part_of_the_disk() {
    const MANY: u64 = 100;
    let mut bench = bench("");
    // Claims as long as a token may be are not kept whole.
    let long = |n: usize| base64url(vec![7; n]);
    let mut before = 0;
    for (what, outputs, claims, most) in [
        ("the first", 1, 0, 200_000),
        ("1 output", 1, 0, 6_000),
        ("16 outputs", 16, 0, 30_000),
        ("1 output with long claims", 1, 7000, 10_000),
    ] {
        for _ in 0..MANY {
            let mut request = of_run(&bench, "1", outputs, &[]);
            if claims > 0 {
                request["proof"]["id_token"] = json!(token(&bench, "1").claim("long", long(claims)).mint());
            }
            bench.authority.client().exchange(&request).granted();
        }
        bench.authority.terminate();
        let size = std::fs::metadata(bench.authority.data_dir().join("authority.db")).unwrap().len();
        println!("{what}: {} bytes an issuance", (size - before) / MANY);
        assert!((size - before) / MANY < most, "{what}: {}", (size - before) / MANY);
        before = size;
        bench.authority.restart();
    }
}
