use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use ssh_key::certificate::Builder;
use ssh_key::{Algorithm, PrivateKey, private::Ed25519Keypair};

use super::*;
use crate::output::KeyKinds;
use crate::secret::Secret;
use crate::suite::KeyType;
use crate::wire::TrustAnchors;

const URL: &str = "https://id.example.com";

fn keys() -> JobKeys {
    JobKeys::generate("identity", KeyKinds { ssh: true, tls: true, host: false }, KeyType::Ed25519, None)
        .unwrap()
}

fn ssh_certificate(keys: &JobKeys, kind: CertType, principals: &[&str]) -> String {
    let ca = PrivateKey::from(Ed25519Keypair::from_seed(&[7; 32]));
    let public = ssh_key::PublicKey::from_bytes(&keys.ssh.as_ref().unwrap().blob).unwrap();
    let mut builder = Builder::new([1; 16], public.key_data().clone(), 1, 4_000_000_000).unwrap();
    builder.cert_type(kind).unwrap();
    if principals.is_empty() {
        builder.all_principals_valid().unwrap();
    }
    for principal in principals {
        builder.valid_principal(*principal).unwrap();
    }
    assert_eq!(ca.algorithm(), Algorithm::Ed25519);
    builder.sign(&ca).unwrap().to_openssh().unwrap()
}

fn chain(keys: &JobKeys, ca: bool) -> String {
    let issuer = Issuer::new(CertificateParams::default(), KeyPair::generate().unwrap());
    let spki = rcgen::SubjectPublicKeyInfo::from_der(&keys.tls.as_ref().unwrap().spki).unwrap();
    let mut params = CertificateParams::default();
    if ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    params.signed_by(&spki, &issuer).unwrap().pem()
}

fn answer(keys: &JobKeys) -> ExchangeResponse {
    ExchangeResponse {
        issuance_id: "i-1".into(),
        cluster: "c".into(),
        bot: "b".into(),
        expires_at: "2090-01-01T00:00:00Z".into(),
        outputs: vec![OutputResponse {
            name: "identity".into(),
            ssh_certificate: Some(ssh_certificate(keys, CertType::User, &["deploy"])),
            tls_certificate_chain: Some(chain(keys, false)),
            jwt: None,
            serial: "1".into(),
            tls_serial: None,
            principals: vec!["root".into()],
            roles: vec![],
        }],
        trust: TrustAnchors {
            ssh_host_cas: vec![keys.ssh.as_ref().unwrap().public_line.clone()],
            ssh_user_cas: vec![],
            tls_cas: vec![chain(keys, true)],
        },
        warnings: vec![],
        revoked_hosts: None,
        leaves: Vec::new(),
        instance: None,
    }
}

#[test]
fn a_good_answer_passes_with_the_certificates_own_principals() {
    let keys = keys();
    let issuance = check(answer(&keys), std::slice::from_ref(&keys), URL).unwrap();
    assert_eq!(issuance.response.outputs[0].principals, ["deploy"]);
}

type Mutation<'a> = (&'a str, &'a dyn Fn(&mut ExchangeResponse));

#[test]
fn each_mistake_is_refused() {
    let (keys, other) = (keys(), keys());
    let mutations: &[Mutation<'_>] = &[
        ("other outputs", &|a| a.outputs.clear()),
        ("other outputs", &|a| a.outputs[0].name = "x".into()),
        ("not plain", &|a| a.issuance_id = "a\nb".into()),
        ("not plain", &|a| a.bot = String::new()),
        ("not a time", &|a| a.expires_at = "soon".into()),
        ("no X.509 certificate", &|a| a.outputs[0].tls_certificate_chain = None),
        ("another key", &|a| {
            a.outputs[0].ssh_certificate = Some(ssh_certificate(&other, CertType::User, &["d"]))
        }),
        ("not a user's", &|a| {
            a.outputs[0].ssh_certificate = Some(ssh_certificate(&keys, CertType::Host, &["d"]))
        }),
        ("no principals", &|a| {
            a.outputs[0].ssh_certificate = Some(ssh_certificate(&keys, CertType::User, &[]))
        }),
        ("not one line", &|a| a.outputs[0].ssh_certificate.as_mut().unwrap().insert_str(0, "evil\n")),
        ("SSH certificate:", &|a| a.outputs[0].ssh_certificate = Some("ssh-ed25519 AAAA".into())),
        ("another key", &|a| a.outputs[0].tls_certificate_chain = Some(chain(&other, false))),
        ("is a CA's", &|a| a.outputs[0].tls_certificate_chain = Some(chain(&keys, true))),
        ("not certificates", &|a| a.outputs[0].tls_certificate_chain = Some("x".into())),
        ("not certificates", &|a| a.outputs[0].tls_certificate_chain.as_mut().unwrap().insert_str(0, "x\n")),
        ("not an SSH public key", &|a| a.trust.ssh_host_cas = vec!["x\n@cert-authority * y".into()]),
        ("list of revoked hosts", &|a| a.revoked_hosts = Some("AAAA".into())),
        ("list of revoked hosts", &|a| a.revoked_hosts = Some("not base64".into())),
        ("a CA:", &|a| a.trust.tls_cas = vec!["-----BEGIN PRIVATE KEY-----".into()]),
    ];
    for (says, mutate) in mutations {
        let mut wrong = answer(&keys);
        mutate(&mut wrong);
        let error = check(wrong, std::slice::from_ref(&keys), URL)
            .err()
            .unwrap_or_else(|| panic!("{says} passes"))
            .to_string();
        assert!(error.contains(says), "{says}: {error}");
    }
}

