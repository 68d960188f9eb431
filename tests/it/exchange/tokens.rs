//! The output `jwt` over the wire: what a token says, what it is bound to, and how its issuance is given back.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use machine_id::clock::rfc3339;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384};
use serde_json::{Map, Value, json};

use crate::support::client::{self, Keys, Response, assertion_claims, binding};
use crate::support::once::World;
use crate::support::token::claims_of;
use crate::support::{keys, process};

const AWS: &str = "sts.amazonaws.com";

const ROLE: &str = "---\nkind: role\nversion: v7\nmetadata: {name: cloud}\nspec:\n  options: {max_session_ttl: 2h}\n  \
                    allow: {jwt_audiences: [sts.amazonaws.com, 'https://*', 'https://*/*']}\n";

fn world() -> World {
    World::with_policy(|policy| policy.replace("roles: [deploy]", "roles: [deploy, cloud]") + ROLE)
}

fn output(keys: &Keys, options: Value) -> Value {
    json!({"name": "cloud", "type": "jwt", "roles": ["cloud"], "options": options, "tls": {"csr": keys.csr}})
}

/// Asks for these outputs with a token for this audience.
fn ask(world: &World, audience: &str, outputs: Value) -> Response {
    let token = world.issuer.token("github", audience).mint();
    present(world, &token, outputs)
}

fn present(world: &World, token: &str, outputs: Value) -> Response {
    world.authority.client().exchange(&client::request("github-deploy", "github", token, outputs))
}

/// A token for AWS, and the answer that it came in.
fn granted(world: &World, keys: &Keys) -> Value {
    ask(world, &world.authority.url(), json!([output(keys, json!({"audience": AWS}))])).granted()
}

fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[test]
fn a_token_says_who_the_job_is_and_is_in_the_trail() {
    let world = world();
    let (keys, url) = (Keys::fresh(), world.authority.url());
    let outputs = json!([output(&keys, json!({"audience": AWS, "ttl": "10m"})), keys.output()]);
    let answer = ask(&world, &url, outputs).granted();
    let mine = &answer["outputs"][0];
    let token = mine["jwt"].as_str().unwrap();
    assert_eq!((&mine["tls_certificate_chain"], &mine["ssh_certificate"]), (&Value::Null, &Value::Null));
    assert_eq!((&mine["principals"], &mine["roles"]), (&json!([AWS]), &json!(["cloud"])));
    let (header, claims) = (part(token, 0), part(token, 1));
    let published = world.authority.client().get("/.well-known/jwks.json").json();
    assert_eq!(header, json!({"alg": "ES256", "typ": "JWT", "kid": published["keys"][0]["kid"]}));
    let said = |name: &str| claims[name].clone();
    for (name, value) in [
        ("iss", json!(url)),
        ("sub", json!("spiffe://id.test/bot/deployer")),
        ("aud", json!(AWS)),
        ("cluster", json!("id.test")),
        ("bot", json!("deployer")),
        ("roles", json!(["cloud"])),
        ("join_token", json!("github-deploy")),
        ("join_method", json!("github")),
        ("jti", mine["serial"].clone()),
        ("issuance_id", answer["issuance_id"].clone()),
    ] {
        assert_eq!(said(name), value, "{name}");
    }
    let line = claims["provenance"]["line"].as_str().unwrap();
    assert!(line.starts_with("github:octo-org/octo-repo@"), "{line}");
    assert_eq!(
        claims["provenance"]["fulcio"]["8"],
        claims_of(&world.issuer.token("github", &url).mint())["iss"]
    );
    // As all signed times, its own begin a minute before it is made.
    let [iat, nbf, exp] = ["iat", "nbf", "exp"].map(|name| claims[name].as_i64().unwrap());
    assert_eq!((nbf, exp), (iat, iat + 660));
    // The end of the first of all.
    assert_eq!(answer["expires_at"], rfc3339(exp));

    let issued = world.authority.issuance(answer["issuance_id"].as_str().unwrap());
    let recorded = &issued["outputs"][0];
    assert_eq!((&recorded["type"], &recorded["serial"]), (&json!("jwt"), &claims["jti"]));
    assert_eq!(recorded["options"], json!({"audience": AWS, "ttl": "10m"}));
    let jti = claims["jti"].as_str().unwrap();
    assert!(
        issued["serials"].as_array().unwrap().contains(&json!(jti)) && !issued.to_string().contains(token)
    );
    // Which is enough to shut it out: of a serial, the whole issuance.
    let locked = process::succeed(&mut world.authority.command(["lock", "--serial", jti]));
    assert!(locked.contains("1 issuance with 3 certificates is revoked"), "{locked}");
}

