//! The output `ssh`: a key, its certificate, and what `ssh -F` needs.

use super::hosts::{EVERYWHERE, Hosts};
use super::material::{File, Material, lines};
use super::output_files::OutputFiles;
use crate::error::Result;
use crate::output::SSH;
use crate::wire::TrustAnchors;

/// Its files, which `identity` has as well.
pub(super) static FILES: OutputFiles = OutputFiles::new(
    &SSH,
    &["key", "key.pub", "key-cert.pub", SSH_CONFIG, KNOWN_HOSTS, REVOKED_HOSTS],
    ssh_files,
);

/// For `ssh -F`.
pub const SSH_CONFIG: &str = "ssh_config";

/// The host CAs.
pub const KNOWN_HOSTS: &str = "known_hosts";

/// The list of revoked host certificates, a KRL.
pub const REVOKED_HOSTS: &str = "revoked_hosts.krl";

/// The SSH files, in the order of their names.
pub(super) fn ssh_files(material: &Material<'_>) -> Result<Vec<File>> {
    let ssh = material.ssh()?;
    let private =
        ssh.private_key.filter(|_| material.agent.is_none()).map(|key| File::key("key", lines(&[key])));
    // What the agent has is the certificate; this is what `ssh -i` and `ssh-keygen -Y sign -f` look for there.
    let public = match material.agent {
        Some(_) => File::new("key.pub", lines(&[ssh.certificate])),
        None => File::key("key.pub", lines(&[ssh.public_key])),
    };
    let others = [
        public,
        File::new("key-cert.pub", lines(&[ssh.certificate])),
        File::new(SSH_CONFIG, ssh_config(material.folder, material.agent, material.revoked_hosts.is_some())),
        File::new(KNOWN_HOSTS, known_hosts_of(material.trust, material.hosts)),
    ];
    let revoked = material.revoked_hosts.map(|krl| File::of_bytes(REVOKED_HOSTS, krl));
    Ok(private.into_iter().chain(others).chain(revoked).collect())
}

/// Lines that trust the authority's host CAs for every host. `*` also matches
/// `[host]:2222`, the form that a port other than 22 gives a name.
pub fn known_hosts(trust: &TrustAnchors) -> String {
    known_hosts_of(trust, &EVERYWHERE)
}

/// The same for these hosts alone.
pub fn known_hosts_of(trust: &TrustAnchors, hosts: &Hosts) -> String {
    let hosts = hosts.known();
    let line = |ca: &String| format!("@cert-authority {hosts} {}\n", ca.trim());
    trust.ssh_host_cas.iter().filter(|_| !hosts.is_empty()).map(line).collect()
}

/// For `ssh -F`: with this key and this trust alone, whatever else this
/// machine has (an agent, other keys, other known hosts). With an agent of
/// ours, the certificate says which of those that it offers is meant. Where there is a list of revoked hosts, `ssh` believes
/// none that is on it, and none at all once it is gone.
pub fn ssh_config(folder: &str, agent: Option<&str>, revoked_hosts: bool) -> String {
    format!(
        "# Written by machine-id: ssh -F {here} USER@HOST\nHost *\n    {identity}\n{trust}{revoked}",
        here = quoted(&format!("{folder}/{SSH_CONFIG}")),
        identity = identity(folder, agent),
        trust = own_trust(folder, agent),
        revoked = self::revoked_hosts(folder, revoked_hosts),
    )
}

/// The key and the certificate in a folder.
pub(super) fn identity(folder: &str, agent: Option<&str>) -> String {
    let file = |name| quoted(&format!("{folder}/{name}"));
    let certificate = file("key-cert.pub");
    match agent {
        // With `CertificateFile`, ssh would want the key itself.
        Some(_) => format!("IdentityFile {certificate}"),
        None => format!("IdentityFile {}\n    CertificateFile {certificate}", file("key")),
    }
}

/// That nothing counts but what is named, and the host CAs in a folder.
pub(super) fn own_trust(folder: &str, agent: Option<&str>) -> String {
    format!(
        "    IdentitiesOnly yes\n    \
             IdentityAgent {agent}\n    \
             PreferredAuthentications publickey\n    \
             UserKnownHostsFile {known_hosts}\n    \
             GlobalKnownHostsFile none\n    \
             StrictHostKeyChecking yes\n    \
             UpdateHostKeys no\n",
        agent = agent.map_or_else(|| "none".to_owned(), quoted),
        known_hosts = quoted(&format!("{folder}/{KNOWN_HOSTS}")),
    )
}

/// The list of revoked hosts in a folder, where there is one.
pub(super) fn revoked_hosts(folder: &str, is_there: bool) -> String {
    match (is_there, folder.contains('%')) {
        (false, _) => String::new(),
        (true, false) => format!("    RevokedHostKeys {}\n", quoted(&format!("{folder}/{REVOKED_HOSTS}"))),
        // Some versions of OpenSSH read `%%` here as `%`, others as it stands.
        (true, true) => {
            "    # No RevokedHostKeys: no spelling of a folder with % in its path is read by every ssh.\n"
                .to_owned()
        }
    }
}

/// A path in double quotes, with `%` doubled, which `ssh_config(5)` would
/// expand; a path that cannot be quoted was refused (see [`is_quotable`]).
pub(super) fn quoted(path: &str) -> String {
    format!("\"{}\"", path.replace('%', "%%"))
}

/// Whether `ssh_config` can name this path: older versions of OpenSSH know no
/// escape for `"` and `\`, and none has one for `${`.
pub fn is_quotable(path: &str) -> bool {
    !path.contains(['"', '\\']) && !path.contains("${") && !path.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted() {
        let config = ssh_config("/tmp/a b/100%", None, true);
        assert!(config.contains("    IdentityFile \"/tmp/a b/100%%/key\"\n"), "{config}");
        assert!(config.contains("\nHost *\n    IdentityFile"), "{config}");
        assert!(config.contains("GlobalKnownHostsFile none\n"));
        assert!(config.ends_with(
            "    # No RevokedHostKeys: no spelling of a folder with % in its path is read by every ssh.\n"
        ));
        let config = ssh_config("/tmp/a b", None, true);
        assert!(config.ends_with("    RevokedHostKeys \"/tmp/a b/revoked_hosts.krl\"\n"), "{config}");
        assert!(!ssh_config("/tmp/a b", None, false).contains("Revoked"));
        for bad in ["/a\"b", "/a\\b", "/${HOME}", "/a\nb"] {
            assert!(!is_quotable(bad), "{bad}");
        }
        assert!(is_quotable("/tmp/$x/ü b%"));
    }

    #[test]
    fn every_host_ca_has_a_line() {
        let trust = TrustAnchors {
            ssh_host_cas: vec!["ssh-ed25519 A\n".into(), "ssh-ed25519 B".into()],
            ..TrustAnchors::default()
        };
        assert_eq!(known_hosts(&trust), "@cert-authority * ssh-ed25519 A\n@cert-authority * ssh-ed25519 B\n");
    }
}
