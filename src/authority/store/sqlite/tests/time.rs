//! What is forgotten by time, and clocks that are wrong.

use super::*;

/// The clock is ahead for as long as it likes, or goes back: a used proof stays used.
#[test]
fn a_clock_that_is_wrong_makes_no_proof_new() {
    const DAYS: i64 = 2 * 86_400;
    let bench = Bench::new();
    assert_eq!(bench.issue(issuance(1)), FRESH);
    // Twenty minutes are longer than it is good for, and four minutes are not.
    bench.store.odometer.advance(240);
    bench.wait(bench.store.prune(NOW + DAYS));
    assert_eq!(bench.issue(other(1, 2)), Issued::Used);
    bench.store.odometer.advance(1200);
    bench.wait(bench.store.prune(NOW + DAYS));
    assert_eq!(bench.proofs(), 0, "it is forgotten at last");
    for store in [&bench.store, &Arc::new(Sqlite::open(&bench.path(), Owner::me(), NOW).unwrap())] {
        let entry = other(1, 3);
        assert_eq!(
            bench.wait(store.issue(entry.entry, entry.plan)),
            Issued::Used,
            "and ends no later than those"
        );
    }
    // Whatever ends later cannot be among them: nobody honest is kept out, whatever the clock said.
    assert_eq!(bench.issue(issuance(4).with(|entry| entry.replay.held.until += 1)), FRESH);
}

#[test]
fn the_odometer_goes_on_after_a_restart_and_never_says_too_much() {
    let bench = Bench::new();
    bench.store.odometer.advance(1000);
    bench.wait(bench.store.prune(NOW));
    bench.store.odometer.advance(500);
    let again = Sqlite::open(&bench.path(), Owner::me(), NOW).unwrap();
    assert!((1000..1400).contains(&again.odometer.now()), "{}", again.odometer.now());
}
