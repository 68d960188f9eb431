use std::sync::LazyLock;

use jsonwebtoken::Header as JwsHeader;
use proptest::prelude::*;
use rcgen::{CertificateParams, KeyPair, SigningKey as _};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use ssh_key::private::{Ed25519Keypair, PrivateKey};

use super::*;
use crate::host::crl::tests::ca;
use crate::jws::sign_eddsa;

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
