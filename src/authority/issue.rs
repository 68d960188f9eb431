//! From a [`Grant`] to certificates, in steps that cannot be skipped:
//! [`Grant`] → [`Prepared`] (recorded in the store) → [`Signed`].

use std::collections::BTreeMap;

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::keys::CaKeys;
use super::policy::Grant;
use super::store::{CertificateKind, NewCertificate};
use crate::clock::LEEWAY;
use crate::error::{Context as _, Kind, Result};
use crate::join::Provenance;
use crate::random;
use crate::wire::OutputResponse;

pub mod request;
pub mod ssh;
pub mod x509;

use request::OutputKeys;

/// Certificates that may be signed once they are recorded. Whoever holds one
/// has a [`Grant`] behind it, or the store's own record of such a one.
#[derive(Debug, Serialize, Deserialize)]
pub struct Prepared {
    issuance_id: String,
    bot: String,
    token: String,
    expires: i64,
    outputs: Vec<PreparedOutput>,
    warnings: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct PreparedOutput {
    name: String,
    /// The output's type. Plans that were recorded before it was have none.
    #[serde(default)]
    kind: Option<String>,
    /// What the record repeats of its options; none in older plans either.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    options: BTreeMap<String, String>,
    roles: Vec<String>,
    ssh: Option<ssh::Plan>,
    tls: Option<x509::Plan>,
}

impl PreparedOutput {
    /// Its type with its options: another service is another request, or the
    /// record of the first would stand for both. Without options it reads as it
    /// did before they were recorded; no type has a space in its name.
    fn what(&self) -> String {
        let kind = self.kind.as_deref().unwrap_or_default();
        if self.options.is_empty() { kind.to_owned() } else { format!("{kind} {:?}", self.options) }
    }
}

/// Signed certificates, ready to be handed over.
#[derive(Debug)]
pub struct Signed {
    /// The issuance.
    pub issuance_id: String,
    /// The bot.
    pub bot: String,
    /// When the first of them expires.
    pub expires: i64,
    /// The certificates.
    pub outputs: Vec<OutputResponse>,
    /// What the job should know.
    pub warnings: Vec<String>,
}

/// Who asks, and when.
#[derive(Debug)]
pub struct Occasion<'a> {
    /// The cluster, for names in certificates.
    pub cluster: &'a str,
    /// Which run it is for.
    pub provenance: &'a Provenance,
    /// The address that asks, for roles that pin it.
    pub peer: std::net::IpAddr,
    /// The time.
    pub now: i64,
}

impl Prepared {
    /// Turns what is granted into what will be signed.
    ///
    /// # Errors
    /// `Kind::Internal` where there are no random numbers.
    pub fn new(grant: Grant, keys: Vec<OutputKeys>, at: &Occasion<'_>) -> Result<Self> {
        let mut outputs = Vec::with_capacity(keys.len());
        let mut expires = i64::MAX;
        for (granted, keys) in grant.outputs().iter().zip(keys) {
            let until = at.now + i64::try_from(granted.ttl).unwrap_or(0);
            expires = expires.min(until);
            let ssh = match (&granted.ssh, keys.ssh) {
                (Some(ssh), Some(key)) => Some(ssh::Plan::new(ssh, key, &grant, at, until)?),
                _ => None,
            };
            let tls = match (&granted.tls, keys.tls) {
                (Some(tls), Some(spki)) => Some(x509::Plan::new(tls, spki, &grant, at, until)?),
                _ => None,
            };
            outputs.push(PreparedOutput {
                name: granted.name.clone(),
                kind: Some(granted.kind.to_owned()),
                options: granted.options.clone(),
                roles: granted.roles.clone(),
                ssh,
                tls,
            });
        }
        Ok(Self {
            issuance_id: random::id("i")?,
            bot: grant.bot().to_owned(),
            token: grant.token().to_owned(),
            expires,
            outputs,
            warnings: grant.warnings().to_vec(),
        })
    }

    /// The plan that the store kept of an earlier, identical request.
    ///
    /// # Errors
    /// `Kind::Internal` where it cannot be read.
    pub fn recorded(plan: &str) -> Result<Self> {
        serde_json::from_str(plan).context(Kind::Internal, "a recorded plan cannot be read")
    }

    /// The plan, for the store; no secret.
    ///
    /// # Errors
    /// Never in practice.
    pub fn plan(&self) -> Result<String> {
        serde_json::to_string(self).context(Kind::Internal, "a plan cannot be written")
    }

    /// Whether the first of its certificates has expired.
    #[must_use]
    pub fn has_expired(&self, now: i64) -> bool {
        self.expires <= now
    }

    /// Whether it ends later than `other`, which is as much as the policy grants now.
    #[must_use]
    pub fn outlives(&self, other: &Self) -> bool {
        self.expires > other.expires
    }

