//! A model of workers, copies of their storage, an authority and a network
//! that loses, repeats and holds up what it carries.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

/// A worker's storage: what the client keeps.
#[derive(Clone, Debug, Default)]
struct Storage {
    generation: i64,
    attempt: Option<String>,
    tries: i64,
    earlier: Vec<String>,
    older: String,
}

/// The authority: what the store does in one transaction.
#[derive(Default)]
struct Authority {
    last: LastJoin,
    used: HashSet<String>,
    answered: Vec<(String, i64)>,
    locked: bool,
    ids: u64,
}

impl Authority {
    fn fresh(&mut self) -> String {
        self.ids += 1;
        format!("{:04}r", self.ids)
    }

    /// The generation of the answer, if there is one.
    fn join(&mut self, join: &JoinClaims) -> Option<i64> {
        if self.locked {
            return None;
        }
        if let Some((_, generation)) = self.answered.iter().find(|(id, _)| *id == join.id) {
            return Some(*generation);
        }
        if self.used.contains(&join.id) {
            return None;
        }
        match self.last.judge(join) {
            Judgement::Accepted(last) => {
                self.last = last;
                self.used.extend(join.earlier.iter().cloned());
                self.answered.push((join.id.clone(), self.last.expected));
                Some(self.last.expected)
            }
            Judgement::Forked => {
                self.locked = true;
                None
            }
            Judgement::Ahead => panic!("nobody is ahead"),
        }
    }
}

impl Storage {
    /// What the client writes before it sends.
    fn ask(&mut self, authority: &mut Authority, most: usize) -> JoinClaims {
        let attempt = self.attempt.get_or_insert_with(|| authority.fresh()).clone();
        let id = authority.fresh();
        let join = JoinClaims {
            id: id.clone(),
            generation: self.generation,
            attempt,
            tries: self.tries,
            earlier: self.earlier.clone(),
            older: self.older.clone(),
        };
        self.tries += 1;
        self.earlier.push(id);
        let surplus = self.earlier.len().saturating_sub(most);
        for old in self.earlier.drain(..surplus) {
            self.older.push_str(&old[..BEGINNING]);
        }
        join
    }

    fn settle(&mut self, generation: i64) {
        *self = Self { generation, ..Self::default() };
    }

    /// A join without trouble.
    fn join(&mut self, authority: &mut Authority, most: usize) -> bool {
        let join = self.ask(authority, most);
        let answer = authority.join(&join);
        answer.inspect(|generation| self.settle(*generation)).is_some()
    }
}

/// What happens to one request.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// All goes well.
    Answered,
    /// The worker is killed before it sends, or nobody is there.
    Unsent,
    /// The request arrives, its answer does not.
    LostReply,
    /// The request arrives after so many others.
    Delayed(usize),
    /// It arrives twice, and once more later.
    Repeated(usize),
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        3 => Just(Fate::Answered),
        1 => Just(Fate::Unsent),
        2 => Just(Fate::LostReply),
        2 => (1..6usize).prop_map(Fate::Delayed),
        1 => (1..6usize).prop_map(Fate::Repeated),
    ]
}

