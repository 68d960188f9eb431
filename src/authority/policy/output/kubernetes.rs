//! The output `kubernetes`: a certificate whose common name is a user and whose
//! organizations are its groups, as kube-apiserver reads them.

use super::output_policy::{Certificates, OutputPolicy};
use crate::authority::policy::decide::grant::TlsGrant;
use crate::authority::policy::decide::role_set::RoleSet;
use crate::authority::policy::resources::{KUBERNETES_GROUPS, KUBERNETES_USERS, Role};
use crate::denial::Denial;
use crate::output::KUBERNETES;

/// What its roles become.
pub(super) static POLICY: OutputPolicy = OutputPolicy {
    declaration: &KUBERNETES,
    recorded: &["cluster"],
    fields: &[&KUBERNETES_USERS, &KUBERNETES_GROUPS],
    grant,
};

/// The most groups in one certificate, which every connection carries.
const MAX_GROUPS: usize = 64;

fn grant(set: &mut RoleSet<'_, '_>) -> Result<Certificates, Denial> {
    set.check_name("cluster")?;
    set.leave_out_pinned();
    let user = set.named(&KUBERNETES_USERS, "user")?;
    let common_name = set.choose(&KUBERNETES_USERS, "user", user, &set.roles)?;
    // A role's groups are for the users that it grants: two roles for two
    // kinds of work do not add up to one user who may do both.
    let (givers, others): (Vec<&Role>, Vec<&Role>) =
        set.roles.iter().partition(|role| set.bot.gets(role, &KUBERNETES_USERS, &common_name));
    for role in others.into_iter().filter(|role| role.issues(&KUBERNETES_GROUPS)) {
        let name = &role.name;
        set.warnings.add(format!(
            "the Kubernetes groups of role `{name}` are left out: it does not grant the user `{common_name}`"
        ));
    }
    let organizations = set.bot.names(&givers, &KUBERNETES_GROUPS);
    if organizations.len() > MAX_GROUPS {
        let count = organizations.len();
        let why = format!(
            "its roles give {count} groups and a certificate holds {MAX_GROUPS}; ask for fewer roles"
        );
        return Err(set.invalid(&why));
    }
    Ok((None, Some(TlsGrant { common_name, organizations }), None))
}
