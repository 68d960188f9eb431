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

/// What the odometer holds back is in nobody's way: each proof is looked at once, whatever stands before it.
#[test]
fn what_is_held_back_hides_nothing_behind_it() {
    let bench = Bench::new();
    let answers = bench.issue_all((0..30).map(issuance).collect());
    assert!(answers.iter().all(Result::is_ok));
    bench.store.odometer.advance(301);
    // Later ones, of an authority that has been running for that long, all of the same second.
    assert!(bench.issue_all((30..60).map(issuance).collect()).iter().all(Result::is_ok));
    let run = bench.store.odometer.now();
    let seen = bench.wait(bench.store.reader.read(move |connection| {
        let (mut place, mut seen) = (Some((i64::MIN, 0)), Vec::new());
        while let Some(after) = place {
            let (due, next) = reads::forgettable(connection, NOW + 301, run, after, 7)?;
            assert!(next.is_none_or(|next| next > after));
            seen.extend(due);
            place = next;
        }
        Ok(seen)
    }));
    assert_eq!(seen, (1..=30).collect::<Vec<i64>>());
    bench.wait(bench.store.prune(NOW + 301));
    assert_eq!(bench.number("SELECT count(*) FROM proofs"), 30);
    assert_eq!(bench.issue(other(31, 70)), Issued::Used, "it ends no later than those that are forgotten");
}
