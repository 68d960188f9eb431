//! The CAs, as a store keeps them: what a rotation has made of them, and by which of them a certificate was signed.
//!
//! An issuance names the number of the set by which it will be signed, `state.cas`, and is recorded only where that is still
//! the number. Each row is sealed, and the set is: its number with the seals of all its rows. One that is not as an
//! authority left it is an error, and nobody is trusted or dropped by it.

use std::fmt;

use futures_util::future::BoxFuture;
use serde_json::{Map, Value};

use super::locks::REACH;
use super::replicas::Replica;
use super::revoked::CertificateKind;
use super::seal::{Column, Granting, Seal};
use crate::authority::ca::{CaKey, CaKind, CaSet, CaState};
use crate::error::{Error, Result};
use crate::random;

/// How many certificates [`Live`] names at most.
pub(super) const NAMED: usize = 20;

/// What a store keeps of CAs.
pub trait CaStore {
    /// All of them, as they are now.
    ///
    /// # Errors
    /// `Kind::Usage` where no authority left them so.
    fn cas(&self) -> BoxFuture<'_, Result<CaSet>>;

    /// Makes another set of them, with an event, all in one transaction.
    fn change_cas(&self, change: CaChange) -> BoxFuture<'_, Result<CaChanged>>;

    /// The certificates of the CA of that number that are not revoked and end later than `at`.
    fn live(&self, ca: i64, at: i64) -> BoxFuture<'_, Result<Live>>;

    /// All authorities that are there, by their names: a rotation waits for those that have not heard of it.
    fn replicas(&self) -> BoxFuture<'_, Result<Vec<Replica>>>;
}

/// What is heard of others who share a store: numbers that are others once something has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Of what operators have locked, lifted or thrown out.
    pub locks: i64,
    /// Of the CAs: [`CaSet::number`].
    pub cas: i64,
}

/// What becomes of the CAs of a kind.
#[derive(Clone, Debug)]
pub struct CaChange {
    /// Which kind.
    pub kind: CaKind,
    /// Which phase of the rotation it is, for the audit trail.
    pub phase: &'static str,
    /// The number of the set that this was made of.
    pub expected: i64,
    /// All of that kind as they are to be; a new one has the number 0.
    pub keys: Vec<CaKey>,
    /// That the CA of this number has no certificate which ends later than that.
    pub none_live: Option<(i64, i64)>,
    /// When, in seconds since 1970.
    pub at: i64,
    /// By whom.
    pub by: String,
}

/// What became of [`CaStore::change_cas`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaChanged {
    /// It is as this says.
    Done(CaSet),
    /// The set is another by now: nothing was changed.
    Outdated,
    /// Certificates live of the CA that was to have none: nothing was changed.
    Live(Live),
}

/// Certificates that live.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// How many.
    pub count: u64,
    /// When the last of them ends; 0 where there is none.
    pub last_end: i64,
    /// Those that last longest, a few of them.
    pub some: Vec<LiveCertificate>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveCertificate {
    /// Its serial.
    pub serial: u64,
    /// Whom it names.
    pub names: Vec<String>,
    /// Whether it is a host's.
    pub is_host: bool,
    /// The issuance that it is of.
    pub issuance_id: String,
    /// When it ends.
    pub expires: i64,
}

impl LiveCertificate {
    /// As an event tells of it.
    pub(super) fn of(event: &Map<String, Value>, serial: u64, is_host: bool, expires: i64) -> Self {
        let text = serial.to_string();
        let outputs = event.get("outputs").and_then(Value::as_array).into_iter().flatten();
        let mut own = outputs.filter(|output| output.get("serial").is_some_and(|serial| *serial == *text));
        let names = own.next().and_then(|output| output.get("principals")?.as_array()).into_iter().flatten();
        let id = event.get("issuance_id").and_then(Value::as_str).unwrap_or_default();
        Self {
            serial,
            names: names.filter_map(Value::as_str).map(str::to_owned).collect(),
            is_host,
            issuance_id: id.to_owned(),
            expires,
        }
    }
}

/// Whose certificates are looked for: those that name that CA, and those that name none and are of that kind, for hosts or not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whose {
    pub(super) ca: i64,
    pub(super) kind: Option<i64>,
    pub(super) is_host: Option<bool>,
}

