//! What is revoked, as lists are made of it.

/// What kind of certificate a serial is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateKind {
    /// OpenSSH, of a user or a host.
    Ssh,
    /// X.509.
    Tls,
}

impl CertificateKind {
    /// As tables have it, and seals.
    pub(super) fn number(self) -> i64 {
        match self {
            Self::Ssh => 0,
            Self::Tls => 1,
        }
    }

    /// The kind of that number, which tables have no other of.
    pub(super) fn of_number(number: i64) -> Option<Self> {
        [Self::Ssh, Self::Tls].into_iter().find(|kind| kind.number() == number)
    }
}

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
    /// The number of the CA that signed it; none where that was the first of its kind, before a rotation.
    pub ca: Option<i64>,
}

/// How much was revoked by some moment: what [`Store::revoked_since`](super::Store::revoked_since) was asked for then is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevokedUpto {
    /// When the store was put back last.
    pub(super) restored: Option<i64>,
    /// The highest number of a revocation.
    pub(super) revocations: i64,
}

/// What [`Store::revoked_since`](super::Store::revoked_since) finds.
#[derive(Clone, Debug)]
pub struct RevokedSince {
    /// The certificates, in no order.
    pub certificates: Vec<RevokedCertificate>,
    /// How far that goes.
    pub upto: RevokedUpto,
    /// Whether it is all of them.
    pub is_all: bool,
}
