//! Jobs of another cluster that a leaf trusts: what they get by its role map, under which names; and what is no passport.

mod hostile;

use machine_id::clock::parse_rfc3339;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer as _, GeneralName, ParsedExtension, X509Certificate};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::support::authority::{Authority, CLUSTER as LEAF};
use crate::support::client::{self, Keys, Response};
use crate::support::issuer::Issuer;
use crate::support::root::Root;
use crate::support::token::Token;
use crate::support::{base64url, now, policies, process, wait_for};

/// The leaf's own roles, and a bot that is called as one of the root's.
const ROLES: &str = r"kind: bot
version: v1
metadata: {name: deployer}
spec: {roles: [own], traits: [{name: logins, values: [secret]}]}
---
kind: role
version: v7
metadata: {name: own}
spec: {allow: {logins: [own], node_labels: {'*': '*'}}}
---
kind: role
version: v7
metadata: {name: deploy-leaf}
spec:
  options: {max_session_ttl: 30m}
  allow: {logins: [deploy, '{{internal.logins}}'], node_labels: {'*': '*'}}
---
kind: role
version: v7
metadata: {name: orders}
spec: {allow: {db_users: [orders], db_names: ['*']}}
---
kind: role
version: v7
metadata: {name: deploy}
spec: {allow: {logins: [root], node_labels: {'*': '*'}}}
---
kind: role
version: v7
metadata: {name: guarded}
spec:
  options: {require_session_mfa: true}
  allow: {logins: [guarded], node_labels: {'*': '*'}}
";

/// A leaf, and the root that it trusts under several names.
struct Scene {
    root: Root,
    leaf: Authority,
}

fn policy(root: &Root) -> String {
    let map = "role_map: [{remote: 'dep*', local: [deploy-leaf, guarded]}, {remote: admin, local: [orders]}]";
    let keys = format!("static_jwks: '{}'", root.issuer.key_set());
    let long = "r".repeat(60);
    [
        ROLES.to_owned(),
        root.trusted("root.test", map),
        root.trusted("given.test", &format!("{keys}, max_session_ttl: 10m, {map}")),
        root.trusted("off.test", &format!("enabled: false, {map}")),
        root.trusted(&long, map),
        root.trusted("narrow.test", "role_map: [{remote: 'admin?', local: [orders]}]"),
        root.trusted(
            "rules.test",
            &format!(
                "{map}, allow: [{{bot: 'dep*', join_method: github, provenance: {{repository: 'octo-org/*', kubernetes.io/x: pod}}}}], \
                 deny: [{{provenance: {{ref: '*/evil'}}}}, {{bot: deployer-of-evil}}]"
            ),
        ),
    ]
    .concat()
}

impl Scene {
    fn start() -> Self {
        let root = Root::start();
        let leaf = Authority::trusting(&root.issuer, &policy(&root));
        Self { root, leaf }
    }

    /// A passport of that cluster for the usual request with these keys.
    fn passport(&self, cluster: &str, keys: &Keys) -> Token {
        self.root.passport_of(cluster, &keys.audience(&self.leaf.url()))
    }

    fn show(&self, cluster: &str, token: &str, keys: &Keys) -> Response {
        self.leaf.client().exchange(&keys.request(cluster, "trusted_cluster", token))
    }

    fn refused(&self, response: &Response, status: u16) -> Value {
        self.leaf.refusal(&response.denial(status))
    }
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no {pointer} in {value}"))
}

fn ssh_certificate(granted: &Value) -> ssh_key::Certificate {
    ssh_key::Certificate::from_openssh(text(granted, "/outputs/0/ssh_certificate")).unwrap()
}

const RUN: &str = "github:octo-org/app@refs/heads/main run 7 attempt 1";

