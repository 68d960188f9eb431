//! The real kubectl reads the kubeconfig, against a server that judges
//! certificates as kube-apiserver does.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::kube::{Kube, User};
use crate::support::once::{Job, Outcome, World, heredocs};
use crate::support::process::{command, read, run, succeed};
use crate::support::servers::world_of;

const PAGE: &[&str] = &["kubernetes.md"];
const MORE: &str = "---\nkind: role\nversion: v7\nmetadata: {name: groups}\nspec:\n  allow: {kubernetes_users: ['ci:deployer'], kubernetes_groups: [ci-viewers, 'system:masters', admins]}\n  deny: {kubernetes_groups: [adm*]}\n";

fn output(kube: &Kube, roles: &str) -> String {
    format!("kubernetes,cluster=prod,server={},roles={roles}", kube.url())
}

#[track_caller]
fn kubeconfig(world: &World, output: &str) -> (Job, PathBuf) {
    let job = world.github();
    let destination = job.once(["--output", output]).good().destination();
    (job, destination.join("kubeconfig.yaml"))
}

fn kubectl<const N: usize>(kubeconfig: &Path, args: [&str; N]) -> Command {
    let mut kubectl = command("kubectl");
    kubectl.arg("--kubeconfig").arg(kubeconfig).arg("--cache-dir").arg(kubeconfig.with_file_name("cache"));
    kubectl.args(args);
    kubectl
}

#[test]
fn kubectl_reads_pods_as_the_certificates_groups_may() {
    let world = world_of(PAGE, &["kube", "kube-nothing"], "");
    let kube = Kube::start(&world.authority);

    // A wrapped command finds it by its environment.
    let job = world.github();
    let wanted = output(&kube, "kube");
    let args = ["once", "--output", &wanted, "--", "kubectl", "get", "pods", "-n", "orders", "-o", "name"];
    assert_eq!(job.run(args).good().stdout, "pod/orders-1\n");
    let user = User { name: "ci:deployer".to_owned(), groups: vec!["ci-viewers".to_owned()] };
    assert!(!kube.users().is_empty() && kube.users().iter().all(|seen| *seen == user), "{:?}", kube.users());

    let (job, file) = kubeconfig(&world, &wanted);
    assert_eq!(heredocs(&job.said("GITHUB_ENV"))["KUBECONFIG"], file.display().to_string());
    assert!(succeed(&mut kubectl(&file, ["version"])).contains("Server Version: v1.32.0"));
    assert_eq!(succeed(&mut kubectl(&file, ["auth", "can-i", "get", "pods", "-n", "orders"])), "yes\n");
    assert_eq!(succeed(&mut kubectl(&file, ["config", "current-context"])), "prod\n");

    // The server decides: a user in no group may not.
    let (_job, nobody) = kubeconfig(&world, &output(&kube, "kube-nothing"));
    let denied = Outcome::of(&run(&mut kubectl(&nobody, ["get", "pods", "-n", "orders"]))).failed(1);
    denied.says(&["Forbidden", "User \"ci:nobody\" cannot list"]);
    assert_eq!(kube.users().last().unwrap(), &User { name: "ci:nobody".to_owned(), groups: Vec::new() });
}

#[test]
fn a_certificate_of_another_authority_is_nobody() {
    let (world, stranger) = (world_of(PAGE, &["kube"], ""), world_of(PAGE, &["kube"], ""));
    let kube = Kube::start(&world.authority);
    // With the server's CA, so that it is the server who refuses.
    let wanted = format!("{},server-ca={}", output(&kube, "kube"), kube.ca().display());
    let (_job, file) = kubeconfig(&stranger, &wanted);
    let refused = run(&mut kubectl(&file, ["get", "pods", "-n", "orders"]));
    assert!(!refused.status.success(), "{refused:?}");
    assert!(kube.users().is_empty(), "{:?}", kube.users());
    // And without it, the client does.
    let (_job, file) = kubeconfig(&stranger, &output(&kube, "kube"));
    let refused = run(&mut kubectl(&file, ["get", "pods", "-n", "orders"]));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("x509"), "{refused:?}");
}

#[test]
fn denied_groups_and_users_are_not_in_it() {
    let world = world_of(PAGE, &["kube", "kube-nothing", "groups"], MORE);
    let kube = Kube::start(&world.authority);
    let (_job, file) = kubeconfig(&world, &output(&kube, "kube+groups"));
    succeed(&mut kubectl(&file, ["get", "pods", "-n", "orders"]));
    assert_eq!(kube.users()[0].groups, ["ci-viewers", "system:masters"]);
    // The record says what it is and whom it makes: in JSON and in words.
    let issued = world.authority.audit().into_iter().find(|event| event["event"] == "issued").unwrap();
    let output = &issued["outputs"][0];
    assert_eq!(
        (output["type"].as_str(), output["kind"].as_str()),
        (Some("kubernetes"), Some("tls")),
        "{issued}"
    );
    assert_eq!(output["options"], serde_json::json!({"cluster": "prod"}), "{issued}");
    assert_eq!(output["groups"], serde_json::json!(["ci-viewers", "system:masters"]), "{issued}");
    let words = succeed(&mut world.authority.command(["audit", "--event", "issued"]));
    let wanted = " types=kubernetes options=\"cluster=prod\" principals=ci:deployer groups=ci-viewers,system:masters expires=";
    assert!(words.contains(wanted), "{words}");
    let job = world.github();
    for (options, says) in [
        (",user=system:admin", "the Kubernetes user `system:admin` is not granted"),
        (",user=ci:other", "the Kubernetes user `ci:other` is not granted"),
        ("", "its roles grant 2 Kubernetes users; say which with `user=…`"),
        (
            ",user=ci:nobody,roles=groups",
            "the Kubernetes user `ci:nobody` is not granted by its roles (`groups`)",
        ),
    ] {
        job.once(["--output", &format!("kubernetes,cluster=prod{options}")]).failed(4).says(&[says]);
    }
    assert!(job.left().is_empty(), "{:?}", job.left());
}

#[test]
fn cleanup_gives_the_certificate_back() {
    let world = world_of(PAGE, &["kube"], "");
    let (job, file) = kubeconfig(&world, "kubernetes,cluster=prod");
    assert!(!read(&file).contains("server:"), "{}", read(&file));
    let folder = file.parent().unwrap().display().to_string();
    job.run(["cleanup", "-v", &folder]).good().says(&["revoked the certificates"]);
    assert!(!file.exists());
}
