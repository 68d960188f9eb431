//! The policy's files while somebody is at them: half of a policy is never
//! taken, and what is whole is, soon.

use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Bench;
use crate::support::authority::Authority;
use crate::support::client::Keys;
use crate::support::issuer::Issuer;
use crate::support::process::{self, command};
use crate::support::{policies, repository, wait_for};

/// An authority whose policy lets in no job of the issuer, and another policy
/// that lets none in either: each cut of it between the lines does.
fn closed() -> (Bench, String) {
    let issuer = Issuer::start();
    let policy = |reference: &str| {
        policies::basic(&issuer).replace(
            "      - repository: octo-org/octo-repo\n",
            &format!("      - repository: octo-org/octo-repo\n        ref: refs/heads/{reference}\n"),
        )
    };
    let authority = Authority::trusting(&issuer, &policy("releases"));
    let new = policy("nightly");
    (Bench { authority, issuer }, new)
}

fn file(bench: &Bench) -> PathBuf {
    bench.authority.data_dir().join("policy/test.yaml")
}

fn status(bench: &Bench) -> u16 {
    bench.ask("github-deploy", &Keys::fresh()).status
}

#[test]
fn a_policy_that_is_being_written_is_not_taken() {
    let (bench, new) = closed();
    let written = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = std::fs::File::create(file(&bench)).unwrap();
            let (open, rest) = new.split_at(new.find("        ref: ").unwrap());
            file.write_all(open.as_bytes()).unwrap();
            // Far less than a second each, so that a busy machine does not make it one.
            for _ in 0..8 {
                std::thread::sleep(Duration::from_millis(250));
                // It writes on, if nothing new: whoever looks meanwhile finds a policy that loads.
                file.write_all_at(b"\n", u64::try_from(open.len() - 1).unwrap()).unwrap();
            }
            file.write_all(rest.as_bytes()).unwrap();
            written.store(true, Ordering::Relaxed);
        });
        bench.authority.hup();
        while !written.load(Ordering::Relaxed) {
            assert_eq!(status(&bench), 403);
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let said = bench.authority.stderr();
    assert!(said.contains("SIGHUP: the policy is taken once it has stood still for a second\n"), "{said}");
    assert!(!said.contains("policy not taken"), "{said}");
    // And then it is.
    bench.authority.wait_for_stderr("policy read anew\npolicy: 1 bot, 1 role, 2 join tokens from 1 file\n");
    assert_eq!(status(&bench), 403);
}

/// What docs/policy.md says, run by a shell in the policy's folder.
fn block_after(heading: &str) -> String {
    let text = process::read(repository("docs/policy.md"));
    let (_, rest) = text.split_once(heading).unwrap_or_else(|| panic!("no {heading}"));
    let (_, rest) = rest.split_once("```sh\n").unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

#[test]
fn the_documents_way_to_replace_a_policy_works() {
    let (bench, _) = closed();
    let folder = bench.authority.data_dir().join("policy");
    let run = |block: &str, policy: &str| {
        let here = tempfile::TempDir::new().unwrap();
        std::fs::write(here.path().join("deploy.yaml"), policy).unwrap();
        let script = block.replace("/var/lib/machine-id/policy", folder.to_str().unwrap());
        assert!(script.contains(folder.to_str().unwrap()), "{block}");
        // The tests' own user may write there, and machines of tests have no `sudo`.
        let script = format!("sudo() {{ \"$@\"; }}\n{script}");
        process::succeed(command("bash").args(["-euc", &script]).current_dir(here.path()));
    };
    std::fs::rename(file(&bench), folder.join("deploy.yaml")).unwrap();
    let open = policies::basic(&bench.issuer);
    run(&block_after("### One file"), &open);
    wait_for("the new policy", || (status(&bench) == 200).then_some(()));
    let shut = open.replace("octo-org/octo-repo", "octo-org/another");
    run(&block_after("### Several files"), &shut);
    wait_for("the listed policy", || (status(&bench) == 403).then_some(()));
    assert!(folder.join("policy.sha256").exists());
    // A writer that died, between the lines at that.
    let said = bench.authority.stderr().len();
    let cut = open.find("---\nkind: token").unwrap();
    std::fs::write(folder.join("deploy.yaml"), &open[..cut]).unwrap();
    let refused = wait_for("the refusal", || {
        let news = bench.authority.stderr().get(said..).unwrap_or_default().to_owned();
        news.contains("policy not taken").then_some(news)
    });
    assert!(
        refused.contains("policy.sha256:1: `deploy.yaml` holds something else than is listed here"),
        "{refused}"
    );
    let check = bench.authority.run(["check"]);
    assert_eq!(check.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&check.stderr).contains("holds something else than is listed here"));
}

