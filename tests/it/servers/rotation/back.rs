//! What is left of CAs that were tried and not taken: nobody believes them again, however often that is done.

use super::{Host, end, step};
use crate::support::authority::Authority;
use crate::support::cluster::{Cluster, Role};
use crate::support::issuer::Issuer;
use crate::support::once::Job;
use crate::support::process::{command, run, succeed};
use crate::support::{policies, wait_for};

/// The SSH CAs that are trusted, as servers of that kind are given them.
fn keys(authority: &Authority, ca: &str) -> Vec<String> {
    let exported = match ca {
        "ssh-user" => succeed(&mut authority.command(["export", "ssh-user-ca"])),
        _ => succeed(&mut authority.command(["export", "known-hosts"])),
    };
    let key = |line: &str| {
        let at = line.find("ssh-ed25519 ")?;
        Some(line[at..].split(' ').take(2).collect::<Vec<_>>().join(" "))
    };
    exported.lines().filter_map(key).collect()
}

/// Goes so far that both are trusted and the new one has signed, and back to the one that was there; the new one.
#[track_caller]
fn there_and_back(
    authority: &Authority,
    ca: &str,
    hears: impl Fn(&str) -> usize,
    issues: impl Fn() -> (Job, std::path::PathBuf),
) -> String {
    let before = keys(authority, ca);
    step(authority, ca, "start");
    let both = keys(authority, ca);
    wait_for("both, at the host", || (hears(ca) == 2).then_some(()));
    step(authority, ca, "activate");
    end(&issues());
    // That it is revoked is seen before all of its CA is.
    hears(ca);
    step(authority, ca, "rollback");
    step(authority, ca, "rollback");
    assert_eq!((before.len(), both.len()), (1, 2), "{both:?}");
    assert_eq!(keys(authority, ca), before);
    both.into_iter().find(|key| *key != before[0]).unwrap()
}

#[test]
fn each_new_ca_that_was_gone_back_from_is_revoked_for_good() {
    let (issuer, cluster) = (Issuer::start(), Cluster::start());
    let urls = [Role::Owner, Role::Server].map(|role| cluster.url(role));
    let builder = || Authority::with_policy(&policies::basic(&issuer)).issuer(&issuer);
    let shared = builder().store(&urls[0], &urls[1]).start();
    let replica = shared.replica();
    for mut authorities in [vec![builder().start()], vec![shared, replica]] {
        let first = &authorities[0];
        let folder = tempfile::TempDir::new().unwrap();
        let host = Host::new(first, &["refreshes.test"]);
        let hears = |ca: &str| {
            let output = host.refresh(first);
            assert!(output.status.success(), "{output:?}");
            host.lines(&format!("{}_ca.pub", ca.replace('-', "_")))
        };
        // Which of these keys a list revokes, by the program that reads it.
        let revoked = |list: &std::path::Path, keys: &[String]| {
            let is_revoked = |key: &String| {
                let file = folder.path().join("key.pub");
                std::fs::write(&file, key).unwrap();
                !run(command("ssh-keygen").arg("-Q").arg("-f").arg(list).arg(file)).status.success()
            };
            keys.iter().map(is_revoked).collect::<Vec<_>>()
        };
        let issues = || {
            let job = Job::new().envs(issuer.github_environment()).told(first, "github-deploy");
            let destination = job.once([]).good().destination();
            (job, destination)
        };
        let mut gone = Vec::new();
        for round in 1..=2 {
            for ca in ["ssh-user", "ssh-host"] {
                let key = there_and_back(first, ca, hears, issues);
                assert!(!gone.contains(&key), "round {round}: {ca} has one that nobody believes");
                gone.push(key);
            }
        }
        for ca in ["ssh-user", "ssh-host"] {
            wait_for("the old one, at the host", || (hears(ca) == 1).then_some(()));
        }
        let all: Vec<String> =
            ["ssh-user", "ssh-host"].iter().flat_map(|ca| keys(first, ca)).chain(gone.clone()).collect();
        let right = [false, false, true, true, true, true];
        assert_eq!(revoked(&host.path("trust/revoked.krl"), &all), right);
        // Each authority says so, and after it has begun anew.
        for authority in &mut authorities {
            for is_anew in [false, true] {
                if is_anew {
                    assert!(authority.terminate().success());
                    authority.restart();
                }
                let list = folder.path().join("krl");
                wait_for("the list", || {
                    let response = authority.client().get("/v1/revoked/ssh.krl");
                    (response.status == 200).then(|| std::fs::write(&list, response.body).unwrap())
                });
                assert_eq!(revoked(&list, &all), right);
            }
        }
    }
}
