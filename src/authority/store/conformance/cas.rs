//! CAs: what is signed is recorded by those that there are, no rotation ends one whose certificates live, and no row that
//! somebody else wrote makes one trusted or drops one.

use super::super::cas::{CaChange, CaChanged, Live};
use super::super::hosts::SERVE;
use super::fixtures::*;
use super::*;
use crate::authority::ca::{CaKey, CaKind, CaSet, CaState};
use crate::wire::Endorsement;

use CaKind::{SshHost, SshUser, Statement, Tls};
use CaState::{Current, Ended, Former, Next, Revoked as Gone};

/// One that is not there yet.
fn key(kind: CaKind, name: &str, state: CaState) -> CaKey {
    let is_first = kind.name() == name;
    let endorsement = Endorsement {
        kind: kind.name().into(),
        new: name.into(),
        by: kind.name().into(),
        signature: "c2ln".into(),
    };
    CaKey {
        number: 0,
        kind,
        name: name.into(),
        id: format!("SHA256:{name}"),
        is_first,
        state,
        public: format!("public of {name}"),
        endorsements: if is_first { Vec::new() } else { vec![endorsement] },
        cross: if is_first { Vec::new() } else { vec!["PEM \"by another\"\n".into()] },
        sealed: (!is_first).then(|| vec![1, 2, 3]),
        since: NOW,
    }
}

fn change(kind: CaKind, phase: &'static str, set: &CaSet, keys: Vec<CaKey>) -> CaChange {
    CaChange { kind, phase, expected: set.number, keys, none_live: None, at: NOW, by: "anna".into() }
}

/// The CAs of a kind as the change has them, in these states.
fn to(set: &CaSet, kind: CaKind, states: &[CaState]) -> Vec<CaKey> {
    let keys: Vec<CaKey> = set.of(kind).cloned().collect();
    assert_eq!(keys.len(), states.len());
    keys.into_iter().zip(states).map(|(key, state)| CaKey { state: *state, ..key }).collect()
}

fn put(bench: &Bench, change: CaChange) -> CaSet {
    match bench.wait(bench.store.change_cas(change)) {
        CaChanged::Done(set) => set,
        other => panic!("{other:?}"),
    }
}

/// `rotate --phase start`.
fn start(bench: &Bench, kind: CaKind) -> CaSet {
    let set = bench.wait(bench.store.cas());
    let next = format!("{}-0a0b0c0d", kind.name());
    let keys = vec![key(kind, kind.name(), Current), key(kind, &next, Next)];
    put(bench, change(kind, "start", &set, keys))
}

/// `rotate --phase activate`.
fn activate(bench: &Bench, set: &CaSet, kind: CaKind) -> CaSet {
    put(bench, change(kind, "activate", set, to(set, kind, &[Former, Current])))
}

/// Issuance `n`, by that set, each certificate by that CA.
fn by(n: u64, set: &CaSet, ca: Option<i64>) -> Entry {
    issuance(n).with(|entry| {
        entry.entry.cas = set.number;
        entry.plan.certificates.iter_mut().for_each(|new| new.ca = ca);
    })
}

fn signed(serial: u64, by: &'static str, set: &CaSet) -> NewSigned {
    let certificate = NewCertificate {
        serial,
        kind: CertificateKind::Ssh,
        principals: vec![format!("web-{serial}")],
        expires: NOW + 300 * 86_400,
        is_host: by != SERVE,
        ..issuance(1).plan.certificates[0].clone()
    };
    NewSigned { id: format!("s{serial}"), time: NOW, by, certificate, cas: set.number }
}

