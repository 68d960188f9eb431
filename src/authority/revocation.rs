//! The lists of what was revoked, as servers read them: OpenSSH's key
//! revocation list (`PROTOCOL.krl` of OpenSSH) for `RevokedKeys`, and the
//! X.509 list (RFC 5280, section 5) for TLS servers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevokedCertParams, SerialNumber};
use time::OffsetDateTime;
use tokio::sync::Mutex;

use super::keys::CaKeys;
use super::store::{CertificateKind, RevocationList, RevokedCertificate, Store};
use crate::error::Result;
use crate::krl;

/// The last second that X.509 can say, 9999-12-31T23:59:59Z (RFC 5280, section 4.1.2.5).
const LAST_SECOND: i64 = 253_402_300_799;
/// How long a list serves before the store is asked again; a revocation here ends it at once.
const LIST_AGE: Duration = Duration::from_secs(5);
/// How long a TLS list says that it is good for, in seconds.
const CRL_VALID: i64 = 24 * 3600;

/// The SSH certificates of the list as a KRL of the moment `now`, in seconds
/// since 1970. Revoked for each of the CAs: which of them signed is not
/// recorded, and no serial is used twice.
pub fn ssh_krl(ca_blobs: &[Vec<u8>], list: &RevocationList, now: i64) -> Vec<u8> {
    let serials = of_kind(list, CertificateKind::Ssh).map(|revoked| revoked.serial).collect();
    krl::write(list.number, u64::try_from(now).unwrap_or(0), ca_blobs, serials)
}

/// The X.509 certificates of the list as a CRL, which their CA is to sign, of
/// the moment `now` and good for `valid_for` seconds.
pub fn tls_crl(list: &RevocationList, now: i64, valid_for: i64) -> CertificateRevocationListParams {
    let revoked_certs = of_kind(list, CertificateKind::Tls)
        .map(|revoked| RevokedCertParams {
            serial_number: SerialNumber::from(revoked.serial),
            revocation_time: x509_time(revoked.revoked),
            // RFC 5280 wants no reason rather than "unspecified".
            reason_code: None,
            invalidity_date: None,
        })
        .collect();
    CertificateRevocationListParams {
        this_update: x509_time(now),
        next_update: x509_time(now.saturating_add(valid_for)),
        crl_number: SerialNumber::from(list.number),
        issuing_distribution_point: None,
        revoked_certs,
        key_identifier_method: KeyIdMethod::Sha256,
    }
}

fn of_kind(list: &RevocationList, kind: CertificateKind) -> impl Iterator<Item = &RevokedCertificate> {
    list.certificates.iter().filter(move |revoked| revoked.kind == kind)
}

/// The time, or the nearest that X.509 has.
fn x509_time(unix: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(unix.clamp(0, LAST_SECOND)).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// Both lists as they are served.
#[derive(Debug)]
pub struct Lists {
    /// OpenSSH's key revocation list.
    pub krl: Vec<u8>,
    /// The X.509 revocation list in DER (RFC 5280, section 5).
    pub crl: Vec<u8>,
    since: Instant,
    revocations: u64,
}

/// Keeps the lists for a moment: anybody may ask for them.
#[derive(Debug, Default)]
pub struct ListCache(Mutex<Option<Arc<Lists>>>);

impl ListCache {
    /// The lists as of `now`.
    pub async fn lists(&self, store: &dyn Store, keys: &CaKeys, now: i64) -> Result<Arc<Lists>> {
        let mut cached = self.0.lock().await;
        // Taken first, so that lists read before a revocation are not kept after it.
        let (since, revocations) = (Instant::now(), store.revocations());
        let is_current =
            |built: &&Arc<Lists>| built.revocations == revocations && built.since.elapsed() < LIST_AGE;
        if let Some(built) = cached.as_ref().filter(is_current) {
            return Ok(Arc::clone(built));
        }
        let list = store.revoked(now).await?;
        let krl = ssh_krl(&keys.ssh_blobs()?, &list, now);
        let crl = keys.sign_crl(&tls_crl(&list, now, CRL_VALID))?;
        Ok(Arc::clone(cached.insert(Arc::new(Lists { krl, crl, since, revocations }))))
    }
}

#[cfg(test)]
mod tests;
