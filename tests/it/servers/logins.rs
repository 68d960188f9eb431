//! Real servers: OpenSSH's sshd and nginx believe what was issued, and
//! nothing else; OpenSSH's and OpenSSL's tools say what it is.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::authority::Authority;
use crate::support::nginx::Nginx;
use crate::support::once::{Job, Outcome, World, copy, manifest};
use crate::support::process::{self, command, machine_id, read, succeed};
use crate::support::sshd::{Sshd, login};
use crate::support::wait_slowly_for;

/// A bot that may log in as whoever runs the tests, and one that may only be `somebody`.
fn world() -> World {
    World::with_policy(|policy| {
        let user = login();
        policy.replace("values: [ubuntu]", &format!("values: ['{user}']"))
            + "---\nkind: role\nversion: v7\nmetadata: {name: other}\nspec:\n  \
               allow: {logins: [somebody], node_labels: {'*': '*'}}\n"
    })
}

/// With the role `other` too.
fn world_of_two() -> World {
    let world = world();
    let file = world.authority.data_dir().join("policy/test.yaml");
    let policy = read(file).replace("roles: [deploy]", "roles: [deploy, other]");
    world.authority.write_policy(&policy);
    world.authority.hup();
    world
}

fn certificates<const N: usize>(world: &World, args: [&str; N]) -> (Job, PathBuf) {
    let job = world.github();
    let destination = job.once(args).good().destination();
    (job, destination)
}

/// Revokes what is in a destination, which stays.
fn revoke(job: &Job, destination: &Path) {
    let spare = job.path("spare");
    copy(destination, &spare);
    let outcome = job.run(["cleanup", "-v", &spare.display().to_string()]).good();
    outcome.says(&["revoked the certificates"]);
}

#[test]
fn sshd_lets_the_job_in_and_names_its_run() {
    let world = world();
    let sshd = Sshd::start(&world.authority);
    let (_job, destination) = certificates(&world, []);
    sshd.logs_in(&destination);
    let issued = manifest(&destination);
    let serial = issued["outputs"][0]["serial"].as_str().unwrap();
    sshd.wait_for_log(&format!(
        "ID deployer github-deploy github:octo-org/octo-repo@refs/heads/main run 20143266074 attempt 1 (serial {serial})"
    ));
}

#[test]
fn scp_sftp_and_git_take_the_same_configuration() {
    let world = world();
    let sshd = Sshd::start(&world.authority);
    let job = world.github();
    // Paths with spaces and percent signs are quoted in `ssh_config`.
    let destination = job.once(["--destination", "temp/a b 100%"]).good().destination();
    sshd.logs_in(&destination);
    let config = destination.join("ssh_config").display().to_string();
    std::fs::write(job.path("file"), "content").unwrap();
    let remote = format!("{}@127.0.0.1:{}", login(), job.text_path("copied"));
    for mode in ["-s", "-O"] {
        let mut scp = command("scp");
        succeed(scp.args(["-q", mode, "-F", &config, "-P", &sshd.port()]).arg(job.path("file")).arg(&remote));
        assert_eq!(job.said("copied"), "content");
        std::fs::remove_file(job.path("copied")).unwrap();
    }
    // git quotes nothing of GIT_SSH_COMMAND: its shell does.
    succeed(command("git").args(["init", "-q", "--bare"]).arg(job.path("origin.git")));
    let url = format!("ssh://{}@127.0.0.1:{}{}", login(), sshd.port(), job.text_path("origin.git"));
    succeed(command("git").args(["ls-remote", &url]).env("GIT_SSH_COMMAND", format!("ssh -F '{config}'")));
}

#[test]
fn sshd_refuses_another_principal() {
    let world = world_of_two();
    let sshd = Sshd::start(&world.authority);
    let job = world.github();
    let other = crate::support::wait_for("the new policy", || {
        let outcome = job.once(["--role", "other"]);
        (outcome.code == 0).then(|| outcome.destination())
    });
    assert_eq!(manifest(&other)["outputs"][0]["principals"], serde_json::json!(["somebody"]));
    sshd.refuses(&other, "name is not a listed principal");
    sshd.logs_in(&job.once(["--role", "deploy"]).good().destination());
}

#[test]
fn sshd_refuses_an_expired_certificate() {
    let world = world();
    let sshd = Sshd::start(&world.authority);
    let (_job, destination) = certificates(&world, ["--ttl", "10s"]);
    sshd.logs_in(&destination);
    wait_slowly_for("the certificate's end", Duration::from_millis(500), || {
        (!sshd.try_login(&destination, &login()).status.success()).then_some(())
    });
    sshd.refuses(&destination, "Certificate invalid: expired");
}

#[test]
fn sshd_refuses_an_untrusted_ca() {
    let (ours, other) = (world(), world());
    let sshd = Sshd::of(&ours.authority, &other.authority);
    let (_job, destination) = certificates(&other, []);
    sshd.refuses(&destination, "Failed publickey for ");
}

