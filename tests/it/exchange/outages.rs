//! Issuers that fail, lie, or rotate their keys.

use std::time::Duration;

use serde_json::json;

use crate::support::authority::Authority;
use crate::support::client::{Keys, Response};
use crate::support::issuer::{Endpoint, Fault, Issuer};
use crate::support::token::Token;
use crate::support::{fresh, keys, wait_for, wait_slowly_for};

/// The join token `case-N`'s issuer; each has its own cool-down.
fn path(case: usize) -> String {
    format!("/case-{case}")
}

/// An authority whose join tokens `case-0` to `case-COUNT` trust an issuer each.
fn authority(issuer: &Issuer, count: usize) -> Authority {
    let mut policy = crate::support::policies::basic(issuer);
    for case in 0..count {
        policy.push_str(&format!(
            "---\nkind: token\nversion: v2\nmetadata: {{name: case-{case}}}\nspec:\n  roles: [Bot]\n  bot_name: deployer\n  \
             join_method: circleci\n  circleci:\n    organization_id: 3f1c2a54-7f0f-4f0b-9d5e-2b6f3a1c8d10\n    issuer: {}\n    \
             allow: [{{project_id: a7d2b0f6-51c4-4a6e-8e0d-6f2f0c9b7e21}}]\n",
            issuer.url(&path(case))
        ));
    }
    Authority::trusting(issuer, &policy)
}

/// A token of the join token's issuer, bound to keys.
fn token(issuer: &Issuer, authority: &Authority, case: usize, keys: &Keys) -> Token {
    issuer.token("circleci", &keys.audience(&authority.url())).claim("iss", issuer.url(&path(case)))
}

fn ask(authority: &Authority, case: usize, keys: &Keys, token: &Token) -> Response {
    authority.client().exchange(&keys.request(&format!("case-{case}"), "circleci", &token.mint()))
}

