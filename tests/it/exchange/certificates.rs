//! What is in the certificates, as OpenSSH, OpenSSL and two parsers read it.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use x509_parser::prelude::{FromDer as _, GeneralName, ParsedExtension, X509Certificate};

use super::Bench;
use crate::support::client::{self, Keys};
use crate::support::{fixture, now, process};

const PROVENANCE: &str = "github:octo-org/octo-repo@refs/heads/main run 20143266074 attempt 1";

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no {pointer} in {value}"))
}

fn ssh_certificate(granted: &Value) -> ssh_key::Certificate {
    ssh_key::Certificate::from_openssh(text(granted, "/outputs/0/ssh_certificate")).unwrap()
}

/// The leaf of the chain, in DER.
fn leaf(granted: &Value) -> Vec<u8> {
    let chain = text(granted, "/outputs/0/tls_certificate_chain");
    CertificateDer::from_pem_slice(chain.as_bytes()).unwrap().to_vec()
}

#[test]
fn the_ssh_certificate_is_what_was_granted() {
    let bench = Bench::start();
    let keys = Keys::fresh();
    let granted = bench.grant(&keys);
    let certificate = ssh_certificate(&granted);
    let ca = process::succeed(&mut bench.authority.command(["export", "ssh-user-ca"]));
    let ca = ssh_key::PublicKey::from_openssh(ca.trim()).unwrap();
    certificate.validate(&[ca.fingerprint(ssh_key::HashAlg::Sha256)]).expect("the user CA's signature");
    assert!(certificate.cert_type().is_user());
    assert_eq!(certificate.serial().to_string(), text(&granted, "/outputs/0/serial"));
    assert!(certificate.serial() < 1 << 63);
    assert_eq!(certificate.key_id(), format!("deployer github-deploy {PROVENANCE}"));
    assert_eq!(ssh_key::PublicKey::from(certificate.public_key().clone()).to_bytes().unwrap(), keys.ssh_blob);
    let mut principals = certificate.valid_principals().to_vec();
    principals.sort_unstable();
    assert_eq!(principals, ["deploy", "ubuntu"]);
    assert!(certificate.critical_options().is_empty());
    let extensions: Vec<&String> = certificate.extensions().keys().collect();
    assert!(extensions.contains(&&"permit-pty".to_owned()), "{extensions:?}");
    assert!(!extensions.contains(&&"permit-agent-forwarding".to_owned()), "{extensions:?}");
    let (after, before) = (unix(certificate.valid_after()), unix(certificate.valid_before()));
    assert!((now() - 90..=now() - 60).contains(&after), "one minute back");
    assert_eq!(machine_id::clock::parse_rfc3339(text(&granted, "/expires_at")), Some(before));
    assert!((now() + 570..=now() + 600).contains(&before));
}

fn unix(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap()
}

#[test]
fn ssh_keygen_reads_the_certificate() {
    let bench = Bench::start();
    let granted = bench.grant(&Keys::fresh());
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("key-cert.pub");
    std::fs::write(&file, text(&granted, "/outputs/0/ssh_certificate")).unwrap();
    let said =
        process::succeed(process::command("ssh-keygen").env("TZ", "UTC").arg("-L").arg("-f").arg(&file));
    for line in [
        "Type: ssh-ed25519-cert-v01@openssh.com user certificate".to_owned(),
        format!("Key ID: \"deployer github-deploy {PROVENANCE}\""),
        format!("Serial: {}", text(&granted, "/outputs/0/serial")),
        format!("to {}", text(&granted, "/expires_at").trim_end_matches('Z')),
        "permit-pty".to_owned(),
        "Critical Options: (none)".to_owned(),
    ] {
        assert!(said.contains(&line), "{line:?} is not in\n{said}");
    }
}

#[test]
fn role_options_reach_the_certificate() {
    let bench = Bench::start();
    // Without an X.509 certificate, which no address binds.
    let keys = Keys::fresh();
    let mut output = keys.output();
    output["type"] = "ssh".into();
    output.as_object_mut().unwrap().remove("tls");
    let token = bench.unbound().mint();
    let pinned = client::request("github-pinned", "github", &token, json!([output]));
    let granted = bench.authority.client().exchange(&pinned).granted();
    let certificate = ssh_certificate(&granted);
    let options: Vec<(&str, &str)> =
        certificate.critical_options().iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert!(options.contains(&("force-command", "/usr/bin/uptime")), "{options:?}");
    let pinned = options.iter().find(|(name, _)| *name == "source-address").expect("source-address");
    assert!(matches!(pinned.1, "127.0.0.1" | "127.0.0.1/32"), "{options:?}");
    let forwarding = ssh_certificate(&bench.ask("github-brief", &Keys::fresh()).granted());
    assert!(forwarding.extensions().iter().any(|(name, _)| name == "permit-agent-forwarding"));
    // The strictest of two roles wins.
    let both = ssh_certificate(&bench.ask("github-both", &Keys::fresh()).granted());
    assert!(!both.extensions().iter().any(|(name, _)| name == "permit-agent-forwarding"));
}

