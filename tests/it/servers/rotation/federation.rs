//! The federation key goes round while its set is asked for, and whoever verifies tokens by it believes each until its key ends:
//! by discovery, and by a copy.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde_json::{Map, Value, json};

use super::super::rotation_page::Shell;
use super::{key_files, refused, rotate, status, step};
use crate::support::authority::Authority;
use crate::support::client::Keys;
use crate::support::keys::Key;
use crate::support::process::{read, succeed};
use crate::support::token::Token;
use crate::support::{fresh, now, repository, wait_for, wait_slowly_for};

const ROLES: &str = "kind: bot
version: v1
metadata: {name: visitor}
spec: {roles: [visit]}
---
kind: role
version: v7
metadata: {name: visit}
spec: {allow: {logins: [deploy], node_labels: {'*': '*'}}}
";

/// The set as it is served, whoever asks.
#[track_caller]
fn key_set(root: &Authority) -> Vec<Value> {
    let response = root.client().get("/.well-known/jwks.json");
    assert_eq!(response.header("cache-control"), Some("public, max-age=300"));
    assert_eq!(response.header("content-type"), Some("application/json"));
    response.granted()["keys"].as_array().unwrap().clone()
}

fn kid(key: &Value) -> &str {
    key["kid"].as_str().unwrap()
}

/// The key of the set that has that place, as the authority's machine has it.
#[track_caller]
fn private(root: &Authority, key: &Value) -> &'static Key {
    let names = key_files(&root.data_dir()).into_iter().filter(|name| name.starts_with("federation"));
    let stolen = names.map(|name| Key::stolen(kid(key), &root.data_dir().join("keys").join(name)));
    stolen.into_iter().find(|own| own.jwk() == *key).expect("its private key")
}

/// A token as the authority signs them, by that key.
fn token(root: &Authority, key: &'static Key, audience: &str) -> String {
    let now = now();
    let claims = json!({
        "iss": root.url(), "sub": "spiffe://id.test/bot/visitor", "aud": audience, "jti": fresh(),
        "iat": now - 60, "nbf": now - 60, "exp": now + 3600,
    });
    let claims: Map<String, Value> = claims.as_object().unwrap().clone();
    Token::by(key, claims).mint()
}

/// Whether it is by a key of the set: with no line of the product's.
fn verifies(set: &[Value], token: &str) -> bool {
    let decoded = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
    let (message, signature) = token.rsplit_once('.').unwrap();
    let header: Value = serde_json::from_slice(&decoded(message.split_once('.').unwrap().0)).unwrap();
    let Some(key) = set.iter().find(|key| key["kid"] == header["kid"]) else { return false };
    let half = |name: &str| decoded(key[name].as_str().unwrap());
    let point = [vec![4], half("x"), half("y")].concat();
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
    key.verify(message.as_bytes(), &decoded(signature)).is_ok()
}

/// Asks for the set all the while that `work` lasts, and looks that what was signed and has not ended verifies.
fn watched(root: &Authority, live: &Mutex<Vec<String>>, work: impl FnOnce(&dyn Fn())) {
    let (ended, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                // It is held back from ending meanwhile.
                let live = live.lock().unwrap();
                let set = key_set(root);
                let lost: Vec<_> = live.iter().filter(|token| !verifies(&set, token)).collect();
                assert!(lost.is_empty(), "{lost:?} by none of {set:?}");
                drop(live);
                asked.fetch_add(1, Ordering::Relaxed);
                std::thread::yield_now();
            }
        });
        let goes_on = || {
            let goal = asked.load(Ordering::Relaxed) + 2;
            wait_for("the set, asked for", || {
                let is_there = asked.load(Ordering::Relaxed) >= goal || watcher.is_finished();
                is_there.then_some(())
            });
        };
        work(&goes_on);
        ended.store(true, Ordering::Relaxed);
    });
    assert!(asked.into_inner() > 0);
}