#[test]
fn an_issuer_that_fails_is_no_refusal() {
    let (issuer, elsewhere) = (Issuer::start(), Issuer::start());
    let discovery = |case: usize, change: &dyn Fn(&mut serde_json::Value)| {
        let own = issuer.url(&path(case));
        let mut document = json!({"issuer": own, "jwks_uri": format!("{own}/.well-known/jwks")});
        change(&mut document);
        Fault::Body(document.to_string())
    };
    let faults: Vec<(&str, Endpoint, Fault)> = vec![
        ("status 500", Endpoint::Discovery, Fault::Status(500)),
        ("status 404", Endpoint::Discovery, Fault::Status(404)),
        ("garbage", Endpoint::Discovery, Fault::Body("<html>sign in</html>".into())),
        (
            "another issuer",
            Endpoint::Discovery,
            discovery(3, &|d| d["issuer"] = "https://evil.example".into()),
        ),
        (
            "the issuer with a slash",
            Endpoint::Discovery,
            discovery(4, &|d| d["issuer"] = format!("{}/", d["issuer"].as_str().unwrap()).into()),
        ),
        (
            "no issuer",
            Endpoint::Discovery,
            discovery(5, &|d| drop(d.as_object_mut().unwrap().remove("issuer"))),
        ),
        (
            "no keys named",
            Endpoint::Discovery,
            discovery(6, &|d| drop(d.as_object_mut().unwrap().remove("jwks_uri"))),
        ),
        (
            "keys over http",
            Endpoint::Discovery,
            discovery(7, &|d| {
                d["jwks_uri"] = issuer.url("/case-7/.well-known/jwks").replace("https", "http").into()
            }),
        ),
        (
            "keys in a file",
            Endpoint::Discovery,
            discovery(8, &|d| d["jwks_uri"] = "file:///etc/passwd".into()),
        ),
        (
            "sent elsewhere",
            Endpoint::Discovery,
            Fault::Redirect(elsewhere.url("/case-9/.well-known/openid-configuration")),
        ),
        ("huge", Endpoint::Discovery, Fault::Huge(64 << 20)),
        ("closed", Endpoint::Discovery, Fault::Drop),
        ("keys: status 500", Endpoint::Keys, Fault::Status(500)),
        ("keys: garbage", Endpoint::Keys, Fault::Body("keys".into())),
        ("keys: none", Endpoint::Keys, Fault::Body(r#"{"keys":[]}"#.into())),
        ("keys: sent elsewhere", Endpoint::Keys, Fault::Redirect(elsewhere.url("/.well-known/jwks"))),
        ("keys: huge", Endpoint::Keys, Fault::Huge(64 << 20)),
        ("silent", Endpoint::Keys, Fault::Hang),
    ];
    let authority = authority(&issuer, faults.len());
    let mut held = Vec::new();
    for (case, (what, endpoint, fault)) in faults.into_iter().enumerate() {
        issuer.fail(endpoint, fault);
        let keys = Keys::fresh();
        let token = token(&issuer, &authority, case, &keys);
        let response = ask(&authority, case, &keys, &token);
        assert_eq!(response.status, 503, "{what}: {}", response.text());
        // The next attempt may come to another authority.
        assert_eq!(response.header("connection"), Some("close"), "{what}");
        let problem = response.problem(503);
        assert!(problem["denial_id"].is_null(), "{what}: {problem}");
        assert!(response.header("retry-after").is_some(), "{what}: {:?}", response.headers);
        issuer.heal(endpoint);
        held.push((what, case, keys, token));
    }
    assert!(elsewhere.requests().is_empty(), "went where it was sent: {:?}", elsewhere.requests());
    assert!(authority.audit().iter().all(|event| event["event"] != "refused"), "an outage is no refusal");
    // None of them used its token up.
    for (what, case, keys, token) in held {
        wait_for(what, || (ask(&authority, case, &keys, &token).status == 200).then_some(()));
    }
}

#[test]
fn a_dead_issuer_does_not_stop_those_it_is_known_by() {
    let mut issuer = Issuer::start();
    let authority = authority(&issuer, 2);
    let good = |case: usize| {
        let keys = Keys::fresh();
        let token = token(&issuer, &authority, case, &keys);
        ask(&authority, case, &keys, &token).status
    };
    assert_eq!(good(0), 200);
    issuer.stop();
    let keys = Keys::fresh();
    let known = issuer.token("circleci", &keys.audience(&authority.url())).claim("iss", issuer.url(&path(0)));
    assert_eq!(ask(&authority, 0, &keys, &known).status, 200, "the last good keys serve");
    let keys = Keys::fresh();
    let unknown =
        issuer.token("circleci", &keys.audience(&authority.url())).claim("iss", issuer.url(&path(1)));
    ask(&authority, 1, &keys, &unknown).problem(503);
    issuer.resume();
    wait_for("the issuer to be asked again", || {
        (ask(&authority, 1, &keys, &unknown).status == 200).then_some(())
    });
}

#[test]
fn unknown_keys_do_not_make_us_ask_and_ask() {
    let issuer = Issuer::start();
    let authority = authority(&issuer, 1);
    let keys = Keys::fresh();
    let honest = token(&issuer, &authority, 0, &keys);
    assert_eq!(ask(&authority, 0, &keys, &honest).status, 200);
    assert_eq!(issuer.count(Endpoint::Discovery), 1);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..5 {
                    let keys = Keys::fresh();
                    let token = token(&issuer, &authority, 0, &keys).header("kid", fresh());
                    let response = ask(&authority, 0, &keys, &token);
                    assert!(matches!(response.status, 401 | 503), "{}", response.text());
                }
            });
        }
    });
    assert!(issuer.count(Endpoint::Discovery) <= 2, "asked {} times", issuer.count(Endpoint::Discovery));
    assert!(issuer.count(Endpoint::Keys) <= 2, "asked {} times", issuer.count(Endpoint::Keys));
}

#[test]
fn many_first_jobs_ask_once() {
    let issuer = Issuer::start();
    let authority = authority(&issuer, 1);
    issuer.fail(Endpoint::Keys, Fault::Delay(Duration::from_millis(300)));
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                let keys = Keys::fresh();
                let token = token(&issuer, &authority, 0, &keys);
                ask(&authority, 0, &keys, &token).granted();
            });
        }
    });
    assert_eq!((issuer.count(Endpoint::Discovery), issuer.count(Endpoint::Keys)), (1, 1));
}

#[test]
fn who_hangs_up_does_not_take_the_question_away() {
    let issuer = Issuer::start();
    let authority = authority(&issuer, 1);
    issuer.fail(Endpoint::Discovery, Fault::Delay(Duration::from_millis(500)));
    let keys = Keys::fresh();
    // Unsigned, so anybody can send it; the connection is gone before the issuer answers.
    let honest = token(&issuer, &authority, 0, &keys).mint();
    let unsigned = format!("{}.AAAA", honest.rsplit_once('.').unwrap().0);
    authority
        .client()
        .exchange_and_hang_up(&keys.request("case-0", "circleci", &unsigned), Duration::from_millis(100));
    wait_for("the fetch of whoever hung up", || (issuer.count(Endpoint::Keys) == 1).then_some(()));
    let token = token(&issuer, &authority, 0, &keys);
    ask(&authority, 0, &keys, &token).granted();
}