fn what_is_signed_by_others_than_there_are_is_not_recorded(bench: &Bench) {
    let other = bench.again();
    let none = bench.wait(other.cas());
    assert_eq!((&none, bench.wait(other.hear()).cas), (&CaSet::default(), 0));
    assert_eq!(bench.issue(issuance(1)), FRESH);
    let before = (bench.wait(other.hear()), other.revocations());
    let set = start(bench, SshUser);
    assert_eq!(set.keys.iter().map(|key| key.number).collect::<Vec<_>>(), [1, 2]);
    assert!(set.number > 0 && set.keys[1].sealed.is_some());
    // Whoever listens hears that it is another, and makes what is stated anew.
    for store in [&bench.store, &other] {
        assert_eq!(bench.wait(store.hear()).cas, set.number);
        assert_eq!(bench.wait(store.cas()), set);
    }
    assert!(other.revocations() != before.1 && bench.wait(other.hear()).locks == before.0.locks);
    let late = bench.again();
    for store in [&bench.store, &other, &late] {
        let old = by(2, &none, None);
        assert_eq!(bench.wait(store.issue(old.entry, old.plan)), Issued::Outdated);
        assert_eq!(bench.wait(store.record_signed(signed(70, "sign-host", &none))), Signed::Outdated);
        assert_eq!(bench.wait(store.record_signed(signed(71, SERVE, &none))), Signed::Outdated);
    }
    assert_eq!(bench.names(EventFilter { event: Some("issued".into()), ..Default::default() }).len(), 1);
    assert_eq!(bench.number("SELECT count(*) FROM certificates"), 2);
    // The proof is not used up; what is recorded says by which it is, also to whoever asks again.
    let new = by(2, &set, Some(2));
    assert_eq!(bench.wait(other.issue(new.entry.clone(), new.plan.clone())), FRESH);
    let Issued::Accepted { plan: Some(earlier), .. } = bench.issue(new) else { panic!("no retry") };
    assert!(earlier.certificates.iter().all(|one| one.ca == Some(2)));
    assert_eq!(bench.wait(bench.store.certificate(4)).unwrap().ca, Some(2));
    assert_eq!(bench.wait(bench.store.certificate(2)).unwrap().ca, None);
    // One of before a rotation is answered again, and by none.
    let Issued::Accepted { plan: Some(earlier), .. } = bench.issue(by(1, &set, Some(2))) else {
        panic!("no retry")
    };
    assert!(earlier.certificates.iter().all(|one| one.ca.is_none()));
    assert_eq!([1, 2].map(|n| bench.revoke(n, "a")), [Revoked::Now; 2]);
    let revoked = bench.wait(bench.store.revoked(NOW));
    assert_eq!(revoked.iter().map(|one| one.ca).collect::<Vec<_>>(), [None, None, Some(2), Some(2)]);
    // And workers that stay.
    bench.wait(bench.store.add_secret(secret(SECRET, "github-deploy")));
    assert_eq!(bench.issue(registration(40, "w-1", SECRET)), Issued::Outdated);
    let with = registration(40, "w-1", SECRET).with(|entry| entry.entry.cas = set.number);
    assert_eq!(bench.issue(with), joined(1));
}

fn a_rotation_is_an_event_and_one_of_two_at_once_is_refused(bench: &Bench) {
    let other = bench.again();
    let begun = start(bench, Tls);
    let set = activate(bench, &begun, Tls);
    assert!(set.number > begun.number && set.current(Tls).unwrap().number == 2);
    // Whoever planned by what was before is told so, and nothing is changed.
    let late = change(Tls, "activate", &begun, to(&begun, Tls, &[Former, Current]));
    assert_eq!(bench.wait(other.change_cas(late)), CaChanged::Outdated);
    assert_eq!(bench.wait(other.cas()), set);
    let both = start(bench, SshHost);
    assert_eq!(both.of(Tls).collect::<Vec<_>>(), set.of(Tls).collect::<Vec<_>>());
    assert_eq!(both.of(SshHost).map(|key| key.number).collect::<Vec<_>>(), [3, 4]);
    // An old one that is trusted no more keeps no private key.
    let done = put(bench, change(Tls, "finish", &both, to(&both, Tls, &[Ended, Current])));
    assert_eq!(done.current(Tls), both.current(Tls));
    let gone = put(bench, change(SshHost, "rollback", &done, to(&done, SshHost, &[Current, Gone])));
    assert!(gone.key(4).unwrap().sealed.is_none() && gone.key(2).unwrap().sealed.is_some());
    let events = bench.events(EventFilter::default());
    assert_eq!(
        events[1],
        json!({
            "time": "2026-11-22T12:00:00Z", "event": "rotated", "rotation_id": format!("r-{}", set.number), "ca": "tls",
            "phase": "activate", "by": "anna",
            "keys": [
                {"id": "SHA256:tls", "state": "former"}, {"id": "SHA256:tls-0a0b0c0d", "state": "current"},
            ],
        })
    );
    let phases: Vec<&str> = events.iter().map(|event| event["phase"].as_str().unwrap()).collect();
    assert_eq!(phases, ["start", "activate", "start", "finish", "rollback"]);
    let line = crate::authority::audit::text(
        &bench.wait(bench.store.events(EventFilter::default(), Cursor::default(), 1))[0],
    );
    assert_eq!(
        line,
        format!(
            "2026-11-22T12:00:00Z rotated r-{} by=anna ca=tls phase=start keys=\"SHA256:tls=current,SHA256:tls-0a0b0c0d=next\"",
            begun.number
        )
    );
    assert_eq!(bench.store.tampered(), None);
}

