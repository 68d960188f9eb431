//! KMS as it should be and as it should not, on loopback. `tests/it/keys/awskms.rs` has moto.

use std::net::TcpListener;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use ring::digest::{SHA256, digest};
use serde_json::Value;

use super::super::private::is_away;
use super::*;

mod made;
mod sigv4;
mod stand_in;

use stand_in::{ALIAS, Asked, KEY_ID, Reply, SECRET, Shared, StandIn, TOKEN, head, refused, reply};

/// Whatever goes wrong, nothing secret is told.
fn told(error: &Error) -> String {
    let told = format!("{error} {:?}", error.hints());
    for secret in [SECRET, TOKEN, "Signature="] {
        assert!(!told.contains(secret), "{told}");
    }
    told
}

#[test]
fn keys_sign_by_every_algorithm() {
    for algorithm in [Algorithm::Ed25519, Algorithm::EcdsaP256, Algorithm::EcdsaP384] {
        let kms = StandIn::good(algorithm);
        let store = kms.store();
        assert!(!store.is_local());
        assert_eq!(store.place("tls"), "the key alias/ca-tls in AWS KMS, region us-east-1");
        assert!(store.open("ssh-user").unwrap().is_none());
        let key = store.open("tls").unwrap().unwrap();
        assert_eq!((key.algorithm(), key.spki()), (algorithm, kms.shared.spki(0).as_slice()));
        let message = vec![7; 4096];
        let signature = key.sign(&message).unwrap();
        let spec = SPECS.iter().find(|spec| spec.algorithm == algorithm).unwrap();
        let public = UnparsedPublicKey::new(spec.verified_by, &key.spki()[spec.before.len()..]);
        public.verify(&message, &signature).unwrap();
        assert!(!format!("{store:?} {key:?}").contains(SECRET));
    }
    let long = StandIn::good(Algorithm::Ed25519).key().sign(&[0; 4097]).unwrap_err();
    assert!(long.kind() == Kind::Internal && told(&long).contains("no more than 4096 bytes"), "{long}");
}

#[test]
fn keys_of_rsa_are_read_and_their_signatures_verified() {
    // Made by `openssl`, as KMS's are: 3072 bits, and the exponent 65537.
    let spki = STANDARD.decode(include_str!("rsa.spki").replace('\n', "")).unwrap();
    let signature = include_str!("rsa.signature").replace('\n', "");
    let public = STANDARD.encode(&spki);
    let kms = StandIn::new(Algorithm::EcdsaP256, move |asked, _| match asked.action() {
        "GetPublicKey" => Some(reply(
            200,
            &json!({"KeyId": "k", "PublicKey": public, "KeyUsage": "SIGN_VERIFY", "SigningAlgorithms": ["RSASSA_PKCS1_V1_5_SHA_256"]}),
        )),
        _ => Some(reply(200, &json!({"Signature": signature}))),
    });
    let key = kms.key();
    assert_eq!((key.algorithm(), key.spki()), (Algorithm::Rsa3072, spki.as_slice()));
    // Longer than what KMS hashes.
    let message = vec![b'a'; 5000];
    key.sign(&message).unwrap();
    let asked = kms.asked("Sign")[0].json();
    assert_eq!(asked["MessageType"], "DIGEST");
    assert_eq!(asked["Message"], STANDARD.encode(digest(&SHA256, &message)));
    assert!(key.sign(b"another").is_err());
}

