//! Which certificates this host has seen revoked, and when they end.
//!
//! What was revoked stays so here until the certificate has ended by this
//! machine's clock, whatever the authority's list says: one that was put back
//! from a backup has forgotten revocations, and where its clock is ahead they
//! leave its list early. The lists in the folder count as seen too, so that
//! this file is missed for what it says of ends alone.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::clock::LEEWAY;
use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::{Folder, PRIVATE_FILE};
use crate::wire::MAX_TTL;

/// The file's name.
pub const SEEN: &str = "revoked.seen";
/// The most that it may be, in bytes: a million certificates.
const MAX_SEEN: usize = 64 << 20;
/// What stands for the CAs of SSH, which are not told apart; each X.509 CA has an id.
pub const SSH: &str = "ssh";

/// How many ends are collected before they are asked for all at once.
const MAX_COLLECTED: usize = 100_000;

/// What was told of ends, with more of them; nothing where some may be missing, or they are too many to be kept until a list
/// can be fetched.
pub fn collected(
    ends: Option<BTreeMap<u64, i64>>,
    more: impl IntoIterator<Item = (u64, i64)>,
) -> Option<BTreeMap<u64, i64>> {
    let mut ends = ends?;
    ends.extend(more);
    Some(ends).filter(|ends| ends.len() <= MAX_COLLECTED)
}

/// The certificates by CA and serial.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seen {
    ends: BTreeMap<String, BTreeMap<u64, End>>,
    /// Those of the lists that were read in this run.
    #[serde(skip)]
    listed: BTreeMap<String, BTreeSet<u64>>,
}

/// When a certificate ends, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// The authority has said so.
    Told(i64),
    /// Nobody has said it: the latest that it can be.
    Latest(i64),
}

impl End {
    /// The time.
    pub fn at(self) -> i64 {
        match self {
            Self::Told(at) | Self::Latest(at) => at,
        }
    }
}

