//! The lists, read by the programs that servers read them with.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::collection::vec;
use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SerialNumber,
};

use super::list::x509_time;
use super::*;
use crate::authority::keys::ListedCa;
use crate::authority::keys::tests::{keys_in, new_keys};
use crate::clock::LAST_SECOND;
use crate::krl;

mod changes;
mod hosts;
pub(in crate::authority) mod world;

const NOW: i64 = 1_795_348_800;

fn certificates(certificates: &[(u64, CertificateKind)]) -> Vec<RevokedCertificate> {
    certificates
        .iter()
        .map(|(serial, kind)| RevokedCertificate {
            serial: *serial,
            kind: *kind,
            is_host: *serial > 4,
            revoked: NOW - 30,
            expires: NOW + 3600,
            ca: None,
        })
        .collect()
}

const NONE: RevocationList<'_> = RevocationList { number: 0, certificates: &[], from: 0 };

/// With one behind them that has ended.
fn list(number: u64, certificates: &mut Vec<RevokedCertificate>) -> RevocationList<'_> {
    certificates.push(RevokedCertificate { serial: 7, expires: NOW - 100, ..certificates[0].clone() });
    RevocationList { number, certificates, from: NOW - 99 }
}

fn run(dir: &Path, line: &str) -> Output {
    let mut words = line.split_whitespace();
    Command::new(words.next().unwrap())
        .args(words.map(|word| word.trim_matches('\'')))
        .current_dir(dir)
        .output()
        .unwrap()
}