/// The last line of defence, whoever plans.
fn no_change_loses_a_ca_or_makes_it_another(bench: &Bench) {
    let set = start(bench, SshUser);
    let ended = put(bench, change(SshUser, "rollback", &set, to(&set, SshUser, &[Current, Gone])));
    let keys = || to(&ended, SshUser, &[Current, Gone]);
    let with = |nth: usize, change: fn(&mut CaKey)| {
        let mut keys = keys();
        change(&mut keys[nth]);
        keys
    };
    for keys in [
        vec![],
        vec![keys()[0].clone()],
        with(0, |key| key.state = Former),
        with(1, |key| key.state = Current),
        with(1, |key| key.state = Next),
        with(0, |key| key.is_first = false),
        with(1, |key| key.is_first = true),
        with(0, |key| key.public = "another".into()),
        with(0, |key| key.id = "another".into()),
        with(0, |key| key.name = "another".into()),
        with(0, |key| key.kind = SshHost),
        with(0, |key| key.number = 9),
        with(0, |key| key.number = 0),
        [keys(), vec![key(SshUser, "ssh-user", Next)]].concat(),
        [keys(), vec![key(SshHost, "ssh-host", Current)]].concat(),
    ] {
        let told = format!("{keys:?}");
        let refused = bench.runtime.block_on(bench.store.change_cas(change(SshUser, "x", &ended, keys)));
        assert!(refused.unwrap_err().to_string().starts_with("nothing is rotated: "), "{told}");
    }
    assert_eq!(bench.wait(bench.store.cas()), ended);
}

fn serials(live: &Live) -> Vec<u64> {
    live.some.iter().map(|one| one.serial).collect()
}

fn what_lives_of_a_ca_is_told_of_whatever_age_it_is(bench: &Bench) {
    let none = CaSet::default();
    // Of users, a job that is a host among them; of hosts, long ago; of the authority itself.
    let host = issuance(1).with(|entry| entry.plan.certificates[0].is_host = true);
    assert_eq!(bench.issue(host), FRESH);
    assert_eq!(bench.issue(issuance(2)), FRESH);
    let old = |entry: NewSigned| NewSigned { time: NOW - 200 * 86_400, ..entry };
    for entry in [old(signed(100, "sign-host", &none)), signed(101, "sign-host", &none)] {
        assert_eq!(bench.wait(bench.store.record_signed(entry)), Signed::Recorded);
    }
    let own = |entry: NewSigned| NewSigned {
        certificate: NewCertificate { kind: CertificateKind::Tls, ..entry.certificate },
        ..entry
    };
    assert_eq!(bench.wait(bench.store.record_signed(own(signed(102, SERVE, &none)))), Signed::Recorded);
    for kind in CaKind::ALL {
        start(bench, kind);
    }
    let set = bench.wait(bench.store.cas());
    let live = |number, at| bench.wait(bench.again().live(number, at));
    let of = |kind, at| live(set.of(kind).next().unwrap().number, at);
    let users = of(SshUser, NOW);
    assert_eq!((users.count, users.last_end, serials(&users)), (1, NOW + 3600, vec![4]));
    assert_eq!(
        (&users.some[0].names, users.some[0].issuance_id.as_str()),
        (&vec!["deploy".to_owned()], "i2")
    );
    let hosts = of(SshHost, NOW);
    assert_eq!((hosts.count, serials(&hosts)), (3, vec![100, 101, 2]));
    assert!(hosts.some.iter().all(|one| one.is_host) && hosts.some[0].names == ["web-100"]);
    assert_eq!((hosts.last_end, serials(&of(Tls, NOW))), (NOW + 300 * 86_400, vec![102, 3, 5]));
    assert_eq!(of(Statement, NOW), Live::default());
    // What has ended by then does not live, nor what is revoked.
    assert_eq!(serials(&of(SshHost, NOW + 3599)), [100, 101, 2]);
    assert_eq!(serials(&of(SshHost, NOW + 3600)), [100, 101]);
    bench.revoke(2, "a");
    assert_eq!((of(SshUser, NOW), serials(&of(Tls, NOW))), (Live::default(), vec![102, 3]));
    // Of the new ones.
    let next = set.of(Tls).nth(1).unwrap().number;
    assert_eq!(live(next, NOW), Live::default());
    for n in 10..40 {
        let entry = by(n, &set, Some(next)).with(|entry| {
            entry.plan.certificates[1].expires += i64::try_from(n).unwrap();
            entry.plan.certificates.remove(0);
        });
        assert_eq!(bench.issue(entry), FRESH);
    }
    let new = live(next, NOW);
    assert_eq!((new.count, new.last_end, new.some.len()), (30, NOW + 3639, 20));
    assert_eq!((new.some[0].serial, serials(&of(Tls, NOW))), (79, vec![102, 3]));
    let unknown = bench.runtime.block_on(bench.store.live(99, NOW)).unwrap_err();
    assert_eq!(unknown.to_string(), "there is no CA of the number 99");
}

