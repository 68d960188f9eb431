use std::sync::LazyLock;

use jsonwebtoken::Header as JwsHeader;
use proptest::prelude::*;
use rcgen::{CertificateParams, KeyPair, SigningKey as _};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use ssh_key::private::{Ed25519Keypair, PrivateKey};

use super::*;
use crate::host::crl::tests::ca;
use crate::jws::sign_eddsa;

mod many;

pub(in crate::host) const NOON: i64 = 1_767_268_800;
const CLUSTER: &str = "id.example.com";

type TlsCa = (CertificateParams, KeyPair, Vec<u8>);

/// An authority's keys: those of index 0 are its own, those of 1 come next.
pub(in crate::host) struct Author {
    tls: [TlsCa; 2],
}

pub(in crate::host) static AUTHOR: LazyLock<Author> = LazyLock::new(|| Author { tls: [ca(), ca()] });

fn pem_of(ca: &TlsCa) -> String {
    pem::encode("CERTIFICATE", &ca.2).to_string()
}

fn ssh_seed(kind: &str, index: u8) -> [u8; 32] {
    [u8::from(kind == "ssh-host") + 2 * index + 1; 32]
}

fn ssh_line(kind: &str, index: u8) -> String {
    let key = PrivateKey::from(Ed25519Keypair::from_seed(&ssh_seed(kind, index)));
    key.public_key().to_openssh().unwrap()
}

fn key(index: u8) -> String {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[40 + index; 32]).unwrap();
    URL_SAFE_NO_PAD.encode(pair.public_key().as_ref())
}

impl Author {
    pub(in crate::host) fn statement(&self, number: u64, made: i64) -> Statement {
        Statement {
            cluster: CLUSTER.to_owned(),
            number,
            made,
            until: made + 600,
            trust: TrustAnchors {
                ssh_host_cas: vec![ssh_line("ssh-host", 0)],
                ssh_user_cas: vec![ssh_line("ssh-user", 0)],
                tls_cas: vec![pem_of(&self.tls[0])],
            },
            endorsements: Vec::new(),
            statement_keys: vec![key(0)],
            krl: String::new(),
            crl: String::new(),
            crls: Vec::new(),
            revoked_cas: Vec::new(),
            since: None,
            revoked: Vec::new(),
            urgent: 0,
        }
    }

    /// Its new one of that kind, in the words of a statement.
    fn add(&self, statement: &mut Statement, kind: &str) -> String {
        let (list, new) = match kind {
            "ssh-user" => (&mut statement.trust.ssh_user_cas, ssh_line(kind, 1)),
            "ssh-host" => (&mut statement.trust.ssh_host_cas, ssh_line(kind, 1)),
            "tls" => (&mut statement.trust.tls_cas, pem_of(&self.tls[1])),
            _ => (&mut statement.statement_keys, key(1)),
        };
        list.push(new.clone());
        new
    }

    /// What a CA of that kind says of another one of a kind.
    fn endorse(&self, cluster: &str, kind: &str, new: &str, by: (&str, u8)) -> Endorsement {
        let message = Endorsement::message(cluster, kind, new);
        let (by, signature) = match by {
            ("tls", index) => {
                let ca = &self.tls[usize::from(index)];
                (pem_of(ca), ca.1.sign(message.as_bytes()).unwrap())
            }
            ("statement", index) => {
                let pair = Ed25519KeyPair::from_seed_unchecked(&[40 + index; 32]).unwrap();
                (key(index), pair.sign(message.as_bytes()).as_ref().to_vec())
            }
            (kind, index) => {
                let pair = Ed25519KeyPair::from_seed_unchecked(&ssh_seed(kind, index)).unwrap();
                (ssh_line(kind, index), pair.sign(message.as_bytes()).as_ref().to_vec())
            }
        };
        let signature = URL_SAFE_NO_PAD.encode(signature);
        Endorsement { kind: kind.to_owned(), new: new.to_owned(), by, signature }
    }
}

pub(in crate::host) fn signed_by(index: u8, statement: &Statement) -> String {
    let header = JwsHeader { typ: Some(STATEMENT.to_owned()), ..JwsHeader::default() };
    sign_eddsa(&[40 + index; 32], header, statement).unwrap().expose().to_owned()
}

fn known() -> Known {
    crate::net::install_crypto();
    Known::of(&believe(&signed_by(0, &AUTHOR.statement(7, NOON)), None, None, NOON).unwrap())
}

