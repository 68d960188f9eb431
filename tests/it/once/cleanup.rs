//! `machine-id cleanup`: what it takes away, and what it never touches.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{WAIT, all_revoked, events, files, issuances, world};
use crate::support::issuer::{Endpoint, Fault};
use crate::support::once::{Job, World, copy, manifest, snapshot};
use crate::support::wait_for;

#[test]
fn a_destination_is_wiped_and_revoked() {
    let world = world();
    let job = world.github();
    let destination = job.once([]).good().destination().display().to_string();
    let outcome = job.run(["cleanup", &destination]).good();
    assert_eq!(outcome.stdout, "");
    outcome.says(&["wiped "]);
    assert!(job.left().is_empty(), "{:?}", job.left());
    assert_eq!(all_revoked(&world), 1);
    for argument in [destination.as_str(), "/no/such/destination"] {
        job.run(["cleanup", argument]).good();
    }
    job.run(["cleanup"]).good();
    assert_eq!(events(&world, "revoked").len(), 1);
}

#[test]
fn the_environments_destination_is_the_default() {
    let world = world();
    let job = world.github();
    let destination = job.once(["--output", "ssh"]).good().destination();
    let job = job.env("MACHINE_ID_DESTINATION", destination.display().to_string());
    // What it needs to know stands in the manifest.
    let job = job.without("MACHINE_ID_AUTHORITY").without("MACHINE_ID_CA_FILE").without("SSL_CERT_FILE");
    job.run(["cleanup"]).good();
    assert!(!destination.exists());
    assert_eq!(all_revoked(&world), 1, "with the SSH key alone");
}

#[test]
fn what_is_not_ours_is_not_touched() {
    let job = Job::new();
    for folder in ["empty", "theirs", "app", "real"] {
        std::fs::create_dir(job.path(folder)).unwrap();
    }
    std::fs::write(job.path("theirs/key"), "a key of somebody").unwrap();
    std::fs::write(job.path("app/manifest.json"), "{\"name\":\"app\"}").unwrap();
    std::fs::write(job.path("file"), "x").unwrap();
    std::os::unix::fs::symlink(job.path("real"), job.path("link")).unwrap();
    let before = snapshot(&job.path(""));
    for name in ["theirs", "app", "file", "link", "link/", "/etc"] {
        let outcome = job.run(["cleanup", name]).failed(2);
        outcome.says(&["is not touched", "hint: only a destination that `machine-id once` wrote"]);
    }
    job.run(["cleanup", "empty"]).good();
    let job = job.env("MACHINE_ID_DESTINATION", "theirs");
    job.run(["cleanup"]).good().says(&["warning: MACHINE_ID_DESTINATION: "]);
    assert_eq!(snapshot(&job.path("")), before);
}

#[test]
fn what_others_left_there_is_named_each_time() {
    let world = world();
    let job = world.github();
    let destination = job.once(["--output", "ssh", "--output", "identity"]).good().destination();
    std::fs::copy(destination.join("ssh/key"), destination.join("ssh/copy")).unwrap();
    std::fs::write(destination.join("notes\u{1b}.txt"), "mine").unwrap();
    let named = destination.display().to_string();
    for _ in 0..2 {
        let outcome = job.run(["cleanup", &named]).good();
        outcome.says(&["left, since machine-id did not write it: ", "notes", "ssh"]);
        assert!(!outcome.stderr.contains('\u{1b}'));
        assert!(destination.join("ssh/copy").is_file() && !destination.join("ssh/key").exists());
    }
    assert_eq!(all_revoked(&world), 1);
    // So it is where COMMAND left something.
    let script = "echo x >\"$MACHINE_ID_DESTINATION/mine\"";
    let outcome = job.once(["--destination", &job.text_path("d"), "--", "sh", "-c", script]).good();
    outcome.says(&[&job.text_path("d"), "left, since machine-id did not write it: mine"]);
    assert!(job.path("d/mine").is_file() && !job.path("d/key").exists());
    std::fs::remove_file(job.path("d/mine")).unwrap();
    job.once(["--destination", &job.text_path("d")]).good();
    job.run(["cleanup", &job.text_path("d")]).good();
    assert!(files(&job.path("d")).is_empty());
}

