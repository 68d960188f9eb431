//! Giving certificates back: who may, and what the lists say afterwards.

use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, DnType, KeyPair, SerialNumber};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::Bench;
use crate::support::client::{self, Keys, Response, assertion_claims};
use crate::support::{base64url, keys, now, process};

/// An issuance and its keys.
pub(super) struct Held {
    keys: Keys,
    granted: Value,
}

impl Held {
    pub(super) fn new(bench: &Bench) -> Self {
        let keys = Keys::fresh();
        let granted = bench.grant(&keys);
        Self { keys, granted }
    }

    pub(super) fn id(&self) -> &str {
        self.granted["issuance_id"].as_str().unwrap()
    }

    fn chain(&self) -> &str {
        self.granted["outputs"][0]["tls_certificate_chain"].as_str().unwrap()
    }

    fn ssh(&self) -> &str {
        self.granted["outputs"][0]["ssh_certificate"].as_str().unwrap()
    }

    pub(super) fn ssh_serial(&self) -> u64 {
        ssh_key::Certificate::from_openssh(self.ssh()).unwrap().serial()
    }

    /// A good assertion.
    pub(super) fn assertion(&self, bench: &Bench) -> String {
        self.keys.tls_assertion(self.chain(), &assertion_claims(&bench.authority.url()))
    }
}

pub(super) fn revoke(bench: &Bench, issuance: &str, assertion: &str) -> Response {
    let body = json!({"issuance_id": issuance, "assertion": assertion});
    bench.authority.client().post("/v1/revoke", body.to_string())
}

/// The lists, and an issuance's certificates, as files.
struct Lists {
    folder: TempDir,
}

