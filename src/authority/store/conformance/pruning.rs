//! What is let go of the trail, by whoever may, and what never is.

use super::fixtures::*;
use super::*;

const DAY: i64 = 86_400;

/// Issuance `n` of day `n`, whose certificates end an hour later.
pub(in crate::authority::store) fn of_day(n: u64) -> Entry {
    let time = NOW + i64::try_from(n).unwrap() * DAY;
    issuance(n).with(|entry| {
        entry.entry.time = time;
        entry.plan.certificates.iter_mut().for_each(|certificate| certificate.expires = time + 3600);
    })
}

pub(in crate::authority::store) fn days(bench: &Bench) -> Vec<String> {
    bench.names(EventFilter { event: Some("issued".into()), ..Default::default() })
}

fn what_is_old_goes_but_for_what_lasts_and_the_last_event(bench: &Bench) {
    for n in 1..=9 {
        bench.issue(match n {
            2 => of_day(n).with(|entry| entry.plan.certificates[1].expires = NOW + 400 * DAY),
            n => of_day(n),
        });
    }
    let later = revocation(2, "two");
    assert_eq!(bench.wait(bench.store.revoke(NewRevocation { time: NOW + 10 * DAY, ..later })), Revoked::Now);
    let let_go = |before, asked| bench.wait(bench.owner().let_go(before, before + 30 * DAY, asked));
    // Not by itself for a first time, however long it runs.
    bench.advance(100 * DAY);
    assert_eq!(let_go(NOW + 6 * DAY, false), 0);
    assert_eq!((days(bench).len(), bench.wait(bench.store.kept_from())), (9, 0));

    assert_eq!(let_go(NOW + 6 * DAY, true), 4);
    assert_eq!(days(bench), ["issued i2", "issued i6", "issued i7", "issued i8", "issued i9"]);
    let told = bench.events(EventFilter { event: Some("pruned".into()), ..Default::default() });
    assert_eq!((&told[0]["events"], &told[0]["until"]), (&json!(4), &json!("2026-11-28T12:00:00Z")));
    assert_eq!(bench.wait(bench.store.kept_from()), NOW + 6 * DAY);
    assert!(
        bench.wait(bench.store.certificate(2)).is_none() && bench.wait(bench.store.certificate(12)).is_some()
    );
    let revoked: Vec<u64> =
        bench.wait(bench.store.revoked(NOW + 10 * DAY)).iter().map(|one| one.serial).collect();
    assert_eq!(revoked, [5], "it has not ended");
    assert_eq!(let_go(NOW + 3 * DAY, true), 0, "what is let go is not kept again");
    // Of an issuance that was revoked, not before the assertion is forgotten.
    bench.wait(bench.store.prune(NOW + DAY));
    // All, however late it is; but the last event, which is the one that tells of this.
    let_go(NOW + 999 * DAY, true);
    assert_eq!(bench.events(EventFilter::default()).len(), 1);
    assert_eq!(bench.issue(of_day(1000).with(|entry| entry.replay.held.until += 1)), FRESH);
    assert_eq!(bench.number("SELECT max(sequence) FROM events"), 13, "no number comes again");
}

fn the_database_keeps_what_is_not_let_go(bench: &Bench) {
    for n in 1..=4 {
        bench.issue(of_day(n));
    }
    bench.wait(bench.owner().let_go(NOW + 2 * DAY, NOW, true));
    for (sql, why) in [
        ("DELETE FROM events WHERE sequence = 3", "append-only"),
        ("DELETE FROM certificates WHERE serial = 6", "certificates stay on record"),
        ("UPDATE state SET kept_from = 0", "only"),
        ("DELETE FROM events WHERE sequence = (SELECT max(sequence) FROM events)", "append-only"),
    ] {
        let error = bench.meddle(sql).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
    // Even if all may go, the last event does not, nor one whose certificates are there.
    let rest = format!("UPDATE state SET kept_from = {}; DELETE FROM events", NOW + 9999 * DAY);
    assert!(bench.meddle(&rest).unwrap_err().contains("append-only"));
}

fn more_than_one_step_goes_while_exchanges_go_on(bench: &Bench) {
    let many = 2 * 256 + 1;
    bench.issue_all((0..many).map(issuance).collect()).into_iter().for_each(|issued| drop(issued.unwrap()));
    let (owner, fresh) = (bench.owner(), of_day(5000));
    let (gone, issued) = bench.runtime.block_on(async {
        tokio::join!(
            owner.let_go(NOW + DAY, NOW + DAY, true),
            bench.store.issue(fresh.entry.clone(), fresh.plan.clone())
        )
    });
    assert_eq!((gone.unwrap(), issued.unwrap()), (many, FRESH));
    assert_eq!(bench.number("SELECT count(*) FROM certificates"), 2);
}

promises! {
    what_is_old_goes_but_for_what_lasts_and_the_last_event,
    the_database_keeps_what_is_not_let_go,
    more_than_one_step_goes_while_exchanges_go_on,
}
