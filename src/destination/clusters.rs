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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cluster_has_its_keys_its_list_and_its_cas() {
        let trust = |ca: &str| TrustAnchors { ssh_host_cas: vec![ca.to_owned()], ..TrustAnchors::default() };
        let leaf = vec!["*.l.test".to_owned()];
        let (root, only, none) = (Hosts::AllBut(leaf.clone()), Hosts::Only(leaf), Hosts::Only(Vec::new()));
        let (root_trust, leaf_trust) = (trust("ssh-ed25519 ROOT"), trust("ssh-ed25519 LEAF"));
        let cluster = |folders: &[&str], hosts, trust, has_list| Cluster {
            folders: folders.iter().map(|folder| (*folder).to_owned()).collect(),
            hosts,
            trust,
            has_list,
        };
        let clusters = [
            cluster(&["/d/a", "/d/b"], &root, &root_trust, false),
            cluster(&["/d/l"], &only, &leaf_trust, true),
            cluster(&["/d/n"], &none, &leaf_trust, true),
        ];
        let texts = |agent| {
            let files = ssh_files("/d", &clusters, agent);
            files.iter().map(|file| String::from_utf8(file.content.to_vec()).unwrap()).collect::<Vec<_>>()
        };
        let [config, known]: [String; 2] = texts(None).try_into().unwrap();
        assert_eq!(
            config,
            "# Written by machine-id: ssh -F \"/d/ssh_config\" USER@HOST\n\
             Match host *,!*.l.test,!*.l.test.\n    IdentityFile \"/d/a/key\"\n    CertificateFile \"/d/a/key-cert.pub\"\n    \
             IdentityFile \"/d/b/key\"\n    CertificateFile \"/d/b/key-cert.pub\"\n\
             Match host *.l.test,*.l.test.\n    IdentityFile \"/d/l/key\"\n    CertificateFile \"/d/l/key-cert.pub\"\n    \
             RevokedHostKeys \"/d/l/revoked_hosts.krl\"\n\
             Match all\n    IdentityFile none\n    IdentitiesOnly yes\n    IdentityAgent none\n    \
             PreferredAuthentications publickey\n    UserKnownHostsFile \"/d/known_hosts\"\n    GlobalKnownHostsFile none\n    \
             StrictHostKeyChecking yes\n    UpdateHostKeys no\n"
        );
        let lines: Vec<&str> = known.lines().collect();
        assert!(
            lines[0].starts_with("@cert-authority *,!*.l.test,") && lines[0].ends_with(" ssh-ed25519 ROOT")
        );
        assert!(lines[1].starts_with("@cert-authority *.l.test,") && lines[1].ends_with(" ssh-ed25519 LEAF"));
        // No host is one's that has no names.
        assert_eq!(lines.len(), 2, "{known}");
        let with_agent = texts(Some("/d/agent.sock")).remove(0);
        assert!(
            with_agent.contains("    IdentityFile \"/d/l/key-cert.pub\"\n    RevokedHostKeys"),
            "{with_agent}"
        );
        assert!(with_agent.contains("IdentityAgent \"/d/agent.sock\"\n"));
    }
}