#[test]
fn a_new_key_is_found_and_a_bad_set_does_not_replace_a_good_one() {
    let issuer = Issuer::start();
    let authority = authority(&issuer, 1);
    let ask_with = |key: &'static keys::Key| {
        issuer.set_signer(key);
        let keys = Keys::fresh();
        let token = token(&issuer, &authority, 0, &keys);
        ask(&authority, 0, &keys, &token).status
    };
    assert_eq!(ask_with(&keys::ISSUER), 200);
    // The next refresh brings nothing usable; what was good stays good.
    issuer.fail_times(Endpoint::Keys, 1, Fault::Body(r#"{"keys":[{"kty":"RSA"}]}"#.into()));
    let pause = Duration::from_millis(300);
    wait_slowly_for("a refresh", pause, || {
        let status = ask_with(&keys::SECOND);
        assert!(matches!(status, 401 | 503), "{status}");
        (issuer.count(Endpoint::Keys) >= 2).then_some(())
    });
    // Whether the issuer has that key cannot be told now, which is no refusal.
    assert_eq!(ask_with(&keys::SECOND), 503);
    assert_eq!(ask_with(&keys::ISSUER), 200);
    issuer.set_keys(vec![json!({"kty": "EC", "kid": "unusable"}), keys::ISSUER.jwk(), keys::SECOND.jwk()]);
    wait_slowly_for("the new key", pause, || (ask_with(&keys::SECOND) == 200).then_some(()));
    assert_eq!(ask_with(&keys::ISSUER), 200);
}

/// Whoever signs with a key that the issuer has only since it was asked waits for the next question, and a stranger
/// who has it asked all the time changes nothing in that. What is still unknown then is refused.
#[test]
fn a_key_that_is_newer_than_the_last_question_is_no_refusal() {
    let issuer = Issuer::start();
    let authority = authority(&issuer, 1);
    let job = Keys::fresh();
    ask(&authority, 0, &job, &token(&issuer, &authority, 0, &job)).granted();
    let stranger = || {
        let keys = Keys::fresh();
        ask(&authority, 0, &keys, &token(&issuer, &authority, 0, &keys).header("kid", fresh()))
    };
    let waits = |response: &Response| {
        let problem = response.problem(503);
        assert_eq!(
            (&problem["type"], problem["denial_id"].is_null()),
            (&json!("urn:machine-id:issuer-unavailable"), true)
        );
        let wait: u64 = response.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=13).contains(&wait), "{wait}");
    };
    waits(&stranger());
    issuer.set_keys(vec![keys::SECOND.jwk()]);
    issuer.set_signer(&keys::SECOND);
    let (job, mistaken) = (Keys::fresh(), Keys::fresh());
    let new = token(&issuer, &authority, 0, &job);
    let unknown = token(&issuer, &authority, 0, &mistaken).header("kid", "nobody");
    waits(&ask(&authority, 0, &job, &new));
    waits(&ask(&authority, 0, &mistaken, &unknown));
    assert_eq!(issuer.count(Endpoint::Keys), 1, "once in a cool-down");
    wait_slowly_for("the next question, by a stranger", Duration::from_millis(300), || {
        stranger();
        (issuer.count(Endpoint::Keys) == 2).then_some(())
    });
    wait_for("its answer", || (ask(&authority, 0, &job, &new).status == 200).then_some(()));
    let id = ask(&authority, 0, &mistaken, &unknown).denial(401);
    assert_eq!(authority.refusal(&id)["reason"], "key_unknown");
    waits(&stranger());
    assert_eq!(issuer.count(Endpoint::Keys), 2);
}

#[test]
fn a_token_for_nobody_makes_us_ask_nobody() {
    let issuer = Issuer::start();
    let authority = authority(&issuer, 1);
    let keys = Keys::fresh();
    for token in [
        token(&issuer, &authority, 0, &keys).claim("iss", issuer.url("/evil")),
        token(&issuer, &authority, 0, &keys).claim("exp", 1),
        token(&issuer, &authority, 0, &keys).header("alg", "none"),
    ] {
        ask(&authority, 0, &keys, &token).problem(401);
    }
    assert!(issuer.requests().is_empty(), "{:?}", issuer.requests());
}
