//! From a [`Grant`] to certificates, in steps that cannot be skipped:
//! [`Grant`] → [`Prepared`] → [`Recorded`], which the store alone makes → [`ExchangeResponse`].

use std::collections::BTreeMap;

use ring::digest::{Context, SHA256};
use serde_json::json;

use super::keys::CaKeys;
use super::policy::Grant;
use super::store::record::{ExchangePlan, Recorded};
use super::store::{Earlier, NewCertificate, PlanRecord};
use crate::clock::rfc3339;
use crate::error::{Error, Result};
use crate::random;
use crate::text::json_text;
use crate::wire::{ExchangeResponse, JoinedInstance, OutputResponse};

pub mod leaf;
mod passport;
pub mod request;
pub mod ssh;
mod token;
pub mod x509;

use leaf::RequestContext;
use request::OutputKeys;

/// Certificates that may be signed once they are recorded. Whoever holds one
/// has a [`Grant`] behind it.
#[derive(Debug)]
pub struct Prepared(Plan);

#[derive(Debug)]
struct Plan {
    issuance_id: String,
    bot: String,
    token: String,
    outputs: Vec<PreparedOutput>,
    leaves: Vec<passport::PassportPlan>,
    /// The extensions of all X.509 certificates that say which run they are for.
    fulcio: Vec<(u64, String)>,
    warnings: Vec<String>,
}

#[derive(Debug)]
struct PreparedOutput {
    name: String,
    /// The output's type.
    kind: &'static str,
    /// What the record repeats of its options.
    options: BTreeMap<String, String>,
    roles: Vec<String>,
    ssh: Option<ssh::SshPlan>,
    tls: Option<x509::TlsPlan>,
    jwt: Option<token::TokenPlan>,
}

impl PreparedOutput {
    /// Its type with its options: another service is another request, or the
    /// record of the first would stand for both. Without options it reads as it
    /// did before they were recorded; no type has a space in its name.
    fn type_and_options(&self) -> String {
        let Self { kind, options, .. } = self;
        if options.is_empty() { (*kind).to_owned() } else { json_text(&json!([kind, options])) }
    }
}

impl Prepared {
    /// Turns what is granted into what will be signed.
    pub fn new(grant: Grant, keys: Vec<OutputKeys>, at: &RequestContext<'_>) -> Result<Self> {
        let mut outputs = Vec::with_capacity(keys.len());
        let mut warnings = grant.warnings.clone();
        let mut serials = random::serials()?;
        let mut serial =
            || serials.next().ok_or_else(|| Error::internal("more certificates than an exchange has"));
        for (granted, keys) in grant.outputs.iter().zip(keys) {
            let until = at.now + i64::try_from(granted.ttl).unwrap_or(0);
            let until = grant.until.map_or(until, |end| until.min(end));
            let tls_until = until.min(at.tls_ca.until);
            if granted.tls.is_some() && tls_until < until && warnings.len() == grant.warnings.len() {
                let end = rfc3339(tls_until);
                warnings
                    .push(format!("the authority's TLS CA ends at {end}, and X.509 certificates with it"));
            }
            let ssh = granted.ssh.as_ref().zip(keys.ssh);
            let (tls, jwt) = match &granted.jwt {
                Some(jwt) => (None, Some(jwt).zip(keys.tls)),
                None => (granted.tls.as_ref().zip(keys.tls), None),
            };
            outputs.push(PreparedOutput {
                name: granted.name.clone(),
                kind: granted.kind,
                options: granted.options.clone(),
                roles: granted.roles.clone(),
                ssh: ssh
                    .map(|(ssh, key)| {
                        serial().map(|serial| ssh::SshPlan::new(serial, ssh, key, &grant, at, until))
                    })
                    .transpose()?,
                tls: tls
                    .map(|(tls, spki)| {
                        serial().map(|serial| x509::TlsPlan::new(serial, tls, spki, &grant, at, tls_until))
                    })
                    .transpose()?,
                jwt: jwt
                    .map(|(jwt, spki)| {
                        let said = (jwt.audience.clone(), token::claims(&grant, &granted.roles, at));
                        serial().map(|serial| {
                            token::TokenPlan::new(serial, token::JWT, spki, said, (at.now, until))
                        })
                    })
                    .transpose()?,
            });
        }
        let passport = |leaf| Ok(passport::PassportPlan::new(serial()?, leaf, &grant, at));
        let leaves = grant.leaves.iter().map(passport).collect::<Result<_>>()?;
        Ok(Self(Plan {
            issuance_id: random::id("i")?,
            bot: grant.bot.clone(),
            token: grant.token.clone(),
            outputs,
            leaves,
            fulcio: at.provenance.fulcio.clone(),
            warnings,
        }))
    }

