//! The output `jwt` end to end: a file that is nothing but the token, written again while COMMAND runs, and given back.

use std::path::Path;

use serde_json::{Value, json};

use super::{WAIT, all_revoked, events, files, issuance, mode};
use crate::support::once::{Job, World, manifest};
use crate::support::process::{Running, read};
use crate::support::token::claims_of;
use crate::support::wait_for;

const AWS: &str = "sts.amazonaws.com";

fn world() -> World {
    World::with_policy(|policy| {
        policy.replace("roles: [deploy]", "roles: [deploy, cloud]")
            + "---\nkind: role\nversion: v7\nmetadata: {name: cloud}\nspec:\n  options: {max_session_ttl: 2h}\n  \
               allow: {jwt_audiences: [sts.amazonaws.com, 'https://*.example.com']}\n"
    })
}

/// The token in a destination.
fn token(destination: &Path) -> String {
    read(destination.join("token.jwt"))
}

#[test]
fn a_token_is_a_file_alone_and_nowhere_else() {
    let world = world();
    let job = world.github();
    let outcome = job.once(["-v", "--output", "jwt,audience=sts.amazonaws.com,ttl=10m"]).good();
    let destination = outcome.destination();
    assert_eq!(files(&destination), ["manifest.json", "token.jwt"].map(str::to_owned).into());
    assert_eq!(mode(&destination.join("token.jwt")), 0o600);
    let token = token(&destination);
    assert!(!token.contains(char::is_whitespace), "{token:?}");
    let signature = token.rsplit('.').next().unwrap();
    let masked = |line: &str| line == format!("::add-mask::{signature}");
    assert!(outcome.stderr.lines().any(masked), "{}", outcome.stderr);
    let others: Vec<&str> = outcome.stderr.lines().filter(|line| !masked(line)).collect();
    let said = others.concat() + &outcome.stdout + &read(destination.join("manifest.json"));
    let told =
        ["GITHUB_OUTPUT", "GITHUB_ENV", "GITHUB_STEP_SUMMARY", "GITHUB_STATE"].map(|file| job.said(file));
    assert!(!said.contains(signature) && !told.concat().contains(signature), "{said}");

    let claims = claims_of(&token);
    let manifest = manifest(&destination);
    let output = &manifest["outputs"][0];
    assert_eq!((&output["type"], &output["principals"]), (&json!("jwt"), &json!([AWS])));
    assert_eq!(output["options"], json!({"audience": AWS, "ttl": "10m"}));
    assert_eq!((&output["serial"], &manifest["issuance_id"]), (&claims["jti"], &claims["issuance_id"]));
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 660);

    let path = destination.display().to_string();
    let json = job.run(["inspect", &path, "--format", "json"]).good().stdout;
    assert!(!json.contains(signature), "{json}");
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json[1]["file"], &json[1]["claims"]["aud"]), (&json!("token.jwt"), &json!(AWS)));

    let cleaned = job.run(["cleanup", &path]).good();
    cleaned.says(&["wiped", "a token that somebody has copied ends by itself, at 20"]);
    assert!(!destination.exists() && !cleaned.stderr.contains("warning"), "{}", cleaned.stderr);
}

#[test]
fn beside_certificates_it_has_a_folder_and_ends_with_them() {
    let world = world();
    let job = world.github();
    let destination = job
        .once(["--output", "identity", "--output", "jwt,audience=https://vault.example.com,name=vault"])
        .good()
        .destination();
    let claims = claims_of(&read(destination.join("vault/token.jwt")));
    assert_eq!(
        (&claims["aud"], &claims["issuance_id"]),
        (&json!("https://vault.example.com"), &json!(issuance(&destination)))
    );
    // What ends first counts.
    let end = machine_id::clock::rfc3339(claims["exp"].as_i64().unwrap());
    assert_eq!(manifest(&destination)["expires_at"], end);
    job.run(["cleanup", &destination.display().to_string()]).good().says(&["wiped"]);
    assert_eq!(all_revoked(&world), 1);
}

fn started(job: &Job, output: &str) -> Running {
    let running = job.start(["--output", output, "--", "sh", "-c", WAIT]);
    wait_for("the token", || job.path("ready").exists().then_some(()));
    running
}

#[test]
fn a_wrapped_command_has_a_new_one_before_the_old_one_ends() {
    let world = world();
    let job = world.github().env("MACHINE_ID_DESTINATION", "d");
    let destination = job.path("d");
    let mut running = started(&job, "jwt,audience=sts.amazonaws.com,ttl=10s");
    let first = token(&destination);
    let second = wait_for("another token", || {
        let now = token(&destination);
        (now != first).then_some(now)
    });
    let [first, second] = [first, second].map(|token| claims_of(&token));
    assert!(first["jti"] != second["jti"] && first["aud"] == second["aud"]);
    assert!(second["iat"].as_i64().unwrap() + 60 <= first["exp"].as_i64().unwrap(), "{first:?} {second:?}");
    std::fs::write(job.path("end"), "").unwrap();
    assert!(running.wait().success());
    assert!(!destination.join("token.jwt").exists());
    let stderr = running.stderr();
    assert!(!stderr.contains("warning"), "{stderr}");
    // Each by its own bare key.
    assert!(all_revoked(&world) >= 2);
    assert_eq!(events(&world, "refused"), Vec::<Value>::new());
}

#[test]
fn what_cannot_be_is_said_before_anybody_is_asked() {
    let world = world();
    let job = world.github();
    for (output, says) in [
        ("jwt", "needs `audience=…`"),
        ("jwt,audience=x,ttl=9s", "`ttl` must be at least 10s"),
        ("jwt,audience=x,ttl=soon", "`ttl` "),
        ("jwt,audience=x,app=y", "there is no option of `jwt` `app`"),
    ] {
        job.once(["--output", output]).failed(2).says(&[says]);
    }
    assert!(world.issuer.minted().is_empty());
    let refused = job.once(["--output", "jwt,audience=https://elsewhere.example.net"]).failed(4);
    refused.says(&["the audience `https://elsewhere.example.net` is not granted by its roles"]);
    let own = job.once(["--output", &format!("jwt,audience={}/x", world.authority.url())]).failed(4);
    own.says(&["no token is for an authority's own URL"]);
}
