//! `authority check --claims`: would this job get in?

use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::check::check;
use crate::support::process::machine_id;
use crate::support::token::Token;

const POLICY: &str = r#"kind: bot
version: v1
metadata: {name: deployer}
spec:
  roles: [deploy, admin]
---
kind: role
version: v7
metadata: {name: deploy}
spec:
  allow: {logins: [deploy], node_labels: {env: prod}}
---
kind: role
version: v7
metadata: {name: admin}
spec:
  options: {require_session_mfa: true}
  allow: {logins: [root], node_labels: {'*': '*'}}
---
kind: token
version: v2
metadata: {name: github-deploy}
spec:
  roles: [Bot]
  bot_name: deployer
  join_method: github
  github:
    allow:
      - repository: octo-org/app
        ref: refs/heads/main
"#;

fn claims() -> Value {
    json!({
        "iss": "https://token.actions.githubusercontent.com", "sub": "repo:octo-org/app:ref:refs/heads/main",
        "repository": "octo-org/app", "repository_owner": "octo-org", "ref": "refs/heads/main",
        "event_name": "push", "run_id": "1",
    })
}

fn folder(claims: &Value) -> TempDir {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("p.yaml"), POLICY).unwrap();
    std::fs::write(folder.path().join("claims.json"), claims.to_string()).unwrap();
    folder
}

fn ask(folder: &Path, more: &[&str]) -> (i32, String, String) {
    let mut args = vec!["p.yaml", "--token", "github-deploy", "--claims", "claims.json"];
    args.extend(more);
    check(folder, &args)
}

const NOT_JUDGED: &str =
    "not judged: the proof's signature, audience, key binding and time, and whether it was used before\n";

