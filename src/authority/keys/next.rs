//! The CA that is to take another's place: its key, what is written down of it, and who vouches for it.

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};

use super::cross::Cross;
use super::federation::{self, AHEAD};
use super::private::{PrivateKey, lacking};
use super::ssh::SshCa;
use super::tls;
use super::travel::{self, sealed_for};
use super::{CaKeys, KeySource, NewCa, StatementKey, TlsCaCertificate, algorithm};
use crate::authority::ca::{CaKey, CaKind, CaState};
use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::Folder;
use crate::net::pin_of;
use crate::text::hex;
use crate::wire::Endorsement;

impl CaKeys {
    /// The CA that signs, as it is written down once there are others beside it.
    ///
    /// # Errors
    /// Where there is none of that kind.
    pub fn present(&self, kind: CaKind, since: i64) -> Result<CaKey> {
        if let Some(key) = self.set.current(kind) {
            return Ok(key.clone());
        }
        let (id, public) = match kind {
            CaKind::SshUser => of_ssh(&self.ssh_user.current().ca),
            CaKind::SshHost => of_ssh(&self.ssh_host.current().ca),
            CaKind::Tls => of_tls(&self.tls_ca().certificate)?,
            CaKind::Statement => {
                let key = self.statement_key().ok_or_else(|| {
                    Error::usage("this authority has no statement key yet")
                        .hint("`machine-id authority serve` makes it")
                })?;
                (key.clone(), key)
            }
            CaKind::Federation => {
                let all = self.federation.as_ref().ok_or_else(|| {
                    Error::usage("this authority has no federation key yet")
                        .hint("`machine-id authority serve` makes it")
                })?;
                federation::named(&all.current().ca)?
            }
        };
        let (name, state) = (kind.name().to_owned(), CaState::Current);
        Ok(CaKey {
            number: 0,
            kind,
            name,
            id,
            is_first: true,
            state,
            public,
            endorsements: Vec::new(),
            cross: Vec::new(),
            sealed: None,
            since,
        })
    }

    /// All of a kind, as they are written down once there are others beside it.
    ///
    /// # Errors
    /// Where there is none of that kind.
    pub fn written(&self, kind: CaKind, since: i64) -> Result<Vec<CaKey>> {
        let mut all: Vec<CaKey> = self.set.of(kind).cloned().collect();
        if all.is_empty() {
            let present = self.present(kind, since)?;
            let ahead = self.first_ahead().filter(|_| kind == CaKind::Federation);
            let ahead = ahead.map(federation::named).transpose()?.map(|(id, public)| {
                let (name, is_first, state) = (AHEAD.to_owned(), false, CaState::Next);
                // It is published for as long as the one that signs.
                CaKey { name, id, is_first, state, public, since: 0, ..present.clone() }
            });
            all = [present].into_iter().chain(ahead).collect();
        }
        Ok(all)
    }

    /// Makes another CA, whose key is in the key store when this returns, and which nobody knows yet. It signs as the present one
    /// does, which vouches for it but for tokens; a TLS CA has a certificate by the present one too.
    ///
    /// # Errors
    /// Where it cannot be made, or the present one does not sign.
    pub fn make_next(&self, from: &KeySource, new: NewCa<'_>) -> Result<CaKey> {
        let NewCa { kind, occasion, now } = new;
        let present = self.present(kind, now)?;
        let count = self.set.of(kind).count();
        let what = format!("{}\n{}\n{}\n{count}\n{occasion}", from.cluster, kind.name(), present.id);
        let digits: String = hex(digest(&SHA256, what.as_bytes()).as_ref()).chars().take(8).collect();
        let name = format!("{}-{digits}", kind.name());
        let key = match self.store.open(&name)? {
            Some(key) => key,
            None => self.store.create(&name, algorithm(from.suite, kind))?,
        };
        let mut cross = Vec::new();
        let (id, public) = match kind {
            CaKind::SshUser | CaKind::SshHost => {
                let comment = present.public.split(' ').nth(2).unwrap_or_default();
                of_ssh(&SshCa::new(key, comment)?)
            }
            CaKind::Tls => {
                let public = tls::create_later(key.as_ref(), &from.cluster, now)?;
                let certificate = TlsCaCertificate::parse(&public).map_err(Error::internal)?;
                cross.push(self.tls_ca().cross_sign(&certificate, now)?);
                of_tls(&certificate)?
            }
            CaKind::Statement => {
                let public = StatementKey::new(key)?.public;
                (public.clone(), public)
            }
            CaKind::Federation => federation::named(&StatementKey::new(key)?)?,
        };
        let endorse = |by: &dyn PrivateKey, who: &str| {
            let message = Endorsement::message(&from.cluster, kind.name(), &public);
            let signature = URL_SAFE_NO_PAD.encode(by.sign(message.as_bytes())?);
            let (kind, new, by) = (kind.name().to_owned(), public.clone(), who.to_owned());
            Ok::<_, Error>(Endorsement { kind, new, by, signature })
        };
        let mut endorsements = Vec::new();
        // Whom clouds and leaf clusters believe, they ask for.
        if kind != CaKind::Federation {
            endorsements.push(endorse(self.private(kind)?.as_ref(), &present.public)?);
        }
        if !matches!(kind, CaKind::Tls | CaKind::Federation) {
            endorsements.push(endorse(self.private(CaKind::Tls)?.as_ref(), &self.tls_ca().certificate.pem)?);
        }
        let copy = from.sealing.as_ref().map(|sealing| Ok::<_, Error>((sealing, self.store.copy(&name)?)));
        let sealed = match copy.transpose()? {
            Some((sealing, Some(private))) => {
                Some(travel::seal(sealing, &sealed_for(&from.cluster, &name), &private)?)
            }
            _ => None,
        };
        let (is_first, state) = (false, CaState::Next);
        Ok(CaKey {
            number: 0,
            kind,
            name,
            id,
            is_first,
            state,
            public,
            endorsements,
            cross,
            sealed,
            since: now,
        })
    }

