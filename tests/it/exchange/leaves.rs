//! A job that goes to leaf clusters: what the root vouches for, for whom, and what it leaves behind.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use machine_id::wire::PASSPORT;
use ring::digest::{SHA256, digest};
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde_json::{Map, Value, json};

use super::Bench;
use crate::support::authority::{Authority, CLUSTER};
use crate::support::base64url;
use crate::support::client::{self, Keys, Response};
use crate::support::issuer::Issuer;
use crate::support::process::{run, succeed};
use crate::support::token::{Token, claims_of};

const LEAVES: &str = r"---
kind: leaf_cluster
version: v1
metadata: {name: leaf.test}
spec:
  url: https://id.leaf.test
  ca_pin: 'sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'
  hosts: ['*.leaf.test', db]
  roles: [deploy, short]
---
kind: leaf_cluster
version: v1
metadata: {name: other.test}
spec: {url: 'https://id.other.test:8443', hosts: ['*.other.test'], roles: [deploy]}
---
kind: leaf_cluster
version: v1
metadata: {name: closed.test}
spec: {url: 'https://id.closed.test', hosts: ['*.closed.test'], roles: [hollow]}
";

fn policy(issuer: &Issuer) -> String {
    super::policy(issuer) + LEAVES
}

fn bench() -> Bench {
    let issuer = Issuer::start();
    let authority = Authority::trusting(&issuer, &policy(&issuer));
    Bench { issuer, authority }
}

/// A request's part for a leaf: its name, and what that leaf's own request will be bound to.
fn leaf(name: &str, keys: &Keys) -> Value {
    json!({"name": name, "binding": keys.binding()})
}

/// The key binding as `interface.md` defines it, of outputs with these keys and of leaves, independently of the product.
fn binding(outputs: &[&Keys], leaves: &[Value]) -> String {
    let hash = |bytes: &[u8]| base64url(digest(&SHA256, bytes));
    let mut lines = "machine-id-binding-v1\n".to_owned();
    for keys in outputs {
        let (ssh, tls) = (hash(&keys.ssh_blob), hash(&keys.spki()));
        lines += &format!("identity ssh {ssh}\nidentity tls {tls}\n");
    }
    for leaf in leaves {
        lines += &format!("{} leaf {}\n", leaf["name"].as_str().unwrap(), leaf["binding"].as_str().unwrap());
    }
    hash(lines.as_bytes())
}

impl Bench {
    fn token_for(&self, binding: &str) -> Token {
        self.issuer.token("github", &format!("{}#{binding}", self.authority.url()))
    }

    /// The request of a job with these outputs and leaves, whose token is bound to them.
    fn going(&self, join_token: &str, outputs: &[&Keys], leaves: &[Value]) -> Value {
        let token = self.token_for(&binding(outputs, leaves)).mint();
        let outputs: Vec<Value> = outputs.iter().map(|keys| keys.output()).collect();
        let mut request = client::request(join_token, "github", &token, outputs.into());
        request["leaves"] = leaves.into();
        request
    }

    fn send(&self, request: &Value) -> Response {
        self.authority.client().exchange(request)
    }

    /// The header and claims of a proof that a published key has signed.
    fn believed(&self, proof: &str) -> (Value, Map<String, Value>) {
        let [header, payload, signature] = proof.split('.').collect::<Vec<_>>().try_into().unwrap();
        let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
        let header_json: Value = serde_json::from_slice(&bytes(header)).unwrap();
        let set = self.authority.client().get("/.well-known/jwks.json").granted();
        let key =
            set["keys"].as_array().unwrap().iter().find(|key| key["kid"] == header_json["kid"]).unwrap();
        let [x, y] = ["x", "y"].map(|half| bytes(key[half].as_str().unwrap()));
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, [vec![4], x, y].concat());
        key.verify(format!("{header}.{payload}").as_bytes(), &bytes(signature)).unwrap();
        (header_json, claims_of(proof))
    }
}

fn proof(granted: &Value, index: usize) -> &str {
    granted["leaves"][index]["proof"].as_str().unwrap()
}

