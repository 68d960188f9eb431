//! CA keys in AWS KMS: `docs/keys.md`. KMS is moto, behind TLS and a proxy that leads every host of AWS's to it; it verifies
//! what is signed with botocore. How hostile answers are taken is in `src/authority/keys/awskms/tests.rs` too.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::client::Keys;
use crate::support::cluster::{Cluster, Role};
use crate::support::issuer::{Fault, Issuer};
use crate::support::kms::{KEYS, Kms, actions};
use crate::support::process::{machine_id, run};
use crate::support::replicas::Replicas;
use crate::support::{wait_for, wait_slowly_for};

const JOBS: usize = 8;
/// The keys, in the order in which they are made.
const ALL: [&str; 6] = ["ssh-user", "ssh-host", "statement", "federation", "federation-next", "tls"];

#[test]
fn it_is_asked_for_what_the_page_allows_and_no_more() {
    let (kms, issuer) = (Kms::start(), Issuer::start());
    let mut authority = kms.authority(&issuer, "compatible").start();
    let of = |name: &str| (format!("alias/ca-{name}"), "ECC_NIST_P256".to_owned(), "Enabled".to_owned());
    assert_eq!(kms.keys(), ALL.map(of));
    // What the page allows is what is asked for, and no more.
    let mut init: BTreeSet<String> = actions("init.json").into_iter().collect();
    for unused in ["kms:DeleteAlias", "kms:DescribeKey", "kms:ScheduleKeyDeletion"] {
        assert!(init.remove(unused), "{unused}");
    }
    assert_eq!(kms.asked(), init);
    kms.allow(&["serve.json"]);
    authority.restart();
    assert!(authority.is_ready());
}

#[test]
fn kms_may_be_away_for_a_while() {
    let (kms, issuer) = (Kms::start(), Issuer::start());
    // moto has no Ed25519, and is given some.
    let replicas = Replicas::of(vec![kms.authority(&issuer, "modern").start()]);
    assert_eq!(kms.keys().iter().filter(|(_, spec, _)| spec == "ECC_NIST_EDWARDS25519").count(), 3);
    let load = replicas.load(&issuer);
    let mut replicas = replicas;
    load.during(JOBS, || {
        load.goes_on(50);
        for fault in [Fault::Hang, Fault::Drop, Fault::Status(503)] {
            assert!(replicas.one(0).is_ready());
            kms.fails(fault);
            load.fails_with("keys-unavailable");
            wait_for("not to be ready", || (!replicas.one(0).is_ready()).then_some(()));
            kms.heals();
            load.goes_on(50);
            wait_for("to be ready", || replicas.one(0).is_ready().then_some(()));
        }
        load.steal_what_was_used();
    });
    load.holds(|| replicas.audit());
    let said = replicas.one(0).stderr();
    assert!(said.contains("AWS KMS in eu-central-1, alias/ca-"), "{said}");
    for (name, secret) in kms.environment() {
        assert!(!name.contains("SECRET") || !said.contains(&secret), "{said}");
    }
    assert!(replicas.one(0).terminate().success());
}

#[test]
fn authorities_share_keys_and_a_store() {
    let (kms, issuer, cluster) = (Kms::start(), Issuer::start(), Cluster::start());
    let urls = [Role::Owner, Role::Server].map(|role| cluster.url(role));
    let first = kms.authority(&issuer, "modern").store(&urls[0], &urls[1]).start();
    let second = first.replica();
    let mut replicas = Replicas::of(vec![first, second]);
    let load = replicas.load(&issuer);
    load.during(JOBS, || {
        load.goes_on(50);
        kms.fails(Fault::Status(503));
        load.fails_with("keys-unavailable");
        replicas.one(1).kill();
        kms.heals();
        replicas.one(1).restart();
        load.goes_on(50);
    });
    load.holds(|| replicas.audit());
}