    /// What another CA is asked to certify the next TLS CA by, while there is one: a certificate request in PEM.
    ///
    /// # Errors
    /// Where its key does not sign.
    pub fn next_tls_request(&self) -> Result<Option<String>> {
        let mut next = self.tls.all().filter(|one| one.state == CaState::Next);
        next.next().map(|one| one.ca.request()).transpose()
    }

    /// The root that the TLS CA stands under which signs, and the name of the next one's key, while that stands under none.
    pub fn wants_root(&self) -> Option<(&str, &str)> {
        let mut next = self.tls.all().filter(|one| one.state == CaState::Next && one.ca.root.is_none());
        let next = self.set.key(next.next()?.number?)?;
        Some((self.tls_ca().root.as_ref()?.root.as_str(), next.name.as_str()))
    }

    /// Destroys the private keys of CAs that are trusted no more; what there is to say of each: that it is gone, or what is to be done.
    pub fn tidy(&self, from: &KeySource) -> Vec<Result<String>> {
        let mut told: Vec<_> = self.replace_certificate(from).err().map(Err).into_iter().collect();
        for key in self.set.keys.iter().filter(|key| !key.state.is_trusted()) {
            // One that cannot be looked for now is looked for again. A file that is no key is what somebody was killed over.
            let found = self.store.open(&key.name).map(|found| found.is_some());
            if found.unwrap_or(self.store.is_local()) {
                let place = self.store.place(&key.name);
                let done = self.store.destroy(&key.name);
                told.push(done.map(|()| format!("destroyed the CA key {}, {place}", key.name)));
            }
        }
        told
    }

    /// Puts the certificate of the TLS CA that signs in the place of one that is trusted no more, for those who ask no store. What
    /// another's root has certified the first by goes with that.
    fn replace_certificate(&self, from: &KeySource) -> Result<()> {
        let path = &from.certificate;
        let Some(there) = TlsCaCertificate::find(path, from.owner)? else { return Ok(()) };
        if !self.tls.all().any(|one| !one.state.is_trusted() && one.ca.certificate.der == there.der) {
            return Ok(());
        }
        let folder = path.parent().unwrap_or(path);
        let name =
            |path: &Path| path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let cross = Cross::path(path, CaKind::Tls.name());
        if cross.exists() {
            Folder::remove_inside(folder, &name(&cross))
                .map_err(|why| Error::usage(why).context(format!("cannot remove {}", cross.display())))?;
        }
        Folder::replace_inside(folder, &name(path), self.tls_ca().certificate.pem.as_bytes())
            .context(Kind::Usage, format!("cannot write {}", path.display()))
    }

    /// Whether they are in files here.
    pub fn is_local(&self) -> bool {
        self.store.is_local()
    }

    /// Where the private key of that name is, for operators.
    pub fn place(&self, name: &str) -> String {
        self.store.place(name)
    }

    /// The key that signs now.
    pub(super) fn private(&self, kind: CaKind) -> Result<Arc<dyn PrivateKey>> {
        let key = match kind {
            CaKind::SshUser => self.ssh_user.current().ca.key.clone(),
            CaKind::SshHost => self.ssh_host.current().ca.key.clone(),
            CaKind::Tls => self.tls_ca().key.clone(),
            CaKind::Statement => match &self.statement {
                Some(all) => all.current().ca.key.clone(),
                None => None,
            },
            CaKind::Federation => match &self.federation {
                Some(all) => all.current().ca.key.clone(),
                None => None,
            },
        };
        key.ok_or_else(lacking)
    }
}

fn of_ssh(ca: &SshCa) -> (String, String) {
    (ca.id(), ca.line.clone())
}

fn of_tls(certificate: &TlsCaCertificate) -> Result<(String, String)> {
    Ok((pin_of(&certificate.der)?, certificate.pem.clone()))
}
