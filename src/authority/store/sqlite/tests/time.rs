//! What is forgotten by time, and clocks that are wrong.

use super::*;

#[test]
fn the_odometer_goes_on_after_a_restart_and_never_says_too_much() {
    let bench = Bench::new();
    bench.store.odometer.advance(1000);
    bench.wait(bench.store.prune(NOW));
    bench.store.odometer.advance(500);
    let again = Sqlite::open(&bench.path(), &StoreKey::beside(&bench.path()), NOW).unwrap();
    assert!((1000..1400).contains(&again.odometer.now()), "{}", again.odometer.now());
}
