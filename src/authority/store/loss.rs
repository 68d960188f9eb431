//! A store that lacks what it had: put back from a copy, or in the hands of a
//! server that had not received everything when it took over. What was issued,
//! used and revoked since is not known then, so it is written to no more, and
//! no list is made of it, until the operator says otherwise (`authority
//! resume`).
//!
//! It is known by a mark outside of it, which says how far it had come, and by
//! what a running authority has seen: the number and the id of an event. A
//! store that lacks it, or has another of that number, has lost something;
//! unless the operator has gone on with it since, which it says too.

use std::fmt;
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use super::seal::{Column, Granting};
use crate::clock::rfc3339;
use crate::error::{Context as _, Error, Kind, Message, Result};
use crate::folder::read::{self, Limit, Trust};
use crate::folder::trust::{self, Owner};

/// How far the numbers of lists go ahead where something was lost, in nanoseconds: an hour. The last ones may
/// have been given after the last mark, by a clock that was ahead of what is now.
pub(super) const LISTS_AHEAD: i64 = 3_600_000_000_000;

/// No clock is so far ahead, in seconds: whatever is of a later time was made up.
const AHEAD: i64 = 10 * 365 * 86_400;

/// How far a store had come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reached {
    /// The number of the last event.
    pub(super) sequence: i64,
    /// The id that it has beside, which no other of that number would have; empty where that is not known.
    pub(super) id: String,
    /// When that was, in seconds since 1970.
    pub(super) time: i64,
    /// The number of the last revocation lists.
    pub(super) list_number: i64,
    /// When the operator last went on with it though it had lost something, or began it anew.
    pub(super) restored: Option<i64>,
    /// The number of its CAs.
    pub(super) cas: i64,
}

impl Reached {
    /// Takes in what is farther in another.
    pub(super) fn raise(&mut self, other: &Self) {
        if other.sequence > self.sequence {
            (self.sequence, self.time) = (other.sequence, other.time);
            self.id.clone_from(&other.id);
        }
        self.list_number = self.list_number.max(other.list_number);
        self.restored = self.restored.max(other.restored);
        self.cas = self.cas.max(other.cas);
    }

    /// The time `now`, or what is later than all that is known and can be: the operator goes on with it no earlier, so that
    /// each time that he does so is another.
    pub(super) fn no_earlier(&self, now: i64) -> i64 {
        now.max(self.time.min(now.saturating_add(AHEAD)))
            .max(self.restored.map_or(0, |time| time.saturating_add(1)))
    }

    /// An event, in words.
    fn event(&self) -> String {
        match self.sequence {
            0 => "no event".to_owned(),
            sequence => format!("event {sequence} of {}", rfc3339(self.time)),
        }
    }
}

/// What stands outside of a store: which one it is, and how far it surely had come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// Its identity.
    pub(super) store: String,
    /// As of the last second.
    pub(super) reached: Reached,
}

impl Mark {
    /// The mark in that file, if it is there.
    pub(super) fn read(file: &Path, owner: Owner) -> Result<Option<Self>> {
        let read = || {
            trust::owners(file, owner)?;
            read::utf8(read::raw(file, Trust::Operators(owner), Limit::bytes(1024))?)
        };
        let text = match read() {
            Err(unfit) if unfit.is_missing() => return Ok(None),
            text => text,
        };
        let cannot = || format!("cannot read the store's mark {}", file.display());
        let text = text.map_err(|unfit| unfit.error(Kind::Usage, cannot()))?;
        Self::parse(&text).map(Some).ok_or_else(|| {
            Error::usage("it is damaged").context(cannot()).hint(
                "remove it, and nothing says any more how far the store had come: of a file it is then taken that it was put back from a copy",
            )
        })
    }

    /// As it is written.
    pub(super) fn text(&self) -> String {
        let Reached { sequence, id, time, list_number, restored, cas } = &self.reached;
        let said = json!({
            "store": self.store, "sequence": sequence, "id": id, "time": time, "list_number": list_number,
            "restored": restored, "cas": cas,
        });
        format!("{said}\n")
    }

    /// What that says; marks of before say less.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let said: Value = serde_json::from_str(text).ok()?;
        let number = |name| said.get(name).map_or(Some(0), Value::as_i64);
        Some(Self {
            store: said.get("store")?.as_str()?.to_owned(),
            reached: Reached {
                sequence: said.get("sequence")?.as_i64()?,
                id: said.get("id").map_or(Some(""), Value::as_str)?.to_owned(),
                time: number("time")?,
                list_number: number("list_number")?,
                restored: said.get("restored").and_then(Value::as_i64),
                cas: number("cas")?,
            },
        })
    }
}

/// What a store lacks, in words: as it was found first, or heard of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    words: String,
    is_told: bool,
}

impl Loss {
    /// As the store itself says.
    pub(super) fn told(words: String) -> Self {
        Self { words, is_told: true }
    }

