//! Every phase in every order.

use proptest::prelude::*;

use super::*;

fn key(kind: CaKind, number: i64, state: CaState) -> CaKey {
    CaKey {
        number,
        kind,
        name: format!("{}-{number}", kind.name()),
        id: number.to_string(),
        is_first: number == 1,
        state,
        public: String::new(),
        endorsements: Vec::new(),
        cross: Vec::new(),
        sealed: Some(vec![1]),
        since: 0,
    }
}

fn states(keys: &[CaKey]) -> Vec<&'static str> {
    keys.iter().map(|key| key.state.name()).collect()
}

/// Before the first rotation.
fn first(kind: CaKind) -> Vec<CaKey> {
    let ahead = (kind == CaKind::Federation).then(|| key(kind, 2, CaState::Next));
    [key(kind, 1, CaState::Current)].into_iter().chain(ahead).collect()
}

/// New ones, more than any phase needs, with the next numbers.
fn new(kind: CaKind, keys: &[CaKey]) -> Vec<CaKey> {
    let last = i64::try_from(keys.len()).unwrap();
    (1..=3).map(|next| key(kind, last + next, CaState::Ended)).collect()
}

/// One after the other.
fn after(kind: CaKind, phases: &[Phase]) -> Result<Vec<CaKey>> {
    let mut keys = first(kind);
    for (now, phase) in phases.iter().enumerate() {
        keys = step(&keys, *phase, new(kind, &keys), i64::try_from(now).unwrap())?.keys;
    }
    Ok(keys)
}

#[test]
fn a_rotation_goes_on_and_back() {
    use Phase::{Activate, Compromised, Finish, Rollback, Start};
    for (phases, expected) in [
        (vec![Start], vec!["current", "next"]),
        (vec![Start, Activate], vec!["former", "current"]),
        (vec![Start, Activate, Finish], vec!["ended", "current"]),
        (vec![Start, Rollback], vec!["current", "revoked"]),
        (vec![Start, Activate, Rollback], vec!["current", "next"]),
        (vec![Start, Activate, Rollback, Activate], vec!["former", "current"]),
        (vec![Start, Activate, Rollback, Rollback], vec!["current", "revoked"]),
        (vec![Start, Rollback, Start, Activate, Finish], vec!["ended", "revoked", "current"]),
        (vec![Compromised], vec!["revoked", "current"]),
        (vec![Start, Compromised], vec!["revoked", "revoked", "current"]),
        (vec![Start, Activate, Compromised], vec!["revoked", "revoked", "current"]),
        (vec![Start, Activate, Finish, Compromised], vec!["ended", "revoked", "current"]),
    ] {
        assert_eq!(states(&after(CaKind::SshUser, &phases).unwrap()), expected, "{phases:?}");
    }
    for refused in [
        vec![Activate],
        vec![Finish],
        vec![Rollback],
        vec![Start, Start],
        vec![Start, Finish],
        vec![Start, Activate, Activate],
        vec![Start, Activate, Start],
        vec![Start, Activate, Finish, Rollback],
        vec![Compromised, Rollback],
    ] {
        for kind in [CaKind::SshUser, CaKind::Federation] {
            let error = after(kind, &refused).unwrap_err();
            assert!(!error.hints().is_empty(), "{refused:?}: {error}");
        }
    }
}

#[test]
fn a_federation_key_is_published_a_rotation_ahead() {
    use Phase::{Activate, Compromised, Finish, Rollback, Start};
    for (phases, expected) in [
        (vec![], vec!["current", "next"]),
        (vec![Start], vec!["current", "next", "next"]),
        (vec![Start, Activate], vec!["former", "current", "next"]),
        (vec![Start, Activate, Finish], vec!["ended", "current", "next"]),
        (vec![Start, Rollback], vec!["current", "next", "revoked"]),
        (vec![Start, Activate, Rollback], vec!["current", "next", "next"]),
        (vec![Start, Activate, Rollback, Rollback], vec!["current", "next", "revoked"]),
        (vec![Start, Activate, Finish, Start, Activate], vec!["ended", "former", "current", "next"]),
        (vec![Compromised], vec!["revoked", "revoked", "current", "next"]),
        (vec![Start, Compromised], vec!["revoked", "revoked", "revoked", "current", "next"]),
        (vec![Compromised, Start, Activate], vec!["revoked", "revoked", "former", "current", "next"]),
    ] {
        assert_eq!(states(&after(CaKind::Federation, &phases).unwrap()), expected, "{phases:?}");
    }
    let started = after(CaKind::Federation, &[Start]).unwrap();
    let Progress::Started(current, next) = Progress::of(&started).unwrap() else { panic!("{started:?}") };
    assert_eq!((current.number, next.number, newest(&started).map(|key| key.number)), (1, 2, Some(3)));
    assert!(Progress::of(&[key(CaKind::Federation, 1, CaState::Current)]).is_err(), "none is ahead");
}

#[test]
fn what_is_trusted_no_more_is_to_have_no_certificate() {
    let keys = after(CaKind::SshUser, &[Phase::Start, Phase::Activate]).unwrap();
    assert_eq!(step(&keys, Phase::Finish, Vec::new(), 0).unwrap().ends, Some(1));
    let keys = step(&keys, Phase::Rollback, Vec::new(), 0).unwrap();
    assert_eq!((keys.ends, step(&keys.keys, Phase::Rollback, Vec::new(), 0).unwrap().ends), (None, Some(2)));
}

proptest! {
    /// Whatever is asked for in whatever order.
    #[test]
    fn one_signs_and_what_is_over_stays_so(
        federates: bool,
        phases in proptest::collection::vec(0..Phase::ALL.len(), 0..30),
    ) {
        let kind = if federates { CaKind::Federation } else { CaKind::SshUser };
        let mut keys = first(kind);
        for (now, phase) in phases.into_iter().enumerate() {
            let (phase, now) = (Phase::ALL[phase], i64::try_from(now).unwrap());
            let Ok(Step { keys: after, ends }) = step(&keys, phase, new(kind, &keys), now) else { continue };
            let count = |is: fn(CaState) -> bool| after.iter().filter(|key| is(key.state)).count();
            prop_assert_eq!(count(|state| state == CaState::Current), 1);
            prop_assert!(count(CaState::is_trusted) <= 2 + usize::from(federates));
            for (before, after) in keys.iter().zip(&after) {
                prop_assert!(before.state.is_trusted() || before == after, "over is over");
                prop_assert!(after.state.is_trusted() || after.sealed.is_none());
                // Nothing that signs becomes one that never did, but by going back.
                let back = phase == Phase::Rollback;
                prop_assert!(before.state != CaState::Current || after.state != CaState::Next || back);
                let is_over = before.state.is_trusted() && !after.state.is_trusted();
                prop_assert!(!is_over || ends == Some(before.number) || phase == Phase::Compromised);
            }
            if federates {
                let ahead = newest(&keys).unwrap().number;
                let signs = Progress::of(&after).unwrap().current().number;
                prop_assert!(newest(&after).is_some_and(|key| key.number > signs), "one is ahead");
                prop_assert!(signs != ahead || phase == Phase::Compromised, "the one ahead signs nothing");
            }
            // Back from where it has come to.
            if phase == Phase::Activate {
                let back = step(&after, Phase::Rollback, Vec::new(), now).unwrap().keys;
                prop_assert_eq!(states(&back), states(&keys));
            }
            keys = after;
        }
    }
}
