//! Outputs at leaf clusters: one command and one platform token for the authority and any number of leaves.

mod hostile;
mod real;
mod ssh;
mod wrapped;

use std::collections::BTreeSet;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::files;
use crate::support::fakes::{Fake, Manner, binding_of};
use crate::support::issuer::{Endpoint, Issuer};
use crate::support::once::{Job, manifest};
use crate::support::port::free_port;
use crate::support::process::read;

/// A platform, a root, and two leaves of which it says where they are.
struct Clusters {
    issuer: Issuer,
    root: Fake,
    a: Fake,
    b: Fake,
}

impl Clusters {
    fn start() -> Self {
        let [root, a, b] = ["root.test", "a.test", "b.test"].map(Fake::start);
        root.state().leaves = vec![a.as_leaf(&["*.a.test", "a-bastion.test"]), b.as_leaf(&["*.b.test"])];
        Self { issuer: Issuer::start(), root, a, b }
    }

    fn job(&self) -> Job {
        self.root.joined_by(Job::new().envs(self.issuer.github_environment()))
    }

    fn all_back(&self) -> [bool; 3] {
        [&self.root, &self.a, &self.b].map(Fake::has_all_back)
    }
}

/// Two outputs of the root's, and one of each leaf's.
const MIXED: [&str; 10] = [
    "once",
    "--output",
    "identity",
    "--output",
    "application,app=x",
    "--output",
    "ssh,at=a.test",
    "--output",
    "kubernetes,cluster=prod,at=b.test",
    "--destination",
];

fn mixed<'a>(destination: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    MIXED.into_iter().chain([destination]).chain(more.iter().copied()).collect()
}

fn audience(token: &str) -> String {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice::<Value>(&payload).unwrap()["aud"].as_str().unwrap().to_owned()
}

/// The names of a destination's outputs, and of those that are missing.
fn outputs(destination: &Path) -> [Vec<String>; 2] {
    ["outputs", "missing"].map(|kind| {
        let manifest = manifest(destination);
        let all = manifest[kind].as_array().into_iter().flatten();
        all.map(|output| output["name"].as_str().unwrap().to_owned()).collect()
    })
}