#[test]
fn a_job_of_the_root_gets_what_the_map_gives_under_its_own_names() {
    let scene = Scene::start();
    let keys = Keys::fresh();
    let token = scene.passport("root.test", &keys);
    let granted = scene.show("root.test", &token.mint(), &keys).granted();
    assert_eq!(text(&granted, "/bot"), "deployer@root.test");
    assert_eq!(text(&granted, "/cluster"), LEAF);
    assert_eq!(granted["outputs"][0]["roles"], json!(["deploy-leaf"]), "neither `deploy` nor what needs MFA");
    let ssh = ssh_certificate(&granted);
    assert_eq!(ssh.key_id(), format!("deployer@root.test {LEAF} {RUN}"));
    // The trait of the leaf's bot of that name is not its own.
    assert_eq!(ssh.valid_principals(), ["deploy"]);
    let chain = text(&granted, "/outputs/0/tls_certificate_chain");
    let der = CertificateDer::from_pem_slice(chain.as_bytes()).unwrap();
    let (_, tls) = X509Certificate::from_der(&der).unwrap();
    assert_eq!(tls.subject().to_string(), "CN=bot:deployer@root.test");
    let names = tls.subject_alternative_name().unwrap().unwrap();
    let uri = format!("spiffe://{LEAF}/remote/root.test/bot/deployer");
    assert!(matches!(&*names.value.general_names, [GeneralName::URI(found)] if *found == uri), "{names:?}");
    let said: Vec<String> = tls
        .extensions()
        .iter()
        .filter(|one| one.oid.to_id_string().starts_with("1.3.6.1.4.1.57264.1."))
        .filter(|one| matches!(one.parsed_extension(), ParsedExtension::UnsupportedExtension { .. }))
        .map(|one| {
            format!(
                "{} {}",
                one.oid.to_id_string().rsplit('.').next().unwrap(),
                String::from_utf8_lossy(&one.value[2..])
            )
        })
        .collect();
    assert_eq!(said, ["8 https://token.actions.githubusercontent.com", "12 https://github.com/octo-org/app"]);

    // The same again is answered again; and a proof of the same number is used up.
    let again = scene.show("root.test", &token.mint(), &keys).granted();
    assert_eq!(again["issuance_id"], granted["issuance_id"]);
    let other = Keys::fresh();
    let moved = token.clone().claim("aud", other.audience(&scene.leaf.url())).mint();
    assert_eq!(scene.refused(&scene.show("root.test", &moved, &other), 401)["reason"], "token_used");

    // Both trails meet, by any of the root's names.
    let event = scene.leaf.issuance(text(&granted, "/issuance_id"));
    let claims = &token.claims;
    assert_eq!(
        event["origin"],
        json!({"cluster": "root.test", "issuance_id": claims["issuance_id"], "provenance": RUN, "jti": claims["jti"]})
    );
    assert_eq!((&event["bot"], &event["token"]), (&json!("deployer@root.test"), &json!("root.test")));
    for id in ["issuance_id", "jti"].map(|name| claims[name].as_str().unwrap()) {
        let said = process::succeed(&mut scene.leaf.command(["audit", "--id", id]));
        assert_eq!(said.lines().count(), 2, "what was issued, and the refusal after it: {said}");
        assert!(
            said.contains(&format!(
                "origin=\"root.test {} jti {}\"",
                text(&json!(claims), "/issuance_id"),
                text(&json!(claims), "/jti")
            )),
            "{said}"
        );
    }
    assert_eq!(process::succeed(&mut scene.leaf.command(["audit", "--id", "i-0"])), "");
}

