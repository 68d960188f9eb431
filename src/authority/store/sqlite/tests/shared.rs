//! What authorities tell one another costs an idle store nothing.

use super::*;

fn spent(key: u8, seconds: f64, age: f64) -> Spent {
    Spent { key: [key; 16], seconds, age }
}

#[test]
fn a_store_that_nobody_uses_is_not_written() {
    let bench = Bench::new();
    // The log has something in it once something was written.
    bench.wait(bench.store.ready());
    let commits = bench.commits();
    for _ in 0..3 {
        assert_eq!(bench.wait(bench.store.spend(Vec::new())), []);
    }
    assert_eq!(bench.commits(), commits);
    let heard = bench.wait(bench.store.spend(vec![spent(1, 10.0, 0.0)]));
    assert!((heard[0].seconds - 10.0).abs() < 0.1, "{heard:?}");
    let commits = bench.commits();
    bench.wait(bench.store.spend(Vec::new()));
    assert_eq!(bench.commits(), commits);
    bench.store.odometer.advance(71);
    assert_eq!(bench.wait(bench.store.spend(Vec::new())), [], "and what is free again goes by itself");
    assert_eq!(bench.commits(), commits + 1);
}
