//! Tests of the output `jwt`: whom a token is for, for how long, and whom none is ever for.

use serde_json::json;

use super::fixture::{NOTHING, URL, bot, decide, identity, output_with, parse, policy, role};
use crate::authority::policy::{Grant, Policy, PolicyRequest};
use crate::denial::{Denial, Reason};

fn with(spec: &str, other: &str) -> Policy {
    let traits = "traits: [{name: team, values: [payments]}]";
    policy(&[bot(&format!("{{roles: [x, z], {traits}}}")), role("x", spec), role("z", other)])
}

fn ask(policy: &Policy, options: &[(&str, &str)]) -> Result<Grant, Denial> {
    decide(policy, &[output_with("jwt", &[], options)], 3600)
}

fn reason(policy: &Policy, audience: &str) -> Option<Reason> {
    ask(policy, &[("audience", audience)]).err().map(|denial| denial.reason)
}

#[test]
fn a_token_is_for_the_audiences_that_roles_name() {
    let policy = with(
        "{allow: {jwt_audiences: [sts.amazonaws.com, 'https://*.example.net/oidc', 'api://{{external.team}}']}}",
        "{deny: {jwt_audiences: ['https://secret*']}}",
    );
    for audience in
        ["sts.amazonaws.com", "https://a.example.net/oidc", "https://a.b.example.net/oidc", "api://payments"]
    {
        let grant = ask(&policy, &[("audience", audience)]).unwrap();
        let output = &grant.outputs[0];
        assert_eq!(output.jwt.as_ref().unwrap().audience, audience);
        assert!(output.tls.is_none() && output.ssh.is_none() && output.ttl == 300);
        assert_eq!(output.options.get("audience").unwrap(), audience);
    }
    for audience in [
        "sts.amazonaws.com.evil",
        "STS.amazonaws.com",
        "https://a.example.net",
        "https://a.example.net/oidc/x",
        // A `*` crosses no slash.
        "https://evil/.example.net/oidc",
        "https://evil/x.example.net/oidc",
        "https://secret.example.net/oidc",
        "api://other",
    ] {
        assert_eq!(reason(&policy, audience), Some(Reason::NothingGranted), "{audience}");
    }
    for audience in
        ["", " ", "a b", "a\n", "*", "https://*.example.net/oidc", "a\"", "a\\b", "é", &"x".repeat(257)]
    {
        assert_eq!(reason(&policy, audience), Some(Reason::OutputInvalid), "{audience:?}");
    }
    assert_eq!(ask(&policy, &[]).unwrap_err().reason, Reason::OutputInvalid);
    assert_eq!(reason(&with(NOTHING, NOTHING), "sts.amazonaws.com"), Some(Reason::NothingGranted));
    let denial = ask(&policy, &[("audience", "https://secret.example.net/oidc")]).unwrap_err();
    assert!(denial.detail.contains("denied by role `z` at p.yaml"), "{}", denial.detail);
    assert_eq!(
        denial.told.unwrap(),
        "output `jwt`: the audience `https://secret.example.net/oidc` is not granted by its roles (`x`, `z`)"
    );
}

#[test]
fn one_star_alone_is_every_audience_without_a_slash() {
    let policy = with("{allow: {jwt_audiences: ['*']}}", NOTHING);
    assert_eq!(reason(&policy, "sts.amazonaws.com"), None);
    assert_eq!(reason(&policy, "https://a.example.net"), Some(Reason::NothingGranted));
}

