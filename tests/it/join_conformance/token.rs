//! The suite of `token`: assertions of workers that must be refused, none of
//! which locks an honest one, and those that must be accepted.

use ring::digest::{SHA256, digest};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};

use super::cases::{Case, Sign};
use super::{denial_of, yaml};
use crate::support::authority::Authority;
use crate::support::client::{Keys, Response, request};
use crate::support::process::succeed;
use crate::support::template::Variables;
use crate::support::token::{Signing, Token};
use crate::support::{base64url, fixture, fresh, keys, now, random, wait_slowly_for};

/// The least that the method must have to show.
const HOSTILE_AT_LEAST: usize = 90;

/// A worker, as its storage has it.
#[derive(Clone)]
pub struct Worker {
    seed: [u8; 32],
    join_token: &'static str,
    generation: i64,
    attempt: String,
    earlier: Vec<String>,
}

/// The most ids that an assertion names whole, and how much it has of those before.
const WHOLE: usize = 256;
const BEGINNING: usize = 4;

impl Worker {
    pub fn new(join_token: &'static str) -> Self {
        Self { seed: random(), join_token, generation: 0, attempt: fresh(), earlier: Vec::new() }
    }

    fn x(&self) -> String {
        base64url(Ed25519KeyPair::from_seed_unchecked(&self.seed).unwrap().public_key())
    }

    fn jwk(&self) -> Value {
        json!({"crv": "Ed25519", "kty": "OKP", "x": self.x()})
    }

    /// Computed here on its own: `w-` and half of the key's thumbprint (RFC 7638).
    pub fn id(&self) -> String {
        let hash = digest(&SHA256, self.jwk().to_string().as_bytes());
        hash.as_ref()[..16].iter().fold("w-".to_owned(), |id, byte| format!("{id}{byte:02x}"))
    }

    /// The next assertion, for these keys.
    fn assertion(&mut self, url: &str, keys: &Keys) -> Token {
        let (jti, older) = (fresh(), self.earlier.len().saturating_sub(WHOLE));
        let claims = json!({
            "iss": self.id(), "sub": self.id(), "aud": keys.audience(url), "iat": now(), "exp": now() + 60,
            "jti": jti, "generation": self.generation, "attempt": self.attempt,
            "tries": self.earlier.len(), "earlier": self.earlier[older..],
            "older": self.earlier[..older].iter().map(|id| &id[..BEGINNING]).collect::<String>(),
        });
        self.earlier.push(jti);
        let mut token = Token::by(&keys::ED25519, claims.as_object().unwrap().clone());
        token.header.insert("kid".to_owned(), self.id().into());
        if self.generation == 0 {
            token.header.insert("jwk".to_owned(), self.jwk());
        }
        token.signing = Signing::Seed(self.seed);
        token
    }

    fn request(&self, keys: &Keys, assertion: &str, secret: Option<&str>) -> Value {
        let mut asked = request(self.join_token, "token", "", json!([keys.output()]));
        asked["proof"] = json!({"assertion": assertion});
        if let Some(secret) = secret {
            asked["proof"]["registration_secret"] = secret.into();
        }
        asked
    }

    /// Sends the next assertion; settles where it is accepted.
    pub fn join(&mut self, authority: &Authority, secret: Option<&str>) -> Response {
        let keys = Keys::fresh();
        let assertion = self.assertion(&authority.url(), &keys).mint();
        let response = authority.client().exchange(&self.request(&keys, &assertion, secret));
        if response.status == 200 {
            self.settle(&response.json());
        }
        response
    }

    fn settle(&mut self, granted: &Value) {
        assert_eq!(granted["instance"]["id"], self.id().as_str(), "{granted}");
        let generation = granted["instance"]["generation"].as_i64().unwrap();
        assert!(generation > self.generation, "{granted}");
        *self = Self { generation, attempt: fresh(), earlier: Vec::new(), ..self.clone() };
    }
}

fn authority() -> Authority {
    Authority::start(&fixture("join/token/policy.yaml"))
}

/// A new registration secret.
pub fn secret(authority: &Authority, join_token: &str, ttl: &str) -> String {
    let mut add =
        authority.command(["token", "add", "--token", join_token, "--ttl", ttl, "--format", "json"]);
    let added: Value = serde_json::from_str(&succeed(&mut add)).unwrap();
    assert_eq!(added["token"], join_token);
    added["secret"].as_str().unwrap().to_owned()
}

