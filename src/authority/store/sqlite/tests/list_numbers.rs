//! The numbers of revocation lists.

use rusqlite::Connection;

use super::*;

/// The number of a store from before, of a clock that is put back, of a store that is.
#[test]
fn list_numbers_rise_and_are_drawn_once() {
    const SECOND: u64 = 1_000_000_000;
    let mut bench = Bench::new();
    let now = u64::try_from(NOW).unwrap();
    bench.wait(
        bench
            .store
            .writer
            .write(Room::Any, |connection| connection.execute("UPDATE state SET list_number = 7", [])),
    );
    let mut what = [0; 32];
    let mut draw = |bench: &Bench, now| {
        what[0] += 1;
        bench.wait(bench.store.list_number(now, what)).number
    };
    let first = draw(&bench, NOW);
    assert_eq!(first / SECOND, now);
    let ahead = draw(&bench, NOW + 7200);
    assert_eq!(ahead / SECOND, now + 7200);
    let copy = bench.dir.path().join("copy.db");
    let path = copy.to_str().unwrap().to_owned();
    bench.wait(
        bench.store.writer.write(Room::Any, |connection| connection.execute("UPDATE state SET run = 0", [])),
    );
    Connection::open(bench.path()).unwrap().execute("VACUUM INTO ?1", [path]).unwrap();
    let copy = Arc::new(Sqlite::open(&copy, &StoreKey::beside(&copy), NOW).unwrap());
    bench.wait(copy.resume(NOW));
    let mut last = ahead;
    for _ in 0..3 {
        let next = draw(&bench, NOW);
        assert!(next > last && next < last + SECOND / 50, "{last} {next}");
        last = next;
    }
    let original = std::mem::replace(&mut bench.store, copy);
    let put_back = draw(&bench, NOW);
    assert!(put_back > ahead);
    bench.store = original;
    assert_ne!(draw(&bench, NOW), put_back);
    for wild in [i64::MIN, 0, i64::MAX, i64::MAX] {
        let next = draw(&bench, wild);
        assert!(next > last && i64::try_from(next).is_ok());
        last = next;
    }
}

/// A copy knows what was listed then, and not what was since.
#[test]
fn a_store_that_is_put_back_gives_no_number_again() {
    let mut bench = Bench::new();
    let before = bench.wait(bench.store.list_number(NOW, [1; 32]));
    let copy = bench.dir.path().join("copy.db");
    Connection::open(bench.path()).unwrap().execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
    bench.store = Arc::new(Sqlite::open(&copy, &StoreKey::beside(&bench.path()), NOW + 5).unwrap());
    bench.wait(bench.store.resume(NOW + 5));
    assert!(bench.wait(bench.store.list_number(NOW + 5, [1; 32])).number > before.number);
}