fn a_ca_whose_certificates_live_does_not_end(bench: &Bench) {
    assert_eq!(bench.issue(issuance(1)), FRESH);
    let begun = start(bench, SshUser);
    let set = activate(bench, &begun, SshUser);
    let finish = |at| CaChange {
        none_live: Some((1, at)),
        ..change(SshUser, "finish", &set, to(&set, SshUser, &[Ended, Current]))
    };
    let CaChanged::Live(live) = bench.wait(bench.store.change_cas(finish(NOW))) else { panic!() };
    assert_eq!((live.count, serials(&live)), (1, vec![2]));
    assert_eq!(bench.wait(bench.store.cas()), set);
    // Nor by one who does not know yet that it has ended: at that time it has.
    assert!(matches!(bench.wait(bench.store.change_cas(finish(NOW + 3600))), CaChanged::Done(_)));
}

/// Of an exchange by the old CA and its end that come at the same time, one is refused.
fn of_an_exchange_and_the_end_of_its_ca_one_is_refused(bench: &Bench) {
    let others = bench.again();
    let (mut ended, mut lived) = (0, 0);
    let mut set = start(bench, SshUser);
    for round in 0..20_u64 {
        let first = 1000 * (round + 1);
        let (old, at) = (set.current(SshUser).unwrap().number, NOW + i64::try_from(round).unwrap() * 10_000);
        let keys: Vec<CaKey> = set
            .of(SshUser)
            .cloned()
            .map(|key| match key.state {
                Current => CaKey { state: Ended, ..key },
                Next => CaKey { state: Current, ..key },
                _ => key,
            })
            .collect();
        let fresh = key(SshUser, &format!("ssh-user-{round:08x}"), Next);
        let keys = [keys, vec![fresh]].concat();
        let new = CaChange { none_live: Some((old, at)), ..change(SshUser, "finish", &set, keys) };
        let (issued, changed) = bench.runtime.block_on(async {
            let mut all = JoinSet::new();
            for n in 0..6 {
                let entry = by(first + n, &set, Some(old)).with(|entry| {
                    entry.plan.certificates.truncate(1);
                    entry.plan.certificates[0].expires = at + 60;
                });
                let store = Arc::clone(if n % 2 == 0 { &bench.store } else { &others });
                // Some come while the CA ends, some are earlier.
                all.spawn(async move {
                    for _ in 0..n * round {
                        tokio::task::yield_now().await;
                    }
                    store.issue(entry.entry, entry.plan).await.unwrap()
                });
            }
            let changed = others.change_cas(new).await.unwrap();
            (all.join_all().await, changed)
        });
        let fresh = issued.iter().filter(|one| **one == FRESH).count();
        match changed {
            CaChanged::Done(now) => {
                assert!(issued.iter().all(|one| *one == Issued::Outdated), "{issued:?}");
                ended += 1;
                set = now;
            }
            CaChanged::Live(live) => {
                assert!(fresh > 0 && usize::try_from(live.count).unwrap() <= fresh);
                lived += 1;
            }
            CaChanged::Outdated => panic!("nobody else changes them"),
        }
        let living = bench.wait(bench.store.live(old, at)).count;
        assert_eq!(usize::try_from(living).unwrap(), fresh);
    }
    assert_eq!(ended + lived, 20);
}