fn run_well(dir: &Path, line: &str) -> String {
    let output = run(dir, line);
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The one CA of users, and that of hosts.
fn listed([users, hosts]: [Vec<u8>; 2]) -> Vec<ListedCa> {
    let ca = |key, is_host| ListedCa {
        key,
        number: None,
        is_first: true,
        is_host,
        is_revoked: false,
        has_list: true,
    };
    vec![ca(users, false), ca(hosts, true)]
}

/// The public key blob of a CA that `ssh-keygen` made.
fn ssh_ca(dir: &Path, name: &str) -> Vec<u8> {
    run_well(dir, &format!("ssh-keygen -q -t ed25519 -N '' -C {name} -f {name}"));
    let public = fs::read_to_string(dir.join(format!("{name}.pub"))).unwrap();
    STANDARD.decode(public.split(' ').nth(1).unwrap()).unwrap()
}

/// Certificates of the CA, one for each serial, as `SERIAL-cert.pub`.
fn ssh_certificates(dir: &Path, ca: &str, serials: &[u64]) {
    for serial in serials {
        run_well(dir, &format!("ssh-keygen -q -t ed25519 -N '' -C {serial} -f {serial}"));
        run_well(dir, &format!("ssh-keygen -q -s {ca} -I test -n deploy -z {serial} {serial}.pub"));
    }
}

fn is_revoked(dir: &Path, serial: u64) -> bool {
    let output = run(dir, &format!("ssh-keygen -Q -f krl {serial}-cert.pub"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.code() {
        Some(0) if said.contains("ok") => false,
        Some(1) if said.contains("REVOKED") => true,
        _ => panic!("{output:?}"),
    }
}

#[test]
fn openssh_reads_the_krl() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let cas = listed([ssh_ca(dir, "users"), ssh_ca(dir, "hosts")]);
    ssh_ca(dir, "other");
    let big = u64::try_from(i64::MAX).unwrap();
    // 7 and 8 are hosts', so of the first CA 7 is none of ours.
    ssh_certificates(dir, "users", &[2, 3, 4, 7]);
    ssh_certificates(dir, "hosts", &[5, 8, big]);
    ssh_certificates(dir, "other", &[6]);
    // Not in order, one of them of TLS, and 6 of a CA that is not ours.
    let mut revoked = certificates(&[
        (big, CertificateKind::Ssh),
        (3, CertificateKind::Ssh),
        (4, CertificateKind::Tls),
        (6, CertificateKind::Ssh),
        (7, CertificateKind::Ssh),
        (8, CertificateKind::Ssh),
    ]);
    let list = list(9, &mut revoked);
    let krl = ssh_krl(&cas, list, NOW).unwrap();
    assert_eq!(krl::read(&krl).unwrap().date, u64::try_from(NOW - LEEWAY).unwrap());
    fs::write(dir.join("krl"), krl).unwrap();
    let revoked: Vec<u64> =
        [2, 3, 4, 5, 6, 7, 8, big].into_iter().filter(|serial| is_revoked(dir, *serial)).collect();
    assert_eq!(revoked, [3, 8, big]);
    let said = run_well(dir, "ssh-keygen -Q -l -f krl");
    assert!(said.starts_with("# KRL version 9\n# Generated at 2026"), "{said}");
    assert!(said.contains("serial: 3\n") && said.contains(&format!("serial: {big}\n")), "{said}");
}

#[test]
fn openssh_reads_an_empty_krl() {
    let dir = tempfile::tempdir().unwrap();
    let cas = listed([ssh_ca(dir.path(), "ca"), ssh_ca(dir.path(), "hosts")]);
    ssh_certificates(dir.path(), "ca", &[2]);
    fs::write(dir.path().join("krl"), ssh_krl(&cas, NONE, NOW).unwrap()).unwrap();
    assert!(!is_revoked(dir.path(), 2));
}

/// The keys of an authority whose TLS CA, in `ca.pem`, is for these usages, and a leaf of it for
/// each serial in `SERIAL.pem`.
fn tls_ca(dir: &Path, usages: Vec<KeyUsagePurpose>, serials: &[u64]) -> Arc<CaKeys> {
    let keys = dir.join("keys");
    new_keys(dir, NOW);
    let key = KeyPair::from_pem(&fs::read_to_string(keys.join("tls_ca.key")).unwrap()).unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = usages;
    let pem = params.self_signed(&key).unwrap().pem();
    fs::write(keys.join("tls_ca.crt"), &pem).unwrap();
    fs::write(dir.join("ca.pem"), &pem).unwrap();
    let issuer = Issuer::new(params, key);
    for serial in serials {
        let mut leaf = CertificateParams::default();
        leaf.serial_number = Some(SerialNumber::from(*serial));
        leaf.distinguished_name.push(rcgen::DnType::CommonName, "leaf");
        let leaf = leaf.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
        fs::write(dir.join(format!("{serial}.pem")), leaf.pem()).unwrap();
    }
    keys_in(dir)
}

fn sign_lists() -> Vec<KeyUsagePurpose> {
    vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign]
}

fn verify(dir: &Path, serial: u64) -> String {
    verify_at(dir, serial, NOW)
}

fn verify_at(dir: &Path, serial: u64, now: i64) -> String {
    let check =
        format!("openssl verify -attime {now} -CAfile ca.pem -crl_check -CRLfile crl.pem {serial}.pem");
    let output = run(dir, &check);
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

fn signed(keys: &CaKeys, list: RevocationList<'_>, valid_for: i64) -> Result<Vec<u8>> {
    let all = keys.tls_cas().unwrap();
    tls_crl(&all[0], &all, list, (NOW, valid_for)).sign(keys)
}

#[test]
fn openssl_reads_the_crl() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let big = u64::try_from(i64::MAX).unwrap();
    let keys = tls_ca(dir, sign_lists(), &[2, 3, 4, big]);
    let tls = CertificateKind::Tls;
    let mut revoked = certificates(&[(3, tls), (4, CertificateKind::Ssh), (128, tls), (big, tls)]);
    let list = list(300, &mut revoked);
    fs::write(dir.join("crl"), signed(&keys, list, 3600).unwrap()).unwrap();
    run_well(dir, "openssl crl -inform DER -in crl -out crl.pem");
    for serial in [2, 4] {
        assert!(verify(dir, serial).contains(": OK"), "{}", verify(dir, serial));
    }
    for serial in [3, big] {
        assert!(verify(dir, serial).contains("certificate revoked"), "{}", verify(dir, serial));
    }
    // A server whose clock is behind by as much as clocks may be apart.
    let (good, behind) = (verify_at(dir, 2, NOW - LEEWAY), verify_at(dir, 2, NOW - LEEWAY - 1));
    assert!(good.contains(": OK") && behind.contains("CRL is not yet valid"), "{good} {behind}");
    let said = run_well(dir, "openssl crl -in crl.pem -noout -text -CAfile ca.pem");
    for wanted in [
        "Version 2",
        "Last Update: Nov 22 11:59:00 2026 GMT",
        "Next Update: Nov 22 13:00:00 2026 GMT",
        "Serial Number: 03\n",
        "Serial Number: 80\n",
        "Serial Number: 7FFFFFFFFFFFFFFF\n",
        "Revocation Date: Nov 22 11:59:00 2026 GMT",
        "X509v3 CRL Number: \n                300\n",
    ] {
        assert!(said.contains(wanted), "{wanted:?} in {said}");
    }
}

#[test]
fn openssl_reads_an_empty_crl() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let keys = tls_ca(dir, sign_lists(), &[2]);
    fs::write(dir.join("crl"), signed(&keys, NONE, 3600).unwrap()).unwrap();
    let said = run_well(dir, "openssl crl -inform DER -in crl -text -out crl.pem");
    assert!(!said.contains("Revoked Certificates:"), "{said}");
    assert!(verify(dir, 2).contains(": OK"), "{}", verify(dir, 2));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Whatever is on it, at whatever time it was revoked.
    #[test]
    fn a_list_is_what_rcgen_writes(
        all in vec((1..=u64::MAX, prop_oneof![0..=NOW, 2_524_607_999..=LAST_SECOND]), 0..300),
        number in any::<u64>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let keys = tls_ca(dir.path(), sign_lists(), &[]);
        let revoked_certs = all.iter().map(|(serial, revoked)| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: x509_time(*revoked),
            reason_code: None,
            invalidity_date: None,
        });
        let mut params = CertificateRevocationListParams {
            this_update: x509_time(NOW),
            next_update: x509_time(NOW + 60),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let key = KeyPair::from_pem(&fs::read_to_string(dir.path().join("keys/tls_ca.key")).unwrap()).unwrap();
        let issuer = Issuer::from_ca_cert_der(&keys.tls_certificate().into(), key).unwrap();
        let expected = params.signed_by(&issuer).unwrap();
        params.revoked_certs.clear();
        let list = keys.sign_crl(None, &params, all.into_iter()).unwrap();
        prop_assert_eq!(to_be_signed(&list).unwrap(), to_be_signed(expected.der()).unwrap());
        let (rest, list) = x509_parser::parse_x509_crl(&list).unwrap();
        let (_, ca) = x509_parser::parse_x509_certificate(keys.tls_certificate()).unwrap();
        prop_assert!(rest.is_empty() && list.verify_signature(ca.public_key()).is_ok());
    }
}

