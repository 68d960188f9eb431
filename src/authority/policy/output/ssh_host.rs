//! The output `ssh-host`: a host certificate for an `sshd`.

use super::output_policy::{Certificates, OutputPolicy};
use crate::authority::policy::decide::grant::SshGrant;
use crate::authority::policy::decide::merge::{MAX_CERTIFICATE_PRINCIPALS, Merged};
use crate::authority::policy::resources::HOSTS;
use crate::denial::Denial;
use crate::output::SSH_HOST;
use crate::text::shown;

/// What its roles become.
pub(super) static POLICY: OutputPolicy =
    OutputPolicy { declaration: &SSH_HOST, recorded: &[], fields: &[&HOSTS], grant };

fn grant(merged: &mut Merged<'_, '_>) -> Result<Certificates, Denial> {
    merged.leave_out_pinned();
    let mut principals: Vec<String> =
        merged.option("principals").unwrap_or_default().split('+').map(str::to_owned).collect();
    principals.sort_unstable();
    principals.dedup();
    if principals.len() > MAX_CERTIFICATE_PRINCIPALS {
        let most = MAX_CERTIFICATE_PRINCIPALS;
        return Err(merged.invalid(&format!("a certificate holds at most {most} principals")));
    }
    if let Some(bad) = principals.iter().find(|name| !(HOSTS.shape)(name)) {
        return Err(merged.invalid(&format!("`{}` cannot be a host name: {}", shown(bad), HOSTS.hint)));
    }
    if let Some(name) = principals.iter().find(|name| merged.granting(&HOSTS, name).is_empty()) {
        return Err(merged.refused(&HOSTS, name));
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
