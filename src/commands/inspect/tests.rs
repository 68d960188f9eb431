use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::*;
use crate::destination::manifest::tests::manifest;
use crate::once::exchange::keys::JobKeys;
use crate::output::KeyKinds;
use crate::suite::KeyType;

fn both(text: &str) -> (String, String) {
    let items = files::inspect(text, 1000).unwrap();
    (in_words(&items), as_json(&items))
}

fn jwt() -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let claims = r#"{"iss":"https://i","exp":1300.5,"sub":"a\u001b[31m\nb","list":["x","y"],"n":{"k":true}}"#;
    format!("{}.{}.{}", part(r#"{"alg":"RS256","kid":"k"}"#), part(claims), part("the signature"))
}

#[test]
fn a_token_without_its_signature() {
    let token = jwt();
    let (words, json) = both(&token);
    assert!(
        words.contains("  signature: not verified, not shown\n  valid until: 1970-01-01T00:21:40Z (in 5m)\n"),
        "{words}"
    );
    assert!(
        words.contains("    sub: a\\u{1b}[31m\\u{a}b\n") && words.contains("    list: x, y\n"),
        "{words}"
    );
    let signature = token.rsplit('.').next().unwrap();
    for text in [&words, &json] {
        assert!(!text.contains(signature) && !text.contains("the signature"), "{text}");
    }
    let parsed: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(parsed["claims"]["exp"], 1300.5);
    assert!(!words.contains('\u{1b}') && !json.contains('\u{1b}'));
}

#[test]
fn keys_by_type_and_fingerprint_alone() {
    let keys = JobKeys::generate("x", KeyKinds { ssh: true, tls: true, host: false }, KeyType::Ed25519, None)
        .unwrap();
    let (ssh, tls) = (keys.ssh.unwrap(), keys.tls.unwrap());
    let openssh = ssh.openssh().unwrap().unwrap();
    let identity =
        format!("{}{}\n{}@cert-authority * {}\n", &*openssh, ssh.public_line, &*tls.pem(), ssh.public_line);
    let (words, json) = both(&identity);
    for text in [&words, &json] {
        for line in openssh.lines().chain(tls.pem().lines()) {
            assert!(!text.contains(line), "{text}");
        }
    }
    assert!(words.starts_with("SSH private key\n  type: ssh-ed25519\n  fingerprint: SHA256:"), "{words}");
    assert!(words.contains("private key\n  type: ECDSA P-256\n  fingerprint: sha256:"), "{words}");
    assert!(words.contains("trusted SSH host CA\n  type: ssh-ed25519\n"), "{words}");
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap().as_array().unwrap().len(), 4);
}

#[test]
fn a_certificate_in_words() {
    let mut parameters =
        rcgen::CertificateParams::new(vec!["a.example.com".into(), "127.0.0.1".into()]).unwrap();
    parameters.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = parameters.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
    let (words, _) = both(&certificate.pem());
    assert!(
        words.contains("  names: DNS:a.example.com, IP:127.0.0.1\n  uses: client\n  is ca: no\n"),
        "{words}"
    );
}

#[test]
fn a_manifest_alone() {
    let (words, _) = both(&manifest(&["key"]).to_json());
    assert!(words.contains("  bot: b\n") && words.contains("(in "), "{words}");
}

#[test]
fn bad_input_is_an_error() {
    for bad in [
        "",
        "\n \n",
        "hello",
        "{}",
        "a.b.c",
        "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----",
        "ssh-ed25519 !!",
        "ssh-ed25519-cert-v01@openssh.com AAAA",
        "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----",
        "-----BEGIN X-----",
    ] {
        assert!(files::inspect(bad, 0).is_err(), "{bad:?}");
    }
}

#[test]
fn destinations_and_paths() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().to_str().unwrap();
    let args = |path: &str| Args { path: path.into(), format: Format::Json };
    for bad in [path, "/no/such/file", "/dev/null"] {
        assert_eq!(run(&args(bad)).unwrap_err().kind(), Kind::Usage, "{bad}");
    }
    std::fs::write(temp.path().join("manifest.json"), manifest(&["key-cert.pub"]).to_json()).unwrap();
    let items = destinations::inspect(temp.path(), 0).unwrap();
    assert_eq!(items[1].what, "unreadable file");
}