/// Whatever roles allow.
#[test]
fn no_token_is_for_the_authority_itself() {
    let policy = with("{allow: {jwt_audiences: ['*', 'https://*', 'https://*/*', '*//*', '//*']}}", NOTHING);
    assert_eq!(URL, "https://id.example.com");
    for audience in [
        "https://id.example.com",
        "https://id.example.com#AAAA",
        "https://id.example.com/v1",
        "https://ID.Example.com.",
        "https://id.example.com:443",
        "http://id.example.com",
        "//id.example.com",
        "id.example.com",
        "id.example.com:443",
        "x@id.example.com",
        "https:id.example.com",
        "https://id%2eexample.com",
    ] {
        let denial = ask(&policy, &[("audience", audience)]).unwrap_err();
        assert_eq!(denial.reason, Reason::NothingGranted, "{audience}");
        assert!(denial.told.unwrap().contains("authority's own URL"), "{audience}");
    }
    for audience in
        ["https://id.example.com.evil", "https://id.example.com:8443", "https://evil#.id.example.com"]
    {
        assert_eq!(reason(&policy, audience), None, "{audience}");
    }
    // `check` of files alone does not know the URL.
    let asked = [output_with("jwt", &[], &[("audience", URL)])];
    let asked = PolicyRequest { outputs: &asked, leaves: &[], ttl_seconds: 3600, public_url: None };
    policy.decide(policy.token("ci").unwrap(), &identity(json!({})), &asked).unwrap();
}

#[test]
fn a_token_lives_no_longer_than_asked_for_nor_than_the_grant() {
    let policy = with("{options: {max_session_ttl: 20m}, allow: {jwt_audiences: [a]}}", NOTHING);
    let long = with(
        "{options: {max_session_ttl: 12h}, allow: {jwt_audiences: [a]}}",
        "{options: {max_session_ttl: 12h}}",
    );
    let ttl = |policy: &Policy, ttl: &str, all: i64| {
        let options = [("audience", "a"), ("ttl", ttl)];
        let asked = [output_with("jwt", &[], if ttl.is_empty() { &options[..1] } else { &options })];
        decide(policy, &asked, all).map(|grant| grant.outputs[0].ttl).map_err(|denial| denial.told.unwrap())
    };
    for (of, asked, all, lives) in [
        (&policy, "", 3600, 300),
        (&policy, "10s", 3600, 10),
        (&policy, "10m", 3600, 600),
        (&policy, "10m", 60, 60),
        (&policy, "", 60, 60),
        (&policy, "1h", 3600, 1200),
        (&long, "1h", 43_200, 3600),
        (&long, "12h", 43_200, 3600),
    ] {
        assert_eq!(ttl(of, asked, all), Ok(lives), "{asked} {all}");
    }
    for bad in ["9s", "0s", "600", "-1m", "soon", "500ms"] {
        let told = ttl(&policy, bad, 3600).unwrap_err();
        assert!(told.starts_with("output `jwt`: `ttl` "), "{bad}: {told}");
    }
}

#[test]
fn a_pinned_role_gives_no_token() {
    let pinned = "{options: {pin_source_ip: true}, allow: {jwt_audiences: [a]}}";
    let denial = ask(&with(pinned, NOTHING), &[("audience", "a")]).unwrap_err();
    assert_eq!(denial.reason, Reason::NothingGranted);
    let told = denial.told.unwrap();
    assert!(
        told.contains("role `x` is left out: it pins the source address, which a token cannot"),
        "{told}"
    );
    let grant = ask(&with(pinned, "{allow: {jwt_audiences: [a]}}"), &[("audience", "a")]).unwrap();
    assert_eq!(grant.outputs[0].roles, ["z"]);
}

#[test]
fn entries_that_are_none_are_mistakes() {
    for (spec, wanted) in [
        ("{allow: {jwt_audiences: ['a b']}}", "`jwt_audiences`: `a b` cannot be an audience"),
        ("{allow: {jwt_audiences: ['https://é']}}", "cannot be an audience"),
        ("{deny: {jwt_audiences: ['a b*']}}", "`a b*` in `deny.jwt_audiences` can match no audience"),
        ("{allow: {jwt_audiences: x}}", "`jwt_audiences` must be a list"),
    ] {
        let text = format!("{}{}{}", bot("{roles: [x]}"), role("x", spec), super::fixture::TOKEN);
        let mistakes = parse(&text).map(|_| ()).unwrap_err();
        assert!(mistakes.len() == 1 && mistakes[0].contains(wanted), "{spec}: {mistakes:?}");
    }
}
