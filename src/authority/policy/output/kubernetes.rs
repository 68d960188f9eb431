//! The output `kubernetes`: a certificate whose common name is a user and whose
//! organizations are its groups, as kube-apiserver reads them.

use super::output_policy::{Certificates, OutputPolicy};
use crate::authority::policy::decide::grant::TlsGrant;
use crate::authority::policy::decide::merge::Merged;
use crate::authority::policy::resources::{KUBERNETES_GROUPS, KUBERNETES_USERS, Role};
use crate::denial::Denial;
use crate::output::KUBERNETES;
use crate::wire::is_name;

/// What its roles become.
pub(super) static POLICY: OutputPolicy = OutputPolicy {
    declaration: &KUBERNETES,
    recorded: &["cluster"],
    fields: &[&KUBERNETES_USERS, &KUBERNETES_GROUPS],
    grant,
};

/// The most groups in one certificate, which every connection carries.
const MAX_GROUPS: usize = 64;

fn grant(merged: &mut Merged<'_, '_>) -> Result<Certificates, Denial> {
    if !merged.option("cluster").is_some_and(is_name) {
        return Err(
            merged.invalid("`cluster` is lower-case letters, digits, `_`, `.` and `-`, at most 64 of them")
        );
    }
    merged.leave_out_pinned();
    let user = merged.named(&KUBERNETES_USERS, "user")?;
    let common_name = merged.choose(&KUBERNETES_USERS, "user", user, &merged.roles.clone())?;
    // A role's groups are for the users that it grants: two roles for two
    // kinds of work do not add up to one user who may do both.
    let givers = merged.granting(&KUBERNETES_USERS, &common_name);
    let organizations = merged.bot.names(&givers, &KUBERNETES_GROUPS);
    leave_out_groups(merged, &common_name, &givers);
    if organizations.len() > MAX_GROUPS {
        let count = organizations.len();
        let why = format!(
            "its roles give {count} groups and a certificate holds {MAX_GROUPS}; ask for fewer roles"
        );
        return Err(merged.invalid(&why));
    }
    Ok((None, Some(TlsGrant { common_name, organizations })))
}

/// Says which roles' groups are not in a certificate, since they do not grant its user.
fn leave_out_groups(merged: &mut Merged<'_, '_>, user: &str, givers: &[&Role]) {
    for role in merged.roles.iter().filter(|role| role.names.allow_any(&KUBERNETES_GROUPS)) {
        if !givers.iter().any(|giver| giver.name == role.name) {
            let name = &role.name;
            merged.warnings.add(|| {
                format!(
                    "the Kubernetes groups of role `{name}` are left out: it does not grant the user `{user}`"
                )
            });
        }
    }
}