fn registered(authority: &Authority, join_token: &'static str) -> Worker {
    let mut worker = Worker::new(join_token);
    let secret = secret(authority, join_token, "1h");
    worker.join(authority, Some(&secret)).granted();
    worker
}

/// The ids of the instances that are locked.
fn locked(authority: &Authority) -> Vec<String> {
    let list = succeed(&mut authority.command(["instances", "--format", "json"]));
    let list: Vec<Value> = serde_json::from_str(&list).unwrap();
    let locked = list.into_iter().filter(|instance| instance["locked"] == true);
    locked.map(|instance| instance["instance"].as_str().unwrap().to_owned()).collect()
}

/// What the cases need of an authority.
struct Stage {
    authority: Authority,
    honest: Worker,
    accepted_jti: String,
    variables: Variables,
}

impl Stage {
    fn set() -> Self {
        let authority = authority();
        let expired = secret(&authority, "conformance", "1s");
        let mut honest = Worker::new("conformance");
        let used = secret(&authority, "conformance", "1h");
        honest.join(&authority, Some(&used)).granted();
        let other = registered(&authority, "conformance");
        let good = secret(&authority, "conformance", "1h");
        let stranger = json!({"crv": "Ed25519", "kty": "OKP", "x": keys::ED25519.jwk()["x"]});
        let variables = Variables::new()
            .with("other_worker", other.id())
            .with("id", honest.id())
            .with("ID", honest.id().to_uppercase())
            .with("public_url", authority.url())
            .with("stranger_jwk", stranger)
            .with("used_secret", used)
            .with("expired_secret", expired)
            .with("elsewhere_secret", secret(&authority, "elsewhere", "1h"))
            .with("SECRET", good.to_uppercase())
            .with("half_secret", &good[..good.len() / 2])
            .with("secret_hash", base64url(digest(&SHA256, good.as_bytes())))
            .with("secret", good)
            .with("long", "k".repeat(10_000))
            .with("longer", "k".repeat(20_000));
        std::thread::sleep(std::time::Duration::from_secs(2));
        Self { authority, honest, accepted_jti: String::new(), variables }
    }

    /// The request of a case.
    fn request(&self, case: &Case) -> Value {
        let keys = Keys::fresh();
        let mut worker = match case.worker.as_str() {
            "new" => Worker::new("conformance"),
            _ => self.honest.clone(),
        };
        let valid = worker.assertion(&self.authority.url(), &keys);
        let variables = self
            .variables
            .clone()
            .with("binding", keys.binding())
            .with("audience", keys.audience(&self.authority.url()))
            .with("other_binding", Keys::fresh().binding())
            .with("accepted_jti", self.accepted_jti.as_str());
        let mut token = valid.clone();
        token.header.extend(variables.object(&case.header));
        token.claims.extend(variables.object(&case.claims));
        token.header.retain(|name, _| !case.not_header.contains(name));
        token.claims.retain(|name, _| !case.not_claims.contains(name));
        token.claims_raw = variables.text(&case.claims_raw);
        token.signing = match case.sign {
            Sign::Issuer => valid.signing.clone(),
            other => other.signing(&valid),
        };
        let assertion = case.shape.of(token.mint(), &token.signing);
        let secret = case.secret.as_ref().map(|secret| variables.text(secret));
        let mut request = worker.request(&keys, &assertion, secret.as_deref());
        if let Some(proof) = &case.proof {
            request["proof"] = variables.clone().with("assertion", assertion).json(proof);
        }
        for (member, value) in [("token", &case.join_token), ("join_method", &case.method)] {
            if let Some(value) = value {
                request[member] = value.as_str().into();
            }
        }
        if let Some(kind) = &case.output_type {
            request["outputs"][0]["type"] = kind.as_str().into();
        }
        request
    }
}

