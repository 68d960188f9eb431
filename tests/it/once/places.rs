//! Where private files may lie, among other users.

use std::path::Path;

use super::{WAIT, files, set_mode};
use crate::support::once::World;
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
    assert!(files(&job.path("temp")).iter().all(|name| !name.contains("key")), "{:?}", job.left());
}
