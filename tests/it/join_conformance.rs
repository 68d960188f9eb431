//! Every join method against its fixtures: what must be refused is, for the
//! right reason, without telling the rules and without using the token up;
//! what must be accepted is.
//!
//! The suite walks the registry, so a method without fixtures fails it. What
//! the fixtures look like is told in `tests/fixtures/join/README.md` and at the
//! head of `hostile-oidc.yaml`.

mod cases;
mod fields;
mod iam;
mod registry;
mod strangers;
mod token;

use std::collections::BTreeMap;
use std::time::Duration;

use machine_id::denial::REASONS;
use machine_id::join::METHODS;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::support::authority::Authority;
use crate::support::client::{Keys, Response};
use crate::support::issuer::Issuer;
use crate::support::template::{self, Variables};
use crate::support::token::{Token, compact};
use crate::support::{fixture, keys, wait_slowly_for};
use cases::Case;
use fields::field_token;

/// Refusals that one authority gets: it limits them by address.
const REFUSALS: usize = 150;
/// The reason of refusals that may have to wait for the issuer.
const KEY_UNKNOWN: &str = "key_unknown";
/// The least that a method must have to show.
const HOSTILE_AT_LEAST: usize = 60;

/// `method.yaml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Method {
    issuer: String,
    section: Map<String, Value>,
    anchor: Map<String, Value>,
    fields: BTreeMap<String, String>,
    required: Vec<String>,
    /// Fields whose claim may also be a list with the value in it.
    #[serde(default)]
    or_list: Vec<String>,
    /// Claims that others repeat: any change of one makes a token that is none.
    #[serde(default)]
    repeated: Vec<String>,
    /// What a rule says where that is not the claim itself.
    #[serde(default)]
    values: Map<String, Value>,
    /// The member of a rule in which its fields stand, if not the rule itself.
    #[serde(default)]
    under: Option<String>,
    /// Cases of the shared table that come out otherwise, each with why in a
    /// comment: another reason, or `accepted`.
    #[serde(default)]
    otherwise: BTreeMap<String, String>,
}

/// What stands for a reason where a case of the shared table is to be accepted.
const ACCEPTED: &str = "accepted";

