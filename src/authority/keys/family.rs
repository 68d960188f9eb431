//! The CAs of one kind: the one that signs, and those beside it.

use crate::authority::ca::CaState;
use crate::error::{Error, Result};

/// A CA among those of its kind.
#[derive(Clone, Debug)]
pub(super) struct Member<T> {
    /// As certificates name it; none before the first rotation of its kind.
    pub(super) number: Option<i64>,
    /// Whether certificates that name none are its.
    pub(super) is_first: bool,
    /// What it is good for.
    pub(super) state: CaState,
    /// The CA.
    pub(super) ca: T,
}

/// All of a kind.
#[derive(Clone, Debug)]
pub(super) struct Family<T> {
    current: Member<T>,
    /// Those before it, by their numbers, and those behind it.
    before: Vec<Member<T>>,
    behind: Vec<Member<T>>,
}

impl<T> Family<T> {
    /// The one of a kind that was never rotated.
    pub(super) fn of_one(ca: T) -> Self {
        let current = Member { number: None, is_first: true, state: CaState::Current, ca };
        Self { current, before: Vec::new(), behind: Vec::new() }
    }

    /// The one of a kind that was never rotated, and the one that is to follow.
    pub(super) fn with_ahead(ca: T, ahead: T) -> Self {
        let ahead = Member { number: None, is_first: false, state: CaState::Next, ca: ahead };
        Self { behind: vec![ahead], ..Self::of_one(ca) }
    }

    /// Those of a set, by their numbers.
    ///
    /// # Errors
    /// Where none signs.
    pub(super) fn new(members: Vec<Member<T>>) -> Result<Self> {
        let (mut before, mut current, mut behind) = (Vec::new(), None, Vec::new());
        for member in members {
            match (&current, member.state) {
                (None, CaState::Current) => current = Some(member),
                (None, _) => before.push(member),
                (Some(_), _) => behind.push(member),
            }
        }
        let current = current.ok_or_else(|| Error::internal("no CA of a kind signs"))?;
        Ok(Self { current, before, behind })
    }

    /// The one that signs.
    pub(super) fn current(&self) -> &Member<T> {
        &self.current
    }

    /// The first, or the one that signs.
    pub(super) fn one(&self, is_first: bool) -> Option<&T> {
        let one = if is_first { self.named(None) } else { Some(&self.current) };
        one.map(|member| &member.ca)
    }

    /// The one that a certificate names.
    pub(super) fn named(&self, number: Option<i64>) -> Option<&Member<T>> {
        self.all().find(|member| match number {
            Some(_) => member.number == number,
            None => member.is_first,
        })
    }

    /// All of them, whatever they are good for, by their numbers.
    pub(super) fn all(&self) -> impl Iterator<Item = &Member<T>> {
        self.before.iter().chain([&self.current]).chain(&self.behind)
    }

    /// Those whose word counts.
    pub(super) fn trusted(&self) -> impl Iterator<Item = &T> {
        self.all().filter(|member| member.state.is_trusted()).map(|member| &member.ca)
    }

    /// Those that were revoked as a whole.
    pub(super) fn revoked(&self) -> impl Iterator<Item = &T> {
        self.all().filter(|member| member.state == CaState::Revoked).map(|member| &member.ca)
    }
}
