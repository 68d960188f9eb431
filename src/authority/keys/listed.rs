//! CAs as others name them: those that sign now, and those of lists.

use super::family::Family;
use super::federation::{self, AHEAD};
use super::ssh::SshCa;
use super::{CaKeys, StatementKey};
use crate::authority::ca::CaKind;
use crate::authority::store::RevokedCertificate;
use crate::error::Result;
use crate::net::pin_of;

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

impl CaKeys {
    /// Names the first keys of their kinds for operators, sorted: as `ssh-keygen -l` does, and as `export tls-ca-pin`. Those stay
    /// what they are, whatever is rotated.
    pub fn names(&self) -> Result<Vec<String>> {
        self.ids(true)
    }

    /// Names the keys that sign now, in the same way.
    pub fn signers(&self) -> Result<Vec<String>> {
        self.ids(false)
    }

    fn ids(&self, of_first: bool) -> Result<Vec<String>> {
        let name = |kind: CaKind, id: String| format!("{} {id}", kind.name());
        let ssh = |all: &Family<SshCa>| all.one(of_first).map(SshCa::id);
        let host = ssh(&self.ssh_host).map(|id| name(CaKind::SshHost, id));
        let user = ssh(&self.ssh_user).map(|id| name(CaKind::SshUser, id));
        let one =
            |all: &Option<Family<StatementKey>>| all.as_ref().and_then(|all| all.one(of_first)).cloned();
        let statement = one(&self.statement).map(|key| name(CaKind::Statement, key.public));
        let thumbprint = |key: &StatementKey| federation::named(key).map(|(id, _)| id);
        let federation = one(&self.federation).as_ref().map(thumbprint).transpose()?;
        let federation = federation.map(|id| name(CaKind::Federation, id));
        // Authorities of a store publish the same set.
        let ahead = self.first_ahead().filter(|_| of_first).map(thumbprint).transpose()?;
        let ahead = ahead.map(|id| format!("{AHEAD} {id}"));
        let tls = self.tls.one(of_first).map(|ca| pin_of(&ca.certificate.der)).transpose()?;
        let tls = tls.map(|id| name(CaKind::Tls, id));
        Ok([federation, ahead, host, user, statement, tls].into_iter().flatten().collect())
    }
}