#[test]
fn the_tls_certificate_is_what_was_granted() {
    let bench = Bench::start();
    let keys = Keys::fresh();
    let granted = bench.grant(&keys);
    let der = leaf(&granted);
    let (rest, certificate) = X509Certificate::from_der(&der).unwrap();
    assert!(rest.is_empty());
    assert_eq!(certificate.public_key().raw, keys.spki());
    assert_eq!(
        certificate.raw_serial_as_string().replace(':', ""),
        hex(text(&granted, "/outputs/0/tls_serial"))
    );
    let validity = certificate.validity();
    assert!((now() - 90..=now() - 60).contains(&validity.not_before.timestamp()), "one minute back");
    assert!((now() + 570..=now() + 600).contains(&validity.not_after.timestamp()));
    assert_eq!(certificate.subject().iter_common_name().count(), 1);
    let (mut usage, mut names, mut fulcio) = (Vec::new(), Vec::new(), Vec::new());
    for extension in certificate.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::BasicConstraints(constraints) => assert!(!constraints.ca),
            ParsedExtension::KeyUsage(flags) => {
                assert!(flags.digital_signature() && !flags.key_cert_sign() && !flags.crl_sign());
            }
            ParsedExtension::ExtendedKeyUsage(found) => {
                assert!(found.client_auth && !found.server_auth && !found.any && found.other.is_empty());
                usage.push("client");
            }
            ParsedExtension::SubjectAlternativeName(alternatives) => {
                names.extend(alternatives.general_names.iter().map(|name| match name {
                    GeneralName::URI(uri) => (*uri).to_owned(),
                    other => panic!("{other:?}"),
                }));
            }
            _ => {
                let oid = extension.oid.to_id_string();
                if let Some(arc) = oid.strip_prefix("1.3.6.1.4.1.57264.1.") {
                    fulcio.push((arc.to_owned(), utf8(extension.value)));
                }
            }
        }
    }
    assert_eq!(usage, ["client"]);
    assert_eq!(names, ["spiffe://id.test/bot/deployer"]);
    let host = bench.issuer.host();
    let claims = crate::support::template::claims("github");
    for (arc, expected) in [
        ("8", bench.issuer.ghes()),
        ("9", format!("https://{host}/octo-org/ci/.github/workflows/oidc.yml@refs/heads/main")),
        ("10", claims["job_workflow_sha"].as_str().unwrap().to_owned()),
        ("11", "github-hosted".to_owned()),
        ("12", format!("https://{host}/octo-org/octo-repo")),
        ("13", claims["sha"].as_str().unwrap().to_owned()),
        ("14", "refs/heads/main".to_owned()),
        ("15", "740074".to_owned()),
        ("16", format!("https://{host}/octo-org")),
        ("17", "650065".to_owned()),
        ("18", format!("https://{host}/octo-org/octo-repo/.github/workflows/deploy.yml@refs/heads/main")),
        ("19", claims["workflow_sha"].as_str().unwrap().to_owned()),
        ("20", "push".to_owned()),
        ("21", format!("https://{host}/octo-org/octo-repo/actions/runs/20143266074/attempts/1")),
        ("22", "private".to_owned()),
        ("23", "production".to_owned()),
    ] {
        assert!(
            fulcio.contains(&(arc.to_owned(), expected.clone())),
            "{arc} {expected} is not in {fulcio:?}"
        );
    }
}

/// The text of a DER UTF8String (X.690), as Fulcio's newer extensions are encoded.
fn utf8(der: &[u8]) -> String {
    assert_eq!(der[0], 0x0c, "a UTF8String");
    let start = if der[1] < 0x80 { 2 } else { 2 + usize::from(der[1] & 0x7f) };
    String::from_utf8(der[start..].to_vec()).unwrap()
}

fn hex(decimal: &str) -> String {
    let digits = format!("{:x}", decimal.parse::<u64>().unwrap());
    if digits.len() % 2 == 0 { digits } else { format!("0{digits}") }
}

#[test]
fn openssl_verifies_the_certificate_for_clients_alone() {
    let bench = Bench::start();
    let granted = bench.grant(&Keys::fresh());
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("tls.crt");
    std::fs::write(&file, text(&granted, "/outputs/0/tls_certificate_chain")).unwrap();
    let verify = |purpose: &str| {
        let mut command = process::command("openssl");
        command.args(["verify", "-x509_strict", "-purpose", purpose, "-CAfile"]);
        process::run(command.arg(bench.authority.ca_file()).arg("-untrusted").arg(&file).arg(&file))
    };
    let client = verify("sslclient");
    assert!(client.status.success(), "{}", String::from_utf8_lossy(&client.stderr));
    assert!(!verify("sslserver").status.success());
    assert!(!verify("smimesign").status.success());
}

