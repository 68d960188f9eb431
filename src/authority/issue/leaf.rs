//! What certificates and tokens have in common: for whom they are, and what is recorded of them.

use std::collections::BTreeMap;

use ring::digest::{SHA256, digest};
use serde_json::{Map, Value};

use crate::authority::keys::Signing;
use crate::authority::store::{CertificateKind, NewCertificate};
use crate::authority::validity::Validity;
use crate::join::verify::Provenance;

/// Who asks, and when.
#[derive(Debug)]
pub struct RequestContext<'a> {
    /// The cluster, for names in certificates.
    pub cluster: &'a str,
    /// The authority's own URL, for tokens.
    pub issuer: &'a str,
    /// How it proved who it is.
    pub join_method: &'a str,
    /// What its proof says, verified.
    pub claims: &'a Map<String, Value>,
    /// Which run it is for.
    pub provenance: &'a Provenance,
    /// The address that asks, for roles that pin it.
    pub peer: std::net::IpAddr,
    /// The time.
    pub now: i64,
    /// When the TLS CA is good: no X.509 certificate outlives it.
    pub tls_ca: Validity,
    /// Which CAs sign.
    pub signing: Signing,
}

/// One certificate for the store, of no output yet and in no group.
pub(super) fn record(
    serial: u64,
    kind: CertificateKind,
    principals: &[String],
    expires: i64,
    (key, ca): (&[u8], Option<i64>),
) -> NewCertificate {
    NewCertificate {
        serial,
        kind,
        output: String::new(),
        output_type: None,
        options: BTreeMap::new(),
        principals: principals.to_vec(),
        groups: Vec::new(),
        expires,
        is_host: false,
        ca,
        key_hash: digest(&SHA256, key).as_ref().try_into().unwrap_or_default(),
    }
}