/// What the database's administrator makes of a row, and of the set.
const CHANGES: &[&str] = &[
    "UPDATE ca_keys SET state = 'current' WHERE number = 1",
    "UPDATE ca_keys SET state = 'ended' WHERE number = 1",
    "UPDATE ca_keys SET state = 'other' WHERE number = 1",
    "UPDATE ca_keys SET kind = 'tls' WHERE number = 1",
    "UPDATE ca_keys SET name = 'other' WHERE number = 1",
    "UPDATE ca_keys SET id = 'other' WHERE number = 1",
    "UPDATE ca_keys SET public = 'other' WHERE number = 1",
    "UPDATE ca_keys SET is_first = 1 - is_first WHERE number = 1",
    "UPDATE ca_keys SET endorsements = '[]' WHERE number = 2",
    "UPDATE ca_keys SET crossed = '[]' WHERE number = 2",
    "UPDATE ca_keys SET sealed = NULL WHERE number = 2",
    "UPDATE ca_keys SET sealed = mac WHERE number = 2",
    "UPDATE ca_keys SET since = since + 1 WHERE number = 2",
    "UPDATE ca_keys SET number = 3 WHERE number = 2",
    "UPDATE ca_keys SET mac = NULL WHERE number = 2",
    "UPDATE ca_keys SET mac = (SELECT mac FROM ca_keys AS other WHERE other.number = 1) WHERE number = 2",
    "INSERT INTO ca_keys SELECT 3, kind, 'ssh-user-evil', id, 0, 'next', public, endorsements, crossed, sealed, since, mac
        FROM ca_keys WHERE number = 2",
    "DELETE FROM ca_keys WHERE number = 2",
    "DELETE FROM ca_keys",
    "DELETE FROM ca_keys; UPDATE state SET cas_mac = NULL",
    "UPDATE state SET cas = cas + 1",
    "UPDATE state SET cas_mac = NULL",
    "UPDATE state SET cas_mac = (SELECT mac FROM ca_keys WHERE number = 1)",
    // A set of before, with its seals and a later number.
    "UPDATE ca_keys SET state = (SELECT state FROM kept WHERE kept.number = ca_keys.number),
        mac = (SELECT mac FROM kept WHERE kept.number = ca_keys.number); UPDATE state SET cas_mac = (SELECT cas_mac FROM kept_state)",
];

fn no_row_that_was_changed_makes_anybody_trusted_or_drops_one(bench: &Bench) {
    let begun = start(bench, SshUser);
    bench.meddle("CREATE TABLE kept AS SELECT * FROM ca_keys; CREATE TABLE kept_state AS SELECT cas_mac FROM state").unwrap();
    let set = activate(bench, &begun, SshUser);
    bench.meddle("CREATE TABLE good AS SELECT * FROM ca_keys; CREATE TABLE good_state AS SELECT cas_mac FROM state").unwrap();
    if !bench.store.is_shared() {
        bench.meddle("DROP TRIGGER ca_keys_stay").unwrap();
    }
    for sql in CHANGES {
        bench.meddle(sql).unwrap_or_else(|why| panic!("{sql}: {why}"));
        let error = bench.runtime.block_on(bench.store.cas()).expect_err(sql);
        let wanted = "the store's CAs are not as an authority left them: ";
        assert!(error.to_string().starts_with(wanted) && error.hints().len() == 2, "{sql}: {error:?}");
        assert!(bench.runtime.block_on(bench.store.live(1, NOW)).is_err(), "{sql}");
        let now = CaSet { number: bench.number("SELECT cas FROM state"), ..set.clone() };
        let over = change(SshUser, "finish", &now, to(&set, SshUser, &[Ended, Current]));
        assert!(
            bench.runtime.block_on(bench.store.change_cas(over)).is_err(),
            "{sql}: nothing is sealed over"
        );
        assert!(bench.store.tampered().is_some(), "{sql}");
        // Whoever puts it back as it was has it believed again, but for the number, which only rises.
        bench.meddle("DELETE FROM ca_keys; INSERT INTO ca_keys SELECT * FROM good").unwrap();
        bench.meddle("UPDATE state SET cas_mac = (SELECT cas_mac FROM good_state)").unwrap();
        if bench.number("SELECT cas FROM state") == set.number {
            assert_eq!(bench.wait(bench.store.cas()), set, "{sql}");
        } else {
            assert!(bench.runtime.block_on(bench.store.cas()).is_err(), "{sql}");
            lower(bench, set.number);
        }
    }
    assert_eq!(bench.wait(bench.store.cas()), set);
}