#[test]
fn hostile_manifests_wipe_nothing_else() {
    let world = world();
    let job = world.github();
    let destination = job.text_path("d");
    job.once(["--destination", &destination]).good();
    std::fs::create_dir(job.path("other")).unwrap();
    std::fs::write(job.path("other/key"), "a key of somebody").unwrap();
    std::fs::write(job.path("key"), "a key of somebody").unwrap();
    std::fs::write(job.path("d/notes.txt"), "notes").unwrap();
    std::os::unix::fs::symlink(job.path("other"), job.path("d/folder")).unwrap();
    std::fs::remove_file(job.path("d/known_hosts")).unwrap();
    std::os::unix::fs::symlink(job.path("key"), job.path("d/known_hosts")).unwrap();
    std::fs::hard_link(job.path("other/key"), job.path("d/ca.crt.link")).unwrap();
    std::fs::rename(job.path("d/ca.crt.link"), job.path("d/ca.crt")).unwrap();
    let mut hostile = manifest(&job.path("d"));
    let files = hostile["outputs"][0]["files"].as_array_mut().unwrap();
    for path in ["../key", "/etc/hostname", "../other/key", "folder/key", "notes.txt", "./key", "d/../../key"]
    {
        files.push(path.into());
    }
    hostile["also"] = json!([job.text_path("other"), "../other", "/etc", job.text_path("temp")]);
    std::fs::write(job.path("d/manifest.json"), hostile.to_string()).unwrap();
    job.run(["cleanup", &destination]).good();
    assert_eq!(job.said("key"), "a key of somebody");
    assert_eq!(job.said("other/key"), "a key of somebody");
    assert_eq!(job.said("d/notes.txt"), "notes");
    assert!(job.path("temp").is_dir());
    for gone in ["d/key", "d/tls.key", "d/identity", "d/manifest.json", "d/known_hosts", "d/ca.crt"] {
        assert!(job.path(gone).symlink_metadata().is_err(), "{gone}");
    }
    assert_eq!(all_revoked(&world), 1);
}

#[test]
fn a_manifest_cannot_send_the_assertion_elsewhere() {
    let world = world();
    let job = world.github();
    let destination = job.once([]).good().destination();
    let kept = job.path("kept");
    copy(&destination, &kept);
    let change = |member: &str, value: Value| {
        let mut changed = manifest(&kept);
        changed[member] = value;
        let target = job.path("changed");
        copy(&kept, &target);
        std::fs::write(target.join("manifest.json"), changed.to_string()).unwrap();
        let outcome = job.run(["cleanup", "changed"]).good();
        assert!(!target.exists());
        outcome.says(&["could not revoke"]);
    };
    // To an http URL, to somebody else, and for another issuance.
    change("authority", "http://127.0.0.1:1".into());
    change("authority", "https://127.0.0.1:1".into());
    change("issuance_id", "i-another".into());
    assert!(events(&world, "revoked").is_empty());
    job.run(["cleanup".as_ref(), destination.as_os_str()]).good();
    assert_eq!(all_revoked(&world), 1);
}

#[test]
fn an_authority_that_is_gone_fails_nobody() {
    let mut world = world();
    let job = world.github();
    let destination = job.once([]).good().destination().display().to_string();
    world.authority.kill();
    let outcome = job.run(["cleanup", "--timeout", "2s", &destination]).good();
    outcome.says(&["::warning title=machine-id::could not revoke the certificates, which end by themselves"]);
    assert!(job.left().is_empty());
}

#[test]
fn what_kill_leaves_of_it_cleanup_finds() {
    let world = World::start();
    let job = world.circleci(true);
    let mut running = job.start(["--", "bash", "-c", WAIT]);
    wait_for("COMMAND", || job.path("ready").exists().then_some(()));
    assert!(files(&job.path("temp")).iter().any(|name| name.ends_with("/bash_env")));
    running.kill();
    std::fs::write(job.path("end"), "").unwrap();
    job.run(["cleanup"]).good();
    assert!(job.left().is_empty(), "{:?}", job.left());
}

