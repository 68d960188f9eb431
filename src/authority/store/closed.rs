//! A store that nothing is written to: what it had is elsewhere, or what it is
//! to have is not all there yet. It says so itself, in `state`, and every
//! transaction that writes looks there first; so of two stores between which
//! records are carried, never do both issue.

use std::fmt;

use super::version::NEWER;
use crate::error::{Error, Kind, Result};
use crate::text::shown;

/// Why nothing is written to a store, as `state.closed` has it: a word, the identity of the other store, and where
/// that is, without secrets.
#[derive(Clone, Debug)]
pub struct Closed {
    why: Why,
    store: String,
    place: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// Its records are in the other store, which goes on.
    Moved,
    /// The other store's records are being brought here.
    Filling,
    /// They were, and the other one has gone on without them.
    Void,
    /// A newer version has changed its tables.
    Outgrown,
    /// As a newer version says.
    Unknown,
}

const WORDS: [(Why, &str); 3] = [(Why::Moved, "moved"), (Why::Filling, "filling"), (Why::Void, "void")];

/// How one that is there is used anew.
pub(super) const ANEW: &str = "where nothing in it is wanted, remove it: a file with its mark; of a database, as its owner, `DROP SCHEMA machine_id CASCADE`, then `machine-id authority upgrade`";

impl Closed {
    /// The records are in that store now.
    pub(super) fn moved(store: &str, place: &str) -> Self {
        Self { why: Why::Moved, store: store.to_owned(), place: place.to_owned() }
    }

    /// That store's records are being brought here.
    pub(super) fn filling(store: &str, place: &str) -> Self {
        Self { why: Why::Filling, ..Self::moved(store, place) }
    }

    /// What was brought here of that store counts no more.
    pub(super) fn void(store: &str, place: &str) -> Self {
        Self { why: Why::Void, ..Self::moved(store, place) }
    }

    /// Its tables are for a machine-id that knows that version of them.
    pub(super) fn outgrown(version: i64) -> Self {
        Self { why: Why::Outgrown, ..Self::moved("", &version.to_string()) }
    }

    /// Whether nothing but this version is in the way.
    pub fn is_outgrown(&self) -> bool {
        self.why == Why::Outgrown
    }

    /// Whether it is for the same reason, with the same store: that may be called otherwise by now.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.why != Why::Unknown && (self.why, &self.store) == (other.why, &other.store)
    }

    /// What `state` says. Words that are not understood close it too.
    pub(super) fn read(text: Option<String>) -> Option<Self> {
        let text = text?;
        let mut words = text.splitn(3, ' ');
        let said = words.next().unwrap_or_default();
        let why = WORDS.iter().find(|(_, word)| *word == said).map_or(Why::Unknown, |(why, _)| *why);
        Some(match (why, words.next(), words.next()) {
            (Why::Unknown, ..) | (_, None, _) | (.., None) => {
                Self { why: Why::Unknown, store: String::new(), place: text }
            }
            (why, Some(store), Some(place)) => Self { why, store: store.to_owned(), place: place.to_owned() },
        })
    }

    /// As `state` has it.
    pub(super) fn text(&self) -> String {
        let word = WORDS.iter().find(|(why, _)| *why == self.why).map_or("closed", |(_, word)| word);
        format!("{word} {} {}", self.store, self.place)
    }

    /// That a store which was `found` closed or not is as it is `wanted`.
    pub(super) fn must_be(found: Option<Self>, wanted: Option<&Self>) -> Result<()> {
        match (found, wanted) {
            (None, None) => Ok(()),
            (Some(found), Some(wanted)) if found.is(wanted) => Ok(()),
            (Some(found), _) => Err(found.error()),
            (None, Some(_)) => {
                Err(Error::usage("it was opened meanwhile: is the same command running elsewhere?"))
            }
        }
    }

    /// For whoever wanted to write.
    pub fn error(self) -> Error {
        let place = setting(&shown(&self.place));
        let hint = match self.why {
            Why::Moved => format!(
                "where it says `store` in authority.yaml, write `store: {place}`, and start the authority again"
            ),
            Why::Filling => {
                "run the same `machine-id authority migrate` again: it goes on where it was".to_owned()
            }
            Why::Void => ANEW.to_owned(),
            Why::Outgrown | Why::Unknown => NEWER.to_owned(),
        };
        Error::new(Kind::Usage, self).hint(hint)
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = shown(&self.place);
        match self.why {
            Why::Moved => write!(f, "the store has moved to {place}, and issues nothing any more"),
            Why::Filling => write!(f, "a migration into this store, from {place}, is not finished"),
            Why::Void => write!(f, "a migration into this store, from {place}, was given up"),
            Why::Outgrown => {
                write!(
                    f,
                    "a newer machine-id has changed the store's tables, which take one that knows version {place} of them"
                )
            }
            Why::Unknown => {
                write!(f, "the store is closed for a reason that only a newer machine-id knows: {place}")
            }
        }
    }
}

impl std::error::Error for Closed {}

/// A place as authority.yaml has it: there a database is named with whom authorities serve as.
pub fn setting(place: &str) -> String {
    place
        .strip_prefix("postgres://")
        .map_or_else(|| place.to_owned(), |rest| format!("postgres://ROLE@{rest}"))
}

/// Why nothing of a store is let go whose records are being carried to that place.
pub(super) fn moving(place: &str) -> Error {
    Error::usage(format!("a migration to {} is not finished, and nothing is let go meanwhile", shown(place)))
        .hint("run the same `machine-id authority migrate` again: it goes on where it was")
        .hint("or give it up: the same with `--give-up`")
}

/// Why the store is closed that an error tells of, if it does.
pub fn closed(error: &Error) -> Option<&Closed> {
    error.cause()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_anything_else_closes_too() {
        for closed in
            [Closed::moved("a1", "sqlite:a b.db"), Closed::filling("a1", "x"), Closed::void("a1", "x")]
        {
            let read = Closed::read(Some(closed.text())).unwrap();
            assert!(read.is(&closed) && read.to_string() == closed.to_string());
        }
        assert!(Closed::read(None).is_none());
        for text in ["", "moved", "moved a1", "sold a1 x"] {
            let closed = Closed::read(Some(text.to_owned())).unwrap();
            assert!(!closed.is(&closed.clone()), "it is like nothing: {text}");
            assert!(closed.to_string().contains("newer"), "{closed}");
        }
        assert!(!Closed::moved("a1", "x").is(&Closed::filling("a1", "x")));
        assert!(!Closed::moved("a1", "x").is(&Closed::moved("a2", "x")));
    }
}
