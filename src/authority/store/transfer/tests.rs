//! Migrations under load, and such that are ended anywhere.

use std::sync::atomic::Ordering;

use proptest::prelude::*;

use super::super::cas::{CaChange, CaChanged};
use super::super::conformance::fixtures::*;
use super::super::seal::StoreKey;
use super::super::{Issued, StorePlace, engine};
use super::*;
use crate::authority::ca::{CaKey, CaKind, CaState};
use stage::*;

mod hostile;
mod stage;

#[test]
fn everything_is_carried_while_the_first_store_is_served() {
    for ways in WAYS {
        let stage = Stage::new(ways);
        assert!(stage.migrate(usize::MAX, true).unwrap());
        assert!(stage.served.used.load(Ordering::SeqCst) > 5, "it was in use meanwhile");
        stage.check();
        // The same again finds nothing to do, also once the second is used.
        assert!(!stage.migrate(usize::MAX, true).unwrap());
        assert!(stage.closed(&stage.to).is_none());
        let moved = stage.closed(&stage.from).unwrap().to_string();
        assert_eq!(
            moved,
            format!("the store has moved to {}, and issues nothing any more", stage.to.place())
        );
    }
}

/// Each run gets one step further than the one before, between files; two where connections make it dear. It is killed
/// before the step is done, or after it.
#[test]
fn a_migration_that_is_killed_at_each_step_goes_on_and_never_are_both_stores_open() {
    for (nth, ways) in WAYS.into_iter().enumerate() {
        let stage = Stage::new(ways);
        let mut steps = nth % 2;
        while let Err(error) = stage.migrate(steps, (steps / 2).is_multiple_of(2)) {
            assert_eq!(error.to_string(), "killed");
            let [from, to] = [&stage.from, &stage.to].map(|end| end.is_there().then(|| stage.closed(end)));
            let open = [&from, &to].map(|closed| matches!(closed, Some(None)));
            let has_begun = matches!(from, Some(Some(_))) || matches!(to, Some(Some(_)));
            assert!(open != [true, true] || !has_begun, "both at {steps}");
            steps += if ways == [InFile, InFile] { 1 } else { 2 };
        }
        assert!(steps > 30, "{steps}");
        assert!(stage.closed(&stage.to).is_none());
        stage.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn kills_at_any_steps_lose_nothing(
        ways in prop::sample::select(&WAYS[..]),
        kills in prop::collection::vec((0_usize..70, any::<bool>()), 0..6),
    ) {
        let stage = Stage::new(ways);
        for (steps, is_before) in kills {
            drop(stage.migrate(steps, is_before));
        }
        let _ = stage.migrate(usize::MAX, true).unwrap();
        stage.check();
    }
}

#[test]
fn a_migration_that_is_given_up_leaves_the_first_store_as_it_was() {
    for ways in WAYS {
        let mut stage = Stage::new(ways);
        // Behind the step that closes the first store.
        let mut steps = 0;
        while stage.closed(&stage.from).is_none() {
            assert!(stage.migrate(steps, false).is_err());
            steps += 1;
        }
        assert!(stage.open(&stage.from).is_err() && stage.open(&stage.to).is_err());
        stage.give_up().unwrap();
        stage.give_up().unwrap();
        drop(stage.open(&stage.from).unwrap());
        let error = stage.open(&stage.to).unwrap_err();
        assert!(error.to_string().contains("was given up"), "{error}");
        let error = stage.migrate(usize::MAX, true).unwrap_err();
        assert!(error.to_string().contains("was given up"), "nor is it filled again: {error}");
        stage.to = End::new(ways[1], stage.dir.path().join("third.db"));
        stage.served.has_moved.store(false, Ordering::SeqCst);
        assert!(stage.migrate(usize::MAX, true).unwrap());
        stage.check();
        let error = stage.give_up().unwrap_err();
        let wanted = format!("no migration into {} is under way", stage.to.place());
        assert!(error.to_string().contains(&wanted), "{error}");
    }
}

#[test]
fn a_store_with_records_or_of_another_migration_is_refused() {
    for ways in WAYS {
        let stage = Stage::new(ways);
        let migrate_to = |other: &End, key: &StoreKey| {
            stage.runtime.block_on(async {
                let mut from = stage.from.source(&stage.key).await.unwrap();
                let mut to = other.target(key).await.unwrap();
                migrate(&mut *from, &mut *to, &stage.key.load().unwrap(), &mut |_| ()).await.unwrap_err()
            })
        };
        let other = Stage::new([ways[1], ways[1]]);
        let error = migrate_to(&other.from, &other.key);
        let wanted = format!("cannot migrate to {}: records stand there already", other.from.place());
        assert_eq!(error.to_string(), wanted);
        assert!(error.hints()[1].contains("`DROP SCHEMA machine_id CASCADE`, then"), "{error:?}");
        assert!(other.closed(&other.from).is_none(), "and it goes on");
        assert!(migrate_to(&stage.from, &stage.key).to_string().ends_with("are the same store"));
        drop(other.migrate(8, true));
        let error = migrate_to(&other.to, &other.key);
        let wanted = format!("a migration into this store, from {}, is not finished", other.from.place());
        assert!(error.to_string().contains(&wanted), "{error}");
        assert!(stage.closed(&stage.from).is_none());
        // From a store that has moved elsewhere, or is itself not whole.
        assert!(stage.migrate(usize::MAX, true).unwrap());
        let third = End::new(ways[1], stage.dir.path().join("third.db"));
        let wanted = format!(
            "cannot migrate from {}: the store has moved to {}, and issues nothing any more",
            stage.from.place(),
            stage.to.place()
        );
        assert_eq!(migrate_to(&third, &stage.key).to_string(), wanted);
    }
}

#[test]
fn what_is_changed_on_its_way_is_found() {
    for (ways, column) in [([InFile, InFile], "packed"), ([InFile, Shared], "body")] {
        let disarm = match ways[1] {
            InFile => "DROP TRIGGER events_stay_the_same; DROP TRIGGER certificates_stay;",
            Shared => "ALTER TABLE events DISABLE TRIGGER ALL; ALTER TABLE certificates DISABLE TRIGGER ALL;",
        };
        let body = format!(
            "UPDATE events SET {column} = (SELECT {column} FROM events WHERE sequence = 2) WHERE sequence = 3"
        );
        for meddle in [
            &body,
            "UPDATE certificates SET expires = 9999999999 WHERE serial = 4",
            "DELETE FROM certificates WHERE serial = 4",
        ] {
            let stage = Stage::new(ways);
            // So far that something stands there.
            let mut steps = 0;
            while !stage.to.is_there() || stage.to.number("SELECT count(*) FROM certificates") == 0 {
                drop(stage.migrate(steps, false));
                steps += 3;
            }
            stage.to.sql(&format!("{disarm} {meddle}")).unwrap();
            let error = stage.migrate(usize::MAX, true).unwrap_err();
            assert!(error.to_string().starts_with("the two stores differ in"), "{error}");
            assert!(
                error.hints()[0].starts_with(&format!("{} goes on as before", stage.from.place())),
                "{error:?}"
            );
            assert!(stage.closed(&stage.to).is_some() && stage.closed(&stage.from).is_none(), "{meddle}");
        }
    }
}

/// What an administrator of the database has put there grants as little afterwards.
#[test]
fn rows_without_a_good_seal_are_named_and_stay_void() {
    for ways in WAYS {
        let stage = Stage::new(ways);
        let seal = stage.key.load().unwrap();
        let carry = |is_first: bool| {
            stage.runtime.block_on(async {
                let mut from = stage.from.source(&stage.key).await.unwrap();
                let mut to = stage.to.target(&stage.key).await.unwrap();
                assert_eq!(migrate(&mut *from, &mut *to, &seal, &mut |_| ()).await.unwrap(), is_first);
            });
        };
        for meddle in [
            "UPDATE secrets SET token = 'other' WHERE id = 'k-8'",
            "UPDATE instances SET locked = NULL, reason = NULL WHERE id = 'w2'",
            "UPDATE proofs SET fingerprint = mac WHERE certificate = 6",
        ] {
            stage.from.sql(meddle).unwrap();
        }
        carry(true);
        let told = seal.warning().unwrap();
        assert!(told.contains("(3 seen, instances w2 among them)"), "{told}");
        let new = stage.open(&stage.to).unwrap();
        let Entry { entry, plan } = registration(27, "w4", [8; 32]);
        assert!(matches!(stage.wait(new.issue(entry, plan)), Issued::Refused(_)));
        let Entry { entry, plan } = join(25, "w2", 1);
        assert!(matches!(stage.wait(new.issue(entry, plan)), Issued::Refused(_)));
        assert_eq!(stage.wait(new.issue(issuance(3).entry, issuance(3).plan)), Issued::Used);
        assert!(new.tampered().is_some());
        carry(false);
    }
}

/// As whoever has the key of the seals left them; what somebody else has made of them is named, and believed there as little.
#[test]
fn cas_and_their_number_are_carried() {
    let keys = |states: [CaState; 2]| {
        let key = |(name, state): (&str, CaState)| CaKey {
            number: 0,
            kind: CaKind::Tls,
            name: name.into(),
            id: name.into(),
            is_first: name == "tls",
            state,
            public: "PEM".into(),
            endorsements: Vec::new(),
            cross: vec!["PEM".into()],
            sealed: Some(vec![7; 9]),
            since: NOW,
        };
        ["tls", "tls-0a0b0c0d"].into_iter().zip(states).map(key).collect::<Vec<_>>()
    };
    for ways in WAYS {
        let stage = Stage::new(ways);
        let carry = || {
            stage.runtime.block_on(async {
                let mut from = stage.from.source(&stage.key).await.unwrap();
                let mut to = stage.to.target(&stage.key).await.unwrap();
                let seal = stage.key.load().unwrap();
                migrate(&mut *from, &mut *to, &seal, &mut |_| ()).await.map(|_| seal.warning())
            })
        };
        let start = CaChange {
            kind: CaKind::Tls,
            phase: "start",
            expected: 0,
            keys: keys([CaState::Current, CaState::Next]),
            none_live: None,
            at: NOW,
            by: "anna".into(),
        };
        let CaChanged::Done(set) = stage.wait(stage.served.store.change_cas(start)) else { panic!() };
        let Entry { mut entry, mut plan } = issuance(70);
        (entry.cas, plan.certificates[1].ca) = (set.number, Some(2));
        assert_eq!(stage.wait(stage.served.store.issue(entry.clone(), plan.clone())), FRESH);
        let evil = ways[0] == ways[1];
        if evil {
            stage.from.sql("UPDATE ca_keys SET public = 'evil' WHERE number = 2").unwrap();
        }
        let told = carry().unwrap();
        let new = stage.open(&stage.to).unwrap();
        assert_eq!(stage.wait(new.hear()).cas, set.number, "{ways:?}");
        if evil {
            assert!(told.unwrap().contains("ca_keys tls-0a0b0c0d"));
            assert!(stage.runtime.block_on(new.cas()).is_err());
            continue;
        }
        assert_eq!((told, stage.wait(new.cas())), (None, set.clone()));
        let again = stage.wait(new.issue(entry, plan));
        let Issued::Accepted { plan: Some(earlier), .. } = again else { panic!("{again:?}") };
        assert_eq!(earlier.certificates.iter().map(|one| one.ca).collect::<Vec<_>>(), [None, Some(2)]);
        assert_eq!(stage.wait(new.live(2, NOW)).count, 1);
        // No machine-id from before rotations goes on with it.
        assert_eq!(stage.to.number("SELECT oldest FROM state"), if ways[1] == InFile { 6 } else { 2 });
        let activate = CaChange {
            kind: CaKind::Tls,
            phase: "activate",
            expected: set.number,
            keys: set
                .keys
                .iter()
                .cloned()
                .zip([CaState::Former, CaState::Current])
                .map(|(key, state)| CaKey { state, ..key })
                .collect(),
            none_live: None,
            at: NOW,
            by: "anna".into(),
        };
        assert!(matches!(stage.wait(new.change_cas(activate)), CaChanged::Done(_)));
    }
}

/// What it lacks would be missing in the other one without a word.
#[test]
fn a_store_that_has_lost_something_is_not_carried() {
    for ways in WAYS {
        let stage = Stage::new(ways);
        stage.from.sql("UPDATE state SET lost = 'event 7'").unwrap();
        let error = stage.migrate(usize::MAX, true).unwrap_err();
        assert_eq!(error.to_string(), "cannot carry a store that has lost records: event 7");
        assert!(error.hints()[0].contains("authority resume"), "{error:?}");
    }
}

/// A replica that is new there has no mark, and takes the store's word for it, by its seal.
#[test]
fn one_that_was_gone_on_with_is_believed_where_it_went() {
    for ways in WAYS {
        let stage = Stage::new(ways);
        stage.from.sql("UPDATE state SET lost = 'event 7'").unwrap();
        stage.wait(stage.served.store.resume(NOW));
        let restored = stage.served.store.restored().unwrap().time;
        stage.runtime.block_on(async {
            let mut from = stage.from.source(&stage.key).await.unwrap();
            let mut to = stage.to.target(&stage.key).await.unwrap();
            assert!(migrate(&mut *from, &mut *to, &stage.key.load().unwrap(), &mut |_| ()).await.unwrap());
        });
        let new = tempfile::tempdir().unwrap();
        let key = StoreKey::beside(&new.path().join("authority.db"));
        std::fs::copy(stage.dir.path().join("store.key"), new.path().join("store.key")).unwrap();
        let keys = if ways[1] == Shared { vec![&key, &stage.key] } else { vec![&stage.key] };
        for key in keys {
            let store = stage.runtime.block_on(stage.to.open(key)).unwrap();
            stage.wait(store.mark());
            assert_eq!(store.restored().map(|restored| restored.time), Some(restored), "{ways:?}");
            stage.wait(store.ready());
        }
    }
}

/// What somebody else wrote of it is not sealed by carrying it.
#[test]
fn one_that_says_so_without_a_seal_is_not_carried() {
    for engine in [InFile, Shared] {
        let stage = Stage::new([Shared, engine]);
        let mut from = stage.wait(stage.from.source(&stage.key));
        stage.from.sql("UPDATE state SET restored = 1900000000").unwrap();
        let error = stage.runtime.block_on(from.standing()).unwrap_err();
        assert!(error.to_string().contains("no authority with its `store.key` has written that"), "{error}");
    }
}

/// What went from the source alone would differ for ever.
#[test]
fn nothing_is_let_go_while_a_migration_is_under_way() {
    const LATER: i64 = NOW + 9_000_000;
    for ways in WAYS {
        let stage = Stage::new(ways);
        let owner = stage.runtime.block_on(stage.from.owner(&stage.key)).unwrap();
        let let_go = |asked| stage.runtime.block_on(owner.let_go(LATER, LATER, asked));
        let count = || stage.from.number("SELECT count(*) FROM events");
        // One that was begun before goes no further, either.
        stage.from.sql("UPDATE state SET kept_from = 2").unwrap();
        let mut steps = 0;
        while !stage.to.is_there() || stage.to.number("SELECT count(*) FROM certificates") == 0 {
            drop(stage.migrate(steps, false));
            steps += 3;
        }
        let before = count();
        let error = let_go(true).unwrap_err();
        let wanted = format!("a migration to {} is not finished, and nothing is let go", stage.to.place());
        assert!(error.to_string().contains(&wanted) && error.hints()[1].contains("--give-up"), "{error:?}");
        stage.from.sql(&format!("UPDATE state SET kept_from = {LATER}")).unwrap();
        drop(let_go(false));
        assert_eq!(count(), before);
        assert!(stage.migrate(usize::MAX, true).unwrap());
        // The new one goes on with it.
        let new = stage.runtime.block_on(stage.to.owner(&stage.key)).unwrap();
        assert!(stage.wait(new.let_go(LATER, LATER, true)) > 5);
    }
}

#[test]
fn once_a_migration_is_given_up_what_is_old_goes_again() {
    for ways in WAYS {
        let stage = Stage::new(ways);
        assert!(stage.migrate(12, false).is_err());
        let owner = stage.runtime.block_on(stage.from.owner(&stage.key)).unwrap();
        let let_go = || stage.runtime.block_on(owner.let_go(NOW + 9_000_000, NOW + 9_000_000, true));
        assert!(let_go().is_err());
        stage.give_up().unwrap();
        assert!(let_go().unwrap() > 5);
    }
}

/// As where it was ended between the last commit and the mark: that of the old store would be held against the new one.
#[test]
fn the_same_again_puts_the_mark_right() {
    let stage = Stage::new([Shared, Shared]);
    let mark = stage.dir.path().join("store.mark");
    let old = std::fs::read(&mark).unwrap();
    assert!(stage.migrate(usize::MAX, true).unwrap());
    let new = std::fs::read(&mark).unwrap();
    std::fs::write(&mark, old).unwrap();
    assert!(stage.open(&stage.to).unwrap_err().to_string().contains("it is another store"));
    assert!(!stage.migrate(usize::MAX, true).unwrap());
    assert_eq!(std::fs::read(&mark).unwrap(), new);
    // No other is taken away.
    let other = r#"{"store":"other","sequence":7}"#;
    std::fs::write(&mark, other).unwrap();
    assert!(!stage.migrate(usize::MAX, true).unwrap());
    assert_eq!(std::fs::read_to_string(&mark).unwrap(), other);
}

/// As where source and target are confused.
#[test]
fn a_store_in_which_nothing_was_ever_recorded_is_not_carried_and_not_closed() {
    for ways in WAYS {
        let stage = Stage::new(ways);
        let swapped = stage.runtime.block_on(async {
            let mut from = stage.to.target(&stage.key).await.unwrap();
            let mut to = stage.from.target(&stage.key).await.unwrap();
            migrate(&mut *from, &mut *to, &stage.key.load().unwrap(), &mut |_| ()).await.unwrap_err()
        });
        let wanted = format!("cannot migrate from {}: nothing was ever recorded in it", stage.to.place());
        assert!(swapped.to_string().contains(&wanted), "{swapped}");
        assert!(stage.closed(&stage.to).is_none() && stage.closed(&stage.from).is_none());
        assert!(stage.migrate(usize::MAX, true).unwrap());
        stage.check();
    }
}

/// As where `migrate` failed early, and the new store was named nevertheless: it knows nothing of what was used.
#[test]
fn a_store_without_records_does_not_take_the_place_of_one_that_has_some() {
    for ways in [[InFile, InFile], [Shared, InFile]] {
        let stage = Stage::new(ways);
        let place = StorePlace::Sqlite(stage.dir.path().join("new.db"));
        let opened = || stage.runtime.block_on(engine::open(&place, &stage.key, NOW));
        drop(stage.runtime.block_on(stage.to.target(&stage.key)).unwrap());
        let error = opened().unwrap_err();
        let mark = stage.dir.path().join(if ways[0] == InFile { "authority.db.mark" } else { "store.mark" });
        let wanted = format!("nothing was ever recorded in the store, and {} is", mark.display());
        assert!(error.to_string().starts_with(&wanted), "{error}");
        assert!(error.hints()[0].contains("authority migrate") && error.hints()[2].contains("remove /"));
        let kept = std::fs::read(&mark).unwrap();
        // The operator's word; and another authority's that was never used says nothing.
        std::fs::remove_file(&mark).unwrap();
        drop(opened().unwrap());
        std::fs::write(&mark, r#"{"store":"other","sequence":0}"#).unwrap();
        drop(opened().unwrap());
        std::fs::write(&mark, kept).unwrap();
        assert!(opened().is_err());
        assert!(stage.migrate(usize::MAX, true).unwrap());
        drop(opened().unwrap());
    }
}
