//! A store that lacks what it had, known by whoever has seen more.

use super::super::lost;
use super::fixtures::*;
use super::*;

/// What it says that it has lost.
fn loss(bench: &Bench, store: &Arc<dyn Store>) -> Option<String> {
    let marked = bench.runtime.block_on(store.mark());
    marked.err().map(|error| lost(&error).unwrap_or_else(|| panic!("{error:?}")).to_string())
}

fn issue(bench: &Bench, store: &Arc<dyn Store>, entry: Entry) -> Result<Issued> {
    let restored = store.restored().map(|restored| restored.time);
    let entry = entry.with(|entry| entry.restored = restored);
    bench.runtime.block_on(store.issue(entry.entry, entry.plan))
}

fn names(bench: &Bench) -> Vec<String> {
    let of = |event: &Value| event["event"].as_str().unwrap().to_owned();
    bench.events(EventFilter::default()).iter().map(of).collect()
}

fn whoever_has_seen_more_stops_at_once_and_so_do_all(bench: &Bench) {
    let others = bench.again();
    (1..=3).for_each(|n| assert_eq!(bench.issue(issuance(n)), FRESH));
    bench.wait(bench.store.add_secret(secret(SECRET, "t")));
    let listed = bench.wait(bench.store.list_number(NOW, [1; 32])).number;
    assert_eq!(loss(bench, &others), None);
    assert_eq!(bench.issue(issuance(4)), FRESH);
    assert_eq!(loss(bench, &bench.store), None);
    bench.put_back(2);

    // Not even what was used before is used again, nor is a list made.
    for error in [
        issue(bench, &bench.store, other(3, 9)).unwrap_err(),
        issue(bench, &bench.store, issuance(1)).unwrap_err(),
        bench.runtime.block_on(bench.store.refuse(refusal("d-1", None))).unwrap_err(),
        bench.runtime.block_on(bench.store.revoke(revocation(1, "a"))).unwrap_err(),
        bench.runtime.block_on(bench.store.revoked(NOW)).unwrap_err(),
        bench.runtime.block_on(bench.store.list_number(NOW, [2; 32])).unwrap_err(),
        bench.runtime.block_on(bench.store.ready()).unwrap_err(),
    ] {
        assert!(lost(&error).is_some(), "{error:?}");
    }
    let found = loss(bench, &bench.store).unwrap();
    assert!(found.contains("ends with event 2 of") && found.contains("it had event 5 of"), "{found}");
    assert!(issue(bench, &others, issuance(8)).is_err());
    // One that starts hears of it too, and another start changes nothing.
    let late = bench.again();
    assert!(loss(bench, &late).is_some() && loss(bench, &bench.again()).is_some());
    assert!(bench.wait(others.admits(&SECRET, "t", NOW)), "nothing was done to it yet");

    // By a clock that is behind.
    bench.wait(late.resume(NOW - 9999));
    for store in [&bench.store, &others, &late] {
        assert_eq!(loss(bench, store), None);
        assert!(store.restored().unwrap().time >= NOW);
        assert!(!bench.wait(store.admits(&SECRET, "t", NOW)), "it may have been used since");
    }
    assert!(bench.wait(bench.store.list_number(NOW, [1; 32])).number > listed);
    // A proof that was judged before is not taken; one of after it is.
    assert!(lost(&bench.try_issue(issuance(10)).unwrap_err()).is_some());
    assert_eq!(issue(bench, &bench.store, issuance(10)).unwrap(), FRESH);
    assert_eq!(names(bench), ["issued", "issued", "lost", "restored", "issued"]);
    let sequences = bench.number("SELECT count(*) FROM events WHERE sequence IN (1, 2, 6, 7, 8)");
    assert_eq!(sequences, 5, "no number comes twice");
    bench.wait(late.resume(NOW));
    assert_eq!(names(bench).len(), 5, "there is nothing to resume from");
}

/// The one that has seen less writes first.
fn a_store_that_has_caught_up_with_others_is_known(bench: &Bench) {
    let others = bench.again();
    assert_eq!(bench.issue(issuance(1)), FRESH);
    assert_eq!(loss(bench, &others), None);
    assert_eq!(bench.issue(issuance(2)), FRESH);
    bench.put_back(1);
    for n in 3..6 {
        assert_eq!(issue(bench, &others, issuance(n)).unwrap(), FRESH);
    }
    assert!(lost(&bench.try_issue(issuance(6)).unwrap_err()).is_some());
    let found = loss(bench, &bench.store).unwrap();
    assert!(found.contains("its event 2 is another than it was"), "{found}");
}

fn one_at_a_time_is_lost_again_and_gone_on_with_again(bench: &Bench) {
    let mut last = None;
    for n in 1..4 {
        let before = bench.number("SELECT coalesce(max(sequence), 0) FROM events");
        assert_eq!(issue(bench, &bench.store, issuance(2 * n)).unwrap(), FRESH);
        assert_eq!(issue(bench, &bench.store, issuance(2 * n + 1)).unwrap(), FRESH);
        bench.put_back(before + 1);
        assert!(issue(bench, &bench.store, issuance(20 + n)).is_err());
        // By its mark at the latest, which a running one leaves each second.
        assert!(loss(bench, &bench.store).is_some());
        let command = bench.again();
        assert!(loss(bench, &command).is_some());
        bench.wait(command.resume(NOW));
        assert_eq!(loss(bench, &bench.store), None);
        let restored = bench.store.restored().map(|restored| restored.time);
        assert!(restored > last, "another each time");
        last = restored;
    }
}

/// Nor by whoever looks while others write: what one has seen is at most what there is when it looks.
fn what_is_written_meanwhile_is_no_loss(bench: &Bench) {
    const WRITERS: usize = 4;
    const EACH: usize = 200;
    bench.runtime.block_on(async {
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let store = Arc::clone(&bench.store);
            writers.spawn(async move {
                for n in 0..EACH {
                    store.refuse(refusal(&format!("d-{writer}-{n}"), None)).await.unwrap();
                }
            });
        }
        let mut readers = JoinSet::new();
        for _ in 0..4 {
            let reading = Arc::clone(&bench.store);
            readers.spawn(async move {
                while reading.revoked(NOW).await.map(drop).map_err(|why| panic!("{why}")).is_ok() {}
            });
        }
        tokio::select! {
            () = async { while writers.join_next().await.transpose().unwrap().is_some() {} } => {}
            ended = readers.join_next() => panic!("{ended:?}"),
        }
    });
}

promises! {
    what_is_written_meanwhile_is_no_loss,
    whoever_has_seen_more_stops_at_once_and_so_do_all,
    a_store_that_has_caught_up_with_others_is_known,
    one_at_a_time_is_lost_again_and_gone_on_with_again,
}