#[test]
fn sshd_refuses_what_is_revoked() {
    let world = world();
    let sshd = Sshd::start(&world.authority);
    let (job, destination) = certificates(&world, []);
    let (_other_job, other) = certificates(&world, []);
    sshd.logs_in(&destination);
    revoke(&job, &destination);
    sshd.refresh_revoked(&world.authority);
    sshd.refuses(&destination, "revoked");
    sshd.logs_in(&other);
}

#[test]
fn a_host_that_is_not_certified_is_refused() {
    let (ours, other) = (world(), world());
    let sshd = Sshd::of(&ours.authority, &other.authority);
    let (_job, destination) = certificates(&ours, []);
    let output = sshd.try_login(&destination, &login());
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(255), "{stderr}");
    assert!(stderr.contains("Host key verification failed"), "{stderr}");
    assert!(output.stdout.is_empty() && !sshd.log().contains("Accepted"), "{}", sshd.log());
    // The right CA, and another name.
    let sshd = Sshd::start(&ours.authority);
    let mut by_name = command("ssh");
    by_name.arg("-F").arg(destination.join("ssh_config")).args(["-o", "BatchMode=yes"]);
    by_name.args(["-o", "HostKeyAlias=elsewhere.example.com", "-p", &sshd.port()]);
    let output = process::run(by_name.arg(format!("{}@127.0.0.1", login())).arg("true"));
    assert_eq!(output.status.code(), Some(255));
    assert!(!sshd.log().contains("Accepted"), "{}", sshd.log());
}

#[test]
fn opensshs_tools_read_what_was_issued() {
    let world = world();
    let (_job, destination) = certificates(&world, []);
    let words = succeed(command("ssh-keygen").arg("-L").arg("-f").arg(destination.join("key-cert.pub")));
    let output = manifest(&destination)["outputs"][0].clone();
    for text in [
        "Type: ssh-ed25519-cert-v01@openssh.com user certificate".to_owned(),
        "Key ID: \"deployer github-deploy github:octo-org/octo-repo@refs/heads/main run 20143266074 attempt 1\"".to_owned(),
        format!("Serial: {}", output["serial"].as_str().unwrap()),
        "permit-pty".to_owned(),
        "Critical Options: (none)".to_owned(),
        "\n                deploy\n".to_owned(),
    ] {
        assert!(words.contains(&text), "no {text:?} in:\n{words}");
    }
    assert!(!words.contains("permit-agent-forwarding"), "{words}");
    // The private key fits its public key, and stands first in `identity` as well.
    let public = read(destination.join("key.pub"));
    for file in ["key", "identity"] {
        let derived = succeed(command("ssh-keygen").args(["-y", "-f"]).arg(destination.join(file)));
        assert_eq!(derived.split(' ').nth(1), public.split(' ').nth(1), "{file}");
    }
    let ca = succeed(&mut world.authority.command(["export", "ssh-user-ca"]));
    std::fs::write(destination.join("ca.pub"), ca).unwrap();
    let print = succeed(command("ssh-keygen").arg("-lf").arg(destination.join("ca.pub")));
    assert!(words.contains(print.split(' ').nth(1).unwrap()), "{words}");
    // `ssh-keygen -Q` reads the revocation list.
    let krl = world.authority.client().get("/v1/revoked/ssh.krl").body;
    std::fs::write(destination.join("krl"), krl).unwrap();
    succeed(
        command("ssh-keygen").arg("-Qf").arg(destination.join("krl")).arg(destination.join("key-cert.pub")),
    );
}

#[test]
fn openssl_verifies_what_was_issued() {
    let world = world();
    let (job, destination) = certificates(&world, []);
    let file = |name: &str| destination.join(name);
    let verify = |purpose: &str| {
        let mut openssl = command("openssl");
        openssl.args(["verify", "-x509_strict", "-purpose", purpose, "-CAfile"]);
        process::run(openssl.arg(file("ca.crt")).arg(file("tls.crt")))
    };
    let good = verify("sslclient");
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
    assert!(!verify("sslserver").status.success(), "it is no server's");
    let words = succeed(command("openssl").args(["x509", "-noout", "-text", "-in"]).arg(file("tls.crt")));
    for text in ["URI:spiffe://id.test/bot/deployer", "TLS Web Client Authentication", "ecdsa-with-SHA256"] {
        assert!(words.contains(text), "no {text:?} in:\n{words}");
    }
    // The key is that of the certificate, in each file that has it.
    let of_certificate =
        succeed(command("openssl").args(["x509", "-noout", "-pubkey", "-in"]).arg(file("tls.crt")));
    assert_eq!(
        succeed(command("openssl").args(["pkey", "-pubout", "-in"]).arg(file("tls.key"))),
        of_certificate
    );
    // With the revocation list: good, and bad once it is revoked.
    let checked = || {
        std::fs::write(job.path("crl.der"), world.authority.client().get("/v1/revoked/tls.crl").body)
            .unwrap();
        succeed(
            command("openssl")
                .args(["crl", "-inform", "DER", "-in"])
                .arg(job.path("crl.der"))
                .arg("-out")
                .arg(job.path("crl.pem")),
        );
        let mut openssl = command("openssl");
        openssl.args(["verify", "-crl_check", "-CAfile"]).arg(file("ca.crt"));
        process::run(openssl.arg("-CRLfile").arg(job.path("crl.pem")).arg(file("tls.crt")))
    };
    assert!(checked().status.success());
    revoke(&job, &destination);
    let revoked = checked();
    assert!(!revoked.status.success());
    assert!(String::from_utf8_lossy(&revoked.stderr).contains("certificate revoked"));
}

