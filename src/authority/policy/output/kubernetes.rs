//! The output `kubernetes`: a certificate whose common name is a user and whose
//! organizations are its groups, as kube-apiserver reads them.

use super::{Halves, OutputKind, database};
use crate::authority::policy::field::{self, Field, Wildcard, list, plain};
use crate::authority::policy::grant::TlsGrant;
use crate::authority::policy::merge::Merged;
use crate::authority::policy::role::Role;
use crate::denial::Denial;
use crate::join::rules::glob;
use crate::wire::is_name;

/// The type.
pub(super) static KIND: OutputKind = OutputKind {
    name: "kubernetes",
    summary: "kubectl and other clients of a Kubernetes API server",
    ssh: false,
    tls: true,
    options: &["cluster", "user"],
    needs: &["cluster"],
    recorded: &["cluster"],
    fields: &[&USERS, &GROUPS],
    grant,
};

/// What fits a common name and an organization (RFC 5280, `ub-common-name`).
const MAX_NAME: usize = 64;
/// The most groups in one certificate, which every connection carries.
const MAX_GROUPS: usize = 64;

pub(super) static USERS: Field = Field {
    key: "kubernetes_users",
    noun: "Kubernetes user",
    shape: user_shape,
    hint: "letters, digits, `.`, `_`, `-`, `:`, `@` and `/`, at most 64; not `bot:…` or `app:…`; \
           `system:…` only where the role says so itself",
    wildcard: Wildcard::Never,
    covers: glob,
    same_as: Some(&database::USERS),
    hollow: |_| false,
    superusers: &[],
    literal_only: Some(SYSTEM),
    entries: list,
};

static GROUPS: Field = Field {
    key: "kubernetes_groups",
    noun: "Kubernetes group",
    shape: group_shape,
    hint: "letters, digits, `.`, `_`, `-`, `:`, `@` and `/`, at most 64; \
           `system:…` only where the role says so itself",
    same_as: None,
    // The one that no rule of RBAC binds, and kubeadm's for `cluster-admin`.
    superusers: &["system:masters", "kubeadm:cluster-admins"],
    ..USERS
};

/// Kubernetes' own users and groups, `system:masters` the first of them.
const SYSTEM: &str = "system:";

fn group_shape(text: &str) -> bool {
    plain(text, "._-:@/", MAX_NAME)
}

/// Never the common name of another kind of output.
fn user_shape(text: &str) -> bool {
    group_shape(text) && !text.starts_with("bot:") && !text.starts_with("app:")
}

fn grant(merged: &mut Merged<'_, '_>) -> Result<Halves, Denial> {
    if !merged.option("cluster").is_some_and(is_name) {
        return Err(
            merged.invalid("`cluster` is lower-case letters, digits, `_`, `.` and `-`, at most 64 of them")
        );
    }
    merged.leave_out_pinned();
    let user = merged.named(&USERS, "user")?;
    let common_name = merged.choose(&USERS, "user", user, &merged.roles.clone())?;
    // A role's groups are for the users that it grants: two roles for two
    // kinds of work do not add up to one user who may do both.
    let givers = merged.givers(&USERS, &common_name);
    let organizations = field::names(merged.bot, &givers, &GROUPS);
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
    for role in merged.roles.iter().filter(|role| role.names.allow_any(&GROUPS)) {
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
