//! What later steps are told, in files that are not ours, and what a later `once` makes of it.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::{all_revoked, events, issuance, issuances, world};
use crate::support::once::{Job, World, heredocs, manifest, snapshot};
use crate::support::process::{MACHINE_ID, command, succeed};

#[test]
fn a_summary_that_cannot_be_written_ends_nothing() {
    let world = world();
    let job = world.github().env("GITHUB_STEP_SUMMARY", "/no/such/folder/summary");
    let outcome = job.once([]).good();
    outcome.says(&[
        "::warning title=machine-id::cannot write to $GITHUB_STEP_SUMMARY (/no/such/folder/summary)",
    ]);
    assert!(outcome.destination().join("key").is_file());
    assert!(job.said("GITHUB_ENV").contains("MACHINE_ID_DESTINATION"));
}

#[test]
fn nobody_is_told_of_what_is_not_there() {
    let world = world();
    // The last one is full, and can be opened; it is not there; nobody can be told on stdout.
    let full = File::options().write(true).open("/dev/full").unwrap();
    for (variable, path, stdout) in
        [("GITHUB_ENV", "/dev/full", false), ("GITHUB_ENV", "/no/such/folder/env", false), ("X", "", true)]
    {
        let job = world.github().env(variable, path);
        for file in ["GITHUB_OUTPUT", "GITHUB_ENV"] {
            std::fs::write(job.path(file), "a=b").unwrap();
        }
        let mut once = job.command(["once"]);
        if stdout {
            once.stdout(full.try_clone().unwrap());
        }
        let output = once.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(if stdout { 1 } else { 6 }), "{stderr}");
        assert!(stdout || stderr.contains("cannot write to $GITHUB_ENV ("), "{stderr}");
        assert_eq!((job.said("GITHUB_OUTPUT"), job.said("GITHUB_ENV")), ("a=b".into(), "a=b".into()));
        assert_eq!(job.left(), Vec::<PathBuf>::new());
    }
    assert_eq!(all_revoked(&world), 3);
}

#[test]
fn a_last_line_without_an_end_stays_a_line_of_its_own() {
    let world = world();
    let job = world.github();
    for file in ["GITHUB_OUTPUT", "GITHUB_ENV", "GITHUB_STEP_SUMMARY"] {
        std::fs::write(job.path(file), "a=b").unwrap();
    }
    job.once([]).good();
    for (file, name) in [("GITHUB_OUTPUT", "destination"), ("GITHUB_ENV", "MACHINE_ID_DESTINATION")] {
        let told = job.said(file);
        let ours = told.strip_prefix("a=b\n").unwrap_or_else(|| panic!("{told}"));
        assert!(heredocs(ours).contains_key(name), "{told}");
    }
    assert!(job.said("GITHUB_STEP_SUMMARY").starts_with("a=b\n### Certificates"));
    // What COMMAND leaves for later steps is carried over likewise.
    let job = world.circleci(true);
    std::fs::write(job.path("BASH_ENV"), "export A=1").unwrap();
    job.once(["--", "bash", "-c", "printf 'export B=2' >>\"$BASH_ENV\""]).good();
    job.once(["--destination", &job.text_path("d")]).good();
    let mut bash = command("bash");
    bash.args(["-c", "echo $A $B $MACHINE_ID_DESTINATION"]).env("BASH_ENV", job.path("BASH_ENV"));
    assert_eq!(succeed(&mut bash), format!("1 2 {}\n", job.text_path("d")));
}

/// The next step of a job on GitHub: with what was put into `$GITHUB_ENV`.
fn next_step(job: Job) -> Job {
    heredocs(&job.said("GITHUB_ENV")).into_iter().fold(job, |job, (name, value)| job.env(&name, value))
}

#[test]
fn a_later_step_leaves_other_certificates_alone() {
    let world = world();
    let job = world.github();
    let first = job.once([]).good().destination();
    let before = snapshot(&first);
    let job = next_step(job);
    let outcome = job.once(["--output", "ssh"]).good();
    outcome.says(&["MACHINE_ID_DESTINATION is that of an earlier `once`, which is left alone"]);
    let second = outcome.destination();
    assert!(second != first && snapshot(&first) == before && events(&world, "revoked").is_empty());
    // Now the variable is that of the second. The same again takes its place; another role does not, nor another option.
    let job = next_step(job);
    assert_eq!(job.said("GITHUB_ENV").matches("MACHINE_ID_DESTINATION").count(), 2);
    let replaced = issuance(&second);
    assert_eq!(job.once(["--output", "ssh"]).good().destination(), second);
    assert_eq!(issuances(&world, "revoked"), [replaced].into());
    let job = next_step(job);
    let third = job.once(["--output", "ssh,roles=readers"]).good().destination();
    assert!(third != second && snapshot(&first) == before);
    // The job's end finds them all.
    let job = next_step(job);
    job.run(["cleanup"]).good();
    assert!(!first.exists() && !second.exists() && !third.exists());
    assert_eq!(all_revoked(&world), 4);
    // What the variable names is gone, and so free again.
    assert_eq!(job.once([]).good().destination(), third);
}

#[test]
fn what_is_said_outright_is_done_and_told() {
    let world = world();
    let job = world.github();
    let first = job.once(["--destination", &job.text_path("d")]).good().destination();
    let job = next_step(job);
    let again = job.once(["--destination", &job.text_path("d")]).good();
    assert!(!again.stderr.contains("warning"), "the same is there anew: {}", again.stderr);
    let other = job.once(["--output", "ssh", "--destination", &job.text_path("d")]).good();
    let words =
        format!("{} holds certificates of an earlier run, which are replaced and revoked", first.display());
    other.says(&[&format!("::warning title=machine-id::{words}")]);
    assert_eq!(issuances(&world, "revoked").len(), 2);
    // A variable that nobody but the job's author has set says where.
    let job = world.github().env("MACHINE_ID_DESTINATION", first.display().to_string());
    assert_eq!(job.once([]).good().destination(), first);
}

#[test]
fn a_once_inside_a_command_has_a_place_of_its_own() {
    let world = World::start();
    let job = world.github();
    let outcome = job.once(["--", MACHINE_ID, "once"]).good();
    let inner = PathBuf::from(outcome.stdout.trim());
    assert!(inner.join("key").is_file());
    assert_eq!(manifest(&inner)["issuance_id"], issuance(&inner).as_str());
    assert_eq!(issuances(&world, "revoked").len(), 1, "that of the outer one");
    assert!(!job.left().iter().any(|path| !path.starts_with(job.path("temp")) || !path.starts_with(&inner)));
}

#[test]
fn manifests_that_name_one_another_end() {
    let world = world();
    let job = world.github();
    let destination = job.once(["--destination", &job.text_path("d")]).good().destination();
    let mut hostile = manifest(&destination);
    hostile["earlier"] = job.text_path("other").into();
    std::fs::write(destination.join("manifest.json"), hostile.to_string()).unwrap();
    std::fs::create_dir(job.path("other")).unwrap();
    std::fs::write(job.path("other/key"), "a key of somebody").unwrap();
    let job = job.env("MACHINE_ID_DESTINATION", destination.display().to_string());
    job.run(["cleanup"]).good().says(&["is not touched: it has no manifest of ours"]);
    assert!(Path::new(&job.text_path("other/key")).is_file() && !destination.exists());
}
