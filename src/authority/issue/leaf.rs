//! What SSH and X.509 certificates have in common: for whom they are, from
//! when on, and what is recorded of them.

use std::collections::BTreeMap;

use ring::digest::{SHA256, digest};
use time::OffsetDateTime;

use crate::authority::store::{CertificateKind, NewCertificate};
use crate::clock::LEEWAY;
use crate::error::{Context as _, Kind, Result};
use crate::join::verify::Provenance;

/// Who asks, and when.
#[derive(Debug)]
pub struct RequestContext<'a> {
    /// The cluster, for names in certificates.
    pub cluster: &'a str,
    /// Which run it is for.
    pub provenance: &'a Provenance,
    /// The address that asks, for roles that pin it.
    pub peer: std::net::IpAddr,
    /// The time.
    pub now: i64,
}

/// One certificate for the store, of no output yet and in no group.
pub(super) fn record(
    serial: u64,
    kind: CertificateKind,
    principals: &[String],
    expires: i64,
    key: &[u8],
) -> NewCertificate {
    let mut key_hash = [0; 32];
    key_hash.copy_from_slice(digest(&SHA256, key).as_ref());
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
pub(super) fn valid_from(now: i64) -> i64 {
    now.saturating_sub(LEEWAY)
}

/// Both ends of an X.509 validity that begins a minute before `now`.
pub(super) fn validity(now: i64, until: i64) -> Result<(OffsetDateTime, OffsetDateTime)> {
    let time = |unix| OffsetDateTime::from_unix_timestamp(unix).context(Kind::Internal, "validity");
    Ok((time(valid_from(now))?, time(until)?))
}