#[test]
fn the_federation_key_goes_round_while_its_set_is_asked_for() {
    let root = Authority::start(ROLES);
    let document = root.client().get("/.well-known/openid-configuration").granted();
    let url = root.url();
    assert_eq!(
        (document["issuer"].as_str(), document["jwks_uri"].as_str()),
        (Some(&*url), Some(&*format!("{url}/.well-known/jwks.json")))
    );
    for (name, value) in [
        ("response_types_supported", "id_token"),
        ("subject_types_supported", "public"),
        ("id_token_signing_alg_values_supported", "ES256"),
    ] {
        assert_eq!(document[name], json!([value]), "{document}");
    }
    let exported = || -> Vec<Value> {
        let text = succeed(&mut root.command(["export", "federation-jwks"]));
        serde_json::from_str::<Value>(&text).unwrap()["keys"].as_array().unwrap().clone()
    };
    let is_at = |phase: &str, count: usize| {
        let status = status(&root, "federation");
        // It hears of it within a second.
        let set = wait_for("the set of now", || {
            let set = key_set(&root);
            (kid(&set[0]) == status["current"] && set.len() == count).then_some(set)
        });
        assert_eq!(status["phase"], phase, "{status}");
        assert_eq!(exported(), set);
        assert!(set.iter().any(|key| kid(key) == status["ahead"]), "{status} {set:?}");
        assert_ne!(status["ahead"], status["next"], "{status}");
        let ready = root.client().get("/readyz").json()["keys"].to_string();
        assert!(ready.contains(&format!("\"federation {}\"", kid(&set[0]))), "{ready}");
        set
    };
    let live = Mutex::new(Vec::new());
    // What is signed by that place of the set, and verifies from now on.
    let signs = |set: &[Value]| {
        let token = token(&root, private(&root, &set[0]), "aud");
        live.lock().unwrap().push(token.clone());
        token
    };
    let before = is_at("settled", 2);
    watched(&root, &live, |goes_on| {
        let first = signs(&before);
        refused(&rotate(&root, "federation", "activate", &[]), 2, "no rotation of it has begun");
        step(&root, "federation", "start");
        let started = is_at("started", 3);
        assert_eq!(started[..2], before, "a new one is ahead, and none went");
        goes_on();
        step(&root, "federation", "activate");
        let activated = is_at("activated", 3);
        assert_eq!(activated[0], before[1], "it was published from the beginning");
        let second = signs(&activated);
        assert!(verifies(&before, &second), "whoever has a copy believes it");
        goes_on();
        step(&root, "federation", "rollback");
        let third = signs(&is_at("started", 3));
        assert!(verifies(&before, &third));
        goes_on();
        let copies = "whoever has fetched the key set before it was there may keep it";
        refused(&rotate(&root, "federation", "activate", &[]), 4, copies);
        assert!(rotate(&root, "federation", "activate", &["--force"]).status.success());
        is_at("activated", 3);
        goes_on();
        let lives = "tokens that the old one signed may live";
        refused(&rotate(&root, "federation", "finish", &[]), 4, lives);
        // As if the hour were over.
        live.lock().unwrap().retain(|token| *token == second);
        assert!(rotate(&root, "federation", "finish", &["--force"]).status.success());
        let finished = is_at("settled", 2);
        assert_eq!(finished[0], before[1]);
        assert!(!verifies(&finished, &first) && !verifies(&finished, &third) && verifies(&finished, &second));
        let files = key_files(&root.data_dir());
        assert!(!files.contains(&"federation_key".to_owned()), "{files:?}");
        goes_on();
        // Once more round: a copy from between has what signs then, and a step back from the start takes the last one back.
        step(&root, "federation", "start");
        step(&root, "federation", "rollback");
        assert_eq!(is_at("settled", 2), finished);
        step(&root, "federation", "start");
        refused(&rotate(&root, "federation", "start", &[]), 2, "a rotation of it has begun");
        goes_on();
    });
    let stolen = is_at("started", 3);
    let thief = stolen.iter().map(|key| token(&root, private(&root, key), "aud")).collect::<Vec<_>>();
    let told = rotate(&root, "federation", "compromised", &[]);
    refused(&told, 2, "--yes");
    refused(&told, 2, "not by itself: clouds and leaf clusters with a copy of the set");
    for key in &stolen {
        refused(&told, 2, kid(key));
    }
    // As docs/rotation.md has it.
    let shell = Shell::of(&root);
    shell.types("federation", &[]);
    let anew = is_at("settled", 2);
    let written: Value = serde_json::from_str(&read(shell.path("federation.jwks"))).unwrap();
    assert_eq!(written, json!({ "keys": anew }));
    assert!(thief.iter().all(|token| !verifies(&anew, token)), "{anew:?}");
    assert!(verifies(&anew, &token(&root, private(&root, &anew[0]), "aud")));
    let left = key_files(&root.data_dir()).into_iter().filter(|name| name.starts_with("federation"));
    assert_eq!(left.count(), 2);
    // The one that signs is ready to be followed.
    step(&root, "federation", "start");
    is_at("started", 3);
}