/// nginx in front of clients of this authority.
fn nginx(authority: &Authority, folder: &Path) -> Nginx {
    if !folder.join("server").exists() {
        let mut sign = machine_id(["authority", "sign-server", "--name", "127.0.0.1", "--data-dir"]);
        succeed(sign.arg(authority.data_dir()).arg("--out").arg(folder.join("server")));
    }
    std::fs::write(folder.join("tls.crl.der"), authority.client().get("/v1/revoked/tls.crl").body).unwrap();
    let crl = folder.join("tls.crl");
    let mut openssl = command("openssl");
    openssl.args(["crl", "-inform", "DER", "-in"]).arg(folder.join("tls.crl.der")).arg("-out").arg(&crl);
    succeed(&mut openssl);
    Nginx::start(&folder.join("server"), &authority.ca_file(), Some(&crl))
}

/// curl with the files of a destination.
fn curl(nginx: &Nginx, destination: &Path, certificate: &[&str]) -> Outcome {
    let mut curl = command("curl");
    curl.args(["-sS", "--max-time", "20", "--cacert"]).arg(destination.join("ca.crt"));
    for (flag, file) in ["--cert", "--key"].iter().zip(certificate) {
        curl.arg(flag).arg(destination.join(file));
    }
    Outcome::of(&process::run(curl.arg("-w").arg(" %{http_code}").arg(nginx.url())))
}

const PAIR: &[&str] = &["tls.crt", "tls.key"];

#[test]
fn nginx_lets_the_job_in_and_nobody_else() {
    let (ours, other) = (world(), world());
    let (job, destination) = certificates(&ours, []);
    let server = nginx(&ours.authority, &job.path(""));
    let good = curl(&server, &destination, PAIR);
    assert_eq!(good.stdout, "hello CN=bot:deployer 200", "{}\n{}", good.stderr, server.log());
    let whole = curl(&server, &destination, &["identity", "tls.key"]);
    assert_eq!(whole.stdout, "hello CN=bot:deployer 200", "{}", whole.stderr);
    let none = curl(&server, &destination, &[]);
    assert!(none.stdout.contains("No required SSL certificate was sent"), "{none:?}");
    // Another authority's, though the job trusts this server.
    let (_other_job, stranger) = certificates(&other, []);
    std::fs::copy(destination.join("ca.crt"), stranger.join("ca.crt")).unwrap();
    let refused = curl(&server, &stranger, PAIR);
    assert!(!refused.stdout.contains("hello"), "{refused:?}");
    server.wait_for_log("client SSL certificate verify error");
}

#[test]
fn nginx_refuses_what_is_revoked() {
    let world = world();
    let (job, destination) = certificates(&world, []);
    let (_other, spared) = certificates(&world, []);
    let before = nginx(&world.authority, &job.path(""));
    assert_eq!(curl(&before, &destination, PAIR).stdout, "hello CN=bot:deployer 200");
    drop(before);
    revoke(&job, &destination);
    let after = nginx(&world.authority, &job.path(""));
    let refused = curl(&after, &destination, PAIR);
    assert!(!refused.stdout.contains("hello"), "{refused:?}");
    after.wait_for_log("certificate revoked");
    assert_eq!(curl(&after, &spared, PAIR).stdout, "hello CN=bot:deployer 200");
}

#[test]
fn nginx_refuses_an_expired_certificate() {
    let world = world();
    let (job, destination) = certificates(&world, ["--ttl", "10s"]);
    let server = nginx(&world.authority, &job.path(""));
    assert_eq!(curl(&server, &destination, PAIR).stdout, "hello CN=bot:deployer 200");
    wait_slowly_for("the certificate's end", Duration::from_millis(500), || {
        (!curl(&server, &destination, PAIR).stdout.contains("hello")).then_some(())
    });
    server.wait_for_log("certificate has expired");
}

#[test]
fn a_server_of_another_authority_is_not_believed() {
    let (ours, other) = (world(), world());
    let (job, destination) = certificates(&ours, []);
    let server = nginx(&other.authority, &job.path(""));
    let refused = curl(&server, &destination, PAIR);
    assert_eq!(refused.code, 60, "{refused:?}");
}
