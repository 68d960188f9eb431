//! `machine-id inspect` of everything that there is, in words and as JSON.

use std::process::Stdio;

use serde_json::Value;

use super::world;
use crate::support::once::{IDENTITY_FILES, Job};
use crate::support::process::read;

fn both(job: &Job, path: &str) -> (String, Value) {
    let words = job.run(["inspect", path]).good().stdout;
    let json = job.run(["inspect", path, "--format", "json"]).good().stdout;
    (words, serde_json::from_str(&json).unwrap())
}

#[test]
fn a_destination() {
    let world = world();
    let job = world.github();
    let destination = job.once([]).good().destination().display().to_string();
    let (words, json) = both(&job, &destination);
    for text in [
        "destination\n",
        "  bot: deployer\n",
        "  outputs: identity (identity)\n",
        "SSH certificate\n",
        "  principals: deploy, reader, ubuntu\n",
        "run 20143266074 attempt 1\n",
        "X.509 certificate\n",
        "  names: URI:spiffe://id.test/bot/deployer\n",
        "  uses: client\n",
        "    1.3.6.1.4.1.57264.1.12: https://127.0.0.1:",
        "(in ",
    ] {
        assert!(words.contains(text), "no {text:?} in:\n{words}");
    }
    assert_eq!(json[0]["what"], "destination");
    assert_eq!(json[1]["file"], "key-cert.pub");
    let issued = world.authority.issuance(json[0]["issuance_id"].as_str().unwrap());
    assert_eq!(issued["serials"][0], json[1]["serial"]);
    assert_eq!(issued["serials"][1], json[2]["serial"]);
}

#[test]
fn every_file_and_never_a_key() {
    let world = world();
    let job = world.github();
    let destination = job.once([]).good().destination();
    let secrets: Vec<String> = ["key", "tls.key"]
        .iter()
        .flat_map(|name| read(destination.join(name)).lines().map(str::to_owned).collect::<Vec<_>>())
        .filter(|line| !line.starts_with("-----"))
        .collect();
    for name in IDENTITY_FILES.iter().chain(&["manifest.json"]) {
        let path = destination.join(name).display().to_string();
        if *name == "ssh_config" {
            job.run(["inspect", &path]).failed(2).says(&["cannot inspect"]);
            continue;
        }
        let (words, json) = both(&job, &path);
        assert!(!words.is_empty() && (json.is_object() || json.is_array()), "{name}");
        for secret in &secrets {
            assert!(!words.contains(secret) && !json.to_string().contains(secret), "{name}");
        }
    }
    let (words, json) = both(&job, &destination.join("identity").display().to_string());
    assert_eq!(json.as_array().unwrap().iter().filter(|item| item["what"] == "SSH private key").count(), 1);
    assert!(words.contains("trusted SSH host CA\n"), "{words}");
}

#[test]
fn a_token_without_its_signature() {
    let world = world();
    let job = world.github();
    let token = world.issuer.token("github", "https://id.example.com").mint();
    std::fs::write(job.path("token"), &token).unwrap();
    for format in ["text", "json"] {
        let mut command = job.command(["inspect", "-", "--format", format]);
        command.stdin(Stdio::from(std::fs::File::open(job.path("token")).unwrap()));
        let output = crate::support::process::run(&mut command);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("octo-org/octo-repo") && text.contains("https://id.example.com"), "{text}");
        for part in token.split('.') {
            assert!(!text.contains(part), "{format}: {text}");
        }
    }
}

#[test]
fn what_is_not_known_is_an_error() {
    let job = Job::new();
    std::fs::write(job.path("hello"), "hello").unwrap();
    std::fs::write(job.path("binary"), [0xff, 0xfe, 0]).unwrap();
    std::fs::create_dir(job.path("folder")).unwrap();
    for path in ["hello", "binary", "folder", "no-such", "-", "/dev/null"] {
        job.run(["inspect", path]).failed(2).says(&["error: "]);
    }
}

#[test]
fn a_destination_with_hostile_text_is_shown_as_text() {
    let world = world();
    let job = world.github();
    let destination = job.once([]).good().destination();
    let path = destination.join("manifest.json");
    let mut manifest = crate::support::once::manifest(&destination);
    manifest["bot"] = "evil\u{1b}[31m\n::error::x".into();
    std::fs::write(&path, manifest.to_string()).unwrap();
    let words = job.run(["inspect".as_ref(), destination.as_os_str()]).good().stdout;
    assert!(!words.contains('\u{1b}') && !words.lines().any(|line| line.starts_with("::")), "{words}");
}
