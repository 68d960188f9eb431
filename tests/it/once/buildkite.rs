//! Buildkite: the agent's command mints tokens.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use super::{events, joined_by};
use crate::support::client::timed;
use crate::support::once::{Job, World, manifest};
use crate::support::process::read;
use crate::support::token::claims_of;

fn buildkite() -> World {
    joined_by(
        "buildkite",
        "",
        "require_key_binding: true, allow: [{organization_slug: acme-inc, build_branch: main}]",
    )
}

/// A job with an agent that runs this script, or the one that works.
fn job(world: &World, script: Option<&str>) -> Job {
    let job = Job::new().told(&world.authority, "here").env("BUILDKITE", "true");
    let job = job.env("BUILDKITE_AGENT_ACCESS_TOKEN", "agent-secret-4711");
    std::fs::create_dir(job.path("bin")).unwrap();
    let agent = job.path("bin/buildkite-agent");
    match script {
        None => world.issuer.write_minter(&agent, "buildkite"),
        Some(script) => {
            std::fs::write(&agent, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&agent, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
    let path = format!("{}:{}", job.text_path("bin"), std::env::var("PATH").unwrap());
    job.env("PATH", path)
}

#[test]
fn the_agent_mints_a_bound_token_for_each_exchange() {
    let world = buildkite();
    let job = job(&world, None).env("BUILDKITE_OIDC_TOKEN_CLAIMS", "cluster_id, agent_tag:queue,pipeline_id");
    let outcome = job.once(["-v"]).good();
    assert_eq!(manifest(&outcome.destination())["join_method"], "buildkite");
    job.once([]).good();
    let minted = world.issuer.minted();
    let audience = |token: &String| claims_of(token)["aud"].as_str().unwrap().to_owned();
    let audiences: Vec<String> = minted.iter().map(audience).collect();
    assert!(
        audiences.iter().all(|aud| aud.starts_with(&format!("{}#", world.authority.url()))),
        "{audiences:?}"
    );
    assert!(audiences.len() == 2 && audiences[0] != audiences[1], "{audiences:?}");
    let arguments = read(job.path("bin/buildkite-agent.args"));
    let expected = format!(
        "oidc request-token --audience {} --claim organization_id --claim pipeline_id --claim cluster_id --claim agent_tag:queue",
        audiences[0]
    );
    assert_eq!(arguments.lines().next(), Some(expected.as_str()));
    assert!(minted.iter().all(|token| !outcome.stderr.contains(token.as_str())), "{}", outcome.stderr);
    let provenance = events(&world, "issued")[0]["provenance"].as_str().unwrap().to_owned();
    assert!(
        provenance.starts_with("buildkite:acme-inc/super-duper-app@refs/tags/v1.0.0 build 1041 job "),
        "{provenance}"
    );
}

#[test]
fn an_agent_that_fails_is_told() {
    let world = buildkite();
    for (script, words) in [
        (
            "echo 'flag provided but not defined: -claim' >&2; exit 1",
            "failed (flag provided but not defined: -claim)",
        ),
        ("echo token=abc >&2; exit 1", "failed ((what it said may hold a secret and is not shown))"),
        (
            "echo $BUILDKITE_AGENT_ACCESS_TOKEN >&2; exit 1",
            "failed ((what it said may hold a secret and is not shown))",
        ),
        ("echo 'Usage: buildkite-agent'", "printed something else than a token"),
        ("echo a.b.c d", "printed something else than a token"),
        ("exit 0", "printed something else than a token"),
    ] {
        let job = job(&world, Some(script));
        let outcome = job.once([]).failed(3);
        outcome.says(&[
            "this Buildkite job has no OIDC token: `buildkite-agent oidc request-token`",
            words,
            "hint: ",
        ]);
        assert!(!outcome.stderr.contains("agent-secret-4711"), "{}", outcome.stderr);
        assert!(job.left().is_empty());
    }
    let (outcome, took) = timed(|| job(&world, Some("exec sleep 60")).once(["--timeout", "2s"]));
    outcome.failed(5);
    assert!(took < Duration::from_secs(8), "{took:?}");
    assert!(events(&world, "issued").is_empty() && events(&world, "refused").is_empty());
}

#[test]
fn another_organisations_build_is_refused() {
    let world = buildkite();
    world.issuer.change_claims("buildkite", |claims| {
        claims.insert("organization_slug".into(), "evil-inc".into());
    });
    job(&world, None)
        .once([])
        .failed(4)
        .says(&["no rule of this authority lets this job in", "organization_slug: evil-inc"]);
}