#[test]
fn nothing_outlives_what_the_root_has_granted() {
    let scene = Scene::start();
    let keys = Keys::fresh();
    let end = |granted: &Value| parse_rfc3339(text(granted, "/expires_at")).unwrap();
    let ask = |cluster: &str, grant: i64| {
        let token = scene.passport(cluster, &keys).claim("grant_expires_at", grant).mint();
        let mut request = keys.request(cluster, "trusted_cluster", &token);
        request["ttl_seconds"] = 7200.into();
        scene.leaf.client().exchange(&request).granted()
    };
    let soon = now() + 77;
    assert_eq!(end(&ask("root.test", soon)), soon);
    let unix = |seconds: u64| i64::try_from(seconds).unwrap();
    assert_eq!(unix(ssh_certificate(&ask("root.test", soon)).valid_before()), soon);
    // Else by the leaf's own limits: the role's, and the cluster's.
    for (cluster, most) in [("root.test", 1800), ("given.test", 600)] {
        let left = end(&ask(cluster, now() + 100_000)) - now();
        assert!((most - 30..=most).contains(&left), "{cluster}: {left}");
    }
}

#[test]
fn roles_of_the_leaf_are_asked_for_by_its_names() {
    let scene = Scene::start();
    let ask = |roles: Value, kind: Value| {
        let keys = Keys::fresh();
        let token = scene.passport("root.test", &keys).claim("roles", json!(["deploy", "admin"])).mint();
        let mut output = keys.output();
        output["roles"] = roles;
        if kind == "database" {
            output["type"] = kind;
            output["name"] = "identity".into();
            output.as_object_mut().unwrap().remove("ssh");
            output["options"] = json!({"service": "orders"});
            let spki = keys.spki();
            let bound = client::binding(&[("identity tls", &spki)]);
            let token = scene
                .root
                .passport(&format!("{}#{bound}", scene.leaf.url()))
                .claim("roles", json!(["admin"]));
            let request = client::request("root.test", "trusted_cluster", &token.mint(), json!([output]));
            return scene.leaf.client().exchange(&request);
        }
        let request = client::request("root.test", "trusted_cluster", &token, json!([output]));
        scene.leaf.client().exchange(&request)
    };
    assert_eq!(
        ask(json!(["deploy-leaf"]), json!("")).granted()["outputs"][0]["roles"],
        json!(["deploy-leaf"])
    );
    for own in ["deploy", "own", "admin"] {
        assert_eq!(scene.refused(&ask(json!([own]), json!("")), 403)["reason"], "role_not_held", "{own}");
    }
    assert_eq!(scene.refused(&ask(json!(["guarded"]), json!("")), 403)["reason"], "mfa_required");
    let database = ask(json!([]), json!("database")).granted();
    assert_eq!(database["outputs"][0]["principals"], json!(["orders"]));
}

#[test]
fn whom_the_root_names_may_be_let_in_or_kept_out() {
    let scene = Scene::start();
    let ask = |claim: &str, value: Value| {
        let keys = Keys::fresh();
        let mut token = scene.passport("rules.test", &keys);
        match claim.strip_prefix("provenance.") {
            Some(name) => token.claims["provenance"]["claims"][name] = value,
            None => {
                token = token
                    .claim(claim, value.clone())
                    .claim("sub", format!("spiffe://rules.test/bot/{}", value.as_str().unwrap_or("deployer")))
            }
        }
        scene.show("rules.test", &token.mint(), &keys)
    };
    ask("provenance.run_id", json!("8")).granted();
    for (claim, value, story) in [
        (
            "provenance.repository",
            json!("octo-org-evil/app"),
            "`provenance.repository`: got `octo-org-evil/app`, wanted `octo-org/*`",
        ),
        ("provenance.repository", json!(["octo-org/app"]), "`provenance.repository`"),
        ("provenance.kubernetes.io/x", json!("z"), "`provenance.kubernetes.io/x`"),
        (
            "provenance.ref",
            json!("refs/heads/a/evil"),
            "`deny` of trusted cluster `rules.test` keeps it out, at ",
        ),
        ("bot", json!("reader"), "`bot`: got `reader`, wanted `dep*`"),
        ("bot", json!("deployer-of-evil"), "`deny` of"),
    ] {
        let refusal = scene.refused(&ask(claim, value.clone()), 403);
        assert_eq!(refusal["reason"], "no_rule_matches", "{claim} {value}");
        assert!(text(&refusal, "/detail").contains(story), "{refusal}");
    }
}

