//! The output `identity`: SSH logins, and a certificate that says which bot it is.

use super::output_policy::{Certificates, OutputPolicy};
use crate::authority::policy::decide::grant::TlsGrant;
use crate::authority::policy::decide::role_set::RoleSet;
use crate::authority::policy::resources::role_names;
use crate::denial::{Denial, Reason};
use crate::output::IDENTITY;

/// What its roles become.
pub(super) static POLICY: OutputPolicy =
    OutputPolicy { declaration: &IDENTITY, recorded: &[], fields: &[], grant };

fn grant(set: &mut RoleSet<'_, '_>) -> Result<Certificates, Denial> {
    // X.509 cannot say from where. The certificate names the bot, whichever of
    // its roles are in the output, so a role that is not pinned gives it; where
    // there is none, nobody does.
    let pinned = set.pinned();
    let output = &set.request.name;
    if pinned.len() == set.roles.len() {
        let roles = role_names(&pinned);
        let told = format!(
            "output `{output}`: its roles ({roles}) pin the source address, which its X.509 certificate \
             cannot; ask for the output `ssh` instead"
        );
        return Err(Denial::open(Reason::NothingGranted, told));
    }
    for role in pinned {
        let name = &role.name;
        set.warnings.add(format!(
            "role `{name}` pins the source address, which holds for the SSH certificate of output \
             `{output}` and not for its X.509 certificate"
        ));
    }
    let ssh = set.ssh()?;
    if ssh.is_none() {
        // Its X.509 half stands on its own.
        set.warnings.add(format!("output `{output}` has no SSH certificate: its roles grant no login"));
    }
    // Databases take the common name for the user, Kubernetes the organizations
    // for groups. A bot may be called `postgres` or `admin`; with `bot:` in
    // front it is never a user of that name, and it is in no group.
    let common_name = format!("bot:{}", set.bot.name);
    Ok((ssh, Some(TlsGrant { common_name, organizations: Vec::new() }), None))
}