#[test]
fn allowed() {
    let folder = folder(&claims());
    let (code, stdout, stderr) = ask(folder.path(), &["--join-method", "github"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert_eq!(
        stdout,
        format!(
            "join token `github-deploy`\n  \
               rule at p.yaml:29:9: lets the job in\n    \
                 yes `repository`: got `octo-org/app`, wanted `octo-org/app`\n    \
                 yes `ref`: got `refs/heads/main`, wanted `refs/heads/main`\n\
             allowed: the job would be bot `deployer`\n  \
               output `identity`: roles deploy, for 1h\n    \
                 SSH principals: deploy@env=prod\n    \
                 SSH extensions: permit-pty\n    \
                 TLS common name: bot:deployer\n  \
               warning: role `admin` of bot `deployer` needs per-session MFA, which a machine cannot pass, and is left out\n\
             {NOT_JUDGED}"
        )
    );
}

/// Nobody finds out in the middle of a job.
#[test]
fn a_ttl_that_is_cut_is_told() {
    let folder = folder(&claims());
    let cut = |most: &str, of: &str| {
        format!(
            "certificates are good for {most}, not 2days as was asked for: `max_session_ttl` of {of} allows no more"
        )
    };
    let (code, stdout, _) = ask(folder.path(), &["--ttl", "48h"]);
    assert!(code == 0 && stdout.contains(&cut("1h", "role `deploy`")), "{stdout}");
    let (_, json, _) = ask(folder.path(), &["--ttl", "48h", "--format", "json"]);
    assert!(json.contains(&cut("1h", "role `deploy`")), "{json}");
    let policy = POLICY.replace(
        "spec:\n  roles: [deploy, admin]",
        "spec:\n  max_session_ttl: 30m\n  roles: [deploy, admin]",
    );
    std::fs::write(folder.path().join("p.yaml"), policy).unwrap();
    let (_, stdout, _) = ask(folder.path(), &["--ttl", "48h"]);
    assert!(stdout.contains(&cut("30m", "bot `deployer`")), "{stdout}");
    // Who asks for nothing, or for what is given, is not told.
    for few in [&["--ttl", "30m"][..], &[]] {
        let (_, stdout, _) = ask(folder.path(), few);
        assert!(stdout.contains("for 30m") && !stdout.contains("asked for"), "{stdout}");
    }
}

/// What is typed for `once` can be typed here: what the job does with it is not asked for.
#[test]
fn outputs_are_those_of_once() {
    let folder = folder(&claims());
    let policy = POLICY
        .replace("roles: [deploy, admin]", "roles: [deploy, other]")
        .replace("spec:\n  options", "spec:\n  allow: {kubernetes_users: [ci], db_users: [ci], ssh_host_principals: ['*'], jwt_audiences: [sts.amazonaws.com]}\n---\nkind: role\nversion: v7\nmetadata: {name: unused}\nspec:\n  options")
        .replace("name: admin", "name: other");
    std::fs::write(folder.path().join("p.yaml"), policy).unwrap();
    let outputs = [
        "ssh,name=web,roles=deploy,destination=/run/web",
        "kubernetes,cluster=c,server=https://k8s.example.com,server-ca=gone.crt",
        "database,service=s,format=mongo",
        "ssh-host,principals=a.example.com,public-key=gone.pub,roles=other+deploy",
        "jwt,audience=sts.amazonaws.com,ttl=10m",
    ];
    let args: Vec<&str> = outputs.iter().flat_map(|output| ["--output", output]).collect();
    let (code, stdout, stderr) = ask(folder.path(), &[&args[..], &["--role", "other"]].concat());
    assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
    for said in [
        "  output `web`: roles deploy, for 1h\n    SSH principals: deploy@env=prod\n",
        "  output `kubernetes`: roles other, for 1h\n    TLS common name: ci\n",
        "  output `database`: roles other, for 1h\n",
        "  output `ssh-host`: roles deploy, other, for 1h\n    SSH principals: a.example.com\n",
        "  output `jwt`: roles other, for 10m\n    token for: sts.amazonaws.com\n",
    ] {
        assert!(stdout.contains(said), "no {said:?} in {stdout}");
    }
    for (output, code, said) in [
        ("ssh,x", 2, "error: --output ssh,x: `x` is not KEY=VALUE"),
        ("ssh,server=x", 4, "type `ssh` has no option `server`"),
        ("jwt,audience=vault", 4, "the audience `vault` is not granted by its roles"),
        ("jwt,audience=x,ttl=9s", 4, "`ttl` must be at least 10s"),
        ("nothing", 4, "there is no type `nothing`"),
    ] {
        let (got, stdout, stderr) = ask(folder.path(), &["--output", output]);
        assert!(got == code && (stdout + &stderr).contains(said), "{output}");
    }
}

/// Groups come last in the alphabet, and in the line, that count most.
#[test]
fn what_is_long_is_told_to_its_end() {
    let folder = folder(&claims());
    let groups: Vec<String> = (0..20).map(|n| format!("group-number-{n}")).collect();
    let names = format!(
        "allow: {{kubernetes_users: [ci], kubernetes_groups: ['system:masters', {}]}}",
        groups.join(", ")
    );
    let policy = POLICY.replace("allow: {logins: [deploy], node_labels: {env: prod}}", &names);
    std::fs::write(folder.path().join("p.yaml"), policy).unwrap();
    let (code, stdout, _) = ask(folder.path(), &["--output", "kubernetes,cluster=c"]);
    assert!(code == 0 && stdout.contains(" system:masters\n"), "{stdout}");
    let output = format!("kubernetes,cluster=c,user={}", "x".repeat(60));
    let (code, stdout, _) = ask(folder.path(), &["--output", &output]);
    let end = "; role `admin` of bot `deployer` needs per-session MFA, which a machine cannot pass, and is left out\n";
    assert!(code == 4 && stdout.contains(end), "{stdout}");
}

#[test]
fn denied_with_each_condition() {
    let mut claims = claims();
    claims["ref"] = json!("refs/heads/\u{1b}x");
    claims["repository"] = json!(7);
    let folder = folder(&claims);
    let (code, stdout, _) = ask(folder.path(), &[]);
    assert_eq!(code, 4);
    assert!(stdout.contains("denied: claim_invalid: repository is missing or not text"), "{stdout}");
    assert!(stdout.contains("no  `repository`: got the number `7`, wanted `octo-org/app`"), "{stdout}");
    assert!(stdout.contains("no  `ref`: got `refs/heads/\\u{1b}x`, wanted `refs/heads/main`"), "{stdout}");
    let (code, stdout, _) = ask(folder.path(), &["--format", "json"]);
    let answer = &serde_json::from_str::<Value>(&stdout).unwrap()["answer"];
    assert_eq!((code, &answer["allowed"], &answer["reason"]), (4, &false.into(), &"claim_invalid".into()));
    assert_eq!(answer["rules"][0]["conditions"][1]["met"], false);
}

/// Each way to be refused that claims alone can show.
#[test]
fn the_reasons() {
    for (claim, value, more, reason) in [
        ("iss", "https://elsewhere.test", &[][..], "issuer_wrong: issuer is https://elsewhere.test"),
        ("run_id", "", &[], "claim_invalid: run_id is missing"),
        ("ref", "refs/heads/x", &[], "no_rule_matches: no rule of join token `github-deploy` matches"),
        ("event_name", "workflow_run", &[], "risky_event: "),
        ("run_id", "2", &["--join-method", "circleci"], "method_mismatch: the join token is for github"),
        (
            "run_id",
            "2",
            &["--role", "admin"],
            "mfa_required: output `identity`: role `admin` of bot `deployer` needs per-session MFA",
        ),
        ("run_id", "2", &["--role", "gone"], "role_not_held: "),
        ("run_id", "2", &["--output", "x"], "output_invalid: output `x`: there is no type `x`"),
        (
            "run_id",
            "2",
            &["--output", "ssh,a=b"],
            "output_invalid: output `ssh`: type `ssh` has no option `a`",
        ),
        ("run_id", "2", &["--ttl", "5s"], "output_invalid: certificates cannot be asked for 5 seconds"),
    ] {
        let mut claims = claims();
        claims[claim] = json!(value);
        let folder = folder(&claims);
        let (code, stdout, stderr) = ask(folder.path(), more);
        assert!(
            code == 4 && stdout.contains(&format!("denied: {reason}")),
            "{reason}: {code} {stdout}{stderr}"
        );
    }
}

#[test]
fn a_guard_that_strikes_is_a_condition() {
    let mut claims = claims();
    claims["event_name"] = json!("pull_request_target");
    let (_, stdout, _) = ask(folder(&claims).path(), &[]);
    assert!(
        stdout.contains("no  `event_name`: got `pull_request_target`, wanted anything but `pull_request_target`, since the rule does not name it"),
        "{stdout}"
    );
}

/// Whoever signed it, whenever it was valid: a token is read for its claims.
#[test]
fn a_token_on_stdin() {
    let Value::Object(claims) = claims() else { unreachable!() };
    let folder = folder(&json!({}));
    let mut command =
        machine_id(["authority", "check", "p.yaml", "--token", "github-deploy", "--claims", "-"]);
    let mut child = command
        .args(["--format", "json"])
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(format!("{}\n", Token::new(claims).mint()).as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let answer = &serde_json::from_slice::<Value>(&output.stdout).unwrap()["answer"];
    assert_eq!((&answer["allowed"], &answer["bot"]), (&true.into(), &"deployer".into()));
    assert_eq!(answer["outputs"][0]["principals"], json!(["deploy@env=prod"]));
}

#[test]
fn what_is_no_question() {
    let folder = folder(&json!([]));
    for (args, said) in [
        (&["--claims", "claims.json", "--token", "github-deploy"][..], "holds neither claims nor a token"),
        (&["--claims", "gone", "--token", "github-deploy"], "cannot read the claims in gone"),
        (&["--claims", "claims.json", "--token", "github-depoly"], "hint: did you mean `github-deploy`?"),
        (&["--claims", "claims.json"], "--token"),
        (&["--token", "x"], "--claims"),
    ] {
        let mut all = vec!["p.yaml"];
        all.extend(args);
        let (code, _, stderr) = check(folder.path(), &all);
        assert!(code == 2 && stderr.contains(said), "{args:?}: {code} {stderr}");
    }
}
