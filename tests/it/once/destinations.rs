//! What is written, where, and what the CI system is told.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::{events, mode, world};
use crate::support::issuer::Endpoint;
use crate::support::once::{IDENTITY_FILES, Job, World, heredocs, manifest, snapshot};
use crate::support::process::{read, succeed};

fn names(folder: &Path) -> BTreeSet<String> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_github_job_needs_no_options() {
    let world = world();
    let job = world.github();
    let outcome = job.once([]).good();
    let destination = outcome.destination();
    assert_eq!(destination.parent().unwrap(), job.path("temp"));
    assert_eq!(mode(&destination), 0o700);
    let mut expected = set(IDENTITY_FILES);
    expected.insert("manifest.json".into());
    assert_eq!(names(&destination), expected);
    for name in &expected {
        assert_eq!(mode(&destination.join(name)), 0o600, "{name}");
    }
    let manifest = manifest(&destination);
    assert_eq!(manifest["destination"], destination.to_str().unwrap());
    assert_eq!(manifest["authority"], world.authority.url());
    assert_eq!((&manifest["bot"], &manifest["join_method"]), (&"deployer".into(), &"github".into()));
    let issued = world.authority.issuance(manifest["issuance_id"].as_str().unwrap());
    let serials = [&manifest["outputs"][0]["serial"], &manifest["outputs"][0]["tls_serial"]];
    let recorded: Vec<&Value> = issued["serials"].as_array().unwrap().iter().collect();
    assert_eq!(recorded, serials);
    assert_eq!(
        manifest["outputs"][0]["principals"].as_array().unwrap().len(),
        3,
        "deploy, ubuntu and reader: {manifest}"
    );
    // The token was asked for once, bound to the keys, and its signature alone is masked.
    assert_eq!(world.issuer.count(Endpoint::Token), 1);
    let token = world.issuer.minted().pop().unwrap();
    let masks: Vec<&str> =
        outcome.stderr.lines().filter_map(|line| line.strip_prefix("::add-mask::")).collect();
    assert_eq!(masks, [token.rsplit('.').next().unwrap()]);
    assert!(outcome.stderr.contains("::group::") && outcome.stderr.contains("::endgroup::"));
}

