//! Registered workers: one secret, one worker; one transaction.

use super::fixtures::*;
use super::*;
use crate::authority::store::instances::{AHEAD, COPIED, InstanceRefusal, NewSecret, REPLACED};
use crate::clock::LEEWAY;
use crate::join::instance::Instance;

fn events_named(bench: &Bench, name: &str) -> Vec<Value> {
    bench.events(EventFilter { event: Some(name.into()), ..EventFilter::default() })
}

fn a_secret_registers_one_worker_however_many_race(bench: &Bench) {
    bench.wait(bench.store.add_secret(secret(SECRET, "github-deploy")));
    assert!(bench.wait(bench.store.admits(&SECRET, "github-deploy", NOW)));
    for (what, hash, token, now) in [
        ("another", [6; 32], "github-deploy", NOW),
        ("of another join token", SECRET, "other", NOW),
        ("expired", SECRET, "github-deploy", NOW + 3600),
        ("of a clock that is ahead", SECRET, "github-deploy", NOW - LEEWAY - 1),
    ] {
        assert!(!bench.wait(bench.store.admits(&hash, token, now)), "{what}");
    }
    let answers = bench.issue_all((0..20).map(|n| registration(n, &format!("w-{n}"), SECRET)).collect());
    let answers: Vec<Issued> = answers.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers.iter().filter(|answer| **answer == joined(1)).count(), 1);
    let refusal = |answer: &&Issued| **answer == Issued::Refused(InstanceRefusal::Secret);
    assert_eq!(answers.iter().filter(refusal).count(), 19);
    assert!(!bench.wait(bench.store.admits(&SECRET, "github-deploy", NOW)));
    let list = bench.wait(bench.store.instances());
    assert_eq!((list.len(), list[0].generation, list[0].locked.clone()), (1, 1, None));
    assert_eq!((events_named(bench, "registered").len(), events_named(bench, "issued").len()), (1, 1));
}

fn a_secret_of_a_clock_that_was_ahead_waits_for_its_time(bench: &Bench) {
    let (time, expires) = (NOW + 2 * 86_400, NOW + 2 * 86_400 + 3600);
    bench.wait(bench.store.add_secret(NewSecret { time, expires, ..secret(SECRET, "github-deploy") }));
    assert!(!bench.wait(bench.store.admits(&SECRET, "github-deploy", NOW)));
    let refused = Issued::Refused(InstanceRefusal::Secret);
    assert_eq!(bench.issue(registration(1, "w-a", SECRET)), refused);
    let later = registration(2, "w-a", SECRET).with(|entry| entry.entry.time = time);
    assert_eq!(bench.issue(later), joined(1));
}

fn a_lock_is_of_one_instance_and_takes_its_certificates(bench: &Bench) {
    for (n, instance) in [(1, "w-a"), (2, "w-b")] {
        let hash = [u8::try_from(n).unwrap(); 32];
        bench.wait(bench.store.add_secret(secret(hash, "github-deploy")));
        assert_eq!(bench.issue(registration(n, instance, hash)), joined(1));
    }
    let (first, other_key) = (join(3, "w-a", 1), {
        let mut entry = join(9, "w-a", 2);
        entry.join.as_mut().unwrap().key = b"another".to_vec();
        entry
    });
    assert_eq!(bench.issue(first.clone()), joined(2));
    assert_eq!(bench.issue(first.clone()), Issued::Accepted { plan: Some(earlier(3)), generation: Some(2) });
    assert_eq!(bench.issue(first.clone().with(|entry| entry.plan.fingerprint = [9; 32])), Issued::Used);
    assert_eq!(bench.issue(other_key), Issued::Refused(InstanceRefusal::Unknown));
    assert_eq!(bench.issue(join(5, "w-nobody", 0)), Issued::Refused(InstanceRefusal::Unknown));
    let known = bench.wait(bench.store.instance("w-a")).unwrap();
    assert_eq!(known, Instance { join_token: "github-deploy".into(), key: b"w-a".to_vec() });
    // It is known by what it was issued, until it is locked.
    let named = |serial| bench.wait(bench.store.certificate(serial)).unwrap().hosts;
    assert_eq!((named(2), named(4)), (vec!["w-a".to_owned()], vec!["w-b".to_owned()]));
    // The copy.
    assert_eq!(bench.issue(join(6, "w-a", 1)), Issued::Refused(InstanceRefusal::LockedNow { expected: 2 }));
    for entry in [join(7, "w-a", 2), first] {
        assert_eq!(bench.issue(entry), Issued::Refused(InstanceRefusal::Locked));
    }
    let locked = events_named(bench, "locked");
    assert_eq!((locked.len(), &locked[0]["reason"]), (1, &json!(COPIED)));
    assert_eq!(locked[0]["serials"], json!(["2", "3", "6", "7"]));
    assert_eq!(bench.wait(bench.store.revoked(NOW)).len(), 4);
    assert_eq!(bench.issue(join(8, "w-b", 1)), joined(2));
    assert_eq!((named(2), named(4)), (vec![], vec!["w-b".to_owned()]));
    // One that knows more than the store.
    assert_eq!(bench.issue(join(4, "w-b", 7)), Issued::Refused(InstanceRefusal::Ahead { expected: 2 }));
    assert_eq!(bench.issue(join(10, "w-b", 2)), Issued::Refused(InstanceRefusal::Locked));
    assert_eq!(events_named(bench, "locked")[1]["reason"], json!(AHEAD));
    assert!(named(4).is_empty());
}

