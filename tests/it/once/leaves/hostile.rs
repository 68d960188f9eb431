//! What an authority says of a leaf cluster, and a leaf of itself, as far as it is believed.

use serde_json::json;

use super::{Clusters, outputs};
use crate::support::fakes::Fake;
use crate::support::process::read;

#[test]
fn a_leaf_is_believed_for_itself_alone() {
    let clusters = Clusters::start();
    let job = clusters.job();
    // Another cluster's authority in its place, and a certificate by another CA.
    clusters.a.state().cluster = "root.test".into();
    clusters.root.state().leaves[1]["ca_pin"] = json!(clusters.a.pin);
    let arguments = super::mixed("d", &[]);
    let outcome = job.run(arguments).good();
    outcome.says(&[
        "is the authority of root.test",
        "leaf b.test: without kubernetes-b.test, since cannot reach",
    ]);
    assert_eq!(outputs(&job.path("d"))[0], ["identity", "application"]);
    assert_eq!(clusters.b.state().asked.len(), 0, "nothing was said to whoever that is");
}

#[test]
fn what_cannot_be_is_not_believed_of_leaves() {
    let clusters = Clusters::start();
    let good = clusters.root.state().leaves.clone();
    let with = |key: &str, value: serde_json::Value| {
        let mut leaves = good.clone();
        leaves[1][key] = value;
        leaves
    };
    let renamed = {
        let mut leaves = good.clone();
        leaves.remove(0);
        leaves
    };
    for (leaves, says) in [
        (with("hosts", json!(["db.a.test"])), "both have the host db.a.test"),
        (with("hosts", json!(["*"])), "neither a name in lower case nor"),
        (with("hosts", json!(["x.test\n@cert-authority * "])), "neither a name in lower case nor"),
        (with("url", json!("http://127.0.0.1:1")), "which is not an authority's"),
        (with("url", json!("https://127.0.0.1:1/x")), "which is not an authority's"),
        (with("ca_pin", json!("sha256:00")), "`ca_pin` that is none"),
        (renamed, "names others than were asked for"),
    ] {
        clusters.root.state().leaves = leaves;
        let job = clusters.job();
        let outcome = job.run(super::mixed("d", &["--timeout", "5s"])).failed(5);
        outcome.says(&["what the authority says of leaf clusters cannot be", says]);
        assert!(!job.path("d").exists());
    }
    assert!(clusters.a.state().asked.is_empty() && clusters.b.state().asked.is_empty());
}

#[test]
fn what_the_configuration_pins_counts_before_what_the_root_says() {
    let clusters = Clusters::start();
    let thief = Fake::start("a.test");
    let pinned = clusters.a.as_leaf(&["*.a.test"]);
    let job = clusters.job();
    let config = json!({"version": "v1", "leaves": [pinned], "outputs": [{"type": "ssh"}, {"type": "ssh", "at": "a.test"}]});
    std::fs::write(job.path("once.yaml"), config.to_string()).unwrap();
    let arguments = ["--config", "once.yaml", "--destination", "d"];
    // A root that was stolen names another place, and other hosts.
    clusters.root.state().leaves = vec![thief.as_leaf(&["*.elsewhere.test"])];
    job.once(arguments).good();
    assert_eq!((thief.state().asked.len(), clusters.a.state().asked.len()), (0, 1));
    let known = read(job.path("d/known_hosts"));
    assert!(!known.contains("elsewhere") && known.contains("@cert-authority *,!*.a.test,"), "{known}");
    // Nor does another leaf have its hosts, be it asked for or not.
    clusters.root.state().leaves = vec![clusters.b.as_leaf(&["db.a.test"])];
    let config = json!({"version": "v1", "leaves": [clusters.a.as_leaf(&["*.a.test"])], "outputs": [{"type": "ssh", "at": "b.test"}]});
    std::fs::write(job.path("once.yaml"), config.to_string()).unwrap();
    job.once(arguments).failed(5).says(&["both have the host db.a.test"]);
    // The root's own CA is believed for none of them, though nothing is asked of that leaf.
    let config =
        json!({"version": "v1", "leaves": [clusters.a.as_leaf(&["*.a.test"])], "outputs": [{"type": "ssh"}]});
    std::fs::write(job.path("once.yaml"), config.to_string()).unwrap();
    job.once(arguments).good();
    assert!(read(job.path("d/known_hosts")).starts_with("@cert-authority *,!*.a.test,"));
    for (leaf, says) in [
        (json!({"name": "a.test"}), "a leaf lacks `url`"),
        (json!({"name": "a.test", "url": "x"}), "not an authority's"),
        (json!({"name": "a.test", "url": "https://a", "hosts": ["*"]}), "neither a name in lower case nor"),
        (json!({"name": "a.test", "url": "https://a", "host": ["x"]}), "did you mean `hosts`"),
    ] {
        std::fs::write(job.path("bad.yaml"), json!({"version": "v1", "leaves": [leaf]}).to_string()).unwrap();
        job.once(["--config", "bad.yaml"]).failed(2).says(&[says]);
    }
}
