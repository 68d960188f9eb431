//! Small mistakes of people who set a job up, and what the standards let issuers do: what comes out leads to the cause.

use serde_json::{Value, json};

use super::joined_by;
use crate::support::issuer::{Endpoint, Issuer};
use crate::support::once::{Job, World};
use crate::support::token::Token;
use crate::support::{authority::Authority, keys, now, policies};

const PROJECT: &str = "allow: [{project_path: octo-group/platform/app}]";

/// The basic policy, and a join token `here` for GitLab.
fn policy(issuer: &Issuer, section: &str) -> String {
    policies::basic(issuer)
        + &format!(
            "---\nkind: token\nversion: v2\nmetadata: {{name: here}}\nspec:\n  roles: [Bot]\n  bot_name: deployer\n  \
             join_method: gitlab\n  gitlab: {{{section}, {PROJECT}}}\n"
        )
}

/// A GitLab job with that token.
fn job(authority: &Authority, token: &Token) -> Job {
    Job::new().told(authority, "here").env("GITLAB_CI", "true").env("MACHINE_ID_ID_TOKEN", token.mint())
}

/// The same, with these claims in place of others.
fn gitlab(world: &World, claims: &[(&str, Value)]) -> Job {
    let token = world.issuer.token("gitlab", &world.authority.url());
    let token = claims.iter().fold(token, |token, (name, value)| token.claim(name, value.clone()));
    job(&world.authority, &token)
}

#[test]
fn audiences_and_times_are_taken_as_the_standards_write_them() {
    let world = joined_by("gitlab", "", PROJECT);
    let ours = world.authority.url();
    // `aud: [https://…]` in .gitlab-ci.yml.
    gitlab(&world, &[("aud", json!([ours]))]).once([]).good();
    let now = now();
    let time = |seconds: i64| serde_json::from_str(&format!("{seconds}.25")).unwrap();
    gitlab(&world, &[("iat", time(now)), ("nbf", time(now - 5)), ("exp", time(now + 300))]).once([]).good();
    let two = gitlab(&world, &[("aud", json!([ours, "https://vault.example.com"]))]).once([]).failed(4);
    two.says(&[
        "minted for another audience: aud is a list of 2, and a token must be for one audience alone",
        "have the platform mint one for it alone",
    ]);
    // As the job's file had it, where a variable or the scheme is missing.
    let host = ours.trim_start_matches("https://");
    for aud in ["$MACHINE_ID_AUTHORITY", host, &format!("http://{host}"), &format!("{ours}/")] {
        let misspelt = gitlab(&world, &[("aud", json!(aud))]).once([]).failed(4);
        misspelt
            .says(&[&format!("such as {ours}, and this token has {aud}: have the platform mint one for it")]);
        assert!(!misspelt.stderr.contains("the platform chose"), "{}", misspelt.stderr);
    }
    let text = gitlab(&world, &[("exp", json!("tomorrow"))]).once([]).failed(4);
    text.says(&["exp is missing or not a number of seconds since 1970"]);
}

#[test]
fn a_key_without_a_name_is_taken_where_there_is_no_choice() {
    let mut set = json!({"keys": [keys::ISSUER.jwk()]});
    set["keys"][0].as_object_mut().unwrap().remove("kid");
    let issuer = Issuer::start();
    issuer.set_keys(vec![set["keys"][0].clone()]);
    for section in [format!("domain: '{}'", issuer.host()), format!("static_jwks: '{set}'")] {
        let authority = Authority::trusting(&issuer, &policy(&issuer, &section));
        let has_domain = section.starts_with("domain");
        let iss = if has_domain { issuer.url("") } else { "https://gitlab.com".to_owned() };
        for kid in [None, Some("a-name-of-its-own")] {
            let mut token = issuer.token("gitlab", &authority.url()).claim("iss", iss.clone());
            token.header.remove("kid");
            token.header.extend(kid.map(|kid| ("kid".to_owned(), json!(kid))));
            job(&authority, &token).once([]).good();
        }
        assert_eq!(issuer.count(Endpoint::Keys), 1, "it is asked once, and known from then on");
    }
}

#[test]
fn a_token_that_names_no_key_of_several_is_told() {
    let issuer = Issuer::start();
    let set = json!({"keys": [keys::ISSUER.jwk(), keys::SECOND.jwk()]});
    let authority = Authority::trusting(&issuer, &policy(&issuer, &format!("static_jwks: '{set}'")));
    let mut token = issuer.token("gitlab", &authority.url());
    token.header.remove("kid");
    job(&authority, &token).once([]).failed(4).says(&[
        "the token's header has no `kid`, and its issuer has not exactly one key that it can be signed with",
    ]);
}

#[test]
fn an_issuer_behind_a_ca_of_its_own_leads_to_the_setting_for_it() {
    let issuer = Issuer::start();
    let authority = Authority::start(&policy(&issuer, &format!("domain: '{}'", issuer.host())));
    let token = issuer.token("gitlab", &authority.url()).claim("iss", issuer.url(""));
    let outcome = job(&authority, &token).once(["--timeout", "1s"]).failed(5);
    outcome.says(&["whoever vouches for this proof cannot be asked just now"]);
    authority.wait_for_stderr(
        "a CA that this machine does not know belongs into `issuer_ca_file` of authority.yaml",
    );
}

#[test]
fn fips_is_asked_for_where_aws_has_it() {
    let job = || {
        Job::new()
            .env("MACHINE_ID_AUTHORITY", "https://127.0.0.1:1")
            .env("MACHINE_ID_TOKEN", "aws")
            .env("MACHINE_ID_JOIN_METHOD", "iam")
            .env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
            .env("AWS_SECRET_ACCESS_KEY", "made-up")
            .env("AWS_USE_FIPS_ENDPOINT", "true")
    };
    let with = "us-east-1, us-east-2, us-west-1, us-west-2";
    job().env("AWS_REGION", "eu-central-1").once(["--timeout", "1s"]).failed(3).says(&[
        "AWS_USE_FIPS_ENDPOINT is set, and AWS has no FIPS endpoint of STS in eu-central-1",
        &format!("hint: unset AWS_USE_FIPS_ENDPOINT for `machine-id`, or set AWS_REGION for it to a region that has one: {with}"),
    ]);
    job().once(["--timeout", "1s"]).failed(3).says(&[
        "AWS_USE_FIPS_ENDPOINT is set, and no region, which FIPS endpoints have",
        &format!("hint: set AWS_REGION to one that has such an STS: {with}"),
    ]);
    for (region, host) in [("us-gov-west-1", "sts.us-gov-west-1"), ("us-east-2", "sts-fips.us-east-2")] {
        let outcome = job().env("AWS_REGION", region).once(["-v", "--timeout", "1s"]).failed(5);
        outcome.says(&[&format!("signing a request to {host}.amazonaws.com with the AWS credentials")]);
    }
}
