//! The table of signed requests: what is no request for AWS is never sent
//! there, whatever AWS would say. The STS of these tests says yes to all.

use std::collections::BTreeMap;

use machine_id::denial::REASONS;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{denial_of, yaml};
use crate::support::authority::Authority;
use crate::support::client::Keys;
use crate::support::issuer::{Endpoint, Fault, Issuer};
use crate::support::sts::{ACCOUNT, ACTION, request};
use crate::support::template::Variables;
use crate::support::{fixture, fresh, now};

/// The least that there must be to show.
const HOSTILE_AT_LEAST: usize = 100;
/// The STS of the honest request.
const HOST: &str = "sts.eu-central-1.amazonaws.com";

/// A case of `hostile.yaml`, whose head says what the members mean.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Case {
    name: String,
    proof: Option<Value>,
    raw: Option<String>,
    raw_member: Option<String>,
    raw_header: Option<String>,
    host: Option<String>,
    set: Map<String, Value>,
    headers: Map<String, Value>,
    authorization: BTreeMap<String, String>,
    unsigned: Option<String>,
    signed_ago: i64,
    join_token: Option<String>,
    asked: bool,
    reason: String,
}

/// What AWS answers to whatever it is asked.
fn yes() -> String {
    let arn = format!("arn:aws:sts::{ACCOUNT}:assumed-role/deploy/i-0123");
    let caller = json!({"Account": ACCOUNT, "Arn": arn, "UserId": "AROAEXAMPLE:i-0123"});
    json!({"GetCallerIdentityResponse": {"GetCallerIdentityResult": caller}}).to_string()
}

struct World {
    issuer: Issuer,
    authority: Authority,
}

impl World {
    fn start() -> Self {
        let issuer = Issuer::start();
        issuer.fail(Endpoint::Other, Fault::Body(yes()));
        let policy = fixture("join/iam/policy.yaml");
        let authority = Authority::with_policy(&policy).issuer(&issuer).proxy(&issuer.proxy()).start();
        Self { issuer, authority }
    }

    /// How often AWS was asked.
    fn asked(&self) -> usize {
        self.issuer.count(Endpoint::Other)
    }
}

pub(crate) fn refuses() {
    let cases: Vec<Case> = yaml("join/iam/hostile.yaml");
    let mut names: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "two cases of one name");
    let world = World::start();
    let mut wrong = Vec::new();
    let mut denials = Vec::new();
    for case in &cases {
        let name = &case.name;
        let row = REASONS.iter().find(|row| row.code == case.reason).expect("a reason that there is");
        let (keys, asked) = (Keys::fresh(), world.asked());
        let hostile = case.request(&world.authority, &keys);
        let response = world.authority.client().exchange(&hostile);
        match denial_of(&response, row.status) {
            Ok(id) => denials.push((id, case)),
            Err(why) => wrong.push(format!("{name}: {why}, expected {} {}", row.status, row.code)),
        }
        let told = response.text();
        for secret in ["canary", "999999999999", "DEPLOY"] {
            if told.contains(secret) {
                wrong.push(format!("{name}: the reply tells {secret:?} of the rules: {told}"));
            }
        }
        if world.asked() - asked != usize::from(case.asked) {
            wrong.push(format!("{name}: AWS was asked {} times", world.asked() - asked));
        }
        let honest = Case::default().request(&world.authority, &keys);
        let after = world.authority.client().exchange(&honest);
        if after.status != 200 {
            wrong.push(format!("{name}: the honest request is no good afterwards: {}", after.text()));
        }
    }
    let audit = world.authority.audit();
    for (id, case) in denials {
        let record =
            audit.iter().find(|event| event["event"] == "refused" && event["denial_id"] == id.as_str());
        match record {
            Some(record) if record["reason"] == case.reason.as_str() => {}
            other => wrong.push(format!("{}: recorded as {other:?}, expected {}", case.name, case.reason)),
        }
    }
    for request in world.issuer.requests() {
        let sound = request.method == "POST"
            && request.target == "/"
            && request.host == HOST
            && request.body == ACTION.as_bytes();
        if !sound {
            wrong.push(format!("forwarded {} {}{}", request.method, request.host, request.target));
        }
    }
    let stderr = world.authority.stderr();
    let secret = |line: &&str| line.contains("panicked") || line.contains("Signature=");
    wrong.extend(stderr.lines().filter(secret).map(|line| format!("the authority said: {line}")));
    println!("iam: {} hostile requests", cases.len());
    assert!(cases.len() >= HOSTILE_AT_LEAST, "only {} cases", cases.len());
    assert!(wrong.is_empty(), "{} cases went wrong:\n{}", wrong.len(), wrong.join("\n"));
}

