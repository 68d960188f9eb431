//! Azure DevOps: an endpoint mints tokens, with an audience that nobody chooses.

use super::{events, joined_by};
use crate::support::client::timed;
use crate::support::issuer::{Endpoint, Fault, REQUEST_TOKEN};
use crate::support::once::{Job, World, manifest};

const ORGANIZATION: &str = "organization_id: 0ca3ddd9-f0b0-4635-a98c-5866526961b6";

fn azure(consent: bool, rule: &str) -> World {
    let section = format!("{ORGANIZATION}, accept_default_audience: {consent}, allow: [{rule}]");
    joined_by("azure-devops", "", &section)
}

fn job(world: &World) -> Job {
    Job::new().told(&world.authority, "here").envs(world.issuer.azure_environment())
}

#[test]
fn the_endpoint_mints_a_token_for_each_exchange() {
    let world = azure(true, "{project_name: octo-project, repository_ref: refs/heads/main}");
    let job = job(&world);
    let outcome = job.once(["-v"]).good();
    assert_eq!(manifest(&outcome.destination())["join_method"], "azure-devops");
    job.once([]).good();
    let minted = world.issuer.minted();
    assert!(minted.len() == 2 && minted[0] != minted[1]);
    for secret in minted.iter().map(String::as_str).chain([REQUEST_TOKEN]) {
        assert!(!outcome.stderr.contains(secret), "{}", outcome.stderr);
    }
    let request =
        world.issuer.requests().into_iter().find(|request| request.endpoint == Endpoint::Token).unwrap();
    assert!(request.target.ends_with("/oidctoken?api-version=7.1"), "{}", request.target);
    assert_eq!(request.header("x-tfs-fedauthredirect"), Some("Suppress"));
}

#[test]
fn a_service_connection_is_asked_for_by_its_variable() {
    let id = "9a1b2c3d-0000-4000-8000-00000000abcd";
    let world = azure(true, &format!("{{sub: 'sc://octo-org/octo-project/{id}'}}"));
    job(&world).env("MACHINE_ID_SERVICE_CONNECTION_ID", id).once([]).good();
    // The pipeline's own token is another's, and so is what a task sets.
    let own = job(&world).env("AZURESUBSCRIPTION_SERVICE_CONNECTION_ID", id);
    own.once([]).failed(4).says(&["a claim of the token is missing or of the wrong type"]);
}

#[test]
fn its_audience_needs_consent() {
    let world = azure(false, "{project_name: octo-project}");
    job(&world).once([]).failed(4).says(&["api://AzureADTokenExchange", "accept_default_audience"]);
}

#[test]
fn an_endpoint_that_refuses_or_fails_is_told() {
    let world = azure(true, "{project_name: octo-project}");
    for (fault, words) in [
        (Fault::Status(401), "status 401"),
        (Fault::Status(404), "status 404"),
        (Fault::Redirect("https://example.com/_signin".into()), "status 302"),
        (Fault::Body("{}".into()), "without a token"),
        (Fault::Body(r#"{"oidcToken": null}"#.into()), "without a token"),
        (Fault::Body("<html>Sign in</html>".into()), "without a token"),
        (Fault::Answer(400, String::new(), format!("bad: {REQUEST_TOKEN}")), "may hold a secret"),
    ] {
        world.issuer.fail(Endpoint::Token, fault);
        let outcome = job(&world).once([]).failed(3);
        outcome.says(&["Azure DevOps", words]);
        assert!(!outcome.stderr.contains(REQUEST_TOKEN), "{}", outcome.stderr);
    }
    world.issuer.fail(Endpoint::Token, Fault::Status(503));
    let (outcome, took) = timed(|| job(&world).once(["--timeout", "2s"]));
    outcome
        .failed(5)
        .says(&["Azure DevOps's token endpoint at 127.0.0.1 gave no token in time", "status.dev.azure.com"]);
    assert!(took.as_secs() < 8, "{took:?}");
    world.issuer.fail_times(Endpoint::Token, 1, Fault::Status(429));
    job(&world).once([]).good();
    assert!(events(&world, "refused").is_empty());
}
