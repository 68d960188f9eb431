//! What a rotation makes of the CAs of a kind, phase by phase: data in, data out.
//!
//! One signs. In the middle of a rotation another is trusted beside it: the next one, or the one before. Nothing that was
//! trusted no more is trusted again.

use super::ca::{CaKey, CaState};
use crate::error::{Error, Result};

/// A step of a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Another CA is trusted beside the one that signs.
    Start,
    /// The other one signs.
    Activate,
    /// The one before is trusted no more.
    Finish,
    /// Back by one step.
    Rollback,
    /// All there are of that kind are revoked, and a new one signs at once.
    Compromised,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 5] = [Self::Start, Self::Activate, Self::Finish, Self::Rollback, Self::Compromised];

    /// As `--phase` has it, and the audit trail.
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Activate => "activate",
            Self::Finish => "finish",
            Self::Rollback => "rollback",
            Self::Compromised => "compromised",
        }
    }

    /// Whether it needs a new CA.
    pub fn is_new(self) -> bool {
        matches!(self, Self::Start | Self::Compromised)
    }
}

/// How far the rotation of a kind is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress<'k> {
    /// One CA, and none beside it.
    Settled(&'k CaKey),
    /// One signs, and the other is to.
    Started(&'k CaKey, &'k CaKey),
    /// One signs, and the other did.
    Activated(&'k CaKey, &'k CaKey),
}

impl<'k> Progress<'k> {
    /// Of all CAs of a kind.
    ///
    /// # Errors
    /// `Kind::Internal` where they are none that a rotation makes.
    pub fn of(keys: impl IntoIterator<Item = &'k CaKey>) -> Result<Self> {
        let trusted: Vec<&CaKey> = keys.into_iter().filter(|key| key.state.is_trusted()).collect();
        let of = |state| trusted.iter().copied().filter(move |key| key.state == state);
        let (current, next) = (of(CaState::Current).next(), of(CaState::Next).next());
        match (current, next, of(CaState::Former).next(), trusted.len()) {
            (Some(current), None, None, 1) => Ok(Self::Settled(current)),
            (Some(current), Some(next), None, 2) => Ok(Self::Started(current, next)),
            (Some(current), None, Some(former), 2) => Ok(Self::Activated(current, former)),
            _ => Err(Error::internal("CAs that no rotation leaves so")),
        }
    }

    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Settled(_) => "settled",
            Self::Started(..) => "started",
            Self::Activated(..) => "activated",
        }
    }

    /// The one that signs.
    pub fn current(self) -> &'k CaKey {
        match self {
            Self::Settled(current) | Self::Started(current, _) | Self::Activated(current, _) => current,
        }
    }
}

/// What a phase makes of them.
#[derive(Clone, Debug)]
pub struct Step {
    /// All of that kind afterwards.
    pub keys: Vec<CaKey>,
    /// The CA that is trusted no more, of which no certificate is to live.
    pub ends: Option<i64>,
}

/// What they are after that phase, with the new CA that it may need.
///
/// # Errors
/// `Kind::Usage` where that phase does not follow.
pub fn step(keys: &[CaKey], phase: Phase, new: Option<CaKey>, now: i64) -> Result<Step> {
    let progress = Progress::of(keys)?;
    check(progress, phase)?;
    let to = |key: &CaKey| match (progress, phase, key.state) {
        (_, Phase::Compromised, state) if state.is_trusted() => CaState::Revoked,
        (Progress::Started(..), Phase::Activate, CaState::Next) => CaState::Current,
        (Progress::Started(..), Phase::Activate, CaState::Current) => CaState::Former,
        (Progress::Started(..), Phase::Rollback, CaState::Next) => CaState::Revoked,
        (Progress::Activated(..), Phase::Rollback, CaState::Current) => CaState::Next,
        (Progress::Activated(..), Phase::Rollback, CaState::Former) => CaState::Current,
        (Progress::Activated(..), Phase::Finish, CaState::Former) => CaState::Ended,
        (_, _, state) => state,
    };
    let moved = |key: &CaKey| {
        let state = to(key);
        let since = if state == key.state { key.since } else { now };
        let sealed = key.sealed.clone().filter(|_| state.is_trusted());
        CaKey { state, since, sealed, ..key.clone() }
    };
    let mut keys: Vec<CaKey> = keys.iter().map(moved).collect();
    let state = if phase == Phase::Compromised { CaState::Current } else { CaState::Next };
    keys.extend(new.filter(|_| phase.is_new()).map(|new| CaKey { state, ..new }));
    let ends = match (progress, phase) {
        (Progress::Activated(_, former), Phase::Finish) => Some(former.number),
        (Progress::Started(_, next), Phase::Rollback) => Some(next.number),
        _ => None,
    };
    Progress::of(&keys)?;
    Ok(Step { keys, ends })
}