#[test]
fn what_kms_answers_wrongly_is_issued_to_nobody() {
    let (kms, issuer) = (Kms::start(), Issuer::start());
    let authority = kms.authority(&issuer, "compatible").start();
    let keys = Keys::fresh();
    let token = issuer.token("github", &keys.audience(&authority.url())).mint();
    let request = keys.request("github-deploy", "github", &token);
    let ask = || authority.client().exchange(&request);
    // As long as one, and in its form.
    let wrong =
        "MEUCIQCq3FAAN0S9LCq0o5v0m6yxWr6nXk0wq3Zk1c0b5mCqWQIgFmP8zP1cB0m2r0QqkQ1c5d6yGJ9uXkqk6tWJw4oYJZ8=";
    for fault in [
        Fault::Body(json!({"KeyId": "x", "Signature": wrong}).to_string()),
        Fault::Body("<html>".to_owned()),
        Fault::Huge(1 << 20),
        Fault::Redirect("https://other.example.com/".to_owned()),
    ] {
        let name = format!("{fault:?}");
        kms.fails(fault);
        let answer = ask();
        assert!([500, 503].contains(&answer.status), "{name}: {}", answer.text());
        assert!(!answer.text().contains("cert-v01"), "{name}");
    }
    authority.wait_for_stderr("what AWS KMS answers for alias/ca-ssh-user is no signature by that key");
    // A key that an operator takes away, and gives back.
    kms.heals();
    // What many jobs could cause is logged once a second.
    let refused = |says: &str| {
        wait_slowly_for(says, Duration::from_millis(300), || {
            assert_eq!(ask().problem(503)["type"], "urn:machine-id:keys-unavailable");
            authority.stderr().contains(says).then_some(())
        });
    };
    kms.enable("alias/ca-ssh-user", false);
    refused("alias/ca-ssh-user: the key is disabled");
    kms.enable("alias/ca-ssh-user", true);
    kms.allow(&[]);
    refused("access is denied: User: arn:aws:iam::123456789012:user/authority is not authorized");
    kms.allow(&["serve.json"]);
    // What was recorded is what it gets now; nothing was recorded twice.
    let granted = ask().granted();
    let again = ask().granted();
    assert_eq!(granted["issuance_id"], again["issuance_id"]);
    let issued: Vec<Value> =
        authority.audit().into_iter().filter(|event| event["event"] == "issued").collect();
    assert_eq!(issued.len(), 1);
    assert_eq!(issued[0]["issuance_id"], granted["issuance_id"]);
}

#[test]
fn what_a_failed_init_leaves_is_named() {
    let kms = Kms::start();
    let folder = TempDir::new().unwrap();
    let init = |name: &str, keys: &str, others: &[(&str, &str)]| {
        let data = folder.path().join(name);
        let mut init = machine_id([
            "authority",
            "init",
            "--cluster",
            "id.test",
            "--suite",
            "compatible",
            "--keys",
            keys,
        ]);
        init.args(["--public-url", "https://id.test", "--data-dir"]).arg(&data);
        let output = run(init.envs(kms.environment()).envs(others.iter().copied()));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() == data.exists(), "{said}");
        (output.status.code().unwrap(), said)
    };
    // An alias that is somebody else's stands in the way of the third.
    assert_eq!(init("zero", "awskms:alias/taken", &[]).0, 0);
    let (code, said) = init("one", "awskms:alias/taken", &[]);
    assert!(
        code == 2
            && said.contains("there is the key alias/taken-ssh-user in AWS KMS, region eu-central-1 already"),
        "{said}"
    );
    assert!(!said.contains("to be destroyed"), "{said}");
    assert_eq!(kms.keys().len(), ALL.len());
    // Nothing can be named: the key that was made is taken back.
    let may = |kept: &dyn Fn(&str) -> bool| {
        kms.allow_actions(actions("init.json").into_iter().filter(|action| kept(action)));
    };
    may(&|action| action != "kms:CreateAlias");
    let (code, said) = init("two", "awskms:alias/b", &[]);
    assert!(
        code == 2 && said.contains("access is denied") && said.contains("is deleted in 7 days"),
        "{said}"
    );
    assert_eq!(
        kms.keys()[ALL.len()],
        (String::new(), "ECC_NIST_P256".to_owned(), "PendingDeletion".to_owned())
    );
    // Nothing can be signed: what was made is named.
    may(&|action| action != "kms:Sign");
    let (code, said) = init("three", "awskms:alias/c", &[]);
    assert!(code == 5 && said.contains("access is denied"), "{code} {said}");
    let left = ALL.map(|name| format!("the key alias/c-{name} in AWS KMS, region eu-central-1"));
    assert!(said.contains(&format!("are to be destroyed: {}", left.join(", "))), "{said}");
    for (keys, others, code, says) in [
        ("awskms:ca", ("A", "b"), 2, "is not `awskms:alias/PREFIX`"),
        (KEYS, ("AWS_REGION", "mars"), 2, "no AWS region that has a known KMS"),
        (KEYS, ("AWS_ENDPOINT_URL", "http://10.0.0.1"), 2, "without TLS"),
        (KEYS, ("AWS_SECRET_ACCESS_KEY", ""), 2, "AWS_SECRET_ACCESS_KEY is not or is empty"),
        (KEYS, ("AWS_SECRET_ACCESS_KEY", "wrong"), 2, "AWS does not take what is signed"),
        (KEYS, ("AWS_ENDPOINT_URL_KMS", "https://127.0.0.1:1"), 5, "is not reached"),
    ] {
        let (found, said) = init("four", keys, &[others]);
        assert!(found == code && said.contains(says), "{keys} {others:?}: {found} {said}");
    }
}
