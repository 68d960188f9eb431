//! What an independent review of the client found, end to end: destinations
//! that are used again, by two at once, or among other users; renewals that
//! are refused; commands that go on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper that fails fails its test"
)]

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use support::once::{Job, World, manifest, snapshot, walk};
use support::process::Running;
use support::wait_for;

/// Says that it is there, and ends when it is told to.
const WAIT: &str = "touch ready; while ! [ -e end ]; do sleep 0.05; done";

fn issuances(world: &World, kind: &str) -> BTreeSet<String> {
    let events = world.authority.audit().into_iter().filter(|event| event["event"] == kind);
    events.map(|event| event["issuance_id"].as_str().unwrap_or_default().to_owned()).collect()
}

fn issuance(destination: &Path) -> String {
    manifest(destination)["issuance_id"].as_str().unwrap().to_owned()
}

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn names(folder: &Path) -> BTreeSet<String> {
    let mut paths = Vec::new();
    walk(folder, &mut paths);
    let files = paths.into_iter().filter(|path| path.is_file());
    files.map(|path| path.strip_prefix(folder).unwrap().display().to_string()).collect()
}

/// Exactly what the manifest names, and the manifest.
#[track_caller]
fn assert_nothing_else(destination: &Path) {
    let manifest = manifest(destination);
    let outputs = manifest["outputs"].as_array().unwrap().iter();
    let named = outputs.flat_map(|output| output["files"].as_array().unwrap());
    let mut named: BTreeSet<String> = named.map(|file| file.as_str().unwrap().to_owned()).collect();
    named.insert("manifest.json".into());
    assert_eq!(names(destination), named);
}

#[test]
fn another_layout_leaves_nothing_of_the_first() {
    let world = World::start();
    let job = world.github();
    let destination = job.text_path("d");
    let layouts: [&[&str]; 4] = [
        &[],
        // The first output's folder has the name of a file of the earlier layout.
        &["--output", "identity", "--output", "ssh"],
        &["--output", "identity"],
        &["--output", "ssh"],
    ];
    let mut held: Option<String> = None;
    for layout in layouts {
        let arguments = ["once", "--destination", &destination].into_iter().chain(layout.iter().copied());
        job.run(arguments).good();
        assert_nothing_else(&job.path("d"));
        if let Some(earlier) = held {
            wait_for("its revocation", || issuances(&world, "revoked").contains(&earlier).then_some(()));
        }
        held = Some(issuance(&job.path("d")));
    }
    assert!(!issuances(&world, "revoked").contains(&held.unwrap()), "the last one holds");
    assert_eq!(issuances(&world, "revoked").len(), 3);
}

#[test]
fn what_another_destination_still_holds_is_not_revoked() {
    let world = World::start();
    let job = world.github();
    let (one, two) = (job.text_path("one"), job.text_path("two"));
    let elsewhere = format!("ssh,destination={two}");
    job.once(["--destination", &one, "--output", "identity", "--output", &elsewhere]).good();
    let first = issuance(&job.path("one"));
    job.once(["--destination", &one]).good();
    assert!(issuances(&world, "revoked").is_empty(), "{two} is in use");
    job.run(["cleanup", &two]).good();
    wait_for("its revocation", || issuances(&world, "revoked").contains(&first).then_some(()));
    assert!(job.path("one/key").is_file() && !job.path("two").exists());
}

#[test]
fn a_failed_exchange_leaves_the_earlier_certificates_alone() {
    let world = World::start();
    let job = world.github();
    let destination = job.text_path("d");
    job.once(["--destination", &destination]).good();
    let before = snapshot(&job.path("d"));
    job.once(["--destination", &destination, "--role", "nobody"]).failed(4);
    assert_eq!(snapshot(&job.path("d")), before);
    assert!(issuances(&world, "revoked").is_empty());
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
        support::process::MACHINE_ID
    );
    let outcome = job.once(["--", "sh", "-c", &inner]).good();
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{}", outcome.stdout);
    assert_ne!(lines[0], lines[1]);
    assert_eq!(lines[2], format!("{}/key", lines[1]), "the outer one's are still there");
    assert!(job.left().is_empty(), "{:?}", job.left());
}

#[test]
fn one_destination_is_one_runs() {
    let world = World::start();
    let job = world.github();
    let destination = job.text_path("d");
    let mut running = job.start(["--destination", &destination, "--", "sh", "-c", WAIT]);
    wait_for("COMMAND", || job.path("ready").exists().then_some(()));
    let before = snapshot(&job.path("d"));
    for command in [&[][..], &["--", "true"]] {
        let arguments = ["once", "--destination", &destination].into_iter().chain(command.iter().copied());
        let refused = job.run(arguments).failed(6);
        refused
            .says(&["another machine-id that is running uses it", "hint: give each its own --destination"]);
        assert_eq!(snapshot(&job.path("d")), before);
    }
    std::fs::write(job.path("end"), "").unwrap();
    assert!(running.wait().success());
    assert!(!job.path("d").exists());
    job.once(["--destination", &destination]).good();
}

