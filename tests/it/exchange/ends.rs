//! Where the TLS CA or a certificate ends: what is signed, what is refused, and who is told.

use std::process::Output;

use machine_id::authority::keys::{CaKeys, KeyPlace};
use machine_id::suite::Suite;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use x509_parser::parse_x509_certificate;

use super::Bench;
use crate::support::authority::CLUSTER;
use crate::support::client::{self, Client, Keys};
use crate::support::{now, process};

const DAY: i64 = 86_400;
/// How long a TLS CA lives.
const CA_LIFE: i64 = 3650 * DAY;

/// An authority whose TLS CA has so many seconds left; not running.
fn stopped(left: i64) -> (Bench, i64) {
    let mut bench = Bench::start();
    assert!(bench.authority.terminate().success());
    let (keys, made) = (bench.authority.data_dir().join("keys"), now() - CA_LIFE + left);
    std::fs::remove_dir_all(&keys).unwrap();
    let place = KeyPlace::File(keys.clone());
    CaKeys::create(&place, &place.certificate(&keys), CLUSTER, (Suite::Modern, None), made).unwrap();
    // It is no other authority, but for what the store knows of its keys.
    let store = rusqlite::Connection::open(bench.authority.data_dir().join("authority.db")).unwrap();
    store.execute("DELETE FROM cas", []).unwrap();
    (bench, made + CA_LIFE)
}

/// Has it serve a certificate of its host's, from files; who trusts that one.
fn with_files(bench: &Bench, until: i64) -> Client {
    let data = bench.authority.data_dir();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let at = |unix| time::OffsetDateTime::from_unix_timestamp(unix).unwrap();
    (params.not_before, params.not_after) = (at(now() - 365 * DAY), at(until));
    let pem = params.self_signed(&key).unwrap().pem();
    std::fs::write(data.join("server.crt"), &pem).unwrap();
    process::succeed(
        process::command("install").args(["-m", "600", "/dev/null"]).arg(data.join("server.key")),
    );
    std::fs::write(data.join("server.key"), key.serialize_pem()).unwrap();
    let file = data.join("authority.yaml");
    let config = process::read(&file);
    if !config.contains("tls:") {
        std::fs::write(file, config + "tls: {cert_file: server.crt, key_file: server.key}\n").unwrap();
    }
    Client::trusting(bench.authority.address(), &pem)
}

fn end_of(pem: &str) -> i64 {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    parse_x509_certificate(&der).unwrap().1.validity().not_after.timestamp()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn sign_server(bench: &Bench, ttl: &str) -> (Output, TempDir) {
    let out = TempDir::new().unwrap();
    let mut command = bench.authority.command(["sign-server", "--name", "db.test", "--ttl", ttl]);
    (process::run(command.arg("--out").arg(out.path().join("tls"))), out)
}

fn sign_host(bench: &Bench) -> Output {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("key.pub"), Keys::fresh().ssh).unwrap();
    let mut command = bench.authority.command(["sign-host", "--principal", "web.test"]);
    process::run(command.arg(folder.path().join("key.pub")))
}

fn ask(bench: &Bench, client: &Client, kind: &str) -> client::Response {
    let keys = Keys::fresh();
    let mut output = keys.output();
    output["type"] = kind.into();
    if kind == "ssh" {
        output.as_object_mut().unwrap().remove("tls");
    }
    let token = bench.unbound().mint();
    client.exchange(&client::request("github-deploy", "github", &token, json!([output])))
}

#[test]
fn a_ca_with_little_time_left_signs_for_that_time_and_everybody_is_told() {
    let (mut bench, end) = stopped(300);
    let ends = format!("the TLS CA ends at {}", machine_id::clock::rfc3339(end));
    bench.authority.restart();
    bench.authority.wait_for_stderr(&format!("warning: {ends}"));
    let ca = process::succeed(&mut bench.authority.command(["export", "tls-ca"]));
    let client = Client::trusting(bench.authority.address(), &ca);
    let ready = client.get("/readyz").granted();
    let told = format!("{ends}: 0 days left");
    assert_eq!((&ready["status"], &ready["warnings"]), (&json!("ready"), &json!([told])));
    assert_eq!(
        (&ready["expires"][0]["what"], &ready["expires"][0]["days_left"]),
        (&json!("the TLS CA"), &json!(0))
    );

    let granted = ask(&bench, &client, "identity").granted();
    let output = &granted["outputs"][0];
    assert_eq!(end_of(output["tls_certificate_chain"].as_str().unwrap()), end);
    assert_eq!(granted["expires_at"], machine_id::clock::rfc3339(end));
    assert!(granted["warnings"].to_string().contains("TLS CA ends at"), "{granted}");
    // An SSH CA has no end.
    let ssh = ssh_key::Certificate::from_openssh(output["ssh_certificate"].as_str().unwrap()).unwrap();
    assert!(i64::try_from(ssh.valid_before()).unwrap() > end + 200);
    let record = bench.authority.issuance(granted["issuance_id"].as_str().unwrap());
    assert_eq!(record["expires_at"], granted["expires_at"], "{record}");
    let ssh_alone = ask(&bench, &client, "ssh").granted();
    assert_eq!(ssh_alone.get("warnings"), None, "{ssh_alone}");

    let (output, out) = sign_server(&bench, "90d");
    assert!(output.status.success() && said(&output).contains("before --ttl does"), "{}", said(&output));
    assert_eq!(end_of(&process::read(out.path().join("tls/server.crt"))), end);
    for output in [
        sign_server(&bench, "1m").0,
        sign_host(&bench),
        bench.authority.run(["export", "tls-ca"]),
        bench.authority.run(["export", "tls-ca-pin"]),
    ] {
        assert!(
            output.status.success() && said(&output).contains(&format!("warning: {told}\nhint: ")),
            "{output:?}"
        );
    }
    let silent = bench.authority.run(["export", "ssh-user-ca"]);
    assert!(silent.status.success() && silent.stderr.is_empty(), "{silent:?}");
    let check = bench.authority.run(["check"]);
    assert!(
        check.status.success() && said(&check).starts_with(&format!("warning: {told}\n  hint: ")),
        "{check:?}"
    );
    let check = bench.authority.run(["check", "--format", "json"]);
    let json: Value = serde_json::from_slice(&check.stdout).unwrap();
    assert_eq!(
        (&json["certificates"][0]["message"], &json["certificates"][0]["fault"]),
        (&json!(told), &json!(false))
    );
    assert_eq!(json["expires"][0]["at"], machine_id::clock::rfc3339(end));
}

