//! What a stranger learns, and what the content of a token decides.

use serde_json::json;

use super::Suite;
use crate::support::client::{self, Keys};
use crate::support::token::Token;

#[test]
fn refusals_by_rule_look_alike_to_a_stranger() {
    let suite = Suite::load("github");
    let authority = suite.authority();
    let told = |join_token: &str, method: &str| {
        let honest = suite.honest(&authority);
        let token = Token::new(honest.claims.clone()).claim("repository", "evil/evil").mint();
        let mut problem =
            authority.client().exchange(&honest.keys.request(join_token, method, &token)).problem(403);
        for own in ["denial_id", "claims"] {
            problem.as_object_mut().unwrap().remove(own);
        }
        problem
    };
    let no_rule = told("by-repository", "github");
    assert_eq!(told("nobody", "github"), no_rule, "whether a join token exists");
    assert_eq!(told("by-repository", "circleci"), no_rule, "which method a join token has");
    let risky = {
        let honest = suite.honest(&authority);
        let token = Token::new(honest.claims.clone()).claim("event_name", "workflow_run").mint();
        let mut problem =
            authority.client().exchange(&honest.keys.request("by-repository", "github", &token)).problem(403);
        problem.as_object_mut().unwrap().remove("denial_id");
        problem.as_object_mut().unwrap().remove("claims");
        problem
    };
    assert_eq!(risky, no_rule, "whether but for the event a rule would match");
}

#[test]
fn garbage_tells_nothing_of_join_tokens() {
    let suite = Suite::load("github");
    let authority = suite.authority();
    let keys = Keys::fresh();
    let told = |join_token: &str, method: &str| {
        let mut problem =
            authority.client().exchange(&keys.request(join_token, method, "a.b.c")).problem(401);
        problem.as_object_mut().unwrap().remove("denial_id");
        problem
    };
    let garbage = told("by-repository", "github");
    assert_eq!(told("nobody", "github"), garbage);
    assert_eq!(told("by-repository", "circleci"), garbage);
}

#[test]
fn unsigned_tokens_tell_nothing_of_audiences_and_binding() {
    let suite = Suite::load("github");
    let authority = suite.authority();
    let told = |audience: &str| {
        let honest = suite.honest(&authority);
        let token = Token::new(honest.claims.clone()).claim("aud", audience).mint();
        let unsigned = format!("{}.AAAA", token.rsplit_once('.').unwrap().0);
        let request = honest.keys.request("by-repository", "github", &unsigned);
        let problem = authority.client().exchange(&request).problem(401);
        problem["type"].as_str().unwrap().to_owned()
    };
    for audience in
        [authority.url().to_owned(), "https://evil.example".to_owned(), format!("{}#x", authority.url())]
    {
        assert_eq!(told(&audience), "urn:machine-id:signature-invalid", "{audience}");
    }
}

#[test]
fn what_is_signed_twice_over_is_one_token() {
    // Without a `jti`, the content names the token: no re-encoding makes it another.
    let suite = Suite::load("circleci");
    let authority = suite.authority();
    let honest = suite.honest(&authority);
    let unbound = Token::new(honest.claims.clone()).claim("aud", authority.url());
    let token = unbound.mint();
    let first = Keys::fresh();
    authority.client().exchange(&first.request("by-project", "circleci", &token)).granted();
    let again = unbound.clone().mint();
    let second =
        authority.client().exchange(&Keys::fresh().request("by-project", "circleci", &again)).denial(401);
    assert_eq!(authority.refusal(&second)["reason"], "token_used");
    let elsewhere = client::request("by-origin", "circleci", &token, json!([Keys::fresh().output()]));
    let third = authority.client().exchange(&elsewhere).denial(401);
    assert_eq!(authority.refusal(&third)["reason"], "token_used");
}
