//! How far a server goes on by itself with what is let go.

use super::super::super::conformance::pruning::{days, of_day};
use super::*;

const DAY: i64 = 86_400;

#[test]
fn a_clock_that_is_ahead_lets_go_no_more_than_time_does() {
    let bench = Bench::new();
    for n in 1..=9 {
        bench.issue(of_day(n));
    }
    bench.wait(bench.store.let_go(NOW + 2 * DAY, NOW + 99 * DAY, true));
    assert_eq!(days(&bench).len(), 8);
    let ahead = || bench.wait(bench.store.let_go(NOW + 9999 * DAY, NOW, false));
    assert_eq!(ahead(), 0);
    bench.advance(2 * DAY + 60);
    assert_eq!(ahead(), 2, "days 2 and 3: the certificates of day 4 had not ended then");
    assert_eq!(ahead(), 0, "and not again");
    assert_eq!(bench.number("SELECT count(*) FROM events WHERE event = 'pruned'"), 2);
}