#[test]
fn a_proof_is_bound_to_the_audience_and_the_life_of_a_token() {
    let world = world();
    let (keys, url) = (Keys::fresh(), world.authority.url());
    let bound = |text: &str| {
        format!("{url}#{}", binding(&[("cloud tls", &keys.spki()), ("cloud jwt", text.as_bytes())]))
    };
    let ask = |text: &str, options: Value| ask(&world, &bound(text), json!([output(&keys, options)]));
    ask(&format!("{AWS}\n"), json!({"audience": AWS})).granted();
    ask(&format!("{AWS}\n600"), json!({"audience": AWS, "ttl": "10m"})).granted();
    ask(&format!("{AWS}\n600"), json!({"audience": AWS, "ttl": "600s"})).granted();
    for (text, options) in [
        (AWS.to_owned(), json!({"audience": AWS})),
        (format!("{AWS}\n"), json!({"audience": "https://vault.example.com"})),
        (format!("{AWS}\n"), json!({"audience": AWS, "ttl": "10m"})),
        (format!("{AWS}\n600"), json!({"audience": AWS})),
        (format!("{AWS}\n600"), json!({"audience": AWS, "ttl": "1h"})),
    ] {
        let id = ask(&text, options).denial(401);
        assert_eq!(world.authority.refusal(&id)["reason"], "binding_wrong", "{text}");
    }
    // One for the keys of a certificate buys no token.
    let token =
        world.issuer.token("github", &format!("{url}#{}", binding(&[("cloud tls", &keys.spki())]))).mint();
    let id = present(&world, &token, json!([output(&keys, json!({"audience": AWS}))])).denial(401);
    assert_eq!(world.authority.refusal(&id)["reason"], "binding_wrong");
}

#[test]
fn a_lost_answer_is_given_again_with_the_same_claims() {
    let world = world();
    let keys = Keys::fresh();
    let token = world.issuer.token("github", &world.authority.url()).mint();
    // Two of one key are told apart, too.
    let two = |audience: &str| {
        let mut other = output(&keys, json!({"audience": "https://vault.example.com"}));
        other["name"] = json!("other");
        json!([output(&keys, json!({"audience": audience})), other, keys.output()])
    };
    let first = present(&world, &token, two(AWS)).granted();
    let again = present(&world, &token, two(AWS)).granted();
    for index in [0, 1] {
        let claims = |answer: &Value| part(answer["outputs"][index]["jwt"].as_str().unwrap(), 1);
        assert_eq!(claims(&first), claims(&again));
    }
    assert_eq!(first["issuance_id"], again["issuance_id"]);
    let id = present(&world, &token, two("https://other.example.com")).denial(401);
    assert_eq!(world.authority.refusal(&id)["reason"], "token_used");
}

