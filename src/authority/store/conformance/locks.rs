//! Whom an operator shuts out gets nothing, and what they hold is revoked.

use super::super::locks::{Lock, LockKind, NewLock, Shut};
use super::fixtures::*;
use super::*;

/// Issuance `n` of a repository.
fn of(n: u64, name: &str, id: &str) -> Entry {
    issuance(n).with(|entry| {
        let claims = format!(
            r#"{{"sub":"repo:x","iss":"https://issuer","repository":"{name}","repository_id":"{id}","run_id":"7{n}"}}"#
        );
        entry.entry.claims = object(&claims).into();
    })
}

fn put(bench: &Bench, new: NewLock) -> Shut {
    bench.wait(bench.store.lock(new))
}

/// What was shut out: the id of the lock.
fn shut_out(issued: &Issued) -> Option<&str> {
    match issued {
        Issued::Locked(refused) => Some(&refused.lock.id),
        _ => None,
    }
}

fn revoked(bench: &Bench) -> Vec<u64> {
    bench.wait(bench.store.revoked(NOW)).into_iter().map(|revoked| revoked.serial).collect()
}

/// By whomever: an authority that shares the store, or a command.
fn whoever_listens_hears_that_something_was_revoked_and_whether_operators_did(bench: &Bench) {
    (1..5).for_each(|n| drop(bench.issue(issuance(n))));
    let other = bench.again();
    let hear = |store: &Arc<dyn Store>| (bench.wait(store.hear()).locks, store.revocations());
    let quiet = hear(&other);
    assert_eq!(hear(&other), quiet);
    bench.issue(issuance(9));
    assert_eq!(hear(&other), quiet, "that is none");
    // Of a job's that another authority has taken, only where stores are made for several.
    let mine = hear(&bench.store);
    bench.revoke(1, "a");
    let (locks, revocations) = hear(&bench.store);
    assert!(locks == mine.0 && revocations != mine.1);
    let heard = hear(&other);
    assert!(heard.0 == quiet.0 && (heard.1 != quiet.1 || !other.is_shared()));
    put(bench, lock(LockKind::Issuance, "i2"));
    let locked = hear(&other);
    assert!(locked.0 != heard.0 && locked.1 != heard.1);
    bench.wait(bench.store.unlock(LockKind::Issuance, "i2".into(), NOW, "anna".into()));
    assert_ne!(hear(&other), locked);
}

fn each_kind_of_lock_refuses_and_revokes_what_it_names_and_nothing_else(bench: &Bench) {
    let worker = |n: u64| registration(n, "w-1", SECRET);
    bench.wait(bench.store.add_secret(secret(SECRET, "github-deploy")));
    // Of two runs of one repository, of another one's, and of a worker: so many issuances, and those that each lock takes.
    let mine = |n| of(n, "octo-org/app", "74").with(|entry| entry.bot = "mine".into());
    let theirs = |n| of(n, "octo-org/web", "75").with(|entry| entry.token = "web".into());
    let key = "0a".repeat(32);
    let cases: &[(LockKind, &str, &[u64])] = &[
        (LockKind::Bot, "mine", &[1, 2]),
        (LockKind::Token, "web", &[3]),
        (LockKind::JoinMethod, "github", &[1, 2, 3, 40]),
        (LockKind::Issuer, "https://issuer", &[1, 2, 3]),
        (LockKind::Instance, "w-1", &[40]),
        (LockKind::Serial, "4", &[2]),
        (LockKind::Issuance, "i3", &[3]),
        (LockKind::Run, "71", &[1]),
        (LockKind::Run, "github:octo-org/app@refs/heads/main run 2 attempt 1", &[2]),
        (LockKind::Repository, "octo-org/web", &[3]),
        (LockKind::Repository, "Octo-Org/App", &[1, 2]),
        (LockKind::Repository, "75", &[3]),
        (LockKind::Key, &key, &[5]),
        (LockKind::All, "", &[1, 2, 3, 5, 40]),
    ];
    for entry in
        [mine(1), mine(2), theirs(3), issuance(5).with(|entry| entry.join_method = "iam".into()), worker(40)]
    {
        bench.issue(entry);
    }
    for (kind, value, taken) in cases {
        let would = put(bench, NewLock { dry_run: true, ..lock(*kind, value) });
        let ids: Vec<String> = taken.iter().map(|n| format!("i{n}")).collect();
        assert_eq!((&would.issuances, would.certificates), (&ids, 2 * taken.len()), "{kind:?} {value}");
    }
    assert_eq!((revoked(bench), bench.number("SELECT count(*) FROM locks")), (vec![], 0));
    // The same requests again, and others of the same, while it holds.
    for (kind, value, taken) in cases {
        let new = lock(*kind, value);
        put(bench, new.clone());
        for (n, entry) in [(1, mine(101)), (3, theirs(103)), (40, join(140, "w-1", 1))] {
            let issued = bench.issue(entry);
            let is_taken = taken.contains(&n) && !matches!(kind, LockKind::Serial | LockKind::Issuance);
            // A run is over with its run.
            let is_taken = is_taken && *kind != LockKind::Run;
            assert_eq!(shut_out(&issued).is_some(), is_taken, "{kind:?} {value}: {n}: {issued:?}");
        }
        // As it was put; of repositories, upper and lower case are one.
        let lower = if *kind == LockKind::Repository { value.to_lowercase() } else { (*value).to_owned() };
        let lifted = bench.wait(bench.store.unlock(*kind, lower, NOW, "anna".into()));
        assert_eq!(lifted.len(), 1, "{kind:?} {value}");
    }
}