/// Runs a worker through these fates; what is still under way at the end.
fn run(worker: &mut Storage, authority: &mut Authority, fates: &[Fate], most: usize) -> Vec<JoinClaims> {
    let mut under_way: Vec<(usize, JoinClaims)> = Vec::new();
    for fate in fates {
        for (left, _) in &mut under_way {
            *left = left.saturating_sub(1);
        }
        let (arrived, waiting): (Vec<_>, Vec<_>) = under_way.into_iter().partition(|(left, _)| *left == 0);
        under_way = waiting;
        for (_, join) in arrived {
            authority.join(&join);
        }
        let join = worker.ask(authority, most);
        match *fate {
            Fate::Unsent => {}
            Fate::Delayed(by) => under_way.push((by, join)),
            Fate::LostReply => drop(authority.join(&join)),
            Fate::Answered | Fate::Repeated(_) => {
                let answer = authority.join(&join);
                if let Fate::Repeated(by) = *fate {
                    assert_eq!(authority.join(&join), answer);
                    under_way.push((by, join));
                }
                // An honest request that is answered at all is accepted.
                worker.settle(answer.expect("an answer"));
            }
        }
    }
    under_way.into_iter().map(|(_, join)| join).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_honest_worker_is_locked(fates in prop::collection::vec(fate(), 0..60)) {
        let (mut worker, mut authority) = (Storage::default(), Authority::default());
        let late = run(&mut worker, &mut authority, &fates, MAX_EARLIER);
        prop_assert!(!authority.locked);
        for join in late {
            authority.join(&join);
        }
        prop_assert!(worker.join(&mut authority, MAX_EARLIER), "good afterwards");
    }

    /// However long nobody answered. Requests beyond the limit are none that
    /// could still arrive: the client makes no more than so many in that time.
    #[test]
    fn nor_one_whose_ids_are_many(outages in prop::collection::vec((0..12usize, 0..4usize), 1..8)) {
        let (mut worker, mut authority) = (Storage::default(), Authority::default());
        for (unsent, lost) in outages {
            let mut fates = vec![Fate::LostReply; lost];
            fates.extend(vec![Fate::Unsent; unsent]);
            fates.push(Fate::Answered);
            run(&mut worker, &mut authority, &fates, 3);
        }
        prop_assert!(!authority.locked);
    }

    /// A copy taken at any moment: once it has joined and both sides join
    /// once more, the instance is locked, whoever goes first and whatever is lost.
    #[test]
    fn every_copy_that_joins_is_found(
        before in prop::collection::vec(fate(), 0..20),
        between in prop::collection::vec(fate(), 0..6),
        after in prop::collection::vec((any::<bool>(), fate()), 0..6),
        honest_first: bool,
        most in prop_oneof![Just(MAX_EARLIER), Just(2)],
    ) {
        let (mut worker, mut authority) = (Storage::default(), Authority::default());
        let no_delays = |fates: &[Fate]| -> Vec<Fate> {
            fates.iter().map(|fate| match fate {
                // With few ids, those that could still arrive must be named.
                Fate::Delayed(_) | Fate::Repeated(_) if most == 2 => Fate::LostReply,
                fate => *fate,
            }).collect()
        };
        run(&mut worker, &mut authority, &no_delays(&before), most);
        let mut copy = worker.clone();
        run(&mut worker, &mut authority, &no_delays(&between), most);
        prop_assert!(copy.join(&mut authority, most) || authority.locked);
        for (of_copy, fate) in after {
            let side = if of_copy { &mut copy } else { &mut worker };
            let join = side.ask(&mut authority, most);
            if matches!(fate, Fate::Unsent | Fate::Delayed(_)) {
                continue;
            }
            let answer = authority.join(&join);
            if let (Fate::Answered, Some(generation)) = (fate, answer) {
                side.settle(generation);
            }
        }
        let mut sides = [&mut worker, &mut copy];
        if !honest_first {
            sides.reverse();
        }
        for side in &mut sides {
            side.join(&mut authority, most);
        }
        prop_assert!(authority.locked);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// However many requests went unanswered before the copy was taken and
    /// after, lost or never sent: of thief and worker one is accepted, and the
    /// other locks both. An honest worker alone goes on.
    #[test]
    fn thief_and_worker_never_both_go_on(
        before in 0..1200usize,
        after in 0..80usize,
        arrives in prop::option::of(0..1280usize),
        thief_first: bool,
        takes_over: bool,
    ) {
        let (mut worker, mut authority) = (Storage::default(), Authority::default());
        let tries = |side: &mut Storage, authority: &mut Authority, range: std::ops::Range<usize>| {
            for n in range {
                let join = side.ask(authority, MAX_EARLIER);
                if arrives == Some(n) {
                    authority.join(&join);
                }
            }
        };
        tries(&mut worker, &mut authority, 0..before);
        let mut thief = worker.clone();
        tries(&mut worker, &mut authority, before..before + after);
        if !takes_over {
            prop_assert!(worker.join(&mut authority, MAX_EARLIER), "an honest worker goes on");
        }
        let sides = if thief_first { [&mut thief, &mut worker] } else { [&mut worker, &mut thief] };
        let went_on = sides.into_iter().filter_map(|side| side.join(&mut authority, MAX_EARLIER).then_some(())).count();
        prop_assert!(went_on <= 1 && authority.locked);
    }
}

#[test]
fn what_is_not_next_is_judged() {
    let last = LastJoin { expected: 7, base: 5, attempt: "a".into(), tries: 2, id: "r3aabbcc".into() };
    let join = |generation, attempt: &str, tries, earlier: &[&str]| {
        let earlier = earlier.iter().map(|id| (*id).to_owned()).collect();
        let join = JoinClaims {
            id: "r9".into(),
            generation,
            attempt: attempt.into(),
            tries,
            earlier,
            ..Default::default()
        };
        last.judge(&join)
    };
    let older = |tries, older: &str| {
        let earlier = vec!["r8".to_owned()];
        let join = JoinClaims {
            id: "r9".into(),
            generation: 5,
            attempt: "a".into(),
            tries,
            earlier,
            older: older.into(),
        };
        last.judge(&join)
    };
    let accepted = |verdict| matches!(verdict, Judgement::Accepted(LastJoin { expected: 8, .. }));
    assert!(accepted(join(7, "b", 0, &[])));
    assert!(accepted(join(5, "a", 3, &["r1", "r2", "r3aabbcc"])));
    assert!(accepted(older(4, "r1aar2aar3aa")), "the one before the last");
    assert!(accepted(older(6, "r1aar2aar3aar4aar5aa")), "one of those before");
    for (what, verdict) in [
        ("a copy, another attempt", join(5, "b", 0, &[])),
        ("a copy of the pending storage", join(5, "a", 3, &["r1", "r2", "r4"])),
        ("one that claims to have forgotten", join(5, "a", 9, &["r7", "r8"])),
        ("one that guesses", older(4, "r1aar2aar3ab")),
        ("one that guesses everywhere", older(4, "r3aar3aar3ab")),
        ("one that knows it in another place", older(5, "r1aar2aar3aa")),
        ("one that names too few", older(6, "r3aa")),
        ("one with text that cannot be cut", older(4, "r1aar2a\u{e4}\u{e4}\u{e4}")),
        ("one between", join(6, "a", 3, &["r1", "r2", "r3aabbcc"])),
        ("an old one", join(4, "a", 3, &["r1", "r2", "r3aabbcc"])),
        ("a negative one", join(-1, "a", 3, &["r3aabbcc"])),
    ] {
        assert_eq!(verdict, Judgement::Forked, "{what}");
    }
    assert_eq!(join(8, "b", 0, &[]), Judgement::Ahead);
}