#[test]
fn github_is_told() {
    let world = world();
    let job = world.github();
    let destination = job.once([]).good().destination().display().to_string();
    let manifest = manifest(Path::new(&destination));
    let expires = manifest["expires_at"].as_str().unwrap();
    let outputs = heredocs(&job.said("GITHUB_OUTPUT"));
    let identity = format!("{destination}/identity");
    let config = format!("{destination}/ssh_config");
    let expected = [
        ("destination", destination.as_str()),
        ("identity-file", &identity),
        ("ssh-config", &config),
        ("expires-at", expires),
        ("issuance-id", manifest["issuance_id"].as_str().unwrap()),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(outputs, expected.into());
    let variables = [
        ("MACHINE_ID_DESTINATION", destination.as_str()),
        ("MACHINE_ID_IDENTITY_FILE", &identity),
        ("MACHINE_ID_EXPIRES_AT", expires),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(heredocs(&job.said("GITHUB_ENV")), variables.into());
    let summary = job.said("GITHUB_STEP_SUMMARY");
    for text in ["| bot | deployer |", expires, "| authority | https://127.0.0.1:"] {
        assert!(summary.contains(text), "{text}: {summary}");
    }
    assert_eq!((job.said("BASH_ENV"), job.said("GITHUB_STATE")), (String::new(), String::new()));
}

#[test]
fn circleci_is_told() {
    let world = world();
    let job = world.circleci(true);
    // A quote, which a shell would stumble over.
    let path = job.text_path("temp/it's here");
    let outcome = job.once(["--destination", &path]).good();
    assert_eq!(outcome.stdout, format!("{path}\n"));
    assert!(!outcome.stderr.contains("::"), "{}", outcome.stderr);
    let shell = "set -eu; . \"$BASH_ENV\"; printf '%s\\n' \"$MACHINE_ID_DESTINATION\" \"$MACHINE_ID_IDENTITY_FILE\" \"$MACHINE_ID_EXPIRES_AT\"";
    let said =
        succeed(std::process::Command::new("bash").args(["-c", shell]).env("BASH_ENV", job.path("BASH_ENV")));
    let expires = manifest(Path::new(&path))["expires_at"].as_str().unwrap().to_owned();
    assert_eq!(said, format!("{path}\n{path}/identity\n{expires}\n"));
    assert!(job.said("BASH_ENV").lines().all(|line| line.starts_with("export MACHINE_ID_")));
    assert_eq!(job.said("GITHUB_OUTPUT"), "");
}

#[test]
fn ssh_alone() {
    let world = world();
    let job = world.github();
    let destination = job.once(["--output", "ssh"]).good().destination();
    assert_eq!(
        names(&destination),
        set(&[
            "key",
            "key.pub",
            "key-cert.pub",
            "ssh_config",
            "known_hosts",
            "revoked_hosts.krl",
            "manifest.json"
        ])
    );
    let outputs = heredocs(&job.said("GITHUB_OUTPUT"));
    assert_eq!(outputs["identity-file"], destination.join("key").to_str().unwrap());
}

#[test]
fn roles_without_a_login_give_the_tls_half() {
    let world = World::with_policy(|policy| {
        policy.replace("allow:\n    logins: ['{{internal.logins}}', deploy]\n", "allow:\n")
    });
    let job = world.github();
    let outcome = job.once([]).good();
    let destination = outcome.destination();
    assert_eq!(names(&destination), set(&["tls.key", "tls.crt", "ca.crt", "identity", "manifest.json"]));
    outcome.says(&["::warning title=machine-id::"]);
    let outputs = heredocs(&job.said("GITHUB_OUTPUT"));
    assert!(outputs.contains_key("identity-file") && !outputs.contains_key("ssh-config"), "{outputs:?}");
    job.run(["cleanup".as_ref(), destination.as_os_str()]).good();
    assert_eq!(super::all_revoked(&world), 1);
}

#[test]
fn several_outputs_have_a_folder_each() {
    let world = world();
    let job = world.github();
    let outcome = job
        .once([
            "--output",
            "identity,name=prod,roles=deploy",
            "--output",
            "ssh,roles=readers",
            "--destination",
            &job.text_path("d"),
        ])
        .good();
    let destination = outcome.destination();
    assert_eq!(names(&destination), set(&["manifest.json", "prod", "ssh"]));
    assert_eq!((mode(&destination.join("prod")), mode(&destination.join("ssh"))), (0o700, 0o700));
    assert_eq!(names(&destination.join("prod")), set(IDENTITY_FILES));
    let outputs = manifest(&destination)["outputs"].clone();
    assert_eq!(outputs[0]["name"], "prod");
    assert_eq!(outputs[0]["roles"], serde_json::json!(["deploy"]));
    assert_eq!(outputs[1]["principals"], serde_json::json!(["reader"]));
    assert_eq!(outputs[1]["files"][0], "ssh/key");
    let config = read(destination.join("prod/ssh_config"));
    assert!(config.contains(&format!("\"{}\"", destination.join("prod/key").display())), "{config}");
    assert_eq!(world.issuer.count(Endpoint::Token), 1, "one proof for all");
    assert_eq!(events(&world, "issued").len(), 1, "one issuance for all");
}

#[test]
fn outputs_may_have_destinations_of_their_own() {
    let world = world();
    let job = world.github();
    let (first, second) = (job.text_path("one"), job.text_path("two"));
    let arguments = [
        "--destination",
        &first,
        "--output",
        &format!("ssh,name=elsewhere,destination={second}"),
        "--output",
        "identity",
    ];
    let outcome = job.once(arguments).good();
    assert_eq!(outcome.stdout, format!("{first}\n{second}\n"));
    assert!(job.path("one/identity").is_file() && job.path("two/key").is_file());
    assert_eq!(manifest(&job.path("one"))["issuance_id"], manifest(&job.path("two"))["issuance_id"]);
    assert_eq!(manifest(&job.path("one"))["also"], serde_json::json!([second]));
    // The one that is told of takes the other with it.
    job.run(["cleanup", &first]).good();
    assert!(!job.path("one").exists() && !job.path("two").exists());
}

#[test]
fn a_configuration_file_says_the_same() {
    let world = world();
    let job = world.github().without("MACHINE_ID_AUTHORITY").without("MACHINE_ID_CA_FILE");
    let job = job.without("MACHINE_ID_TOKEN");
    let text = format!(
        "version: v1\nauthority: {}\nca_file: {}\njoin: {{method: github, token: github-deploy}}\nttl: 20m\n\
         destination: {}\noutputs:\n  - {{type: identity, name: all}}\n  - {{type: ssh, name: few, roles: [readers]}}\n",
        world.authority.url(),
        world.authority.ca_file().display(),
        job.text_path("from-file"),
    );
    std::fs::write(job.path("once.yaml"), text).unwrap();
    let outcome = job.once(["--config", "once.yaml"]).good();
    assert_eq!(outcome.destination(), job.path("from-file"));
    let found = manifest(&job.path("from-file"));
    assert_eq!(found["outputs"][0]["files"][0], "all/key");
    assert_eq!(found["outputs"][1]["principals"], serde_json::json!(["reader"]));
    // A flag beats the environment, which beats the file.
    let job = job.env("MACHINE_ID_CONFIG", "once.yaml").env("MACHINE_ID_DESTINATION", "from-environment");
    assert_eq!(job.once([]).good().destination(), job.path("from-environment"));
    assert_eq!(job.once(["--destination", "from-flag"]).good().destination(), job.path("from-flag"));
    let again = job.once(["--output", "ssh", "--destination", "one"]).good();
    assert!(again.destination().join("key").is_file(), "outputs of the command line replace the file's");
}

#[test]
fn a_role_is_asked_for_by_name() {
    let world = world();
    let job = world.github();
    let destination = job.once(["--role", "readers"]).good().destination();
    assert_eq!(manifest(&destination)["outputs"][0]["principals"], serde_json::json!(["reader"]));
    let refused = job.once(["--role", "nobody"]).failed(4);
    refused.says(&["a role was asked for that this bot does not have", "denial "]);
}

#[test]
fn json_on_stdout_is_the_manifest() {
    let world = world();
    let job = world.github();
    let outcome = job.once(["--format", "json", "--destination", &job.text_path("d")]).good();
    assert_eq!(outcome.stdout, read(job.path("d/manifest.json")));
    let several = job
        .once(["--format", "json", "--output", "ssh,destination=a", "--output", "identity,destination=b"])
        .good();
    let list: Value = serde_json::from_str(&several.stdout).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 2);
}

#[test]
fn a_ttl_is_kept_and_never_above_the_roles() {
    let world = world();
    let job = world.github();
    let life = |ttl: &str| {
        let before = crate::support::now();
        let destination = job.once(["--ttl", ttl]).good().destination();
        let expires = manifest(&destination)["expires_at"].as_str().unwrap().to_owned();
        machine_id::clock::parse_rfc3339(&expires).unwrap() - before
    };
    assert!((600..660).contains(&life("10m")));
    assert!((3600..3660).contains(&life("9h")), "the shortest of the roles' counts");
}

#[test]
fn a_second_run_replaces_the_first() {
    let world = world();
    let job = world.github();
    let destination = job.text_path("d");
    job.once(["--destination", &destination]).good();
    let first = snapshot(&job.path("d"));
    job.once(["--destination", &destination, "--output", "ssh"]).good();
    let second = snapshot(&job.path("d"));
    assert!(!second.contains_key(&job.path("d/tls.key")), "what the new manifest lacks is gone");
    assert_ne!(first[&job.path("d/key")], second[&job.path("d/key")]);
}

#[test]
fn a_destination_that_is_not_ours_is_left_alone() {
    let world = world();
    let job = world.github();
    let folder = |name: &str| {
        std::fs::create_dir(job.path(name)).unwrap();
        job.path(name)
    };
    std::fs::write(folder("used").join("notes.txt"), "mine").unwrap();
    std::fs::write(folder("app").join("manifest.json"), "{\"name\": \"app\"}").unwrap();
    std::os::unix::fs::symlink(folder("real"), job.path("link")).unwrap();
    std::fs::write(job.path("file"), "x").unwrap();
    let before = snapshot(&job.path(""));
    for name in ["used", "app", "link", "file", "no/such/parent"] {
        let outcome = job.once(["--destination", name]).failed(6);
        outcome.says(&["hint: "]);
        assert_eq!(snapshot(&job.path("")), before, "{name}");
    }
    assert_eq!(world.issuer.count(Endpoint::Token), 0, "nobody was asked");
}

#[test]
fn what_the_runner_cannot_be_told_leaves_nothing() {
    let world = world();
    let job = world.github();
    let job = job.env("GITHUB_ENV", "/no/such/folder/env");
    let outcome = job.once([]).failed(6);
    outcome.says(&["$GITHUB_ENV"]);
    assert_eq!(job.left(), Vec::<std::path::PathBuf>::new());
    assert_eq!(super::all_revoked(&world), 1);
}

#[test]
fn a_token_may_be_handed_over() {
    let world = world();
    let token = || world.issuer.token("github", &world.authority.url()).mint();
    let job = Job::new().told(&world.authority, "github-deploy").env("JWT", token());
    job.once(["--join-method", "github", "--id-token-env", "JWT"]).good();
    std::fs::write(job.path("jwt"), token() + "\n").unwrap();
    job.once(["--join-method", "github", "--id-token-file", "jwt"]).good();
    job.once(["--join-method", "github", "--id-token-file", "jwt"]).failed(4).says(&["used before"]);
    assert_eq!(world.issuer.count(Endpoint::Token), 0);
}