/// A leaf that asks, and one that has a copy of before.
#[test]
fn leaves_believe_each_token_by_discovery_and_by_a_copy() {
    let root = Authority::start(&format!(
        "{ROLES}---\nkind: leaf_cluster\nversion: v1\nmetadata: {{name: far.test}}\nspec: {{url: 'https://far.test', hosts: ['*.far.test'], \
         roles: [visit], static: true}}\n"
    ));
    let copy = succeed(&mut root.command(["export", "federation-jwks"]));
    let leaf = |more: &str| {
        let policy = format!(
            "{ROLES}---\nkind: token\nversion: v2\nmetadata: {{name: by-root}}\nspec:\n  roles: [Bot]\n  bot_name: visitor\n  \
             join_method: oidc\n  oidc:\n    issuer: {}\n    algorithms: [ES256]\n{more}    allow: [{{claims: {{sub: 'spiffe://id.test/bot/visitor'}}}}]\n",
            root.url()
        );
        let trusts = format!("issuer_ca_file: {}\n", root.ca_file().display());
        Authority::with_policy(&policy).config(&trusts).start()
    };
    let (asks, copied) = (leaf(""), leaf(&format!("    static_jwks: '{}'\n", copy.trim())));
    let joins = |leaf: &Authority, key: &'static Key| {
        let keys = Keys::fresh();
        let token = token(&root, key, &keys.audience(&leaf.url()));
        leaf.client().exchange(&keys.request("by-root", "oidc", &token))
    };
    let set = key_set(&root);
    let (current, ahead) = (private(&root, &set[0]), private(&root, &set[1]));
    let both = |key| [&asks, &copied].iter().for_each(|leaf| drop(joins(leaf, key).granted()));
    both(current);
    step(&root, "federation", "start");
    let notes = status(&root, "federation")["notes"].to_string();
    assert!(notes.contains("far.test hold a copy of the keys"), "{notes}");
    both(current);
    step(&root, "federation", "activate");
    // Neither has asked anew: it was among those that they had.
    [ahead, current].into_iter().for_each(both);
    assert!(rotate(&root, "federation", "finish", &["--force"]).status.success());
    both(ahead);
    // The next one is in no copy of before the start; whoever asks finds it.
    step(&root, "federation", "start");
    assert!(rotate(&root, "federation", "activate", &["--force"]).status.success());
    let set = wait_for("the next", || {
        let set = key_set(&root);
        // What was heard of the steps may be late by a second.
        (![current.kid, ahead.kid].contains(&kid(&set[0])) && set.len() == 3).then_some(set)
    });
    let next = private(&root, &set[0]);
    let reason = |leaf: &Authority, key| {
        leaf.refusal(&joins(leaf, key).denial(401))["reason"].as_str().unwrap().to_owned()
    };
    assert_eq!(reason(&copied, next), "key_unknown");
    // It asks a while after it asked last.
    wait_slowly_for("a leaf that asks again", Duration::from_millis(200), || {
        (joins(&asks, next).status == 200).then_some(())
    });
    let strange = Key::stolen(next.kid, &repository("tests/fixtures/keys/p256.pem"));
    assert_eq!(reason(&asks, strange), "signature_invalid");
}
