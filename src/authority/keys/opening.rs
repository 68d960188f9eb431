//! The keys, opened as a set of CAs says: each where its name is, or as it came through the store.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::cross::Cross;
use super::family::{Family, Member};
use super::federation::AHEAD;
use super::private::{Lack, PrivateKey};
use super::ssh::SshCa;
use super::tls::{self, TlsCa};
use super::travel::{self, sealed_for};
use super::{CaKeys, KeySource, KeyStore, StatementKey, TlsCaCertificate};
use crate::authority::ca::{CaKey, CaKind, CaSet, CaState};
use crate::error::{Error, Result};

struct Opener<'a> {
    from: &'a KeySource,
    store: Arc<dyn KeyStore>,
    lacks: Vec<Lack>,
}

impl CaKeys {
    /// The keys of an authority, as that set has them. One that was rotated and is not to be had is among
    /// [`CaKeys::lacks`]: it is trusted, and nothing is signed by it.
    ///
    /// # Errors
    /// `Kind::Usage` where one is missing, unreadable, unfit, another user's, or open to others; [`super::is_away`] where they
    /// cannot be reached.
    pub fn open(from: &KeySource, set: &Arc<CaSet>) -> Result<Self> {
        let store = from.place.open(from.owner, from.passphrase.clone())?;
        let mut opener = Opener { from, store: Arc::clone(&store), lacks: Vec::new() };
        let ssh = |opener: &mut Opener<'_>, kind: CaKind, file: &str| {
            let first = |key| SshCa::new(key, &format!("{file}@{}", from.cluster));
            opener.family(set, kind, first, |row, key| SshCa::known(&row.public, key))
        };
        let ssh_user = ssh(&mut opener, CaKind::SshUser, "ssh_user_ca")?;
        let ssh_host = ssh(&mut opener, CaKind::SshHost, "ssh_host_ca")?;
        let first = |key| {
            let certificate = tls::read(&from.certificate, from.owner)?;
            let cannot = || format!("cannot use the CA certificate {}", from.certificate.display());
            let path = Cross::path(&from.certificate, CaKind::Tls.name());
            let root = Cross::find(&path, &certificate.der, from.owner)?;
            let ca = TlsCa::new(Some(key), certificate).map_err(|error| error.context(cannot()))?;
            Ok(TlsCa { root, ..ca })
        };
        let known = |row: &CaKey, key| {
            let certificate = TlsCaCertificate::parse(&row.public);
            let certificate = certificate.map_err(|why| Error::internal(format!("a TLS CA {why}")))?;
            let path = Cross::path(&from.certificate, &row.name);
            // What is left of one that is over is in nobody's way.
            let root = match row.state.is_trusted() {
                true => Cross::find(&path, &certificate.der, from.owner)?,
                false => None,
            };
            Ok(TlsCa { cross: row.cross.clone(), root, ..TlsCa::new(key, certificate)? })
        };
        let tls = opener.family(set, CaKind::Tls, first, known)?;
        let is_there = set.current(CaKind::Statement).is_some() || opener.has(CaKind::Statement.name())?;
        let statement = is_there.then(|| {
            let known = |row: &CaKey, key| StatementKey::known(&row.public, key);
            opener.family(set, CaKind::Statement, StatementKey::new, known)
        });
        let statement = statement.transpose()?;
        let federation = opener.federation(set)?;
        let lacks = opener.lacks;
        Ok(Self { store, set: Arc::clone(set), ssh_user, ssh_host, tls, statement, federation, lacks })
    }
}

impl Opener<'_> {
    fn has(&self, name: &str) -> Result<bool> {
        Ok(self.store.open(name)?.is_some())
    }

    /// None where they are from before there were any.
    fn federation(&mut self, set: &CaSet) -> Result<Option<Family<StatementKey>>> {
        let kind = CaKind::Federation;
        if set.current(kind).is_some() {
            let known = |row: &CaKey, key| StatementKey::known(&row.public, key);
            return self.family(set, kind, StatementKey::new, known).map(Some);
        }
        let (current, ahead) = (self.store.open(kind.name())?, self.store.open(AHEAD)?);
        let both = current.zip(ahead);
        both.map(|(current, ahead)| {
            Ok(Family::with_ahead(StatementKey::new(current)?, StatementKey::new(ahead)?))
        })
        .transpose()
    }

    fn family<T>(
        &mut self,
        set: &CaSet,
        kind: CaKind,
        first: impl FnOnce(Arc<dyn PrivateKey>) -> Result<T>,
        known: impl Fn(&CaKey, Option<Arc<dyn PrivateKey>>) -> Result<T>,
    ) -> Result<Family<T>> {
        if set.current(kind).is_none() {
            let key = self.store.open(kind.name())?.ok_or_else(|| self.missing(kind.name()))?;
            return first(key).map(Family::of_one);
        }
        let mut members = Vec::new();
        for row in set.of(kind) {
            let with_key = |key: Option<Arc<dyn PrivateKey>>| known(row, key);
            let found = if row.state.is_trusted() { self.find(row).map(Some) } else { Ok(None) };
            let opened = match found.and_then(with_key) {
                Err(_) if self.makes_room(row) => self.find(row).map(Some).and_then(with_key),
                opened => opened,
            };
            let ca = match opened {
                Ok(ca) => ca,
                Err(error) => {
                    self.lacks.push(Lack {
                        name: row.name.clone(),
                        place: self.store.place(&row.name),
                        why: error.to_string(),
                        signs: row.state == CaState::Current,
                    });
                    known(row, None)?
                }
            };
            let CaKey { number, is_first, state, .. } = *row;
            members.push(Member { number: Some(number), is_first, state, ca });
        }
        Family::new(members)
    }

    /// Takes away a key which is another than the store has under that name, where the right one is to be had: somebody began the
    /// same step here, and another was first elsewhere.
    fn makes_room(&self, row: &CaKey) -> bool {
        matches!(self.store.open(&row.name), Ok(Some(_)))
            && self.sealed(row).is_ok()
            && self.store.destroy(&row.name).is_ok()
    }

    /// The private key as it came through the store.
    fn sealed(&self, row: &CaKey) -> Result<Zeroizing<String>> {
        let (Some(sealed), Some(sealing)) = (&row.sealed, &self.from.sealing) else {
            return Err(self.missing(&row.name));
        };
        travel::unseal(sealing, &sealed_for(&self.from.cluster, &row.name), sealed)
    }

    fn find(&self, row: &CaKey) -> Result<Arc<dyn PrivateKey>> {
        if let Some(key) = self.store.open(&row.name)? {
            return Ok(key);
        }
        let private = self.sealed(row)?;
        let put = self.store.put(&row.name, &private);
        // Another of this folder may have put it there.
        self.store.open(&row.name)?.ok_or_else(|| put.err().unwrap_or_else(|| self.missing(&row.name)))
    }

    fn missing(&self, name: &str) -> Error {
        Error::usage(format!("the CA key {} is missing", self.store.place(name)))
            .hint("put it back from the backup: what it has signed is good for nothing without it")
    }
}
