//! The output `ssh`: logins alone.

use super::kind::{Certificates, OutputKind};
use crate::authority::policy::decide::merge::Merged;
use crate::denial::Denial;

/// The type.
pub(super) static KIND: OutputKind = OutputKind {
    name: "ssh",
    summary: "SSH alone",
    ssh: true,
    tls: false,
    options: &[],
    needs: &[],
    recorded: &[],
    fields: &[],
    grant,
};

fn grant(merged: &mut Merged<'_, '_>) -> Result<Certificates, Denial> {
    match merged.ssh()? {
        Some(ssh) => Ok((Some(ssh), None)),
        None => Err(merged.no_login()),
    }
}
