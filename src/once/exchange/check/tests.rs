use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use ssh_key::certificate::Builder;
use ssh_key::{Algorithm, PrivateKey, private::Ed25519Keypair};

use super::*;
use crate::output::KeyKinds;
use crate::suite::KeyType;
use crate::wire::TrustAnchors;

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
    let issuance = check(answer(&keys), std::slice::from_ref(&keys)).unwrap();
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
        let error = check(wrong, std::slice::from_ref(&keys))
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
    let issuance = check(half, std::slice::from_ref(&keys)).unwrap();
    assert!(issuance.response.outputs[0].principals.is_empty());
}
