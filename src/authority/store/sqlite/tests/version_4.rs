//! A store of the schema before plans were made anew and bodies packed, as it was written then.

use rusqlite::Connection;
use serde_json::json;

use super::super::super::CertificateKind;
use super::super::super::hosts::HostStore as _;
use super::super::outside::{MARK, beside};
use super::super::schema::APPLICATION_ID;
use super::*;
use crate::error::Error;

/// `version-4.sql` is what `.dump` said of it: issuances 1 to 3, of which 2 is revoked; refusals, a secret.
/// Their serials are in no order, and their fingerprint is the former.
fn old() -> Bench {
    old_with("")
}

/// The same with these rows.
fn old_with(rows: &str) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("authority.db");
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch(include_str!("version-4.sql")).unwrap();
    connection.execute_batch(rows).unwrap();
    connection.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
    connection.pragma_update(None, "user_version", 4).unwrap();
    let store: String = connection.query_row("SELECT store FROM state", [], |row| row.get(0)).unwrap();
    drop(connection);
    let mark = format!("{}\n", json!({"store": store, "sequence": 6}));
    std::fs::write(beside(&path, MARK), mark).unwrap();
    Bench::of(dir)
}

/// Issuance `n` as this version asks for it.
fn again(n: u64) -> Entry {
    issuance(n).with(|entry| {
        entry.plan.fingerprint = [70; 32];
        entry.plan.former_fingerprint = [7; 32];
    })
}

#[test]
fn nothing_is_lost_on_the_way_from_version_4() {
    let bench = old();
    assert_eq!(bench.events(EventFilter::default())[0]["serials"], json!(["998", "101"]));
    let secret = bench.events(EventFilter { event: Some("secret_added".into()), ..Default::default() });
    assert_eq!(secret[0]["secret_id"], "k-1");
    for (id, event) in [("i1", "issued"), ("i3", "issued"), ("d-1", "refused"), ("d-2", "refused")] {
        let found = bench.events(EventFilter { id: Some(id.into()), ..Default::default() });
        assert_eq!(found[0]["event"], event, "{id}");
    }

    // A lost reply is given again; what was revoked is not, nor anything else for a used proof.
    let Issued::Accepted { plan: Some(earlier), generation: None } = bench.issue(again(1)) else {
        panic!("no retry")
    };
    let serials: Vec<_> = earlier.certificates.iter().map(|one| (one.serial, one.kind)).collect();
    assert_eq!((earlier.id.as_str(), earlier.time), ("i1", NOW));
    assert_eq!(serials, [(101, CertificateKind::Tls), (998, CertificateKind::Ssh)]);
    assert_eq!(bench.issue(again(2)), Issued::Used);
    assert_eq!(bench.issue(again(1).with(|entry| entry.plan.former_fingerprint = [71; 32])), Issued::Used);

    assert_eq!(bench.issue(issuance(4)), FRESH);
    assert_eq!(bench.revoke(3, "b"), Revoked::Now);
    let revoked = bench.events(EventFilter { event: Some("revoked".into()), ..Default::default() });
    assert_eq!(revoked[1]["serials"], json!(["994", "103"]));
    assert_eq!(bench.wait(bench.store.revoked(0)).len(), 4);
}

/// What was signed for hosts before it was recorded that it is for hosts.
#[test]
fn hosts_of_version_4_can_be_thrown_out() {
    let row = |n: i64, event: &str, of: &str, kind: &str| {
        let body = format!(
            r#"{{"event":"{event}","issuance_id":"h{n}",{of},"outputs":[{{"name":"x",{kind}"serial":"{n}","principals":["web-1"]}}]}}"#
        );
        let hash = format!("x'{}'", "09".repeat(32));
        format!(
            "INSERT INTO events VALUES ({n}, 1795348800, '{event}', 'h{n}', NULL, NULL, '{body}');
             INSERT INTO certificates VALUES ({n}, {n}, 0, 4102444800, NULL, {hash}, NULL);"
        )
    };
    let bench = old_with(
        &[
            row(7, "signed", r#""by":"sign-host""#, ""),
            row(8, "signed", r#""by":"serve""#, ""),
            row(9, "issued", r#""bot":"b""#, r#""type":"ssh-host","#),
            row(10, "issued", r#""bot":"b""#, r#""type":"ssh","#),
            // Of a job that is a host and logs in too, this is the latter's.
            format!(
                "INSERT INTO certificates VALUES (11, 9, 0, 4102444800, NULL, x'{}', NULL);",
                "09".repeat(32)
            ),
        ]
        .concat(),
    );
    assert_eq!(bench.wait(bench.store.certificate(7)).unwrap().hosts, ["web-1"]);
    let shut = bench.wait(bench.store.lock(lock(LockKind::Host, "web-1")));
    assert_eq!(shut.issuances, ["h7", "h9"]);
    let mut told = bench.wait(bench.store.revoked_hosts(NOW, 10));
    told.sort_unstable();
    assert_eq!(told, [7, 9]);
    let listed = bench.wait(bench.store.revoked(0));
    let hosts = listed.iter().filter(|one| [7, 9, 11].contains(&one.serial)).map(|one| one.is_host);
    assert_eq!(hosts.collect::<Vec<_>>(), [true, true, false]);
}

/// A trail of this version is read by its body, packed or not; one that somebody damaged is an error and no more.
#[test]
fn a_damaged_body_is_told() {
    let bench = old();
    assert_eq!(bench.issue(issuance(4)), FRESH);
    bench.wait(bench.store.writer.write(Room::Any, |connection| {
        connection.execute_batch(
            "DROP TRIGGER events_stay_the_same; UPDATE events SET packed = x'01ff' WHERE sequence = 7",
        )
    }));
    let read = bench.store.events(EventFilter::default(), Cursor::default(), 100);
    let error: Error = bench.runtime.block_on(read).unwrap_err();
    assert!(error.to_string().contains("damaged") || format!("{error:?}").contains("damaged"), "{error:?}");
}
