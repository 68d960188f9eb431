//! The lists of what was revoked, as servers read them: OpenSSH's key
//! revocation list (`PROTOCOL.krl` of OpenSSH) for `RevokedKeys`, and the
//! X.509 list (RFC 5280, section 5) for TLS servers.

use std::time::Duration;

use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevokedCertParams, SerialNumber, date_time_ymd};

use super::store::{CertificateKind, RevocationList, RevokedCertificate};
use crate::krl;

/// The last second that X.509 can say, 9999-12-31T23:59:59Z (RFC 5280, section 4.1.2.5).
const LAST_SECOND: i64 = 253_402_300_799;

/// The SSH certificates of the list as a KRL of the moment `now`, in seconds
/// since 1970. Revoked for each of the CAs: which of them signed is not
/// recorded, and no serial is used twice.
#[must_use]
pub fn ssh_krl(ca_blobs: &[Vec<u8>], list: &RevocationList, now: i64) -> Vec<u8> {
    let serials = of_kind(list, CertificateKind::Ssh).map(|revoked| revoked.serial).collect();
    krl::write(list.number, u64::try_from(now).unwrap_or(0), ca_blobs, serials)
}

/// The X.509 certificates of the list as a CRL, which their CA is to sign, of
/// the moment `now` and good for `valid_for` seconds.
#[must_use]
pub fn tls_crl(list: &RevocationList, now: i64, valid_for: i64) -> CertificateRevocationListParams {
    let revoked_certs = of_kind(list, CertificateKind::Tls)
        .map(|revoked| RevokedCertParams {
            serial_number: SerialNumber::from(revoked.serial),
            // `time`'s type, which only rcgen names here.
            revocation_time: date_time_ymd(1970, 1, 1) + since_1970(revoked.revoked),
            // RFC 5280 wants no reason rather than "unspecified".
            reason_code: None,
            invalidity_date: None,
        })
        .collect();
    CertificateRevocationListParams {
        this_update: date_time_ymd(1970, 1, 1) + since_1970(now),
        next_update: date_time_ymd(1970, 1, 1) + since_1970(now.saturating_add(valid_for)),
        crl_number: SerialNumber::from(list.number),
        issuing_distribution_point: None,
        revoked_certs,
        key_identifier_method: KeyIdMethod::Sha256,
    }
}

fn of_kind(list: &RevocationList, kind: CertificateKind) -> impl Iterator<Item = &RevokedCertificate> {
    list.certificates.iter().filter(move |revoked| revoked.kind == kind)
}

/// What to add to 1970 without leaving the years that X.509 has.
fn since_1970(unix: i64) -> Duration {
    Duration::from_secs(u64::try_from(unix.clamp(0, LAST_SECOND)).unwrap_or(0))
}

#[cfg(test)]
mod tests;
