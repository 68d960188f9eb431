//! What a stranger learns, and what the content of a token decides.

use serde_json::json;

use crate::Suite;
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