#[test]
fn cleanup_says_what_it_reads() {
    let job = Job::new();
    let help = job.run(["cleanup", "--help"]).good().stdout;
    assert!(!help.contains("MACHINE_ID_AUTHORITY") && help.contains("MACHINE_ID_CA_FILE"), "{help}");
    let world = World::start();
    let job = world.github();
    let destination = job.once([]).good().destination();
    let job = job.env("MACHINE_ID_AUTHORITY", "https://127.0.0.1:1");
    job.run(["cleanup".as_ref(), destination.as_os_str()]).good();
    assert_eq!(issuances(&world, "revoked").len(), 1);
}

#[test]
fn a_run_that_is_killed_while_it_starts_leaves_nothing_that_was_not_there() {
    let world = World::start();
    world.issuer.fail(Endpoint::Token, Fault::Hang);
    let job = world.github();
    std::fs::create_dir(job.path("d")).unwrap();
    let mut running = job.start(["--destination", &job.text_path("d"), "--", "true"]);
    wait_for("the request", || (world.issuer.count(Endpoint::Token) == 1).then_some(()));
    running.kill();
    job.run(["cleanup"]).good();
    assert!(job.path("d").is_dir(), "it was there before");
    assert!(job.left().is_empty(), "{:?}", job.left());
}

/// Where a run wrote that was killed while COMMAND ran.
fn killed_run(job: &Job) -> String {
    let destination = job.text_path("d");
    let mut killed = job.start(["--destination", &destination, "--", "sh", "-c", WAIT]);
    wait_for("COMMAND", || job.path("ready").exists().then_some(()));
    killed.kill();
    destination
}

#[test]
fn what_a_dead_run_left_is_no_longer_its_own_when_a_living_one_has_it() {
    let world = World::start();
    let job = world.github();
    let destination = killed_run(&job);
    std::fs::remove_file(job.path("ready")).unwrap();
    let other = world.github().env("GITHUB_JOB", "other").env("XDG_RUNTIME_DIR", job.text_path("runtime"));
    // Nor while it is about to replace that: if it does not, it is still there to be found.
    world.issuer.fail(Endpoint::Token, Fault::Hang);
    let asked = world.issuer.count(Endpoint::Token);
    let mut hangs = job.start(["--destination", &destination, "--", "true"]);
    wait_for("the request", || (world.issuer.count(Endpoint::Token) > asked).then_some(()));
    let before = snapshot(&job.path("d"));
    other.run(["cleanup"]).good();
    assert!(snapshot(&job.path("d")) == before);
    hangs.signal(Signal::TERM);
    hangs.wait();
    world.issuer.heal(Endpoint::Token);
    assert!(snapshot(&job.path("d")) == before);
    let mut living = job.start(["--destination", &destination, "--", "sh", "-c", WAIT]);
    wait_for("COMMAND", || job.path("ready").exists().then_some(()));
    let before = snapshot(&job.path("d"));
    other.run(["cleanup"]).good();
    assert!(snapshot(&job.path("d")) == before);
    assert_eq!(issuances(&world, "revoked").len(), 1, "what was replaced");
    std::fs::write(job.path("end"), "").unwrap();
    assert!(living.wait().success());
}

#[test]
fn what_a_dead_run_left_is_no_longer_its_own_when_a_later_one_wrote_it() {
    let world = World::start();
    let job = world.github();
    let destination = killed_run(&job);
    job.once(["--destination", &destination]).good();
    let other = world.github().env("GITHUB_JOB", "other").env("XDG_RUNTIME_DIR", job.text_path("runtime"));
    let before = snapshot(&job.path("d"));
    other.run(["cleanup"]).good();
    assert!(snapshot(&job.path("d")) == before);
}
