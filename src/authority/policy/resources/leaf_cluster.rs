//! Leaf clusters: other authorities, at which this one vouches for its jobs.

use std::collections::BTreeSet;

use super::origin::Origin;
use crate::document::Place;

/// A leaf cluster.
#[derive(Debug)]
pub struct LeafCluster {
    /// The name of its cluster.
    pub name: String,
    /// Where it stands.
    pub origin: Origin,
    /// The leaf's `public_url`.
    pub url: String,
    /// The pins of its TLS CAs, with commas; none where the system's trust store is meant.
    pub ca_pin: Option<String>,
    /// The hosts that are the leaf's, each a [pattern](crate::principal::is_host_pattern).
    pub(crate) hosts: Vec<(String, Place)>,
    /// The roles that go there, by name.
    pub(crate) roles: BTreeSet<String>,
    /// Whether it has this authority's federation keys by hand, and hears of no other.
    pub is_static: bool,
}

impl LeafCluster {
    /// One that says nothing yet.
    pub(crate) fn new(name: String, origin: Origin) -> Self {
        Self {
            name,
            origin,
            url: String::new(),
            ca_pin: None,
            hosts: Vec::new(),
            roles: BTreeSet::new(),
            is_static: false,
        }
    }
}
