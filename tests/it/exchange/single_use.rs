//! A token buys one issuance; the same request is answered again.

use std::net::{IpAddr, Ipv4Addr};

use machine_id::authority::enroll::{Refused, exchange};
use machine_id::clock::Clock;
use machine_id::denial::Reason;
use serde_json::{Value, json};

use super::Bench;
use crate::support::client::{self, Keys};
use crate::support::now;
use crate::support::token::Token;

fn serials(granted: &Value) -> (Value, Value, Value) {
    let output = &granted["outputs"][0];
    (granted["issuance_id"].clone(), output["serial"].clone(), output["tls_serial"].clone())
}

fn issued(bench: &Bench) -> usize {
    bench.authority.audit().iter().filter(|event| event["event"] == "issued").count()
}

#[test]
fn the_same_request_gets_the_same_serials() {
    let bench = Bench::start();
    let keys = Keys::fresh();
    for token in [bench.bound(&keys).mint(), bench.unbound().mint()] {
        let first = bench.present(&token, &keys).granted();
        let second = bench.present(&token, &keys).granted();
        assert_eq!(serials(&first), serials(&second));
        assert_eq!(first["expires_at"], second["expires_at"]);
        assert_ne!(first["outputs"][0]["serial"], first["outputs"][0]["tls_serial"]);
    }
    assert_eq!(issued(&bench), 2, "a repeated answer is no issuance");
}

#[test]
fn a_used_token_is_refused_for_anything_else() {
    let bench = Bench::start();
    let keys = Keys::fresh();
    let token = bench.unbound().mint();
    let first = bench.present(&token, &keys).granted();
    let request = |outputs: Value| client::request("github-deploy", "github", &token, outputs);
    let mut renamed = keys.output();
    renamed["name"] = "other".into();
    let mut fewer = keys.output();
    fewer.as_object_mut().unwrap().remove("tls");
    fewer["type"] = "ssh".into();
    let mut twice = keys.output();
    twice["name"] = "second".into();
    let others = [
        ("other keys", request(json!([Keys::fresh().output()]))),
        ("another name", request(json!([renamed]))),
        ("another type", request(json!([fewer]))),
        ("one output more", request(json!([keys.output(), twice]))),
        ("another join token", keys.request("github-both", "github", &token)),
    ];
    for (what, other) in others {
        let response = bench.authority.client().exchange(&other);
        assert_eq!(bench.reason(&response, 401), "token_used", "{what}");
    }
    assert_eq!(serials(&bench.present(&token, &keys).granted()), serials(&first));
    assert_eq!(issued(&bench), 1);
}

#[test]
fn fewer_roles_are_another_request() {
    let bench = Bench::start();
    let keys = Keys::fresh();
    let token = bench.bound(&keys).mint();
    let ask = |roles: Value| {
        let mut request = keys.request("github-both", "github", &token);
        request["outputs"][0]["roles"] = roles;
        bench.authority.client().exchange(&request)
    };
    ask(json!(["deploy", "short"])).granted();
    assert_eq!(bench.reason(&ask(json!(["short"])), 401), "token_used");
}

#[test]
fn a_longer_ttl_buys_nothing_the_second_time() {
    let bench = Bench::start();
    let keys = Keys::fresh();
    let mut request = keys.request("github-deploy", "github", &bench.bound(&keys).mint());
    request["ttl_seconds"] = 300.into();
    let first = bench.authority.client().exchange(&request).granted();
    request["ttl_seconds"] = 3600.into();
    let response = bench.authority.client().exchange(&request);
    if response.status == 200 {
        let second = response.json();
        assert_eq!(serials(&first), serials(&second));
        assert_eq!(first["expires_at"], second["expires_at"]);
    } else {
        assert_eq!(bench.reason(&response, 401), "token_used");
    }
}

#[test]
fn a_jti_is_used_up_whatever_else_the_token_says() {
    let bench = Bench::start();
    let first = bench.unbound();
    bench.present(&first.mint(), &Keys::fresh()).granted();
    let again = first.clone().claim("run_attempt", "2").header("added", 1);
    assert_eq!(bench.reason(&bench.present(&again.mint(), &Keys::fresh()), 401), "token_used");
}

