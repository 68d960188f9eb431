//! `once -- COMMAND`: what it gets, what becomes of its end, and renewal.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

use machine_id::clock::parse_rfc3339;

use super::{WAIT, all_revoked, events, issuance, issuances, world};
use crate::support::gateway::{Gateway, Trouble};
use crate::support::issuer::{Endpoint, Fault};
use crate::support::once::{Outcome, World, manifest, snapshot};
use crate::support::process::{MACHINE_ID, Running, read, run};
use crate::support::{now, wait_for};

#[test]
fn command_has_the_certificates_and_they_go_with_it() {
    let world = world();
    let job = world.github();
    let script =
        "cp -a \"$MACHINE_ID_DESTINATION\" kept; env > environment; ls -ld \"$MACHINE_ID_DESTINATION\" >&2";
    let outcome = job.once(["--", "sh", "-c", script]).good();
    assert_eq!(outcome.stdout, "", "nothing of ours");
    let environment = job.said("environment");
    let value = |name: &str| {
        let line = environment.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("no {name}")).to_owned()
    };
    let destination = value("MACHINE_ID_DESTINATION");
    assert_eq!(value("MACHINE_ID_IDENTITY_FILE"), format!("{destination}/identity"));
    assert_eq!(value("MACHINE_ID_EXPIRES_AT"), manifest(&job.path("kept"))["expires_at"].as_str().unwrap());
    assert_eq!(manifest(&job.path("kept"))["destination"], destination);
    assert_eq!(job.left(), Vec::<std::path::PathBuf>::new());
    assert_eq!(all_revoked(&world), 1);
    assert_eq!(job.said("GITHUB_OUTPUT") + &job.said("GITHUB_ENV"), "", "there is nothing for later steps");
}

#[test]
fn its_status_is_ours() {
    let world = world();
    let job = world.github();
    for (script, code) in
        [("exit 0", 0), ("exit 1", 1), ("exit 77", 77), ("kill -KILL $$", 137), ("kill -USR1 $$", 138)]
    {
        let outcome = job.once(["--", "sh", "-c", script]);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (code, ""), "{script}: {}", outcome.stderr);
        assert!(job.left().is_empty());
    }
    assert_eq!(all_revoked(&world), 5);
}

#[test]
fn what_cannot_be_run_asks_for_nothing() {
    let world = world();
    let job = world.github();
    std::fs::write(job.path("plain"), "#!/bin/sh\n").unwrap();
    for (program, code, words) in [
        ("no-such-command", 127, "there is no such command"),
        ("/no/such/command", 127, "there is no such command"),
        ("./plain", 126, "it is not executable"),
        ("/tmp", 126, "it is not executable"),
    ] {
        let outcome = job.once(["--", program]).failed(code);
        outcome.says(&[words, "::error title=machine-id::cannot run"]);
        assert!(job.left().is_empty());
    }
    assert_eq!(world.issuer.count(Endpoint::Token), 0);
    // Only the kernel knows that this one cannot.
    std::fs::write(job.path("script"), "#!/no/such/interpreter\n").unwrap();
    std::fs::set_permissions(job.path("script"), std::fs::Permissions::from_mode(0o755)).unwrap();
    job.once(["--", "./script"]).failed(127);
    assert!(job.left().is_empty());
    assert_eq!(all_revoked(&world), 1);
}

#[test]
fn stdin_and_stdout_are_its_own() {
    let world = world();
    let job = world.github();
    let bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    std::fs::write(job.path("in"), &bytes).unwrap();
    let mut command = job.command(["once", "-v", "--", "cat"]);
    let output = run(command.stdin(std::fs::File::open(job.path("in")).unwrap()));
    assert!(output.status.success());
    assert!(output.stdout == bytes, "stdout is not what cat read");
}

#[test]
fn arguments_are_its_own() {
    let world = world();
    let job = world.github();
    let outcome =
        job.once(["--", "printf", "%s|", "--ttl", "a b", "", "$HOME", "--", "-v"]).good_with_output();
    assert_eq!(outcome, "--ttl|a b||$HOME|--|-v|");
}

trait Printed {
    fn good_with_output(self) -> String;
}

impl Printed for Outcome {
    fn good_with_output(self) -> String {
        assert_eq!(self.code, 0, "{}", self.stderr);
        self.stdout
    }
}

#[test]
fn certificates_are_renewed_and_the_keys_stay() {
    let world = world();
    let job = world.github();
    let destination = job.text_path("d");
    let mut running = job.start(["--ttl", "10s", "--destination", &destination, "--", "sh", "-c", WAIT]);
    wait_for("the certificates", || job.path("ready").exists().then_some(()));
    let first = |name: &str| read(job.path("d").join(name));
    let (key, tls_key, certificate) = (first("key"), first("tls.key"), first("key-cert.pub"));
    let (chain, identity) = (first("tls.crt"), first("identity"));
    let old = manifest(&job.path("d"));
    let expires = parse_rfc3339(old["expires_at"].as_str().unwrap()).unwrap();
    let new = wait_for("new certificates", || {
        let found = manifest(&job.path("d"));
        (found["issuance_id"] != old["issuance_id"]).then_some(found)
    });
    assert!(now() < expires, "they were renewed in time");
    assert_ne!(new["expires_at"], old["expires_at"]);
    assert_eq!((read(job.path("d/key")), read(job.path("d/tls.key"))), (key, tls_key));
    assert_ne!(read(job.path("d/key-cert.pub")), certificate);
    assert_ne!(read(job.path("d/tls.crt")), chain);
    assert_ne!(read(job.path("d/identity")), identity);
    std::fs::write(job.path("end"), "").unwrap();
    assert!(running.wait().success());
    assert!(running.stderr().contains("renewed the certificates"), "{}", running.stderr());
    assert!(!job.path("d").exists());
    assert!(all_revoked(&world) >= 2, "every one of them is revoked");
}

