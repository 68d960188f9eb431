//! X.509 certificates (RFC 5280): of jobs, and of servers that an operator signs.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::string::Ia5String;
use rcgen::{
    CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType,
};
use serde_json::json;

use super::leaf::{RequestContext, record};
use crate::authority::ca::CaKind;
use crate::authority::keys::{self, CaKeys};
use crate::authority::policy::{Grant, TlsGrant};
use crate::authority::store::record::{CommandPlan, Recorded};
use crate::authority::store::{CertificateKind, EarlierCertificate, NewCertificate};
use crate::authority::validity::Validity;
use crate::clock::rfc3339;
use crate::error::{Context as _, Error, Kind, Result};
use crate::principal::{is_host, no_host};
use crate::random::serial;
use crate::text::json_text;

/// Sigstore's arc for CI claims: <https://github.com/sigstore/fulcio/blob/main/docs/oid-info.md>.
const FULCIO: [u64; 8] = [1, 3, 6, 1, 4, 1, 57264, 1];

/// A job's certificate that is about to be signed.
#[derive(Debug)]
pub(super) struct TlsPlan {
    pub(super) serial: u64,
    /// The SubjectPublicKeyInfo.
    key: Vec<u8>,
    pub(super) common_name: String,
    organizations: Vec<String>,
    uri: String,
    now: i64,
    pub(super) until: i64,
    /// The CA that signs it.
    ca: Option<i64>,
}

impl TlsPlan {
    pub(super) fn new(
        serial: u64,
        granted: &TlsGrant,
        spki: Vec<u8>,
        grant: &Grant,
        at: &RequestContext<'_>,
        until: i64,
    ) -> Self {
        Self {
            serial,
            key: spki,
            common_name: granted.common_name.clone(),
            organizations: granted.organizations.clone(),
            uri: format!("spiffe://{}/{}", at.cluster, grant.spiffe_path()),
            now: at.now,
            until,
            ca: at.signing.tls,
        }
    }

    /// As it was recorded at `time`.
    pub(super) fn recorded(&mut self, time: i64, earlier: &EarlierCertificate) {
        let EarlierCertificate { serial, expires, ca, .. } = *earlier;
        (self.serial, self.now, self.until, self.ca) = (serial, time, expires, ca);
    }

    /// The CA that signs it.
    pub(super) fn ca(&self) -> (CaKind, Option<i64>) {
        (CaKind::Tls, self.ca)
    }

    /// What makes two requests the same.
    pub(super) fn fingerprinted(&self) -> String {
        json_text(&json!([STANDARD.encode(&self.key), self.common_name, self.organizations, self.uri]))
    }

    /// For the store, but for the output that it is of.
    pub(super) fn record(&self) -> NewCertificate {
        let names = [self.common_name.clone()];
        NewCertificate {
            groups: self.organizations.clone(),
            ..record(self.serial, CertificateKind::Tls, &names, self.until, (&self.key, self.ca))
        }
    }

    /// Signs it, as a part of what is recorded, with the plan's Fulcio extensions.
    pub(super) fn sign<P>(
        &self,
        recorded: &Recorded<P>,
        extensions: &[(u64, String)],
        keys: &CaKeys,
    ) -> Result<String> {
        let mut params = leaf(self.serial, self.now, self.until, ExtendedKeyUsagePurpose::ClientAuth)?;
        params.distinguished_name.push(DnType::CommonName, self.common_name.clone());
        if let [organization] = self.organizations.as_slice() {
            params.distinguished_name.push(DnType::OrganizationName, organization.clone());
        }
        let uri = Ia5String::try_from(self.uri.clone()).context(Kind::Internal, "SPIFFE id")?;
        params.subject_alt_names.push(SanType::URI(uri));
        params.custom_extensions = extensions.iter().map(|(arc, text)| fulcio(*arc, text)).collect();
        let several = match self.organizations.as_slice() {
            [] | [_] => None,
            // rcgen would keep the last of them alone.
            organizations => Some(subject(&self.common_name, organizations)),
        };
        keys.sign_tls(recorded, self.ca, (&params, &self.key), several.as_deref())
    }
}

/// A `Name` (RFC 5280, section 4.1.2.4): one common name and any number of organizations.
fn subject(common_name: &str, organizations: &[String]) -> Vec<u8> {
    const COMMON_NAME: &[u64] = &[2, 5, 4, 3];
    const ORGANIZATION: &[u64] = &[2, 5, 4, 10];
    let organizations = organizations.iter().map(|name| (ORGANIZATION, name.as_str()));
    yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            for (oid, text) in [(COMMON_NAME, common_name)].into_iter().chain(organizations) {
                writer.next().write_set(|writer| {
                    writer.next().write_sequence(|writer| {
                        writer.next().write_oid(&yasna::models::ObjectIdentifier::from_slice(oid));
                        writer.next().write_utf8_string(text);
                    });
                });
            }
        });
    })
}

