//! Tokens as others see them who know the authority's URL and its CA alone: JWT libraries, and AWS's SDK.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::support::jwt::{LIBRARIES, verify};
use crate::support::once::{Job, World};
use crate::support::process::read;
use crate::support::servers::world_of;
use crate::support::sts::Sts;
use crate::support::token::claims_of;
use crate::support::{base64url, keys, page, repository, wait_for};

const AWS: &str = "sts.amazonaws.com";

fn world() -> World {
    world_of(&["aws.md", "google-cloud.md"], &["aws", "google"], "")
}

/// A token for AWS, in its file, with these options more.
fn token(job: &Job, options: &str) -> PathBuf {
    job.once(["--output", &format!("jwt,audience={AWS}{options}")]).good().destination().join("token.jwt")
}

/// What a library says of a token in a file.
fn said(world: &World, library: &str, audience: &str, token: &Path) -> Result<Value, String> {
    verify(library, (&world.authority.url(), &world.authority.ca_file()), audience, token)
}

#[test]
fn libraries_verify_tokens_by_discovery_and_refuse_altered_ones() {
    let world = world();
    let job = world.github();
    let file = token(&job, "");
    let whole = read(&file);
    let [header, payload, signature] = whole.split('.').collect::<Vec<_>>()[..] else { panic!("{whole}") };
    let part =
        |part: &str| -> Value { serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap() };
    let with = |of: &str, name: &str, value: Value| {
        let mut object = part(of);
        object[name] = value;
        base64url(object.to_string())
    };
    let published = world.authority.client().get("/.well-known/jwks.json").json();
    let kids: Vec<&str> =
        published["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap()).collect();
    assert!(kids.len() == 2 && part(header)["kid"] == kids[0], "{kids:?}");
    let mut flipped = URL_SAFE_NO_PAD.decode(signature).unwrap();
    flipped[40] ^= 1;
    let hs256 = with(header, "alg", json!("HS256"));
    let by_public = keys::hmac_sha256(
        published["keys"][0].to_string().as_bytes(),
        format!("{hs256}.{payload}").as_bytes(),
    );
    let altered = [
        (
            "another bot",
            format!("{header}.{}.{signature}", with(payload, "sub", json!("spiffe://id.test/bot/admin"))),
        ),
        ("a longer life", format!("{header}.{}.{signature}", with(payload, "exp", json!(4_000_000_000_u64)))),
        ("no algorithm", format!("{}.{payload}.", with(header, "alg", json!("none")))),
        (
            "no algorithm, with a signature",
            format!("{}.{payload}.{signature}", with(header, "alg", json!("none"))),
        ),
        ("the public key for a secret", format!("{hs256}.{payload}.{}", base64url(by_public))),
        (
            "the key that is to follow",
            format!("{}.{payload}.{signature}", with(header, "kid", json!(kids[1]))),
        ),
        ("a key that is not there", format!("{}.{payload}.{signature}", with(header, "kid", json!("x")))),
        ("another signature", format!("{header}.{payload}.{}", base64url(flipped))),
        ("half a signature", format!("{header}.{payload}.{}", &signature[..40])),
    ];
    for library in LIBRARIES {
        let claims = said(&world, library, AWS, &file).unwrap();
        assert_eq!(claims, Value::Object(claims_of(&whole)), "{library}");
        assert_eq!(claims["sub"], "spiffe://id.test/bot/deployer");
        for other in ["sts.amazonaws.com.cn", "sts", &world.authority.url()] {
            let why = said(&world, library, other, &file).expect_err(other);
            assert!(why.to_lowercase().contains("aud"), "{library}: {why}");
        }
        for (what, text) in &altered {
            let file = job.path("altered");
            std::fs::write(&file, text).unwrap();
            assert!(said(&world, library, AWS, &file).is_err(), "{library} takes {what}");
        }
    }
}

#[test]
fn a_token_that_has_ended_is_refused() {
    let world = world();
    let job = world.github();
    let file = token(&job, ",ttl=10s");
    for library in LIBRARIES {
        let why = wait_for("its end", || said(&world, library, AWS, &file).err());
        assert!(why.contains("xpired"), "{library}: {why}");
    }
}

/// What the page says of AWS and of Google Cloud is what tokens say.
#[test]
fn the_pages_name_what_is_in_a_token() {
    let world = world();
    let job = world.github();
    let claims = claims_of(&read(token(&job, "")));
    let trust: Value = serde_json::from_str(&page::file("aws.md", "trust.json")).unwrap();
    let wanted = &trust["Statement"][0]["Condition"]["StringEquals"];
    assert_eq!(wanted["id.example.com:aud"], claims["aud"]);
    let sub = wanted["id.example.com:sub"].as_str().unwrap();
    assert_eq!(sub.replace("id.example.com", "id.test"), claims["sub"]);
    let google = read(repository("docs/resources/google-cloud.md"));
    assert!(google.contains(&format!("/subject/{sub}'")));
    for name in google
        .split("assertion.")
        .skip(1)
        .map(|rest| rest.split(|c: char| !(c.is_ascii_lowercase() || c == '_')).next().unwrap())
    {
        assert!(claims.contains_key(name), "{name}");
    }
    let audience = google.split("jwt_audiences: ['").nth(1).unwrap().split('\'').next().unwrap();
    world.github().once(["--output", &format!("jwt,audience={audience}")]).good();
}

/// The page's job, with a program of AWS's SDK in the place of its CLI.
#[test]
fn awss_sdk_takes_the_file() {
    let (world, sts) = (world(), Sts::start());
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository("target"), Into::into);
    let python = target.join("tools/moto/bin/python");
    let job = world
        .github()
        .env("AWS_ENDPOINT_URL_STS", format!("http://{}", sts.address()))
        .env("AWS_REGION", "eu-central-1");
    std::fs::write(
        job.path("ask.py"),
        "import botocore.session\nkeys = botocore.session.get_session().get_credentials()\n\
         print(keys.method, keys.get_frozen_credentials().access_key)\n",
    )
    .unwrap();
    let machine_id = crate::support::process::MACHINE_ID;
    let typed = page::file("aws.md", "job.sh");
    let typed = typed.replace("machine-id once", &format!("{machine_id} once"));
    let typed = typed.replace("aws s3 ls s3://releases", &format!("{} ask.py", python.display()));
    let mut shell = crate::support::process::command("sh");
    shell.args(["-euc", &typed]).current_dir(job.path("")).envs(job.environment());
    let said = crate::support::process::succeed(&mut shell);
    assert!(said.starts_with("assume-role-with-web-identity ASIA"), "{said}");
}