#[test]
fn a_job_is_vouched_for_at_each_leaf_for_the_keys_of_its_request_there() {
    let bench = bench();
    let (here, there, elsewhere) = (Keys::fresh(), Keys::fresh(), Keys::fresh());
    let leaves = [leaf("leaf.test", &there), leaf("other.test", &elsewhere)];
    let request = bench.going("github-both", &[&here], &leaves);
    let granted = bench.send(&request).granted();
    let answers = granted["leaves"].as_array().unwrap();
    assert_eq!(answers.len(), 2);
    assert_eq!(
        (&answers[0]["name"], &answers[0]["url"], &answers[0]["hosts"]),
        (&json!("leaf.test"), &json!("https://id.leaf.test"), &json!(["*.leaf.test", "db"]))
    );
    assert!(
        answers[0]["ca_pin"].as_str().unwrap().starts_with("sha256:e3b0")
            && answers[1].get("ca_pin").is_none()
    );
    let (header, claims) = bench.believed(proof(&granted, 0));
    assert_eq!((&header["typ"], &header["alg"]), (&PASSPORT.into(), &"ES256".into()));
    let platform = claims_of(request["proof"]["id_token"].as_str().unwrap());
    for (name, wanted) in [
        ("iss", bench.authority.url().into()),
        ("sub", format!("spiffe://{CLUSTER}/bot/both").into()),
        ("aud", format!("https://id.leaf.test#{}", there.binding()).into()),
        ("cluster", CLUSTER.into()),
        ("bot", "both".into()),
        ("roles", json!(["deploy", "short"])),
        ("join_token", "github-both".into()),
        ("join_method", "github".into()),
        ("issuance_id", granted["issuance_id"].clone()),
    ] {
        assert_eq!(claims[name], wanted, "{name}");
    }
    let time = |name: &str| claims[name].as_i64().unwrap();
    assert!(time("exp") - time("iat") == 300 && time("nbf") == time("iat"));
    // Until when it may have something there: as long as was asked for and its roles allow.
    assert_eq!(time("grant_expires_at") - time("iat"), 60 + 600);
    let provenance = &claims["provenance"];
    assert_eq!(provenance["claims"], Value::from(platform));
    assert!(provenance["line"].as_str().unwrap().starts_with("github:octo-org/octo-repo@"), "{provenance}");
    assert!(provenance["fulcio"]["8"].is_string(), "{provenance}");
    let (_, second) = bench.believed(proof(&granted, 1));
    assert_eq!(second["aud"], format!("https://id.other.test:8443#{}", elsewhere.binding()));
    assert_eq!((&second["roles"], second["jti"] == claims["jti"]), (&json!(["deploy"]), false));

    // The certificates end when they do, and what is for minutes does not shorten that.
    let ends = machine_id::clock::parse_rfc3339(granted["expires_at"].as_str().unwrap()).unwrap();
    assert_eq!(ends, time("grant_expires_at"));
    // Recorded as what it is, and found by what the leaf has of it.
    let event = bench.authority.issuance(granted["issuance_id"].as_str().unwrap());
    let recorded =
        event["outputs"].as_array().unwrap().iter().find(|output| output["serial"] == claims["jti"]);
    let recorded = recorded.expect("the proof's record");
    assert_eq!((&recorded["type"], &recorded["name"]), (&"passport".into(), &"leaf.test".into()));
    assert_eq!(recorded["options"], json!({"leaf": "leaf.test", "audience": claims["aud"]}));
    let by_serial =
        succeed(&mut bench.authority.command(["audit", "--serial", claims["jti"].as_str().unwrap()]));
    assert!(by_serial.contains(granted["issuance_id"].as_str().unwrap()), "{by_serial}");
    assert!(by_serial.contains("types=identity,passport"), "{by_serial}");
}

#[test]
fn who_goes_to_leaves_alone_needs_nothing_here() {
    let bench = bench();
    let there = Keys::fresh();
    let mut one = leaf("leaf.test", &there);
    one["roles"] = json!(["short"]);
    let granted = bench.send(&bench.going("github-both", &[], &[one])).granted();
    assert_eq!(granted["outputs"], json!([]));
    let (_, claims) = bench.believed(proof(&granted, 0));
    let ends = machine_id::clock::parse_rfc3339(granted["expires_at"].as_str().unwrap()).unwrap();
    assert_eq!((claims["exp"].as_i64().unwrap(), &claims["roles"]), (ends, &json!(["short"])));
}