#[test]
fn signatures_that_are_not_of_that_key_and_message_are_refused() {
    type Answer = fn(&Shared) -> String;
    let other: Answer = |shared| shared.signature(1, b"message");
    let others: [(&str, Answer); 7] = [
        ("another key's", other),
        ("of another message", |shared| shared.signature(0, b"massage")),
        ("none", |_| String::new()),
        ("no base64", |_| "%".to_owned()),
        ("not canonical", |shared| shared.signature(0, b"message") + "="),
        ("cut", |shared| STANDARD.encode(&STANDARD.decode(shared.signature(0, b"message")).unwrap()[1..])),
        ("with something behind it", |shared| {
            STANDARD.encode([STANDARD.decode(shared.signature(0, b"message")).unwrap(), vec![0]].concat())
        }),
    ];
    for algorithm in [Algorithm::EcdsaP256, Algorithm::EcdsaP384, Algorithm::Ed25519] {
        for (what, wrong) in others {
            let kms = StandIn::good(algorithm);
            let key = kms.key();
            let signature = wrong(&kms.shared);
            let twisted =
                StandIn::new(algorithm, move |_, _| Some(reply(200, &json!({"Signature": signature}))));
            let key = KmsKey {
                service: twisted.store().service,
                alias: ALIAS.to_owned(),
                id: "arn:key/0".to_owned(),
                spec: SPECS.iter().find(|spec| spec.algorithm == algorithm).unwrap(),
                spki: key.spki().to_vec(),
            };
            let error = key.sign(b"message").unwrap_err();
            assert!(
                told(&error).contains("what AWS KMS answers for alias/ca-tls is no signature by that key"),
                "{what}"
            );
            assert!(error.kind() == Kind::Internal && !is_away(&error), "{what}");
            assert_eq!(twisted.asked("Sign").len(), 1, "{what}");
        }
    }
}

#[test]
fn public_keys_that_are_not_what_they_should_be_are_refused() {
    let change = |name: &'static str, value: Value| {
        let kms = StandIn::new(Algorithm::EcdsaP256, |_, _| None);
        let mut public = kms.shared.public(0);
        public[name] = value;
        let told = StandIn::new(Algorithm::EcdsaP256, move |_, _| Some(reply(200, &public)));
        told.store().open("tls").unwrap_err()
    };
    let spki = StandIn::good(Algorithm::EcdsaP256).shared.spki(0);
    let encoded = |bytes: &[u8]| Value::from(STANDARD.encode(bytes));
    let mut curve = spki.clone();
    curve[20] ^= 1;
    for (name, value, why) in [
        ("KeyUsage", "ENCRYPT_DECRYPT".into(), "it is not for signing"),
        ("PublicKey", "?".into(), "its public key is not base64"),
        ("PublicKey", encoded(&[spki.as_slice(), b"\0"].concat()), "it is of another kind"),
        ("PublicKey", encoded(&spki[..90]), "it is of another kind"),
        ("PublicKey", encoded(&curve), "it is of another kind"),
        ("PublicKey", encoded(b""), "it is of another kind"),
        ("SigningAlgorithms", json!(["ECDSA_SHA_384"]), "it does not sign by ECDSA_SHA_256"),
        ("KeyId", "".into(), "it has no id"),
        ("KeyId", "a\nb".into(), "it has no id"),
        ("KeyId", json!(1), "it is not what GetPublicKey answers"),
        ("SigningAlgorithms", Value::Null, "it is not what GetPublicKey answers"),
    ] {
        let error = change(name, value);
        assert!(error.to_string().contains(why), "{name}: {error}");
        assert_eq!(error.kind(), Kind::Usage, "{name}");
    }
}

