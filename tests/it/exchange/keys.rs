//! Which keys are certified.

use serde_json::json;

use super::Bench;
use crate::support::client::{self, Keys, Response};
use crate::support::{fixture, process};

fn ask_ssh(bench: &Bench, public_key: &str) -> Response {
    let output = json!({"name": "identity", "type": "ssh", "ssh": {"public_key": public_key}});
    let token = bench.unbound().mint();
    bench.authority.client().exchange(&client::request("github-deploy", "github", &token, json!([output])))
}

fn ask_tls(bench: &Bench, csr: &str) -> Response {
    let mut output = Keys::fresh().output();
    output["tls"]["csr"] = csr.into();
    let token = bench.unbound().mint();
    bench.authority.client().exchange(&client::request("github-deploy", "github", &token, json!([output])))
}

#[test]
fn ssh_keys_of_good_kinds_are_certified() {
    let bench = Bench::start();
    let folder = tempfile::tempdir().unwrap();
    for (kind, file) in [("RSA", "ssh-rsa.pub"), ("ECDSA", "ssh-p256.pub")] {
        let granted = ask_ssh(&bench, &fixture(&format!("keys/{file}"))).granted();
        let path = folder.path().join(file);
        std::fs::write(&path, granted["outputs"][0]["ssh_certificate"].as_str().unwrap()).unwrap();
        let said = process::succeed(process::command("ssh-keygen").arg("-L").arg("-f").arg(&path));
        assert!(said.contains(&format!("Public key: {kind}-CERT")), "{said}");
    }
    ask_ssh(&bench, &format!("{} a comment", Keys::fresh().ssh)).granted();
}

#[test]
fn other_ssh_keys_are_refused() {
    let bench = Bench::start();
    let good = Keys::fresh().ssh;
    let blob = good.split(' ').nth(1).unwrap().to_owned();
    let cases = [
        ("DSA", fixture("keys/ssh-dsa.pub")),
        ("P-521", fixture("keys/ssh-p521.pub")),
        ("RSA of 1024 bits", fixture("keys/ssh-rsa-1024.pub")),
        ("a certificate", fixture("keys/ssh-ed25519-cert.pub")),
        ("a private key", Keys::fresh().ssh_private()),
        ("an Ed25519 key under the name of RSA", format!("ssh-rsa {blob}")),
        (
            "an Ed25519 key under the name of a certificate",
            format!("ssh-ed25519-cert-v01@openssh.com {blob}"),
        ),
        ("a key cut short", good[..good.len() - 8].to_owned()),
        ("a key with more behind it", format!("{good}AAAA")),
        ("options in front", format!("cert-authority,command=\"id\" {good}")),
        ("two keys", format!("{good}\n{}", Keys::fresh().ssh)),
        ("no type", blob.clone()),
        ("a type alone", "ssh-ed25519".to_owned()),
        ("a NUL behind", format!("{good}\0")),
        ("a file's name", "/etc/ssh/ssh_host_ed25519_key.pub".to_owned()),
    ];
    let mut wrong = Vec::new();
    for (what, key) in cases {
        let response = ask_ssh(&bench, &key);
        if response.status == 400 {
            response.problem(400);
        } else {
            wrong.push(format!("{what}: {} {}", response.status, response.text()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn requests_of_good_kinds_are_certified() {
    let bench = Bench::start();
    for file in ["p256.csr", "p384.csr", "ed25519.csr", "rsa-2048.csr"] {
        let response = ask_tls(&bench, &fixture(&format!("keys/{file}")));
        assert_eq!(response.status, 200, "{file}: {}", response.text());
    }
}

#[test]
fn other_requests_are_refused() {
    let bench = Bench::start();
    let good = fixture("keys/p256.csr");
    let cases = [
        ("RSA of 1024 bits", fixture("keys/rsa-1024.csr")),
        ("P-521", fixture("keys/p521.csr")),
        ("a signature that does not verify", fixture("keys/p256-bad-signature.csr")),
        ("a private key", fixture("keys/p256.pem")),
        ("a public key", fixture("keys/rsa-a.pub.pem")),
        ("the label of a certificate", good.replace("CERTIFICATE REQUEST", "CERTIFICATE")),
        ("no label", good.lines().filter(|line| !line.starts_with('-')).collect()),
        ("cut short", good[..good.len() / 2].to_owned()),
        ("no PEM", "certificate, please".to_owned()),
        ("100 KB", format!("{good}{}", "A".repeat(100_000))),
    ];
    let mut wrong = Vec::new();
    for (what, csr) in cases {
        let response = ask_tls(&bench, &csr);
        if matches!(response.status, 400 | 413) {
            response.problem(response.status);
        } else {
            wrong.push(format!("{what}: {} {}", response.status, response.text()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