#[test]
fn a_jti_of_another_issuer_is_another_token() {
    let bench = Bench::start();
    let first = bench.unbound();
    bench.present(&first.mint(), &Keys::fresh()).granted();
    let other = first.claim("iss", "https://token.actions.githubusercontent.com");
    let keys = Keys::fresh();
    bench.authority.client().exchange(&keys.request("github-cloud", "github", &other.mint())).granted();
}

#[test]
fn twenty_at_once_with_different_keys_get_one_issuance() {
    let bench = Bench::start();
    // The keys of the issuer are known, so that nothing holds anybody back.
    bench.grant(&Keys::fresh());
    let token = bench.unbound().mint();
    let requests: Vec<Value> =
        (0..20).map(|_| Keys::fresh().request("github-deploy", "github", &token)).collect();
    let responses = at_once(&bench, &requests);
    let granted = responses.iter().filter(|response| response.status == 200).count();
    assert_eq!(granted, 1, "{:?}", responses.iter().map(|response| response.status).collect::<Vec<_>>());
    for refused in responses.iter().filter(|response| response.status != 200) {
        assert_eq!(bench.reason(refused, 401), "token_used");
    }
    assert_eq!(issued(&bench), 2);
}

#[test]
fn a_join_token_may_let_one_token_be_used_more_than_once() {
    let mut bench = Bench::start();
    bench.grant(&Keys::fresh());
    let token = bench.unbound().mint();
    let requests: Vec<Value> =
        (0..12).map(|_| Keys::fresh().request("github-thrice", "github", &token)).collect();
    let responses = at_once(&bench, &requests);
    let (granted, refused): (Vec<_>, Vec<_>) =
        requests.iter().zip(&responses).partition(|(_, response)| response.status == 200);
    assert_eq!(granted.len(), 3);
    for (_, response) in refused {
        assert_eq!(bench.reason(response, 401), "token_used");
    }
    // Each of the three is answered again with its own serials, by another process too.
    bench.authority.restart();
    for (request, response) in granted {
        let again = bench.authority.client().exchange(request).granted();
        assert_eq!(serials(&again), serials(&response.json()));
    }
    // What was used there counts here.
    assert_eq!(bench.reason(&bench.present(&token, &Keys::fresh()), 401), "token_used");
    assert_eq!(issued(&bench), 4);
}

#[test]
fn a_bound_token_is_used_once_whatever_the_join_token_says() {
    let bench = Bench::start();
    let keys = Keys::fresh();
    let mut request = keys.request("github-thrice", "github", &bench.bound(&keys).mint());
    bench.authority.client().exchange(&request).granted();
    request["outputs"][0]["roles"] = json!(["deploy"]);
    assert_eq!(bench.reason(&bench.authority.client().exchange(&request), 401), "token_used");
    assert_eq!(issued(&bench), 1);
}

#[test]
fn twenty_at_once_with_the_same_keys_get_the_same_serials() {
    let bench = Bench::start();
    let keys = Keys::fresh();
    let request = keys.request("github-deploy", "github", &bench.bound(&keys).mint());
    let responses = at_once(&bench, &vec![request; 20]);
    let first = serials(&responses[0].granted());
    assert!(responses.iter().all(|response| serials(&response.granted()) == first));
    assert_eq!(issued(&bench), 1);
}