    /// The issuance's id.
    #[must_use]
    pub fn issuance_id(&self) -> &str {
        &self.issuance_id
    }

    /// Hash over who gets what for which keys, without serials and times: a
    /// request with the same hash is the same request.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut hash = Context::new(&SHA256);
        let mut part = |text: &str| {
            hash.update(&u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(text.as_bytes());
        };
        part(&self.bot);
        part(&self.token);
        for output in &self.outputs {
            part(&output.name);
            part(&output.what());
            part(&output.roles.join(","));
            part(&output.ssh.as_ref().map_or_else(String::new, ssh::Plan::essence));
            part(&output.tls.as_ref().map_or_else(String::new, x509::Plan::essence));
        }
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(hash.finish().as_ref());
        fingerprint
    }

    /// Every certificate, for the store.
    #[must_use]
    pub fn certificates(&self) -> Vec<NewCertificate> {
        let mut all = Vec::new();
        for output in &self.outputs {
            let certificates =
                [output.ssh.as_ref().map(ssh::Plan::record), output.tls.as_ref().map(x509::Plan::record)];
            all.extend(certificates.into_iter().flatten().map(|certificate| NewCertificate {
                output: output.name.clone(),
                output_type: output.kind.clone(),
                options: output.options.clone(),
                ..certificate
            }));
        }
        all
    }

    /// Signs. To be called once the record is durable.
    ///
    /// # Errors
    /// `Kind::Internal` where a signature fails.
    pub fn sign(self, keys: &CaKeys) -> Result<Signed> {
        let mut outputs = Vec::with_capacity(self.outputs.len());
        for output in self.outputs {
            let serials =
                [output.ssh.as_ref().map(|plan| plan.serial), output.tls.as_ref().map(|plan| plan.serial)];
            let mut serials = serials.into_iter().flatten().map(|serial| serial.to_string());
            outputs.push(OutputResponse {
                ssh_certificate: output.ssh.as_ref().map(|plan| plan.sign(keys)).transpose()?,
                tls_certificate_chain: output.tls.as_ref().map(|plan| plan.sign(keys)).transpose()?,
                serial: serials.next().unwrap_or_default(),
                tls_serial: serials.next(),
                // Where there is no SSH, whoever the X.509 certificate is for.
                principals: match (output.ssh, output.tls) {
                    (Some(ssh), _) => ssh.principals,
                    (None, Some(tls)) => vec![tls.common_name],
                    (None, None) => Vec::new(),
                },
                roles: output.roles,
                name: output.name,
            });
        }
        Ok(Signed {
            issuance_id: self.issuance_id,
            bot: self.bot,
            expires: self.expires,
            outputs,
            warnings: self.warnings,
        })
    }
}

/// One certificate for the store, of no output yet and in no group.
fn record(
    serial: u64,
    kind: CertificateKind,
    principals: &[String],
    expires: i64,
    key: &[u8],
) -> NewCertificate {
    let mut key_hash = [0; 32];
    key_hash.copy_from_slice(ring::digest::digest(&SHA256, key).as_ref());
    NewCertificate {
        serial,
        kind,
        output: String::new(),
        output_type: None,
        options: BTreeMap::new(),
        principals: principals.to_vec(),
        groups: Vec::new(),
        expires,
        key_hash,
    }
}

/// Valid from a minute back, since clocks differ.
#[must_use]
pub fn valid_from(now: i64) -> i64 {
    now.saturating_sub(LEEWAY)
}

/// Both ends of an X.509 validity that begins a minute before `now`.
///
/// # Errors
/// `Kind::Internal` for times that X.509 cannot say.
pub fn validity(now: i64, until: i64) -> Result<(OffsetDateTime, OffsetDateTime)> {
    let time = |unix| OffsetDateTime::from_unix_timestamp(unix).context(Kind::Internal, "validity");
    Ok((time(valid_from(now))?, time(until)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(more: &str) -> Prepared {
        let plan = format!(
            r#"{{"issuance_id": "i-1", "bot": "deployer", "token": "ci", "expires": 1, "warnings": [], "outputs": [
                {{"name": "db", "kind": "database", {more} "roles": ["orders"], "ssh": null, "tls": null}}]}}"#
        );
        Prepared::recorded(&plan).unwrap()
    }

    #[test]
    fn another_option_is_another_request_and_none_is_as_before() {
        let before = prepared("");
        assert_eq!(before.outputs[0].what(), "database");
        assert!(!before.plan().unwrap().contains("options"));
        let with = |service: &str| prepared(&format!(r#""options": {{"service": "{service}"}},"#));
        let again = Prepared::recorded(&with("a").plan().unwrap()).unwrap();
        assert_eq!(again.fingerprint(), with("a").fingerprint());
        assert_ne!(with("a").fingerprint(), with("b").fingerprint());
        assert_ne!(with("a").fingerprint(), before.fingerprint());
    }
}
