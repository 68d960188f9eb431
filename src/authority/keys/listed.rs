//! CAs as others name them: those that sign now, and those of lists.

use crate::authority::store::RevokedCertificate;

/// The numbers of the CAs that sign now: none of a kind that was never rotated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signing {
    /// Certificates of users.
    pub ssh_user: Option<i64>,
    /// Certificates of hosts.
    pub ssh_host: Option<i64>,
    /// X.509 certificates.
    pub tls: Option<i64>,
}

/// A CA, as lists of what is revoked have it.
#[derive(Clone, Debug)]
pub struct ListedCa {
    /// Of SSH the public key (RFC 4253, section 6.6), of TLS the SHA-256 of the SubjectPublicKeyInfo.
    pub key: Vec<u8>,
    /// Its number, as certificates name it.
    pub number: Option<i64>,
    /// Whether those that name none are its.
    pub is_first: bool,
    /// Whether its certificates are for hosts.
    pub is_host: bool,
    /// Whether it is revoked as a whole.
    pub is_revoked: bool,
    /// Whether it can sign a list, for those who trust it.
    pub has_list: bool,
}

impl ListedCa {
    /// Whether it signed that one, among `all` of its kind: a certificate by none of them is on the lists of each.
    pub(in crate::authority) fn signed(&self, revoked: &RevokedCertificate, all: &[Self]) -> bool {
        match revoked.ca {
            None => self.is_first,
            Some(_) if all.iter().any(|ca| ca.number == revoked.ca) => self.number == revoked.ca,
            Some(_) => true,
        }
    }
}