fn fulcio(arc: u64, text: &str) -> CustomExtension {
    let oid: Vec<u64> = FULCIO.into_iter().chain([arc]).collect();
    let der = yasna::construct_der(|writer| writer.write_utf8_string(text));
    CustomExtension::from_oid_content(&oid, der)
}

/// A server certificate that a command asked for, about to be recorded and signed.
#[derive(Debug)]
pub struct ServerPlan {
    serial: u64,
    spki: Vec<u8>,
    names: Vec<String>,
    now: i64,
    until: i64,
    is_cut: bool,
    ca: Option<i64>,
}

impl ServerPlan {
    /// For the key, valid for `ttl` seconds, but no longer than the CA that signs now; names are DNS names or IP addresses.
    ///
    /// # Errors
    /// `Kind::Usage` for a name that is neither, and where the CA is not good at `now`.
    pub fn new(
        spki: Vec<u8>,
        names: Vec<String>,
        (now, ttl): (i64, i64),
        (ca, number): (Validity, Option<i64>),
    ) -> Result<Self> {
        // Capitals mean nothing in the names of TLS servers, and an address is recorded in its usual spelling.
        let usual = |name: &String| match name.parse::<IpAddr>() {
            Ok(address) => address.to_string(),
            Err(_) => name.to_ascii_lowercase(),
        };
        let names: Vec<_> = names.iter().map(usual).collect();
        names.iter().try_for_each(|name| server_name(name).map(drop))?;
        if let Some(why) = ca.fault(now) {
            return Err(Error::usage(format!("the TLS CA {why}, and signs nothing now"))
                .hint(format!("this machine's clock says {}", rfc3339(now)))
                .hint("where it is a cross-certificate: `machine-id authority import` takes the next one; without the file tls_ca_cross.crt there is none")
                .hint(
                    "where that is right: `machine-id authority rotate --ca tls --phase start` makes another",
                ));
        }
        let wanted = now.saturating_add(ttl);
        let until = wanted.min(ca.until);
        Ok(Self { serial: serial()?, spki, names, now, until, is_cut: until < wanted, ca: number })
    }

    /// Whether the CA ends before the `ttl` does.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }
}

impl CommandPlan for ServerPlan {
    fn record(&self) -> NewCertificate {
        let key = (self.spki.as_slice(), self.ca);
        let certificate = record(self.serial, CertificateKind::Tls, &self.names, self.until, key);
        NewCertificate { output: "server".to_owned(), is_host: true, ..certificate }
    }
}

impl Recorded<ServerPlan> {
    /// Signs. PEM, with [`CaKeys::tls_chain`] behind it: clients that know the CA by its pin alone find its key there.
    pub fn sign(&self, keys: &CaKeys) -> Result<String> {
        let plan = self.plan();
        let mut params = leaf(plan.serial, plan.now, plan.until, ExtendedKeyUsagePurpose::ServerAuth)?;
        for name in &plan.names {
            params.subject_alt_names.push(server_name(name)?);
        }
        if let Some(first) = plan.names.first().filter(|name| name.len() <= 64) {
            params.distinguished_name.push(DnType::CommonName, first.clone());
        }
        Ok(keys.sign_tls(self, plan.ca, (&params, &plan.spki), None)? + &keys.tls_chain())
    }
}

/// A name of a TLS server: a host's, or with `*.` in front. Addresses are compared as numbers, so that of these any
/// spelling will do.
fn server_name(name: &str) -> Result<SanType> {
    let address = |text: &str| text.parse::<IpAddr>().ok();
    match (address(name), name.strip_prefix("*.").filter(|host| address(host).is_none())) {
        (Some(address), _) => Ok(SanType::IpAddress(address)),
        (None, host) if name.len() <= 253 && is_host(host.unwrap_or(name)) => {
            Ok(SanType::DnsName(Ia5String::try_from(name).context(Kind::Usage, "DNS name")?))
        }
        _ => Err(Error::usage(no_host(name))),
    }
}

/// What every end-entity certificate of ours has.
fn leaf(serial: u64, now: i64, until: i64, usage: ExtendedKeyUsagePurpose) -> Result<CertificateParams> {
    let mut params = keys::params(serial, now, until)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_names_are_recorded_in_one_spelling() {
        let ca = Validity { from: 0, until: i64::MAX };
        let recorded = |name: &str| {
            let plan = ServerPlan::new(Vec::new(), vec![name.to_owned()], (1, 60), (ca, None));
            plan.map(|plan| plan.record().principals.concat()).ok()
        };
        for (name, usual) in [
            ("Web-1.example.com", Some("web-1.example.com")),
            ("*.Example.com", Some("*.example.com")),
            ("10.0.0.1", Some("10.0.0.1")),
            ("2001:DB8:0:0:0:0:0:2", Some("2001:db8::2")),
            // That one clients look for as it is.
            ("::FFFF:a00:1", Some("::ffff:10.0.0.1")),
            ("*.10.0.0.1", None),
            ("127.1", None),
        ] {
            assert_eq!(recorded(name).as_deref(), usual, "{name}");
        }
    }
}
