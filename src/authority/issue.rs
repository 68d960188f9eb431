//! From a [`Grant`] to certificates, in steps that cannot be skipped:
//! [`Grant`] → [`Prepared`] → [`Recorded`], which the store alone makes → [`ExchangeResponse`].

use std::collections::BTreeMap;

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::keys::CaKeys;
use super::policy::Grant;
use super::store::record::{ExchangePlan, KeptPlan, Recorded};
use super::store::{NewCertificate, PlanRecord};
use crate::clock::rfc3339;
use crate::error::{Context as _, Kind, Result};
use crate::random;
use crate::wire::{ExchangeResponse, JoinedInstance, OutputResponse};

pub mod leaf;
pub mod request;
pub mod ssh;
pub mod x509;

use leaf::RequestContext;
use request::OutputKeys;

/// Certificates that may be signed once they are recorded. Whoever holds one
/// has a [`Grant`] behind it, or the store's own record of such a one.
#[derive(Debug)]
pub struct Prepared(Plan);

#[derive(Debug, Serialize, Deserialize)]
struct Plan {
    issuance_id: String,
    bot: String,
    token: String,
    expires: i64,
    outputs: Vec<PreparedOutput>,
    /// The extensions of all X.509 certificates that say which run they are for.
    #[serde(default)]
    fulcio: Vec<(u64, String)>,
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
    ssh: Option<ssh::SshPlan>,
    tls: Option<x509::TlsPlan>,
}

impl PreparedOutput {
    /// Its type with its options: another service is another request, or the
    /// record of the first would stand for both. Without options it reads as it
    /// did before they were recorded; no type has a space in its name.
    fn type_and_options(&self) -> String {
        let kind = self.kind.as_deref().unwrap_or_default();
        if self.options.is_empty() { kind.to_owned() } else { json!([kind, self.options]).to_string() }
    }
}

impl Prepared {
    /// Turns what is granted into what will be signed.
    pub fn new(grant: Grant, keys: Vec<OutputKeys>, at: &RequestContext<'_>) -> Result<Self> {
        let mut outputs = Vec::with_capacity(keys.len());
        let (mut expires, mut warnings) = (i64::MAX, grant.warnings.clone());
        for (granted, keys) in grant.outputs.iter().zip(keys) {
            let until = at.now + i64::try_from(granted.ttl).unwrap_or(0);
            let tls_until = until.min(at.tls_ca.until);
            if granted.tls.is_some() && tls_until < until && warnings.len() == grant.warnings.len() {
                let end = rfc3339(tls_until);
                warnings
                    .push(format!("the authority's TLS CA ends at {end}, and X.509 certificates with it"));
            }
            expires = expires.min(if granted.tls.is_some() { tls_until } else { until });
            let (ssh, tls) = (granted.ssh.as_ref().zip(keys.ssh), granted.tls.as_ref().zip(keys.tls));
            outputs.push(PreparedOutput {
                name: granted.name.clone(),
                kind: Some(granted.kind.to_owned()),
                options: granted.options.clone(),
                roles: granted.roles.clone(),
                ssh: ssh.map(|(ssh, key)| ssh::SshPlan::new(ssh, key, &grant, at, until)).transpose()?,
                tls: tls
                    .map(|(tls, spki)| x509::TlsPlan::new(tls, spki, &grant, at, tls_until))
                    .transpose()?,
            });
        }
        Ok(Self(Plan {
            issuance_id: random::id("i")?,
            bot: grant.bot.clone(),
            token: grant.token.clone(),
            expires,
            outputs,
            fulcio: at.provenance.fulcio.clone(),
            warnings,
        }))
    }

    /// How many certificates it has.
    pub fn count(&self) -> usize {
        let of_output =
            |output: &PreparedOutput| usize::from(output.ssh.is_some()) + usize::from(output.tls.is_some());
        self.0.outputs.iter().map(of_output).sum()
    }

    /// When the first of its certificates expires.
    pub fn expires(&self) -> i64 {
        self.0.expires
    }
}

impl ExchangePlan for Prepared {
    fn record(&self) -> Result<PlanRecord> {
        Ok(PlanRecord {
            id: self.0.issuance_id.clone(),
            fingerprint: self.0.fingerprint(),
            certificates: self.0.certificates(),
            json: serde_json::to_string(&self.0).context(Kind::Internal, "a plan cannot be written")?,
        })
    }

