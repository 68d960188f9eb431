//! The same with real authorities: a root, a leaf that maps its roles, and one that does not.

use serde_json::{Value, json};
use tempfile::TempDir;

use super::outputs;
use crate::support::authority::{Authority, CLUSTER};
use crate::support::fakes::FakeHost;
use crate::support::issuer::{Endpoint, Issuer};
use crate::support::once::{Job, manifest};
use crate::support::policies;
use crate::support::process::{command, read, succeed};
use crate::support::sshd::{Sshd, login};
use crate::support::wait_for;

fn pin(authority: &Authority) -> String {
    succeed(&mut authority.command(["export", "tls-ca-pin"])).trim().to_owned()
}

/// A leaf that trusts the root, whose roles of that name have a login here.
fn leaf(cluster: &'static str, root: &Authority, remote: &str) -> Authority {
    let trusted = json!({
        "kind": "trusted_cluster", "version": "v2", "metadata": {"name": CLUSTER},
        "spec": {"url": root.url(), "ca_pin": pin(root), "role_map": [{"remote": remote, "local": ["guest"]}]},
    });
    let role = json!({
        "kind": "role", "version": "v7", "metadata": {"name": "guest"},
        "spec": {"allow": {"logins": [login()], "node_labels": {"*": "*"}}},
    });
    Authority::with_policy(&format!("{trusted}\n---\n{role}\n")).cluster(cluster).start()
}

/// What the root says of it.
fn leaf_cluster(leaf: &Authority, name: &str) -> String {
    let resource = json!({
        "kind": "leaf_cluster", "version": "v1", "metadata": {"name": name},
        "spec": {"url": leaf.url(), "ca_pin": pin(leaf), "hosts": [format!("*.{name}")], "roles": ["deploy"]},
    });
    format!("---\n{resource}\n")
}

/// An sshd of that authority's, for these names.
fn host(authority: &Authority, name: &str) -> FakeHost {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    succeed(command("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path("host_key")));
    let mut sign = authority.command(["sign-host", "--principal", name]);
    std::fs::write(path("host_key-cert.pub"), succeed(sign.arg(path("host_key.pub")))).unwrap();
    let ca = succeed(&mut authority.command(["export", "ssh-user-ca"]));
    std::fs::write(path("user_ca.pub"), ca).unwrap();
    let dir = folder.path().display();
    let sshd = Sshd::with_config(&format!(
        "HostKey {dir}/host_key\nHostCertificate {dir}/host_key-cert.pub\nTrustedUserCAKeys {dir}/user_ca.pub\n\
         AuthorizedKeysFile none\n"
    ));
    FakeHost::of(sshd, folder)
}

fn events(authority: &Authority, kind: &str) -> Vec<Value> {
    authority.audit().into_iter().filter(|event| event["event"] == kind).collect()
}

#[test]
fn a_job_of_the_root_is_at_home_in_each_leaf_that_maps_its_roles() {
    let issuer = Issuer::start();
    let policy = policies::basic(&issuer).replace("values: [ubuntu]", &format!("values: ['{}']", login()));
    let root = Authority::trusting(&issuer, &policy);
    let (a, b) = (leaf("a.test", &root, "dep*"), leaf("b.test", &root, "admin"));
    root.write_policy(&(policy + &leaf_cluster(&a, "a.test") + &leaf_cluster(&b, "b.test")));
    root.hup();
    let job = Job::new().envs(issuer.github_environment()).told(&root, "github-deploy");
    let arguments = [
        "--destination",
        "d",
        "--output",
        "identity",
        "--output",
        "identity,at=a.test",
        "--output",
        "ssh,at=b.test",
    ];
    let outcome = wait_for("the policy", || Some(job.once(arguments)).filter(|outcome| outcome.code == 0));
    assert_eq!(events(&a, "issued").len(), 1);
    let destination = job.path("d");
    assert_eq!(outputs(&destination), [vec!["identity", "identity-a.test"], vec!["ssh-b.test"]]);
    let manifest = manifest(&destination);
    let denial = manifest["missing"][0]["denial_id"].as_str().unwrap();
    assert_eq!(b.refusal(denial)["reason"], "role_not_mapped", "{}", outcome.stderr);
    outcome.says(&["leaf b.test: without ssh-b.test, since the authority refused: ", denial]);
    // Both are the one job, by the name that each has for it.
    let of_leaf = a.issuance(manifest["outputs"][1]["issuance_id"].as_str().unwrap());
    assert_eq!(
        (&of_leaf["bot"], &of_leaf["origin"]["issuance_id"]),
        (&json!("deployer@id.test"), &manifest["issuance_id"])
    );
    // Plain `ssh` lets it in at a host of each, and believes neither for the other's.
    let (of_root, of_a) = (host(&root, "web.test"), host(&a, "db-1.a.test"));
    let config = job.path("d/ssh_config");
    assert!(read(&config).contains("/d/identity-a.test/revoked_hosts.krl\"\n"), "{}", read(&config));
    of_root.login(&config, "web.test", "22").unwrap();
    of_a.login(&config, "db-1.a.test", "2222").unwrap();
    of_a.sshd.wait_for_log("ID deployer@id.test ");
    for (fake, name) in [(host(&root, "db-1.a.test"), "db-1.a.test"), (host(&a, "web.test"), "web.test")] {
        let why = fake.login(&config, name, "22").unwrap_err();
        assert!(why.contains("Host key verification failed"), "{name}: {why}");
    }
    let minted = issuer.count(Endpoint::Token);
    let issued = [&root, &a].map(|authority| events(authority, "issued").len());
    job.run(["cleanup", "d"]).good();
    assert!(!destination.exists());
    for authority in [&root, &a] {
        wait_for("its revocation", || (events(authority, "revoked").len() == 1).then_some(()));
    }
    assert_eq!(issued, [1, 1], "{minted} tokens");
}