    /// How many certificates it has.
    pub fn count(&self) -> usize {
        self.ends().count()
    }

    /// Whether it has a proof for a leaf that no authority would read.
    pub fn is_too_long(&self) -> bool {
        self.0.leaves.iter().any(passport::PassportPlan::is_too_long)
    }

    /// When each of its certificates ends, and each proof for a leaf.
    pub fn ends(&self) -> impl Iterator<Item = i64> {
        self.output_ends().chain(self.0.leaves.iter().map(|leaf| leaf.token.until))
    }

    fn output_ends(&self) -> impl Iterator<Item = i64> {
        let of = |output: &PreparedOutput| {
            let (ssh, tls) =
                (output.ssh.as_ref().map(|ssh| ssh.until), output.tls.as_ref().map(|tls| tls.until));
            [ssh, tls, output.jwt.as_ref().map(|jwt| jwt.until)]
        };
        self.0.outputs.iter().flat_map(of).flatten()
    }

    /// Whether these keys can sign all of it, each certificate with the CA that its record names.
    pub fn is_signed_by(&self, keys: &CaKeys) -> bool {
        let of = |output: &PreparedOutput| {
            let ssh = output.ssh.as_ref().map(ssh::SshPlan::ca);
            let tls = output.tls.as_ref().map(x509::TlsPlan::ca);
            [ssh, tls, output.jwt.as_ref().map(token::TokenPlan::ca)]
        };
        let leaves = self.0.leaves.iter().map(|leaf| leaf.token.ca());
        let mut all = self.0.outputs.iter().flat_map(of).flatten().chain(leaves);
        all.all(|(kind, ca)| keys.signs_again(kind, ca))
    }

    /// When the first of its certificates ends; proofs for leaves are for once, and count where there is nothing else.
    fn expires(&self) -> i64 {
        self.output_ends().min().or_else(|| self.ends().min()).unwrap_or_default()
    }
}

impl ExchangePlan for Prepared {
    fn record(&self) -> PlanRecord {
        let former_fingerprint = self.0.former_fingerprint();
        PlanRecord {
            id: self.0.issuance_id.clone(),
            fingerprint: self.0.fingerprint(&former_fingerprint),
            former_fingerprint,
            certificates: self.0.certificates(),
        }
    }

    fn again(mut self, earlier: &Earlier) -> Option<Self> {
        let mut recorded = earlier.certificates.clone();
        // In their order, but in records of the fourth schema, where it is not that of the serials: there by their keys.
        let mut take = |new: NewCertificate| {
            let same =
                recorded.iter().position(|old| (old.kind, old.key_hash) == (new.kind, new.key_hash))?;
            Some(recorded.remove(same))
        };
        for output in &mut self.0.outputs {
            if let Some(ssh) = &mut output.ssh {
                let old = take(ssh.record())?;
                ssh.recorded(earlier.time, &old);
            }
            if let Some(tls) = &mut output.tls {
                let old = take(tls.record())?;
                tls.recorded(earlier.time, &old);
            }
            if let Some(jwt) = &mut output.jwt {
                let old = take(jwt.record())?;
                jwt.recorded(earlier.time, &old);
            }
        }
        for leaf in &mut self.0.leaves {
            let old = take(leaf.record())?;
            leaf.token.recorded(earlier.time, &old);
        }
        self.0.issuance_id.clone_from(&earlier.id);
        recorded.is_empty().then_some(self)
    }
}

impl Plan {
    /// Hash over everything that will be signed, but serials and times: a
    /// request with the same hash is the same request.
    fn fingerprint(&self, former: &[u8; 32]) -> [u8; 32] {
        let run_of = |output: &PreparedOutput| output.ssh.as_ref().map(|ssh| ssh.key_id.clone());
        let runs: Vec<_> = self.outputs.iter().map(run_of).collect();
        let mut hash = Context::new(&SHA256);
        hash.update(former);
        hash.update(json_text(&json!([runs, self.fulcio])).as_bytes());
        // Without any, it is what it was before there were leaves.
        for leaf in &self.leaves {
            hash.update(leaf.token.fingerprinted().as_bytes());
        }
        hash.finish().as_ref().try_into().unwrap_or_default()
    }