    /// Whether the store itself says so, and goes on saying so whatever is written to it.
    pub(super) fn is_told(&self) -> bool {
        self.is_told
    }

    fn found(words: String) -> Self {
        Self { words, is_told: false }
    }

    /// It had come farther.
    pub(super) fn behind(now: &Reached, before: &Reached) -> Self {
        Self::found(format!(
            "the store ends with {}, and it had {} at least: it was put back from a copy, or a server took over that \
             had not received everything",
            now.event(),
            before.event()
        ))
    }

    /// It has come to something else.
    fn another(now: &Reached, before: &Reached) -> Self {
        Self::found(format!(
            "the store ends with {}, and its event {} is another than it was: a server took over that had not received \
             everything, or it was put back from a copy that has been written to since",
            now.event(),
            before.sequence
        ))
    }

    /// Its CAs are those of before a rotation.
    fn former_cas() -> Self {
        Self::found(
            "the store has the CAs that it had before a rotation, and not those that it had: who can write to the database?"
                .to_owned(),
        )
    }

    /// It says of itself what no authority said.
    pub(super) fn unsealed(restored: Option<i64>) -> Self {
        let when = restored.map_or_else(
            || "was never gone on with".to_owned(),
            |time| format!("was gone on with at {}", rfc3339(time)),
        );
        Self::found(format!(
            "the store says that it {when} though records were lost, and no authority with its `store.key` has written that: \
             who can write to the database?"
        ))
    }

    /// Nothing says how far it had come.
    pub(super) fn unmarked(now: &Reached) -> Self {
        Self::found(format!(
            "no mark stands beside the store, which ends with {}: it is a copy, or its mark was removed",
            now.event()
        ))
    }

    /// It was put back, and gone on with, while somebody was asking.
    pub(super) fn meanwhile() -> Self {
        Self::found("the store was put back while this was asked".to_owned())
    }

    /// For whoever wanted something that could not be done.
    pub(super) fn error(self, what: impl Message) -> Error {
        let error: Result<()> = Err(self).context(Kind::Usage, what);
        let error = error.err().unwrap_or_else(|| Error::internal("no loss"));
        error.hint(
            "nothing is issued, signed or revoked, and no list is made, until the right store is there, or `machine-id \
             authority resume` says that it is lost; that command says first what this means",
        )
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl std::error::Error for Loss {}

/// What an error says of a store that lacks something, if that is why.
pub fn lost(error: &Error) -> Option<&Loss> {
    error.cause()
}

/// That a store was put back, or begun anew, and that the operator said so.
#[derive(Clone, Copy, Debug)]
pub struct Restored {
    /// When, in seconds since 1970, by whichever clock.
    pub time: i64,
    heard: Instant,
    was_running: bool,
}

impl Restored {
    /// From when on a proof's use is remembered if there was any, by a clock that says `now`. Whoever was running has heard
    /// of it then, by no clock; whoever was not has since it was started, at the latest, whatever the clock said then.
    pub fn remembered_from(&self, now: i64) -> i64 {
        let heard = now.saturating_sub_unsigned(self.heard.elapsed().as_secs());
        if self.was_running { heard } else { self.time.min(heard) }
    }
}

/// That a store was gone on with, as its state says: by that what it lacks counts no more.
pub(super) struct GoneOnWith<'a>(pub(super) &'a str, pub(super) i64);

impl Granting for GoneOnWith<'_> {
    const TABLE: &'static str = "state";

    fn key(&self) -> &[u8] {
        self.0.as_bytes()
    }

    fn columns(&self) -> Vec<Column<'_>> {
        vec![self.1.into()]
    }
}

/// What a store says of itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Said {
    /// What it lacks, where that was found.
    pub(super) lost: Option<String>,
    /// The id of the event that it was asked about.
    pub(super) known: Option<String>,
    /// Whether that one is older than all that are kept.
    pub(super) is_let_go: bool,
    /// Whether it was an authority that wrote when the store was gone on with last.
    pub(super) is_sealed: bool,
    pub(super) reached: Reached,
}

/// What an authority knows of its store.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// How far it surely had come.
    pub(super) reached: Reached,
    pub(super) restored: Option<Restored>,
}

impl Known {
    /// Of a store that is being opened: as far as its mark says that it had come.
    pub(super) fn new(reached: Reached) -> Self {
        let heard = |time| Restored { time, heard: Instant::now(), was_running: false };
        Self { restored: reached.restored.map(heard), reached }
    }

