//! `host refresh` with an authority that was put back from a backup, whose
//! clock was ahead, or that is of another version.

use std::path::{Path, PathBuf};
use std::process::Output;

use rcgen::{CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, SerialNumber};
use time::OffsetDateTime;

use crate::support::gateway::{Gateway, Trouble};
use crate::support::now;
use crate::support::process::{self, machine_id, read, run, succeed};
use crate::support::sshd_labels::Estate;

fn estate() -> (Estate, PathBuf) {
    let estate = Estate::start("{env: prod}", "{max_session_ttl: 2h}");
    let trust = estate.path("trust");
    succeed(&mut estate.refresh(&trust));
    (estate, trust)
}

/// Certificates of both kinds, and a copy of the folder to give them back with.
fn job(estate: &Estate, name: &str) -> PathBuf {
    succeed(&mut estate.once(name, ["--output", "identity"]));
    copy(&estate.path(name), &estate.path(&format!("{name}-spare")));
    estate.path(name)
}

fn give_back(estate: &Estate, name: &str) {
    succeed(&mut machine_id(["cleanup", estate.path(&format!("{name}-spare")).to_str().unwrap()]));
}

fn copy(from: &Path, to: &Path) {
    succeed(process::command("cp").arg("-a").arg(from).arg(to));
}

fn is_revoked(trust: &Path, job: &Path) -> bool {
    let mut query = process::command("ssh-keygen");
    let output = run(query.arg("-Q").arg("-f").arg(trust.join("revoked.krl")).arg(job.join("key-cert.pub")));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(said.contains("REVOKED"), !output.status.success(), "{output:?}");
    !output.status.success()
}

fn stderr(output: &Output, code: i32) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    stderr
}

#[test]
fn an_authority_that_was_put_back_lets_nobody_in_again() {
    let (mut estate, trust) = estate();
    let (one, other) = (job(&estate, "one"), job(&estate, "other"));
    estate.authority.terminate();
    let (data, backup) = (estate.authority.data_dir(), estate.path("backup"));
    copy(&data, &backup);
    estate.authority.restart();
    // Lists of a new number that say the same are left alone.
    assert_eq!(succeed(&mut estate.refresh(&trust)), "");
    give_back(&estate, "one");
    succeed(&mut estate.refresh(&trust));
    assert!(is_revoked(&trust, &one) && !is_revoked(&trust, &other));

    estate.authority.terminate();
    std::fs::remove_dir_all(&data).unwrap();
    copy(&backup, &data);
    estate.authority.restart();
    give_back(&estate, "other");
    let crl = read(trust.join("tls.crl"));
    let said = stderr(&run(&mut estate.refresh(&trust)), 5);
    // Of each list.
    assert_eq!(
        said.matches("the authority has forgotten that, as one does that was put back from a backup").count(),
        2,
        "{said}"
    );
    assert!(said.contains("hint: such a list is taken once the certificate has ended"), "{said}");
    assert!(is_revoked(&trust, &one) && is_revoked(&trust, &other));
    assert_eq!(read(trust.join("tls.crl")), crl);
    // Nor does it help to take the lists away.
    for list in ["revoked.krl", "tls.crl"] {
        std::fs::remove_file(trust.join(list)).unwrap();
    }
    stderr(&run(&mut estate.refresh(&trust)), 5);
    assert!(is_revoked(&trust, &one) && is_revoked(&trust, &other) && !trust.join("tls.crl").exists());
    // As it says.
    std::fs::remove_file(trust.join("revoked.seen")).unwrap();
    std::fs::remove_file(trust.join("revoked.krl")).unwrap();
    succeed(&mut estate.refresh(&trust));
    assert!(!is_revoked(&trust, &one) && is_revoked(&trust, &other));
}

/// As an earlier version took them, while the authority's clock was ahead.
#[test]
fn lists_from_the_future_give_way() {
    let (estate, trust) = estate();
    let later = now() + 7200;
    let mut krl = std::fs::read(trust.join("revoked.krl")).unwrap();
    krl[12..20].copy_from_slice(&u64::MAX.to_be_bytes());
    krl[20..28].copy_from_slice(&later.to_be_bytes());
    std::fs::write(trust.join("revoked.krl"), &krl).unwrap();
    let (crl, keys) = (trust.join("tls.crl"), estate.authority.data_dir().join("keys"));
    let key = KeyPair::from_pem(&read(keys.join("tls_ca.key"))).unwrap();
    let ca = Issuer::from_ca_cert_pem(&read(keys.join("tls_ca.crt")), key).unwrap();
    let time = |unix| OffsetDateTime::from_unix_timestamp(unix).unwrap();
    let ahead = CertificateRevocationListParams {
        this_update: time(later),
        next_update: time(later + 86_400),
        crl_number: SerialNumber::from(u64::MAX),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let ahead = ahead.signed_by(&ca).unwrap().pem().unwrap();
    std::fs::write(&crl, &ahead).unwrap();
    let changed = succeed(&mut estate.refresh(&trust));
    assert_eq!(changed, format!("{}\n", crl.display()), "what the KRL says is the same");
    assert_ne!(read(&crl), ahead);
    let one = job(&estate, "one");
    give_back(&estate, "one");
    succeed(&mut estate.refresh(&trust));
    assert!(is_revoked(&trust, &one));
    assert_ne!(std::fs::read(trust.join("revoked.krl")).unwrap()[12..28], krl[12..28]);
}

/// Where it is not told when certificates end, the lists are refreshed all the same.
#[test]
fn authorities_that_do_not_tell_the_ends_are_asked_as_before() {
    let (estate, trust) = estate();
    let gateway = Gateway::start(&estate.authority);
    let refresh = || {
        let mut refresh = estate.refresh(&trust);
        refresh.env("HTTPS_PROXY", gateway.url());
        run(&mut refresh)
    };
    for (name, status, code, words) in [
        ("one", 404, 0, ""),
        ("two", 500, 5, "answers /v1/revoked with status 500"),
        ("three", 200, 5, "at /v1/revoked cannot be used: it is not the JSON of an authority"),
    ] {
        gateway.meet_at("/v1/revoked", Trouble::Answer(status, String::new(), "<html>".to_owned()));
        let (job, crl) = (job(&estate, name), read(trust.join("tls.crl")));
        give_back(&estate, name);
        let said = stderr(&refresh(), code);
        assert!(said.contains(words), "{said}");
        assert!(is_revoked(&trust, &job) && read(trust.join("tls.crl")) != crl);
    }
    // What is damaged is told, and made anew.
    std::fs::write(trust.join("revoked.seen"), "damaged").unwrap();
    let said = stderr(&run(&mut estate.refresh(&trust)), 6);
    assert!(
        said.contains("revoked.seen: it is damaged: ") && said.contains("hint: it is made anew"),
        "{said}"
    );
    succeed(&mut estate.refresh(&trust));
    let seen: serde_json::Value = serde_json::from_str(&read(trust.join("revoked.seen"))).unwrap();
    assert_eq!(
        seen["ssh"].as_object().unwrap().values().filter(|end| end["told"].is_i64()).count(),
        3,
        "{seen}"
    );
}