impl Seen {
    /// What the file says.
    ///
    /// # Errors
    /// `Kind::Destination` where it cannot be read, or is damaged.
    pub fn read(store: &Folder) -> Result<Self> {
        let read = store.read(SEEN, MAX_SEEN).and_then(|bytes| match bytes {
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| format!("it is damaged: {error}")),
            None => Ok(Self::default()),
        });
        read.map_err(|why| {
            let path = store.path().join(SEEN);
            Error::new(Kind::Destination, why)
                .context(format!("cannot read {}", path.display()))
                .hint("it is made anew, of the lists that are there; remove it where that fails")
        })
    }

    /// Keeps what is not over or still in a list, which does not say that it is; what has not changed is
    /// not written.
    ///
    /// # Errors
    /// `Kind::Destination` where it cannot be written, or is more than is read again.
    pub fn write(&mut self, store: &Folder, now: i64) -> Result<()> {
        for (ca, listed) in &self.listed {
            if let Some(serials) = self.ends.get_mut(ca) {
                serials.retain(|serial, end| end.at() >= now || listed.contains(serial));
            }
        }
        self.ends.retain(|_, serials| !serials.is_empty());
        let cannot = || format!("cannot write {}", store.path().join(SEEN).display());
        let bytes = serde_json::to_vec(self).context(Kind::Internal, cannot())?;
        let kept = store.read(SEEN, MAX_SEEN);
        if matches!(&kept, Ok(Some(kept)) if *kept == bytes) || kept == Ok(None) && self.ends.is_empty() {
            return Ok(());
        }
        drop(kept);
        if bytes.len() > MAX_SEEN {
            return Err(Error::new(Kind::Destination, format!("it would be longer than {MAX_SEEN} bytes"))
                .context(cannot())
                .hint("too much is revoked: see the authority's audit trail for who does that"));
        }
        store.replace_durably(SEEN, &bytes, PRIVATE_FILE).context(Kind::Destination, cannot())
    }

    /// Adds certificates of a list of the moment `made`, by which each was issued; what is known of them
    /// stays. Where nobody has told the end of one, it is what a role can give at most, and what clocks
    /// may be apart.
    pub fn add(&mut self, ca: &str, serials: impl IntoIterator<Item = u64>, made: i64) {
        let latest = made.saturating_add(i64::from(MAX_TTL) + LEEWAY);
        let known = self.ends.entry(ca.to_owned()).or_default();
        let listed = self.listed.entry(ca.to_owned()).or_default();
        for serial in serials {
            known.entry(serial).or_insert(End::Latest(latest));
            listed.insert(serial);
        }
    }

    /// Takes the ends that the authority tells.
    pub fn learn(&mut self, ends: &BTreeMap<u64, i64>) {
        for (serial, end) in self.ends.values_mut().flatten() {
            if let Some(told) = ends.get(serial) {
                *end = End::Told(*told);
            }
        }
    }

    /// The certificates of a CA that are not over, by ascending serial.
    pub fn still(&self, ca: &str, now: i64) -> impl Iterator<Item = (u64, End)> {
        let all = self.ends.get(ca).into_iter().flatten().map(|(serial, end)| (*serial, *end));
        all.filter(move |(_, end)| end.at() >= now)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    const NOW: i64 = 1_767_268_800;

    #[test]
    fn so_many_ends_are_collected_and_no_more() {
        let most = 0..u64::try_from(MAX_COLLECTED).unwrap();
        let all = collected(Some(BTreeMap::new()), most.map(|serial| (serial, NOW))).unwrap();
        let again = collected(Some(all.clone()), [(0, NOW + 1)]).unwrap();
        assert!(again.len() == MAX_COLLECTED && again[&0] == NOW + 1);
        assert_eq!(collected(Some(all), [(u64::MAX, NOW)]), None);
        assert_eq!(collected(None, [(1, NOW)]), None);
    }

    #[test]
    fn what_was_seen_is_kept_until_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let store = crate::host::store::open(&folder.path().join("trust")).unwrap();
        let read = || Seen::read(&store).unwrap();
        let mut seen = read();
        seen.write(&store, NOW).unwrap();
        assert!(!store.path().join(SEEN).exists(), "there is nothing to keep");
        seen.add(SSH, [7, u64::MAX], NOW);
        seen.add("ca", [7], NOW);
        seen.learn(&BTreeMap::from([(7, NOW + 10), (9, NOW + 10)]));
        seen.write(&store, NOW).unwrap();
        let (path, latest) = (store.path().join(SEEN), End::Latest(NOW + 7 * 86_400 + 60));
        let written = std::fs::metadata(&path).unwrap();
        assert_eq!(written.mode() & 0o7777, 0o600);
        let all = |seen: &Seen, now| seen.still(SSH, now).collect::<Vec<_>>();
        assert_eq!(all(&read(), NOW + 10), [(7, End::Told(NOW + 10)), (u64::MAX, latest)]);
        assert_eq!(all(&read(), NOW + 11), [(u64::MAX, latest)]);
        assert_eq!(read().still("other", NOW).count(), 0);
        // What is known stays as it is, and is not written again.
        let mut seen = read();
        seen.add(SSH, [7], NOW + 100);
        seen.write(&store, NOW).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().ino(), written.ino());
        // It is forgotten once it is over and no list has it; not where none was read.
        let forget = |listed: Option<u64>| {
            let mut seen = read();
            listed.into_iter().for_each(|serial| seen.add(SSH, [serial], NOW));
            seen.write(&store, NOW + 11).unwrap();
            read().ends[SSH].len()
        };
        assert_eq!((forget(None), forget(Some(7)), forget(Some(u64::MAX))), (2, 2, 1));
        let seen = &mut read();
        for damaged in ["", "[]", r#"{"ssh":{"x":{"told":1}}}"#, r#"{"ssh":{"7":1}}"#] {
            std::fs::write(&path, damaged).unwrap();
            let error = Seen::read(&store).unwrap_err();
            assert_eq!(error.kind(), Kind::Destination);
            assert!(error.to_string().contains("revoked.seen: it is damaged: "), "{error}");
        }
        seen.write(&store, NOW).unwrap();
        assert_eq!(read().ends, seen.ends);
    }
}