    /// Takes in what the store says, having been asked about the last event that is known, unless it lacks something.
    pub(super) fn hear(&mut self, said: &Said) -> Result<(), Loss> {
        let Said { lost, known, is_let_go, is_sealed, reached } = said;
        if let Some(lost) = lost {
            return Err(Loss::told(lost.clone()));
        }
        if let Some(time) =
            reached.restored.filter(|_| *is_sealed && reached.restored > self.reached.restored)
        {
            // What was before does not count any more.
            self.restored = Some(Restored { time, heard: Instant::now(), was_running: true });
            self.reached = reached.clone();
            return Ok(());
        }
        if reached.sequence < self.reached.sequence {
            return Err(Loss::behind(reached, &self.reached));
        }
        if !self.reached.id.is_empty() && !is_let_go && known.as_ref() != Some(&self.reached.id) {
            return Err(Loss::another(reached, &self.reached));
        }
        if reached.restored != self.reached.restored {
            return Err(Loss::unsealed(reached.restored));
        }
        if reached.cas < self.reached.cas {
            return Err(Loss::former_cas());
        }
        self.reached.raise(reached);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_348_800;

    #[test]
    fn what_is_made_after_a_store_was_put_back_is_taken_whatever_the_clock_said() {
        let two_days = 2 * 86_400;
        let of = |time, was_running| Restored { time, heard: Instant::now(), was_running };
        // By this start, and by one before; by a clock that was two days ahead.
        for (time, from) in [(NOW, NOW), (NOW - two_days, NOW - two_days), (NOW + two_days, NOW)] {
            assert_eq!(of(time, false).remembered_from(NOW), from);
            // Whoever was there knows better: a clock that was behind makes nothing good that was used before.
            assert_eq!(of(time, true).remembered_from(NOW), NOW);
        }
    }

    #[test]
    fn a_mark_says_what_it_was_given_and_an_old_one_less() {
        for restored in [None, Some(NOW)] {
            let reached = Reached {
                sequence: 7,
                id: "i-\"7".to_owned(),
                time: NOW,
                list_number: i64::MAX,
                restored,
                cas: 9,
            };
            let mark = Mark { store: "a\"b".to_owned(), reached };
            assert_eq!(Mark::parse(&mark.text()), Some(mark));
        }
        let old = Mark::parse("{\"sequence\":3,\"store\":\"x\"}\n").unwrap();
        assert_eq!(old.reached, Reached { sequence: 3, ..Reached::default() });
        for text in ["", "{}", "{\"store\":1,\"sequence\":1}", "{\"store\":\"x\",\"sequence\":\"1\"}"] {
            assert_eq!(Mark::parse(text), None, "{text}");
        }
    }

    /// A store of events, by their ids; what it says of the event `known`.
    fn said(ids: &[&str], known: i64) -> Said {
        let id =
            |sequence: i64| Some((*ids.get(usize::try_from(sequence).ok()?.checked_sub(1)?)?).to_owned());
        let sequence = i64::try_from(ids.len()).unwrap();
        let reached = Reached { sequence, id: id(sequence).unwrap_or_default(), ..Reached::default() };
        Said { known: id(known), is_sealed: true, reached, ..Said::default() }
    }

    #[test]
    fn whoever_has_seen_more_than_there_is_knows_a_loss() {
        let mut known = Known::default();
        for ids in [&["a"][..], &["a", "b"], &["a", "b"], &["a", "b", "c", "d"]] {
            assert_eq!(known.hear(&said(ids, known.reached.sequence)), Ok(()));
        }
        assert!(
            known.hear(&said(&["a", "b", "c"], 4)).unwrap_err().to_string().contains("ends with event 3 of ")
        );
        // It has caught up, with others.
        for ids in [&["a", "b", "c", "x"][..], &["a", "b", "x", "y", "z"]] {
            let loss = known.hear(&said(ids, 4)).unwrap_err();
            assert!(loss.to_string().contains("its event 4 is another than it was") && !loss.is_told());
        }
        // One that ended long ago has been let go.
        let pruned = Said { is_let_go: true, known: None, ..said(&["a", "b", "c", "d", "e"], 4) };
        assert_eq!(known.clone().hear(&pruned), Ok(()));
        let told = Said { lost: Some("words".to_owned()), ..said(&["a", "b", "x", "y", "z"], 4) };
        assert!(known.hear(&told).unwrap_err().is_told());
        assert_eq!((known.reached.sequence, known.restored.is_none()), (4, true));
        // The operator has gone on with it, whatever is there now; but not with one of before that.
        let at = |time, ids| {
            let mut said = said(ids, 4);
            said.reached.restored = Some(time);
            said
        };
        assert_eq!(known.hear(&at(NOW, &["a", "x"])), Ok(()));
        assert!(known.restored.unwrap().was_running);
        // Nor does whoever writes that into the database go on with it.
        for (time, ids) in [(NOW + 1, &["a", "x"][..]), (NOW + 1, &["a"]), (NOW - 1, &["a", "x", "y"])] {
            let made_up = Said { is_sealed: false, ..at(time, ids) };
            assert!(known.clone().hear(&Said { known: Some("x".to_owned()), ..made_up }).is_err());
        }
        assert!(known.hear(&said(&["a"], 2)).is_err() && known.hear(&at(NOW, &["a"])).is_err());
    }
}