fn of_an_exchange_and_a_lock_that_race_nothing_works_afterwards(bench: &Bench) {
    const EACH: u64 = 12;
    let others = bench.again();
    for round in 0..20_u64 {
        let first = 1000 * (round + 1);
        let bot = format!("b{round}");
        let all = bench.runtime.block_on(async {
            let mut all = JoinSet::new();
            for n in 0..EACH {
                let entry = issuance(first + n).with(|entry| entry.bot.clone_from(&bot));
                let store = Arc::clone(if n % 2 == 0 { &bench.store } else { &others });
                all.spawn(async move { (first + n, store.issue(entry.entry, entry.plan).await.unwrap()) });
                if n == EACH / 2 {
                    let (store, new) = (Arc::clone(&others), lock(LockKind::Bot, &bot));
                    all.spawn(async move { (0, store.lock(new).await.map(|_| Issued::Used).unwrap()) });
                }
            }
            all.join_all().await
        });
        let listed = revoked(bench);
        let mut issued = 0;
        for (n, outcome) in all.into_iter().filter(|(n, _)| *n > 0) {
            match outcome {
                Issued::Locked(_) => {}
                FRESH => {
                    issued += 1;
                    assert!(listed.contains(&(2 * n)) && listed.contains(&(2 * n + 1)), "{n} is good");
                }
                other => panic!("{other:?}"),
            }
        }
        let recorded =
            bench.number(&format!("SELECT count(*) FROM events WHERE bot = '{bot}' AND event = 'issued'"));
        assert_eq!(recorded, issued);
        assert!(shut_out(&bench.issue(issuance(first + 99).with(|entry| entry.bot = bot))).is_some());
    }
}

fn a_locked_proof_is_not_used_up_and_what_was_revoked_stays_so(bench: &Bench) {
    let others = bench.again();
    assert_eq!(bench.issue(issuance(1)), FRESH);
    let shut = put(bench, lock(LockKind::Bot, "deployer"));
    assert_eq!((shut.issuances, shut.certificates), (vec!["i1".to_owned()], 2));
    let locked = bench.issue(issuance(2));
    assert_eq!(shut_out(&locked), Some("l-bot-deployer"));
    let known = bench.wait(others.locks(NOW));
    assert_eq!(known.len(), 1);
    assert_eq!((known[0].words(), known[0].by.as_str()), ("bot deployer".to_owned(), "anna"));
    // Put once more, it holds until each is lifted; both are by one command.
    put(
        bench,
        NewLock {
            lock: Lock { id: "again".into(), ..lock(LockKind::Bot, "deployer").lock },
            ..lock(LockKind::Bot, "deployer")
        },
    );
    let lifted = bench.wait(others.unlock(LockKind::Bot, "deployer".into(), NOW + 1, "otto".into()));
    assert_eq!(lifted.len(), 2);
    assert!(bench.wait(others.unlock(LockKind::Bot, "deployer".into(), NOW + 2, "otto".into())).is_empty());
    assert_eq!((bench.issue(issuance(2)), bench.issue(issuance(1))), (FRESH, Issued::Used));
    assert_eq!(revoked(bench), [2, 3]);
    let events: Vec<Value> = bench.events(EventFilter::default());
    let names: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["issued", "locked", "revoked", "locked", "unlocked", "unlocked", "issued"]);
    let told = json!({
        "time": "2026-11-22T12:00:00Z", "event": "locked", "lock_id": "l-bot-deployer", "bot": "deployer", "kind": "bot",
        "value": "deployer", "by": "anna", "message": "taken over", "issuances_revoked": 1, "certificates_revoked": 2,
    });
    assert_eq!(events[1], told);
    assert_eq!((&events[2]["issuance_ids"], &events[2]["reason"]), (&json!(["i1"]), &json!("locked")));
}

