//! Migrations under load, and such that are ended anywhere.

use std::sync::atomic::Ordering;

use proptest::prelude::*;

use super::super::Issued;
use super::super::conformance::fixtures::*;
use super::super::seal::StoreKey;
use super::*;
use stage::*;

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