fn yaml<T: for<'de> Deserialize<'de>>(path: &str) -> T {
    serde_saphyr::from_str(&fixture(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn every_method_has_fixtures_and_no_fixtures_lack_a_method() {
    let mut folders: Vec<String> = std::fs::read_dir(crate::support::repository("tests/fixtures/join"))
        .unwrap()
        .map(Result::unwrap)
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    let mut methods: Vec<&str> = METHODS.iter().map(|method| method.name).collect();
    folders.sort_unstable();
    methods.sort_unstable();
    assert_eq!(folders, methods);
}

#[test]
fn every_method_refuses_hostile_proofs() {
    std::thread::scope(|scope| {
        for method in METHODS {
            scope.spawn(|| match suite_of(method.name).as_str() {
                "oidc" => Suite::load(method.name).refuses(),
                "iam" => iam::refuses(),
                "token" => token::refuses(),
                other => panic!("{}: there is no suite {other}", method.name),
            });
        }
    });
}

#[test]
fn every_method_accepts_what_its_fixtures_say() {
    std::thread::scope(|scope| {
        for method in METHODS {
            scope.spawn(|| match suite_of(method.name).as_str() {
                "oidc" => Suite::load(method.name).accepts(),
                "iam" => iam::accepts(),
                "token" => token::accepts(),
                other => panic!("{}: there is no suite {other}", method.name),
            });
        }
    });
}

/// Which table of hostile proofs a method has to stand: `suite` of its `method.yaml`, `oidc` unless it says.
fn suite_of(name: &str) -> String {
    let method: Map<String, Value> = yaml(&format!("join/{name}/method.yaml"));
    method.get("suite").and_then(Value::as_str).unwrap_or("oidc").to_owned()
}

/// A method with its fixtures and an issuer.
struct Suite {
    name: &'static str,
    method: Method,
    claims: Map<String, Value>,
    /// The same, for pointers.
    pointed: Value,
    issuer: Issuer,
}

/// A valid token and the keys that it is bound to.
struct Honest {
    keys: Keys,
    claims: Map<String, Value>,
    variables: Variables,
}

impl Suite {
    fn load(name: &'static str) -> Self {
        let issuer = Issuer::start();
        // One set with keys of every kind that an issuer may sign with.
        issuer.set_keys(vec![keys::ISSUER.jwk(), keys::P256.jwk(), keys::ED25519.jwk()]);
        let method = yaml(&format!("join/{name}/method.yaml"));
        let claims = template::claims(name);
        Self { name, method, pointed: claims.clone().into(), claims, issuer }
    }

    /// The shared table, as it is for this method: what is refused, what is accepted.
    fn shared(&self) -> (Vec<Case>, Vec<Case>) {
        let mut cases: Vec<Case> = yaml("join/hostile-oidc.yaml");
        for (name, reason) in &self.method.otherwise {
            let case = cases.iter_mut().find(|case| case.name == *name);
            case.unwrap_or_else(|| panic!("{}: no case {name:?}", self.name)).reason.clone_from(reason);
        }
        cases.into_iter().partition(|case| case.reason != ACCEPTED)
    }

    fn refuses(&self) {
        let (mut cases, _) = self.shared();
        cases.extend(yaml::<Vec<Case>>(&format!("join/{}/hostile.yaml", self.name)));
        let written = cases.len();
        cases.extend(self.field_cases());
        let mut names: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
        names.sort_unstable();
        let twice = names.windows(2).find(|pair| pair[0] == pair[1]);
        assert!(twice.is_none(), "two cases of one name: {twice:?}");
        let mut wrong = Vec::new();
        // Of these the later ones have to wait, as is told below: meanwhile comes everything else.
        cases.sort_by_key(|case| {
            case.reason != KEY_UNKNOWN && !case.not_header.iter().any(|member| member == "kid")
        });
        for some in cases.chunks(REFUSALS) {
            wrong.extend(self.refuse_all(some));
        }
        // Whatever a token named, nobody but the issuer was asked for keys.
        let strays: Vec<String> = self
            .issuer
            .requests()
            .into_iter()
            .map(|request| request.target)
            .filter(|target| target.contains("attacker"))
            .collect();
        assert!(strays.is_empty(), "{}: asked {strays:?}", self.name);
        println!("{}: {} hostile proofs ({written} from fixtures)", self.name, cases.len());
        assert!(cases.len() >= HOSTILE_AT_LEAST, "{}: only {} cases", self.name, cases.len());
        assert!(wrong.is_empty(), "{}: {} cases went wrong:\n{}", self.name, wrong.len(), wrong.join("\n"));
    }

    /// One authority for all of these; what went wrong.
    fn refuse_all(&self, cases: &[Case]) -> Vec<String> {
        let authority = self.authority();
        let secrets = self.rule_texts();
        let mut wrong = Vec::new();
        let mut denials = Vec::new();
        let mut presented = Vec::new();
        for case in cases {
            let honest = self.honest(&authority);
            let (request, token) = self.request(case, &honest);
            let response = authority.client().try_exchange(&request);
            presented.push((case, honest, request, token, response));
        }
        // Whether an issuer that was just asked has that key since can only be told by the next answer.
        let waits =
            |response: &std::io::Result<Response>| matches!(response, Ok(response) if response.status == 503);
        for (_, _, request, _, response) in presented.iter_mut().filter(|one| one.0.status != 503) {
            *response = wait_slowly_for("the next question", Duration::from_millis(500), || {
                if !waits(response) {
                    return Some(std::mem::replace(response, Err(std::io::ErrorKind::Other.into())));
                }
                *response = authority.client().try_exchange(request);
                None
            });
        }
        for (case, honest, _, token, response) in presented {
            let name = &case.name;
            let response = match response {
                Ok(response) => response,
                Err(error) => {
                    wrong.push(format!("{name}: no answer: {error}"));
                    continue;
                }
            };
            match denial_of(&response, case.status) {
                Ok(id) => denials.push((id, case)),
                Err(why) => wrong.push(format!("{name}: {why}, expected {} {}", case.status, case.reason)),
            }
            let told = response.text();
            let own = claims_text(&token);
            for secret in secrets.iter().filter(|secret| told.contains(*secret) && !own.contains(*secret)) {
                wrong.push(format!("{name}: the reply tells {secret:?} of the rules: {told}"));
            }
            let after = authority.client().exchange(&self.honest_request("conformance", &honest));
            if after.status != 200 {
                wrong.push(format!("{name}: the valid token is no good afterwards: {}", after.text()));
            }
        }
        let audit = authority.audit();
        for (id, case) in denials {
            let record =
                audit.iter().find(|event| event["event"] == "refused" && event["denial_id"] == id.as_str());
            match record {
                None => wrong.push(format!("{}: the denial {id} is not in the audit trail", case.name)),
                Some(record) if record["reason"] != case.reason.as_str() => {
                    wrong.push(format!("{}: recorded as {record}, expected {}", case.name, case.reason));
                }
                Some(_) => {}
            }
        }
        let stderr = authority.stderr();
        let secret = |line: &&str| line.contains("panicked") || line.contains(".eyJ");
        wrong.extend(stderr.lines().filter(secret).map(|line| format!("the authority said: {line}")));
        wrong
    }

    fn accepts(&self) {
        let mut cases: Vec<Case> = yaml(&format!("join/{}/accepted.yaml", self.name));
        cases.extend(self.shared().1);
        cases.extend(self.method.fields.keys().map(|field| Case {
            name: format!("a rule with {field}"),
            join_token: Some(field_token(field)),
            ..Case::default()
        }));
        let authority = self.authority();
        let mut wrong = Vec::new();
        for case in &cases {
            let honest = self.honest(&authority);
            let (request, _) = self.request(case, &honest);
            let response = authority.client().exchange(&request);
            if response.status != 200 {
                let reason =
                    response.json()["denial_id"].as_str().map(|id| authority.refusal(id)["reason"].clone());
                wrong.push(format!("{}: {} {reason:?}", case.name, response.text()));
                continue;
            }
            let granted = response.json();
            let output = &granted["outputs"][0];
            let whole = granted["bot"] == "canary-bot"
                && output["ssh_certificate"].is_string()
                && output["tls_certificate_chain"].is_string()
                && output["principals"] == json!(["canary-login"]);
            if !whole {
                wrong.push(format!("{}: granted {granted}", case.name));
            }
            let record = authority.issuance(granted["issuance_id"].as_str().unwrap());
            let provenance = record["provenance"].as_str().unwrap_or_default();
            if record["join_method"] != self.name || !provenance.starts_with(&format!("{}:", self.name)) {
                wrong.push(format!("{}: recorded as {record}", case.name));
            }
        }
        println!("{}: {} proofs accepted", self.name, cases.len());
        assert!(wrong.is_empty(), "{}: {} cases went wrong:\n{}", self.name, wrong.len(), wrong.join("\n"));
    }

    /// An authority with the method's policy. It reaches every issuer through
    /// the loopback one, which stands in for them all.
    fn authority(&self) -> Authority {
        let builder = Authority::with_policy(&self.policy()).issuer(&self.issuer);
        builder.proxy(&self.issuer.proxy()).start()
    }

    fn policy(&self) -> String {
        let fill = |members: &Map<String, Value>| self.issuer.variables().object(members);
        let honest: Map<String, Value> = self
            .method
            .fields
            .iter()
            .map(|(field, claim)| {
                let value = match (self.method.values.get(field), self.claim(claim)) {
                    (Some(value), _) => value.clone(),
                    (None, Value::Array(items)) if self.method.under.is_some() => json!([items[0]]),
                    (None, Value::Array(items)) => items[0].clone(),
                    (None, value) => value.clone(),
                };
                (field.clone(), value)
            })
            .collect();
        let rule = |fields: &Map<String, Value>| match &self.method.under {
            Some(member) => json!({member: fields}),
            None => json!(fields),
        };
        let (canaries, all) = (rule(&self.canaries()), rule(&honest));
        let join_token = |name: &str, allow: Value, more: Value| {
            let mut section = fill(&self.method.section);
            section.insert("allow".to_owned(), allow);
            section.extend(more.as_object().unwrap().clone());
            json!({
                "kind": "token", "version": "v2", "metadata": {"name": name},
                "spec": {"roles": ["Bot"], "bot_name": "canary-bot", "join_method": self.name, self.name: section},
            })
        };
        let mut resources = vec![
            json!({"kind": "bot", "version": "v1", "metadata": {"name": "canary-bot"}, "spec": {"roles": ["canary-role"]}}),
            json!({
                "kind": "role", "version": "v7", "metadata": {"name": "canary-role"},
                "spec": {"allow": {"logins": ["canary-login"], "node_labels": {"*": "*"}}, "deny": {"logins": ["canary-denied"]}},
            }),
            join_token("conformance", json!([canaries, all]), json!({})),
            join_token("bound-only", json!([all]), json!({"require_key_binding": true})),
            join_token("canary", json!([canaries]), json!({})),
        ];
        for (field, value) in &honest {
            let mut fields = fill(&self.method.anchor);
            fields.insert(field.clone(), value.clone());
            resources.push(join_token(&field_token(field), json!([canaries, rule(&fields)]), json!({})));
        }
        let documents: Vec<String> = resources.iter().map(Value::to_string).collect();
        let written = self.issuer.variables().text(&fixture(&format!("join/{}/policy.yaml", self.name)));
        format!("{}\n---\n{written}", documents.join("\n---\n"))
    }

    /// A claim of the fixture, by name or JSON pointer.
    fn claim(&self, name: &str) -> &Value {
        let found = match name.starts_with('/') {
            // The library's own reading of RFC 6901.
            true => self.pointed.pointer(name),
            false => self.claims.get(name),
        };
        found.unwrap_or_else(|| panic!("{}: no claim {name}", self.name))
    }

    /// The fields of a rule that nobody meets and nobody may hear of.
    fn canaries(&self) -> Map<String, Value> {
        let secret = |(field, value): (&String, &Value)| match value {
            Value::String(text) => (field.clone(), format!("{text}-canary-that-nobody-may-hear-of").into()),
            other => (field.clone(), other.clone()),
        };
        self.method.anchor.iter().map(secret).collect()
    }

    /// Text of the rules that a reply must not hold, unless the caller's own claims do.
    fn rule_texts(&self) -> Vec<String> {
        let mut texts = vec!["canary".to_owned()];
        // Short ones, such as `1`, stand in every reply by chance.
        let values = self.method.fields.values().filter_map(|claim| self.claim(claim).as_str());
        texts.extend(values.filter(|text| text.len() > 5).map(str::to_owned));
        texts.sort_unstable();
        texts.dedup();
        texts
    }

    fn honest(&self, authority: &Authority) -> Honest {
        let keys = Keys::fresh();
        let url = authority.url();
        let issuer = self.issuer.variables().text(&self.method.issuer);
        let binding = keys.binding();
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let variables = self
            .issuer
            .variables()
            .with("ISSUER", issuer.to_uppercase())
            .with("issuer_http", issuer.replace("https:", "http:"))
            .with("attacker", self.issuer.url("/attacker"))
            .with("attacker_jwk", keys::SECOND.jwk())
            .with("p256_jwk", keys::P256.jwk())
            .with("public_host", authority.address().to_string())
            .with("PUBLIC_URL", url.to_uppercase())
            .with("audience", keys.audience(&url))
            .with("other_binding", Keys::fresh().binding())
            .with("binding_lower", binding.to_lowercase())
            .with("binding_short", &binding[..42])
            .with("binding", binding)
            .with("long", "k".repeat(10_000))
            .with("longer", "k".repeat(20_000))
            .with("nested100", nested(100))
            .with("nested1000", nested(1000))
            .with("nested5000", nested(5000))
            .with("issuer", issuer)
            .with("public_url", url);
        let claims = variables.object(&self.claims);
        let token = Token::new(claims.clone()).mint();
        let text = serde_json::to_string(&claims).unwrap();
        let variables = variables.with("honest", token).with("claims", text);
        Honest { keys, claims, variables }
    }

    fn honest_request(&self, join_token: &str, honest: &Honest) -> Value {
        honest.keys.request(join_token, self.name, &Token::new(honest.claims.clone()).mint())
    }

    /// The request of a case, and its token.
    fn request(&self, case: &Case, honest: &Honest) -> (Value, String) {
        let token = self.token(case, honest);
        let join_token = case.join_token.as_deref().unwrap_or("conformance");
        let mut request =
            honest.keys.request(join_token, case.method.as_deref().unwrap_or(self.name), &token);
        if let Some(proof) = &case.proof {
            request["proof"] = honest.variables.json(proof);
        }
        (request, token)
    }

    fn token(&self, case: &Case, honest: &Honest) -> String {
        let variables = &honest.variables;
        let valid = Token::new(honest.claims.clone());
        let mut token = valid.clone();
        token.header.extend(variables.object(&case.header));
        token.claims.extend(variables.object(&case.claims));
        token.header.retain(|name, _| !case.not_header.contains(name));
        token.claims.retain(|name, _| !case.not_claims.contains(name));
        for (pointer, value) in variables.object(&case.at) {
            cases::put(&mut token.claims, &pointer, Some(value));
        }
        for pointer in &case.not_at {
            cases::put(&mut token.claims, pointer, None);
        }
        token.header_raw = variables.text(&case.header_raw);
        token.claims_raw = variables.text(&case.claims_raw);
        token.signing = case.sign.signing(&valid);
        let written = |text: &Option<String>| text.as_ref().map(|text| variables.text(text));
        let minted = match (written(&case.header_text), written(&case.claims_text)) {
            (None, None) => token.mint(),
            (header, claims) => compact(
                &header.unwrap_or_else(|| serde_json::to_string(&token.header).unwrap()),
                &claims.unwrap_or_else(|| serde_json::to_string(&token.claims).unwrap()),
                &token.signing,
            ),
        };
        case.shape.of(minted, &token.signing)
    }
}

/// The text of a token's claims, so far as there is any.
fn claims_text(token: &str) -> String {
    use base64::Engine as _;
    let payload = token.split('.').nth(1).unwrap_or_default();
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn denial_of(response: &Response, status: u16) -> Result<String, String> {
    let text = response.text();
    if response.status != status {
        return Err(format!("answered {} {text}", response.status));
    }
    if response.header("content-type") != Some("application/problem+json") {
        return Err(format!("answered {:?}", response.headers));
    }
    let id = response.json()["denial_id"].as_str().map(str::to_owned);
    id.ok_or_else(|| format!("answered without a denial id: {text}"))
}

#[test]
fn the_tables_name_reasons_that_there_are() {
    let mut files = vec!["join/hostile-oidc.yaml".to_owned()];
    let names = METHODS.iter().map(|method| method.name).filter(|name| suite_of(name) == "oidc");
    files.extend(names.map(|name| format!("join/{name}/hostile.yaml")));
    for file in files {
        for case in yaml::<Vec<Case>>(&file) {
            let row = REASONS.iter().find(|row| row.code == case.reason);
            let row = row.unwrap_or_else(|| panic!("{file}: {}: no reason {}", case.name, case.reason));
            assert_eq!(row.status, case.status, "{file}: {}", case.name);
        }
    }
}
