//! The audit trail, as it is read.

use super::fixtures::*;
use super::*;
use crate::authority::audit;

fn events_say_what_the_contract_says_and_can_be_filtered(bench: &Bench) {
    bench.issue(issuance(1));
    bench.wait(bench.store.refuse(refusal("d-1", Some(r#"{"sub":"other"}"#))));
    bench.wait(bench.store.refuse(refusal("d-2", None)));
    let certificate = issuance(7).plan.certificates.remove(0);
    let host = NewSigned { id: "s1".into(), time: NOW + 10, by: "sign-host", certificate, cas: 0 };
    bench.wait(bench.store.record_signed(host));

    let all = bench.events(EventFilter::default());
    assert_eq!(
        all[0],
        json!({
            "time": "2026-11-22T12:00:00Z", "event": "issued", "issuance_id": "i1", "bot": "deployer",
            "token": "github-deploy", "join_method": "github", "serials": ["2", "3"],
            "provenance": "github:octo-org/app@refs/heads/main run 1 attempt 1",
            "outputs": [
                {"name": "identity", "type": "identity", "kind": "ssh", "serial": "2", "principals": ["deploy"],
                 "expires_at": "2026-11-22T13:00:00Z"},
                {"name": "identity", "type": "identity", "kind": "tls", "serial": "3", "principals": ["deployer"],
                 "expires_at": "2026-11-22T13:00:00Z"}],
            "expires_at": "2026-11-22T13:00:00Z", "peer": "192.0.2.7", "claims": {"sub": "repo:octo-org/app"},
        })
    );
    assert_eq!(
        all[1],
        json!({
            "time": "2026-11-22T12:00:01Z", "event": "refused", "denial_id": "d-1", "token": "other",
            "join_method": "github", "reason": "no_rule_matches", "verified": true, "peer": "192.0.2.8",
            "detail": "the nearest rule wanted repository octo-org/app", "claims": {"sub": "other"},
        })
    );
    assert_eq!(
        (&all[3]["event"], &all[3]["by"], &all[3]["serials"]),
        (&json!("signed"), &json!("sign-host"), &json!(["14"]))
    );

    let some = |set: fn(&mut EventFilter)| {
        let mut filter = EventFilter::default();
        set(&mut filter);
        bench.names(filter)
    };
    assert_eq!(some(|filter| filter.since = Some(NOW + 1)), ["refused d-1", "refused d-2", "signed s1"]);
    assert!(some(|filter| filter.since = Some(NOW + 11)).is_empty());
    assert_eq!(some(|filter| filter.bot = Some("deployer".into())), ["issued i1"]);
    assert_eq!(some(|filter| filter.token = Some("other".into())), ["refused d-1", "refused d-2"]);
    assert_eq!(some(|filter| filter.event = Some("signed".into())), ["signed s1"]);
    assert_eq!(some(|filter| filter.id = Some("d-2".into())), ["refused d-2"]);
    assert!(some(|filter| filter.bot = Some("x' OR '1".into())).is_empty());
}

fn the_trail_is_read_in_pages_and_each_event_once(bench: &Bench) {
    bench.issue_all((0..1234).map(issuance).collect());
    // A clock that stepped back: in the middle of the trail, but before `since`.
    bench.wait(bench.store.refuse(NewRefusal { time: NOW - 10, ..refusal("d-1", None) }));
    bench.issue(issuance(2000));
    let filter = EventFilter { since: Some(NOW), ..Default::default() };
    let (mut text, mut pages) = (String::new(), 0);
    bench.wait(audit::write(&*bench.store, &filter, audit::json, |page| {
        text.push_str(page);
        Ok(true)
    }));
    bench.wait(audit::write(&*bench.store, &filter, audit::json, |_| {
        pages += 1;
        Ok(false)
    }));
    assert_eq!(pages, 1, "nobody reads on");
    let mut ids: Vec<_> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["issuance_id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids.len(), 1235);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 1235);
}

fn what_is_not_before_a_time_is_found_where_clocks_disagree(bench: &Bench) {
    let times: Vec<i64> =
        (0..40).map(|n| n / 2 + [0, 7, -3, 0, 1][usize::try_from(n * n % 5).unwrap()]).collect();
    for (n, time) in times.iter().enumerate() {
        bench.wait(bench.store.refuse(NewRefusal { time: NOW + time, ..refusal(&format!("d-{n}"), None) }));
    }
    for since in -5..30 {
        let later = times.iter().enumerate().filter(|(_, time)| **time >= since);
        let wanted: Vec<String> = later.map(|(n, _)| format!("refused d-{n}")).collect();
        let filter = EventFilter { since: Some(NOW + since), ..EventFilter::default() };
        assert_eq!(bench.names(filter), wanted, "{since}");
    }
}

fn strangers_stand_among_the_others_in_the_order_of_time(bench: &Bench) {
    let kinds = [Stranger::Unverified, Stranger::Verified];
    let mut wanted = Vec::new();
    for n in 0..60u64 {
        let id = format!("d-{n}");
        if n % 3 == 0 {
            bench.issue(issuance(n));
            wanted.push(format!("issued i{n}"));
        } else {
            bench.wait(bench.store.refuse(stranger(&id, kinds[usize::try_from(n % 2).unwrap()], 1)));
            wanted.push(format!("refused {id}"));
        }
    }
    assert_eq!(bench.names(EventFilter::default()), wanted);
    for limit in [1, 2, 7, 60] {
        let (mut names, mut after) = (Vec::new(), Cursor::default());
        loop {
            let page = bench.wait(bench.store.events(EventFilter::default(), after, limit));
            let Some(last) = page.last() else { break };
            after = last.cursor;
            names.extend(page.iter().map(|event| {
                let id = event.body.get("issuance_id").or(event.body.get("denial_id")).unwrap();
                format!("{} {}", event.body["event"].as_str().unwrap(), id.as_str().unwrap())
            }));
        }
        assert_eq!(names, wanted, "in pages of {limit}");
    }
    let since = EventFilter { since: Some(NOW + 1), ..EventFilter::default() };
    assert_eq!(bench.names(since).len(), 40);
}

fn the_trail_cannot_be_rewritten(bench: &Bench) {
    bench.issue(issuance(1));
    for sql in ["DELETE FROM events", "UPDATE events SET bot = 'x'"] {
        let error = bench.meddle(sql).unwrap_err();
        assert!(error.contains("append-only"), "{error}");
    }
    assert_eq!(bench.names(EventFilter::default()), ["issued i1"]);
}

promises!(
    the_trail_cannot_be_rewritten,
    events_say_what_the_contract_says_and_can_be_filtered,
    the_trail_is_read_in_pages_and_each_event_once,
    strangers_stand_among_the_others_in_the_order_of_time,
    what_is_not_before_a_time_is_found_where_clocks_disagree,
);
