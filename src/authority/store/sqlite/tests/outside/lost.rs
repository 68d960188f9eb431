//! A store that lacks what it had: what is not done with it, and how it is gone on with.

use super::*;
use crate::authority::store::loss::LISTS_AHEAD;

#[test]
fn one_that_was_put_back_is_known_by_its_mark() {
    let home = Home::new();
    let store = open(&home.path()).unwrap();
    assert_eq!((restored(&store), mark(&home.path()).reached.sequence), (None, 0));
    refuse(&store, "d-1");
    wait(store.mark()).unwrap();
    assert_eq!(mark(&home.path()).reached.sequence, 1);
    let hash = [5; 32];
    let expires = NOW + 9999;
    let secret = NewSecret { id: "k-1".into(), hash, token: "t".into(), bot: "b".into(), time: NOW, expires };
    wait(store.add_secret(secret)).unwrap();
    assert!(wait(store.admits(&hash, "t", NOW)).unwrap());
    drop(store);
    home.copy("authority.db", "backup");
    let store = open(&home.path()).unwrap();
    ["d-2", "d-3"].iter().for_each(|id| refuse(&store, id));
    drop(store);
    assert_eq!(mark(&home.path()).reached.sequence, 4, "left at the end");
    home.copy("authority.db", "right");

    home.copy("backup", "authority.db");
    let store = open(&home.path()).unwrap();
    let lost = "the store ends with event 2 of 2026-11-22T12:00:00Z, and it had event 4 of 2026-11-22T12:00:01Z at \
                least: it was put back from a copy, or a server took over that had not received everything";
    assert_eq!((loss(&store).as_deref(), restored(&store)), (Some(lost), None));
    // Nothing is written to it but what lets an authority say so, which is not what it had come to.
    let Entry { entry, plan } = issuance(9);
    for error in [
        wait(store.issue(entry, plan)).unwrap_err(),
        wait(store.refuse(refusal("d-9", None))).unwrap_err(),
        wait(store.revoke(revocation(9, "a"))).unwrap_err(),
        wait(store.revoked(NOW)).unwrap_err(),
        wait(store.list_number(NOW, [1; 32])).unwrap_err(),
        wait(store.record_signed(signed(1, "sign-host"))).unwrap_err(),
        wait(store.prune(NOW)).unwrap_err(),
        wait(store.ready()).unwrap_err(),
    ] {
        assert_eq!(
            (crate::authority::store::lost(&error).unwrap().to_string().as_str(), error.kind()),
            (lost, Kind::Usage)
        );
    }
    wait(store.record_signed(signed(2, "serve"))).unwrap();
    let events = all(&store);
    // No number comes twice, so that a copy of the lost time would be noticed too.
    assert_eq!(events.iter().map(|event| event.cursor.event).collect::<Vec<_>>(), [1, 2, 5, 6]);
    assert_eq!((&events[2].body["event"], &events[2].body["detail"]), (&json!("lost"), &json!(lost)));
    drop(store);
    let mark_of_before = mark(&home.path());
    assert_eq!(mark_of_before.reached.sequence, 4);

    // What it was is no alarm.
    home.copy("authority.db", "behind");
    home.copy("right", "authority.db");
    assert_eq!(loss(&open(&home.path()).unwrap()), None);
    home.copy("behind", "authority.db");
    let store = open(&home.path()).unwrap();
    let asked = wait(open(&home.path()).unwrap().mark());
    assert!(hints(&asked.unwrap_err()).contains("authority resume"));
    assert!(wait(store.admits(&hash, "t", NOW)).unwrap());
    // Whoever runs hears of it; a clock that is behind does not say when.
    wait(open(&home.path()).unwrap().resume(NOW - 9999)).unwrap();
    assert_eq!((loss(&store), restored(&store)), (None, Some(NOW + 1)));
    assert!(!wait(store.admits(&hash, "t", NOW)).unwrap(), "it may have been used since");
    let events = all(&store);
    assert_eq!((events[4].cursor.event, &events[4].body["detail"]), (7, &json!(lost)));
    assert_eq!(
        (&events[4].body["event"], &events[4].body["reason"]),
        (&json!("restored"), &json!("accepted_loss"))
    );
    // Said once, and known from then on.
    wait(store.resume(NOW + 9)).unwrap();
    drop(store);
    let store = open(&home.path()).unwrap();
    assert_eq!((loss(&store), restored(&store), all(&store).len()), (None, Some(NOW + 1), 5));
    drop(store);

    // The copy on another machine, where nothing stands beside it.
    home.copy("backup", "authority.db");
    fs::remove_file(home.at("authority.db.mark")).unwrap();
    let store = open(&home.path()).unwrap();
    assert!(
        loss(&store)
            .unwrap()
            .starts_with("no mark stands beside the store, which ends with event 2 of 2026-")
    );
    drop(store);
    assert!(loss(&open(&home.path()).unwrap()).is_some(), "nor is it well by itself");
}

