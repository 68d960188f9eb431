//! `ssh_config` and `known_hosts` at the top of a destination that has outputs of several clusters: by the host's name,
//! `ssh` takes the right certificate and believes the right host CA.

use super::hosts::Hosts;
use super::material::File;
use super::ssh::{KNOWN_HOSTS, SSH_CONFIG, identity, known_hosts_of, own_trust, quoted, revoked_hosts};
use crate::wire::TrustAnchors;

/// A cluster, as `ssh` is to know it.
#[derive(Debug)]
pub(crate) struct Cluster<'a> {
    /// The folders with its keys and certificates, as absolute paths.
    pub(crate) folders: Vec<String>,
    /// Its hosts.
    pub(crate) hosts: &'a Hosts,
    /// Its CAs.
    pub(crate) trust: &'a TrustAnchors,
    /// Whether there is a list of its revoked hosts.
    pub(crate) has_list: bool,
}

/// The two files, in the destination of that absolute path.
pub(crate) fn ssh_files(destination: &str, clusters: &[Cluster<'_>], agent: Option<&str>) -> Vec<File> {
    let known = clusters.iter().map(|cluster| known_hosts_of(cluster.trust, cluster.hosts));
    vec![
        File::new(SSH_CONFIG, ssh_config(destination, clusters, agent)),
        File::new(KNOWN_HOSTS, known.collect()),
    ]
}

/// `Match host` rather than `Host`: it takes the name of a host as small letters, and the one that `-o HostName` gives
/// in place of what was typed. `IdentityFile none` keeps `ssh` from the user's own keys where no cluster's are meant.
fn ssh_config(destination: &str, clusters: &[Cluster<'_>], agent: Option<&str>) -> String {
    let mut text = format!(
        "# Written by machine-id: ssh -F {} USER@HOST\n",
        quoted(&format!("{destination}/{SSH_CONFIG}"))
    );
    for cluster in clusters {
        let hosts = cluster.hosts.matched();
        if hosts.is_empty() {
            continue;
        }
        text.push_str(&format!("Match host {hosts}\n"));
        for folder in &cluster.folders {
            text.push_str(&format!("    {}\n", identity(folder, agent)));
        }
        if let Some(folder) = cluster.folders.first() {
            text.push_str(&revoked_hosts(folder, cluster.has_list));
        }
    }
    text + "Match all\n    IdentityFile none\n" + &own_trust(destination, agent)
}
