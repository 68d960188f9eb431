//! What authorities tell one another.

use super::super::shared;
use super::*;
use crate::authority::limits::Key;

fn spent(key: u8, seconds: f64, age: f64) -> Spent {
    Spent { key: [key; 16], seconds, age }
}

/// A store whose time stands still: the odometer's milliseconds are given.
fn spend(bench: &Bench, millis: i64, of: &[Spent]) -> Vec<(Key, f64)> {
    let of = of.to_vec();
    let levels = bench.wait(bench.store.writer.write(Room::Any, move |connection| {
        shared::spend(connection, &of, millis)?;
        shared::levels(connection, millis)
    }));
    let rounded = |level: Level| (level.key, (level.seconds * 1000.0).round() / 1000.0);
    levels.into_iter().map(rounded).collect()
}

#[test]
fn what_is_used_of_limits_adds_up_and_falls_with_time() {
    let bench = Bench::new();
    let at = |key: u8, seconds: f64| ([key; 16], seconds);
    assert_eq!(spend(&bench, 0, &[spent(1, 100.0, 0.0), spent(2, 30.0, 1.0)]), [at(1, 100.0), at(2, 29.0)]);
    // What was used while it was busy adds up; what was used before it was free again, too.
    assert_eq!(spend(&bench, 40_000, &[spent(1, 10.0, 20.0)]), [at(1, 70.0), at(2, -11.0)]);
    assert_eq!(spend(&bench, 40_000, &[spent(2, 5.0, 30.0)]), [at(1, 70.0), at(2, -6.0)]);
    // Ten that each use nine tenths of a rate are told of it, though each alone is within it.
    for _ in 0..10 {
        spend(&bench, 41_000, &[spent(3, 0.9, 1.0)]);
    }
    assert_eq!(spend(&bench, 41_000, &[])[2], at(3, 8.0));
    assert_eq!(spend(&bench, 41_000, &[spent(1, -60.0, 1.0)])[0], at(1, 9.0), "given back");
    // An odometer that was behind: nothing falls until it has caught up, and nothing is filled.
    assert_eq!(spend(&bench, 35_000, &[spent(1, 1.0, 1.0)])[0], at(1, 10.0));
    assert_eq!(spend(&bench, 36_000, &[])[0], at(1, 9.0));
    // A minute after a limit is free nothing is kept of it.
    let millis = 36_000 + 69_000;
    assert_eq!(spend(&bench, millis, &[])[0], at(1, -60.0));
    assert!(spend(&bench, millis + 1, &[]).iter().all(|(key, _)| *key != [1; 16]));
    assert_eq!(spend(&bench, millis + 60_000, &[]), []);
}

#[test]
fn a_store_that_nobody_uses_is_not_written() {
    let bench = Bench::new();
    // The log has something in it once something was written.
    bench.wait(bench.store.ready());
    let commits = bench.commits();
    for _ in 0..3 {
        assert_eq!(bench.wait(bench.store.spend(Vec::new())), []);
    }
    assert_eq!(bench.commits(), commits);
    let heard = bench.wait(bench.store.spend(vec![spent(1, 10.0, 0.0)]));
    assert!((heard[0].seconds - 10.0).abs() < 0.1, "{heard:?}");
    let commits = bench.commits();
    bench.wait(bench.store.spend(Vec::new()));
    assert_eq!(bench.commits(), commits);
    bench.store.odometer.advance(71);
    assert_eq!(bench.wait(bench.store.spend(Vec::new())), [], "and what is free again goes by itself");
    assert_eq!(bench.commits(), commits + 1);
}

/// What was used before a restart, and by another, is used.
#[test]
fn limits_outlive_a_restart_and_are_one_for_all() {
    let mut bench = Bench::new();
    bench.wait(bench.store.spend(vec![spent(1, 100.0, 0.0)]));
    bench.store = Arc::new(Sqlite::open(&bench.path(), Owner::me(), NOW).unwrap());
    let other = Sqlite::open(&bench.path(), Owner::me(), NOW).unwrap();
    bench.wait(other.spend(vec![spent(1, 50.0, 0.0)]));
    let heard = bench.wait(bench.store.spend(Vec::new()));
    assert!((heard[0].seconds - 150.0).abs() < 2.0, "{heard:?}");
}

#[test]
fn replicas_hear_of_one_another_while_they_live() {
    let bench = Bench::new();
    let replica = |id: &str, keys: &[&str]| Replica {
        id: id.into(),
        name: format!("{id}:8443"),
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        policy: "policy".into(),
        version: "1".into(),
        seen: 0,
    };
    let announce = |replica| bench.wait(bench.store.announce(replica));
    let names = |announced: &Announced| -> Vec<String> {
        announced.others.iter().map(|other| other.name.clone()).collect()
    };
    let first = announce(replica("a", &["ssh 1", "tls 2"]));
    assert_eq!((first.keys.as_slice(), names(&first)), (["ssh 1".into(), "tls 2".into()].as_slice(), vec![]));
    // The first says which keys they are, whatever the others have.
    let second = announce(replica("b", &["ssh 3"]));
    assert_eq!((&second.keys, names(&second)), (&first.keys, vec!["a:8443".into()]));
    assert_eq!(second.others[0].keys, first.keys);
    assert!(second.others[0].seen > NOW);
    assert_eq!(names(&announce(replica("a", &["ssh 1"]))), ["b:8443"]);
    // Neither one that was not heard of for long, nor one of a time that is yet to come.
    for (id, by) in [("a", -31), ("b", 40)] {
        let sql = format!("UPDATE replicas SET seen = seen + {by} WHERE id = '{id}'");
        bench.wait(bench.store.writer.write(Room::Any, move |connection| connection.execute(&sql, [])));
    }
    assert_eq!(names(&announce(replica("c", &["ssh 1"]))), Vec::<String>::new());
    let rows = |connection: &Connection| {
        connection.query_row("SELECT count(*) FROM replicas", [], |row| row.get::<_, i64>(0))
    };
    assert_eq!(bench.wait(bench.store.reader.read(rows)), 1);
}
