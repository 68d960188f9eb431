//! A proof is used once, and what was used is remembered.

use super::fixtures::*;
use super::*;

fn of_twenty_at_once_with_other_keys_one_is_fresh(bench: &Bench) {
    for round in 0..20 {
        let entries = (0..20).map(|n| other(round, 1000 + round * 20 + n)).collect();
        let answers: Vec<Issued> = bench.issue_all(entries).into_iter().map(Result::unwrap).collect();
        assert_eq!(answers.iter().filter(|answer| **answer == FRESH).count(), 1);
        assert_eq!(answers.iter().filter(|answer| **answer == Issued::Used).count(), 19);
    }
    assert_eq!(bench.events(EventFilter::default()).len(), 20);
}

fn of_twenty_at_once_as_many_are_fresh_as_the_proof_has_uses(bench: &Bench) {
    let uses = |n: u64| other(0, 1000 + n).with(|entry| entry.max_uses = 3);
    let answers: Vec<Issued> =
        bench.issue_all((0..20).map(uses).collect()).into_iter().map(Result::unwrap).collect();
    assert_eq!(answers.iter().filter(|answer| **answer == FRESH).count(), 3);
    assert_eq!(answers.iter().filter(|answer| **answer == Issued::Used).count(), 17);
    // Each of the three is answered again, and none is a use of another proof.
    let again = bench.issue_all((0..20).map(uses).collect()).into_iter().map(Result::unwrap);
    assert_eq!(again.filter(|answer| matches!(answer, Issued::Accepted { plan: Some(_), .. })).count(), 3);
    assert_eq!(bench.issue(issuance(1)), FRESH);
    // A rule that was made stricter meanwhile counts what was used before.
    assert_eq!(bench.issue(other(0, 2000).with(|entry| entry.max_uses = 2)), Issued::Used);
}

fn of_twenty_at_once_with_the_same_keys_all_get_one_plan(bench: &Bench) {
    let same = |n: u64| issuance(100 + n).with(|entry| entry.replay = issuance(0).entry.replay);
    let answers: Vec<Issued> =
        bench.issue_all((0..20).map(same).collect()).into_iter().map(Result::unwrap).collect();
    assert_eq!(answers.iter().filter(|answer| **answer == FRESH).count(), 1);
    let event = &bench.events(EventFilter::default())[0];
    let first = event["issuance_id"].as_str().unwrap().trim_start_matches('i').parse().unwrap();
    let repeats = answers.iter().filter(|answer| **answer == retry(first));
    assert_eq!(repeats.count(), 19, "{answers:?}");
}

fn a_proof_is_of_its_issuer_and_lives_until_it_is_pruned(bench: &Bench) {
    assert_eq!(bench.issue(issuance(1)), FRESH);
    let mut elsewhere = other(1, 2);
    elsewhere.replay.issuer = "https://elsewhere".into();
    assert_eq!(bench.issue(elsewhere), FRESH);
    // Until and at its time it holds, restarted or not.
    bench.wait(bench.store.prune(NOW + 300));
    let again = bench.again();
    let other_keys = other(1, 3);
    assert_eq!(bench.wait(again.issue(other_keys.entry, other_keys.plan)), Issued::Used);
    assert_eq!(bench.issue(issuance(1)), retry(1));
    bench.advance(301);
    bench.wait(bench.store.prune(NOW + 301));
    assert_eq!(bench.proofs(), 0);
}

fn pruning_takes_more_than_one_step(bench: &Bench) {
    let many = 401_u64;
    for answer in bench.issue_all((0..many).map(issuance).collect()) {
        assert_eq!(answer.unwrap(), FRESH);
    }
    bench.advance(301);
    bench.wait(bench.store.prune(NOW + 301));
    assert_eq!(bench.proofs(), 0);
    // Certificates and the trail stay.
    assert!(bench.wait(bench.store.certificate(2)).is_some());
    assert_eq!(bench.events(EventFilter::default()).len(), 401);
}

fn serials_are_unique_over_both_kinds_and_fit(bench: &Bench) {
    bench.issue(issuance(1));
    let mut entry = issuance(2);
    entry.plan.certificates[0].serial = 3; // of 1's TLS certificate
    assert!(bench.try_issue(entry).is_err());
    let mut entry = issuance(2);
    entry.plan.certificates[0].serial = 1 << 63;
    assert!(bench.try_issue(entry).is_err());
    let mut entry = issuance(2);
    entry.plan.certificates.clear();
    assert!(bench.try_issue(entry).is_err());
    assert_eq!(bench.names(EventFilter::default()), ["issued i1"]);
    assert_eq!(bench.wait(bench.store.certificate(1 << 63)), None);
}

promises!(
    of_twenty_at_once_with_other_keys_one_is_fresh,
    of_twenty_at_once_as_many_are_fresh_as_the_proof_has_uses,
    of_twenty_at_once_with_the_same_keys_all_get_one_plan,
    a_proof_is_of_its_issuer_and_lives_until_it_is_pruned,
    pruning_takes_more_than_one_step,
    serials_are_unique_over_both_kinds_and_fit,
);
