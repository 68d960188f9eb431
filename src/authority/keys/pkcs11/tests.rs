//! By the real SoftHSM. It reads its configuration from the environment of the process: so each test runs in a process of
//! its own, which is this program again.

use std::collections::HashSet;
use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use cryptoki::object::{Attribute, AttributeType, ObjectClass};

use super::library::Library;
use super::trouble::Trouble;
use super::uri::Pkcs11Uri;
use super::{object, open};
use crate::authority::keys::private::{Algorithm, KeyStore, PrivateKey, Public, is_away};
use crate::error::{Error, Kind};
use crate::folder::trust::Owner;
use softhsm::{CONF, PIN, SoftHsm, succeed};

#[path = "../../../../tests/support/softhsm.rs"]
mod softhsm;

const ALGORITHMS: [Algorithm; 4] =
    [Algorithm::Ed25519, Algorithm::EcdsaP256, Algorithm::EcdsaP384, Algorithm::Rsa3072];

/// Runs it where SoftHSM has one token, `ca`, as many times at once.
fn with_token(test: &str, processes: usize, run: impl FnOnce(&SoftHsm)) {
    if let Some(conf) = env::var_os(CONF) {
        return run(&SoftHsm::at(Path::new(&conf).parent().unwrap()));
    }
    let temp = tempfile::tempdir().unwrap();
    let hsm = SoftHsm::new(temp.path());
    hsm.add("ca");
    let name = format!("authority::keys::pkcs11::tests::{test}");
    let start = || {
        let mut again = Command::new(env::current_exe().unwrap());
        again.args(["--exact", &name, "--nocapture"]).env(CONF, hsm.conf());
        thread::spawn(move || String::from_utf8(succeed(&mut again).stdout).unwrap())
    };
    let started: Vec<_> = (0..processes).map(|_| start()).collect();
    for process in started {
        let said = process.join().unwrap();
        assert!(said.contains("1 passed"), "{said}");
    }
}

fn read(uri: &str) -> Pkcs11Uri {
    Pkcs11Uri::parse(uri, Path::new("/")).unwrap()
}

fn store(uri: &str) -> std::sync::Arc<dyn KeyStore> {
    open(&read(uri), Owner::me()).unwrap()
}

/// Signs, and has ring verify.
fn sign(key: &dyn PrivateKey, message: &[u8]) -> Result<Vec<u8>, Error> {
    let signature = key.sign(message)?;
    let public = Public::of(key).unwrap();
    assert!(object::verifies(key.algorithm(), public.raw(), message, &signature), "{key:?}");
    Ok(signature)
}

