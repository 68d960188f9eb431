//! What is revoked stays so, and whoever asks hears of it.

use super::fixtures::*;
use super::*;

/// Those of issuance `n` end then.
fn ending(n: u64, expires: i64) -> Entry {
    issuance(n).with(|entry| {
        entry.plan.certificates.iter_mut().for_each(|certificate| certificate.expires = expires)
    })
}

/// Whoever has shut it out within its last minute wants it refused by then.
fn what_ends_soon_is_listed_until_it_does(bench: &Bench) {
    let revoked = revocation(1, "a").time;
    for (n, left) in [(1, 1), (2, 60)] {
        bench.issue(ending(n, revoked + left));
        assert_eq!(bench.revoke(n, "a"), Revoked::Now);
    }
    let listed = |since| bench.wait(bench.store.revoked(since)).into_iter().map(|one| one.serial);
    assert_eq!(listed(revoked + 1).collect::<Vec<_>>(), [2, 3, 4, 5]);
    assert_eq!(listed(revoked + 2).collect::<Vec<_>>(), [4, 5]);
}

/// By whomever, of whatever serial, and whatever the clocks say.
fn what_was_revoked_since_is_found_and_nothing_else(bench: &Bench) {
    let other = bench.again();
    (1..8).for_each(|n| drop(bench.issue(issuance(n))));
    bench.issue(ending(8, NOW - 1));
    let first = bench.wait(bench.store.revoked_since(NOW, None));
    assert!(first.is_all && first.certificates.is_empty());
    let (mut all, mut upto) = (Vec::new(), first.upto);
    let mut since = |store: &Arc<dyn Store>| {
        let found = bench.wait(store.revoked_since(NOW, Some(upto)));
        assert!(!found.is_all);
        upto = found.upto;
        let mut serials: Vec<u64> = found.certificates.iter().map(|one| one.serial).collect();
        serials.sort_unstable();
        // Together they are what is there.
        all.extend(found.certificates);
        all.sort_by_key(|one: &RevokedCertificate| one.serial);
        assert_eq!(all, bench.wait(bench.store.revoked(NOW)));
        serials
    };
    assert!(since(&bench.store).is_empty());
    // Another authority's or command's, of a clock that is ahead, and then behind; the later one has the lower serial.
    let at = |n, time| NewRevocation { time, ..revocation(n, "a") };
    assert_eq!(bench.wait(other.revoke(at(5, NOW + 30))), Revoked::Now);
    assert_eq!(since(&bench.store), [10, 11]);
    assert_eq!(bench.wait(bench.store.revoke(at(3, NOW - 7200))), Revoked::Now);
    assert_eq!(bench.wait(other.revoke(at(4, NOW))), Revoked::Now);
    assert_eq!((since(&other), since(&bench.store)), (vec![6, 7, 8, 9], Vec::<u64>::new()));
    bench.wait(other.lock(lock(LockKind::Serial, "2")));
    assert_eq!(since(&bench.store), [2, 3]);
    // Of what has ended it is not told.
    assert_eq!(bench.revoke(8, "a"), Revoked::Now);
    assert_eq!(bench.revoke(5, "b"), Revoked::Before);
    assert_eq!((since(&bench.store), since(&bench.store)), (Vec::<u64>::new(), Vec::<u64>::new()));
    // Of a store that was put back nothing is known, however much was revoked in it since.
    let last = bench.number("SELECT max(sequence) FROM events");
    assert_eq!(bench.revoke(6, "a"), Revoked::Now);
    assert_eq!(since(&bench.store), [12, 13]);
    bench.put_back(last);
    assert!(bench.runtime.block_on(bench.store.revoked_since(NOW, Some(upto))).is_err());
    let is_lost = |store: &Arc<dyn Store>| bench.runtime.block_on(store.mark()).is_err();
    assert!(is_lost(&bench.store));
    let command = bench.again();
    assert!(is_lost(&command));
    bench.wait(command.resume(NOW));
    assert!(!is_lost(&bench.store));
    let found = bench.wait(bench.store.revoked_since(NOW, Some(upto)));
    assert!(found.is_all && found.certificates.len() >= 8 && found.upto != upto);
    assert!(!bench.wait(bench.store.revoked_since(NOW, Some(found.upto))).is_all);
}