#[test]
fn a_lost_reply_is_given_again_and_no_other() {
    let bench = bench();
    let (here, there) = (Keys::fresh(), Keys::fresh());
    let request = bench.going("github-deploy", &[&here], &[leaf("leaf.test", &there)]);
    let (first, second) = (bench.send(&request).granted(), bench.send(&request).granted());
    assert_eq!(first["issuance_id"], second["issuance_id"]);
    assert_eq!(bench.believed(proof(&first, 0)), bench.believed(proof(&second, 0)));
    // The time that it says the grant ends is a part of what was given.
    let mut longer = request.clone();
    longer["ttl_seconds"] = 1200.into();
    assert_eq!(bench.reason(&bench.send(&longer), 401), "token_used");
    let event = bench.authority.issuance(first["issuance_id"].as_str().unwrap());
    assert_eq!(event["serials"].as_array().unwrap().len(), 3);
    // Given back, it is not given again.
    let chain = first["outputs"][0]["tls_certificate_chain"].as_str().unwrap();
    let claims = client::assertion_claims(&bench.authority.url());
    let assertion = here.tls_assertion(chain, &claims);
    let id = first["issuance_id"].as_str().unwrap();
    assert_eq!(super::revocation::revoke(&bench, id, &assertion).status, 200);
    assert_eq!(bench.reason(&bench.send(&request), 401), "token_used");
}

#[test]
fn no_proof_for_a_token_that_is_for_other_keys_or_none() {
    let bench = bench();
    let (here, there, thief) = (Keys::fresh(), Keys::fresh(), Keys::fresh());
    let leaves = [leaf("leaf.test", &there)];
    let good = bench.going("github-deploy", &[&here], &leaves);
    let with = |token: Token| {
        let mut request = good.clone();
        request["proof"]["id_token"] = token.mint().into();
        request
    };
    let bound = |outputs: &[&Keys], leaves: &[Value]| bench.token_for(&binding(outputs, leaves));
    let other = |name: &str, keys: &Keys| vec![leaf(name, keys)];
    for (what, token) in [
        ("bound to the keys here alone", bound(&[&here], &[])),
        ("bound to the leaf alone", bound(&[], &leaves)),
        ("bound to another's keys there", bound(&[&here], &other("leaf.test", &thief))),
        ("bound to another's keys here", bound(&[&thief], &leaves)),
        ("bound to another leaf", bound(&[&here], &other("other.test", &there))),
        ("bound to two leaves", bound(&[&here], &[leaves[0].clone(), leaf("other.test", &there)])),
    ] {
        assert_eq!(bench.reason(&bench.send(&with(token)), 401), "binding_wrong", "{what}");
    }
    // Whoever has the token changes the leaf's keys.
    let mut stolen = good.clone();
    stolen["leaves"] = other("leaf.test", &thief).into();
    assert_eq!(bench.reason(&bench.send(&stolen), 401), "binding_wrong");
    let unbound = bench.unbound().mint();
    let mut request = good.clone();
    request["proof"]["id_token"] = unbound.clone().into();
    let refused = bench.send(&request);
    assert_eq!(bench.reason(&refused, 403), "leaf_needs_binding");
    assert!(refused.json()["hint"].as_str().unwrap().contains("machine-id once"), "{}", refused.text());
    // What is refused is not used up: here it is good for what it ever was.
    bench.present(&unbound, &here).granted();
    bench.send(&good).granted();
}

#[test]
fn a_leaf_that_is_not_for_the_job_reads_as_one_that_there_is_not() {
    let bench = bench();
    let there = Keys::fresh();
    let refused = |name: &str| {
        let response = bench.send(&bench.going(
            "github-deploy",
            &[&Keys::fresh()],
            &[leaf("leaf.test", &there), leaf(name, &there)],
        ));
        assert_eq!(bench.reason(&response, 403), "leaf_not_granted");
        let mut problem = response.problem(403);
        for own in ["denial_id", "claims"] {
            problem.as_object_mut().unwrap().remove(own);
        }
        problem.to_string().replace(name, "NAME")
    };
    assert_eq!(refused("closed.test"), refused("none.test"));
    // A role that the bot has and that does not go there, and one that it has not.
    let asked = |role: &str, leaf_name: &str| {
        let mut one = leaf(leaf_name, &there);
        one["roles"] = json!([role]);
        bench.send(&bench.going("github-both", &[], &[one]))
    };
    assert_eq!(bench.reason(&asked("short", "other.test"), 403), "leaf_not_granted");
    assert_eq!(bench.reason(&asked("hollow", "closed.test"), 403), "role_not_held");
    assert_eq!(bench.reason(&asked("hollow", "none.test"), 403), "role_not_held");
    let guarded = bench.send(&bench.going("github-guarded", &[], &[leaf("leaf.test", &there)]));
    assert_eq!(bench.reason(&guarded, 403), "mfa_required");
    let issued = bench.authority.audit().into_iter().filter(|event| event["event"] == "issued").count();
    assert_eq!(issued, 0);
}

