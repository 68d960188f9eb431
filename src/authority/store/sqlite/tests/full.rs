//! Disks that are full, or cannot be written to.

use ring::digest::{SHA256, digest};

use super::*;
use crate::text::hex;

#[test]
fn a_full_disk_is_an_error_and_leaves_no_record() {
    let bench = Bench::new();
    bench.issue(issuance(1));
    bench.wait(bench.store.ready());
    let pages = |limit: i64| {
        bench.store.writer.write(Room::Any, move |connection| {
            let wanted =
                if limit == 0 { "page_count".to_owned() } else { format!("max_page_count = {limit}") };
            connection.query_row(&format!("PRAGMA {wanted}"), [], |row| row.get::<_, i64>(0))
        })
    };
    let now = bench.wait(pages(0));
    bench.wait(pages(now));
    let mut entries: Vec<Entry> = (2..10).map(issuance).collect();
    for entry in &mut entries {
        // Nothing that could be packed.
        let noise = (0..300_u16).map(|n| hex(digest(&SHA256, &n.to_be_bytes()).as_ref()));
        entry.plan.certificates[0].options = [("noise".to_owned(), noise.collect())].into();
    }
    for answer in bench.issue_all(entries) {
        let error = answer.unwrap_err();
        assert!(error.to_string().contains("full"), "{error}");
    }
    assert_eq!(bench.names(EventFilter::default()), ["issued i1"]);
    bench.wait(pages(1 << 30));
    // The reserve is set aside again within a second.
    let again =
        || bench.try_issue(issuance(2)).inspect_err(|_| std::thread::sleep(Duration::from_millis(50)));
    let answer = std::iter::repeat_with(again).take(100).find_map(Result::ok);
    assert_eq!(answer, Some(FRESH));
}

#[test]
fn what_cannot_be_written_is_not_ready() {
    let bench = Bench::new();
    bench.wait(bench.store.ready());
    // Takes effect at the next transaction, as a file system that has turned read-only would.
    bench.wait(
        bench.store.writer.write(Room::Any, |connection| connection.pragma_update(None, "query_only", true)),
    );
    assert!(bench.runtime.block_on(bench.store.ready()).is_err());
    assert!(bench.try_issue(issuance(1)).is_err());
    assert!(bench.events(EventFilter::default()).is_empty());
}