#[test]
fn what_no_role_gives_is_refused() {
    let world = world();
    let (keys, url) = (Keys::fresh(), world.authority.url());
    let ask = |options: Value| ask(&world, &url, json!([output(&keys, options)]));
    for audience in [
        "sts.amazonaws.com.cn".to_owned(),
        "https://a/b/c".to_owned(),
        // Whatever the role says.
        url.clone(),
        format!("{url}#AAAA"),
        format!("{url}/v1/revoke"),
        url.replace("https", "HTTPS"),
        url.replace("https", "http"),
        url.replace("127.0.0.1", "2130706433"),
    ] {
        let id = ask(json!({"audience": audience})).denial(403);
        assert_eq!(world.authority.refusal(&id)["reason"], "nothing_granted", "{audience}");
    }
    for (options, status) in [
        (json!({}), 400),
        (json!({"audience": ""}), 400),
        (json!({"audience": "a b"}), 400),
        (json!({"audience": AWS, "ttl": "9s"}), 400),
        (json!({"audience": AWS, "ttl": "600"}), 400),
        (json!({"audience": AWS, "app": "x"}), 400),
    ] {
        ask(options.clone()).problem(status);
    }
    let bare = json!([{"name": "cloud", "type": "jwt", "options": {"audience": AWS}}]);
    ask_plain(&world, bare).problem(400);
    let of_another = json!([output(&keys, json!({"audience": AWS})), {
        "name": "x", "type": "jwt", "roles": ["deploy"], "options": {"audience": AWS}, "tls": {"csr": keys.csr},
    }]);
    ask_plain(&world, of_another).denial(403);
    assert!(world.authority.audit().iter().all(|event| event["event"] != "issued"));
}

fn ask_plain(world: &World, outputs: Value) -> Response {
    ask(world, &world.authority.url(), outputs)
}

fn revoke(world: &World, issuance: &Value, assertion: &str) -> Response {
    let body = json!({"issuance_id": issuance, "assertion": assertion});
    world.authority.client().post("/v1/revoke", body.to_string())
}

/// A public key of P-256 as a JWK.
fn jwk(keys: &Keys) -> Value {
    let spki = keys.spki();
    let point = &spki[spki.len() - 64..];
    let half = |half: &[u8]| URL_SAFE_NO_PAD.encode(half);
    json!({"kty": "EC", "crv": "P-256", "x": half(&point[..32]), "y": half(&point[32..])})
}

fn claims(world: &World, serial: impl Into<Value>) -> Map<String, Value> {
    let mut claims = assertion_claims(&world.authority.url());
    claims.insert("serial".to_owned(), serial.into());
    claims
}

#[test]
fn the_key_of_a_token_gives_its_issuance_back() {
    let world = world();
    let keys = Keys::fresh();
    let mine = granted(&world, &keys);
    let header = json!({"alg": "ES256", "typ": "JWT", "jwk": jwk(&keys)});
    let serial = mine["outputs"][0]["serial"].clone();
    for _ in 0..2 {
        let assertion = keys.sign_es256(&header, &claims(&world, serial.clone()));
        let response = revoke(&world, &mine["issuance_id"], &assertion);
        assert_eq!(response.status, 200, "{}", response.text());
    }
    let revoked: Vec<Value> =
        world.authority.audit().into_iter().filter(|event| event["event"] == "revoked").collect();
    assert_eq!((revoked.len(), &revoked[0]["issuance_id"]), (1, &mine["issuance_id"]), "{revoked:?}");
}

#[test]
fn a_key_of_p384_does_too() {
    let world = world();
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let csr = CertificateParams::new(Vec::new()).unwrap().serialize_request(&pair).unwrap().pem().unwrap();
    let asked = json!([{
        "name": "cloud", "type": "jwt", "options": {"audience": AWS}, "tls": {"csr": csr},
    }]);
    let mine = ask_plain(&world, asked).granted();
    let spki = rcgen::PublicKeyData::subject_public_key_info(&pair);
    let key = zeroize::Zeroizing::new(pair.serialize_der());
    let key = machine_id::assertion::AssertionKey::bare(key, &spki).unwrap();
    let assertion = key.sign(&claims(&world, mine["outputs"][0]["serial"].clone())).unwrap();
    assert_eq!(part(assertion.expose(), 0)["jwk"]["crv"], "P-384");
    let response = revoke(&world, &mine["issuance_id"], assertion.expose());
    assert_eq!(response.status, 200, "{}", response.text());
}