pub fn refuses() {
    let cases: Vec<Case> = yaml("join/token/hostile.yaml");
    let mut stage = Stage::set();
    let (mut wrong, mut denials) = (Vec::new(), Vec::new());
    for case in &cases {
        let keys = Keys::fresh();
        let token = stage.honest.assertion(&stage.authority.url(), &keys);
        stage.accepted_jti = token.claims["jti"].as_str().unwrap().to_owned();
        let accepted = stage.honest.request(&keys, &token.mint(), None);
        stage.honest.settle(&stage.authority.client().exchange(&accepted).granted());
        let response = stage.authority.client().exchange(&stage.request(case));
        match denial_of(&response, case.status) {
            Ok(id) => denials.push((id, case)),
            Err(why) => wrong.push(format!("{}: {why}, expected {} {}", case.name, case.status, case.reason)),
        }
        if response.text().contains("canary") || response.text().contains("mid-reg-") {
            wrong.push(format!("{}: the reply tells {}", case.name, response.text()));
        }
        let after = stage.honest.join(&stage.authority, None);
        if after.status != 200 {
            wrong.push(format!("{}: the worker is no good afterwards: {}", case.name, after.text()));
        }
    }
    let audit = stage.authority.audit();
    for (id, case) in denials {
        let record = audit.iter().find(|event| event["denial_id"] == id.as_str());
        if record.is_none_or(|record| record["reason"] != case.reason.as_str()) {
            wrong.push(format!("{}: recorded as {record:?}, expected {}", case.name, case.reason));
        }
    }
    let said = format!("{}{audit:?}", stage.authority.stderr());
    // A payload's beginning: three letters alone stand in random names by chance.
    for secret in ["mid-reg-", ".eyJ", "panicked"].iter().filter(|secret| said.contains(**secret)) {
        wrong.push(format!("the authority said or kept {secret}"));
    }
    let locked = locked(&stage.authority);
    println!("token: {} hostile proofs", cases.len());
    assert!(wrong.is_empty(), "{} cases went wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(locked.is_empty(), "{locked:?}");
    assert!(cases.len() >= HOSTILE_AT_LEAST, "only {} cases", cases.len());
    // The secret that the cases only tried is good still.
    let good = stage.variables.text("{{secret}}");
    Worker::new("conformance").join(&stage.authority, Some(&good)).granted();
}

pub fn accepts() {
    let authority = authority();
    let mut worker = Worker::new("conformance");
    let once = secret(&authority, "conformance", "1h");
    // A registration whose answers are lost, in every way of asking again.
    let keys = Keys::fresh();
    let first = worker.assertion(&authority.url(), &keys).mint();
    let asked = worker.request(&keys, &first, Some(&once));
    let granted = authority.client().exchange(&asked).granted();
    let again = authority.client().exchange(&asked).granted();
    assert_eq!((&granted["instance"], &granted["issuance_id"]), (&again["instance"], &again["issuance_id"]));
    assert_eq!(granted["instance"], json!({"id": worker.id(), "generation": 1}));
    let second = Keys::fresh();
    let retry = worker.assertion(&authority.url(), &second).mint();
    authority.client().exchange(&worker.request(&second, &retry, Some(&once))).granted();
    let record = authority.issuance(worker.join(&authority, None).granted()["issuance_id"].as_str().unwrap());
    let line = format!("token:conformance instance {} generation 0", worker.id());
    assert_eq!(
        (record["provenance"].as_str(), record["join_method"].as_str()),
        (Some(line.as_str()), Some("token"))
    );
    assert_eq!(record["bot"], "canary-bot");
    worker.join(&authority, None).granted();
    // Late: the first once more, which the others have overtaken by now.
    let late = Keys::fresh();
    let held_up = worker.assertion(&authority.url(), &late).mint();
    worker.join(&authority, None).granted();
    let denial = authority.client().exchange(&worker.request(&late, &held_up, None)).denial(401);
    assert_eq!(authority.refusal(&denial)["reason"], "token_used");
    worker.join(&authority, None).granted();
    registered(&authority, "elsewhere").join(&authority, None).granted();
    assert!(locked(&authority).is_empty());
    println!("token: registration, retries, late requests accepted");
}

#[test]
fn one_assertion_is_good_for_one_request() {
    let authority = authority();
    let mut worker = registered(&authority, "conformance");
    let keys = Keys::fresh();
    let assertion = worker.assertion(&authority.url(), &keys).mint();
    let asked = worker.request(&keys, &assertion, None);
    let granted = authority.client().exchange(&asked).granted();
    let reason = |request: &Value| {
        let response = authority.client().exchange(request);
        let id = response.denial(401);
        authority.refusal(&id)["reason"].as_str().unwrap().to_owned()
    };
    assert_eq!(reason(&worker.request(&Keys::fresh(), &assertion, None)), "binding_wrong");
    let mut more = asked.clone();
    more["outputs"][0]["name"] = "another".into();
    assert_eq!(reason(&more), "binding_wrong");
    assert_eq!(authority.client().exchange(&asked).granted()["serial"], granted["serial"]);
    worker.settle(&granted);
    worker.join(&authority, None).granted();
}

#[test]
fn a_copy_locks_its_instance_and_no_other() {
    let authority = authority();
    let mut other = registered(&authority, "conformance");
    for pending in [false, true] {
        let mut worker = registered(&authority, "conformance");
        if pending {
            // Accepted, and the answer lost: the copy is taken before the worker asks again.
            let keys = Keys::fresh();
            let lost = worker.assertion(&authority.url(), &keys).mint();
            authority.client().exchange(&worker.request(&keys, &lost, None)).granted();
        }
        let mut copy = worker.clone();
        let granted = copy.join(&authority, None).granted();
        let id = worker.join(&authority, None).denial(403);
        assert_eq!(authority.refusal(&id)["reason"], "instance_locked");
        for side in [&mut worker, &mut copy] {
            let problem = side.join(&authority, None).problem(403);
            assert_eq!(problem["type"], "urn:machine-id:instance-locked", "{problem}");
            assert!(problem["hint"].as_str().unwrap().contains("authority token add"), "{problem}");
        }
        let event = |name: &str| {
            let mine = |event: &Value| event["event"] == name && event["instance"] == worker.id().as_str();
            authority.audit().into_iter().find(mine).unwrap_or_else(|| panic!("no event {name}"))
        };
        let lock = event("locked");
        assert_eq!((&lock["token"], &lock["reason"]), (&json!("conformance"), &json!("generation_used")));
        // What both had is revoked, the copy's among it.
        let serials = lock["serials"].as_array().unwrap();
        assert!(serials.contains(&granted["outputs"][0]["serial"]), "{lock}");
        assert!(event("registered")["secret_id"].as_str().unwrap().starts_with("k-"));
        other.join(&authority, None).granted();
    }
    assert_eq!(locked(&authority).len(), 2);
    wait_slowly_for("the revocation list", std::time::Duration::from_millis(100), || {
        (authority.client().get("/v1/revoked/ssh.krl").body.len() > 100).then_some(())
    });
}

/// As where the authority's store was put back from a copy: the worker knows
/// more than it does, and an older copy of the worker's storage fits.
/// However many requests went unanswered: who copied the storage meanwhile and the worker never both go on.
#[test]
fn a_copy_shows_after_any_number_of_unanswered_requests() {
    let authority = authority();
    for (unanswered, arrives) in
        [(0, None), (255, None), (300, None), (300, Some(7)), (1270, None), (1270, Some(0))]
    {
        let mut worker = registered(&authority, "conformance");
        for n in 0..unanswered {
            let keys = Keys::fresh();
            if arrives == Some(n) {
                let assertion = worker.assertion(&authority.url(), &keys).mint();
                authority.client().exchange(&worker.request(&keys, &assertion, None)).granted();
            } else {
                worker.earlier.push(base64url(random::<16>()));
            }
        }
        let mut thief = worker.clone();
        if arrives.is_none() {
            thief.join(&authority, None).granted();
        }
        let answer = worker.join(&authority, None);
        if arrives.is_some() {
            // The worker knows which of its requests was accepted, and so does the thief.
            answer.granted();
            thief.join(&authority, None).denial(403);
        } else {
            answer.denial(403);
        }
        assert!(locked(&authority).contains(&worker.id()), "{unanswered}");
    }
    // Made up by a thief who says that there were too many to name.
    let mut worker = registered(&authority, "conformance");
    let mut thief = worker.clone();
    worker.join(&authority, None).granted();
    thief.attempt = worker.attempt.clone();
    thief.earlier = vec!["x".repeat(22); 1280];
    thief.join(&authority, None).denial(403);
}

#[test]
fn a_generation_that_was_never_given_out_locks() {
    let authority = authority();
    let mut other = registered(&authority, "conformance");
    let mut worker = registered(&authority, "conformance");
    let mut older = worker.clone();
    let keys = Keys::fresh();
    let ahead = worker.assertion(&authority.url(), &keys).claim("generation", 1_000_000);
    let refused = authority.client().exchange(&worker.request(&keys, &ahead.mint(), None));
    assert_eq!(authority.refusal(&refused.denial(401))["reason"], "generation_ahead");
    assert!(refused.text().contains("put back from a backup"), "{}", refused.text());
    for side in [&mut older, &mut worker] {
        let id = side.join(&authority, None).denial(403);
        assert_eq!(authority.refusal(&id)["reason"], "instance_locked");
    }
    let mine = |event: &Value| event["event"] == "locked" && event["instance"] == worker.id().as_str();
    let lock = authority.audit().into_iter().find(mine).expect("a lock");
    assert_eq!(lock["reason"], "generation_ahead");
    assert!(lock["detail"].as_str().unwrap().contains("newer than what the authority remembers"), "{lock}");
    other.join(&authority, None).granted();
    assert_eq!(locked(&authority).len(), 1);
}

/// A worker gives its own place to a new one, and nobody else does.
#[test]
fn only_the_worker_itself_gives_its_place() {
    let authority = authority();
    let mut old = registered(&authority, "conformance");
    let once = secret(&authority, "conformance", "1h");
    let ask = |old: &Worker, change: &dyn Fn(&mut Token)| {
        let (mut new, keys) = (Worker::new("conformance"), Keys::fresh());
        let assertion = new.assertion(&authority.url(), &keys).mint();
        let mut word = old.clone().assertion(&authority.url(), &keys);
        word.claims.insert("replaced_by".to_owned(), new.id().into());
        change(&mut word);
        let mut request = new.request(&keys, &assertion, Some(&once));
        request["proof"]["replaces"] = word.mint().into();
        authority.client().exchange(&request)
    };
    type Change<'c> = &'c dyn Fn(&mut Token);
    let cases: [(&str, Change<'_>); 6] = [
        ("signature_invalid", &|word| word.signing = Signing::Seed([7; 32])),
        ("claim_invalid", &|word| drop(word.claims.insert("replaced_by".to_owned(), "w-x".into()))),
        ("claim_invalid", &|word| drop(word.claims.remove("replaced_by"))),
        ("audience_wrong", &|word| drop(word.claims.insert("aud".to_owned(), "https://evil.example".into()))),
        ("token_expired", &|word| {
            word.claims.insert("iat".to_owned(), (now() - 200).into());
            word.claims.insert("exp".to_owned(), (now() - 100).into());
        }),
        ("algorithm_refused", &|word| drop(word.header.insert("alg".to_owned(), "HS256".into()))),
    ];
    for (reason, change) in cases {
        let id = ask(&old, change).denial(401);
        assert_eq!(authority.refusal(&id)["reason"], reason);
        old.join(&authority, None).granted();
    }
    let (mut new, keys) = (Worker::new("conformance"), Keys::fresh());
    let assertion = new.assertion(&authority.url(), &keys).mint();
    let mut word = old.clone().assertion(&authority.url(), &keys);
    word.claims.insert("replaced_by".to_owned(), new.id().into());
    let mut request = new.request(&keys, &assertion, Some(&once));
    request["proof"]["replaces"] = word.mint().into();
    let granted = authority.client().exchange(&request).granted();
    // Until the new one shows that it got the answer, the old one is good.
    old.join(&authority, None).granted();
    new.settle(&granted);
    new.join(&authority, None).granted();
    old.join(&authority, None).problem(403);
    assert_eq!(locked(&authority), [old.id()]);
    // Of a worker that this authority does not know there is nothing to take.
    let once = secret(&authority, "conformance", "1h");
    let (mut new, keys) = (Worker::new("conformance"), Keys::fresh());
    let assertion = new.assertion(&authority.url(), &keys).mint();
    let mut request = new.request(&keys, &assertion, Some(&once));
    request["proof"]["replaces"] =
        Worker::new("conformance").assertion(&authority.url(), &keys).mint().into();
    authority.client().exchange(&request).granted();
}

#[test]
fn two_workers_cannot_share_a_secret() {
    let authority = authority();
    let once = secret(&authority, "conformance", "1h");
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let join = || Worker::new("conformance").join(&authority, Some(&once)).status;
        let all: Vec<_> = (0..8).map(|_| scope.spawn(join)).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 401).count(), 7, "{statuses:?}");
}
