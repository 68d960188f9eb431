//! Leaf clusters as `--config` knows them: what it says of one counts in place of what the authority says.

use crate::destination::hosts;
use crate::error::{Error, Result};
use crate::net::{authority_origin, ca_pins};
use crate::once::settings::output::is_cluster;
use crate::text::shown;
use crate::wire::LeafAnswer;

/// What is known of a leaf cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PinnedLeaf {
    pub name: String,
    /// Its `public_url`.
    pub url: String,
    /// The pins of its TLS CAs; none for the system's trust store.
    pub ca_pin: Option<String>,
    pub hosts: Vec<String>,
}

impl PinnedLeaf {
    /// As the authority says.
    pub(crate) fn of_answer(answer: &LeafAnswer) -> Self {
        let LeafAnswer { name, url, ca_pin, hosts, .. } = answer;
        Self { name: name.clone(), url: url.clone(), ca_pin: ca_pin.clone(), hosts: hosts.clone() }
    }

    /// Checks its form; the URL is in its one form then.
    ///
    /// # Errors
    /// In words, what is wrong.
    fn checked(mut self) -> Result<Self, String> {
        if !is_cluster(&self.name) {
            return Err("has a name that no cluster can have".to_owned());
        }
        self.url = authority_origin(&self.url)
            .map_err(|why| format!("has `url` {}, which is not an authority's: {why}", shown(&self.url)))?;
        if let Some(pin) = &self.ca_pin {
            ca_pins(pin).map_err(|why| format!("has a `ca_pin` that is none: {why}"))?;
        }
        hosts::check(&self.hosts)?;
        Ok(self)
    }
}

/// Checks them all: no two have a host, or a name, in common.
///
/// # Errors
/// In words, what is wrong.
pub(crate) fn checked(leaves: Vec<PinnedLeaf>) -> Result<Vec<PinnedLeaf>, String> {
    let mut all: Vec<PinnedLeaf> = Vec::new();
    for leaf in leaves {
        let name = shown(&leaf.name).to_string();
        let leaf = leaf.checked().map_err(|why| format!("leaf `{name}` {why}"))?;
        for other in &all {
            if other.name == leaf.name {
                return Err(format!("leaf `{name}` is there twice"));
            }
            if let Some(host) = hosts::shared(&other.hosts, &leaf.hosts) {
                return Err(format!("the leaves `{}` and `{name}` both have the host {host}", other.name));
            }
        }
        all.push(leaf);
    }
    Ok(all)
}

/// The same of `--config`.
///
/// # Errors
/// `Kind::Usage`.
pub(super) fn pinned(leaves: Vec<PinnedLeaf>) -> Result<Vec<PinnedLeaf>> {
    checked(leaves).map_err(|why| {
        Error::usage(why).context("--config").hint("each of `leaves` has the leaf's `name`, its `url`, and the `ca_pin` and `hosts` that the authority's policy has for it")
    })
}
