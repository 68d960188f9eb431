//! `authority check` without claims: exit codes, what is said and where.

use std::path::Path;
use std::process::Output;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::fixture;
use crate::support::process::{self, machine_id};

/// Runs `authority check ARGS` in a folder.
#[track_caller]
pub(crate) fn check(folder: &Path, args: &[&str]) -> (i32, String, String) {
    let mut command = machine_id(["authority", "check"]);
    let Output { status, stdout, stderr } = process::run(command.args(args).current_dir(folder));
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

#[test]
fn a_good_policy() {
    let folder = folder(&[("p.yaml", &fixture("lints/any-ref/good.yaml"))]);
    let (code, stdout, stderr) = check(folder.path(), &["p.yaml", "--deny-lints"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert_eq!(stdout, "policy: 1 bot, 1 role, 1 join token from 1 file\nlints: 0 warnings\n");
}

/// A template whose variables were empty took the restrictions away.
#[test]
fn an_empty_restriction_does_not_load() {
    let folder = folder(&[("p.yaml", &fixture("empty-values.yaml"))]);
    let (code, stdout, stderr) = check(folder.path(), &["p.yaml"]);
    assert_eq!((code, stdout.as_str()), (2, ""));
    for place in [
        "p.yaml:13:5: `require_session_mfa` has no value",
        "p.yaml:14:5: `force_command` has no value",
        "p.yaml:15:5: `pin_source_ip` has no value",
        "p.yaml:20:5: `logins` has no value",
    ] {
        assert!(stderr.contains(place), "{stderr}");
    }
}

#[test]
fn lints_warn_and_fail_only_where_that_is_asked_for() {
    let folder = folder(&[("p.yaml", &fixture("lints/root-login/bad.yaml"))]);
    let (code, stdout, _) = check(folder.path(), &["."]);
    assert_eq!(code, 0);
    assert_eq!(
        stdout,
        "./p.yaml:9:18: warning: role `deploy` logs in as root on hosts with env=prod [root-login]\n  \
         hint: log in as a user of its own, with sudo rules for what it does, or `deny: {logins: [root]}`\n\
         policy: 1 bot, 1 role, 1 join token from 1 file\n\
         lints: 1 warning\n\
         docs/lints.md explains each; `metadata: {allow_lints: [NAME]}` silences one where it is meant\n"
    );
    assert_eq!(check(folder.path(), &[".", "--deny-lints"]).0, 2);
    let (code, stdout, _) = check(folder.path(), &[".", "--format", "json"]);
    let json: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &json["valid"], &json["silenced"]), (0, &true.into(), &0.into()));
    let found = &json["lints"][0];
    assert_eq!(
        (&found["lint"], &found["line"], &found["column"]),
        (&"root-login".into(), &9.into(), &18.into())
    );
}

#[test]
fn every_mistake_is_told_at_its_place() {
    let bad = fixture("lints/any-ref/good.yaml")
        .replace("roles: [deploy]", "roles: [deplyo]")
        .replace("bot_name: deployer", "bot_name: dployer")
        .replace("  allow: {logins", "  alow: {logins");
    let folder = folder(&[("p.yaml", &bad)]);
    let (code, stdout, stderr) = check(folder.path(), &["p.yaml"]);
    assert_eq!((code, stdout.as_str()), (2, ""));
    assert_eq!(
        stderr,
        "error: p.yaml:5:11: there is no role `deplyo`\nhint: did you mean `deploy`?\n\
         error: p.yaml:11:3: the role's `spec` has no `alow`\nhint: did you mean `allow`?\n\
         error: p.yaml:18:13: there is no bot `dployer`\nhint: did you mean `deployer`?\n"
    );
    let (code, stdout, stderr) = check(folder.path(), &["p.yaml", "--format", "json"]);
    let json: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, stderr.as_str(), &json["valid"]), (2, "", &false.into()));
    assert_eq!(json["mistakes"].as_array().unwrap().len(), 3);
    assert_eq!(json["mistakes"][0]["hints"][0], "did you mean `deploy`?");
}

#[test]
fn a_mistake_is_an_annotation_on_github() {
    let folder = folder(&[("p.yaml", "kind: bto\n")]);
    let mut command = machine_id(["authority", "check", "p.yaml"]);
    let output = process::run(command.env("GITHUB_ACTIONS", "true").current_dir(folder.path()));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("::error title=machine-id::p.yaml:1:7: there is no kind of resource `bto`"),
        "{stderr}"
    );
}

#[test]
fn what_cannot_be_read() {
    let folder = folder(&[]);
    let (code, _, stderr) = check(folder.path(), &["gone.yaml"]);
    assert_eq!(code, 2);
    assert!(stderr.starts_with("error: cannot read the policy gone.yaml: "), "{stderr}");
    let (code, _, stderr) = check(folder.path(), &[]);
    assert_eq!(code, 2);
    assert!(stderr.contains("--data-dir"), "{stderr}");
    let (code, _, stderr) = check(folder.path(), &["--data-dir", "gone"]);
    assert_eq!(code, 2);
    assert!(stderr.starts_with("error: cannot read gone/authority.yaml"), "{stderr}");
}

/// The data directory's own policy, or another one before it goes there.
#[test]
fn a_data_directory() {
    let folder = folder(&[("new.yaml", &fixture("lints/any-ref/good.yaml"))]);
    let url = ["--cluster", "id.test", "--public-url", "https://id.test"];
    process::succeed(
        machine_id(["authority", "init", "--data-dir", "data"]).args(url).current_dir(folder.path()),
    );
    let (code, stdout, stderr) = check(folder.path(), &["--data-dir", "data"]);
    assert_eq!((code, stdout.as_str()), (2, ""));
    assert!(
        stderr.starts_with("error: no policy in data/policy: it holds no `*.yaml` or `*.yml` file\n"),
        "{stderr}"
    );
    let (code, stdout, _) = check(folder.path(), &["--data-dir", "data", "new.yaml"]);
    assert_eq!((code, stdout.lines().next()), (0, Some("policy: 1 bot, 1 role, 1 join token from 1 file")));
    std::fs::write(folder.path().join("data/authority.yaml"), "version: v3\n").unwrap();
    let (code, _, stderr) = check(folder.path(), &["--data-dir", "data", "new.yaml"]);
    assert_eq!(code, 2);
    assert!(stderr.starts_with("error: data/authority.yaml:1:10: "), "{stderr}");
}
