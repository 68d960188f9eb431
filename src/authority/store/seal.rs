//! Seals: whoever can write to the database is no authority for that.
//!
//! Rows that let somebody in, or that something is signed again by, carry an
//! HMAC (RFC 2104) under a key that the database does not hold: the file
//! `store.key` in the data directory. It covers the cluster, the table, the
//! row's key and its columns, so that a row that was changed, made up, or
//! brought from elsewhere does not hold; it counts as absent then, and is in the log.
//! A row put back whole, as it once was, does hold: `docs/threat-model.md` says what that can do.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::{hkdf, hmac};
use zeroize::Zeroizing;

use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::read::{self, Limit, Trust};
use crate::folder::trust::Owner;
use crate::folder::{Folder, PRIVATE_FILE, replace};
use crate::random;
use crate::terminal;
use crate::text::{hex, shown};

/// The key's name in the data directory.
pub const STORE_KEY: &str = "store.key";
/// Where it is until the rows of a store from before there were seals carry one.
const UNFINISHED: &str = "store.key.new";
/// What every seal begins with, so that the key is good for nothing else, and a later form tells itself apart.
const LABEL: &str = "machine-id seal 1";
/// How many rows without a good seal are told apart in the log.
const MOST_TOLD: usize = 256;

/// How many bytes a key has, and a seal.
const LENGTH: usize = 32;

/// What a row that grants something is sealed with.
pub type Mac = [u8; LENGTH];

/// A row that grants something.
pub trait Granting {
    /// Its table.
    const TABLE: &'static str;

    /// What it is found by, and what it is called in the log.
    fn key(&self) -> &[u8];

    /// Its other columns, and what else its meaning hangs on, always in the same order.
    fn columns(&self) -> Vec<Column<'_>>;
}

/// The value of a column. Those of different types never are the same.
#[derive(Clone, Copy, Debug)]
pub enum Column<'a> {
    /// None.
    Null,
    /// A number.
    Integer(i64),
    /// Text.
    Text(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
}

impl From<i64> for Column<'_> {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl<'a> From<&'a str> for Column<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a [u8]> for Column<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bytes(bytes)
    }
}

impl<'a, T: Into<Self>> From<Option<T>> for Column<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// What a store has of a row.
#[derive(Debug)]
pub enum Kept<R> {
    /// Nothing.
    Nothing,
    /// One that no authority left so: it grants nothing, and is in the way of another.
    Broken,
    /// One that an authority wrote.
    Row(R),
}

impl<R> Kept<R> {
    /// The row, if it is good for anything.
    pub fn row(self) -> Option<R> {
        match self {
            Self::Row(row) => Some(row),
            Self::Nothing | Self::Broken => None,
        }
    }
}

/// Seals rows of one cluster's store.
pub struct Seal {
    key: hmac::Key,
    cluster: String,
    /// The rows whose seals did not hold.
    broken: Mutex<BTreeSet<String>>,
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seal").finish_non_exhaustive()
    }
}

