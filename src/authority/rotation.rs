//! What a rotation makes of the CAs of a kind, phase by phase: data in, data out.
//!
//! One signs. In the middle of a rotation another is trusted beside it: the next one, or the one before. Nothing that was
//! trusted no more is trusted again. Of the federation key one more is published ahead always, for those who keep a copy of
//! the set: `start` makes the one after that, and the one ahead becomes the next.

use super::ca::{CaKey, CaKind, CaState};
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

    /// How many new CAs of a kind it needs.
    pub fn needs(self, kind: CaKind) -> usize {
        match (self, kind) {
            // One that signs, and one ahead.
            (Self::Compromised, CaKind::Federation) => 2,
            (Self::Start | Self::Compromised, _) => 1,
            (Self::Activate | Self::Finish | Self::Rollback, _) => 0,
        }
    }
}

/// How far the rotation of a kind is, but for the one that is published ahead.
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
        let mut trusted: Vec<&CaKey> = keys.into_iter().filter(|key| key.state.is_trusted()).collect();
        let is_ahead = |key: &CaKey| key.kind == CaKind::Federation && key.state == CaState::Next;
        if let Some(place) = trusted.iter().rposition(|key| is_ahead(key)) {
            trusted.remove(place);
        } else if trusted.iter().any(|key| key.kind == CaKind::Federation) {
            return Err(Error::internal("federation keys of which none is published ahead"));
        }
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

/// The one that was made last of those that are to sign: of the federation key the one ahead.
pub fn newest(keys: &[CaKey]) -> Option<&CaKey> {
    keys.iter().rfind(|key| key.state == CaState::Next)
}

/// What a phase makes of them.
#[derive(Clone, Debug)]
pub struct Step {
    /// All of that kind afterwards.
    pub keys: Vec<CaKey>,
    /// The CA that is trusted no more, of which no certificate is to live.
    pub ends: Option<i64>,
}

/// What they are after that phase, with the new CAs that it may need; all by their numbers.
///
/// # Errors
/// `Kind::Usage` where that phase does not follow.
pub fn step(keys: &[CaKey], phase: Phase, new: Vec<CaKey>, now: i64) -> Result<Step> {
    let progress = Progress::of(keys)?;
    check(progress, phase)?;
    let newest = newest(keys).map(|key| key.number);
    let to = |key: &CaKey| match (progress, phase, key.state) {
        (_, Phase::Compromised, state) if state.is_trusted() => CaState::Revoked,
        (Progress::Started(_, next), Phase::Activate, _) if key.number == next.number => CaState::Current,
        (Progress::Started(..), Phase::Activate, CaState::Current) => CaState::Former,
        (Progress::Started(..), Phase::Rollback, _) if Some(key.number) == newest => CaState::Revoked,
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
    let needs = phase.needs(progress.current().kind);
    let mut keys: Vec<CaKey> = keys.iter().map(moved).collect();
    keys.extend(new.into_iter().take(needs).enumerate().map(|(place, new)| {
        let signs = phase == Phase::Compromised && place == 0;
        CaKey { state: if signs { CaState::Current } else { CaState::Next }, ..new }
    }));
    let ends = match (progress, phase) {
        (Progress::Activated(_, former), Phase::Finish) => Some(former.number),
        (Progress::Started(..), Phase::Rollback) => newest,
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
mod tests;