#[test]
fn what_a_job_says_of_leaves_is_read_strictly() {
    let bench = bench();
    let there = Keys::fresh();
    let good = leaf("leaf.test", &there);
    let with = |name: &str, value: Value| {
        let mut one = good.clone();
        one[name] = value;
        json!([one])
    };
    let many = |count: usize| (0..count).map(|n| leaf(&format!("l{n}"), &there)).collect::<Vec<_>>();
    let binding = there.binding();
    // The last character has two bits that say nothing: another spelling of the same hash.
    let last = if binding.ends_with('8') { "9" } else { "B" };
    for (what, leaves) in [
        ("none at all", json!([])),
        ("seventeen", many(17).into()),
        ("one twice", json!([good, good])),
        ("no name", with("name", "".into())),
        ("a name with a line feed", with("name", "leaf.test\nx leaf y".into())),
        ("a name with a space", with("name", "leaf.test leaf".into())),
        ("a name in capitals", with("name", "Leaf.test".into())),
        ("a name that climbs", with("name", "..".into())),
        ("no binding", with("binding", "".into())),
        ("a binding with a line feed", with("binding", format!("{}\n", &binding[1..]).into())),
        ("a binding in base64", with("binding", format!("{}+", &binding[1..]).into())),
        ("a binding too short", with("binding", binding[1..].into())),
        ("a binding too long", with("binding", format!("{binding}A").into())),
        ("a binding spelled otherwise", with("binding", format!("{}{last}", &binding[..42]).into())),
        ("a member too many", with("url", "https://id.evil.test".into())),
        ("roles a text", with("roles", "deploy".into())),
        ("an object", good.clone()),
    ] {
        let mut request = client::request("github-deploy", "github", &bench.unbound().mint(), json!([]));
        request["leaves"] = leaves;
        assert_eq!(bench.send(&request).problem(400)["type"], "urn:machine-id:malformed", "{what}");
    }
    // Sixteen are not too many to be looked for.
    let request = bench.going("github-deploy", &[], &many(16));
    assert_eq!(bench.reason(&bench.send(&request), 403), "leaf_not_granted");
}

#[test]
fn claims_that_no_leaf_would_read_buy_no_proof() {
    let bench = bench();
    let there = [leaf("leaf.test", &Keys::fresh())];
    let mut request = bench.going("github-deploy", &[], &there);
    let token = bench.token_for(&binding(&[], &there)).claim("padding", "x".repeat(10_200));
    request["proof"]["id_token"] = token.mint().into();
    let refused = bench.send(&request);
    assert_eq!(bench.reason(&refused, 403), "leaf_not_granted");
    assert!(refused.json()["detail"].as_str().unwrap().contains("too long"), "{}", refused.text());
}

#[test]
fn who_is_locked_out_goes_nowhere() {
    let bench = bench();
    succeed(&mut bench.authority.command(["lock", "--bot", "deployer"]));
    let request = bench.going("github-deploy", &[], &[leaf("leaf.test", &Keys::fresh())]);
    assert_eq!(bench.reason(&bench.send(&request), 403), "locked_out");
}

/// Neither `check` nor `serve` takes a policy by which the authority would vouch for jobs to itself.
#[test]
fn no_authority_is_its_own_leaf() {
    let issuer = Issuer::start();
    let mut authority = Authority::trusting(&issuer, &policy(&issuer));
    let own = policy(&issuer).replace("https://id.leaf.test", &authority.url());
    let wanted = "the leaf cluster `leaf.test` has this authority's own `public_url`";
    authority.write_policy(&own);
    authority.hup();
    authority.wait_for_stderr(&format!(
        "policy not taken, the old one stays: {}",
        authority.data_dir().join("policy/test.yaml").display()
    ));
    let checked = run(&mut authority.command(["check"]));
    assert_eq!(checked.status.code(), Some(2));
    let told = String::from_utf8(checked.stderr).unwrap();
    assert!(told.contains(wanted), "{told}");
    authority.terminate();
    let told = authority.refuses_to_start();
    assert!(told.contains(wanted), "{told}");
}