/// Until it signs again: the library is looked through once a second.
fn sign_again(key: &dyn PrivateKey) {
    let since = Instant::now();
    while let Err(error) = sign(key, b"again") {
        assert!(is_away(&error) && since.elapsed() < Duration::from_secs(30), "{error:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// What it says as whoever starts an authority, or as one that serves.
fn refusal<T>(result: Result<T, Error>, kind: Kind) -> String {
    let error = result.err().unwrap();
    let said = format!("{error:?}");
    assert!(error.kind() == kind && !said.contains(PIN), "{said}");
    said
}

/// A session beside the store, for what that does not do.
fn beside<T>(hsm: &SoftHsm, run: impl Fn(&cryptoki::session::Session) -> Result<T, Trouble>) -> T {
    let library = Library::new(read(&hsm.uri("ca")), Owner::me());
    let inside = library.enter(Instant::now() + Duration::from_secs(10)).unwrap();
    run(&inside.writing().unwrap()).unwrap()
}

#[test]
fn each_algorithm_signs_and_no_key_leaves_the_token() {
    with_token("each_algorithm_signs_and_no_key_leaves_the_token", 1, |hsm| {
        let keys = store(&hsm.uri("ca"));
        assert!(!keys.is_local());
        for (name, algorithm) in ["ssh-user", "ssh-host", "tls", "statement"].into_iter().zip(ALGORITHMS) {
            assert!(keys.open(name).unwrap().is_none());
            let key = keys.create(name, algorithm).unwrap();
            assert_eq!(key.algorithm(), algorithm);
            // Numbers that begin with zeros are among so many.
            let signed: HashSet<_> = (0..100_u8).map(|n| sign(key.as_ref(), &[n; 64]).unwrap()).collect();
            assert_eq!(signed.len(), 100);
            sign(key.as_ref(), b"").unwrap();
            let again = keys.open(name).unwrap().unwrap();
            assert_eq!((again.spki(), again.algorithm()), (key.spki(), algorithm));
            let said = refusal(keys.create(name, algorithm), Kind::Usage);
            assert!(said.contains(&format!("it has a key machine-id-{name} already")), "{said}");
        }
        assert_eq!(keys.place("tls"), "object machine-id-tls in the token ca");
        let wanted = [
            AttributeType::Token,
            AttributeType::Private,
            AttributeType::Sensitive,
            AttributeType::AlwaysSensitive,
            AttributeType::Extractable,
            AttributeType::NeverExtractable,
            AttributeType::Sign,
            AttributeType::Decrypt,
        ];
        let (attributes, ids) = beside(hsm, |session| {
            let key = object::find(session, ObjectClass::PRIVATE_KEY, "machine-id-tls")?.unwrap();
            let of = |class| object::find(session, class, "machine-id-tls");
            let id =
                |class| Ok::<_, Trouble>(session.get_attributes(of(class)?.unwrap(), &[AttributeType::Id])?);
            let ids = (id(ObjectClass::PRIVATE_KEY)?, id(ObjectClass::PUBLIC_KEY)?);
            Ok((session.get_attributes(key, &wanted)?, ids))
        });
        let expected = "[Token(true), Private(true), Sensitive(true), AlwaysSensitive(true), Extractable(false), NeverExtractable(true), Sign(true), Decrypt(false)]";
        assert_eq!(
            format!("{attributes:?}"),
            expected.replace("Decrypt(false)", &format!("{:?}", attributes[7]))
        );
        assert_eq!(format!("{:?}", ids.0), format!("{:?}", ids.1));
        // Another authority's keys may lie beside these.
        let other = store(&hsm.uri("ca").replacen('?', ";object=other?", 1));
        assert!(other.open("tls").unwrap().is_none());
        let key = keys.open("tls").unwrap().unwrap();
        keys.destroy("tls").unwrap();
        assert!(keys.open("tls").unwrap().is_none());
        refusal(key.sign(b""), Kind::Unreachable);
        keys.destroy("tls").unwrap();
    });
}

#[test]
fn many_threads_share_a_login() {
    with_token("many_threads_share_a_login", 1, |hsm| {
        let keys = store(&hsm.uri("ca"));
        let key = keys.create("tls", Algorithm::EcdsaP256).unwrap();
        let since = Instant::now();
        thread::scope(|scope| {
            for thread in 0..8_u8 {
                let key = &key;
                scope.spawn(move || {
                    for n in 0..200_u8 {
                        sign(key.as_ref(), &[thread, n]).unwrap();
                    }
                });
            }
        });
        println!("1600 signatures in {:?}", since.elapsed());
    });
}

#[test]
fn authorities_share_a_token() {
    with_token("authorities_share_a_token", 3, |hsm| {
        let keys = store(&hsm.uri("ca"));
        // Each makes its own.
        let name = format!("tls-{}", std::process::id());
        let own = keys.create(&name, Algorithm::EcdsaP256).unwrap();
        for n in 0..200_u8 {
            sign(own.as_ref(), &[n]).unwrap();
        }
    });
}

#[test]
fn a_token_that_was_away_is_found_again() {
    with_token("a_token_that_was_away_is_found_again", 1, |hsm| {
        let keys = store(&hsm.uri("ca"));
        let [tls, user] = [("tls", Algorithm::EcdsaP256), ("ssh-user", Algorithm::Ed25519)]
            .map(|(name, algorithm)| keys.create(name, algorithm).unwrap());
        for is_moved in [false, true] {
            hsm.take_away();
            for _ in 0..5 {
                assert!(is_away(&sign(tls.as_ref(), b"away").unwrap_err()));
            }
            assert!(is_away(&keys.open("tls").unwrap_err()));
            if is_moved {
                hsm.move_slots();
            }
            hsm.put_back();
            sign_again(user.as_ref());
            sign_again(tls.as_ref());
        }
    });
}

#[test]
fn a_token_of_the_same_label_with_other_keys_signs_nothing() {
    with_token("a_token_of_the_same_label_with_other_keys_signs_nothing", 1, |hsm| {
        let keys = store(&hsm.uri("ca"));
        let key = keys.create("tls", Algorithm::EcdsaP256).unwrap();
        hsm.take_away();
        fs::create_dir(hsm.tokens()).unwrap();
        hsm.add("ca");
        // The other has no such key at first.
        let since = Instant::now();
        let until = |what: &str| loop {
            let said = refusal(sign(key.as_ref(), b"x"), Kind::Unreachable);
            if said.contains(what) {
                return;
            }
            assert!(since.elapsed() < Duration::from_secs(30), "{said}");
            thread::sleep(Duration::from_millis(20));
        };
        until("no private key machine-id-tls any more");
        store(&hsm.uri("ca")).create("tls", Algorithm::EcdsaP256).unwrap();
        until("is not that of the public key");
        fs::remove_dir_all(hsm.tokens()).unwrap();
        hsm.put_back();
        sign_again(key.as_ref());
    });
}

#[test]
fn a_wrong_pin_is_tried_once() {
    with_token("a_wrong_pin_is_tried_once", 1, |hsm| {
        let right = store(&hsm.uri("ca"));
        right.create("tls", Algorithm::EcdsaP256).unwrap();
        drop(right);
        hsm.write_pin("99999999");
        let keys = store(&hsm.uri("ca"));
        // An authority that cannot open keys which others have rotated tries again and again.
        let open = || store(&hsm.uri("ca")).open("tls");
        // The login of before may go on for a moment: sessions close as their threads end.
        let since = Instant::now();
        let first = loop {
            match open() {
                Err(error) => break error,
                Ok(_) => assert!(since.elapsed() < Duration::from_secs(30)),
            }
        };
        assert!(first.to_string().contains("it refuses the PIN of"), "{first:?}");
        // Now it would be taken, were it tried.
        let mut change = hsm.tool("ca");
        succeed(change.args(["--change-pin", "--new-pin", "99999999"]));
        for _ in 0..20 {
            let said = refusal(open(), Kind::Usage);
            assert!(said.contains("that PIN is not tried again"), "{said}");
        }
        // Another is.
        let mut change = hsm.command("pkcs11-tool");
        change.arg("--module").arg(softhsm::module()).args(["--token-label", "ca", "--login"]);
        succeed(change.args(["--pin", "99999999", "--change-pin", "--new-pin", PIN]));
        hsm.write_pin(PIN);
        sign(open().unwrap().unwrap().as_ref(), b"").unwrap();
        drop(keys);
    });
}

#[test]
fn keys_that_are_opened_again_are_not_taken_away_with_those_of_before() {
    with_token("keys_that_are_opened_again_are_not_taken_away_with_those_of_before", 1, |hsm| {
        let before = store(&hsm.uri("ca"));
        let old = before.create("tls", Algorithm::EcdsaP256).unwrap();
        // As it is where a rotation goes on.
        let after = store(&hsm.uri("ca"));
        let key = after.open("tls").unwrap().unwrap();
        drop((before, old));
        sign(key.as_ref(), b"at once").unwrap();
    });
}

#[test]
fn what_is_amiss_is_said() {
    with_token("what_is_amiss_is_said", 1, |hsm| {
        let uri = hsm.uri("ca");
        let said = |uri: &str, kind| refusal(store(uri).open("tls"), kind);
        let without_pin = uri.split("&pin").next().unwrap().to_owned();
        assert!(said(&without_pin, Kind::Usage).contains("it wants a PIN"));
        assert!(said(&uri.replace("=ca?", "=cb?"), Kind::Unreachable).contains("has such a token"));
        let other = uri.replace(&*softhsm::module().to_string_lossy(), "/nowhere/p11.so");
        assert!(said(&other, Kind::Usage).contains("cannot load the library /nowhere/p11.so"));
        let other = hsm.tokens().parent().unwrap().join("no.so");
        fs::write(&other, "text").unwrap();
        let other = uri.replace(&*softhsm::module().to_string_lossy(), &other.to_string_lossy());
        assert!(said(&other, Kind::Usage).contains("it must be a PKCS#11 library"));
        for (pin, mode, why) in [
            ("", 0o600, "the PIN alone, on one line"),
            ("\n", 0o600, "the PIN alone, on one line"),
            ("1234\n5678\n", 0o600, "the PIN alone, on one line"),
            (PIN, 0o640, "others than its owner"),
            (PIN, 0o604, "others than its owner"),
        ] {
            fs::write(hsm.pin(), pin).unwrap();
            fs::set_permissions(hsm.pin(), fs::Permissions::from_mode(mode)).unwrap();
            let said = said(&uri, Kind::Usage);
            assert!(said.contains(why), "{said}");
        }
        fs::remove_file(hsm.pin()).unwrap();
        assert!(said(&uri, Kind::Usage).contains("cannot use the PIN in"));
        hsm.write_pin(&format!("{PIN}\r"));
        assert!(store(&uri).open("tls").unwrap().is_none());
        hsm.add("ca");
        assert!(said(&uri, Kind::Usage).contains("there are two of them"));
    });
}

#[test]
fn objects_that_are_no_key_of_ours_are_refused() {
    with_token("objects_that_are_no_key_of_ours_are_refused", 1, |hsm| {
        let keys = store(&hsm.uri("ca"));
        let said = |name: &str| refusal(keys.open(name), Kind::Usage);
        beside(hsm, |session| {
            object::generate(session, "machine-id-twice", Algorithm::EcdsaP256)?;
            object::generate(session, "machine-id-twice", Algorithm::EcdsaP256)?;
            for (name, class) in [("private", ObjectClass::PUBLIC_KEY), ("public", ObjectClass::PRIVATE_KEY)]
            {
                let label = format!("machine-id-{name}");
                object::generate(session, &label, Algorithm::EcdsaP256)?;
                session.destroy_object(object::find(session, class, &label)?.unwrap())?;
            }
            // The halves of two keys under one label.
            for name in ["one", "two"] {
                object::generate(session, name, Algorithm::EcdsaP256)?;
            }
            for (name, class) in [("one", ObjectClass::PUBLIC_KEY), ("two", ObjectClass::PRIVATE_KEY)] {
                let half = object::find(session, class, name)?.unwrap();
                session.update_attributes(half, &[Attribute::Label(b"machine-id-mixed".to_vec())])?;
            }
            Ok(())
        });
        let mut tool = hsm.tool("ca");
        succeed(tool.args([
            "--keypairgen",
            "--key-type",
            "rsa:2048",
            "--label",
            "machine-id-short",
            "--sensitive",
        ]));
        let mut tool = hsm.tool("ca");
        succeed(tool.args([
            "--keypairgen",
            "--key-type",
            "EC:secp521r1",
            "--label",
            "machine-id-other",
            "--sensitive",
        ]));
        let mut tool = hsm.tool("ca");
        succeed(tool.args([
            "--keypairgen",
            "--key-type",
            "EC:secp384r1",
            "--label",
            "machine-id-fit",
            "--sensitive",
        ]));
        assert!(said("twice").contains("it has 2 objects machine-id-twice"));
        let refused = keys.create("twice", Algorithm::EcdsaP256);
        assert!(refusal(refused, Kind::Usage).contains("it has 2 objects machine-id-twice"));
        assert!(said("private").contains("no public key of that label"));
        assert!(said("public").contains("no private key of that label"));
        for name in ["short", "other"] {
            assert!(said(name).contains("is none that the authority has"));
        }
        let mixed = refusal(keys.open("mixed"), Kind::Unreachable);
        assert!(mixed.contains("is not that of the public key"), "{mixed}");
        assert_eq!(keys.open("fit").unwrap().unwrap().algorithm(), Algorithm::EcdsaP384);
    });
}
