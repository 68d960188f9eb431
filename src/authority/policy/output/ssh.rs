//! The output `ssh`: logins alone.

use super::output_policy::{Certificates, OutputPolicy};
use crate::authority::policy::decide::role_set::RoleSet;
use crate::authority::policy::resources::LOGINS;
use crate::denial::Denial;
use crate::output::SSH;

/// What its roles become.
pub(super) static POLICY: OutputPolicy =
    OutputPolicy { declaration: &SSH, recorded: &[], fields: &[], grant };

fn grant(set: &mut RoleSet<'_, '_>) -> Result<Certificates, Denial> {
    match set.ssh()? {
        Some(ssh) => Ok((Some(ssh), None, None)),
        None => Err(set.nothing_of(&LOGINS, "SSH login", &set.roles)),
    }
}