impl Whose {
    /// Of the CA of that number.
    ///
    /// # Errors
    /// `Kind::Usage` where there is none.
    pub(super) fn of(set: &CaSet, ca: i64) -> Result<Self> {
        let key = set.key(ca).ok_or_else(|| Error::usage(format!("there is no CA of the number {ca}")))?;
        let (kind, is_host) = match key.kind {
            CaKind::SshUser => (Some(CertificateKind::Ssh), Some(false)),
            CaKind::SshHost => (Some(CertificateKind::Ssh), Some(true)),
            CaKind::Tls => (Some(CertificateKind::Tls), None),
            CaKind::Statement | CaKind::Federation => (None, None),
        };
        Ok(Self { ca, kind: kind.filter(|_| key.is_first).map(CertificateKind::number), is_host })
    }

    /// The time from which on certificates were issued that live at `at`: those of hosts apart, which are found by their ends.
    pub(super) fn since(at: i64) -> i64 {
        at.saturating_sub(REACH)
    }
}

/// A CA as its row says; everything but its name, by which it is found, is a column.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct CaRow {
    pub(super) number: i64,
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) id: String,
    pub(super) is_first: i64,
    pub(super) state: String,
    pub(super) public: String,
    pub(super) endorsements: String,
    pub(super) crossed: String,
    pub(super) sealed: Option<Vec<u8>>,
    pub(super) since: i64,
}

impl fmt::Debug for CaRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaRow").field("name", &self.name).field("state", &self.state).finish_non_exhaustive()
    }
}

impl CaRow {
    fn of(key: &CaKey) -> Self {
        Self {
            number: key.number,
            kind: key.kind.name().to_owned(),
            name: key.name.clone(),
            id: key.id.clone(),
            is_first: i64::from(key.is_first),
            state: key.state.name().to_owned(),
            public: key.public.clone(),
            endorsements: serde_json::to_string(&key.endorsements).unwrap_or_default(),
            crossed: serde_json::to_string(&key.cross).unwrap_or_default(),
            sealed: key.sealed.clone(),
            since: key.since,
        }
    }

    fn read(self) -> Option<CaKey> {
        Some(CaKey {
            number: self.number,
            kind: CaKind::parse(&self.kind)?,
            name: self.name,
            id: self.id,
            is_first: self.is_first == 1,
            state: CaState::parse(&self.state)?,
            public: self.public,
            endorsements: serde_json::from_str(&self.endorsements).ok()?,
            cross: serde_json::from_str(&self.crossed).ok()?,
            sealed: self.sealed,
            since: self.since,
        })
    }
}

impl Granting for CaRow {
    const TABLE: &'static str = "ca_keys";

    fn key(&self) -> &[u8] {
        self.name.as_bytes()
    }

    fn columns(&self) -> Vec<Column<'_>> {
        let Self { number, kind, name: _, id, is_first, state, public, endorsements, crossed, sealed, since } =
            self;
        vec![
            (*number).into(),
            kind.as_str().into(),
            id.as_str().into(),
            (*is_first).into(),
            state.as_str().into(),
            public.as_str().into(),
            endorsements.as_str().into(),
            crossed.as_str().into(),
            sealed.as_deref().into(),
            (*since).into(),
        ]
    }
}

/// The set as a whole: its number, and each row's own with its seal. None was taken away, and none is of another set.
struct Whole<'a>(i64, &'a [(i64, Vec<u8>)]);

impl Granting for Whole<'_> {
    const TABLE: &'static str = "state";

    fn key(&self) -> &[u8] {
        b"cas"
    }

    fn columns(&self) -> Vec<Column<'_>> {
        let mut columns = vec![Column::Integer(self.0)];
        for (number, mac) in self.1 {
            columns.extend([Column::Integer(*number), Column::Bytes(mac)]);
        }
        columns
    }
}

/// What a store has of CAs, with the seals.
#[derive(Clone, Debug, Default)]
pub(super) struct KeptCas {
    pub(super) number: i64,
    pub(super) mac: Option<Vec<u8>>,
    /// By their numbers.
    pub(super) rows: Vec<(CaRow, Option<Vec<u8>>)>,
}