#[test]
fn an_identity_without_logins_has_its_tls_half_alone() {
    let keys = keys();
    let mut half = answer(&keys);
    half.outputs[0].ssh_certificate = None;
    let issuance = check(half, std::slice::from_ref(&keys), URL).unwrap();
    assert!(issuance.response.outputs[0].principals.is_empty());
}

fn token(header: &serde_json::Value, claims: &serde_json::Value, signature: &[u8]) -> String {
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    format!(
        "{}.{}.{}",
        part(header.to_string().as_bytes()),
        part(claims.to_string().as_bytes()),
        part(signature)
    )
}

#[test]
fn a_token_is_the_one_that_was_asked_for() {
    use serde_json::json;
    let keys = JobKeys::generate("x", crate::output::JWT.keys, KeyType::Ed25519, None).unwrap();
    let keys = JobKeys { jwt: Some(("sts.amazonaws.com".into(), None)), ..keys };
    let header = json!({"alg": "ES256", "kid": "k", "typ": "JWT"});
    let claims = json!({"iss": URL, "aud": "sts.amazonaws.com", "exp": 3_786_912_000_i64});
    let answer = |token: Option<String>| {
        let mut answer = answer(&self::keys());
        let output = &mut answer.outputs[0];
        (output.name, output.ssh_certificate, output.tls_certificate_chain) = ("x".into(), None, None);
        output.jwt = token.map(Secret::new);
        answer
    };
    let ask = |token: Option<String>| check(answer(token), std::slice::from_ref(&keys), URL);
    let good = ask(Some(token(&header, &claims, &[0; 64]))).unwrap();
    assert_eq!(good.response.outputs[0].principals, ["sts.amazonaws.com"]);
    let with = |name: &str, value: serde_json::Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        Some(token(&header, &claims, &[0; 64]))
    };
    for (wrong, says) in [
        (None, "no token"),
        (Some("a.b".to_owned()), "not one"),
        (Some("e30.e30".to_owned()), "not one"),
        (Some("!.e30.AA".to_owned()), "not one"),
        (Some(token(&json!({"alg": "none"}), &claims, &[])), "not signed"),
        (Some(token(&json!({"alg": "HS256"}), &claims, &[0; 32])), "not signed"),
        (Some(token(&header, &claims, &[])), "not signed"),
        (with("aud", json!("sts.amazonaws.com.cn")), "another audience"),
        (with("aud", json!(["sts.amazonaws.com", "x"])), "another audience"),
        (with("iss", json!("https://id.example.com/")), "another issuer"),
        (with("iss", json!(null)), "another issuer"),
        (with("exp", json!(1)), "ends before"),
        (with("exp", json!("3786912000")), "ends before"),
    ] {
        let error = ask(wrong).err().unwrap_or_else(|| panic!("{says} passes")).to_string();
        assert!(error.contains(says) && !error.contains("e30"), "{says}: {error}");
    }
    let mut both = answer(Some(token(&header, &claims, &[0; 64])));
    both.outputs[0].tls_certificate_chain = Some(chain(&keys, false));
    assert!(check(both, std::slice::from_ref(&keys), URL).err().unwrap().to_string().contains("beside"));
}
