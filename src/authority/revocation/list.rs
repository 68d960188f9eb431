//! What is revoked at one moment, as OpenSSH and TLS servers read it.

use rcgen::{CertificateRevocationListParams, KeyIdMethod, SerialNumber};
use time::OffsetDateTime;

use crate::authority::keys::{CaKeys, ListedCa, valid_from};
use crate::authority::store::{CertificateKind, RevokedCertificate};
use crate::clock::LAST_SECOND;
use crate::error::{Error, Result};
use crate::krl;

/// What two lists of one moment say.
#[derive(Clone, Copy, Debug)]
pub(super) struct RevocationList<'c> {
    /// Theirs alone.
    pub(super) number: u64,
    /// Certificates by ascending serial.
    pub(super) certificates: &'c [RevokedCertificate],
    /// Those that end before are not on the lists.
    pub(super) from: i64,
}

impl<'c> RevocationList<'c> {
    pub(super) fn all(self) -> impl Iterator<Item = &'c RevokedCertificate> {
        self.certificates.iter().filter(move |revoked| revoked.expires >= self.from)
    }

    fn of_kind(self, kind: CertificateKind) -> impl Iterator<Item = &'c RevokedCertificate> {
        self.all().filter(move |revoked| revoked.kind == kind)
    }
}

/// The SSH certificates of the list as a KRL of the moment `now`, in seconds
/// since 1970: those of each CA, and the keys of CAs that are revoked as a whole.
pub(super) fn ssh_krl(cas: &[ListedCa], list: RevocationList<'_>, now: i64) -> Result<Vec<u8>> {
    let [users, hosts]: [Vec<ListedCa>; 2] =
        [false, true].map(|is_host| cas.iter().filter(|ca| ca.is_host == is_host).cloned().collect());
    let section = |ca: &ListedCa| {
        let all = if ca.is_host { &hosts } else { &users };
        let of_kind = list.of_kind(CertificateKind::Ssh).filter(|revoked| revoked.is_host == ca.is_host);
        let serials =
            of_kind.filter(|revoked| ca.signed(revoked, all)).map(|revoked| revoked.serial).collect();
        (ca.key.clone(), serials)
    };
    // Of one that is revoked as a whole, too: hosts that have seen a serial on a list take no list without it.
    let of_cas = cas.iter().map(section).collect();
    with_revoked(krl::write(list.number, krl_date(now), of_cas), cas)
}

/// The list, with the keys of CAs on it that are revoked as a whole.
pub(super) fn with_revoked(krl: Vec<u8>, cas: &[ListedCa]) -> Result<Vec<u8>> {
    let revoked: Vec<_> = cas.iter().filter(|ca| ca.is_revoked).map(|ca| &ca.key).collect();
    // A long list is not read for nothing.
    if revoked.is_empty() {
        return Ok(krl);
    }
    krl::revoking_keys(krl, revoked).map_err(Error::internal)
}

/// The time of a KRL.
pub(super) fn krl_date(now: i64) -> u64 {
    u64::try_from(valid_from(now)).unwrap_or(0)
}

/// The X.509 certificates of the list that one CA signed, as a CRL that it is to sign, of
/// the moment `now` and good for `valid_for` seconds. It is in force from as
/// long back as a certificate, since servers whose clocks are behind refuse everybody
/// over one that is not.
pub(super) fn tls_crl(
    ca: &ListedCa,
    all: &[ListedCa],
    list: RevocationList<'_>,
    (now, valid_for): (i64, i64),
) -> UnsignedCrl {
    let made = valid_from(now);
    let params = CertificateRevocationListParams {
        this_update: x509_time(made),
        next_update: x509_time(now.saturating_add(valid_for)),
        crl_number: SerialNumber::from(list.number),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    // RFC 5280 wants no reason rather than "unspecified".
    let revoked = |one: &RevokedCertificate| (one.serial, one.revoked.min(made).clamp(0, LAST_SECOND));
    let signed = list.of_kind(CertificateKind::Tls).filter(|revoked| ca.signed(revoked, all));
    UnsignedCrl { ca: ca.number, params, revoked: signed.map(revoked).collect() }
}

/// A CRL that is to be signed.
#[derive(Debug)]
pub(super) struct UnsignedCrl {
    ca: Option<i64>,
    params: CertificateRevocationListParams,
    revoked: Vec<(u64, i64)>,
}

impl UnsignedCrl {
    /// Signs it; in DER.
    pub(super) fn sign(self, keys: &CaKeys) -> Result<Vec<u8>> {
        keys.sign_crl(self.ca, &self.params, self.revoked.into_iter())
    }
}

/// The time, or the nearest that X.509 has.
pub(super) fn x509_time(unix: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(unix.clamp(0, LAST_SECOND)).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}
