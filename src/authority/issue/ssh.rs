//! OpenSSH certificates (PROTOCOL.certkeys).

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use ssh_key::certificate::{Builder, CertType};
use ssh_key::public::KeyData;

use super::{Occasion, record, valid_from};
use crate::authority::keys::{CaKeys, SshCa};
use crate::authority::policy::{Grant, SshGrant};
use crate::authority::store::{CertificateKind, NewCertificate};
use crate::error::{Context as _, Error, Kind, Result};
use crate::random::{self, serial};

/// A job's certificate that is about to be signed.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) serial: u64,
    /// Whether it is a host's. Plans that were recorded before hosts had any are users'.
    #[serde(default)]
    host: bool,
    /// The public key blob in base64.
    key: String,
    key_id: String,
    pub(super) principals: Vec<String>,
    extensions: Vec<String>,
    critical: BTreeMap<String, String>,
    from: i64,
    until: i64,
}

impl Plan {
    pub(super) fn new(
        granted: &SshGrant,
        key: Vec<u8>,
        grant: &Grant,
        at: &Occasion<'_>,
        until: i64,
    ) -> Result<Self> {
        let mut critical = BTreeMap::new();
        if let Some(command) = &granted.force_command {
            critical.insert("force-command".to_owned(), command.clone());
        }
        if granted.pin_source_ip {
            critical.insert("source-address".to_owned(), at.peer.to_canonical().to_string());
        }
        Ok(Self {
            serial: serial()?,
            host: granted.host,
            key: STANDARD.encode(key),
            key_id: format!("{} {} {}", grant.bot(), grant.token(), at.provenance.line),
            principals: granted.principals.clone(),
            extensions: granted.extensions.iter().map(ToString::to_string).collect(),
            critical,
            from: valid_from(at.now),
            until,
        })
    }

    /// What makes two requests the same.
    pub(super) fn essence(&self) -> String {
        let kind = if self.host { "host " } else { "" };
        format!("{kind}{} {:?} {:?} {:?}", self.key, self.principals, self.extensions, self.critical)
    }

    /// For the store, but for the output that it is of.
    pub(super) fn record(&self) -> NewCertificate {
        let key = STANDARD.decode(&self.key).unwrap_or_default();
        record(self.serial, CertificateKind::Ssh, &self.principals, self.until, &key)
    }

    pub(super) fn sign(&self, keys: &CaKeys) -> Result<String> {
        let blob = STANDARD.decode(&self.key).context(Kind::Internal, "a planned SSH key")?;
        let key = ssh_key::PublicKey::from_bytes(&blob).context(Kind::Internal, "a planned SSH key")?;
        let body = Body {
            serial: self.serial,
            key: key.key_data(),
            kind: if self.host { CertType::Host } else { CertType::User },
            key_id: &self.key_id,
            principals: &self.principals,
            extensions: &self.extensions,
            critical: &self.critical,
            from: self.from,
            until: self.until,
        };
        body.sign(if self.host { &keys.ssh_host } else { &keys.ssh_user })
    }
}

/// A host certificate that an operator asked for, recorded and about to be signed.
#[derive(Debug)]
pub struct HostPlan {
    serial: u64,
    key: ssh_key::PublicKey,
    principals: Vec<String>,
    now: i64,
    until: i64,
}

impl HostPlan {
    /// For the host key on `line`, valid for `ttl` seconds.
    ///
    /// # Errors
    /// `Kind::Usage` for a key that is not certified or names that hosts do not have.
    pub fn new(line: &str, principals: Vec<String>, now: i64, ttl: i64) -> Result<Self> {
        let blob = super::request::ssh_blob(line).map_err(Error::usage)?;
        let key = ssh_key::PublicKey::from_bytes(&blob).context(Kind::Internal, "host key")?;
        let fits = |name: &String| {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':');
            !name.is_empty() && name.len() <= 253 && name.bytes().all(allowed)
        };
        if let Some(bad) = principals.iter().find(|name| !fits(name)) {
            return Err(Error::usage(format!(
                "`{}` is not a host's name or address",
                crate::text::shown(bad)
            )));
        }
        Ok(Self { serial: serial()?, key, principals, now, until: now.saturating_add(ttl) })
    }

    /// For the store.
    ///
    /// # Errors
    /// Never in practice.
    pub fn record(&self) -> Result<NewCertificate> {
        let blob = self.key.to_bytes().context(Kind::Internal, "host key")?;
        Ok(NewCertificate {
            output: "host".to_owned(),
            ..record(self.serial, CertificateKind::Ssh, &self.principals, self.until, &blob)
        })
    }

    /// Signs; to be called once it is recorded. One line of OpenSSH.
    ///
    /// # Errors
    /// `Kind::Internal` where the signature fails.
    pub fn sign(&self, keys: &CaKeys) -> Result<String> {
        let key_id = format!("host {}", self.principals.join(","));
        let body = Body {
            serial: self.serial,
            key: self.key.key_data(),
            kind: CertType::Host,
            key_id: &key_id,
            principals: &self.principals,
            extensions: &[],
            critical: &BTreeMap::new(),
            from: valid_from(self.now),
            until: self.until,
        };
        body.sign(&keys.ssh_host)
    }
}

struct Body<'a> {
    serial: u64,
    key: &'a KeyData,
    kind: CertType,
    key_id: &'a str,
    principals: &'a [String],
    extensions: &'a [String],
    critical: &'a BTreeMap<String, String>,
    from: i64,
    until: i64,
}

impl Body<'_> {
    fn sign(&self, ca: &SshCa) -> Result<String> {
        // A certificate without principals is good for every login.
        if self.principals.is_empty() || self.until <= self.from {
            return Err(Error::internal("an SSH certificate without principals or validity"));
        }
        let build = || -> ssh_key::Result<String> {
            let mut nonce = vec![0; 32];
            random::fill(&mut nonce).map_err(|_| ssh_key::Error::Crypto)?;
            let unix = |time: i64| u64::try_from(time).unwrap_or(0);
            let mut builder = Builder::new(nonce, self.key.clone(), unix(self.from), unix(self.until))?;
            builder.serial(self.serial)?.cert_type(self.kind)?.key_id(self.key_id)?;
            for principal in self.principals {
                builder.valid_principal(principal)?;
            }
            for (name, value) in self.critical {
                builder.critical_option(name, value)?;
            }
            for name in self.extensions {
                builder.extension(name, "")?;
            }
            builder.sign(ca)?.to_openssh()
        };
        build().context(Kind::Internal, "cannot sign an SSH certificate")
    }
}
