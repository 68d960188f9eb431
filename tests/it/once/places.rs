//! Where private files may lie, among other users.

use std::os::unix::process::CommandExt as _;

use super::{WAIT, files, set_mode};
use crate::support::once::World;
use crate::support::process::{MACHINE_ID, command, run};
use crate::support::wait_for;

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
    // Nor is what stands deeper in it, though that is ours.
    std::fs::create_dir(job.path("temp/ours")).unwrap();
    let temp = std::fs::canonicalize(job.path("temp")).unwrap();
    for inside in ["temp/d", "temp/ours/d"] {
        let refused = job.once(["--destination", &job.text_path(inside)]).failed(6);
        refused.says(&[
            &format!("{} {}", temp.display(), why.trim_start_matches("it ")),
            "so that another user could put something else in its place",
            "hint: leave --destination out, and a new one is made in the first of $RUNNER_TEMP",
        ]);
        assert!(!job.path(inside).exists());
    }
    std::fs::remove_dir(job.path("temp/ours")).unwrap();
    // A link to it is no better, nor is a registry there.
    std::os::unix::fs::symlink(job.path("temp"), job.path("link")).unwrap();
    let link = job.text_path("link");
    let job = job.env("XDG_RUNTIME_DIR", &link).env("RUNNER_TEMP", &link);
    assert_eq!(job.once([]).good().destination().parent().unwrap(), job.path("tmp"));
    job.once(["--", "true"]).good();
    assert_eq!(std::fs::read_dir(job.path("temp")).unwrap().count(), 0);
}

#[test]
fn a_place_that_cannot_be_written_to_is_passed_over() {
    let world = World::start();
    // Nobody's, and nobody's to write to: not root's either.
    let job = world.github().env("RUNNER_TEMP", "/proc");
    let outcome = job.once([]).good();
    assert_eq!(outcome.destination().parent().unwrap(), job.path("runtime"));
    outcome.says(&["not in RUNNER_TEMP (/proc): cannot write to it: "]);
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
    assert!(files(&job.path("temp")).iter().all(|name| !name.contains("key")), "{:?}", job.left());
}

/// GitLab's `/builds` and a disk's `emptyDir` are everybody's, and without the
/// bit that keeps others from renaming.
#[test]
fn in_a_folder_of_everybodys_the_place_to_use_is_named() {
    let world = World::start();
    let job = world.github().without("RUNNER_TEMP").without("XDG_RUNTIME_DIR");
    let builds = job.path("builds");
    std::fs::create_dir_all(builds.join("group/project")).unwrap();
    for folder in ["builds", "builds/group", "builds/group/project"] {
        set_mode(&job.path(folder), 0o777);
    }
    let refused = job.once(["--destination", &job.text_path("builds/group/project/id")]).failed(6);
    refused.says(&["builds can be written to by everybody", "leave --destination out", "$TMPDIR and /tmp"]);
    assert_eq!(job.once([]).good().destination().parent().unwrap(), job.path("tmp"), "as the hint says");
    // What the hint names for pods is what `medium: Memory` makes.
    set_mode(&builds, 0o1777);
    for folder in ["builds/group", "builds/group/project"] {
        set_mode(&job.path(folder), 0o755);
    }
    job.once(["--destination", &job.text_path("builds/group/project/id")]).good();
}

/// What one option reads, as a pipe that nobody writes into.
#[test]
fn no_file_of_an_option_is_waited_for_beyond_the_timeout() {
    let world = World::start();
    let job = world.github();
    let pipe = job.text_path("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, job.path("pipe"), rustix::fs::Mode::RWXU).unwrap();
    let server_ca = format!("database,service=s,server-ca={pipe},database=orders,format=mongo");
    for (option, value) in [("--config", &pipe), ("--ca-file", &pipe), ("--output", &server_ca)] {
        let started = std::time::Instant::now();
        let refused = job.once([option, value, "--timeout", "1s"]);
        assert!(started.elapsed() < std::time::Duration::from_secs(8), "{option}: {:?}", started.elapsed());
        refused.failed(2).says(&[&pipe, "nothing was written into it in time"]);
    }
    // One that somebody does write into is read to its end.
    let into = job.path("pipe");
    let writer = std::thread::spawn(move || std::fs::write(into, "version: v1\nttl: 20m\n").unwrap());
    job.once(["--config", &pipe]).good();
    writer.join().unwrap();
    let config = "exec \"$0\" once --config <(printf 'version: v1\\nttl: 20m\\n')";
    let mut bash = crate::support::process::command("bash");
    bash.args(["-c", config, crate::support::process::MACHINE_ID]).current_dir(job.path(""));
    bash.envs(job.environment());
    crate::support::process::succeed(&mut bash);
}

#[test]
fn what_is_too_long_is_refused_and_not_cut() {
    let world = World::start();
    let job = world.github();
    let ca = std::fs::read_to_string(world.authority.ca_file()).unwrap();
    let many = ca.repeat((1 << 20) / ca.len() + 1);
    std::fs::write(job.path("many.pem"), &many).unwrap();
    let many = job.text_path("many.pem");
    let output = format!("database,service=s,server-ca={many},database=orders,format=mongo");
    for (option, value) in [("--output", &output), ("--ca-file", &many), ("--config", &many)] {
        let refused = job.once(["--destination", &job.text_path("d"), option, value]).failed(2);
        refused.says(&[&many, "it is longer than 1048576 bytes"]);
        assert!(!job.path("d").exists(), "{option}");
    }
}

/// Where only this user has a name, `/` and `/tmp` are nobody's, as in a container without root.
#[test]
fn a_container_that_has_no_name_for_root_has_places_too() {
    let temp = tempfile::TempDir::new().unwrap();
    let root = rustix::process::geteuid().is_root();
    let line = "exec unshare -U -r \"$0\" \"$@\"";
    let inside = |args: &[&str]| {
        let mut inside = command("sh");
        inside.args(["-c", line]).args(args);
        if root {
            inside.uid(4242).gid(4242);
        }
        inside
    };
    if root {
        std::os::unix::fs::chown(temp.path(), Some(4242), Some(4242)).unwrap();
    }
    if !run(&mut inside(&["true"])).status.success() {
        return;
    }
    let place = temp.path().join("d").display().to_string();
    let once = [MACHINE_ID, "once", "--authority", "https://127.0.0.1:1", "--token", "x", "--join-method"];
    let once = [&once[..], &["github", "--destination", &place]].concat();
    let said = || String::from_utf8_lossy(&run(&mut inside(&once)).stderr).into_owned();
    assert!(!said().contains("could put something else in its place"), "{}", said());
    // What others can write to is theirs all the same.
    set_mode(temp.path(), 0o777);
    assert!(said().contains("can be written to by everybody"), "{}", said());
}