fn at_once(bench: &Bench, requests: &[Value]) -> Vec<client::Response> {
    let barrier = std::sync::Barrier::new(requests.len());
    std::thread::scope(|scope| {
        let ask = |request| {
            barrier.wait();
            bench.authority.client().exchange(request)
        };
        let threads: Vec<_> = requests.iter().map(|request| scope.spawn(move || ask(request))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn a_bound_token_is_good_for_its_keys_alone() {
    let bench = Bench::start();
    let (mine, theirs) = (Keys::fresh(), Keys::fresh());
    let token = bench.bound(&mine).mint();
    // Carried off before its owner could use it.
    assert_eq!(bench.reason(&bench.present(&token, &theirs), 401), "binding_wrong");
    let mut swapped = mine.output();
    swapped["ssh"] = theirs.output()["ssh"].clone();
    let request = client::request("github-deploy", "github", &token, json!([swapped]));
    assert_eq!(bench.reason(&bench.authority.client().exchange(&request), 401), "binding_wrong");
    let mut renamed = mine.output();
    renamed["name"] = "other".into();
    let request = client::request("github-deploy", "github", &token, json!([renamed]));
    assert_eq!(bench.reason(&bench.authority.client().exchange(&request), 401), "binding_wrong");
    bench.present(&token, &mine).granted();
}

#[test]
fn the_binding_covers_every_output_in_order() {
    let bench = Bench::start();
    let (one, two) = (Keys::fresh(), Keys::fresh());
    let mut second = two.output();
    second["name"] = "second".into();
    second["type"] = "ssh".into();
    second.as_object_mut().unwrap().remove("tls");
    let binding = client::binding(&[
        ("identity ssh", &one.ssh_blob),
        ("identity tls", &one.spki()),
        ("second ssh", &two.ssh_blob),
    ]);
    let audience = format!("{}#{binding}", bench.authority.url());
    let token = bench.issuer.token("github", &audience).mint();
    let ask = |outputs: Value| {
        let request = client::request("github-deploy", "github", &token, outputs);
        bench.authority.client().exchange(&request)
    };
    assert_eq!(bench.reason(&ask(json!([second, one.output()])), 401), "binding_wrong");
    assert_eq!(bench.reason(&ask(json!([one.output()])), 401), "binding_wrong");
    let granted = ask(json!([one.output(), second])).granted();
    assert_eq!(granted["outputs"][1]["name"], "second");
    assert!(granted["outputs"][1]["tls_certificate_chain"].is_null());
}

#[test]
fn a_refusal_does_not_use_the_token_up() {
    let bench = Bench::start();
    let keys = Keys::fresh();
    let token = bench.bound(&keys).mint();
    let mut request = keys.request("github-deploy", "github", &token);
    request["outputs"][0]["roles"] = json!(["admin"]);
    assert_eq!(bench.reason(&bench.authority.client().exchange(&request), 403), "role_not_held");
    bench.present(&token, &keys).granted();
}

#[test]
fn use_outlives_the_process() {
    let mut bench = Bench::start();
    let (keys, token) = (Keys::fresh(), bench.unbound().mint());
    let first = bench.present(&token, &keys).granted();
    bench.authority.restart();
    assert_eq!(bench.reason(&bench.present(&token, &Keys::fresh()), 401), "token_used");
    assert_eq!(serials(&bench.present(&token, &keys).granted()), serials(&first));
}

#[test]
fn a_token_without_jti_is_used_up_by_its_content() {
    let bench = Bench::start();
    let token: Token = bench.unbound().without("jti");
    bench.present(&token.mint(), &Keys::fresh()).granted();
    assert_eq!(bench.reason(&bench.present(&token.mint(), &Keys::fresh()), 401), "token_used");
    let other = token.claim("run_attempt", "2");
    bench.present(&other.mint(), &Keys::fresh()).granted();
}

/// Two days ahead for twenty minutes, and back; behind, and right again.
#[test]
fn a_wrong_clock_makes_no_used_token_new() {
    let mut bench = Bench::start();
    let now = now();
    let (first, other) = (Keys::fresh(), Keys::fresh());
    let token = bench.unbound().mint();
    bench.authority.terminate();
    let clock = Clock::held(now);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let data_dir = bench.authority.data_dir();
    let authority = machine_id::authority::Authority::open(&data_dir, clock.clone());
    let authority = runtime.block_on(authority).unwrap();
    let present = |keys: &Keys| {
        let request = serde_json::from_value(keys.request("github-deploy", "github", &token)).unwrap();
        runtime.block_on(exchange(&authority, &request, IpAddr::V4(Ipv4Addr::LOCALHOST)))
    };
    let refused = |keys: &Keys, reason: Reason| match present(keys) {
        Err(Refused::Denied { denial, .. }) => assert_eq!(denial.reason, reason),
        other => panic!("{other:?}"),
    };
    present(&first).unwrap();
    for (away, reason) in [(2 * 86_400, Reason::TokenExpired), (-2 * 86_400, Reason::TokenNotYetValid)] {
        clock.set(now + away);
        refused(&other, reason);
        runtime.block_on(authority.forget()).unwrap();
        clock.set(now);
        refused(&other, Reason::TokenUsed);
    }
}
