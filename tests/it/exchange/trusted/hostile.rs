//! What is no passport, or none for this leaf, these keys, now: each with its reason in the trail.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::Scene;
use crate::support::client::Keys;
use crate::support::keys;
use crate::support::now;
use crate::support::token::{Signing, Token};

/// Shows it as `cluster`'s, and gets this status for this reason.
struct Case {
    what: &'static str,
    cluster: &'static str,
    token: Token,
    status: u16,
    reason: &'static str,
}

fn cases(scene: &Scene, keys: &Keys) -> Vec<Case> {
    let good = || scene.passport("root.test", keys);
    let with = |name: &str, value: Value| good().claim(name, value);
    let url = scene.leaf.url();
    let root = scene.root.url();
    let now = now();
    let mut cases = Vec::new();
    let mut case = |what, token, status, reason| {
        cases.push(Case { what, cluster: "root.test", token, status, reason });
    };

    // For somebody else, or for other keys.
    case("another leaf's", with("aud", json!(keys.audience("https://leaf-2.test"))), 401, "audience_wrong");
    case("unbound", with("aud", json!(url)), 403, "binding_required");
    case("of other keys", with("aud", json!(Keys::fresh().audience(&url))), 401, "binding_wrong");
    case("with an empty binding", with("aud", json!(format!("{url}#"))), 401, "binding_wrong");
    case("for two audiences", with("aud", json!([keys.audience(&url), "x"])), 401, "audience_wrong");
    case(
        "with a path behind",
        with("aud", json!(format!("{url}/#{}", keys.binding()))),
        401,
        "audience_wrong",
    );
    case("for the root itself", with("aud", json!(keys.audience(&root))), 401, "audience_wrong");
    case("without an audience", good().without("aud"), 401, "audience_wrong");

    // By somebody else.
    let other = |kid: &str| {
        let mut token = good().header("kid", kid);
        token.signing = Signing::Key(&keys::P256_OTHER, "ES256".to_owned());
        token
    };
    case("by another key under its name", other(keys::P256.kid), 401, "signature_invalid");
    let rsa = Token::by(&keys::ISSUER, good().claims).header("typ", crate::support::root::PASSPORT);
    case("by a key of RSA", rsa, 401, "algorithm_refused");
    let mut none = good().header("alg", "none");
    none.signing = Signing::Bytes(Vec::new());
    case("unsigned", none, 401, "algorithm_refused");
    let mut shared = good().header("alg", "HS256");
    shared.signing = Signing::Hmac(keys::P256.jwk().to_string().into_bytes());
    case("by the public key as a secret", shared, 401, "algorithm_refused");
    let mut jwk = other(keys::P256.kid).header("jwk", keys::P256_OTHER.jwk());
    jwk = jwk.header("jku", "https://thief.test/keys");
    case("with a key of its own", jwk, 401, "signature_invalid");
    let mut added = good();
    let signed = added.mint();
    let (message, _) = signed.rsplit_once('.').unwrap();
    added.signing = Signing::Bytes(keys::P256.sign("ES256", message.as_bytes()));
    case(
        "with roles added after it was signed",
        added.claim("roles", json!(["deploy", "admin"])),
        401,
        "signature_invalid",
    );

    // Another thing.
    case("an output `jwt`", good().header("typ", "JWT"), 401, "header_refused");
    case(
        "of no type",
        {
            let mut token = good();
            token.header.remove("typ");
            token
        },
        401,
        "header_refused",
    );
    case("of its type in capitals", good().header("typ", "Machine-ID-Passport+JWT"), 401, "header_refused");
    case(
        "of its type as a list",
        good().header("typ", json!([crate::support::root::PASSPORT])),
        401,
        "header_refused",
    );
    case("a statement", good().header("typ", "machine-id-statement+jwt"), 401, "header_refused");
    case("critical", good().header("crit", json!(["exp"])), 401, "header_refused");

    // An issuer that only looks alike.
    let port = root.rsplit_once(':').unwrap().1.to_owned();
    for (what, issuer) in [
        ("with a slash behind", format!("{root}/")),
        ("with a path", format!("{root}/x")),
        ("in capitals", root.replace("https", "HTTPS")),
        ("of another port", "https://127.0.0.1:1".to_owned()),
        ("of another host", format!("https://localhost:{port}")),
        ("with a space behind", format!("{root} ")),
        ("with a dot behind", format!("https://127.0.0.1.:{port}")),
        ("over http", root.replace("https", "http")),
    ] {
        case(what, with("iss", json!(issuer)), 401, "issuer_wrong");
    }
    case("without an issuer", good().without("iss"), 401, "claim_invalid");

    // Its time.
    for (name, value, reason) in [
        ("exp", now - 60, "token_expired"),
        ("exp", now + 241, "lifetime_too_long"),
        ("exp", i64::MAX, "lifetime_too_long"),
        ("iat", now + 120, "token_not_yet_valid"),
        ("nbf", now + 120, "token_not_yet_valid"),
    ] {
        case("of another time", with(name, json!(value)), 401, reason);
    }
    case("without an end", good().without("exp"), 401, "claim_invalid");
    case("without a beginning", good().without("iat"), 401, "claim_invalid");
    for value in [now, now + 9, 0, -1, i64::MIN] {
        case("of a grant that is over", with("grant_expires_at", json!(value)), 401, "grant_over");
    }

    // Who it is of.
    for name in [
        "sub",
        "jti",
        "cluster",
        "bot",
        "roles",
        "join_token",
        "join_method",
        "provenance",
        "issuance_id",
        "grant_expires_at",
    ] {
        case("that lacks a claim", good().without(name), 401, "claim_invalid");
        case("with a claim of another type", with(name, json!(true)), 401, "claim_invalid");
        case("with a claim of nothing", with(name, json!(null)), 401, "claim_invalid");
    }
    case("of another cluster", scene.passport("given.test", keys), 403, "no_rule_matches");
    case("of this leaf itself", scene.passport("id.test", keys), 403, "no_rule_matches");
    for (name, value) in [
        ("bot", json!("deployer@other.test")),
        ("bot", json!("dep\nloyer")),
        ("bot", json!("../deployer")),
        ("bot", json!("Deployer")),
        ("bot", json!("b".repeat(65))),
        ("sub", json!("spiffe://root.test/bot/other")),
        ("sub", json!("spiffe://id.test/bot/deployer")),
        ("cluster", json!("root test")),
        ("roles", json!([])),
        ("roles", json!("deploy")),
        ("roles", json!(["deploy", 7])),
        ("roles", json!(["deploy", "x\u{1b}[2J"])),
        ("roles", json!({"deploy": true})),
        ("join_token", json!("a b")),
        ("join_method", json!("GitHub")),
        ("issuance_id", json!("i-1\n")),
        ("jti", json!(7)),
        ("jti", json!("")),
        ("jti", json!("7".repeat(300))),
        ("grant_expires_at", json!("soon")),
        ("grant_expires_at", json!(1.5)),
        ("provenance", json!({})),
        ("provenance", json!({"line": ""})),
        ("provenance", json!({"line": "x".repeat(1025)})),
        ("provenance", json!({"line": "x", "fulcio": {"08": "x"}})),
        ("provenance", json!({"line": "x", "fulcio": {"eight": "x"}})),
        ("provenance", json!({"line": "x", "fulcio": {"8": 8}})),
        ("provenance", json!({"line": "x", "fulcio": {"8": "x".repeat(1025)}})),
        ("provenance", json!({"line": "x", "claims": []})),
    ] {
        case("with a claim that cannot be", with(name, value), 401, "claim_invalid");
    }
    let long = format!("{}x", "d".repeat(50));
    let named = with("bot", json!(long)).claim("sub", format!("spiffe://root.test/bot/{long}"));
    case("with a name too long for certificates", named, 403, "bot_name_long");

    // What the map gives.
    case(
        "of roles that the map does not take",
        with("roles", json!(["read", "de", "admins"])),
        403,
        "role_not_mapped",
    );
    case(
        "of the leaf's own roles",
        with("roles", json!(["own", "orders", "guarded"])),
        403,
        "role_not_mapped",
    );
    let mut other = |what, cluster, token, status, reason| {
        cases.push(Case { what, cluster, token, status, reason });
    };
    // Whose keys are given, so that nobody is asked for another.
    let mut strange = scene.passport("given.test", keys).header("kid", "stranger");
    strange.signing = Signing::Key(&keys::P256_OTHER, "ES256".to_owned());
    other("by another key under another name", "given.test", strange.clone(), 401, "key_unknown");
    let named = strange.clone().header("kid", keys::P256.kid);
    other("by another key than those that are given", "given.test", named, 401, "signature_invalid");
    strange.signing = Signing::Key(&keys::ISSUER, "RS256".to_owned());
    let rsa = strange.header("kid", keys::ISSUER.kid);
    other("by a key of RSA that says otherwise", "given.test", rsa, 401, "key_unknown");
    other(
        "of a map that takes none",
        "narrow.test",
        scene.passport("narrow.test", keys),
        403,
        "role_not_mapped",
    );
    other("of a cluster that is off", "off.test", scene.passport("off.test", keys), 403, "cluster_disabled");
    other("of a cluster that is not there", "gone.test", good(), 403, "token_unknown");
    cases
}

