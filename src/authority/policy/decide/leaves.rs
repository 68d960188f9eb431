//! Where else a job may go: the leaf clusters that it is vouched for at, and with which of its roles.

use super::asked;
use super::grant::LeafGrant;
use super::role_set::Warnings;
use crate::authority::policy::resources::{Bot, JoinToken, LeafCluster, Policy, Role};
use crate::denial::{Denial, Reason};
use crate::wire::{LeafRequest, TRUSTED_CLUSTER};

/// What a job takes to that leaf. One that there is none of and one that it may not go to read the same.
pub(super) fn grant(
    policy: &Policy,
    (token, bot): (&JoinToken, &Bot),
    request: &LeafRequest,
    ttl: u64,
    warnings: &mut Warnings,
) -> Result<LeafGrant, Denial> {
    let what = format!("leaf cluster `{}`", request.name);
    // Whoever vouches for this job has not said that it may go further.
    if token.method.name == TRUSTED_CLUSTER {
        let told = format!("{what}: a job that another cluster vouches for goes no further");
        return Err(Denial::open(Reason::LeafNotGranted, told));
    }
    // Before the leaf is looked for, so that no other refusal tells of it.
    let asked = asked::roles(policy, bot, (&what, &request.roles), warnings)?;
    let told = format!("{what}: none of this job's roles goes there");
    let refused = |why: String| Denial::new(Reason::LeafNotGranted, format!("{told}{why}")).tell(&told);
    let leaf = policy.leaves.get(&request.name);
    let leaf = leaf.ok_or_else(|| refused("; the policy has no leaf cluster of that name".to_owned()))?;
    let (roles, pinned): (Vec<&Role>, Vec<&Role>) =
        going(leaf, asked).partition(|role| !role.options.pin_source_ip);
    if roles.is_empty() {
        let pinned = if pinned.is_empty() { "" } else { " but such as pin the source address" };
        return Err(refused(format!("; its `roles` at {} name none of them{pinned}", leaf.origin)));
    }
    for Role { name, .. } in pinned {
        warnings.add(format!(
            "role `{name}` is left out: it pins the source address, which a proof for a leaf cluster cannot"
        ));
    }
    let limits = roles.iter().map(|role| role.options.max_ttl).chain([bot.max_ttl]);
    Ok(LeafGrant {
        name: leaf.name.clone(),
        binding: request.binding.clone(),
        url: leaf.url.clone(),
        ca_pin: leaf.ca_pin.clone(),
        hosts: leaf.hosts.iter().map(|(host, _)| host.clone()).collect(),
        roles: roles.iter().map(|role| role.name.clone()).collect(),
        ttl: limits.fold(ttl, u64::min),
    })
}

/// Those of the roles that go to a leaf.
fn going<'p>(leaf: &LeafCluster, roles: Vec<&'p Role>) -> impl Iterator<Item = &'p Role> {
    roles.into_iter().filter(|role| leaf.roles.contains(&role.name))
}

/// Whoever carries off a token that is not bound to keys shall not get into other clusters with it.
pub(super) fn check_binding(leaves: &[LeafGrant], is_bound: bool) -> Result<(), Denial> {
    let Some(leaf) = leaves.first().filter(|_| !is_bound) else { return Ok(()) };
    let told = format!("leaf cluster `{}`: the token's audience names no keys", leaf.name);
    Err(Denial::open(Reason::LeafNeedsBinding, told))
}

impl Policy {
    /// Each leaf cluster that jobs of that bot are vouched for at, with the roles that go there; by name.
    pub fn leaves_of(&self, bot: &str) -> Vec<(&LeafCluster, Vec<&str>)> {
        let Some(bot) = self.bots.get(bot) else { return Vec::new() };
        let usable: Vec<&Role> =
            bot.each_role().filter(|role| !self.needs_mfa(role) && !role.options.pin_source_ip).collect();
        let roles = |leaf| going(leaf, usable.clone()).map(|role| role.name.as_str()).collect::<Vec<_>>();
        let mut leaves: Vec<_> = self.leaves().map(|leaf| (leaf, roles(leaf))).collect();
        leaves.retain(|(_, roles)| !roles.is_empty());
        leaves.sort_unstable_by_key(|(leaf, _)| leaf.name.as_str());
        leaves
    }
}