#[test]
fn the_ends_are_told_in_parts() {
    let cache = ListCache::default();
    for count in [0, 1, PART - 1, PART, PART + 1, 3 * PART] {
        let serials =
            (0..u64::try_from(count).unwrap()).map(|n| (u64::MAX / 2 - 9000 + n, CertificateKind::Tls));
        *cache.known.write().unwrap() = certificates(&serials.collect::<Vec<_>>());
        let (mut json, mut after) = cache.ends(None);
        while after.is_some() {
            let part;
            (part, after) = cache.ends(after);
            json.push_str(&part);
        }
        assert!(json.len() <= ENDS.len() + 2 + count * END);
        let told: crate::wire::RevokedEnds = serde_json::from_str(&json).unwrap();
        let ends = cache.known().iter().map(|one| (one.serial, one.expires)).collect();
        assert_eq!(told.expires, ends);
    }
}

#[test]
fn a_ca_that_may_not_sign_lists_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let keys = tls_ca(dir.path(), vec![KeyUsagePurpose::KeyCertSign], &[]);
    let error = signed(&keys, NONE, 3600).unwrap_err();
    assert!(error.to_string().starts_with("cannot sign the revocation list: "), "{error}");
}

#[test]
fn times_that_x509_cannot_say_are_cut() {
    let dir = tempfile::tempdir().unwrap();
    let keys = tls_ca(dir.path(), sign_lists(), &[]);
    signed(&keys, NONE, i64::MAX).unwrap();
}