pub(crate) fn accepts() {
    let world = World::start();
    // With and without what a client may leave out, to the edge of the time that is given.
    let token = [("x-amz-security-token".to_owned(), json!("FQoGZXIvYXdzEBYaD+/=_-"))];
    let hash = "ab821ae955788b0e33ebd34c208442ccfc2d406e2edc5e7a39bd6458fbb4f843";
    let hash = [("x-amz-content-sha256".to_owned(), json!(hash))];
    let cases = [
        Case::default(),
        Case { headers: token.into_iter().collect(), ..Case::default() },
        Case { headers: hash.into_iter().collect(), ..Case::default() },
        Case { signed_ago: 350, ..Case::default() },
        Case { signed_ago: -50, ..Case::default() },
        Case { host: Some("sts-fips.eu-central-1.amazonaws.com".to_owned()), ..Case::default() },
    ];
    for case in cases {
        let keys = Keys::fresh();
        if case.host.is_some() {
            // Its certificate is not among the loopback STS's: reached, and not trusted.
            world.authority.client().exchange(&case.request(&world.authority, &keys)).problem(503);
            continue;
        }
        let request = case.request(&world.authority, &keys);
        let granted = world.authority.client().exchange(&request).granted();
        assert_eq!(granted["bot"], "canary-bot");
        let record = world.authority.issuance(granted["issuance_id"].as_str().unwrap());
        let line = format!("iam:arn:aws:sts::{ACCOUNT}:assumed-role/deploy/i-0123");
        assert_eq!((&record["join_method"], &record["provenance"]), (&json!("iam"), &json!(line)));
        // A lost reply may be asked for again; with other outputs the proof is used up.
        assert_eq!(
            world.authority.client().exchange(&request).granted()["issuance_id"],
            granted["issuance_id"]
        );
        let mut other = request.clone();
        other["ttl_seconds"] = 300.into();
        other["outputs"][0]["roles"] = json!(["canary-role"]);
        let refused = world.authority.client().exchange(&other);
        assert_eq!(world.authority.refusal(&refused.denial(401))["reason"], "token_used");
    }
}

impl Case {
    fn request(&self, authority: &Authority, keys: &Keys) -> Value {
        let (url, binding) = (authority.url(), keys.binding());
        let host = self.host.as_deref().unwrap_or(HOST);
        let (day, time) = amz(now() - self.signed_ago);
        let variables = Variables::new()
            .with("host", host)
            .with("audience", keys.audience(&url))
            .with("url", url.clone())
            .with("other_binding", Keys::fresh().binding())
            .with("lower", binding.to_lowercase())
            .with("binding", binding)
            .with("day", day.clone())
            .with("long", "x".repeat(20_000));
        let headers = json!({
            "accept": "application/json", "content-type": "application/x-www-form-urlencoded",
            "host": host, "x-amz-date": format!("{day}T{time}Z"), "x-machine-id-audience": keys.audience(&url),
        });
        let mut headers = headers.as_object().unwrap().clone();
        let (mut given, mut changes) = (variables.object(&self.headers), Map::new());
        let names: Vec<String> = given.keys().cloned().collect();
        for name in names {
            // What a client may add is signed; what is wrong stands beside what was signed.
            let added = name == "x-amz-security-token" || name == "x-amz-content-sha256";
            let value = given.remove(&name).unwrap();
            if added {
                headers.insert(name, value)
            } else {
                changes.insert(name, value)
            };
        }
        let mut signed: Vec<&str> = headers.keys().map(String::as_str).collect();
        signed.retain(|name| self.unsigned.as_deref() != Some(*name));
        signed.sort_unstable();
        let signed = signed.join(";");
        let signature = format!("{0}{0}", fresh());
        let part = |name: &str, usual: &str| {
            self.authorization.get(name).map_or_else(|| usual.to_owned(), |text| variables.text(text))
        };
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{}/{}/{}/{}, SignedHeaders={}, Signature={}",
            part("key", "AKIAIOSFODNN7EXAMPLE"),
            part("day", &day),
            part("region", "eu-central-1"),
            part("service", "sts"),
            part("end", "aws4_request"),
            part("signed", &signed),
            part("signature", &signature),
        );
        headers.insert("authorization".to_owned(), authorization.into());
        merge(&mut headers, changes);
        let honest =
            json!({"method": "POST", "url": format!("https://{host}/"), "headers": headers, "body": ACTION});
        let mut whole = honest.as_object().unwrap().clone();
        merge(&mut whole, variables.object(&self.set));
        let variables = variables.with("honest", honest.to_string());
        let mut text = match &self.raw {
            Some(raw) => variables.text(raw),
            None => Value::from(whole.clone()).to_string(),
        };
        // A member twice, which a map cannot hold.
        if let Some(member) = &self.raw_member {
            text = format!("{{{member},{}", &text[1..]);
        }
        if let Some(header) = &self.raw_header {
            text = text.replacen("\"headers\":{", &format!("\"headers\":{{{header},"), 1);
        }
        let mut request = request(keys, self.join_token.as_deref().unwrap_or("conformance"), &whole);
        request["proof"] = match &self.proof {
            Some(proof) => variables.json(proof),
            None => json!({"sts_request": text}),
        };
        request
    }
}

/// Null takes a member away.
fn merge(into: &mut Map<String, Value>, changes: Map<String, Value>) {
    for (name, value) in changes {
        if value.is_null() {
            into.remove(&name);
        } else {
            into.insert(name, value);
        }
    }
}

/// A time as SigV4 writes it: the day and the time of it.
fn amz(unix: i64) -> (String, String) {
    let text = machine_id::clock::rfc3339(unix);
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    (digits[..8].to_owned(), digits[8..].to_owned())
}