impl KeptCas {
    /// The set, if it is one that an authority left.
    ///
    /// # Errors
    /// `Kind::Usage`, which names what is wrong.
    pub(super) fn judge(&self, seal: &Seal) -> Result<CaSet> {
        let Self { number, mac, rows } = self;
        if *number == 0 && mac.is_none() && rows.is_empty() {
            return Ok(CaSet::default());
        }
        let broken: Vec<&str> = rows
            .iter()
            .filter(|(row, mac)| !seal.holds(row, mac.as_deref()))
            .map(|(row, _)| row.name.as_str())
            .collect();
        if !broken.is_empty() {
            return Err(unsound(format!("{} without a good seal", broken.join(", "))));
        }
        if !seal.holds(&Whole(*number, &self.macs()), mac.as_deref()) {
            return Err(unsound(format!("the set {number} of them is not whole, or an older one")));
        }
        let keys = rows.iter().map(|(row, _)| row.clone().read()).collect::<Option<_>>();
        let keys = keys.ok_or_else(|| unsound("what a newer machine-id has written".to_owned()))?;
        Ok(CaSet { number: *number, keys })
    }

    /// The TLS CAs that are trusted, with no look at a seal.
    pub(super) fn tls_cas(&self) -> Vec<CaKey> {
        let keys = self.rows.iter().filter_map(|(row, _)| row.clone().read());
        keys.filter(|key| key.kind == CaKind::Tls && key.state.is_trusted()).collect()
    }

    fn macs(&self) -> Vec<(i64, Vec<u8>)> {
        self.rows.iter().map(|(row, mac)| (row.number, mac.clone().unwrap_or_default())).collect()
    }

    /// The same with seals of that key.
    pub(super) fn sealed(&self, seal: &Seal) -> Self {
        let rows: Vec<_> =
            self.rows.iter().map(|(row, _)| (row.clone(), Some(seal.of(row).to_vec()))).collect();
        let mut sealed = Self { number: self.number, mac: None, rows };
        sealed.mac = Some(seal.of(&Whole(sealed.number, &sealed.macs())).to_vec());
        sealed
    }

    /// What it becomes by a change of this set, which [`KeptCas::judge`] made of it.
    ///
    /// # Errors
    /// `Kind::Internal` for one that loses a CA or the one that signs, or changes what one is.
    pub(super) fn change(&self, set: CaSet, change: &CaChange, seal: &Seal) -> Result<Changed> {
        let mut keys: Vec<CaKey> = set.keys.iter().filter(|key| key.kind != change.kind).cloned().collect();
        let mut last = set.keys.iter().map(|key| key.number).max().unwrap_or(0);
        for key in &change.keys {
            let mut key =
                CaKey { sealed: key.sealed.clone().filter(|_| key.state.is_trusted()), ..key.clone() };
            if key.number == 0 {
                last = last.saturating_add(1);
                key.number = last;
            }
            keys.push(key);
        }
        check(&set, change, &keys)?;
        keys.sort_by_key(|key| key.number);
        let number = set.number.saturating_add(1).saturating_add(i64::from(step()?));
        let set = CaSet { number, keys };
        let kept = |key: &CaKey| self.rows.iter().find(|(row, _)| row.number == key.number).cloned();
        let row = |key: &CaKey| match kept(key).filter(|_| key.kind != change.kind) {
            // As it stands there, which may be in the words of another version.
            Some(kept) => kept,
            None => {
                let row = CaRow::of(key);
                let mac = seal.of(&row).to_vec();
                (row, Some(mac))
            }
        };
        let mut kept = Self { number, mac: None, rows: set.keys.iter().map(row).collect() };
        kept.mac = Some(seal.of(&Whole(number, &kept.macs())).to_vec());
        Ok(Changed { set, kept })
    }
}

/// What a change makes of them.
#[derive(Debug)]
pub(super) struct Changed {
    pub(super) set: CaSet,
    pub(super) kept: KeptCas,
}

/// Whether it is as it was to become: a commit whose answer was lost.
pub(super) fn is_done(set: &CaSet, change: &CaChange) -> bool {
    let bare = |key: &CaKey| CaKey {
        number: 0,
        sealed: key.sealed.clone().filter(|_| key.state.is_trusted()),
        ..key.clone()
    };
    let all = |keys: &mut dyn Iterator<Item = &CaKey>| {
        let mut all: Vec<CaKey> = keys.map(bare).collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    };
    all(&mut set.of(change.kind)) == all(&mut change.keys.iter())
}