#[test]
fn the_first_one_makes_known_and_the_given_key_must_have_signed_it() {
    let known = known();
    assert_eq!((known.cluster.as_str(), known.number, known.made), (CLUSTER, 7, NOON));
    assert_eq!(known.trust.ssh_user_cas, [ssh_line("ssh-user", 0) + "\n"]);
    let mut both = AUTHOR.statement(7, NOON);
    AUTHOR.add(&mut both, "statement");
    assert!(believe(&signed_by(0, &both), None, Some(&key(0)), NOON).is_ok());
    // That it lists the key is not enough.
    let why = believe(&signed_by(1, &both), None, Some(&key(0)), NOON).unwrap_err();
    assert_eq!(why, "the key that --statement-key names has not signed it");
    let stranger = believe(&signed_by(1, &AUTHOR.statement(7, NOON)), None, None, NOON).unwrap_err();
    assert_eq!(stranger, "none of its keys has signed it");
}

#[test]
fn it_must_be_a_statement_of_that_cluster_and_of_now() {
    let known = known();
    let why = |statement: &Statement, now| believe(&signed_by(0, statement), Some(&known), None, now).err();
    let good = AUTHOR.statement(7, NOON);
    for (now, wrong) in [
        (
            NOON - 61,
            Some(
                "it is from the future: made at 2026-01-01T12:00:00Z, and by this machine's clock it is 2026-01-01T11:58:59Z",
            ),
        ),
        (NOON - 60, None),
        (NOON + 660, None),
        (
            NOON + 661,
            Some(
                "it is an old one: good until 2026-01-01T12:10:00Z, and by this machine's clock it is 2026-01-01T12:11:01Z",
            ),
        ),
    ] {
        assert_eq!(why(&good, now).as_deref(), wrong, "{now}");
    }
    let backwards = Statement { until: NOON - 1, ..good.clone() };
    assert!(why(&backwards, NOON).unwrap().starts_with("it is an old one"));
    let other = Statement { cluster: "other.example.com".to_owned(), ..good.clone() };
    assert_eq!(
        why(&other, NOON).unwrap(),
        "it is of the cluster other.example.com, and not of id.example.com"
    );
    let empty = TrustAnchors { ssh_user_cas: vec![], ..good.trust.clone() };
    assert_eq!(why(&Statement { trust: empty, ..good.clone() }, NOON).unwrap(), "it has no SSH user CA");
    let header = |typ: &str, crit: bool| {
        let crit = if crit { ",\"crit\":[\"exp\"]" } else { "" };
        let jws = signed_by(0, &good);
        let rest = jws.split_once('.').unwrap().1.rsplit_once('.').unwrap().0.to_owned();
        let message = format!(
            "{}.{rest}",
            URL_SAFE_NO_PAD.encode(format!("{{\"alg\":\"EdDSA\",\"typ\":\"{typ}\"{crit}}}"))
        );
        let pair = Ed25519KeyPair::from_seed_unchecked(&[40; 32]).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(pair.sign(message.as_bytes())))
    };
    assert!(believe(&header(STATEMENT, false), Some(&known), None, NOON).is_ok());
    for jws in [header("JWT", false), header(STATEMENT, true)] {
        assert_eq!(believe(&jws, Some(&known), None, NOON).unwrap_err(), "it is a JWS of another kind");
    }
}

#[test]
fn a_key_of_ecdsa_signs_by_its_own_algorithm_and_no_other() {
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};
    known();
    for (name, algorithm) in
        [("ES256", &ECDSA_P256_SHA256_FIXED_SIGNING), ("ES384", &ECDSA_P384_SHA384_FIXED_SIGNING)]
    {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap();
        let key = URL_SAFE_NO_PAD.encode(pair.public_key());
        let statement = Statement { statement_keys: vec![key.clone()], ..AUTHOR.statement(7, NOON) };
        let header = JwsHeader { typ: Some(STATEMENT.to_owned()), ..JwsHeader::default() };
        let jws = crate::jws::sign_pkcs8(pkcs8.as_ref(), header, &statement).unwrap().expose().to_owned();
        believe(&jws, None, Some(&key), NOON).unwrap();
        let claims = jws.split('.').nth(1).unwrap();
        for (said, why) in [
            (name, None),
            ("EdDSA", Some("none of its keys has signed it")),
            (if name == "ES256" { "ES384" } else { "ES256" }, Some("none of its keys has signed it")),
            ("none", Some("it is a JWS of another kind")),
            ("HS256", Some("it is a JWS of another kind")),
        ] {
            let header = format!("{{\"alg\":\"{said}\",\"typ\":\"{STATEMENT}\"}}");
            let message = format!("{}.{claims}", URL_SAFE_NO_PAD.encode(header));
            let signature = pair.sign(&random, message.as_bytes()).unwrap();
            let jws = format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature));
            assert_eq!(believe(&jws, None, None, NOON).err().as_deref(), why, "{name} {said}");
        }
    }
}