#[test]
fn a_place_of_another_user_is_passed_over() {
    let world = World::start();
    let job = world.github();
    // Another user's where this test may make it so, or one that others can write to.
    let root = rustix::process::geteuid().is_root();
    if root {
        std::os::unix::fs::chown(job.path("temp"), Some(4242), Some(4242)).unwrap();
    } else {
        set_mode(&job.path("temp"), 0o777);
    }
    let outcome = job.once(["-v"]).good();
    assert_eq!(outcome.destination().parent().unwrap(), job.path("runtime"));
    let why =
        if root { "it belongs to another user (uid 4242)" } else { "it can be written to by everybody" };
    outcome.says(&["not in RUNNER_TEMP (", why]);
    let inside = job.text_path("temp/d");
    let refused = job.once(["--destination", &inside]).failed(6);
    refused.says(&[
        "the directory above it ",
        "so that another user could put other files in its place",
        "hint: ",
    ]);
    assert!(!Path::new(&inside).exists());
    // A link to it is no better, nor is a registry there.
    std::os::unix::fs::symlink(job.path("temp"), job.path("link")).unwrap();
    let link = job.text_path("link");
    let job = job.env("XDG_RUNTIME_DIR", &link).env("RUNNER_TEMP", &link);
    assert_eq!(job.once([]).good().destination().parent().unwrap(), job.path("tmp"));
    job.once(["--", "true"]).good();
    assert_eq!(std::fs::read_dir(job.path("temp")).unwrap().count(), 0);
}

#[test]
fn a_registry_that_somebody_else_took_is_no_obstacle() {
    let world = World::start();
    let job = world.github().without("XDG_RUNTIME_DIR").without("TMPDIR");
    // What others can do in `/tmp`, done in a place that is looked at before it.
    let tmp = job.text_path("tmp");
    let job = job.env("TMPDIR", tmp);
    let taken = job.path("tmp").join(format!("machine-id-{}", rustix::process::geteuid().as_raw()));
    std::fs::create_dir(&taken).unwrap();
    set_mode(&taken, 0o777);
    let mut running = job.start(["--", "sh", "-c", WAIT]);
    wait_for("COMMAND", || job.path("ready").exists().then_some(()));
    running.kill();
    std::fs::write(job.path("end"), "").unwrap();
    assert!(!running.stderr().contains("warning"), "{}", running.stderr());
    job.run(["cleanup"]).good().says(&["wiped "]);
    assert!(names(&job.path("temp")).iter().all(|name| !name.contains("key")), "{:?}", job.left());
}

#[test]
fn a_refused_renewal_is_not_tried_again() {
    let world = World::start();
    let job = world.github();
    let mut running = job.start(["--ttl", "12s", "--", "sh", "-c", WAIT]);
    wait_for("COMMAND", || job.path("ready").exists().then_some(()));
    world.issuer.change_claims("github", |claims| {
        claims.insert("repository".into(), "octo-org/another".into());
    });
    let said = "cannot renew the certificates, which end at 20";
    wait_for("the warning", || running.stderr().contains(said).then_some(()));
    // The next attempt would have come a second later.
    std::thread::sleep(Duration::from_secs(3));
    std::fs::write(job.path("end"), "").unwrap();
    assert!(running.wait().success());
    let stderr = running.stderr();
    assert_eq!(stderr.matches("cannot renew").count(), 1, "{stderr}");
    assert!(!stderr.contains("trying again"), "{stderr}");
    let refusals = world.authority.audit().into_iter().filter(|event: &Value| event["event"] == "refused");
    assert_eq!(refusals.count(), 1);
}

#[test]
fn a_token_in_a_file_is_waited_for() {
    let world = World::start();
    let token = || world.issuer.token("github", &world.authority.url()).mint();
    let job = Job::new().told(&world.authority, "github-deploy");
    std::fs::write(job.path("jwt"), token()).unwrap();
    let arguments =
        ["--ttl", "12s", "--join-method", "github", "--id-token-file", "jwt", "--", "sh", "-c", WAIT];
    let mut running = job.start(arguments);
    wait_for("the wait", || running.stderr().contains("waiting for another token").then_some(()));
    std::fs::write(job.path("new"), token()).unwrap();
    std::fs::rename(job.path("new"), job.path("jwt")).unwrap();
    wait_for("a renewal", || running.stderr().contains("renewed the certificates").then_some(()));
    std::fs::write(job.path("end"), "").unwrap();
    assert!(running.wait().success());
    assert!(!running.stderr().contains("warning"), "{}", running.stderr());
}

