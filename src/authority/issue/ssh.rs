//! OpenSSH certificates (PROTOCOL.certkeys).

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use ssh_key::certificate::{Builder, CertType};

use super::leaf::{RequestContext, record};
use crate::authority::ca::CaKind;
use crate::authority::keys::{CaKeys, Signing, valid_from};
use crate::authority::policy::{Grant, SshGrant};
use crate::authority::store::record::{CommandPlan, Recorded};
use crate::authority::store::{CertificateKind, EarlierCertificate, NewCertificate};
use crate::error::{Context as _, Error, Kind, Result};
use crate::principal;
use crate::random::{self, serial};
use crate::text::json_text;

/// A certificate that is about to be signed.
#[derive(Debug)]
pub(super) struct SshPlan {
    pub(super) serial: u64,
    /// Whether it is a host's.
    host: bool,
    /// The CA that signs it.
    ca: Option<i64>,
    /// The public key blob.
    key: Vec<u8>,
    pub(super) key_id: String,
    pub(super) principals: Vec<String>,
    extensions: Vec<String>,
    critical: BTreeMap<String, String>,
    from: i64,
    pub(super) until: i64,
}

impl SshPlan {
    pub(super) fn new(
        serial: u64,
        granted: &SshGrant,
        key: Vec<u8>,
        grant: &Grant,
        at: &RequestContext<'_>,
        until: i64,
    ) -> Self {
        let mut critical = BTreeMap::new();
        if let Some(command) = &granted.force_command {
            critical.insert("force-command".to_owned(), command.clone());
        }
        if granted.pin_source_ip {
            critical.insert("source-address".to_owned(), at.peer.to_canonical().to_string());
        }
        Self {
            serial,
            host: granted.host,
            ca: if granted.host { at.signing.ssh_host } else { at.signing.ssh_user },
            key,
            // The trusted cluster's name is in that of the bot already; its log may be read where several clusters' are.
            key_id: format!(
                "{} {} {}",
                grant.bot,
                if grant.until.is_some() { at.cluster } else { &grant.token },
                at.provenance.line
            ),
            principals: granted.principals.clone(),
            extensions: granted.extensions.iter().map(ToString::to_string).collect(),
            critical,
            from: valid_from(at.now),
            until,
        }
    }

    /// As it was recorded at `time`.
    pub(super) fn recorded(&mut self, time: i64, earlier: &EarlierCertificate) {
        let EarlierCertificate { serial, expires, ca, .. } = *earlier;
        (self.serial, self.from, self.until, self.ca) = (serial, valid_from(time), expires, ca);
    }

    /// The CA that signs it.
    pub(super) fn ca(&self) -> (CaKind, Option<i64>) {
        (if self.host { CaKind::SshHost } else { CaKind::SshUser }, self.ca)
    }

    /// What makes two requests the same.
    pub(super) fn fingerprinted(&self) -> String {
        json_text(&json!([
            self.host,
            STANDARD.encode(&self.key),
            self.principals,
            self.extensions,
            self.critical
        ]))
    }

    /// For the store, but for the output that it is of.
    pub(super) fn record(&self) -> NewCertificate {
        let key = (self.key.as_slice(), self.ca);
        let certificate = record(self.serial, CertificateKind::Ssh, &self.principals, self.until, key);
        NewCertificate { is_host: self.host, ..certificate }
    }

    /// Signs it, as a part of what is recorded.
    pub(super) fn sign<P>(&self, recorded: &Recorded<P>, keys: &CaKeys) -> Result<String> {
        // To `sshd`, a certificate without principals is good for every login of a file that names its
        // CA (`cert-authority`); to `ssh`, a host's is good for every host.
        if self.principals.is_empty() || self.until <= self.from {
            return Err(Error::internal("an SSH certificate without principals or validity"));
        }
        let kind = if self.host { CertType::Host } else { CertType::User };
        let body = self.body(kind).context(Kind::Internal, "cannot make an SSH certificate")?;
        keys.sign_ssh(recorded, (kind, self.ca), body)
    }

    fn body(&self, kind: CertType) -> ssh_key::Result<Builder> {
        let key = ssh_key::PublicKey::from_bytes(&self.key)?;
        let mut nonce = vec![0; 32];
        random::fill(&mut nonce).map_err(|_| ssh_key::Error::Crypto)?;
        let unix = |time: i64| u64::try_from(time).unwrap_or(0);
        let mut builder = Builder::new(nonce, key.key_data().clone(), unix(self.from), unix(self.until))?;
        builder.serial(self.serial)?.cert_type(kind)?.key_id(&self.key_id)?;
        for principal in &self.principals {
            builder.valid_principal(principal)?;
        }
        for (name, value) in &self.critical {
            builder.critical_option(name, value)?;
        }
        for name in &self.extensions {
            builder.extension(name, "")?;
        }
        Ok(builder)
    }
}

/// A host certificate that an operator asked for, about to be recorded and signed.
#[derive(Debug)]
pub struct HostPlan(SshPlan);

impl HostPlan {
    /// For the host key on `line`, valid for `ttl` seconds.
    ///
    /// # Errors
    /// `Kind::Usage` for a key that is not certified or names that hosts do not have.
    pub fn new(
        line: &str,
        principals: Vec<String>,
        (now, ttl): (i64, i64),
        signing: Signing,
    ) -> Result<Self> {
        let key = super::request::ssh_blob(line).map_err(Error::usage)?;
        let principals = principal::hosts(principals).map_err(Error::usage)?;
        Ok(Self(SshPlan {
            serial: serial()?,
            host: true,
            ca: signing.ssh_host,
            key,
            key_id: format!("host {}", principals.join(",")),
            principals,
            extensions: Vec::new(),
            critical: BTreeMap::new(),
            from: valid_from(now),
            until: now.saturating_add(ttl),
        }))
    }
}

impl CommandPlan for HostPlan {
    fn record(&self) -> NewCertificate {
        NewCertificate { output: "host".to_owned(), ..self.0.record() }
    }
}

impl Recorded<HostPlan> {
    /// Signs. One line of OpenSSH.
    pub fn sign(&self, keys: &CaKeys) -> Result<String> {
        self.plan().0.sign(self, keys)
    }
}