#[test]
fn one_token_buys_what_the_root_and_each_leaf_issue() {
    let clusters = Clusters::start();
    let job = clusters.job();
    let destination = job.text_path("d");
    let outcome = job.run(mixed(&destination, &[])).good();
    let destination = outcome.destination();
    assert_eq!(clusters.issuer.count(Endpoint::Token), 1);
    let [root, a, b] = [&clusters.root, &clusters.a, &clusters.b].map(|fake| fake.state().asked.clone());
    assert_eq!((root.len(), a.len(), b.len()), (1, 1, 1));
    // Bound to the keys at the root, and to what will be asked for at the leaves.
    assert_eq!(
        audience(&clusters.issuer.minted()[0]),
        format!("{}#{}", clusters.root.url(), binding_of(&root[0]))
    );
    for (leaf, request) in root[0]["leaves"].as_array().unwrap().iter().zip([&a[0], &b[0]]) {
        assert_eq!(leaf["binding"], binding_of(request));
        assert_eq!(
            (&request["token"], &request["join_method"]),
            (&json!("root.test"), &json!("trusted_cluster"))
        );
        let proof = request["proof"]["id_token"].as_str().unwrap();
        assert!(proof.starts_with("e30."), "{proof}");
        // Its signature alone is masked.
        let signature = proof.rsplit('.').next().unwrap();
        assert!(
            outcome.stderr.contains(&format!("::add-mask::{signature}\n")) && !outcome.stderr.contains(proof)
        );
    }
    let manifest = manifest(&destination);
    let entries = manifest["outputs"].as_array().unwrap();
    let names: Vec<_> = entries.iter().map(|entry| entry["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["identity", "application", "ssh-a.test", "kubernetes-b.test"]);
    for (entry, fake) in entries.iter().zip([&clusters.root, &clusters.root, &clusters.a, &clusters.b]) {
        assert_eq!(
            (&entry["cluster"], &entry["authority"]),
            (&json!(fake.state().cluster), &json!(fake.url()))
        );
        assert_eq!(entry["issuance_id"], fake.state().issued[0]);
    }
    assert_eq!(
        (&manifest["cluster"], entries[2]["ca_pin"].as_str()),
        (&json!("root.test"), Some(&*clusters.a.pin))
    );
    assert!(manifest["missing"].is_null());
    // Each with its own cluster's trust.
    let known = |file: &str| read(destination.join(file));
    assert!(
        known("identity/known_hosts").starts_with("@cert-authority *,!*.a.test,![*.a.test]:*,!*.a.test.,")
    );
    assert!(known("ssh-a.test/known_hosts").starts_with("@cert-authority *.a.test,[*.a.test]:*,*.a.test.,"));
    assert_eq!(
        known("known_hosts"),
        known("identity/known_hosts") + &known("ssh-a.test/known_hosts"),
        "{}",
        known("known_hosts")
    );
    assert!(known("kubernetes-b.test/kubeconfig.yaml").contains("current-context: \"prod@b.test\"\n"));
    let (words, json) = (
        job.run(["inspect", &destination.display().to_string()]).good().stdout,
        job.run(["inspect", &destination.display().to_string(), "--format", "json"]).good().stdout,
    );
    assert!(words.contains("ssh-a.test (ssh at a.test)"), "{words}");
    assert!(json.contains("\"ssh-a.test/key-cert.pub\""), "{json}");
    // Everything is taken away, and given back where it is from.
    job.run(["cleanup", &destination.display().to_string()]).good();
    assert!(!destination.exists());
    assert_eq!(clusters.all_back(), [true; 3]);
    assert_eq!(clusters.a.state().revoked.len(), 1);
}

#[test]
fn a_run_may_be_of_one_leaf_alone() {
    let clusters = Clusters::start();
    let job = clusters.job();
    let destination = job.once(["--at", "a.test", "--output", "ssh"]).good().destination();
    let expected = ["key", "key.pub", "key-cert.pub", "ssh_config", "known_hosts", "manifest.json"];
    assert_eq!(files(&destination), expected.map(str::to_owned).into());
    assert_eq!(clusters.root.state().asked[0]["outputs"], json!([]));
    let text = destination.display().to_string();
    let said = crate::support::once::heredocs(&job.said("GITHUB_OUTPUT"));
    assert_eq!(said["ssh-config"], format!("{text}/ssh_config"));
    // The same again renews it, and gives back what is replaced.
    job.once(["--at", "a.test", "--output", "ssh", "--destination", &text]).good();
    assert_eq!(clusters.a.state().revoked.len(), 1);
    job.run(["cleanup", &text]).good();
    assert!(clusters.a.has_all_back() && !destination.exists());
}

#[test]
fn a_leaf_that_gives_nothing_costs_its_own_outputs() {
    let clusters = Clusters::start();
    clusters.a.state().manners = vec![Manner::Refuses("d-4711")];
    let nobody = json!({"name": "b.test", "url": format!("https://{}", free_port()), "ca_pin": clusters.b.pin, "hosts": ["*.b.test"]});
    clusters.root.state().leaves[1] = nobody;
    let job = clusters.job();
    let destination = job.text_path("d");
    let outcome = job.run(mixed(&destination, &["--timeout", "2s"])).good();
    outcome.says(&[
        "leaf a.test: without ssh-a.test, since the authority refused: nothing is mapped (denial d-4711: its operator sees why",
        "leaf b.test: without kubernetes-b.test, since cannot reach https://",
    ]);
    let destination = outcome.destination();
    assert_eq!(
        outputs(&destination),
        [vec!["identity", "application"], vec!["ssh-a.test", "kubernetes-b.test"]]
    );
    let manifest = manifest(&destination);
    let missing = &manifest["missing"];
    assert_eq!((&missing[0]["at"], &missing[0]["denial_id"]), (&json!("a.test"), &json!("d-4711")));
    assert!(missing[0]["reason"].as_str().unwrap().contains("nothing is mapped"), "{missing}");
    assert!(missing[1]["denial_id"].is_null());
    // The root's CA is believed for no host of theirs all the same.
    assert!(read(destination.join("known_hosts")).starts_with("@cert-authority *,!*.a.test,"));
    assert!(job.said("GITHUB_STEP_SUMMARY").contains("| missing |"));
    let words = job.run(["inspect", &destination.display().to_string()]).good().stdout;
    assert!(words.contains("missing: ssh-a.test (at a.test): "), "{words}");
    // The next run finds nothing of this one in its way, and the rest is there.
    clusters.a.state().manners = vec![Manner::Grants];
    job.run(mixed(&destination.display().to_string(), &["--timeout", "2s"])).good();
    assert_eq!(outputs(&destination)[1], ["kubernetes-b.test"]);
}

#[test]
fn nothing_at_all_or_not_all_that_is_required_is_a_failure() {
    let clusters = Clusters::start();
    let job = clusters.job();
    let destination = job.text_path("d");
    let before = job.run(mixed(&destination, &[])).good().destination();
    let kept = crate::support::once::snapshot(&before);
    let refuse = || vec![Manner::Refuses("d-1")];
    clusters.a.state().manners = refuse();
    // All or nothing: what the root and the other leaf gave goes back, what was there stays.
    let outcome = job.run(mixed(&destination, &["--require-all"])).failed(4);
    outcome.says(&["error: leaf a.test: the authority refused: nothing is mapped", "denial d-1"]);
    assert_eq!(crate::support::once::snapshot(&before), kept);
    assert_eq!(clusters.root.state().revoked.len(), 1);
    assert_eq!(clusters.b.state().revoked.len(), 1);
    clusters.b.state().manners = vec![Manner::Cuts];
    job.run(mixed(&destination, &["--require-all", "--timeout", "1s"])).failed(5);
    // Without it, what there is is enough; but there must be something.
    let of_leaves = ["--output", "ssh,at=a.test", "--output", "ssh,at=b.test", "--timeout", "1s"];
    job.once(of_leaves).failed(5);
    clusters.b.state().manners = refuse();
    let outcome = job.once(of_leaves).failed(4);
    outcome.says(&["leaf a.test: ", "; and leaf b.test: "]);
    assert_eq!(job.left(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_lost_reply_is_asked_for_again_with_the_same_proof() {
    let clusters = Clusters::start();
    clusters.a.state().manners = vec![Manner::Loses, Manner::Cuts, Manner::Grants];
    let job = clusters.job();
    job.run(mixed(&job.text_path("d"), &[])).good();
    let asked = clusters.a.state().asked.clone();
    let different: BTreeSet<String> = asked.iter().map(Value::to_string).collect();
    assert_eq!((asked.len(), different.len()), (3, 1));
    assert_eq!((clusters.issuer.count(Endpoint::Token), clusters.root.state().asked.len()), (1, 1));
}

#[test]
fn what_is_asked_for_at_leaves_is_checked() {
    let clusters = Clusters::start();
    let job = clusters.job();
    for (arguments, says) in [
        (["--output", "ssh,at=A.test"], "cannot be the name of a leaf cluster"),
        (["--output", "ssh,at=../x"], "cannot be the name of a leaf cluster"),
        (["--output", "ssh,name=known_hosts"], "cannot be the name of an output"),
        (["--output", "ssh,at=a.test,at=b.test"], "`at` is there twice"),
    ] {
        job.once(arguments).failed(2).says(&[says]);
    }
    let differ = ["--output", "ssh,at=a.test,roles=x", "--output", "application,app=x,at=a.test"];
    job.once(differ).failed(2).says(&["ask for different roles"]);
    // The roles are the root's to vouch for.
    job.once(["--output", "ssh,at=a.test", "--role", "x"]).good();
    assert_eq!(clusters.root.state().asked[0]["leaves"][0]["roles"], json!(["x"]));
    assert!(clusters.a.state().asked[0]["outputs"][0]["roles"].is_null());
}
