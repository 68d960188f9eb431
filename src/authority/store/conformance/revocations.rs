//! What is revoked stays so, and whoever asks hears of it.

use super::fixtures::*;
use super::*;

fn what_ends_within_a_minute_of_its_revocation_is_on_no_list(bench: &Bench) {
    for (n, left) in [(1, 60), (2, 61)] {
        let revoked = revocation(n, "a").time;
        let ends = |one: &mut NewCertificate| one.expires = revoked + left;
        bench.issue(issuance(n).with(|entry| entry.plan.certificates.iter_mut().for_each(ends)));
        assert_eq!(bench.revoke(n, "a"), Revoked::Now);
    }
    let list = bench.wait(bench.store.revoked(NOW));
    assert_eq!(list.iter().map(|one| one.serial).collect::<Vec<_>>(), [4, 5]);
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
    let dir = dir.path().join("keys");
    crate::authority::keys::file::create(&dir, "id.test", NOW).unwrap();
    let keys = crate::authority::keys::file::load(&dir, crate::folder::trust::Owner::me()).unwrap();
    let cache = crate::authority::revocation::ListCache::default();
    let krl = || bench.wait(cache.lists(bench.store.as_ref(), &keys, NOW)).krl.clone();
    let before = krl();
    assert_eq!((krl(), bench.store.revocations()), (before.clone(), 0));
    assert_eq!(krl().as_ptr(), before.as_ptr(), "each answer has a list of its own");
    bench.runtime.block_on(async {
        let mut asked = bench.store.revoke(revocation(1, "a"));
        drop(asked.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())));
    });
    // Whoever writes next is answered after it.
    assert_eq!(bench.revoke(2, "a"), Revoked::Unknown);
    let after = krl();
    assert_ne!(after, before);
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
    what_ends_within_a_minute_of_its_revocation_is_on_no_list,
    an_issuance_is_revoked_whole_and_an_assertion_used_once,
    of_twenty_revocations_at_once_one_is_now,
    a_revocation_counts_though_nobody_waits_for_it,
);