/// Each kind of new one, by each of those who could vouch for it.
#[test]
fn a_new_ca_is_vouched_for_by_one_of_its_kind_or_of_tls() {
    let known = known();
    for kind in ["ssh-user", "ssh-host", "tls", "statement"] {
        let mut statement = AUTHOR.statement(8, NOON);
        let new = AUTHOR.add(&mut statement, kind);
        let mut judge = |endorsement: Option<Endorsement>| {
            statement.endorsements = endorsement.into_iter().collect();
            believe(&signed_by(0, &statement), Some(&known), None, NOON).map(drop)
        };
        assert!(judge(None).unwrap_err().contains("vouches for it"), "{kind}");
        for by in ["ssh-user", "ssh-host", "tls", "statement"] {
            let good = by == "tls" || by == kind && kind != "statement";
            let word = AUTHOR.endorse(CLUSTER, kind, &new, (by, 0));
            assert_eq!(judge(Some(word.clone())).is_ok(), good, "{kind} by {by}");
            // By the one that comes next, for another cluster, for another kind, for another one, damaged.
            assert!(judge(Some(AUTHOR.endorse(CLUSTER, kind, &new, (by, 1)))).is_err(), "{kind} by {by}");
            assert!(judge(Some(AUTHOR.endorse("other", kind, &new, (by, 0)))).is_err(), "{kind} by {by}");
            let other_kind = if kind == "tls" { "ssh-user" } else { "tls" };
            let mut other = AUTHOR.endorse(CLUSTER, other_kind, &new, (by, 0));
            assert!(judge(Some(other.clone())).is_err(), "{kind} by {by}");
            kind.clone_into(&mut other.kind);
            assert!(judge(Some(other)).is_err(), "{kind} by {by}");
            let mut old = AUTHOR.endorse(CLUSTER, kind, &known.statement_keys[0], (by, 0));
            old.new.clone_from(&new);
            assert!(judge(Some(old)).is_err(), "{kind} by {by}");
            assert!(judge(Some(Endorsement { signature: "AAAA".to_owned(), ..word })).is_err());
        }
    }
}

#[test]
fn what_is_not_listed_any_more_vouches_for_nothing_and_signs_nothing() {
    let known = known();
    let mut next = AUTHOR.statement(8, NOON);
    let new = AUTHOR.add(&mut next, "statement");
    next.endorsements.push(AUTHOR.endorse(CLUSTER, "statement", &new, ("tls", 0)));
    // The thief of the TLS CA makes a key of his own.
    let why = believe(&signed_by(1, &next), Some(&known), None, NOON).unwrap_err();
    assert_eq!(why, format!("the key that has signed it, {new}, is not known"));
    let both = Known::of(&believe(&signed_by(0, &next), Some(&known), None, NOON).unwrap());
    next.statement_keys.remove(0);
    let next = Known::of(&believe(&signed_by(1, &next), Some(&both), None, NOON).unwrap());
    assert_eq!(next.statement_keys, [new]);
    let mut thief = AUTHOR.statement(9, NOON);
    assert!(believe(&signed_by(0, &thief), Some(&next), None, NOON).is_err());
    AUTHOR.add(&mut thief, "statement");
    assert!(believe(&signed_by(0, &thief), Some(&next), None, NOON).is_err());
    // Of CAs alike.
    let mut rotated = AUTHOR.statement(8, NOON);
    let new = AUTHOR.add(&mut rotated, "ssh-user");
    rotated.endorsements.push(AUTHOR.endorse(CLUSTER, "ssh-user", &new, ("ssh-user", 0)));
    rotated.trust.ssh_user_cas.remove(0);
    let rotated = Known::of(&believe(&signed_by(0, &rotated), Some(&known), None, NOON).unwrap());
    assert!(believe(&signed_by(0, &AUTHOR.statement(9, NOON)), Some(&rotated), None, NOON).is_err());
}