/// Says that it is there, and ends when it is told to.
#[test]
fn what_cannot_be_renewed_is_warned_of() {
    let world = world();
    let token = world.issuer.token("github", &world.authority.url()).mint();
    let job = world.github().env("JWT", token);
    let outcome = job.once(["--ttl", "10s", "--id-token-env", "JWT", "--", "true"]).good();
    outcome.says(&["cannot renew: the token in JWT stays the same for the whole job"]);
}

#[test]
fn a_renewal_that_fails_is_tried_again() {
    let world = world();
    let job = world.github();
    let mut running = job.start(["--ttl", "10s", "--timeout", "1s", "--", "sh", "-c", WAIT]);
    wait_for("the certificates", || job.path("ready").exists().then_some(()));
    world.issuer.fail(Endpoint::Token, Fault::Status(500));
    wait_for("a warning", || {
        running.stderr().contains("cannot renew the certificates, trying again").then_some(())
    });
    world.issuer.heal(Endpoint::Token);
    wait_for("a renewal", || running.stderr().contains("renewed the certificates").then_some(()));
    std::fs::write(job.path("end"), "").unwrap();
    assert!(running.wait().success());
    assert!(all_revoked(&world) >= 2);
}

#[test]
fn a_revocation_that_fails_fails_nobody() {
    let world = world();
    let gateway = Gateway::with(&world.authority, &[]);
    let job = world.github().env("HTTPS_PROXY", gateway.url());
    let mut running = Running::start(
        job.command(["once", "--", "sh", "-c", WAIT]).stdout(Stdio::piped()).stderr(Stdio::piped()),
    );
    wait_for("the certificates", || job.path("ready").exists().then_some(()));
    gateway.meet(&[Trouble::Answer(500, String::new(), "{}".into())]);
    std::fs::write(job.path("end"), "").unwrap();
    assert!(running.wait().success());
    let stderr = running.stderr();
    assert!(stderr.contains("::warning title=machine-id::could not revoke the certificates"), "{stderr}");
    assert!(job.left().is_empty() && events(&world, "revoked").is_empty());
}

#[test]
fn a_command_leaves_the_certificates_of_an_earlier_step() {
    let world = World::start();
    let job = world.github();
    let earlier = job.once([]).good().destination();
    let before = snapshot(&earlier);
    let job = job.env("MACHINE_ID_DESTINATION", earlier.display().to_string());
    let own = job.once(["-v", "--", "sh", "-c", "echo $MACHINE_ID_DESTINATION"]);
    own.says(&["MACHINE_ID_DESTINATION is that of an earlier `once`, which is left alone"]);
    let own = own.good().destination();
    assert!(own != earlier && !own.exists());
    assert_eq!(snapshot(&earlier), before);
    assert!(!issuances(&world, "revoked").contains(&issuance(&earlier)));
    // Without a command the variable says where, and the first ones are given back.
    let first = issuance(&earlier);
    assert_eq!(job.once([]).good().destination(), earlier);
    wait_for("its revocation", || issuances(&world, "revoked").contains(&first).then_some(()));
}

#[test]
fn a_run_inside_another_has_its_own() {
    let world = World::start();
    let job = world.github();
    let inner = format!(
        "'{}' once -- sh -c 'echo $MACHINE_ID_DESTINATION'; echo $MACHINE_ID_DESTINATION; ls $MACHINE_ID_DESTINATION/key",
        MACHINE_ID
    );
    let outcome = job.once(["--", "sh", "-c", &inner]).good();
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{}", outcome.stdout);
    assert_ne!(lines[0], lines[1]);
    assert_eq!(lines[2], format!("{}/key", lines[1]), "the outer one's are still there");
    assert!(job.left().is_empty(), "{:?}", job.left());
}

#[test]
fn shells_of_the_command_have_its_own_variables() {
    let world = World::start();
    let job = world.circleci(true);
    let earlier = job.once([]).good().destination();
    // As CircleCI runs the next step.
    let job = job.env("MACHINE_ID_DESTINATION", earlier.display().to_string());
    let script = "echo $MACHINE_ID_DESTINATION; echo 'export NEXT=1' >> \"$BASH_ENV\"; bash -c 'echo $MACHINE_ID_DESTINATION'; \
                  ls $MACHINE_ID_DESTINATION/key";
    let outcome = job.once(["--", "bash", "-c", script]).good();
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert_ne!(Path::new(lines[0]), earlier);
    assert_eq!((lines[1], lines[2]), (lines[0], format!("{}/key", lines[0]).as_str()));
    assert!(!Path::new(lines[0]).exists(), "the file for bash goes with the rest");
    assert!(job.said("BASH_ENV").ends_with("export NEXT=1\n"), "{}", job.said("BASH_ENV"));
    let without = job.without("BASH_ENV");
    let outcome = without.once(["--", "sh", "-c", "ls $MACHINE_ID_DESTINATION; echo [$BASH_ENV]"]).good();
    assert!(outcome.stdout.ends_with("[]\n") && !outcome.stdout.contains("bash_env"), "{}", outcome.stdout);
}