    /// Its part over who gets what for which keys, which was all of it in the fourth schema.
    fn former_fingerprint(&self) -> [u8; 32] {
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
            // The others' are what they were before there were tokens.
            if let Some(jwt) = &output.jwt {
                part(&jwt.fingerprinted());
            }
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
                output.jwt.as_ref().map(token::TokenPlan::record),
            ];
            all.extend(certificates.into_iter().flatten().map(|certificate| NewCertificate {
                output: output.name.clone(),
                output_type: Some(output.kind.to_owned()),
                options: output.options.clone(),
                ..certificate
            }));
        }
        all.extend(self.leaves.iter().map(passport::PassportPlan::record));
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
            let (ssh, tls, jwt) = (output.ssh.as_ref(), output.tls.as_ref(), output.jwt.as_ref());
            let serials =
                [ssh.map(|plan| plan.serial), tls.map(|plan| plan.serial), jwt.map(|plan| plan.serial)];
            let mut serials = serials.into_iter().flatten().map(|serial| serial.to_string());
            Ok(OutputResponse {
                name: output.name.clone(),
                ssh_certificate: ssh.map(|plan| plan.sign(&self, keys)).transpose()?,
                tls_certificate_chain: tls.map(|tls| tls.sign(&self, &plan.fulcio, keys)).transpose()?,
                jwt: jwt.map(|jwt| jwt.sign(&self, &plan.issuance_id, keys)).transpose()?,
                serial: serials.next().unwrap_or_default(),
                tls_serial: serials.next(),
                // Where there is no SSH, whoever the X.509 certificate is for, or the token.
                principals: match (ssh, tls, jwt) {
                    (Some(ssh), ..) => ssh.principals.clone(),
                    (None, Some(tls), _) => vec![tls.common_name.clone()],
                    (None, None, jwt) => jwt.map(|jwt| jwt.audience.clone()).into_iter().collect(),
                },
                roles: output.roles.clone(),
            })
        };
        let leaves = plan.leaves.iter().map(|leaf| leaf.sign(&self, &plan.issuance_id, keys));
        Ok(ExchangeResponse {
            issuance_id: plan.issuance_id.clone(),
            cluster: cluster.to_owned(),
            bot: plan.bot.clone(),
            expires_at: rfc3339(self.plan().expires()),
            outputs: plan.outputs.iter().map(output).collect::<Result<_>>()?,
            trust: keys.trust(),
            warnings: plan.warnings.clone(),
            revoked_hosts: None,
            leaves: leaves.collect::<Result<_>>()?,
            instance,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(options: &[(&str, &str)]) -> Prepared {
        let text = |text: &&str| (*text).to_owned();
        let output = PreparedOutput {
            name: "db".to_owned(),
            kind: "database",
            options: options.iter().map(|(name, value)| (text(name), text(value))).collect(),
            roles: vec!["orders".to_owned()],
            ssh: None,
            tls: None,
            jwt: None,
        };
        Prepared(Plan {
            issuance_id: "i-1".to_owned(),
            bot: "deployer".to_owned(),
            token: "ci".to_owned(),
            outputs: vec![output],
            leaves: Vec::new(),
            fulcio: Vec::new(),
            warnings: Vec::new(),
        })
    }

    #[test]
    fn another_option_is_another_request_and_none_is_as_before() {
        assert_eq!(prepared(&[]).0.outputs[0].type_and_options(), "database");
        let of = |options| prepared(options).record().fingerprint;
        assert_eq!(of(&[("service", "a")]), of(&[("service", "a")]));
        assert_ne!(of(&[("service", "a")]), of(&[("service", "b")]));
        assert_ne!(of(&[("service", "a")]), of(&[]));
    }

    #[test]
    fn another_run_is_another_request() {
        let mut other = prepared(&[]);
        other.0.fulcio.push((1, "x".to_owned()));
        let (one, other) = (prepared(&[]).record(), other.record());
        assert_eq!(one.former_fingerprint, other.former_fingerprint);
        assert_ne!(one.fingerprint, other.fingerprint);
    }
}