fn a_late_request_is_used_up_by_those_after_it(bench: &Bench) {
    bench.wait(bench.store.add_secret(secret(SECRET, "github-deploy")));
    assert_eq!(bench.issue(registration(1, "w-a", SECRET)), joined(1));
    let late = join(2, "w-a", 1);
    let mut after = join(3, "w-a", 1);
    let member = after.join.as_mut().unwrap();
    member.claims.attempt = "a2".into();
    (member.claims.tries, member.claims.earlier) = (1, vec!["r2".into()]);
    assert_eq!(bench.issue(after), joined(2));
    assert_eq!(bench.issue(late), Issued::Used);
    assert_eq!(bench.issue(join(4, "w-a", 2)), joined(3));
}

fn who_registers_anew_gives_up_the_old_place(bench: &Bench) {
    for n in 1..3 {
        bench.wait(bench.store.add_secret(secret([n; 32], "github-deploy")));
    }
    assert_eq!(bench.issue(registration(1, "w-old", [1; 32])), joined(1));
    let mut anew = registration(2, "w-new", [2; 32]);
    anew.join.as_mut().unwrap().replaces = Some("w-old".into());
    assert_eq!(bench.issue(anew), joined(1));
    // Whether the answer arrived, nobody knows yet.
    assert_eq!(bench.issue(join(5, "w-old", 1)), joined(2));
    assert_eq!(bench.issue(join(6, "w-new", 1)), joined(2));
    assert_eq!(bench.issue(join(3, "w-old", 2)), Issued::Refused(InstanceRefusal::Locked));
    let list = bench.wait(bench.store.instances());
    assert_eq!(list[0].locked, Some((NOW, REPLACED.to_owned())));
    assert!(bench.wait(bench.store.revoked(NOW)).is_empty(), "its certificates are the worker's own");
    assert_eq!(events_named(bench, "registered")[1]["replaces"], "w-old");
    let event = &events_named(bench, "replaced")[0];
    assert_eq!((&event["instance"], &event["replaced_by"]), (&json!("w-old"), &json!("w-new")));
}

fn secrets_are_forgotten_when_their_time_is_up(bench: &Bench) {
    bench.wait(bench.store.add_secret(secret(SECRET, "github-deploy")));
    // A clock that is ahead takes nobody's secret away.
    bench.wait(bench.store.prune(NOW + 99_999));
    bench.advance(3601);
    bench.wait(bench.store.prune(NOW + 3600));
    assert!(bench.wait(bench.store.admits(&SECRET, "github-deploy", NOW)));
    bench.wait(bench.store.prune(NOW + 3601));
    assert!(!bench.wait(bench.store.admits(&SECRET, "github-deploy", NOW)));
    assert_eq!(events_named(bench, "secret_added").len(), 1);
}

promises!(
    a_secret_registers_one_worker_however_many_race,
    a_secret_of_a_clock_that_was_ahead_waits_for_its_time,
    a_lock_is_of_one_instance_and_takes_its_certificates,
    a_late_request_is_used_up_by_those_after_it,
    who_registers_anew_gives_up_the_old_place,
    secrets_are_forgotten_when_their_time_is_up,
);
