//! A leaf cluster's `spec`, and that no two leaves have anything in common.

use std::collections::HashMap;

use super::bot::{RoleNames, role_names};
use crate::authority::policy::resources::LeafCluster;
use crate::document::{Mistake, Mistakes, Node, Place};
use crate::net::{authority_origin, read_pins};
use crate::principal::{is_host_pattern, wider_patterns};
use crate::text::shown_exactly;

/// Reads `spec`; what cannot be read is as if it were not there, and a mistake.
pub(super) fn read(leaf: &mut LeafCluster, roles: &mut RoleNames, spec: &Node) -> Result<(), Mistakes> {
    let mut spec = spec.mapping("the `spec` of `leaf_cluster`")?;
    leaf.url = spec.require("url", read_url).unwrap_or_default();
    leaf.ca_pin = spec.read("ca_pin", read_pins);
    for node in spec.require("hosts", Node::list).unwrap_or_default() {
        let Some(host) = spec.mistakes.keep(read_host(node)) else { continue };
        if leaf.hosts.iter().any(|(other, _)| *other == host) {
            spec.mistakes.add(Mistake::new(node.place, format!("the host `{host}` is listed twice")));
        } else {
            leaf.hosts.push((host, node.place));
        }
    }
    *roles = role_names(&mut spec);
    leaf.is_static = spec.read("static", Node::boolean).unwrap_or_default();
    spec.finish()
}

fn read_url(node: &Node, key: &str) -> Result<String, Mistake> {
    let wrong =
        |why| Mistake::new(node.place, format!("`{key}` must be https://HOST or https://HOST:PORT: {why}"));
    authority_origin(node.text(key)?)
        .map_err(|why| wrong(why).hint("it is the `public_url` of the leaf's authority.yaml"))
}

fn read_host(node: &Node) -> Result<String, Mistake> {
    let host = node.text("hosts")?;
    if is_host_pattern(host) {
        return Ok(host.to_owned());
    }
    let message = format!("`{}` cannot stand in `hosts` of a leaf cluster", shown_exactly(host));
    let hint = "a DNS name in lower case, or `*.DOMAIN` for all names below a domain of two labels or more";
    Err(Mistake::new(node.place, message).hint(hint))
}

/// Checks that each URL and each host is one leaf's, and gives each mistake with its leaf's place in the list: whose CA a job
/// believes for a name must not hang on anybody's order.
pub(super) fn check(leaves: &[&LeafCluster]) -> Vec<(usize, Mistake)> {
    let mut mistakes = Vec::new();
    let (mut urls, mut hosts) = (HashMap::new(), HashMap::<&str, (&LeafCluster, Place)>::new());
    // One that is defined twice, or could not be read, is a mistake already.
    let is_other = |leaf: &LeafCluster, other: &LeafCluster| other.name != leaf.name;
    for (index, leaf) in leaves.iter().enumerate() {
        let same = urls.insert(&leaf.url, leaf).filter(|other| is_other(leaf, other));
        if let Some(other) = same.filter(|_| !leaf.url.is_empty()) {
            let message = format!("leaf clusters `{}` and `{}` have the same `url`", other.name, leaf.name);
            let hint = format!("the other is at {}; an authority has one cluster", other.origin);
            mistakes.push((index, Mistake::new(leaf.origin.place, message).hint(hint)));
        }
        for (host, place) in &leaf.hosts {
            let same = hosts.insert(host, (leaf, *place));
            if let Some((other, there)) = same.filter(|(other, _)| is_other(leaf, other)) {
                mistakes.push((index, shared((leaf, host, *place), (other, host, there))));
            }
        }
    }
    for (index, leaf) in leaves.iter().enumerate() {
        for (host, place) in &leaf.hosts {
            for wider in wider_patterns(host) {
                let covering = hosts.get(&*wider).filter(|(other, _)| is_other(leaf, other));
                if let Some((other, there)) = covering {
                    mistakes.push((index, shared((leaf, host, *place), (other, &wider, *there))));
                }
            }
        }
    }
    mistakes
}

fn shared(one: (&LeafCluster, &str, Place), other: (&LeafCluster, &str, Place)) -> Mistake {
    let ((leaf, host, place), (other, pattern, there)) = (one, other);
    let message =
        format!("`{host}` of leaf cluster `{}` is a host of leaf cluster `{}` too", leaf.name, other.name);
    let hint = format!(
        "`{pattern}` at {} covers it; a host is one cluster's, so that one CA is believed for it",
        other.origin.at(there)
    );
    Mistake::new(place, message).hint(hint)
}
