//! The output `ssh-host`: a host certificate for an `sshd`.

use super::output_policy::{Certificates, OutputPolicy};
use crate::authority::policy::decide::grant::SshGrant;
use crate::authority::policy::decide::role_set::RoleSet;
use crate::authority::policy::resources::HOSTS;
use crate::denial::Denial;
use crate::output::SSH_HOST;
use crate::principal;

/// What its roles become.
pub(super) static POLICY: OutputPolicy =
    OutputPolicy { declaration: &SSH_HOST, recorded: &[], fields: &[&HOSTS], grant };

fn grant(set: &mut RoleSet<'_, '_>) -> Result<Certificates, Denial> {
    set.leave_out_pinned();
    let asked = set.option("principals").unwrap_or_default().split('+').map(str::to_owned).collect();
    let principals = principal::hosts(asked).map_err(|why| set.invalid(&why))?;
    if let Some(name) = principals.iter().find(|name| set.granting(&HOSTS, name).is_empty()) {
        return Err(set.refused(&HOSTS, name));
    }
    let ssh = SshGrant {
        host: true,
        principals,
        extensions: Vec::new(),
        force_command: None,
        pin_source_ip: false,
    };
    Ok((Some(ssh), None, None))
}