    fn read(kept: &KeptPlan) -> Result<Self> {
        kept.read().map(Self)
    }
}

impl Plan {
    /// Hash over who gets what for which keys, without serials and times: a
    /// request with the same hash is the same request.
    fn fingerprint(&self) -> [u8; 32] {
        let mut hash = Context::new(&SHA256);
        let mut part = |text: &str| {
            hash.update(&u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(text.as_bytes());
        };
        part(&self.bot);
        part(&self.token);
        for output in &self.outputs {
            part(&output.name);
            part(&output.type_and_options());
            part(&output.roles.join(","));
            part(&output.ssh.as_ref().map_or_else(String::new, ssh::SshPlan::fingerprinted));
            part(&output.tls.as_ref().map_or_else(String::new, x509::TlsPlan::fingerprinted));
        }
        hash.finish().as_ref().try_into().unwrap_or_default()
    }

    /// Every certificate, for the store.
    fn certificates(&self) -> Vec<NewCertificate> {
        let mut all = Vec::new();
        for output in &self.outputs {
            let certificates = [
                output.ssh.as_ref().map(ssh::SshPlan::record),
                output.tls.as_ref().map(x509::TlsPlan::record),
            ];
            all.extend(certificates.into_iter().flatten().map(|certificate| NewCertificate {
                output: output.name.clone(),
                output_type: output.kind.clone(),
                options: output.options.clone(),
                ..certificate
            }));
        }
        all
    }
}

impl Recorded<Prepared> {
    /// Signs, and answers as this cluster, to a registered instance where it is one.
    pub fn sign(
        self,
        keys: &CaKeys,
        cluster: &str,
        instance: Option<JoinedInstance>,
    ) -> Result<ExchangeResponse> {
        let Prepared(plan) = self.plan();
        let output = |output: &PreparedOutput| {
            let (ssh, tls) = (output.ssh.as_ref(), output.tls.as_ref());
            let serials = [ssh.map(|plan| plan.serial), tls.map(|plan| plan.serial)];
            let mut serials = serials.into_iter().flatten().map(|serial| serial.to_string());
            Ok(OutputResponse {
                name: output.name.clone(),
                ssh_certificate: ssh.map(|plan| plan.sign(&self, keys)).transpose()?,
                tls_certificate_chain: tls.map(|tls| tls.sign(&self, &plan.fulcio, keys)).transpose()?,
                serial: serials.next().unwrap_or_default(),
                tls_serial: serials.next(),
                // Where there is no SSH, whoever the X.509 certificate is for.
                principals: match (ssh, tls) {
                    (Some(ssh), _) => ssh.principals.clone(),
                    (None, Some(tls)) => vec![tls.common_name.clone()],
                    (None, None) => Vec::new(),
                },
                roles: output.roles.clone(),
            })
        };
        Ok(ExchangeResponse {
            issuance_id: plan.issuance_id.clone(),
            cluster: cluster.to_owned(),
            bot: plan.bot.clone(),
            expires_at: rfc3339(plan.expires),
            outputs: plan.outputs.iter().map(output).collect::<Result<_>>()?,
            trust: keys.trust(),
            warnings: plan.warnings.clone(),
            instance,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(more: &str) -> Prepared {
        let plan = format!(
            r#"{{"issuance_id": "i-1", "bot": "deployer", "token": "ci", "expires": 1, "warnings": [], "outputs": [
                {{"name": "db", "kind": "database", {more} "roles": ["orders"], "ssh": null, "tls": null}}]}}"#
        );
        Prepared(serde_json::from_str(&plan).unwrap())
    }

    #[test]
    fn another_option_is_another_request_and_none_is_as_before() {
        let before = prepared("");
        assert_eq!(before.0.outputs[0].type_and_options(), "database");
        assert!(!before.record().unwrap().json.contains("options"));
        let with = |service: &str| prepared(&format!(r#""options": {{"service": "{service}"}},"#));
        let again: Plan = serde_json::from_str(&with("a").record().unwrap().json).unwrap();
        assert_eq!(again.fingerprint(), with("a").0.fingerprint());
        assert_ne!(with("a").0.fingerprint(), with("b").0.fingerprint());
        assert_ne!(with("a").0.fingerprint(), before.0.fingerprint());
    }
}