#[test]
fn nothing_but_the_key_is_taken_from_a_csr() {
    let bench = Bench::start();
    let mut output = Keys::fresh().output();
    output["tls"]["csr"] = fixture("keys/p256-ca.csr").into();
    let request = client::request("github-deploy", "github", &bench.unbound().mint(), json!([output]));
    let granted = bench.authority.client().exchange(&request).granted();
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("tls.crt");
    std::fs::write(&file, text(&granted, "/outputs/0/tls_certificate_chain")).unwrap();
    let said =
        process::succeed(process::command("openssl").args(["x509", "-noout", "-text", "-in"]).arg(&file));
    for hostile in [
        "CA:TRUE",
        "evil",
        "system:masters",
        "CN = root",
        "Certificate Sign",
        "CRL Sign",
        "TLS Web Server",
        "Code Signing",
    ] {
        assert!(!said.contains(hostile), "{hostile} is in\n{said}");
    }
    assert!(said.contains("TLS Web Client Authentication"), "{said}");
    assert!(said.contains("URI:spiffe://id.test/bot/deployer"), "{said}");
}

#[test]
fn hostile_claims_stay_text() {
    let bench = Bench::start();
    let keys = Keys::fresh();
    let token = bench
        .bound(&keys)
        .claim("ref", format!("refs/heads/x\n\u{1b}[2J run 1\u{2003}attempt\u{a0}1{}", "x".repeat(300)))
        .claim("workflow_ref", "a,b\"'`$(id)\u{0}");
    let granted = bench.present(&token.mint(), &keys).granted();
    let key_id = ssh_certificate(&granted).key_id().to_owned();
    assert!(!key_id.contains(char::is_control), "{key_id:?}");
    // Neither written by the branch nor pushed out by it.
    let words: Vec<&str> = key_id.split(' ').collect();
    assert_eq!(
        (words.len(), &words[3..]),
        (7, ["run", "20143266074", "attempt", "1"].as_slice()),
        "{key_id}"
    );
    let issuance = bench.authority.issuance(text(&granted, "/issuance_id"));
    assert!(!issuance["provenance"].as_str().unwrap().contains(char::is_control), "{issuance}");
    assert_eq!(
        Some(issuance["provenance"].as_str().unwrap()),
        key_id.strip_prefix("deployer github-deploy ")
    );
    let told = process::succeed(&mut bench.authority.command(["audit"]));
    assert!(told.contains(" run 20143266074 attempt 1\" serials="), "{told}");
}

#[test]
fn everybody_hears_of_the_same_cas() {
    let bench = Bench::start();
    let granted = bench.grant(&Keys::fresh());
    let trust = bench.authority.client().get("/v1/trust").granted();
    assert_eq!(granted["trust"], trust);
    assert_eq!(granted["cluster"], "id.test");
    for (what, list) in
        [("ssh-user-ca", "ssh_user_cas"), ("ssh-host-ca", "ssh_host_cas"), ("tls-ca", "tls_cas")]
    {
        let exported = process::succeed(&mut bench.authority.command(["export", what]));
        assert_eq!(trust[list].as_array().map(Vec::len), Some(1), "{trust}");
        assert_eq!(exported.trim(), text(&trust, &format!("/{list}/0")).trim(), "{what}");
    }
    let pin = process::succeed(&mut bench.authority.command(["export", "tls-ca-pin"]));
    let hex = pin.trim().strip_prefix("sha256:").unwrap_or_else(|| panic!("{pin}"));
    assert!(hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()), "{pin}");
    let known_hosts = process::succeed(&mut bench.authority.command(["export", "known-hosts"]));
    assert!(known_hosts.starts_with("@cert-authority *"), "{known_hosts}");
}

#[test]
fn the_record_says_what_was_issued_and_for_which_run() {
    let bench = Bench::start();
    let granted = bench.grant(&Keys::fresh());
    let record = bench.authority.issuance(text(&granted, "/issuance_id"));
    for (member, expected) in [
        ("bot", "deployer"),
        ("token", "github-deploy"),
        ("join_method", "github"),
        ("provenance", PROVENANCE),
    ] {
        assert_eq!(record[member], expected, "{record}");
    }
    let serials = record["serials"].to_string();
    for pointer in ["/outputs/0/serial", "/outputs/0/tls_serial"] {
        assert!(serials.contains(text(&granted, pointer)), "{record}");
    }
}
