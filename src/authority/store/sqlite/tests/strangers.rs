//! Refusals of strangers: how many, how much, and in which order.

use super::super::strangers;
use super::*;
use crate::authority::store::Stranger;
use crate::authority::store::bounds::{MAX_BYTES, MAX_ROWS};

impl Bench {
    /// Many refusals in one transaction.
    fn refuse_all(&self, refusals: Vec<NewRefusal>) {
        self.wait(self.store.writer.write(Room::Any, move |connection| {
            let append =
                |one: &NewRefusal| strangers::append(connection, one.stranger.unwrap(), &event::refused(one));
            refusals.iter().try_for_each(append)
        }));
    }

    /// What the file has in use, in bytes.
    fn used(&self) -> i64 {
        self.number(
            "SELECT (page_count - freelist_count) * page_size
                     FROM pragma_page_count(), pragma_freelist_count(), pragma_page_size()",
        )
    }
}

#[test]
fn strangers_are_bounded_in_number_and_bytes_and_leave_others_alone() {
    let bench = Bench::new();
    bench.issue(issuance(1));
    bench.wait(bench.store.refuse(stranger("d-verified", Stranger::Verified, 10)));
    let before = bench.used();
    // Small ones, then large ones.
    for (claims, many) in [(0, MAX_ROWS + 500), (900, 7000)] {
        let one = |n| stranger(&format!("d-{claims}-{n}"), Stranger::Unverified, claims);
        bench.refuse_all((0..many).map(one).collect());
        let kept = bench.number("SELECT count(*) FROM strangers WHERE ring = 0");
        let bytes = bench
            .number("SELECT sum(length(body) + length(token) + length(id)) FROM strangers WHERE ring = 0");
        println!("{kept} rows, {bytes} bytes, the file grew by {}", bench.used() - before);
        assert!(kept <= MAX_ROWS && bytes <= MAX_BYTES);
        assert!(kept == MAX_ROWS || bytes > MAX_BYTES - 20_000, "as many as there is room for");
        assert!(bench.used() - before < 2 * MAX_BYTES);
        assert_eq!(bench.wait(bench.store.dropped()), bench.number("SELECT max(nth) FROM strangers") - kept);
    }
    let found = |id: &str| bench.names(EventFilter { id: Some(id.into()), ..EventFilter::default() });
    assert!(found("d-0-0").is_empty());
    assert_eq!(found("d-verified"), ["refused d-verified"], "nobody unverified pushes it out");
    assert_eq!(bench.number("SELECT count(*) FROM events"), 1, "the trail has none of them");
}