impl Lists {
    fn fetch(bench: &Bench, held: &Held) -> Self {
        let folder = TempDir::new().unwrap();
        let client = bench.authority.client();
        let (krl, crl) = (client.get("/v1/revoked/ssh.krl"), client.get("/v1/revoked/tls.crl"));
        assert_eq!((krl.status, crl.status), (200, 200));
        let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
        write("ssh.krl", &krl.body);
        write("tls.crl", &crl.body);
        write("key-cert.pub", held.ssh().as_bytes());
        write("tls.crt", held.chain().as_bytes());
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// As `ssh-keygen -Q` sees it.
    fn ssh_revoked(&self) -> bool {
        let mut command = process::command("ssh-keygen");
        command.arg("-Q").arg("-f").arg(self.path("ssh.krl")).arg(self.path("key-cert.pub"));
        let output = process::run(&mut command);
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(said.contains("REVOKED"), !output.status.success(), "{said}");
        assert!(!said.contains("Invalid"), "{said}");
        !output.status.success()
    }

    /// As `openssl verify -crl_check` sees it.
    fn tls_revoked(&self, ca: &Path) -> bool {
        let mut convert = process::command("openssl");
        convert
            .args(["crl", "-inform", "DER", "-in"])
            .arg(self.path("tls.crl"))
            .arg("-out")
            .arg(self.path("crl.pem"));
        process::succeed(&mut convert);
        let mut check = process::command("openssl");
        check.args(["crl", "-noout", "-in"]).arg(self.path("crl.pem")).arg("-CAfile").arg(ca);
        let checked = process::run(&mut check);
        let said =
            String::from_utf8_lossy(&checked.stderr).into_owned() + &String::from_utf8_lossy(&checked.stdout);
        assert!(said.contains("verify OK"), "{said}");
        let mut verify = process::command("openssl");
        // The clock of a server that is behind by as much as clocks may be apart, but for the test's own time.
        verify
            .args(["verify", "-attime", &(now() - 20).to_string(), "-crl_check", "-CAfile"])
            .arg(ca)
            .arg("-CRLfile")
            .arg(self.path("crl.pem"));
        let output =
            process::run(verify.arg("-untrusted").arg(self.path("tls.crt")).arg(self.path("tls.crt")));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(said.contains("certificate revoked"), !output.status.success(), "{said}");
        !output.status.success()
    }
}

#[track_caller]
fn assert_revoked(bench: &Bench, held: &Held, expected: bool) {
    let lists = Lists::fetch(bench, held);
    assert_eq!(lists.ssh_revoked(), expected, "by ssh-keygen");
    assert_eq!(lists.tls_revoked(&bench.authority.ca_file()), expected, "by openssl");
}

#[test]
fn a_job_gives_its_certificates_back() {
    let bench = Bench::start();
    let (mine, other) = (Held::new(&bench), Held::new(&bench));
    assert_revoked(&bench, &mine, false);
    assert_eq!(revoke(&bench, mine.id(), &mine.assertion(&bench)).status, 200);
    assert_revoked(&bench, &mine, true);
    assert_revoked(&bench, &other, false);
    // The second time too, with an assertion of its own.
    assert_eq!(revoke(&bench, mine.id(), &mine.assertion(&bench)).status, 200);
    let audit = bench.authority.audit();
    let revoked: Vec<&Value> = audit.iter().filter(|event| event["event"] == "revoked").collect();
    assert_eq!(revoked.len(), 1, "{revoked:?}");
    assert_eq!(revoked[0]["issuance_id"], mine.id());
}

/// Who asks for a revocation is in the trail, whatever comes of it; what strangers ask is kept as their refusals are.
#[test]
fn refused_revocations_are_recorded_and_limited() {
    let bench = Bench::start();
    let held = Held::new(&bench);
    let good = held.assertion(&bench);
    assert_eq!(revoke(&bench, held.id(), &good).status, 200);
    let unsigned = format!("{}.AAAA", held.assertion(&bench).rsplit_once('.').unwrap().0);
    for (assertion, verified, detail) in [
        (good.as_str(), true, "the assertion was used before"),
        (&unsigned, false, "the signature does not verify"),
        ("a.b.c", false, "base64url"),
    ] {
        let denial =
            revoke(&bench, held.id(), assertion).problem(401)["denial_id"].as_str().unwrap().to_owned();
        let record = bench.authority.refusal(&denial);
        assert_eq!((&record["reason"], &record["verified"]), (&json!("assertion_invalid"), &json!(verified)));
        assert_eq!((&record["peer"], &record["token"]), (&json!("127.0.0.1"), &Value::Null));
        let said = record["detail"].as_str().unwrap();
        assert!(said.contains(held.id()) && said.contains(detail), "{said}");
        let story = process::succeed(&mut bench.authority.command(["explain", &denial]));
        assert!(
            story.contains("reason: assertion_invalid, from 127.0.0.1\n") && story.contains(detail),
            "{story}"
        );
    }
    let limited = (0..400).map(|_| revoke(&bench, "i-none", "a.b.c")).find(|response| response.status != 401);
    let limited = limited.expect("a limit");
    limited.problem(429);
    assert!(limited.header("retry-after").is_some());
    // The holder's own goes on; only to repeat it for ever is limited.
    let other = Held::new(&bench);
    assert_eq!(revoke(&bench, other.id(), &other.assertion(&bench)).status, 200);
    let again = || revoke(&bench, other.id(), &other.assertion(&bench)).status;
    assert!((0..20).any(|_| again() == 429), "a machine that is slow gets a second one in");
}

/// Neither list says it, and hosts keep what they have seen for so long.
#[test]
fn the_ends_of_what_is_revoked_are_told() {
    let bench = Bench::start();
    let (held, other) = (Held::new(&bench), Held::new(&bench));
    let told = || bench.authority.client().get("/v1/revoked").json();
    assert_eq!(told(), json!({"expires": {}}));
    assert_eq!(revoke(&bench, held.id(), &held.assertion(&bench)).status, 200);
    let output = |held: &Held, name: &str| held.granted["outputs"][0][name].as_str().unwrap().to_owned();
    let told = told();
    let ends = told["expires"].as_object().unwrap();
    assert_eq!(ends.len(), 2, "{told}");
    for serial in [output(&held, "serial"), output(&held, "tls_serial")] {
        let left = ends[&serial].as_i64().unwrap() - now();
        assert!((500..=600).contains(&left), "{left}");
        assert!(!ends.contains_key(&output(&other, "serial")));
    }
}

#[test]
fn revocation_outlives_the_process() {
    let mut bench = Bench::start();
    let held = Held::new(&bench);
    assert_eq!(revoke(&bench, held.id(), &held.assertion(&bench)).status, 200);
    bench.authority.restart();
    assert_revoked(&bench, &held, true);
}

#[test]
fn the_ssh_key_may_do_it_too() {
    let bench = Bench::start();
    let keys = Keys::fresh();
    let output = json!({"name": "identity", "type": "ssh", "ssh": {"public_key": keys.ssh}});
    let request = client::request("github-deploy", "github", &bench.unbound().mint(), json!([output]));
    let granted = bench.authority.client().exchange(&request).granted();
    let certificate = granted["outputs"][0]["ssh_certificate"].as_str().unwrap();
    let assertion = keys.ssh_assertion(certificate, &assertion_claims(&bench.authority.url()));
    let response = revoke(&bench, granted["issuance_id"].as_str().unwrap(), &assertion);
    assert_eq!(response.status, 200, "{}", response.text());
}

#[test]
fn revoked_certificates_are_not_handed_out_again() {
    let bench = Bench::start();
    let keys = Keys::fresh();
    let token = bench.bound(&keys).mint();
    let granted = bench.present(&token, &keys).granted();
    let held = Held { keys, granted };
    assert_eq!(revoke(&bench, held.id(), &held.assertion(&bench)).status, 200);
    assert_eq!(bench.reason(&bench.present(&token, &held.keys), 401), "token_used");
}

/// Changes the claims of an assertion in one way.
type Spoil = fn(&mut Map<String, Value>, &str);

const BAD_CLAIMS: &[(&str, Spoil)] = &[
    ("audience of exchanges", |claims, url| set(claims, "aud", url)),
    ("audience with a slash", |claims, url| set(claims, "aud", format!("{url}/v1/revoke/"))),
    ("another audience in a list", |claims, url| {
        set(claims, "aud", json!([format!("{url}/v1/revoke"), url]))
    }),
    ("another authority's audience", |claims, _| set(claims, "aud", "https://evil.example/v1/revoke")),
    ("no audience", |claims, _| drop(claims.remove("aud"))),
    ("no iat", |claims, _| drop(claims.remove("iat"))),
    ("no exp", |claims, _| drop(claims.remove("exp"))),
    ("no jti", |claims, _| drop(claims.remove("jti"))),
    ("jti empty", |claims, _| set(claims, "jti", "")),
    ("jti a number", |claims, _| set(claims, "jti", 7)),
    ("longer than a minute", |claims, _| set(claims, "exp", now() + 3600)),
    ("longer than a minute by a second", |claims, _| {
        set(claims, "exp", claims["iat"].as_i64().unwrap() + 61)
    }),
    ("expired", |claims, _| times(claims, now() - 600, now() - 540)),
    ("from the future", |claims, _| times(claims, now() + 600, now() + 660)),
    ("ends before it begins", |claims, _| times(claims, now() + 50, now() + 10)),
    ("times as far apart as can be", |claims, _| times(claims, i64::MIN, i64::MAX)),
    ("times as text", |claims, _| set(claims, "exp", (now() + 30).to_string())),
];

fn set(claims: &mut Map<String, Value>, name: &str, value: impl Into<Value>) {
    claims.insert(name.to_owned(), value.into());
}

fn times(claims: &mut Map<String, Value>, issued: i64, expires: i64) {
    set(claims, "iat", issued);
    set(claims, "exp", expires);
}

#[test]
fn other_assertions_revoke_nothing() {
    let bench = Bench::start();
    let url = bench.authority.url();
    let (mine, theirs) = (Held::new(&bench), Held::new(&bench));
    let good = || assertion_claims(&url);
    let header = |alg: &str, certificate: Value| json!({"alg": alg, "typ": "JWT", "x5c": certificate});
    let x5c = |chain: &str| {
        let assertion = mine.keys.tls_assertion(chain, &good());
        let header = base64_decoded(assertion.split('.').next().unwrap());
        serde_json::from_slice::<Value>(&header).unwrap()["x5c"].clone()
    };
    let ca = process::read(bench.authority.ca_file());
    let hs256 = {
        let message = format!(
            "{}.{}",
            base64url(header("HS256", x5c(mine.chain())).to_string()),
            base64url(json!(good()).to_string())
        );
        format!("{message}.{}", base64url(keys::hmac_sha256(&mine.keys.spki(), message.as_bytes())))
    };
    let unsigned = format!(
        "{}.{}.",
        base64url(header("none", x5c(mine.chain())).to_string()),
        base64url(json!(good()).to_string())
    );
    let stranger = Keys::fresh();
    let (forged, forged_by) = forged_certificate(mine.granted["outputs"][0]["tls_serial"].as_str().unwrap());
    let mut cases = vec![
        ("their key, my certificate", theirs.keys.tls_assertion(mine.chain(), &good())),
        ("a stranger's key, my certificate", stranger.tls_assertion(mine.chain(), &good())),
        ("my key, their certificate", mine.keys.tls_assertion(theirs.chain(), &good())),
        ("their own assertion", theirs.keys.tls_assertion(theirs.chain(), &good())),
        ("a made-up certificate of my serial", forged_by.tls_assertion(&forged, &good())),
        ("the CA's certificate", mine.keys.tls_assertion(&ca, &good())),
        ("no certificate", mine.keys.sign_es256(&json!({"alg": "ES256", "kid": "1"}), &good())),
        ("an embedded key", mine.keys.sign_es256(&json!({"alg": "ES256", "jwk": keys::P256.jwk()}), &good())),
        ("an empty chain", mine.keys.sign_es256(&header("ES256", json!([])), &good())),
        (
            "a chain that is text",
            mine.keys.sign_es256(&header("ES256", x5c(mine.chain())[0].clone()), &good()),
        ),
        ("both kinds of certificate", {
            let header = json!({"alg": "ES256", "x5c": x5c(mine.chain()), "ssh_certificate": mine.ssh()});
            mine.keys.sign_es256(&header, &good())
        }),
        ("HS256 with the public key", hs256),
        ("no signature", unsigned),
        ("the other algorithm", mine.keys.sign_es256(&header("EdDSA", x5c(mine.chain())), &good())),
        ("a platform's token", bench.unbound().mint()),
        ("empty", String::new()),
        ("the serial alone", mine.granted["outputs"][0]["serial"].as_str().unwrap().to_owned()),
        ("cut short", mine.assertion(&bench)[..200].to_owned()),
    ];
    for (what, spoil) in BAD_CLAIMS {
        let mut claims = good();
        spoil(&mut claims, &url);
        cases.push((what, mine.keys.tls_assertion(mine.chain(), &claims)));
    }
    let mut wrong = Vec::new();
    for (what, assertion) in cases {
        let response = revoke(&bench, mine.id(), &assertion);
        if response.status == 401 {
            response.problem(401);
        } else {
            wrong.push(format!("{what}: {} {}", response.status, response.text()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    revoke(&bench, "i-nobody", &mine.assertion(&bench)).problem(401);
    revoke(&bench, theirs.id(), &mine.assertion(&bench)).problem(401);
    assert_revoked(&bench, &mine, false);
    assert_revoked(&bench, &theirs, false);
}

#[test]
fn an_assertion_is_good_once() {
    let bench = Bench::start();
    let held = Held::new(&bench);
    let assertion = held.assertion(&bench);
    assert_eq!(revoke(&bench, held.id(), &assertion).status, 200);
    let again = revoke(&bench, held.id(), &assertion);
    // It may be told so, or that all is done; it may not be an error inside.
    assert!(matches!(again.status, 200 | 401), "{} {}", again.status, again.text());
    let other = Held::new(&bench);
    revoke(&bench, other.id(), &assertion).problem(401);
    assert_revoked(&bench, &other, false);
}

#[test]
fn bodies_of_a_revocation_are_strict() {
    let bench = Bench::start();
    let held = Held::new(&bench);
    let post = |body: Value| bench.authority.client().post("/v1/revoke", body.to_string());
    post(json!({"serial": held.granted["outputs"][0]["serial"]})).problem(400);
    post(json!({"issuance_id": held.id()})).problem(400);
    post(json!({"assertion": held.assertion(&bench)})).problem(400);
    post(json!({"issuance_id": held.id(), "assertion": held.assertion(&bench), "all": true})).problem(400);
    post(json!([])).problem(400);
    assert_revoked(&bench, &held, false);
}

/// A certificate of that serial, by nobody, and the keys behind it.
fn forged_certificate(serial: &str) -> (String, Keys) {
    let mut keys = Keys::fresh();
    keys.tls = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.serial_number = Some(SerialNumber::from(serial.parse::<u64>().unwrap()));
    params.distinguished_name.push(DnType::CommonName, "deployer");
    (params.self_signed(&keys.tls).unwrap().pem(), keys)
}

fn base64_decoded(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).unwrap()
}
