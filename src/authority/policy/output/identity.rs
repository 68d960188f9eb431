//! The output `identity`: SSH logins, and a certificate that says which bot it is.

use super::output_policy::{Certificates, OutputPolicy};
use crate::authority::policy::decide::grant::TlsGrant;
use crate::authority::policy::decide::merge::Merged;
use crate::denial::Denial;
use crate::output::IDENTITY;

/// What its roles become.
pub(super) static POLICY: OutputPolicy =
    OutputPolicy { declaration: &IDENTITY, recorded: &[], fields: &[], grant };

fn grant(merged: &mut Merged<'_, '_>) -> Result<Certificates, Denial> {
    // X.509 cannot say from where. The certificate names the bot, whichever of
    // its roles are in the output, so a role that is not pinned gives it; where
    // there is none, nobody does.
    let pinned = merged.pinned();
    if pinned.len() == merged.roles.len() {
        return Err(merged.unpinnable());
    }
    for role in pinned {
        let (name, output) = (&role.name, &merged.request.name);
        merged.warnings.add(|| {
            format!(
                "role `{name}` pins the source address, which holds for the SSH certificate of output \
                 `{output}` and not for its X.509 certificate"
            )
        });
    }
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