fn signed(serial: u64, by: &'static str) -> NewSigned {
    let Entry { plan, .. } = issuance(serial);
    NewSigned { id: format!("s{serial}"), time: NOW, by, certificate: plan.certificates[0].clone(), cas: 0 }
}

#[test]
fn numbers_of_lists_rise_over_a_loss_whatever_the_clock_says() {
    let home = Home::new();
    let store = open(&home.path()).unwrap();
    refuse(&store, "d-1");
    drop(store);
    home.copy("authority.db", "backup");
    let store = open(&home.path()).unwrap();
    refuse(&store, "d-2");
    let day = 86_400;
    // By a clock that is a day ahead, until the end.
    let known = wait(store.list_number(NOW + day, [1; 32])).unwrap().number;
    wait(store.mark()).unwrap();
    let unknown = wait(store.list_number(NOW + day + 60, [2; 32])).unwrap().number;
    let kept: Vec<u8> = fs::read(home.at("authority.db.mark")).unwrap();
    drop(store);
    fs::write(home.at("authority.db.mark"), kept).unwrap();
    home.copy("backup", "authority.db");
    let store = open(&home.path()).unwrap();
    wait(store.resume(NOW)).unwrap();
    let next = wait(store.list_number(NOW, [2; 32])).unwrap().number;
    assert!(unknown > known && next > unknown, "{known} {unknown} {next}");
    assert!(next - known >= u64::try_from(LISTS_AHEAD).unwrap());
}

/// As `sqlite3 authority.db '.restore copy.db'` does it.
#[test]
fn one_that_goes_back_while_it_is_open_is_known_at_the_next_write() {
    let home = Home::new();
    let store = open(&home.path()).unwrap();
    let beside_it = open(&home.path()).unwrap();
    ["d-1", "d-2", "d-3"].iter().for_each(|id| refuse(&store, id));
    let other = Connection::open(home.path()).unwrap();
    other.execute_batch("DROP TRIGGER events_stay; DELETE FROM events WHERE sequence > 1").unwrap();
    let Entry { entry, plan } = issuance(1);
    let error = wait(store.issue(entry, plan)).unwrap_err();
    assert!(lost(&error).unwrap().to_string().contains("ends with event 1 of"), "{error}");
    assert!(lost(&wait(store.revoked(NOW)).unwrap_err()).is_some());
    // Not even one of them is there of whoever has seen less.
    assert_eq!(loss(&beside_it), None);
    assert!(loss(&store).is_some());
    assert_eq!(mark(&home.path()).reached.sequence, 3);
    // The operator's command sees it by the mark; a proof that was judged before that is not taken.
    let command = open(&home.path()).unwrap();
    assert!(loss(&command).is_some() && loss(&beside_it).is_some());
    wait(command.resume(NOW)).unwrap();
    let Entry { entry, plan } = issuance(1);
    let error = wait(store.issue(entry.clone(), plan.clone())).unwrap_err();
    assert!(error.to_string().ends_with("the store was put back while this was asked"), "{error}");
    assert_eq!(wait(store.issue(NewIssuance { restored: restored(&store), ..entry }, plan)).unwrap(), FRESH);
}

#[test]
fn what_is_left_of_two_stores_is_not_gone_on_with() {
    let home = Home::new();
    let store = open(&home.path()).unwrap();
    (1..40).for_each(|n| refuse(&store, &format!("d-{n}")));
    drop(store);
    // Another's pages in the middle.
    let mut file = fs::read(home.path()).unwrap();
    let pages = file.len() / 4096;
    for page in [pages / 2, pages - 2] {
        file[page * 4096..(page + 1) * 4096].fill(7);
    }
    fs::remove_file(home.at("authority.db.mark")).unwrap();
    fs::write(home.path(), file).unwrap();
    let Ok(store) = open(&home.path()) else { return };
    let error = wait(store.resume(NOW)).unwrap_err();
    assert!(hints(&error).contains("without `-wal` and `-shm`"), "{error:?}");
}