fn an_issuance_is_revoked_whole_and_an_assertion_used_once(bench: &Bench) {
    bench.issue(issuance(1));
    bench.issue(issuance(2));
    let recorded = bench.wait(bench.store.certificate(2)).unwrap();
    assert_eq!((recorded.issuance_id.as_str(), recorded.key_hash), ("i1", [2; 32]));
    assert_eq!((recorded.kind, recorded.expires, recorded.revoked), (CertificateKind::Ssh, NOW + 3600, None));
    assert!(bench.wait(bench.store.revoked(NOW)).is_empty());

    assert_eq!(bench.revoke(9, "a"), Revoked::Unknown);
    assert_eq!(bench.revoke(1, "a"), Revoked::Now);
    assert_eq!(bench.revoke(1, "a"), Revoked::AssertionUsed);
    assert_eq!(bench.revoke(1, "b"), Revoked::Before);
    // Another issuance's assertions are its own.
    assert_eq!(bench.revoke(2, "b"), Revoked::Now);

    assert_eq!(bench.wait(bench.store.certificate(3)).unwrap().revoked, Some(NOW + 2));
    let list = bench.wait(bench.store.revoked(NOW));
    assert_eq!((list[0].revoked, list[0].expires), (NOW + 2, NOW + 3600));
    let serials: Vec<_> = list.iter().map(|one| (one.serial, one.kind)).collect();
    let (ssh, tls) = (CertificateKind::Ssh, CertificateKind::Tls);
    assert_eq!(serials, [(2, ssh), (3, tls), (4, ssh), (5, tls)]);
    assert_eq!(bench.wait(bench.store.revoked(NOW + 3600)).len(), 4);
    assert!(bench.wait(bench.store.revoked(NOW + 3601)).is_empty());

    // The retry of what was revoked gets nothing.
    assert_eq!(bench.issue(issuance(1)), Issued::Used);
    assert_eq!(bench.names(EventFilter::default()), ["issued i1", "issued i2", "revoked i1", "revoked i2"]);
    assert_eq!(
        bench.events(EventFilter { event: Some("revoked".into()), ..Default::default() })[0],
        json!({
            "time": "2026-11-22T12:00:02Z", "event": "revoked", "issuance_id": "i1", "bot": "deployer",
            "token": "github-deploy", "join_method": "github", "serials": ["2", "3"],
            "provenance": "github:octo-org/app@refs/heads/main run 1 attempt 1",
            "reason": "given_back", "peer": "192.0.2.7",
        })
    );
    // A pruned assertion no longer matters, for the issuance is revoked.
    bench.advance(63);
    bench.wait(bench.store.prune(NOW + 63));
    assert_eq!(bench.revoke(1, "a"), Revoked::Before);
}

fn of_twenty_revocations_at_once_one_is_now(bench: &Bench) {
    bench.issue(issuance(1));
    let answers = bench.runtime.block_on(async {
        let mut all = JoinSet::new();
        for n in 0..20 {
            let store = Arc::clone(&bench.store);
            all.spawn(async move { store.revoke(revocation(1, &format!("a{}", n % 10))).await.unwrap() });
        }
        all.join_all().await
    });
    let count = |wanted| answers.iter().filter(|answer| **answer == wanted).count();
    assert_eq!((count(Revoked::Now), count(Revoked::Before), count(Revoked::AssertionUsed)), (1, 18, 1));
}

/// A caller that hangs up once its entry is queued does not keep the lists as they were.
fn a_revocation_counts_though_nobody_waits_for_it(bench: &Bench) {
    bench.issue(issuance(1));
    let dir = tempfile::tempdir().unwrap();
    let keys = crate::authority::keys::tests::new_keys(dir.path(), NOW);
    let cache = crate::authority::revocation::ListCache::default();
    let lists = || bench.wait(cache.lists(bench.store.as_ref(), &keys, NOW, false)).0;
    let before = lists();
    assert!(
        Arc::ptr_eq(&lists(), &before) && bench.store.revocations() == 0,
        "each answer has a list of its own"
    );
    bench.runtime.block_on(async {
        let mut asked = bench.store.revoke(revocation(1, "a"));
        drop(asked.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())));
    });
    // Whoever writes next is answered after it.
    assert_eq!(bench.revoke(2, "a"), Revoked::Unknown);
    assert_ne!(lists().krl, before.krl);
    // Nothing is built anew where nothing was revoked.
    let count = bench.store.revocations();
    assert_eq!(bench.revoke(1, "a"), Revoked::AssertionUsed);
    assert_eq!(bench.revoke(1, "b"), Revoked::Before);
    assert_eq!(bench.store.revocations(), count);
}

/// Of any clock, over restarts and replicas.
fn list_numbers_rise_and_are_drawn_once(bench: &Bench) {
    const SECOND: u64 = 1_000_000_000;
    let mut last = 0;
    let (again, mut what) = (bench.again(), [0; 32]);
    for now in [NOW, NOW + 7200, NOW, i64::MIN, 0, NOW + 7200, i64::MAX, i64::MAX] {
        for store in [&bench.store, &again] {
            what[0] += 1;
            let next = bench.wait(store.list_number(now, what)).number;
            assert!(next > last && i64::try_from(next).is_ok(), "{last} {next} at {now}");
            assert!(now != NOW || last > 0 || next / SECOND == u64::try_from(NOW).unwrap(), "{next}");
            last = next;
        }
    }
}

promises!(
    list_numbers_rise_and_are_drawn_once,
    what_ends_soon_is_listed_until_it_does,
    what_was_revoked_since_is_found_and_nothing_else,
    an_issuance_is_revoked_whole_and_an_assertion_used_once,
    of_twenty_revocations_at_once_one_is_now,
    a_revocation_counts_though_nobody_waits_for_it,
);
