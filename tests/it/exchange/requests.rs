//! Requests that are wrong, and what a role allows.

use std::io::{self, Read};

use serde_json::{Value, json};

use super::Bench;
use crate::support::client::{Keys, Response};
use crate::support::{client, now, token};

/// A body that is wrong in one way, made from a good one.
type Spoil = fn(&mut Value);

const MALFORMED: &[(&str, Spoil)] = &[
    ("no join token", |body| remove(body, "token")),
    ("no join method", |body| remove(body, "join_method")),
    ("no proof", |body| remove(body, "proof")),
    ("no ttl", |body| remove(body, "ttl_seconds")),
    ("no outputs", |body| remove(body, "outputs")),
    ("a field too many", |body| body["admin"] = true.into()),
    ("a field too many in an output", |body| body["outputs"][0]["admin"] = true.into()),
    ("a field too many with the SSH key", |body| body["outputs"][0]["ssh"]["principals"] = json!(["root"])),
    ("a field too many with the CSR", |body| body["outputs"][0]["tls"]["subject"] = "CN=root".into()),
    ("join token a number", |body| body["token"] = 1.into()),
    ("join token null", |body| body["token"] = Value::Null),
    ("proof text", |body| body["proof"] = "eyJ".into()),
    ("proof a list", |body| body["proof"] = json!([])),
    ("id_token a number", |body| body["proof"]["id_token"] = 1.into()),
    ("id_token an object", |body| body["proof"]["id_token"] = json!({})),
    ("ttl text", |body| body["ttl_seconds"] = "600".into()),
    ("ttl a fraction", |body| body["ttl_seconds"] = 600.5.into()),
    ("ttl null", |body| body["ttl_seconds"] = Value::Null),
    ("ttl zero", |body| body["ttl_seconds"] = 0.into()),
    ("ttl negative", |body| body["ttl_seconds"] = (-600).into()),
    ("ttl the least number", |body| body["ttl_seconds"] = i64::MIN.into()),
    ("ttl nine seconds", |body| body["ttl_seconds"] = 9.into()),
    ("ttl beyond 63 bits", |body| body["ttl_seconds"] = u64::MAX.into()),
    ("no output", |body| body["outputs"] = json!([])),
    ("outputs an object", |body| body["outputs"] = json!({})),
    ("an output null", |body| body["outputs"] = json!([null])),
    ("outputs without end", |body| many_outputs(body, 500)),
    ("two outputs of one name", |body| many_outputs(body, 0)),
    ("no name", |body| remove(&mut body["outputs"][0], "name")),
    ("name empty", |body| body["outputs"][0]["name"] = "".into()),
    ("name with a slash", |body| body["outputs"][0]["name"] = "a/b".into()),
    ("name that climbs", |body| body["outputs"][0]["name"] = "..".into()),
    ("name with a line feed", |body| body["outputs"][0]["name"] = "identity\nx tls y".into()),
    ("name with a space", |body| body["outputs"][0]["name"] = "identity tls".into()),
    ("name in capitals", |body| body["outputs"][0]["name"] = "Identity".into()),
    ("name of 65 bytes", |body| body["outputs"][0]["name"] = "a".repeat(65).into()),
    ("name an option", |body| body["outputs"][0]["name"] = "-rf".into()),
    ("no type", |body| remove(&mut body["outputs"][0], "type")),
    ("an unknown type", |body| body["outputs"][0]["type"] = "root-shell".into()),
    ("an unknown option", |body| body["outputs"][0]["options"] = json!({"principals": "root"})),
    ("an option that is a number", |body| body["outputs"][0]["options"] = json!({"user": 1})),
    ("roles text", |body| body["outputs"][0]["roles"] = "deploy".into()),
    ("neither key", |body| {
        remove(&mut body["outputs"][0], "ssh");
        remove(&mut body["outputs"][0], "tls");
    }),
    ("a CSR for an SSH output", |body| body["outputs"][0]["type"] = "ssh".into()),
    ("SSH key empty", |body| body["outputs"][0]["ssh"]["public_key"] = "".into()),
    ("CSR empty", |body| body["outputs"][0]["tls"]["csr"] = "".into()),
    ("SSH key a list", |body| body["outputs"][0]["ssh"]["public_key"] = json!([])),
    ("a CSR for an SSH key", |body| {
        body["outputs"][0]["ssh"]["public_key"] = body["outputs"][0]["tls"]["csr"].clone();
    }),
    ("an SSH key for a CSR", |body| {
        body["outputs"][0]["tls"]["csr"] = body["outputs"][0]["ssh"]["public_key"].clone();
    }),
];

