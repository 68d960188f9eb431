//! What authorities tell one another through the store.

use super::fixtures::*;
use super::*;

fn spent(key: u8, seconds: f64, age: f64) -> Spent {
    Spent { key: [key; 16], seconds, age }
}

/// How many whole seconds each limit is busy, as that store tells.
fn spend(bench: &Bench, store: &Arc<dyn Store>, of: &[Spent]) -> Vec<(u8, String)> {
    let mut levels = bench.wait(store.spend(of.to_vec()));
    levels.sort_by_key(|level| level.key);
    levels.into_iter().map(|level| (level.key[0], format!("{:.0}", level.seconds))).collect()
}

fn what_is_used_of_limits_adds_up_and_falls_with_time(bench: &Bench) {
    let spend = |of: &[Spent]| spend(bench, &bench.store, of);
    let at = |key, seconds: i64| (key, seconds.to_string());
    assert_eq!(spend(&[]), []);
    assert_eq!(spend(&[spent(1, 100.0, 0.0), spent(2, 30.0, 1.0)]), [at(1, 100), at(2, 29)]);
    bench.advance(40);
    assert_eq!(spend(&[spent(1, 10.0, 20.0)]), [at(1, 70), at(2, -11)], "it adds to what is busy");
    assert_eq!(spend(&[spent(2, 5.0, 30.0)]), [at(1, 70), at(2, -6)], "and to what was, at that time");
    // Ten that each use nine tenths of a rate are told of it, though each alone is within it.
    let before = spend(&[]);
    for _ in 0..10 {
        spend(&[spent(3, 0.9, 1.0)]);
    }
    assert_eq!(spend(&[]), [before, vec![at(3, 8)]].concat());
    assert_eq!(spend(&[spent(1, -60.0, 1.0)])[0], at(1, 10), "given back");
    // A minute after a limit is free nothing is kept of it, and nothing where nobody uses any.
    bench.advance(69);
    assert_eq!(spend(&[]), [at(1, -59)]);
    bench.advance(2);
    assert_eq!(spend(&[]), []);
    assert_eq!(bench.number("SELECT count(*) FROM usage"), 0);
}

/// What was used before a restart, and by another, is used; and one that has not run as long passes no time twice.
fn limits_outlive_a_restart_and_are_one_for_all(bench: &Bench) {
    spend(bench, &bench.store, &[spent(1, 100.0, 0.0)]);
    bench.advance(20);
    let behind = bench.again();
    // Real time passes too: a little, since `behind` would take twenty seconds each time.
    let is_about = |store: &Arc<dyn Store>, seconds: f64, level: f64| {
        let levels = bench.wait(store.spend(vec![spent(1, seconds, 0.0)]));
        let found = levels[0].seconds;
        assert!(levels.len() == 1 && found <= level + 0.01 && found > level - 15.0, "{found} of {level}");
    };
    is_about(&bench.store, 20.0, 100.0);
    for n in (1..20).step_by(2) {
        is_about(&behind, 1.0, 100.0 + f64::from(n));
        is_about(&bench.store, 1.0, 101.0 + f64::from(n));
    }
}

fn replicas_hear_of_one_another_while_they_live(bench: &Bench) {
    let replica = |id: &str, keys: &[&str]| Replica {
        id: id.into(),
        name: format!("{id}:8443"),
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        has: vec!["cas 7".into()],
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
    // And of a kind that it has none of, the first that has one.
    for (key, kept) in [("statement 1", "statement 1"), ("statement 2", "statement 1")] {
        let keys = announce(replica("b", &["ssh 1", key])).keys;
        assert_eq!(keys, ["ssh 1", kept, "tls 2"]);
    }
    assert!(second.others[0].seen > NOW);
    assert_eq!(names(&announce(replica("a", &["ssh 1"]))), ["b:8443"]);
    // Neither one that was not heard of for long, nor one of a time that is yet to come.
    bench.meddle("UPDATE replicas SET seen = seen - 31 WHERE id = 'a'").unwrap();
    bench.meddle("UPDATE replicas SET seen = seen + 40 WHERE id = 'b'").unwrap();
    assert_eq!(names(&announce(replica("c", &["ssh 1"]))), Vec::<String>::new());
    assert_eq!(bench.number("SELECT count(*) FROM replicas"), 1);
}

/// Of many that start at once, one says which CA keys the store is of.
fn of_many_that_start_at_once_one_says_which_keys_they_are(bench: &Bench) {
    let announced = bench.runtime.block_on(async {
        let mut all = JoinSet::new();
        for n in 0..10 {
            let store = Arc::clone(&bench.store);
            let keys = vec![format!("ssh {n}"), format!("tls {n}")];
            let replica = Replica { id: n.to_string(), keys, ..Replica::default() };
            all.spawn(async move { store.announce(replica).await.unwrap().keys });
        }
        all.join_all().await
    });
    assert_eq!(announced[0].len(), 2);
    assert!(announced.iter().all(|keys| *keys == announced[0]), "{announced:?}");
}

/// Authorities that share a store, and one that starts again, give the same list the same number.
fn lists_that_say_the_same_have_one_number(bench: &Bench) {
    let other = bench.again();
    let [some, more] = [[1; 32], [2; 32]];
    let number = |store: &Arc<dyn Store>, now, what| bench.wait(store.list_number(now, what));
    let first = number(&bench.store, NOW, some);
    assert_eq!(first.made, NOW);
    assert_eq!(number(&other, NOW + LIST_SERVED - 1, some), first);
    let hourly = number(&other, NOW + LIST_SERVED, some);
    assert!(hourly.number > first.number && hourly.made == NOW + LIST_SERVED);
    assert_eq!(number(&bench.store, NOW + LIST_SERVED, some), hourly);
    let revoked = number(&bench.store, NOW + LIST_SERVED, more);
    assert!(revoked.number > hourly.number);
    // What was taken back is another list, since that number names the one before.
    assert!(number(&other, NOW + LIST_SERVED, some).number > revoked.number);
    // And one of a time that is yet to come.
    let last = number(&other, NOW + LIST_SERVED, more);
    let put_back = number(&bench.store, NOW, more);
    assert!(put_back.number > last.number && put_back.made == NOW);
}

promises!(
    what_is_used_of_limits_adds_up_and_falls_with_time,
    limits_outlive_a_restart_and_are_one_for_all,
    replicas_hear_of_one_another_while_they_live,
    of_many_that_start_at_once_one_says_which_keys_they_are,
    lists_that_say_the_same_have_one_number,
);
