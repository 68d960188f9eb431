//! What is forgotten by time, and clocks that are wrong.

use super::fixtures::*;
use super::*;

/// The clock is ahead for as long as it likes, or goes back: a used proof stays used.
fn a_clock_that_is_wrong_makes_no_proof_new(bench: &Bench) {
    const DAYS: i64 = 2 * 86_400;
    bench.set_clock(NOW);
    assert_eq!(bench.issue(issuance(1)), FRESH);
    // Twenty minutes are longer than it is good for, and four minutes are not.
    bench.advance(240);
    bench.wait(bench.store.prune(NOW + DAYS));
    assert_eq!(bench.proofs(), 1, "by how long the authority has been running");
    assert_eq!(bench.issue(other(1, 2)), Issued::Used);
    bench.advance(1200);
    bench.set_clock(NOW + 1440);
    bench.wait(bench.store.prune(NOW + DAYS));
    assert_eq!(bench.proofs(), 0, "it is forgotten at last");
    for store in [&bench.store, &bench.again()] {
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

promises!(a_clock_that_is_wrong_makes_no_proof_new,);