/// A number that was undone with its transaction, or is in a copy of the store, is given to nothing else.
fn step() -> Result<u32> {
    Ok(u32::from_be_bytes(random::bytes()?) / 2)
}

/// The last line of defence, whoever plans.
fn check(set: &CaSet, change: &CaChange, keys: &[CaKey]) -> Result<()> {
    let refuse = |why: String| Err(Error::internal(why).context("nothing is rotated"));
    let own: Vec<&CaKey> = keys.iter().filter(|key| key.kind == change.kind).collect();
    let count = |is: fn(&CaKey) -> bool| own.iter().filter(|key| is(key)).count();
    let is_other = |key: &CaKey| set.key(key.number).is_none_or(|known| known.kind != change.kind);
    if change.keys.iter().any(|key| key.kind != change.kind || (key.number != 0 && is_other(key))) {
        return refuse("a CA of another kind is among them, or one that is not there".to_owned());
    }
    if count(|key| key.state == CaState::Current) != 1 || count(|key| key.is_first) != 1 {
        return refuse("of each kind one CA signs, and one is the first".to_owned());
    }
    for key in keys {
        if keys.iter().any(|other| other.name == key.name && !std::ptr::eq(other, key)) {
            return refuse(format!("two CAs are called {}", key.name));
        }
    }
    for before in set.of(change.kind) {
        let Some(after) = own.iter().find(|key| key.number == before.number) else {
            return refuse(format!("{} is not among them", before.name));
        };
        let what = |key: &CaKey| (key.name.clone(), key.id.clone(), key.public.clone(), key.is_first);
        if what(before) != what(after) || (after.state.is_trusted() && !before.state.is_trusted()) {
            return refuse(format!("{} would become another, or be trusted again", before.name));
        }
    }
    Ok(())
}

fn unsound(why: String) -> Error {
    Error::usage(why)
        .context("the store's CAs are not as an authority left them")
        .hint("nothing is signed, and nobody trusted or dropped, by what somebody else wrote there: who can write to the database?")
        .hint("put the table `ca_keys` and `state.cas` back as they were, from a backup or by the one who changed them")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::store::seal::StoreKey;

    fn key() -> CaKey {
        CaKey {
            number: 0,
            kind: CaKind::Tls,
            name: "tls".into(),
            id: "sha256:00".into(),
            is_first: true,
            state: CaState::Current,
            public: "PEM".into(),
            endorsements: Vec::new(),
            cross: Vec::new(),
            sealed: Some(vec![171; 3]),
            since: 1,
        }
    }

    #[test]
    fn of_a_private_key_nothing_prints() {
        let (key, row) = (key(), CaRow::of(&key()));
        assert_eq!(row.clone().read(), Some(key.clone()));
        for text in
            [format!("{key:?}"), format!("{row:?}"), format!("{:#?}", CaSet { number: 1, keys: vec![key] })]
        {
            assert!(!text.contains("171") && !text.to_lowercase().contains("ab, ab"), "{text}");
        }
    }

    /// As where the answer to a commit was lost.
    #[test]
    fn a_change_that_was_made_is_known_by_what_there_is() {
        let dir = tempfile::tempdir().unwrap();
        let seal = StoreKey::beside(&dir.path().join("authority.db")).create().unwrap();
        let next = CaKey { name: "tls-1".into(), is_first: false, state: CaState::Next, ..key() };
        let change = |expected, keys| CaChange {
            kind: CaKind::Tls,
            phase: "x",
            expected,
            keys,
            none_live: None,
            at: 1,
            by: "anna".into(),
        };
        let start = change(0, vec![key(), next]);
        let begun = KeptCas::default().change(CaSet::default(), &start, &seal).unwrap();
        assert!(is_done(&begun.set, &start) && !is_done(&CaSet::default(), &start));
        assert_eq!(begun.kept.judge(&seal).unwrap(), begun.set);
        let gone =
            [begun.set.keys[0].clone(), CaKey { state: CaState::Revoked, ..begun.set.keys[1].clone() }];
        let back = change(begun.set.number, gone.to_vec());
        let done = begun.kept.change(begun.set.clone(), &back, &seal).unwrap();
        assert!(is_done(&done.set, &back) && !is_done(&begun.set, &back) && !is_done(&done.set, &start));
        assert_eq!(done.kept.judge(&seal).unwrap(), done.set);
    }
}