/// What the database keeps from falling, its administrator has fall.
fn lower(bench: &Bench, number: i64) {
    let sql = match bench.store.is_shared() {
        true => "ALTER TABLE state DISABLE TRIGGER ALL; UPDATE state SET cas = NUMBER; ALTER TABLE state ENABLE TRIGGER ALL",
        false => {
            "DROP TRIGGER cas_rises; UPDATE state SET cas = NUMBER; CREATE TRIGGER cas_rises BEFORE UPDATE OF cas ON state
             WHEN new.cas < old.cas BEGIN SELECT RAISE(ABORT, 'x'); END"
        }
    };
    bench.meddle(&sql.replace("NUMBER", &number.to_string())).unwrap();
}

/// A whole set of before, number and all, holds by its seals: whoever has seen more, or has a mark, knows it nevertheless.
fn a_whole_set_that_is_put_back_is_known_by_whoever_has_seen_more(bench: &Bench) {
    for is_none in [false, true] {
        let begun = match bench.wait(bench.store.cas()) {
            set if set.number == 0 => start(bench, SshUser),
            set => set,
        };
        let kept = "CREATE TABLE kept AS SELECT * FROM ca_keys; CREATE TABLE kept_state AS SELECT cas, cas_mac FROM state";
        bench.meddle(kept).unwrap();
        let now = start(bench, if is_none { SshHost } else { Tls });
        let restored = bench.store.restored().map(|restored| restored.time);
        let used = |n, set| by(n, set, None).with(|entry| entry.entry.restored = restored);
        assert_eq!(bench.issue(used(u64::from(is_none), &now)), FRESH);
        bench.wait(bench.store.mark());
        if !bench.store.is_shared() && !is_none {
            bench.meddle("DROP TRIGGER ca_keys_stay").unwrap();
        }
        bench.meddle("DELETE FROM ca_keys").unwrap();
        if is_none {
            // As if there never had been a rotation.
            bench.meddle("UPDATE state SET cas_mac = NULL").unwrap();
            lower(bench, 0);
        } else {
            bench.meddle("INSERT INTO ca_keys SELECT * FROM kept; UPDATE state SET cas_mac = (SELECT cas_mac FROM kept_state)").unwrap();
            lower(bench, begun.number);
        }
        for store in [&bench.store, &bench.again()] {
            let error = bench.runtime.block_on(store.mark()).unwrap_err();
            assert!(lost(&error).is_some() && error.to_string().contains("before a rotation"), "{error}");
            let entry = used(50, &begun);
            let error = bench.runtime.block_on(store.issue(entry.entry, entry.plan)).unwrap_err();
            assert!(lost(&error).is_some(), "{error}");
        }
        // The operator's word counts: as of a backup from before the rotation.
        bench.wait(bench.store.resume(NOW));
        bench.wait(bench.store.mark());
        bench.meddle("DROP TABLE kept; DROP TABLE kept_state").unwrap();
    }
    assert_eq!(bench.wait(bench.again().cas()), CaSet::default());
}

promises! {
    what_is_signed_by_others_than_there_are_is_not_recorded,
    a_rotation_is_an_event_and_one_of_two_at_once_is_refused,
    no_change_loses_a_ca_or_makes_it_another,
    what_lives_of_a_ca_is_told_of_whatever_age_it_is,
    a_ca_whose_certificates_live_does_not_end,
    of_an_exchange_and_the_end_of_its_ca_one_is_refused,
    no_row_that_was_changed_makes_anybody_trusted_or_drops_one,
    a_whole_set_that_is_put_back_is_known_by_whoever_has_seen_more,
}
