//! The output `ssh-host`: a host certificate for an `sshd`.

use super::output_policy::{Certificates, OutputPolicy};
use crate::authority::policy::decide::grant::SshGrant;
use crate::authority::policy::decide::role_set::{MAX_CERTIFICATE_PRINCIPALS, RoleSet};
use crate::authority::policy::resources::HOSTS;
use crate::denial::Denial;
use crate::output::SSH_HOST;
use crate::text::shown_exactly;

/// What its roles become.
pub(super) static POLICY: OutputPolicy =
    OutputPolicy { declaration: &SSH_HOST, recorded: &[], fields: &[&HOSTS], grant };

fn grant(set: &mut RoleSet<'_, '_>) -> Result<Certificates, Denial> {
    set.leave_out_pinned();
    let mut principals: Vec<String> =
        set.option("principals").unwrap_or_default().split('+').map(str::to_owned).collect();
    principals.sort_unstable();
    principals.dedup();
    if principals.len() > MAX_CERTIFICATE_PRINCIPALS {
        let most = MAX_CERTIFICATE_PRINCIPALS;
        return Err(set.invalid(&format!("a certificate holds at most {most} principals")));
    }
    if let Some(bad) = principals.iter().find(|name| !(HOSTS.shape)(name)) {
        return Err(set.invalid(&format!("`{}` cannot be a host name: {}", shown_exactly(bad), HOSTS.hint)));
    }
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
    Ok((Some(ssh), None))
}