#[test]
fn an_interrupt_that_is_ignored_takes_the_certificates_away() {
    let world = World::start();
    let job = world.github();
    let mut running = job.start(["--", "sh", "-c", &format!("trap '' INT; {WAIT}; exit 9")]);
    wait_for("COMMAND", || job.path("ready").exists().then_some(()));
    running.signal(Signal::INT);
    wait_for("the wiping", || names(&job.path("temp")).is_empty().then_some(()));
    wait_for("the revocation", || (issuances(&world, "revoked").len() == 1).then_some(()));
    assert!(running.ended().is_none());
    std::fs::write(job.path("end"), "").unwrap();
    assert_eq!(running.wait().code(), Some(9));
    assert!(job.left().is_empty());
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

#[test]
fn what_kill_leaves_of_it_cleanup_finds() {
    let world = World::start();
    let job = world.circleci(true);
    let mut running = job.start(["--", "bash", "-c", WAIT]);
    wait_for("COMMAND", || job.path("ready").exists().then_some(()));
    assert!(names(&job.path("temp")).iter().any(|name| name.ends_with("/bash_env")));
    running.kill();
    std::fs::write(job.path("end"), "").unwrap();
    job.run(["cleanup"]).good();
    assert!(job.left().is_empty(), "{:?}", job.left());
}

#[test]
fn a_directory_that_was_there_is_given_back() {
    let world = World::start();
    let job = world.github();
    std::fs::create_dir(job.path("d")).unwrap();
    set_mode(&job.path("d"), 0o755);
    let destination = job.text_path("d");
    job.once(["--destination", &destination, "--role", "nobody"]).failed(4);
    assert_eq!(mode(&job.path("d")), 0o755);
    job.once(["--destination", &destination, "--", "true"]).good();
    assert_eq!((mode(&job.path("d")), names(&job.path("d")).len()), (0o755, 0));
    job.once(["--destination", &destination]).good();
    assert_eq!(mode(&job.path("d")), 0o700);
    // Again, since the manifest remembers it.
    job.once(["--destination", &destination]).good();
    job.run(["cleanup", &destination]).good();
    assert!(job.path("d").is_dir() && names(&job.path("d")).is_empty());
}

#[test]
fn an_authority_that_does_not_answer_when_greeted_is_asked_all_the_same() {
    let world = World::start();
    // Less than a connection may take to be made.
    let proxy = HangingFirst::start(world.authority.address());
    let job = world.github().env("HTTPS_PROXY", format!("http://{}", proxy.0));
    job.once(["--timeout", "9s"]).good();
}

/// A `CONNECT` proxy whose first connection to an address is never served.
struct HangingFirst(std::net::SocketAddr);

impl HangingFirst {
    fn start(target: std::net::SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut held: Vec<TcpStream> = Vec::new();
            for client in listener.incoming() {
                let client = client.unwrap();
                let mut reader = BufReader::new(client.try_clone().unwrap());
                let mut first = String::new();
                let mut line = String::new();
                while reader.read_line(&mut line).unwrap_or(0) > 2 {
                    first = if first.is_empty() { line.clone() } else { first };
                    line.clear();
                }
                let to = first.split(' ').nth(1).unwrap_or_default().to_owned();
                if held.is_empty() && to == target.to_string() {
                    held.push(client);
                } else {
                    std::thread::spawn(move || tunnel(client, &to));
                }
            }
        });
        Self(address)
    }
}

fn tunnel(mut client: TcpStream, to: &str) {
    let Ok(server) = TcpStream::connect(to) else { return };
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").unwrap();
    let (mut to_client, mut from_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let back = std::thread::spawn(move || {
        let _ = std::io::copy(&mut from_server, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Write);
    });
    let mut server = server;
    let _ = std::io::copy(&mut client, &mut server);
    let _ = server.shutdown(Shutdown::Write);
    let _ = back.join();
}

#[test]
fn cleanup_says_what_it_reads() {
    let job = Job::new();
    let help = job.run(["cleanup", "--help"]).good().stdout;
    assert!(!help.contains("MACHINE_ID_AUTHORITY") && help.contains("MACHINE_ID_CA_FILE"), "{help}");
    let world = World::start();
    let job = world.github();
    let destination: PathBuf = job.once([]).good().destination();
    let job = job.env("MACHINE_ID_AUTHORITY", "https://127.0.0.1:1");
    job.run(["cleanup".as_ref(), destination.as_os_str()]).good();
    assert_eq!(issuances(&world, "revoked").len(), 1);
}

#[test]
fn a_token_for_nobody_of_ours_is_named_as_such() {
    let world = World::with_policy(|policy| {
        policy.replace("accept_default_audience: true\n", "require_key_binding: false\n")
    });
    let job = world.circleci(false);
    let outcome = job.once([]).failed(4);
    outcome.says(&["which the platform chose", "accept_default_audience"]);
    assert!(!outcome.stderr.contains("was asked for"), "{}", outcome.stderr);
}

#[test]
fn a_run_that_is_killed_while_it_starts_leaves_nothing_that_was_not_there() {
    let world = World::start();
    world.issuer.fail(support::issuer::Endpoint::Token, support::issuer::Fault::Hang);
    let job = world.github();
    std::fs::create_dir(job.path("d")).unwrap();
    let mut running: Running = job.start(["--destination", &job.text_path("d"), "--", "true"]);
    wait_for("the request", || (world.issuer.count(support::issuer::Endpoint::Token) == 1).then_some(()));
    running.kill();
    job.run(["cleanup"]).good();
    assert!(job.path("d").is_dir(), "it was there before");
    assert!(job.left().is_empty(), "{:?}", job.left());
}
