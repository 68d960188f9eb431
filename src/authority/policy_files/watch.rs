//! When a change of a policy is taken: once it stands still. Two looks at its
//! content a second apart are equal, nothing has moved between them, and
//! nothing is younger than a second by the file system's clock.
//!
//! Nothing here reads or waits, so that a test can play every writer.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::manifest;
use super::text::PolicyText;
use crate::authority::policy::Policy;
use crate::error::{Error, Result};
use crate::folder::stamp::{self, Nanos, STILL, Stamp, nanos};

/// How long a policy that is being written is waited for at the start.
pub(super) const START_PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked at then.
pub(super) const START_LOOKS: Duration = Duration::from_millis(100);

/// When a look is taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct When {
    /// By a clock that nobody sets.
    pub(super) at: Duration,
    /// By the clock that files are stamped with, if theirs is this machine's.
    now: Nanos,
}

impl When {
    /// Now, so long after `begun`.
    pub(super) fn since(begun: Instant) -> Self {
        Self { at: begun.elapsed(), now: stamp::now() }
    }
}

type Stamps = Vec<(PathBuf, Option<Stamp>)>;

/// What can be told of a policy without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// Its files: when these are others, it is looked at.
    files: Stamps,
    /// The folder, and hidden files, where writers put what they rename later: somebody is at it.
    beside: Stamps,
}

impl Facts {
    pub(super) fn of(files: Vec<PathBuf>, beside: Vec<PathBuf>) -> Self {
        let stamps = |paths: Vec<PathBuf>| -> Stamps {
            let stamped = |path: PathBuf| {
                let stamp = Stamp::of(&path);
                (path, stamp)
            };
            paths.into_iter().map(stamped).collect()
        };
        Self { files: stamps(files), beside: stamps(beside) }
    }

    fn stamps(&self) -> impl Iterator<Item = (&Path, Stamp)> {
        let all = self.files.iter().chain(&self.beside);
        all.filter_map(|(path, stamp)| Some((path.as_path(), (*stamp)?)))
    }

    /// Whether something has changed within the last second.
    fn is_young(&self, now: Nanos) -> bool {
        self.stamps().any(|(_, stamp)| stamp.is_young(now))
    }

    /// Whether nothing has, for certain.
    fn is_old(&self, now: Nanos) -> bool {
        self.stamps().flat_map(|(_, stamp)| stamp.ages(now)).all(|age| age >= nanos(STILL))
    }

    /// What changed last.
    fn latest(&self) -> Option<&Path> {
        self.stamps().max_by_key(|(_, stamp)| stamp.changed).map(|(path, _)| path)
    }
}

/// What a look found.
#[derive(Debug)]
pub enum Look {
    /// Nothing new.
    Unchanged,
    /// Something that does not stand still yet.
    Waits {
        /// How many looks have found that, this one included.
        looks: u32,
        /// What changed last.
        latest: Option<PathBuf>,
    },
    /// A new policy, whole.
    Taken(Arc<Policy>),
    /// Something that stands still and is none.
    Refused(Error),
}

/// What has been seen of a policy's files so far.
#[derive(Debug, Default)]
pub struct Watch {
    /// The files that were judged last, taken or not.
    judged: Option<Stamps>,
    waiting: Option<Waiting>,
    /// Whether a policy with a `policy.sha256` was taken: none without one is any more.
    listed: bool,
    /// Why the files could not be read the last time: that may pass.
    unread: Option<String>,
}

/// What must stand still.
#[derive(Debug)]
struct Waiting {
    since: Duration,
    looks: u32,
    facts: Facts,
    text: Option<PolicyText>,
}

impl Watch {
    /// One look; where it is `asked` for, even if nothing seems new.
    pub(super) fn look(
        &mut self,
        when: When,
        asked: bool,
        facts: Facts,
        read: impl FnOnce() -> Result<PolicyText>,
    ) -> Look {
        if asked {
            (self.judged, self.unread) = (None, None);
        }
        if self.judged.as_ref() == Some(&facts.files) {
            self.waiting = None;
            return Look::Unchanged;
        }
        match self.stands(when, facts, read()).map(|(facts, read)| self.judge(facts, read)) {
            Some(Ok(policy)) => {
                self.unread = None;
                Look::Taken(Arc::new(policy))
            }
            Some(Err(error)) if self.unread == Some(error.to_string()) => Look::Unchanged,
            Some(Err(error)) => {
                self.unread = self.judged.is_none().then(|| error.to_string());
                Look::Refused(error)
            }
            None => Look::Waits {
                looks: self.waiting.as_ref().map_or(0, |waiting| waiting.looks),
                latest: self.latest(),
            },
        }
    }

    /// A look at the start, when one is enough where nothing has moved
    /// meanwhile and all is old. What cannot be read is not waited for.
    pub(super) fn start(
        &mut self,
        when: When,
        facts: Facts,
        read: Result<PolicyText>,
        unmoved: bool,
    ) -> Option<Result<Policy>> {
        if unmoved && (read.is_err() || facts.is_old(when.now)) {
            return Some(self.judge(facts, read));
        }
        self.stands(when, facts, read).map(|(facts, read)| self.judge(facts, read))
    }

    /// What was seen, if it has been so for long enough.
    fn stands(
        &mut self,
        when: When,
        facts: Facts,
        read: Result<PolicyText>,
    ) -> Option<(Facts, Result<PolicyText>)> {
        let (since, looks) = match self.waiting.take() {
            Some(before) if before.facts == facts && before.text.as_ref() == read.as_ref().ok() => {
                (before.since, before.looks)
            }
            before => (when.at, before.map_or(0, |before| before.looks)),
        };
        if when.at.saturating_sub(since) >= STILL && !facts.is_young(when.now) {
            return Some((facts, read));
        }
        self.waiting = Some(Waiting { since, looks: looks.saturating_add(1), facts, text: read.ok() });
        None
    }

    fn judge(&mut self, facts: Facts, read: Result<PolicyText>) -> Result<Policy> {
        self.judged = read.is_ok().then_some(facts.files);
        let text = read?;
        if text.manifest.is_none() && self.listed {
            return Err(Error::usage(format!("`{}` is gone from the policy's folder", manifest::NAME))
                .hint("write it again; an authority that is restarted does without it"));
        }
        let is_listed = text.manifest.is_some();
        let policy = text.policy()?;
        // Of a policy that was taken: a list that never fitted binds nobody.
        self.listed |= is_listed;
        Ok(policy)
    }

    fn latest(&self) -> Option<PathBuf> {
        self.waiting.as_ref().and_then(|waiting| waiting.facts.latest()).map(Path::to_owned)
    }

    /// Why there is no policy after all the time at the start.
    pub(super) fn still_written(&self, policy: &Path) -> Error {
        let latest = self.latest();
        let message = format!("the policy {} does not stand still", policy.display());
        let changing = latest.map(|path| format!("{} is still being changed", path.display()));
        let hint =
            "start again when it is written; a file that is written aside and renamed is never half there";
        changing.into_iter().fold(Error::usage(message), Error::hint).hint(hint)
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