#[test]
fn whatever_is_no_passport_is_refused_for_its_reason() {
    let scene = Scene::start();
    let keys = Keys::fresh();
    let mut reasons = BTreeSet::new();
    let all = cases(&scene, &keys);
    assert!(all.len() >= 60, "{}", all.len());
    let told: Vec<(Case, Value)> = all
        .into_iter()
        .map(|case| {
            let response = scene.show(case.cluster, &case.token.mint(), &keys);
            let problem = response.problem(case.status);
            (case, problem)
        })
        .collect();
    let trail = scene.leaf.audit();
    for (case, problem) in told {
        let id = &problem["denial_id"];
        let event = trail.iter().find(|event| event["denial_id"] == *id).expect("a record");
        let what = format!("{}: {:?}: {event}", case.what, case.token.claims);
        assert_eq!(event["reason"], case.reason, "{what}");
        assert_eq!(event["join_method"], "trusted_cluster", "{what}");
        if case.reason == "role_not_mapped" {
            assert!(
                problem["detail"].as_str().unwrap().starts_with("the proof has the roles `"),
                "{problem}"
            );
            assert!(!problem.to_string().contains("would give"), "the map is not told: {problem}");
        }
        reasons.insert(case.reason);
    }
    assert!(reasons.len() >= 18, "{reasons:?}");
    assert!(trail.iter().all(|event| event["event"] != "issued"), "nothing was issued");
    // And the honest one still is let in.
    scene.show("root.test", &scene.passport("root.test", &keys).mint(), &keys).granted();
}

/// A passport is of no use as an ordinary token, nor an ordinary join token's method for it.
#[test]
fn a_passport_opens_nothing_else() {
    let scene = Scene::start();
    let keys = Keys::fresh();
    let token = scene.passport("root.test", &keys).mint();
    for method in ["github", "oidc", "token", "nothing"] {
        let response = scene.leaf.client().exchange(&keys.request("root.test", method, &token));
        let reason = scene.leaf.refusal(&response.denial(response.status))["reason"].clone();
        let wanted = if method == "token" {
            "token_malformed"
        } else if method == "nothing" {
            "method_mismatch"
        } else {
            "header_refused"
        };
        assert_eq!(reason, wanted, "{method}");
    }
}