/// Whether that phase follows.
///
/// # Errors
/// `Kind::Usage` where it does not.
pub fn check(progress: Progress<'_>, phase: Phase) -> Result<()> {
    let kind = progress.current().kind.name();
    let (why, hint) = match (progress, phase) {
        (_, Phase::Compromised)
        | (Progress::Settled(_), Phase::Start)
        | (Progress::Started(..), Phase::Activate | Phase::Rollback)
        | (Progress::Activated(..), Phase::Finish | Phase::Rollback) => return Ok(()),
        (Progress::Settled(_), Phase::Rollback) => (
            "there is nothing to go back to: what is over is over",
            "`--phase start` begins another rotation",
        ),
        (Progress::Settled(_), Phase::Activate | Phase::Finish) => {
            ("no rotation of it has begun", "`--phase start` begins one")
        }
        (Progress::Started(..), Phase::Start) => {
            ("a rotation of it has begun", "`--phase activate` goes on, `--phase rollback` back")
        }
        (Progress::Started(..), Phase::Finish) => {
            ("the old CA signs still", "`--phase activate` has the new one sign")
        }
        (Progress::Activated(..), Phase::Start | Phase::Activate) => (
            "the new CA signs already",
            "`--phase finish` ends trust in the old one, `--phase rollback` goes back",
        ),
    };
    Err(Error::usage(why).context(format!("cannot {} the rotation of {kind}", phase.name())).hint(hint))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::authority::ca::CaKind;

    fn key(number: i64, state: CaState) -> CaKey {
        CaKey {
            number,
            kind: CaKind::SshUser,
            name: format!("ssh-user-{number}"),
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

    /// One after the other, from one CA on; each new one has the next number.
    fn after(phases: &[Phase]) -> Result<Vec<CaKey>> {
        let mut keys = vec![key(1, CaState::Current)];
        for (now, phase) in phases.iter().enumerate() {
            let new = key(i64::try_from(keys.len()).unwrap() + 1, CaState::Ended);
            keys = step(&keys, *phase, Some(new), i64::try_from(now).unwrap())?.keys;
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
            assert_eq!(states(&after(&phases).unwrap()), expected, "{phases:?}");
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
            let error = after(&refused).unwrap_err();
            assert!(!error.hints().is_empty(), "{refused:?}: {error}");
        }
    }

    #[test]
    fn what_is_trusted_no_more_is_to_have_no_certificate() {
        let keys = after(&[Phase::Start, Phase::Activate]).unwrap();
        assert_eq!(step(&keys, Phase::Finish, None, 0).unwrap().ends, Some(1));
        let keys = step(&keys, Phase::Rollback, None, 0).unwrap();
        assert_eq!((keys.ends, step(&keys.keys, Phase::Rollback, None, 0).unwrap().ends), (None, Some(2)));
    }

    proptest! {
        /// Whatever is asked for in whatever order.
        #[test]
        fn one_signs_and_what_is_over_stays_so(phases in proptest::collection::vec(0..Phase::ALL.len(), 0..30)) {
            let mut keys = vec![key(1, CaState::Current)];
            for (now, phase) in phases.into_iter().enumerate() {
                let (phase, now) = (Phase::ALL[phase], i64::try_from(now).unwrap());
                let new = key(i64::try_from(keys.len()).unwrap() + 1, CaState::Next);
                let Ok(Step { keys: after, ends }) = step(&keys, phase, Some(new), now) else { continue };
                let count = |is: fn(CaState) -> bool| after.iter().filter(|key| is(key.state)).count();
                prop_assert_eq!(count(|state| state == CaState::Current), 1);
                prop_assert!(count(CaState::is_trusted) <= 2);
                for (before, after) in keys.iter().zip(&after) {
                    prop_assert!(before.state.is_trusted() || before == after, "over is over");
                    prop_assert!(after.state.is_trusted() || after.sealed.is_none());
                    // Nothing that signs becomes one that never did, but by going back.
                    let back = phase == Phase::Rollback;
                    prop_assert!(before.state != CaState::Current || after.state != CaState::Next || back);
                    let is_over = before.state.is_trusted() && !after.state.is_trusted();
                    prop_assert!(!is_over || ends == Some(before.number) || phase == Phase::Compromised);
                }
                // Back from where it has come to.
                if phase == Phase::Activate {
                    let back = step(&after, Phase::Rollback, None, now).unwrap().keys;
                    prop_assert_eq!(states(&back), states(&keys));
                }
                keys = after;
            }
        }
    }
}
