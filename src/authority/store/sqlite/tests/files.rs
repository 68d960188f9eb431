//! The audit trail as it is read, and the file as it is opened.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use rusqlite::Connection;

use super::outside::old_store;
use super::*;
use crate::authority::audit;
use crate::error::Kind;

#[test]
fn events_say_what_the_contract_says_and_can_be_filtered() {
    let bench = Bench::new();
    bench.issue(issuance(1));
    bench.wait(bench.store.refuse(refusal("d-1", Some(r#"{"sub":"other"}"#))));
    bench.wait(bench.store.refuse(refusal("d-2", None)));
    let certificate = issuance(7).plan.certificates.remove(0);
    let host = NewSigned { id: "s1".into(), time: NOW + 10, by: "sign-host", certificate };
    bench.wait(bench.store.record_signed(host));

    let all = bench.events(EventFilter::default());
    assert_eq!(
        all[0],
        json!({
            "time": "2026-11-22T12:00:00Z", "event": "issued", "issuance_id": "i1", "bot": "deployer",
            "token": "github-deploy", "join_method": "github", "serials": ["2", "3"],
            "provenance": "github:octo-org/app@refs/heads/main run 1 attempt 1",
            "outputs": [
                {"name": "identity", "type": "identity", "kind": "ssh", "serial": "2", "principals": ["deploy"],
                 "expires_at": "2026-11-22T13:00:00Z"},
                {"name": "identity", "type": "identity", "kind": "tls", "serial": "3", "principals": ["deployer"],
                 "expires_at": "2026-11-22T13:00:00Z"}],
            "expires_at": "2026-11-22T13:00:00Z", "peer": "192.0.2.7", "claims": {"sub": "repo:octo-org/app"},
        })
    );
    assert_eq!(
        all[1],
        json!({
            "time": "2026-11-22T12:00:01Z", "event": "refused", "denial_id": "d-1", "token": "other",
            "join_method": "github", "reason": "no_rule_matches", "verified": true, "peer": "192.0.2.8",
            "detail": "the nearest rule wanted repository octo-org/app", "claims": {"sub": "other"},
        })
    );
    assert_eq!(
        (&all[3]["event"], &all[3]["by"], &all[3]["serials"]),
        (&json!("signed"), &json!("sign-host"), &json!(["14"]))
    );

    let some = |set: fn(&mut EventFilter)| {
        let mut filter = EventFilter::default();
        set(&mut filter);
        bench.names(filter)
    };
    assert_eq!(some(|filter| filter.since = Some(NOW + 1)), ["refused d-1", "refused d-2", "signed s1"]);
    assert!(some(|filter| filter.since = Some(NOW + 11)).is_empty());
    assert_eq!(some(|filter| filter.bot = Some("deployer".into())), ["issued i1"]);
    assert_eq!(some(|filter| filter.token = Some("other".into())), ["refused d-1", "refused d-2"]);
    assert_eq!(some(|filter| filter.event = Some("signed".into())), ["signed s1"]);
    assert_eq!(some(|filter| filter.id = Some("d-2".into())), ["refused d-2"]);
    assert!(some(|filter| filter.bot = Some("x' OR '1".into())).is_empty());
}

#[test]
fn the_trail_is_read_in_pages_and_each_event_once() {
    let bench = Bench::new();
    bench.issue_all((0..1234).map(issuance).collect());
    // A clock that stepped back: in the middle of the trail, but before `since`.
    bench.wait(bench.store.refuse(NewRefusal { time: NOW - 10, ..refusal("d-1", None) }));
    bench.issue(issuance(2000));
    let filter = EventFilter { since: Some(NOW), ..Default::default() };
    let (mut text, mut pages) = (String::new(), 0);
    bench.wait(audit::write(&*bench.store, &filter, audit::json, |page| {
        text.push_str(page);
        Ok(true)
    }));
    bench.wait(audit::write(&*bench.store, &filter, audit::json, |_| {
        pages += 1;
        Ok(false)
    }));
    assert_eq!(pages, 1, "nobody reads on");
    let mut ids: Vec<_> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["issuance_id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids.len(), 1235);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 1235);
}

#[test]
fn the_trail_cannot_be_rewritten() {
    let bench = Bench::new();
    bench.issue(issuance(1));
    for sql in ["DELETE FROM events", "UPDATE events SET body = '{}'"] {
        let done = bench.runtime.block_on(bench.store.writer.write(Room::Any, move |c| c.execute(sql, [])));
        assert!(done.unwrap_err().to_string().contains("append-only"));
    }
    assert!(
        bench.runtime.block_on(bench.store.reader.read(|c| c.execute("DELETE FROM proofs", []))).is_err()
    );
    assert_eq!(bench.names(EventFilter::default()), ["issued i1"]);
}

#[test]
fn the_file_is_private_and_opens_again() {
    let bench = Bench::new();
    bench.issue(issuance(1));
    for name in ["authority.db", "authority.db-wal", "authority.db-shm"] {
        let mode = fs::metadata(bench.dir.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    // Beside the server, as a command does, and after it.
    let beside = Sqlite::open(&bench.path(), Owner::me(), NOW).unwrap();
    let Entry { entry, plan } = issuance(2);
    assert_eq!(bench.wait(beside.issue(entry, plan)), FRESH);
    assert_eq!(bench.names(EventFilter::default()), ["issued i1", "issued i2"]);
    let Bench { dir, store, runtime } = bench;
    drop((beside, store));
    let mut left: Vec<_> =
        fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["authority.db", "authority.db-reserve", "authority.db.mark"], "closed cleanly");
    let again = Sqlite::open(&dir.path().join("authority.db"), Owner::me(), NOW).unwrap();
    let Entry { entry, plan } = issuance(1);
    assert_eq!(runtime.block_on(again.issue(entry, plan)).unwrap(), retry("plan 1"));
}

#[test]
fn many_may_open_an_old_store_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("authority.db");
    old_store(&path);
    std::thread::scope(|scope| {
        let all: Vec<_> =
            (0..8).map(|_| scope.spawn(|| Sqlite::open(&path, Owner::me(), NOW).map(drop))).collect();
        for one in all {
            one.join().unwrap().unwrap();
        }
    });
    assert_eq!(Sqlite::open(&path, Owner::me(), NOW).unwrap().restored(), None);
}

#[test]
fn files_of_others_are_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |path: &Path, wanted: &str| {
        let before = fs::read(path).ok();
        let error = Sqlite::open(path, Owner::me(), NOW).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage, "{error}");
        assert!(
            error.to_string().starts_with("cannot open the store ") && error.to_string().contains(wanted),
            "{error}"
        );
        assert_eq!(fs::read(path).ok(), before);
    };
    let newer = dir.path().join("newer.db");
    Sqlite::create(&newer).unwrap();
    Connection::open(&newer).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let known = schema::MIGRATIONS.len();
    let wanted = format!("newer machine-id: its schema is version 99, this machine-id knows up to {known}");
    refused(&newer, &wanted);
    let foreign = dir.path().join("foreign.db");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE cookies (a)").unwrap();
    refused(&foreign, "not an authority's store");
    let text = dir.path().join("text.db");
    fs::write(&text, "not a database at all, but long enough to be looked at as one").unwrap();
    refused(&text, "not a database");
    refused(dir.path(), "cannot use the file: it is not a plain file");
    refused(&dir.path().join("missing/authority.db"), "/missing does not exist");
    assert!(Sqlite::open(Path::new("/dev/full"), Owner::me(), NOW).is_err());
}
