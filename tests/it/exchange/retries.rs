//! A reply that was lost is given again: the same certificates, made anew under the policy in force.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use x509_parser::parse_x509_certificate;

use crate::support::client::{self, Keys};
use crate::support::once::World;
use crate::support::token::claims_of;
use crate::support::{policies, wait_for};

const ROLE: &str = "---\nkind: role\nversion: v7\nmetadata: {name: servers}\nspec:\n  \
                    allow: {logins: [ops], node_labels: {'*': '*'}, db_users: [reader], db_names: [main], \
                    kubernetes_users: ['ci:deployer'], kubernetes_groups: [ops, dev], app_labels: {name: [shop]}, \
                    ssh_host_principals: ['*.example.com'], jwt_audiences: [sts.amazonaws.com]}\n";

fn with_role(policy: &str) -> String {
    policy.replace("roles: [deploy]", "roles: [deploy, servers]") + ROLE
}

/// One output of every type, each with keys of its own.
fn outputs() -> Value {
    let output = |kind: &str, without: &[&str], options: Value| {
        let mut output = Keys::fresh().output();
        (output["name"], output["type"]) = (kind.into(), kind.into());
        if options != Value::Null {
            output["options"] = options;
        }
        for key in without {
            output.as_object_mut().unwrap().remove(*key);
        }
        output
    };
    json!([
        output("identity", &[], Value::Null),
        output("ssh", &["tls"], Value::Null),
        output("application", &["ssh"], json!({"app": "shop"})),
        output("database", &["ssh"], json!({"service": "orders", "database": "main", "user": "reader"})),
        output("kubernetes", &["ssh"], json!({"cluster": "prod"})),
        output("ssh-host", &["tls"], json!({"principals": "web.example.com"})),
        output("jwt", &["ssh"], json!({"audience": "sts.amazonaws.com"})),
    ])
}

/// An answer with what is signed in the place of certificates: all but the nonce and the signatures.
fn signed(answer: &Value) -> Value {
    let mut answer = answer.clone();
    if let Some(list) = answer["revoked_hosts"].as_str() {
        let list = machine_id::krl::read(&STANDARD.decode(list).unwrap()).unwrap();
        answer["revoked_hosts"] = format!("{:?}", list.serials).into();
    }
    for output in answer["outputs"].as_array_mut().unwrap() {
        if let Some(text) = output["ssh_certificate"].as_str() {
            let one = ssh_key::Certificate::from_openssh(text).unwrap();
            output["ssh_certificate"] = format!(
                "{:?} {:?} {} {} {:?} {} {} {:?} {:?} {:?}",
                one.public_key(),
                one.cert_type(),
                one.serial(),
                one.key_id(),
                one.valid_principals(),
                one.valid_after(),
                one.valid_before(),
                one.critical_options(),
                one.extensions(),
                one.signature_key(),
            )
            .into();
        }
        if let Some(chain) = output["tls_certificate_chain"].as_str() {
            let all: Vec<String> = CertificateDer::pem_slice_iter(chain.as_bytes())
                .map(|der| {
                    format!("{:?}", parse_x509_certificate(&der.unwrap()).unwrap().1.tbs_certificate.as_ref())
                })
                .collect();
            output["tls_certificate_chain"] = all.into();
        }
        if let Some(token) = output["jwt"].as_str() {
            output["jwt"] = claims_of(token).into();
        }
    }
    answer
}

#[test]
fn every_type_of_output_is_given_again_as_it_was() {
    let world = World::with_policy(|policy| with_role(&policy));
    let token = world.issuer.token("github", &world.authority.url()).mint();
    let request = client::request("github-deploy", "github", &token, outputs());
    let ask = || world.authority.client().exchange(&request).granted();
    let first = ask();
    assert_eq!(first["outputs"].as_array().unwrap().len(), machine_id::output::TYPES.len());
    let second = ask();
    assert_eq!(signed(&second), signed(&first));
    assert_ne!(second, first, "signatures and nonces are new");
}

/// What is given again is what the policy gives now, or nothing.
#[test]
fn a_policy_that_was_changed_meanwhile_is_in_force() {
    let world = World::with_policy(|policy| with_role(&policy));
    let token = world.issuer.token("github", &world.authority.url()).mint();
    let keys = Keys::fresh();
    let request = keys.request("github-deploy", "github", &token);
    let ask = || world.authority.client().exchange(&request);
    let first = ask().granted();
    let policy = with_role(&policies::basic(&world.issuer));
    for other in [
        policy.replace("max_session_ttl: 2h", "max_session_ttl: 5m"),
        policy.replace("values: [ubuntu]", "values: [debian]"),
    ] {
        assert_ne!(other, policy);
        world.authority.write_policy(&other);
        world.authority.hup();
        let refused = wait_for("the other policy", || Some(ask()).filter(|answer| answer.status != 200));
        refused.denial(401);
        world.authority.write_policy(&policy);
        world.authority.hup();
        let again = wait_for("the policy as it was", || Some(ask()).filter(|answer| answer.status == 200));
        assert_eq!(signed(&again.granted()), signed(&first));
    }
    let issued = world.authority.audit().into_iter().filter(|event| event["event"] == "issued").count();
    assert_eq!(issued, 1);
}