#[test]
fn nobody_elses_key_does() {
    let world = world();
    let (keys, other) = (Keys::fresh(), Keys::fresh());
    let (mine, theirs) = (granted(&world, &keys), granted(&world, &other));
    let serial = |of: &Value| of["outputs"][0]["serial"].as_str().unwrap().to_owned();
    let number: u64 = serial(&mine).parse().unwrap();
    let with = |name: &str, value: Value| {
        let mut key = jwk(&keys);
        key[name] = value;
        json!({"alg": "ES256", "typ": "JWT", "jwk": key})
    };
    let good = || with("kty", json!("EC"));
    let mut rsa = good();
    rsa["jwk"] = keys::ISSUER.jwk();
    let mut beside = good();
    beside["x5c"] = json!([]);
    let mut p384 = good();
    p384["alg"] = json!("ES384");
    let theirs_key = json!({"alg": "ES256", "typ": "JWT", "jwk": jwk(&other)});
    let cases = [
        ("their key and signature", other.sign_es256(&theirs_key, &claims(&world, serial(&mine)))),
        ("their key, my signature", keys.sign_es256(&theirs_key, &claims(&world, serial(&mine)))),
        ("my key, their signature", other.sign_es256(&good(), &claims(&world, serial(&mine)))),
        ("their serial", keys.sign_es256(&good(), &claims(&world, serial(&theirs)))),
        ("their own, of their issuance", other.sign_es256(&theirs_key, &claims(&world, serial(&theirs)))),
        ("no serial", keys.sign_es256(&good(), &assertion_claims(&world.authority.url()))),
        ("a serial that is a number", keys.sign_es256(&good(), &claims(&world, number))),
        ("a serial with a zero in front", keys.sign_es256(&good(), &claims(&world, format!("0{number}")))),
        ("a serial with a plus", keys.sign_es256(&good(), &claims(&world, format!("+{number}")))),
        ("a serial in hexadecimal", keys.sign_es256(&good(), &claims(&world, format!("{number:#x}")))),
        ("an unknown serial", keys.sign_es256(&good(), &claims(&world, "1"))),
        ("a key of RSA", keys.sign_es256(&rsa, &claims(&world, serial(&mine)))),
        ("a certificate beside", keys.sign_es256(&beside, &claims(&world, serial(&mine)))),
        ("another algorithm", keys.sign_es256(&p384, &claims(&world, serial(&mine)))),
        ("another curve", keys.sign_es256(&with("crv", json!("P-384")), &claims(&world, serial(&mine)))),
        ("a private member", keys.sign_es256(&with("d", json!("AAAA")), &claims(&world, serial(&mine)))),
        ("a member too many", keys.sign_es256(&with("kid", json!("x")), &claims(&world, serial(&mine)))),
        (
            "a point that is none",
            keys.sign_es256(&with("y", json!("A".repeat(43))), &claims(&world, serial(&mine))),
        ),
        ("a short point", keys.sign_es256(&with("x", json!("AAAA")), &claims(&world, serial(&mine)))),
        ("no object", keys.sign_es256(&json!({"alg": "ES256", "jwk": "x"}), &claims(&world, serial(&mine)))),
        ("the token itself", mine["outputs"][0]["jwt"].as_str().unwrap().to_owned()),
    ];
    for (what, assertion) in cases {
        let id = revoke(&world, &mine["issuance_id"], &assertion).denial(401);
        assert_eq!(world.authority.refusal(&id)["reason"], "assertion_invalid", "{what}");
    }
    assert!(world.authority.audit().iter().all(|event| event["event"] != "revoked"));
    let assertion = keys.sign_es256(&good(), &claims(&world, serial(&mine)));
    assert_eq!(revoke(&world, &mine["issuance_id"], &assertion).status, 200);
}
