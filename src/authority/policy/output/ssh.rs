//! The output `ssh`: logins alone.

use super::output_policy::{Certificates, OutputPolicy};
use crate::authority::policy::decide::merge::Merged;
use crate::denial::Denial;
use crate::output::SSH;

/// What its roles become.
pub(super) static POLICY: OutputPolicy =
    OutputPolicy { declaration: &SSH, recorded: &[], fields: &[], grant };

fn grant(merged: &mut Merged<'_, '_>) -> Result<Certificates, Denial> {
    match merged.ssh()? {
        Some(ssh) => Ok((Some(ssh), None)),
        None => Err(merged.no_login()),
    }
}
