//! `machine-id demo`: the whole loop, and nothing left behind.

use std::path::Path;
use std::time::Duration;

use crate::support::client::timed;
use crate::support::once::{Job, Outcome};
use crate::support::{process, wait_for};

/// Runs it with `PATH` as given; nothing of it may be left, neither file nor process.
fn demo(path: Option<&str>) -> Outcome {
    let mut job = Job::new();
    if let Some(path) = path {
        job = job.env("PATH", path);
    }
    let (output, took) = timed(|| process::run(&mut job.command(["demo"])));
    let outcome = Outcome::of(&output);
    assert_eq!(outcome.code, 0, "{}\n{}", outcome.stdout, outcome.stderr);
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert!(job.left().is_empty(), "{:?}", job.left());
    let folder = job.path("").display().to_string();
    wait_for("its processes to end", || (!runs_below(&folder)).then_some(()));
    outcome
}

/// Whether a process names something in this folder.
fn runs_below(folder: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    processes
        .filter_map(|path| std::fs::read(path.join("cmdline")).ok())
        .any(|words| String::from_utf8_lossy(&words).contains(folder))
}

#[test]
fn the_whole_loop_with_a_real_login() {
    assert!(process::installed("sshd"), "sshd is not installed; tests/run installs it");
    let outcome = demo(None);
    for text in [
        "== An operator creates an authority\n",
        "listening on https://127.0.0.1:",
        "SSH certificate\n",
        "hello from ",
        "Accepted publickey for ",
        "run ",
        "== A token that somebody copied out of a log buys nothing\n",
        "error: the authority refused: the token has been used before",
        "== The job ends: everything is wiped and revoked\n",
        "token_used",
        " revoked i-",
        "nothing is left behind\n",
    ] {
        assert!(outcome.stdout.contains(text), "no {text:?} in:\n{}", outcome.stdout);
    }
    for secret in ["PRIVATE KEY", "eyJ", "demo-request-token"] {
        assert!(!(outcome.stdout.clone() + &outcome.stderr).contains(secret), "{secret}");
    }
}

#[test]
fn without_ssh_there_is_no_login_to_show() {
    let bare = Job::new();
    let programs = bare.path("bin");
    std::fs::create_dir(&programs).unwrap();
    let id = ["/usr/bin/id", "/bin/id"].into_iter().find(|path| Path::new(path).exists()).unwrap();
    std::os::unix::fs::symlink(id, programs.join("id")).unwrap();
    let outcome = demo(Some(&programs.display().to_string()));
    assert!(outcome.stdout.contains("No sshd is installed here"), "{}", outcome.stdout);
    assert!(!outcome.stdout.contains("hello from") && outcome.stdout.contains("nothing is left behind"));
}

#[test]
fn in_a_ci_job_it_is_still_the_demo() {
    let job = Job::new()
        .env("GITHUB_ACTIONS", "true")
        .env("MACHINE_ID_TOKEN", "another")
        .env("MACHINE_ID_TTL", "5s");
    let outcome = job.run(["demo"]).good();
    assert!(!outcome.stdout.contains("::group::") && job.said("GITHUB_ENV").is_empty(), "{}", outcome.stdout);
}
