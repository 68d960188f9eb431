//! The keys by their ids, for operators and for authorities that share a store.

use super::family::Family;
use super::federation::{self, AHEAD};
use super::ssh::SshCa;
use super::{CaKeys, StatementKey};
use crate::authority::ca::CaKind;
use crate::error::Result;
use crate::net::pin_of;

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
