//! Hosts that were thrown out: real `ssh`s of jobs do not believe them.

use std::process::Stdio;

use crate::support::process::{Running, succeed};
use crate::support::sshd_labels::{Estate, LabelledSshd};
use crate::support::wait_for;

/// Renewals replace the list.
#[test]
fn a_long_command_hears_of_a_host_that_is_thrown_out() {
    let estate = Estate::start("{'*': '*'}", "{max_session_ttl: 2h}");
    let sshd = LabelledSshd::start(&estate, "env=dev", "");
    let wait = "cd \"$MACHINE_ID_DESTINATION\" && cp revoked_hosts.krl ../first && \
                until ! cmp -s revoked_hosts.krl ../first; do sleep 0.1; done; cp -r . ../last";
    let mut once = estate.once("job", ["--output", "ssh", "--ttl", "10s", "--", "sh", "-c", wait]);
    let mut running = Running::start(once.stderr(Stdio::piped()));
    wait_for("the first list", || estate.path("first").exists().then_some(()));
    succeed(&mut estate.authority.command(["revoke-host", "127.0.0.1"]));
    assert!(running.wait().success(), "{}", running.stderr());
    let list = machine_id::krl::read(&std::fs::read(estate.path("last/revoked_hosts.krl")).unwrap()).unwrap();
    assert_eq!(list.serials.len(), 1);
    assert!(!estate.path("job").exists(), "the list is wiped with the rest");
    drop(sshd);
}

#[test]
fn a_job_does_not_believe_a_host_that_was_thrown_out() {
    let estate = Estate::start("{'*': '*'}", "{max_session_ttl: 2h}");
    let sshd = LabelledSshd::start(&estate, "env=dev", "");
    let before = estate.certificates("before");
    assert_eq!(sshd.lets_in(&before, "echo in"), "in\n");
    let config = std::fs::read_to_string(before.join("ssh_config")).unwrap();
    assert!(
        config.contains(&format!("RevokedHostKeys \"{}\"", before.join("revoked_hosts.krl").display())),
        "{config}"
    );
    succeed(&mut estate.authority.command(["revoke-host", "127.0.0.1"]));
    let refuses = |destination: &std::path::Path, words: &str| {
        let output = sshd.run(destination, [], "echo in");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(255), b"".as_slice()), "{stderr}");
        assert!(stderr.contains(words), "{stderr}");
    };
    // Jobs that come from then on, with both outputs that have an `ssh_config`: an authority hears of it within a second.
    let after = wait_for("the list", || {
        let after = estate.certificates("after");
        let list = machine_id::krl::read(&std::fs::read(after.join("revoked_hosts.krl")).unwrap()).unwrap();
        (!list.serials.is_empty()).then_some(after)
    });
    refuses(&after, "revoked");
    succeed(&mut estate.once("identity", ["--output", "identity"]));
    refuses(&estate.path("identity"), "revoked");
    // Where no spelling of the list's path is read by every version of `ssh`, it is told.
    let percent = estate.path("50%");
    let said = crate::support::process::run(&mut estate.once("50%", ["--output", "ssh"]));
    let stderr = String::from_utf8_lossy(&said.stderr);
    assert!(
        said.status.success() && stderr.contains("no ssh_config can name the list of revoked hosts"),
        "{stderr}"
    );
    assert_eq!(sshd.lets_in(&percent, "echo in"), "in\n");
    // A host without its list is believed by nobody.
    std::fs::remove_file(before.join("revoked_hosts.krl")).unwrap();
    refuses(&before, "Error checking host key");
}
