//! What is new on lists, over a real store.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context as Task, Waker};

use proptest::prelude::*;

use super::world::World;
use super::*;
use crate::krl;

impl World {
    fn issue_ssh(&self, serial: u64, expires: i64) {
        self.issue(serial, CertificateKind::Ssh, expires);
    }

    fn lists(&self, now: i64, urgent: bool) -> Arc<Lists> {
        self.runtime.block_on(self.lists.lists(&self.store, &self.keys, now, urgent)).unwrap().0
    }
}

fn new(lists: &Lists, since: u64) -> Option<Vec<u64>> {
    Some(lists.since(since)?.iter().map(|one| one.serial).collect())
}

/// The store may fail in the middle, too.
#[test]
fn whoever_gives_up_waiting_takes_no_revocation_with_him() {
    let world = World::new();
    let mut before = world.lists(NOW, false).number;
    for polls in 0..20 {
        let serial = 100 - polls;
        world.issue_ssh(serial, NOW + 3600);
        world.give_back(serial);
        world.runtime.block_on(async {
            let mut asked = Box::pin(world.lists.lists(&world.store, &world.keys, NOW, false));
            for _ in 0..polls / 4 {
                if asked.as_mut().poll(&mut Task::from_waker(Waker::noop())).is_ready() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        let lists = world.lists(NOW, false);
        assert_eq!(new(&lists, before), Some(vec![serial]), "{polls}");
        assert!(krl::read(&lists.krl).unwrap().serials.contains(&serial));
        before = lists.number;
    }
}

/// And no clock that was put back: who has a list from before fetches it whole.
#[test]
fn what_merely_ends_leaves_the_list_with_its_minute() {
    let world = World::new();
    for (serial, lasts) in [(1, 10), (2, 30), (3, 3600)] {
        world.issue_ssh(serial, NOW + lasts);
        world.give_back(serial);
    }
    let serials = |lists: &Lists| krl::read(&lists.krl).unwrap().serials;
    let first = world.lists(NOW, false);
    let end = NOW.div_euclid(60) * 60 + LEEWAY + 60;
    for now in [NOW + 5, NOW + 11, end - 1] {
        assert!(Arc::ptr_eq(&first, &world.lists(now, false)), "{now}");
    }
    assert_eq!(serials(&first), [1, 2, 3]);
    let second = world.lists(end, false);
    assert_eq!((serials(&second), new(&second, first.number)), (vec![3], Some(vec![])));
    let third = world.lists(NOW, false);
    assert_eq!((serials(&third), new(&third, second.number)), (vec![1, 2, 3], None));
    assert!(third.number > second.number);
}

/// However much they give back, jobs do not keep others from hearing of it.
#[test]
fn lists_are_made_while_revoking_goes_on_and_on() {
    let world = World::new();
    let path = world.folder.path().join("authority.db");
    insert_many(&path, "NULL");
    let (stop, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let jobs = rusqlite::Connection::open(&path).unwrap();
            jobs.execute_batch("PRAGMA synchronous = off").unwrap();
            for serial in 1001..=41_000 {
                let sql = format!("UPDATE certificates SET revoked = {NOW} WHERE serial = {serial}");
                while !stop.load(Ordering::SeqCst) && jobs.execute_batch(&sql).is_err() {
                    std::hint::spin_loop();
                }
                rounds.fetch_add(1, Ordering::SeqCst);
            }
        });
        let asked = (0..5).map(|second| {
            let before = rounds.load(Ordering::SeqCst);
            while rounds.load(Ordering::SeqCst) < before + 10 {
                std::thread::yield_now();
            }
            (rounds.load(Ordering::SeqCst), world.lists(NOW + second, true))
        });
        let asked: Vec<_> = asked.collect();
        stop.store(true, Ordering::SeqCst);
        assert!(asked.windows(2).all(|two| two[0].1.number < two[1].1.number));
        for (begun, lists) in asked {
            let there = krl::read(&lists.krl).unwrap().serials.len();
            assert!(there * 2 + 2 >= begun, "all that was revoked by then");
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Whoever has heard of it in whichever steps: what says the same has one number.
    #[test]
    fn caches_of_one_store_agree(steps in proptest::collection::vec((0..4u8, 0..200i64), 1..24)) {
        let (world, other) = (World::new(), ListCache::default());
        let mut now = NOW;
        let ask = |cache: &ListCache, now| {
            world.runtime.block_on(cache.lists(&world.store, &world.keys, now, true)).unwrap().0
        };
        for (serial, (step, time)) in (1..).zip(steps) {
            match step {
                0 => drop(ask(&world.lists, now)),
                1 => drop(ask(&other, now)),
                2 => now += time,
                _ => {
                    world.issue_ssh(1000 - serial, now + time);
                    world.give_back(1000 - serial);
                }
            }
        }
        let said = |cache: &ListCache| {
            let lists = ask(cache, now);
            (lists.number, lists.krl.clone(), lists.hashes.clone())
        };
        let first = said(&ListCache::default());
        prop_assert_eq!(&said(&world.lists), &first);
        prop_assert_eq!(&said(&other), &first);
    }
}

/// Whoever has heard of lists and asks for them finds them a moment later too, however many there are by then.
#[test]
fn lists_are_kept_for_those_that_have_heard_of_them() {
    let world = World::new();
    (1..40).for_each(|serial| world.issue_ssh(serial, NOW + 3600));
    let of = |number| world.runtime.block_on(world.lists.of_number(number));
    assert!(of(1).is_none());
    let heard: Vec<_> = (1..40)
        .map(|serial| {
            world.give_back(serial);
            world.lists(NOW, false)
        })
        .collect();
    assert!(heard.iter().all(|lists| Arc::ptr_eq(&of(lists.number).unwrap(), lists)));
    let numbers: Vec<u64> = heard.iter().map(|lists| lists.number).collect();
    drop(heard);
    world.give_back(40);
    world.lists(NOW + 1, false);
    for (number, there) in numbers.into_iter().zip(1..) {
        assert_eq!(krl::read(&of(number).unwrap().krl).unwrap().serials.len(), there);
    }
}

/// Certificates, revoked at that time.
fn insert_many(path: &Path, revoked: &str) {
    let many = rusqlite::Connection::open(path).unwrap();
    many.execute_batch(&format!(
        "PRAGMA foreign_keys = off;
         INSERT INTO certificates (serial, issuance, kind, expires, revoked, key_hash)
             WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 40000)
             SELECT 1000 + n, 1, n & 1, {NOW} + 3600, {revoked}, randomblob(32) FROM numbers;"
    ))
    .unwrap();
}

#[test]
fn large_lists_are_made_for_jobs_once_a_second_and_for_operators_at_once() {
    let world = World::new();
    insert_many(&world.folder.path().join("authority.db"), &NOW.to_string());
    (1..4).for_each(|serial| world.issue_ssh(serial, NOW + 3600));
    let first = world.lists(NOW, false);
    let begun = Instant::now();
    world.give_back(1);
    let (same, known) =
        world.runtime.block_on(world.lists.lists(&world.store, &world.keys, NOW, false)).unwrap();
    if begun.elapsed() < Duration::from_millis(20) {
        assert!(Arc::ptr_eq(&first, &same) && known < world.store.revocations(), "it is on none yet");
    }
    let second = world.lists(NOW, true);
    assert_eq!(new(&second, first.number), Some(vec![1]));
    world.give_back(2);
    let begun = Instant::now();
    let third = std::iter::repeat_with(|| world.lists(NOW, false))
        .inspect(|_| std::thread::sleep(Duration::from_millis(10)))
        .find(|lists| lists.number != second.number);
    assert_eq!(new(&third.unwrap(), second.number), Some(vec![2]));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}