#[test]
fn answers_that_make_no_sense_are_not_asked_for_again() {
    let answers: [fn() -> Reply; 7] = [
        || reply(200, &json!({})),
        || head(200, "", "<html>"),
        || head(200, "", r#"{"Signature": "a", "Signature": "b"}"#),
        || head(200, "", "[[[[[[[["),
        || head(302, "Location: http://127.0.0.1:1/\r\n", ""),
        || head(404, "", "no such page"),
        || head(403, "", r#"{"__type": "not a <name>"}"#),
    ];
    for (number, answer) in answers.into_iter().enumerate() {
        let kms = StandIn::new(Algorithm::EcdsaP256, move |asked, _| (asked.action() == "Sign").then(answer));
        let error = kms.key().sign(b"message").unwrap_err();
        assert!(error.kind() == Kind::Internal && !is_away(&error), "{number}: {error}");
        assert!(told(&error).contains("AWS_ENDPOINT_URL"), "{number}");
        assert_eq!(kms.asked("Sign").len(), 1, "{number}");
    }
}

#[test]
fn what_passes_is_tried_again() {
    let troubles: [fn() -> Reply; 9] = [
        || refused("ThrottlingException"),
        || refused("KMSInternalException"),
        || refused("DependencyTimeoutException"),
        || head(503, "", "no time"),
        || head(500, "", r#"{"__type":"KeyUnavailableException"}"#),
        || head(429, "Retry-After: 0\r\n", ""),
        || Reply::Drop,
        || Reply::Bytes(b"HTTP/1.1 200 Told\r\nContent-Length: 100\r\n\r\nless".to_vec()),
        || Reply::Hang,
    ];
    for (number, trouble) in troubles.into_iter().enumerate() {
        let kms = StandIn::new(Algorithm::EcdsaP256, move |asked, before| {
            (asked.action() == "Sign" && before == 0).then(trouble)
        });
        kms.key().sign(b"message").unwrap_or_else(|error| panic!("{number}: {error}"));
        assert!(kms.asked("Sign").len() >= 2, "{number}");
    }
    // Slow is not too slow.
    let kms = StandIn::new(Algorithm::EcdsaP256, |_, _| None);
    let slow = kms.shared.public(0).to_string();
    let slow = format!("HTTP/1.1 200 Told\r\nContent-Length: {}\r\n\r\n{slow}", slow.len()).into_bytes();
    let kms = StandIn::new(Algorithm::EcdsaP256, move |_, _| Some(Reply::Drip(slow.clone())));
    assert!(kms.store().open("tls").unwrap().is_some());
}

#[test]
fn what_does_not_pass_in_time_is_that_it_is_away() {
    let troubles: [fn() -> Reply; 4] = [
        || Reply::Hang,
        || refused("ThrottlingException"),
        || Reply::Bytes([b"HTTP/1.1 200 Told\r\n\r\n".to_vec(), vec![b' '; 1 << 20]].concat()),
        || head(503, "Retry-After: 600\r\n", ""),
    ];
    std::thread::scope(|scope| {
        for trouble in troubles {
            scope.spawn(move || {
                let kms = StandIn::new(Algorithm::EcdsaP256, move |asked, _| {
                    (asked.action() == "Sign").then(trouble)
                });
                let key = kms.key();
                let error = key.sign(b"message").unwrap_err();
                assert!(is_away(&error) && error.kind() == Kind::Unreachable, "{error}");
                assert!(
                    told(&error).contains("AWS KMS in us-east-1, alias/ca-tls: http://127.0.0.1"),
                    "{error}"
                );
            });
        }
        scope.spawn(|| {
            let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let kms = StandIn { url: format!("http://{closed}"), ..StandIn::good(Algorithm::EcdsaP256) };
            assert!(is_away(&kms.store().open("tls").unwrap_err()));
        });
    });
}

#[test]
fn refusals_are_told_with_what_to_do() {
    for (code, says, hint) in [
        ("AccessDeniedException", "access is denied: AccessDeniedException, says AWS", "docs/keys.md"),
        ("NotFoundException", "there is no such key", "AWS_REGION"),
        ("DisabledException", "the key is disabled", "enable-key"),
        ("KMSInvalidStateException", "signs nothing: KMSInvalidStateException, says AWS", "describe-key"),
        ("ValidationException", "ValidationException: ValidationException, says AWS", "describe-key"),
        (
            "UnrecognizedClientException",
            "does not take the credentials of the environment",
            "get-caller-identity",
        ),
        ("ExpiredTokenException", "does not take the credentials of the environment", "get-caller-identity"),
        ("InvalidSignatureException", "does not take what is signed with the credentials", "clock"),
    ] {
        let kms = StandIn::new(Algorithm::EcdsaP256, move |asked, _| {
            (asked.action() == "Sign").then(|| refused(code))
        });
        let error = kms.key().sign(b"message").unwrap_err();
        assert!(error.to_string().contains(says) && told(&error).contains(hint), "{code}: {error:?}");
        // It may come back without a restart.
        assert!(is_away(&error), "{code}");
        let stale = ["UnrecognizedClientException", "ExpiredTokenException"].contains(&code);
        assert_eq!(kms.asked("Sign").len(), if stale { 2 } else { 1 }, "{code}");
        if code != "NotFoundException" {
            let kms = StandIn::new(Algorithm::EcdsaP256, move |_, _| Some(refused(code)));
            assert_eq!(kms.store().open("tls").unwrap_err().kind(), Kind::Usage, "{code}");
        }
    }
    // AWS repeats what was signed.
    let leak =
        || reply(403, &json!({"__type": "AccessDeniedException", "Message": format!("you sent {TOKEN}")}));
    let kms = StandIn::new(Algorithm::EcdsaP256, move |_, _| Some(leak()));
    assert!(told(&kms.store().open("tls").unwrap_err()).contains("may hold a secret and is not shown"));
}

#[test]
fn credentials_that_have_expired_are_looked_for_anew() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("credentials");
    let write = |id: &str| {
        let text = format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = {SECRET}\n");
        std::fs::write(&file, text).unwrap();
    };
    write("OLD");
    let kms = StandIn::new(Algorithm::EcdsaP256, |asked, _| {
        asked.header("authorization").contains("Credential=OLD/").then(|| refused("ExpiredTokenException"))
    });
    let path = file.to_str().unwrap();
    let pairs = [
        ("AWS_ENDPOINT_URL", kms.url.as_str()),
        ("AWS_REGION", "us-east-1"),
        ("AWS_SHARED_CREDENTIALS_FILE", path),
    ];
    let store = AwsKms::new("ca", Environment::from_pairs(pairs)).unwrap();
    assert!(told(&store.open("tls").unwrap_err()).contains("the credentials of the shared files"));
    write("NEW");
    let key = store.open("tls").unwrap().unwrap();
    key.sign(b"message").unwrap();
    // Those that were found are not looked for again.
    std::fs::remove_file(&file).unwrap();
    key.sign(b"message").unwrap();
    assert!(kms.asked("Sign").iter().all(|asked| asked.header("authorization").contains("Credential=NEW/")));
}

#[test]
fn what_is_wrong_in_the_environment_is_told_before_anything_is_asked() {
    let wrong = |pairs: &[(&str, &str)]| {
        let none = [("AWS_EC2_METADATA_DISABLED", "true")];
        AwsKms::new("ca", Environment::from_pairs(none.into_iter().chain(pairs.iter().copied()))).unwrap_err()
    };
    let keys = [("AWS_ACCESS_KEY_ID", KEY_ID), ("AWS_SECRET_ACCESS_KEY", SECRET)];
    let error = wrong(&keys);
    assert!(error.kind() == Kind::Usage && error.to_string().contains("AWS_REGION is not set"), "{error}");
    let error = wrong(&[("AWS_REGION", "mars")]);
    assert!(error.to_string().contains("`mars` is no AWS region that has a known KMS"), "{error}");
    let error = wrong(&[]);
    assert!(error.to_string().contains("the authority has no AWS credentials"), "{error}");
    assert_eq!(error.kind(), Kind::Usage);
    for bad in ["", "alias/", "ca", "alias/aws/ca", "alias/a b", "alias/a:b", "arn:aws:kms:x:1:alias/a"] {
        assert_eq!(AwsKms::parse(bad).unwrap_err().kind(), Kind::Usage, "{bad}");
    }
    assert_eq!(AwsKms::parse("alias/ci/Machine_id-1").unwrap(), "ci/Machine_id-1");
}

#[test]
fn one_connection_serves_for_one_signature_after_the_other() {
    let kms = StandIn::good(Algorithm::EcdsaP256);
    let key = kms.key();
    for number in 0..20_u8 {
        key.sign(&[number]).unwrap();
    }
    assert_eq!(kms.asked("Sign").len(), 20);
    assert_eq!(kms.shared.connections.load(Ordering::SeqCst), 1);
}