fn remove(object: &mut Value, name: &str) {
    object.as_object_mut().unwrap().remove(name);
}

fn many_outputs(body: &mut Value, more: usize) {
    let first = body["outputs"][0].clone();
    let list = body["outputs"].as_array_mut().unwrap();
    if more == 0 {
        list.push(first);
        return;
    }
    for number in 0..more {
        let mut output = json!({"name": format!("o{number}"), "type": "ssh"});
        output["ssh"] = first["ssh"].clone();
        list.push(output);
    }
}

#[test]
fn malformed_requests_are_refused_and_use_nothing_up() {
    let bench = Bench::start();
    let keys = Keys::fresh();
    // Not bound, so that a renamed output is not refused for its binding.
    let token = bench.unbound().mint();
    let good = keys.request("github-deploy", "github", &token);
    let mut wrong = Vec::new();
    for (what, spoil) in MALFORMED {
        let mut body = good.clone();
        spoil(&mut body);
        let response = bench.authority.client().exchange(&body);
        if !(response.status == 400 || (*what == "outputs without end" && response.status == 413)) {
            wrong.push(format!("{what}: {} {}", response.status, response.text()));
            continue;
        }
        response.problem(response.status);
        assert!(!response.text().contains(&token), "{what}: the reply holds the token");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    bench.authority.client().exchange(&good).granted();
}

#[test]
fn bodies_that_are_no_request_are_refused() {
    let bench = Bench::start();
    let keys = Keys::fresh();
    let good = keys.request("github-deploy", "github", &bench.bound(&keys).mint()).to_string();
    let long = format!("{good}{}", " ".repeat(1 << 20));
    let deep = format!("{{\"token\":{}", "[".repeat(50_000));
    let twice = good.replacen('{', r#"{"token":"github-both","#, 1);
    let mut not_utf8 = good.clone().into_bytes();
    not_utf8[3] = 0xff;
    let bodies: &[(&str, &[u8], &[u16])] = &[
        ("empty", b"", &[400]),
        ("no JSON", b"token=github-deploy", &[400]),
        ("a list", b"[]", &[400]),
        ("null", b"null", &[400]),
        ("cut off", &good.as_bytes()[..good.len() - 1], &[400]),
        ("two documents", &[good.as_bytes(), good.as_bytes()].concat(), &[400]),
        ("a member twice", twice.as_bytes(), &[400]),
        ("not UTF-8", &not_utf8, &[400]),
        ("a megabyte", long.as_bytes(), &[413]),
        ("nested deeply", deep.as_bytes(), &[400]),
    ];
    for (what, body, statuses) in bodies {
        let response = bench.authority.client().post("/v1/exchange", body);
        assert!(statuses.contains(&response.status), "{what}: {} {}", response.status, response.text());
        response.problem(response.status);
    }
    bench.authority.client().post("/v1/exchange", &good).granted();
}

#[test]
fn paths_and_methods_are_strict() {
    let bench = Bench::start();
    let client = bench.authority.client();
    client.get("/").problem(404);
    client.get("/v1/exchange").problem(405);
    client.get("/v1/exchange/../trust").problem(404);
    client.post("/v1/trust", "{}").problem(405);
    client.post("/v1/audit", "{}").problem(404);
    client.get("/v1/revoke").problem(405);
}

/// Seconds from now until a time of RFC 3339.
fn seconds_until(time: &Value) -> i64 {
    machine_id::clock::parse_rfc3339(time.as_str().unwrap()).expect("RFC 3339") - now()
}

#[test]
fn the_shortest_ttl_wins() {
    let bench = Bench::start();
    let lifetime = |join_token: &str, asked: i64| {
        let keys = Keys::fresh();
        let mut request = keys.request(join_token, "github", &bench.bound(&keys).mint());
        request["ttl_seconds"] = asked.into();
        seconds_until(&bench.authority.client().exchange(&request).granted()["expires_at"])
    };
    // The basic role allows two hours, `short` ten minutes.
    for (join_token, asked, expected) in [
        ("github-deploy", 10, 10),
        ("github-deploy", 600, 600),
        ("github-deploy", 86_400, 7200),
        ("github-deploy", i64::MAX, 7200),
        ("github-brief", 3600, 600),
        ("github-both", 3600, 600),
    ] {
        let got = lifetime(join_token, asked);
        assert!(
            (expected - 10..=expected).contains(&got),
            "{join_token} {asked}: {got}, expected {expected}"
        );
    }
}

#[test]
fn roles_are_held_or_refused() {
    let bench = Bench::start();
    let ask = |join_token: &str, kind: &str, roles: Value| {
        let keys = Keys::fresh();
        let mut output = keys.output();
        output["type"] = kind.into();
        if kind == "ssh" {
            remove(&mut output, "tls");
        }
        if !roles.is_null() {
            output["roles"] = roles;
        }
        let token = bench.unbound().mint();
        bench.authority.client().exchange(&client::request(join_token, "github", &token, json!([output])))
    };
    let principals = |response: client::Response| {
        let mut names: Vec<String> =
            serde_json::from_value(response.granted()["outputs"][0]["principals"].clone()).unwrap();
        names.sort_unstable();
        names
    };
    assert_eq!(principals(ask("github-deploy", "identity", Value::Null)), ["deploy", "ubuntu"]);
    assert_eq!(principals(ask("github-both", "identity", json!(["short"]))), ["short"]);
    assert_eq!(principals(ask("github-both", "ssh", json!(["deploy", "short"]))), ["deploy", "short"]);
    assert_eq!(principals(ask("github-pinned", "ssh", Value::Null)), ["pinned"]);
    for (join_token, roles, reason) in [
        ("github-deploy", json!(["short"]), "role_not_held"),
        ("github-deploy", json!(["deploy", "nobody"]), "role_not_held"),
        ("github-deploy", json!(["Deploy"]), "role_not_held"),
        ("github-mixed", json!(["mfa"]), "mfa_required"),
        ("github-guarded", Value::Null, "mfa_required"),
        ("github-hollow", Value::Null, "nothing_granted"),
        ("github-hostile", Value::Null, "nothing_granted"),
    ] {
        let response = ask(join_token, "ssh", roles.clone());
        assert_eq!(bench.reason(&response, 403), reason, "{join_token} {roles}");
    }
    assert_eq!(bench.reason(&ask("github-pinned", "identity", Value::Null), 403), "nothing_granted");
    let left_out = ask("github-mixed", "identity", Value::Null).granted();
    assert_eq!(left_out["outputs"][0]["roles"], json!(["deploy"]));
}

#[test]
fn outputs_that_cannot_be_issued_are_recorded() {
    let bench = Bench::start();
    let keys = Keys::fresh();
    let token = bench.bound(&keys).mint();
    let mut request = keys.request("github-deploy", "github", &token);
    request["outputs"][0]["type"] = "root-shell".into();
    assert_eq!(bench.reason(&bench.authority.client().exchange(&request), 400), "output_invalid");
    request["outputs"][0]["type"] = "identity".into();
    request["outputs"][0]["options"] = json!({"principals": "root"});
    assert_eq!(bench.reason(&bench.authority.client().exchange(&request), 400), "output_invalid");
    bench.present(&token, &keys).granted();
}

#[test]
fn a_refused_job_hears_its_own_claims_and_nothing_else() {
    let bench = Bench::start();
    let keys = Keys::fresh();
    let token = bench
        .bound(&keys)
        .claim("repository", "evil/evil")
        .claim("workflow", "\u{1b}[31m::error::x\n")
        .mint();
    let response = bench.present(&token, &keys);
    let problem = response.problem(403);
    assert_eq!(problem["claims"], Value::Object(token::claims_of(&token)));
    let text = response.text();
    for secret in ["octo-org/octo-repo\"", "deployer", "ubuntu", &token] {
        assert!(!problem["detail"].to_string().contains(secret), "{secret} in {text}");
        assert!(!problem["hint"].to_string().contains(secret), "{secret} in {text}");
    }
    let record = bench.authority.refusal(problem["denial_id"].as_str().unwrap());
    for (member, value) in
        [("token", "github-deploy"), ("join_method", "github"), ("reason", "no_rule_matches")]
    {
        assert_eq!(record[member], value, "{record}");
    }
    assert!(
        record["time"].as_str().is_some_and(|time| machine_id::clock::parse_rfc3339(time).is_some()),
        "{record}"
    );
    let said = bench.authority.stderr();
    assert!(!said.contains(&token) && !said.contains('\u{1b}'), "{said}");
}

#[test]
fn the_audit_trail_in_words_cannot_be_forged() {
    let bench = Bench::start();
    let hostile = "x\n2026-01-01T00:00:00Z issued \u{1b}[2J\u{202e}\r\u{9b}31m";
    let keys = Keys::fresh();
    let client = bench.authority.client();
    let honest = bench.bound(&keys).mint();
    client.exchange(&keys.request(hostile, "github", &honest)).problem(403);
    client.exchange(&keys.request("github-deploy", hostile, &honest)).problem(403);
    let denied = bench.bound(&keys).claim("repository", hostile).header("kid", hostile).mint();
    bench.present(&denied, &keys).problem(401);
    let denied = bench.bound(&keys).claim("repository", hostile).claim("ref", hostile).mint();
    bench.present(&denied, &keys).problem(403);
    let granted = bench.bound(&keys).claim("ref", hostile).claim("run_id", hostile).mint();
    bench.present(&granted, &keys).granted();
    let output = bench.authority.run(["audit", "--format", "text"]);
    assert!(output.status.success());
    let words = String::from_utf8(output.stdout).expect("UTF-8") + &bench.authority.stderr();
    let foul = |c: char| (c.is_control() && !matches!(c, '\n' | '\t')) || c == '\u{202e}';
    assert!(!words.contains(foul), "{words:?}");
    assert!(!words.lines().any(|line| line.starts_with("2026-01-01")), "{words}");
}

#[test]
fn too_many_refusals_are_not_written() {
    let bench = Bench::start();
    let keys = Keys::fresh();
    let request = keys.request("github-deploy", "github", "a.b.c");
    let limited = (0..1000)
        .map(|_| bench.authority.client().exchange(&request))
        .find(|response| response.status != 401);
    let limited = limited.expect("a limit on refusals");
    limited.problem(429);
    assert!(
        limited.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok()),
        "{limited:?}"
    );
    // An honest job from the same address is not held up.
    bench.grant(&Keys::fresh());
}

/// A reader that a signal interrupts before every part.
struct Interrupted<'b> {
    left: &'b [u8],
    is_next: bool,
}

impl Read for Interrupted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.is_next = !self.is_next;
        if self.is_next {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let part = buffer.len().min(7);
        self.left.read(&mut buffer[..part])
    }
}

#[test]
fn a_signal_breaks_no_answer_to_these_tests() {
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
    let response = Response::read(&mut Interrupted { left: answer, is_next: false }).unwrap();
    assert_eq!((response.status, response.text().as_str()), (200, "{}"));
}