/// By its pin, and with a key that it publishes later.
#[test]
fn the_root_is_asked_for_its_keys_and_believed_by_its_pin() {
    let root = Root::start();
    let ca = process::read(root.issuer.ca_file());
    let pin = machine_id::net::pin_of(&CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    let map = "role_map: [{remote: deploy, local: [deploy-leaf]}]";
    let wrong = format!("sha256:{}", "0".repeat(64));
    let policy = [
        ROLES.to_owned(),
        root.trusted("root.test", &format!("ca_pin: '{pin}', {map}")),
        root.trusted("wrong.test", &format!("ca_pin: '{wrong}', {map}")),
    ];
    let leaf = Authority::start(&policy.concat());
    let scene = Scene { root, leaf };
    let keys = Keys::fresh();
    scene.show("root.test", &scene.passport("root.test", &keys).mint(), &keys).granted();
    let problem = scene.show("wrong.test", &scene.passport("wrong.test", &keys).mint(), &keys).problem(503);
    assert_eq!(problem["type"], "urn:machine-id:issuer-unavailable", "{problem}");
}

/// A lock at the leaf takes a job of the root by what its platform says, and by its name.
#[test]
fn locks_at_the_leaf_take_jobs_of_the_root() {
    for lock in [
        ["--bot", "deployer@root.test"],
        ["--token", "root.test"],
        ["--join-method", "trusted_cluster"],
        ["--repository", "octo-org/app"],
        ["--run", "7"],
        ["--run", RUN],
    ] {
        let scene = Scene::start();
        let keys = Keys::fresh();
        scene.show("root.test", &scene.passport("root.test", &keys).mint(), &keys).granted();
        let said = scene.leaf.run(["lock", lock[0], lock[1]]);
        let stderr = String::from_utf8_lossy(&said.stderr);
        assert!(said.status.success() && !stderr.contains("warning"), "{lock:?}: {stderr}");
        assert!(String::from_utf8_lossy(&said.stdout).contains("1 issuance"), "{lock:?}: {said:?}");
        let refused = scene.show("root.test", &scene.passport("root.test", &keys).mint(), &keys);
        assert_eq!(scene.refused(&refused, 403)["reason"], "locked_out", "{lock:?}");
    }
}

/// What `check --from` says, a job of the root gets; `explain` has the line of the map.
#[test]
fn check_and_explain_name_the_lines_of_the_map() {
    let scene = Scene::start();
    let keys = Keys::fresh();
    let token = scene.passport("root.test", &keys);
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("passport");
    let check = |text: &str, from: &str, more: &[&str]| {
        std::fs::write(&file, text).unwrap();
        let mut command = scene.leaf.command(["check"]);
        let said = process::run(command.args(["--from", from, "--claims"]).arg(&file).args(more));
        (said.status.code(), String::from_utf8(said.stdout).unwrap(), String::from_utf8(said.stderr).unwrap())
    };
    let claims = json!(token.claims).to_string();
    for given in [&claims, &token.mint()] {
        let (code, stdout, stderr) = check(given, "root.test", &[]);
        assert_eq!(code, Some(0), "{stdout}{stderr}");
        for said in [
            "trusted cluster `root.test`\n",
            ": deploy is `dep*`, which gives deploy-leaf, guarded\n",
            ": no role is `admin`, which gives orders\n",
            "allowed: the job would be bot `deployer@root.test`\n",
            "TLS common name: bot:deployer@root.test\n",
        ] {
            assert!(stdout.contains(said), "no {said} in {stdout}");
        }
    }
    let (code, stdout, _) = check(&claims, "root.test", &["--format", "json"]);
    let answer: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &answer["answer"]["role_map"][0]["taken"]), (Some(0), &json!(["deploy"])));
    let narrow = claims.replace("root.test", "narrow.test");
    let (code, stdout, _) = check(&narrow, "narrow.test", &[]);
    assert!(code == Some(4) && stdout.contains("denied: role_not_mapped"), "{stdout}");
    let (code, _, stderr) = check(&claims, "rot.test", &[]);
    assert!(code == Some(2) && stderr.contains("the policy has no trusted cluster `rot.test`"), "{stderr}");

    let token = scene.passport("narrow.test", &keys).mint();
    let id = scene.show("narrow.test", &token, &keys).denial(403);
    let story = process::succeed(&mut scene.leaf.command(["explain", &id]));
    for said in [
        "reason: role_not_mapped",
        "the proof has the roles `deploy`, `read`",
        "  line at ",
        "`admin?` would give orders",
    ] {
        assert!(story.contains(said), "no {said} in {story}");
    }
}

