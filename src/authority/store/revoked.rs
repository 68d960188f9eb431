//! What is revoked, as lists are made of it.

use super::CertificateKind;

/// A revoked certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevokedCertificate {
    /// Its serial.
    pub serial: u64,
    /// SSH or TLS.
    pub kind: CertificateKind,
    /// Whether it is a host's: of SSH, the host CA's.
    pub is_host: bool,
    /// When it was revoked.
    pub revoked: i64,
    /// When it ends.
    pub expires: i64,
}

/// How much was revoked by some moment: what [`Store::revoked_since`] was asked for then is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevokedUpto {
    /// When the store was put back last.
    pub(super) restored: Option<i64>,
    /// The highest number of a revocation.
    pub(super) revocations: i64,
}

/// What [`Store::revoked_since`] finds.
#[derive(Clone, Debug)]
pub struct RevokedSince {
    /// The certificates, in no order.
    pub certificates: Vec<RevokedCertificate>,
    /// How far that goes.
    pub upto: RevokedUpto,
    /// Whether it is all of them.
    pub is_all: bool,
}