impl Seal {
    fn new(key: &[u8], cluster: &str) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        Self { key, cluster: cluster.to_owned(), broken: Mutex::default() }
    }

    /// What the row is sealed with as it is.
    pub fn of<R: Granting>(&self, row: &R) -> Mac {
        self.mac(R::TABLE, row.key(), &row.columns())
    }

    /// What a row that was read is good for, by the seal that was read with it.
    pub fn judge<R: Granting>(&self, found: Option<(R, Option<Vec<u8>>)>) -> Kept<R> {
        match found {
            None => Kept::Nothing,
            Some((row, mac)) if self.holds(&row, mac.as_deref()) => Kept::Row(row),
            Some(_) => Kept::Broken,
        }
    }

    /// Whether the row is as it was when an authority sealed it.
    pub fn holds<R: Granting>(&self, row: &R, mac: Option<&[u8]>) -> bool {
        let holds = self.is_of(R::TABLE, row.key(), &row.columns(), mac);
        if !holds {
            self.tell(R::TABLE, row.key());
        }
        holds
    }

    /// What a store remembers of its key, by which another is known at once.
    pub fn check(&self, store: &str) -> Mac {
        self.mac("state", store.as_bytes(), &[])
    }

    /// Whether the store remembers this key.
    pub fn is_known_by(&self, store: &str, check: &[u8]) -> bool {
        self.is_of("state", store.as_bytes(), &[], Some(check))
    }

    /// What an operator must know, where rows were found that no authority left so.
    pub fn warning(&self) -> Option<String> {
        let broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        let first = broken.first()?;
        Some(format!(
            "the store has rows that no authority left so, and that grant nothing ({} seen, {first} among them): who can \
             write to it? The log names them",
            broken.len()
        ))
    }

    fn tell(&self, table: &str, key: &[u8]) {
        let name = match std::str::from_utf8(key) {
            Ok(text) if text.bytes().all(|byte| byte.is_ascii_graphic()) => shown(text),
            _ => hex(key.get(..8).unwrap_or(key)),
        };
        let row = format!("{table} {name}");
        let line =
            format!("the store's row {row} has no good seal: no authority left it so, and it grants nothing");
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        if broken.len() >= MOST_TOLD {
            terminal::log_rarely(&line);
        } else if broken.insert(row) {
            terminal::log(&line);
        }
    }

    fn mac(&self, table: &str, key: &[u8], columns: &[Column<'_>]) -> Mac {
        let mac = hmac::sign(&self.key, &self.message(table, key, columns));
        // It is that long.
        mac.as_ref().try_into().unwrap_or_default()
    }

    fn is_of(&self, table: &str, key: &[u8], columns: &[Column<'_>], mac: Option<&[u8]>) -> bool {
        mac.is_some_and(|mac| hmac::verify(&self.key, &self.message(table, key, columns), mac).is_ok())
    }

    /// Each part with its type and length before it, so that no two rows are the same bytes.
    fn message(&self, table: &str, key: &[u8], columns: &[Column<'_>]) -> Vec<u8> {
        let mut message = Vec::with_capacity(512);
        let mut part = |kind: u8, bytes: &[u8]| {
            message.push(kind);
            message.extend_from_slice(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
            message.extend_from_slice(bytes);
        };
        let before =
            [Column::Text(LABEL), Column::Text(&self.cluster), Column::Text(table), Column::Bytes(key)];
        for column in before.iter().chain(columns) {
            match *column {
                Column::Null => part(0, &[]),
                Column::Integer(number) => part(1, &number.to_be_bytes()),
                Column::Text(text) => part(2, text.as_bytes()),
                Column::Bytes(bytes) => part(3, bytes),
            }
        }
        message
    }
}

/// Where the key of a store lies: [`STORE_KEY`] in the data directory, 32 random bytes in base64, for the authority alone.
#[derive(Clone, Debug)]
pub struct StoreKey {
    folder: PathBuf,
    /// Whose the store is, and all beside it.
    owner: Owner,
    cluster: String,
}

impl StoreKey {
    /// In that data directory, of that cluster.
    pub fn new(folder: &Path, owner: Owner, cluster: &str) -> Self {
        Self { folder: folder.to_owned(), owner, cluster: cluster.to_owned() }
    }

    /// The data directory.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whose all of it is.
    pub(super) fn owner(&self) -> Owner {
        self.owner
    }

    /// Makes the key, where there is none.
    ///
    /// # Errors
    /// `Kind::Usage` where there is one, or it cannot be written.
    pub fn create(&self) -> Result<Seal> {
        let (text, seal) = self.draw()?;
        replace::write_new(&self.folder.join(STORE_KEY), text.as_bytes(), PRIVATE_FILE)?;
        replace::sync(&self.folder).context(Kind::Usage, format!("cannot sync {}", self.folder.display()))?;
        Ok(seal)
    }

    /// The key, where there is one.
    ///
    /// # Errors
    /// `Kind::Usage` where it cannot be used, or others could read it.
    pub fn find(&self) -> Result<Option<Seal>> {
        self.read(STORE_KEY)
    }

    /// Another key that is derived from it, for that purpose alone (HKDF with SHA-256, RFC 5869); none where there is no key.
    ///
    /// # Errors
    /// As [`StoreKey::find`].
    pub fn derive(&self, purpose: &str) -> Result<Option<Zeroizing<[u8; 32]>>> {
        let Some(key) = self.read_key(STORE_KEY)? else { return Ok(None) };
        let mut derived = Zeroizing::new([0; LENGTH]);
        let made = hkdf::Salt::new(hkdf::HKDF_SHA256, &[])
            .extract(&key)
            .expand(&[purpose.as_bytes()], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut *derived));
        made.map_err(|_| Error::internal("deriving a key"))?;
        Ok(Some(derived))
    }

    /// The key of a store whose rows are sealed.
    ///
    /// # Errors
    /// `Kind::Usage` where it is missing too.
    pub fn load(&self) -> Result<Seal> {
        self.find()?.ok_or_else(|| self.missing())
    }

    /// A seal that no row has.
    pub(super) fn none(&self) -> Result<Seal> {
        self.draw().map(|(_, seal)| seal)
    }

    /// What there is to say where it is missing.
    pub fn missing(&self) -> Error {
        Error::usage(format!("there is no {}, and the store's rows are sealed with it", self.path()))
            .hint("put it back from the backup of the data directory, or copy it from another authority of this store")
            .hint("where it is lost for good, docs/backup.md says how the store goes on with another")
    }

    /// What there is to say where it is another store's, or another cluster's.
    pub fn wrong(&self) -> Error {
        Error::usage(format!("{} is not the key that the store's rows are sealed with", self.path()))
            .hint("put back the one that belongs to this store, or copy it from another authority of this store")
            .hint("the name of the cluster is part of it: where `cluster` in authority.yaml was changed, change it back")
    }

    /// What there is to say where it has sealed another state of the store than this, which is older.
    pub(super) fn newer(&self) -> Error {
        Error::usage(format!("the store is from before its rows were sealed, and {} has sealed them since", self.path()))
            .hint("put back the store that belongs to it")
            .hint(format!(
                "where you put this one back from a backup of that time, and nobody else can have written to it, remove {}: \
                 the next start makes another, and seals what is there",
                self.path()
            ))
    }

    /// The key that a store from before there were seals gets: durable before anything is sealed with it, and in
    /// its place only once all is. Whoever can write to the store alone never has it sealed anew.
    pub(super) fn begin(&self) -> Result<Seal> {
        let (text, seal) = self.draw()?;
        Folder::replace_inside(&self.folder, UNFINISHED, text.as_bytes())
            .context(Kind::Usage, format!("cannot write {}", self.path()))
            .map_err(|error| {
                let folder = self.folder.display();
                error.hint(format!(
                    "the store's rows get seals now, once: this user must be able to make files in {folder}"
                ))
            })?;
        Ok(seal)
    }

    /// That key, where it is not in its place yet.
    pub(super) fn begun(&self) -> Result<Option<Seal>> {
        self.read(UNFINISHED)
    }

    /// Puts it there, after the commit.
    pub(super) fn finish(&self) -> Result<()> {
        replace::rename(&self.folder, UNFINISHED, STORE_KEY)
            .context(Kind::Usage, format!("cannot write {}", self.path()))
    }

    fn path(&self) -> String {
        self.folder.join(STORE_KEY).display().to_string()
    }

    fn draw(&self) -> Result<(Zeroizing<String>, Seal)> {
        let mut key = Zeroizing::new([0; LENGTH]);
        random::fill(&mut *key)?;
        Ok((Zeroizing::new(STANDARD.encode(key.as_slice()) + "\n"), Seal::new(&*key, &self.cluster)))
    }

    fn read(&self, name: &str) -> Result<Option<Seal>> {
        Ok(self.read_key(name)?.map(|key| Seal::new(&key, &self.cluster)))
    }

    fn read_key(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>> {
        let path = self.folder.join(name);
        let cannot = || format!("cannot use the store's key {}", path.display());
        let text = match read::raw(&path, Trust::Secret(self.owner), Limit::bytes(1024)).and_then(read::utf8)
        {
            Err(unfit) if unfit.is_missing() => return Ok(None),
            text => text.map_err(|unfit| unfit.error(Kind::Usage, cannot()))?,
        };
        let key = STANDARD.decode(text.trim_ascii_end()).map(Zeroizing::new).ok();
        let key = key.filter(|key| key.len() == LENGTH).ok_or_else(|| {
            Error::usage("it is not 32 bytes in base64").context(cannot()).hint("put it back from the backup")
        })?;
        Ok(Some(key))
    }
}

#[cfg(test)]
mod tests;