/// Signed as that key signs: an ECDSA key of OpenSSL's shape, or Ed25519.
fn signed_with(pkcs8: &[u8], statement: &Statement) -> String {
    let header = JwsHeader { typ: Some(STATEMENT.to_owned()), ..JwsHeader::default() };
    crate::jws::sign_pkcs8(pkcs8, header, statement).unwrap().expose().to_owned()
}

#[test]
fn statement_keys_of_each_kind_sign_and_alg_is_theirs() {
    crate::net::install_crypto();
    for (kind, length) in [
        (&rcgen::PKCS_ED25519, 32),
        (&rcgen::PKCS_ECDSA_P256_SHA256, 65),
        (&rcgen::PKCS_ECDSA_P384_SHA384, 97),
    ] {
        let pair = KeyPair::generate_for(kind).unwrap();
        let raw = pair.public_key_raw();
        assert_eq!(raw.len(), length);
        let mut statement = AUTHOR.statement(7, NOON);
        statement.statement_keys = vec![URL_SAFE_NO_PAD.encode(raw)];
        let jws = signed_with(&pair.serialize_der(), &statement);
        assert!(believe(&jws, None, None, NOON).is_ok(), "{length}");
        // Another algorithm in the header, though the key is right.
        let (header, rest) = jws.split_once('.').unwrap();
        let header = String::from_utf8(URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
        for other in ["EdDSA", "ES256", "ES384", "none", "HS256", "PS256"] {
            let lie = header.replace("EdDSA", other).replace("ES256", other).replace("ES384", other);
            let lie = format!("{}.{rest}", URL_SAFE_NO_PAD.encode(&lie));
            assert!(lie == jws || believe(&lie, None, None, NOON).is_err(), "{other}");
        }
        statement.statement_keys = vec![URL_SAFE_NO_PAD.encode(&raw[..raw.len() - 1])];
        assert!(believe(&signed_with(&pair.serialize_der(), &statement), None, None, NOON).is_err());
    }
}

/// Real bytes of OpenSSL: a TLS CA of each algorithm vouches, and so does an SSH CA of each.
#[test]
fn cas_of_each_algorithm_vouch() {
    use std::process::Command;
    crate::net::install_crypto();
    let folder = tempfile::tempdir().unwrap();
    let run = |program: &str, arguments: &[&str]| {
        let done = Command::new(program).args(arguments).current_dir(folder.path()).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    };
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    let text = |name: &str| String::from_utf8(read(name)).unwrap();
    let sign = |hash: &str, message: &str| {
        std::fs::write(folder.path().join("message"), message).unwrap();
        match hash {
            "" => run(
                "openssl",
                &["pkeyutl", "-sign", "-rawin", "-inkey", "key", "-in", "message", "-out", "signature"],
            ),
            hash => run("openssl", &["dgst", hash, "-sign", "key", "-out", "signature", "message"]),
        }
        URL_SAFE_NO_PAD.encode(read("signature"))
    };
    for (kind, option, hash) in [
        ("ed25519", "", ""),
        ("EC", "ec_paramgen_curve:P-256", "-sha256"),
        ("EC", "ec_paramgen_curve:P-384", "-sha384"),
        ("RSA", "rsa_keygen_bits:3072", "-sha256"),
        ("RSA", "rsa_keygen_bits:1024", "-sha256"),
    ] {
        let mut arguments = vec!["genpkey", "-algorithm", kind, "-out", "key"];
        if !option.is_empty() {
            arguments.extend(["-pkeyopt", option]);
        }
        run("openssl", &arguments);
        run("openssl", &["req", "-x509", "-new", "-key", "key", "-subj", "/CN=old", "-out", "crt"]);
        let mut statement = AUTHOR.statement(7, NOON);
        statement.trust.tls_cas = vec![text("crt")];
        let known = Known::of(&believe(&signed_by(0, &statement), None, None, NOON).unwrap());
        let new = AUTHOR.add(&mut statement, "ssh-user");
        let mut word = Endorsement {
            kind: "ssh-user".to_owned(),
            signature: sign(hash, &Endorsement::message(CLUSTER, "ssh-user", &new)),
            new,
            by: text("crt"),
        };
        statement.endorsements = vec![word.clone()];
        let judged = believe(&signed_by(0, &statement), Some(&known), None, NOON);
        assert_eq!(judged.is_ok(), option != "rsa_keygen_bits:1024", "{kind} {option}: {judged:?}");
        word.signature = sign(hash, "something else");
        statement.endorsements = vec![word];
        assert!(believe(&signed_by(0, &statement), Some(&known), None, NOON).is_err(), "{kind} {option}");
    }
    for (kind, bits, hash) in
        [("ecdsa", "256", "-sha256"), ("ecdsa", "384", "-sha384"), ("rsa", "3072", "-sha256")]
    {
        let _ = (
            std::fs::remove_file(folder.path().join("key")),
            std::fs::remove_file(folder.path().join("key.pub")),
        );
        run("ssh-keygen", &["-q", "-N", "", "-t", kind, "-b", bits, "-m", "PEM", "-f", "key"]);
        let line = text("key.pub").split(' ').take(2).collect::<Vec<_>>().join(" ");
        let mut statement = AUTHOR.statement(7, NOON);
        statement.trust.ssh_host_cas = vec![line.clone()];
        let known = Known::of(&believe(&signed_by(0, &statement), None, None, NOON).unwrap());
        let new = AUTHOR.add(&mut statement, "ssh-host");
        let signature = sign(hash, &Endorsement::message(CLUSTER, "ssh-host", &new));
        statement.endorsements = vec![Endorsement { kind: "ssh-host".to_owned(), new, by: line, signature }];
        let judged = believe(&signed_by(0, &statement), Some(&known), None, NOON);
        assert!(judged.is_ok(), "{kind} {bits}: {judged:?}");
    }
}

/// Its thief has the one word, the thief of the TLS CA the other.
#[test]
fn a_statement_key_succeeds_another_by_two_words() {
    let known = known();
    let mut next = AUTHOR.statement(8, NOON);
    let new = AUTHOR.add(&mut next, "statement");
    next.statement_keys.remove(0);
    let words = [("tls", 0), ("statement", 0), ("tls", 1), ("statement", 1), ("ssh-user", 0)];
    let word = |by| AUTHOR.endorse(CLUSTER, "statement", &new, by);
    for one in words {
        for other in words {
            next.endorsements = vec![word(one), word(other)];
            let is_good = [one, other].contains(&("tls", 0)) && [one, other].contains(&("statement", 0));
            let judged = believe(&signed_by(1, &next), Some(&known), None, NOON);
            assert_eq!(judged.is_ok(), is_good, "{one:?} {other:?}: {judged:?}");
        }
    }
    next.endorsements = vec![word(("tls", 0)), AUTHOR.endorse("other", "statement", &new, ("statement", 0))];
    assert!(believe(&signed_by(1, &next), Some(&known), None, NOON).is_err());
}

/// First the TLS CA was exchanged and then, by the word of the new one, the statement key.
#[test]
fn a_host_that_was_away_for_two_rotations_goes_on() {
    let known = known();
    let mut next = AUTHOR.statement(8, NOON);
    let [tls, key] = ["tls", "statement"].map(|kind| AUTHOR.add(&mut next, kind));
    next.trust.tls_cas.remove(0);
    next.statement_keys.remove(0);
    let words = [
        AUTHOR.endorse(CLUSTER, "tls", &tls, ("tls", 0)),
        AUTHOR.endorse(CLUSTER, "statement", &key, ("tls", 1)),
        AUTHOR.endorse(CLUSTER, "statement", &key, ("statement", 0)),
    ];
    for without in 0..=words.len() {
        let others = words.iter().enumerate().filter(|(at, _)| *at != without);
        next.endorsements = others.map(|(_, word)| word.clone()).collect();
        let judged = believe(&signed_by(1, &next), Some(&known), None, NOON);
        assert_eq!(judged.is_ok(), without == words.len(), "{without}: {judged:?}");
    }
}

#[test]
fn a_revoked_ca_is_believed_no_more_whatever_comes() {
    let known = known();
    for kind in ["ssh-user", "ssh-host", "tls"] {
        let mut next = AUTHOR.statement(8, NOON);
        let new = AUTHOR.add(&mut next, kind);
        let of = |trust: &TrustAnchors| match kind {
            "ssh-user" => trust.ssh_user_cas.clone(),
            "ssh-host" => trust.ssh_host_cas.clone(),
            _ => trust.tls_cas.clone(),
        };
        // Though it is still listed, and it is its word that brings the next.
        next.endorsements = vec![AUTHOR.endorse(CLUSTER, kind, &new, (kind, 0))];
        next.revoked_cas = of(&known.trust);
        let told = believe(&signed_by(0, &next), Some(&known), None, NOON).unwrap();
        assert_eq!(of(&told.trust).len(), 1, "{kind}");
        assert_ne!(of(&told.trust), of(&known.trust));
        let after = Known::of(&told);
        // Another replica does not know yet.
        let mut late = next.clone();
        (late.made, late.revoked_cas) = (NOON - 30, vec![]);
        let told = believe(&signed_by(0, &late), Some(&after), None, NOON).unwrap();
        assert_eq!(told.trust, after.trust, "{kind}");
        // Nothing but that one, or its word for another.
        let only = AUTHOR.statement(9, NOON);
        let why = believe(&signed_by(0, &only), Some(&after), None, NOON).unwrap_err();
        assert_eq!(why, "it has a kind of CA of which all are revoked", "{kind}");
        let mut thief = known.clone();
        thief.refuse(&after.refused);
        let why = believe(&signed_by(0, &late), Some(&thief), None, NOON).unwrap_err();
        assert!(why.contains("none that is known vouches for it"), "{kind}: {why}");
    }
    // Where there is no other, nobody is let in, for as long as that is stated.
    let mut last = AUTHOR.statement(8, NOON);
    last.revoked_cas.clone_from(&last.trust.ssh_user_cas);
    for known in [known.clone(), Known::of(&believe(&signed_by(0, &last), Some(&known), None, NOON).unwrap())]
    {
        let told = believe(&signed_by(0, &last), Some(&known), None, NOON).unwrap();
        assert!(told.trust.ssh_user_cas.is_empty() && told.trust.ssh_host_cas.len() == 1);
    }
    // The first that is heard may say so, too.
    let mut first = AUTHOR.statement(7, NOON);
    AUTHOR.add(&mut first, "tls");
    first.revoked_cas = vec![first.trust.tls_cas[0].clone()];
    assert_eq!(believe(&signed_by(0, &first), None, None, NOON).unwrap().trust.tls_cas.len(), 1);
}

#[test]
fn lists_are_of_cas_that_are_trusted() {
    let mut statement = AUTHOR.statement(7, NOON);
    let pin = |ca: &TlsCa| crate::net::pin_of(&ca.2).unwrap()[7..].to_owned();
    let list = |ca: &str| CrlHash { ca: ca.to_owned(), hash: "x".to_owned() };
    statement.crls = vec![list(&pin(&AUTHOR.tls[0])), list(&pin(&AUTHOR.tls[1])), list("../x"), list("")];
    let told = believe(&signed_by(0, &statement), None, None, NOON);
    crate::net::install_crypto();
    assert_eq!(told.unwrap().crls, [list(&pin(&AUTHOR.tls[0]))]);
}

proptest! {
    /// A higher number, or the same and no moment that is earlier by more than clocks are apart.
    #[test]
    fn none_from_before_is_believed(number in 5_u64..10, made in -100_i64..40) {
        let (known, made) = (known(), NOON + made);
        let believed = believe(&signed_by(0, &AUTHOR.statement(number, made)), Some(&known), None, NOON);
        prop_assert_eq!(believed.is_ok(), (number, made + 60) >= (7, NOON), "{:?}", believed);
    }

    /// Whatever is done to one, it is what was signed or nothing.
    #[test]
    fn damaged_ones_are_not_believed(at in any::<prop::sample::Index>(), byte in 0_u8..128, cut in any::<prop::sample::Index>()) {
        let (known, good) = (known(), signed_by(0, &AUTHOR.statement(8, NOON)));
        let mut damaged = good.clone().into_bytes();
        let place = at.index(damaged.len());
        damaged[place] = byte;
        let damaged = String::from_utf8(damaged).unwrap();
        for known in [None, Some(&known)] {
            prop_assert!(damaged == good || believe(&damaged, known, None, NOON).is_err());
            prop_assert!(believe(&good[..cut.index(good.len())], known, None, NOON).is_err());
        }
    }
}