#[test]
fn a_ca_that_has_ended_signs_nothing_more() {
    let (mut bench, end) = stopped(-60);
    let ended = format!("the TLS CA ended at {}", machine_id::clock::rfc3339(end));
    let refused = format!("error: {ended}, and signs nothing now\nhint: this machine's clock says ");
    let address = bench.authority.address().to_string();
    for output in [bench.authority.run(["serve", "--listen", &address]), sign_server(&bench, "1h").0] {
        assert!(output.status.code() == Some(2) && said(&output).contains(&refused), "{output:?}");
    }
    let check = bench.authority.run(["check"]);
    assert_eq!(check.status.code(), Some(2), "{check:?}");
    assert!(said(&check).starts_with(&format!("error: {ended}\n  hint: ")), "{check:?}");
    for output in [bench.authority.run(["export", "tls-ca"]), sign_host(&bench)] {
        assert!(
            output.status.success() && said(&output).contains(&format!("warning: {ended}\n")),
            "{output:?}"
        );
    }

    // With a certificate of another CA's it can be reached, and SSH goes on.
    let client = with_files(&bench, now() + 365 * DAY);
    bench.authority.restart();
    bench.authority.wait_for_stderr(&format!("warning: {ended}"));
    assert_eq!(client.get("/readyz").problem(503)["detail"], ended);
    ask(&bench, &client, "ssh").granted();
    let answer = ask(&bench, &client, "identity");
    // Longer than any job waits.
    assert_eq!(answer.header("retry-after"), Some("3600"));
    let problem = answer.problem(503);
    assert_eq!(
        (&problem["type"], &problem["detail"]),
        (&json!("urn:machine-id:ca-not-valid"), &json!(ended))
    );
}

#[test]
fn a_certificate_in_files_that_has_ended_is_served_until_there_is_another_and_replaces_none() {
    let (mut bench, _) = stopped(CA_LIFE);
    let strict = with_files(&bench, now() - DAY);
    bench.authority.restart();
    bench.authority.wait_for_stderr("warning: the certificate in `cert_file` ended at ");
    assert!(strict.connect().is_err());
    let check = bench.authority.run(["check"]);
    assert!(check.status.code() == Some(2) && said(&check).contains("`cert_file` ended at "), "{check:?}");
    // Nobody has to say that they have changed.
    let client = with_files(&bench, now() + 365 * DAY);
    bench.authority.wait_for_stderr("certificate replaced");
    assert_eq!(client.get("/readyz").granted()["warnings"], Value::Null);
    with_files(&bench, now() - DAY);
    bench.authority.hup();
    bench.authority.wait_for_stderr(
        "certificate not replaced, the old one stays: the certificate in `cert_file` ended at ",
    );
    assert_eq!(client.get("/readyz").granted()["warnings"], Value::Null);
}

#[test]
fn the_end_of_what_operators_sign_is_in_the_log_and_in_what_check_says() {
    let mut bench = Bench::start();
    let (signed, _out) = sign_server(&bench, "90d");
    assert!(signed.status.success() && sign_host(&bench).status.success(), "{signed:?}");
    assert_eq!(bench.authority.client().get("/v1/revoked/tls.crl").status, 200);
    let ends = "warning: the TLS server certificate of db.test (serial ";
    let silent = said(&bench.authority.run(["check"]));
    assert!(!silent.contains("of db.test"), "{silent}");
    // How long the lists have is said at any time.
    assert!(silent.contains("the list of revoked X.509 certificates ends at "), "{silent}");
    bench.authority.restart_with_clock(now() + 80 * DAY);
    bench.authority.wait_for_stderr(ends);
    bench.authority.wait_for_stderr("warning: the SSH host certificate of web.test (serial ");
    assert!(bench.authority.terminate().success());
    // As if it were so long ago, for who has no clock that is held.
    let store = rusqlite::Connection::open(bench.authority.data_dir().join("authority.db")).unwrap();
    store
        .execute_batch(&format!(
            "DROP TRIGGER events_stay_the_same; UPDATE events SET time = time - {0} WHERE event = 'signed';
             UPDATE certificates SET expires = expires - {0} WHERE host IS NOT NULL",
            80 * DAY
        ))
        .unwrap();
    let check = bench.authority.run(["check"]);
    let text = said(&check);
    assert!(
        check.status.success() && text.contains(ends) && text.contains(": 9 days left\n  hint: sign it anew"),
        "{text}"
    );
    let check = bench.authority.run(["check", "--format", "json"]);
    let json: Value = serde_json::from_slice(&check.stdout).unwrap();
    let days = |what: &str| {
        let expires = json["expires"].as_array().unwrap();
        expires
            .iter()
            .find(|one| one["what"].as_str().unwrap().starts_with(what))
            .map(|one| one["days_left"].clone())
    };
    assert_eq!(days("the TLS server certificate of db.test"), Some(json!(9)), "{json}");
    assert_eq!(days("the SSH host certificate of web.test"), Some(json!(9)), "{json}");
}