/// By the clock of whoever judges and by how long authorities have run: one that is days ahead opens nothing early.
fn a_lock_ends_when_both_clocks_say_so(bench: &Bench) {
    put(bench, NewLock { lasts: Some(600), ..lock(LockKind::All, "") });
    let at = |n, time| issuance(n).with(|entry| entry.time = time);
    assert!(shut_out(&bench.issue(at(1, NOW))).is_some());
    assert!(shut_out(&bench.issue(at(2, NOW + 2 * 86_400))).is_some(), "a clock that is two days ahead");
    bench.advance(601);
    assert!(shut_out(&bench.issue(at(3, NOW + 300))).is_some(), "a clock that stood still");
    assert_eq!(bench.issue(at(4, NOW + 601)), FRESH);
    assert!(bench.wait(bench.store.locks(NOW + 601)).is_empty());
}

fn a_lock_by_name_keeps_the_ids_that_it_has_met(bench: &Bench) {
    let others = bench.again();
    // It was there before, under its name; what it has ended long ago.
    let old = of(1, "octo-org/app", "74")
        .with(|entry| entry.plan.certificates.iter_mut().for_each(|new| new.expires = NOW - 999));
    assert_eq!(bench.issue(old), FRESH);
    let shut = put(bench, lock(LockKind::Repository, "octo-org/app"));
    assert_eq!((shut.met, shut.certificates), (vec!["74".to_owned()], 0));
    assert!(shut_out(&bench.issue(of(2, "octo-org/renamed", "74"))).is_some());
    assert_eq!(bench.issue(of(3, "octo-org/other", "76")), FRESH);
    // One that comes under that name is met then.
    let Issued::Locked(refused) = bench.issue(of(4, "octo-org/app", "99")) else { panic!() };
    assert_eq!(refused.met, ["99"]);
    for _ in 0..2 {
        bench.wait(others.meet(refused.lock.id.clone(), refused.met.clone()));
    }
    for store in [&bench.store, &others] {
        let entry = of(5, "octo-org/new-name", "99");
        assert!(shut_out(&bench.wait(store.issue(entry.entry, entry.plan))).is_some());
    }
    assert_eq!(bench.wait(others.locks(NOW))[0].met, ["74", "99"]);
}

/// Whoever writes to the database lifts none.
fn no_row_that_was_changed_lifts_a_lock(bench: &Bench) {
    for (change, nth) in [
        "lifted = 1, lifted_by = 'x'",
        "until = 5, held_to_run = 0",
        "met = '[]'",
        "mac = NULL",
        "kind = 'other', value = ''",
    ]
    .into_iter()
    .zip(1_u64..)
    {
        let n = 10 * nth;
        assert_eq!(bench.issue(of(n, "octo-org/app", "74")), FRESH);
        put(bench, lock(LockKind::Repository, "octo-org/app"));
        bench.meddle(&format!("UPDATE locks SET {change}")).unwrap();
        bench.meddle("UPDATE state SET locks = locks + 1").unwrap();
        assert!(shut_out(&bench.issue(of(n + 1, "octo-org/app", "74"))).is_some(), "{change}");
        assert!(bench.store.tampered().is_some());
        // An operator does.
        let Lock { kind, value, .. } = bench.wait(bench.store.locks(NOW)).remove(0);
        assert_eq!(bench.wait(bench.store.unlock(kind, value, NOW, "anna".into())).len(), 1);
        assert_eq!(bench.issue(of(n + 2, "octo-org/app", "74")), FRESH, "{change}");
        bench.meddle("DELETE FROM locks").unwrap();
    }
}

fn what_is_locked_is_known_to_whoever_is_started(bench: &Bench) {
    put(bench, lock(LockKind::All, ""));
    let late = bench.again();
    let entry = issuance(1);
    assert!(shut_out(&bench.wait(late.issue(entry.entry, entry.plan))).is_some());
    // What cannot be read is in nobody's way.
    bench
        .meddle("INSERT INTO events (sequence, time, event, id, body) VALUES (900, 1, 'issued', 'x', '')")
        .unwrap();
    assert!(put(bench, NewLock { dry_run: true, ..lock(LockKind::Bot, "x") }).issuances.is_empty());
}

promises! {
    whoever_listens_hears_that_something_was_revoked_and_whether_operators_did,
    each_kind_of_lock_refuses_and_revokes_what_it_names_and_nothing_else,
    of_an_exchange_and_a_lock_that_race_nothing_works_afterwards,
    a_locked_proof_is_not_used_up_and_what_was_revoked_stays_so,
    a_lock_ends_when_both_clocks_say_so,
    a_lock_by_name_keeps_the_ids_that_it_has_met,
    no_row_that_was_changed_lifts_a_lock,
    what_is_locked_is_known_to_whoever_is_started,
}
