//! A destination that is used again: by another layout, by two at once, by a run that fails.

use std::collections::BTreeSet;
use std::path::Path;

use super::{WAIT, files, issuance, issuances, mode, set_mode};
use crate::support::once::{World, manifest, snapshot};
use crate::support::wait_for;

/// Exactly what the manifest names, and the manifest.
#[track_caller]
fn assert_nothing_else(destination: &Path) {
    let manifest = manifest(destination);
    let outputs = manifest["outputs"].as_array().unwrap().iter();
    let named = outputs.flat_map(|output| output["files"].as_array().unwrap());
    let mut named: BTreeSet<String> = named.map(|file| file.as_str().unwrap().to_owned()).collect();
    named.insert("manifest.json".into());
    assert_eq!(files(destination), named);
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
fn a_directory_that_was_there_is_given_back() {
    let world = World::start();
    let job = world.github();
    std::fs::create_dir(job.path("d")).unwrap();
    set_mode(&job.path("d"), 0o755);
    let destination = job.text_path("d");
    job.once(["--destination", &destination, "--role", "nobody"]).failed(4);
    assert_eq!(mode(&job.path("d")), 0o755);
    job.once(["--destination", &destination, "--", "true"]).good();
    assert_eq!((mode(&job.path("d")), files(&job.path("d")).len()), (0o755, 0));
    job.once(["--destination", &destination]).good();
    assert_eq!(mode(&job.path("d")), 0o700);
    // Again, since the manifest remembers it.
    job.once(["--destination", &destination]).good();
    job.run(["cleanup", &destination]).good();
    assert!(job.path("d").is_dir() && files(&job.path("d")).is_empty());
}