/// With a root that is one: what it vouches for is believed, by its published key and the pin of its CA.
#[test]
fn a_real_roots_passport_opens_a_real_leaf() {
    let issuer = Issuer::start();
    let leaf = Authority::with_policy(ROLES).cluster("leaf.test").start();
    let there = format!(
        "---\nkind: leaf_cluster\nversion: v1\nmetadata: {{name: leaf.test}}\nspec: {{url: '{}', hosts: ['*.leaf.test'], roles: [deploy]}}\n",
        leaf.url()
    );
    let root = Authority::with_policy(&(policies::basic(&issuer) + &there))
        .cluster("root.test")
        .issuer(&issuer)
        .start();
    let pin = process::succeed(&mut root.command(["export", "tls-ca-pin"]));
    leaf.write_policy(&format!(
        "{ROLES}---\nkind: trusted_cluster\nversion: v2\nmetadata: {{name: root.test}}\nspec: {{url: '{}', ca_pin: '{}', role_map: [{{remote: deploy, local: [deploy-leaf]}}]}}\n",
        root.url(),
        pin.trim()
    ));
    let keys = Keys::fresh();
    // One proof for the whole test: a request is answered again for the same.
    let lines = format!("machine-id-binding-v1\nleaf.test leaf {}\n", keys.binding());
    let binding = base64url(digest(&SHA256, lines.as_bytes()));
    let token = issuer.token("github", &format!("{}#{binding}", root.url())).mint();
    let mut request = client::request("github-deploy", "github", &token, json!([]));
    request["leaves"] = json!([{"name": "leaf.test", "binding": keys.binding()}]);
    let vouched = root.client().exchange(&request).granted();
    let passport = text(&vouched, "/leaves/0/proof").to_owned();
    let request = keys.request("root.test", "trusted_cluster", &passport);
    let granted = wait_for("the leaf's new policy", || {
        Some(leaf.client().exchange(&request)).filter(|response| response.status == 200)
    })
    .granted();
    assert_eq!(text(&granted, "/bot"), "deployer@root.test");
    assert!(
        ssh_certificate(&granted)
            .key_id()
            .starts_with("deployer@root.test leaf.test github:octo-org/octo-repo@")
    );
    // Each trail has what the other calls it.
    let origin = &leaf.issuance(text(&granted, "/issuance_id"))["origin"];
    assert_eq!(origin["issuance_id"], vouched["issuance_id"]);
    let said = process::succeed(&mut root.command(["audit", "--serial", text(origin, "/jti")]));
    assert!(said.contains(text(&vouched, "/issuance_id")), "{said}");
    let said = process::succeed(&mut leaf.command(["audit", "--id", text(&vouched, "/issuance_id")]));
    assert!(said.contains(text(&granted, "/issuance_id")), "{said}");
    // It vouches for nobody in its turn, and a stranger's keys are not let in by it.
    let other = Keys::fresh();
    let stolen = leaf.client().exchange(&other.request("root.test", "trusted_cluster", &passport));
    assert_eq!(leaf.refusal(&stolen.denial(401))["reason"], "binding_wrong");
}
