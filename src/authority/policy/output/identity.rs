//! The output `identity`: SSH logins, and a certificate that says which bot it is.

use super::{Halves, OutputKind};
use crate::authority::policy::grant::TlsGrant;
use crate::authority::policy::merge::Merged;
use crate::denial::Denial;

/// The type.
pub(super) static KIND: OutputKind = OutputKind {
    name: "identity",
    summary: "SSH and mTLS: logins, Git over SSH, Ansible, any service that takes client certificates",
    ssh: true,
    tls: true,
    options: &[],
    needs: &[],
    fields: &[],
    grant,
};

fn grant(merged: &mut Merged<'_, '_>) -> Result<Halves, Denial> {
    let ssh = merged.ssh()?;
    if ssh.is_none() {
        // Its X.509 half stands on its own.
        let name = &merged.request.name;
        merged.warnings.add(|| format!("output `{name}` has no SSH certificate: its roles grant no login"));
    }
    // Databases take the common name for the user, Kubernetes the organizations
    // for groups. A bot may be called `postgres` or `admin`; with `bot:` in
    // front it is never a user of that name, and it is in no group.
    let common_name = format!("bot:{}", merged.bot.name);
    Ok((ssh, Some(TlsGrant { common_name, organizations: Vec::new() })))
}
