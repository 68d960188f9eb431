//! The lint over what a role map gives.

use std::collections::BTreeSet;

use super::findings::{Findings, named};
use crate::authority::policy::resources::Policy;

/// Mapped roles that need a trait: the jobs of other clusters have none.
pub(super) fn traits(policy: &Policy, findings: &mut Findings<'_>) {
    for cluster in policy.clusters() {
        for (name, place) in cluster.map.iter().flat_map(|map| &map.lines).flat_map(|line| &line.local) {
            let Some(role) = policy.roles.get(name).filter(|role| !policy.needs_mfa(role)) else { continue };
            let templates = role.allow.values().flatten();
            let lacking: BTreeSet<&str> = templates.filter_map(|template| template.trait_name()).collect();
            if !lacking.is_empty() {
                let lacking: Vec<&str> = lacking.into_iter().collect();
                let what = format!(
                    "gives the role `{name}`, which needs the trait {}: traits do not travel, and are empty there",
                    named(&lacking)
                );
                findings.cluster(cluster, *place, what, "map to a role that has the names themselves");
            }
        }
    }
}