#[test]
fn a_start_waits_for_what_is_being_written_and_refuses_what_is_none() {
    let (mut bench, _) = closed();
    assert!(bench.authority.terminate().success());
    let address = bench.authority.address().to_string();
    let folder = bench.authority.data_dir().join("policy");
    std::fs::remove_file(file(&bench)).unwrap();
    for files in [vec![], vec![("a.yaml", "# later\n"), (".b.yaml", "kind: [\n")]] {
        for (name, text) in &files {
            std::fs::write(folder.join(name), text).unwrap();
        }
        let refused = bench.authority.run(["serve", "--listen", &address]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(said.contains("no policy") && said.contains("/policy"), "{said}");
        assert!(said.contains("hint: put bots, roles and join tokens there"), "{said}");
    }
    // Half of it is there when it starts, and lets everybody in.
    let open = policies::basic(&bench.issuer);
    let shut = open.replace("octo-repo\n", "octo-repo\n        ref: refs/heads/releases\n");
    let half = shut.find("        ref:").unwrap();
    std::fs::write(folder.join("a.yaml"), &shut[..half]).unwrap();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(300));
            std::fs::write(folder.join("a.yaml"), &shut).unwrap();
        });
        bench.authority.restart();
    });
    assert!(begun.elapsed() > Duration::from_millis(1300), "{:?}", begun.elapsed());
    assert_eq!(status(&bench), 403);
}

#[test]
fn what_a_reload_does_not_take_is_told() {
    let (bench, _) = closed();
    let file = bench.authority.data_dir().join("authority.yaml");
    let before = process::read(&file);
    let ca = bench.authority.data_dir().join("extra.pem");
    let again = format!("SIGHUP: {} is read at the start alone: ", file.display());
    bench.authority.hup();
    bench.authority.wait_for_stderr("policy read anew");
    assert!(!bench.authority.stderr().contains(&again), "{}", bench.authority.stderr());
    let roots = before.lines().find_map(|line| line.strip_prefix("issuer_ca_file: ")).expect("extra roots");
    let roots = roots.trim_matches(['\'', '"']).to_owned();
    for (text, said) in [
        (before.replace(&bench.authority.url(), "https://other.example.com"), "`public_url` changed since"),
        (
            format!("{before}limits: {{certificates_per_hour_of_run: 99}}\n")
                .replace("listen: ", "listen: 0.0.0.0:1 # "),
            "`listen`, `limits` changed since",
        ),
        (format!("{before}lisen: x\n"), "has no `lisen`"),
        (before.clone(), "`issuer_ca_file` changed since"),
    ] {
        if text == before {
            std::fs::copy(&roots, &ca).unwrap();
            std::fs::rename(&ca, &roots).unwrap();
        }
        std::fs::write(&file, text).unwrap();
        bench.authority.hup();
        bench.authority.wait_for_stderr(said);
    }
    // The last line of each comes after the one that was waited for.
    const RESTART: &str = "  restart the authority for that to count\n";
    wait_for("hints", || (bench.authority.stderr().matches(RESTART).count() == 3).then_some(()));
    let said = bench.authority.stderr();
    assert_eq!(said.matches(&again).count(), 4, "{said}");
    assert_eq!(said.matches("  the authority will not start again with it\n").count(), 1, "{said}");
}