#[test]
fn lists_that_grow_are_an_alarm_long_before_servers_take_them_no_more() {
    let lists =
        |sizes: [usize; 3]| Lists { ends: sizes[2], ..Lists::of(vec![0; sizes[0]], vec![0; sizes[1]]) };
    const HALF: usize = MAX_LIST / 2;
    assert_eq!(lists([HALF; 3]).alarm(), None);
    for large in [[HALF + 1, 0, 0], [0, HALF + 1, 0], [0, 0, HALF + 1]] {
        let alarm = lists(large).alarm().unwrap();
        assert!(alarm.starts_with("a revocation list has 32 MiB, and beyond 64 MiB servers keep"), "{alarm}");
    }
}

/// Empty ones.
fn lists(number: u64, changes: VecDeque<Arc<Change>>) -> Lists {
    Lists { number, changes, ..Lists::of(Vec::new(), Vec::new()) }
}

#[test]
fn of_former_lists_the_last_are_kept_that_somebody_reads_and_have_room() {
    let mut former = VecDeque::new();
    let all: Vec<_> = (0..5).map(|_| Arc::new(Lists::of(vec![0; KEPT / 8], vec![0; KEPT / 4]))).collect();
    let begun = Instant::now();
    all.iter().for_each(|lists| keep(&mut former, Arc::clone(lists), begun));
    assert!(former.iter().zip(all.iter().skip(3)).all(|((one, _), other)| Arc::ptr_eq(one, other)));
    assert_eq!(former.len(), 2);
    let reading = Arc::downgrade(&all[4]);
    drop(all);
    let small = || Arc::new(Lists::of(Vec::new(), Vec::new()));
    let [before, after] = [1, 0].map(|early| begun + NAMED - Duration::from_nanos(early));
    keep(&mut former, small(), before);
    assert_eq!(former.len(), 3, "whoever has heard of them may ask");
    keep(&mut former, small(), after);
    assert!(former.len() == 3 && reading.upgrade().is_some(), "nobody reads the others");
    for _ in 0..9 {
        keep(&mut former, Arc::new(Lists::of(vec![0; KEPT / 4], Vec::new())), after);
    }
    assert!(reading.upgrade().is_some(), "those that nobody reads yet give way");
    let large = Arc::new(Lists::of(vec![0; KEPT + 1], Vec::new()));
    keep(&mut former, Arc::clone(&large), after);
    assert!(former.is_empty());
}

#[test]
fn so_much_is_known_of_what_was_new_and_no_more() {
    let after = |before: &Lists, number: u64, fresh: u64| {
        let fresh = (0..fresh).map(|serial| RevokedNow { serial, ssh: true, expires: NOW }).collect();
        lists(number, changes(before, number, fresh))
    };
    let new = |lists: &Lists, since| lists.since(since).map(|new| new.len());
    let first = lists(10, VecDeque::new());
    assert_eq!((new(&first, 10), new(&first, 9)), (Some(0), None));
    let second = after(&first, 20, 2);
    assert_eq!((new(&second, 10), new(&second, 20)), (Some(2), Some(0)));
    // The same once more, as after another's question.
    assert_eq!(new(&after(&second, 20, 0), 10), Some(2));
    // Nothing, since some have ended, and then more than are kept.
    let third = after(&second, 30, 0);
    assert_eq!((new(&third, 10), new(&third, 20)), (Some(2), Some(0)));
    let fourth = after(&third, 40, 1999);
    assert_eq!((new(&fourth, 10), new(&fourth, 20), new(&fourth, 30)), (None, Some(1999), Some(1999)));
    let fifth = after(&fourth, 50, 1);
    assert_eq!((new(&fifth, 20), new(&fifth, 30)), (Some(2000), Some(2000)));
    let sixth = after(&fifth, 60, 2001);
    assert_eq!((new(&sixth, 50), new(&sixth, 60)), (None, Some(0)));
    let mut last = sixth;
    for number in 0..u64::try_from(MAX_CHANGES).unwrap() + 9 {
        last = after(&last, 100 + number, 0);
    }
    assert_eq!((last.changes.len(), new(&last, 60), new(&last, 110)), (MAX_CHANGES, None, Some(0)));
}
