//! The output `ssh`: a key, its certificate, and what `ssh -F` needs.

use super::material::{File, Material, lines};
use super::output_files::OutputFiles;
use crate::error::Result;
use crate::output::SSH;
use crate::wire::TrustAnchors;

/// Its files, which `identity` has as well.
pub(super) static FILES: OutputFiles = OutputFiles::new(
    &SSH,
    &["key", "key.pub", "key-cert.pub", "ssh_config", "known_hosts", REVOKED_HOSTS],
    ssh_files,
);

/// The list of revoked host certificates, a KRL.
pub(super) const REVOKED_HOSTS: &str = "revoked_hosts.krl";

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
        File::new(
            "ssh_config",
            ssh_config(material.folder, material.agent, material.revoked_hosts.is_some()),
        ),
        File::new("known_hosts", known_hosts(material.trust)),
    ];
    let revoked = material.revoked_hosts.map(|krl| File::of_bytes(REVOKED_HOSTS, krl));
    Ok(private.into_iter().chain(others).chain(revoked).collect())
}

/// Lines that trust the authority's host CAs for every host. `*` also matches
/// `[host]:2222`, the form that a port other than 22 gives a name.
pub fn known_hosts(trust: &TrustAnchors) -> String {
    trust.ssh_host_cas.iter().map(|ca| format!("@cert-authority * {}\n", ca.trim())).collect()
}

/// For `ssh -F`: with this key and this trust alone, whatever else this
/// machine has (an agent, other keys, other known hosts). With an agent of
/// ours, the certificate says which of those that it offers is meant. Where there is a list of revoked hosts, `ssh` believes
/// none that is on it, and none at all once it is gone.
pub fn ssh_config(folder: &str, agent: Option<&str>, revoked_hosts: bool) -> String {
    let file = |name| quoted(&format!("{folder}/{name}"));
    let certificate = file("key-cert.pub");
    let identity = match agent {
        // With `CertificateFile`, ssh would want the key itself.
        Some(_) => format!("IdentityFile {certificate}"),
        None => format!("IdentityFile {}\n    CertificateFile {certificate}", file("key")),
    };
    let revoked = match (revoked_hosts, folder.contains('%')) {
        (false, _) => String::new(),
        (true, false) => format!("    RevokedHostKeys {}\n", file(REVOKED_HOSTS)),
        // Some versions of OpenSSH read `%%` here as `%`, others as it stands.
        (true, true) => {
            "    # No RevokedHostKeys: no spelling of a folder with % in its path is read by every ssh.\n"
                .to_owned()
        }
    };
    format!(
        "# Written by machine-id: ssh -F {here} USER@HOST\n\
         Host *\n    \
             {identity}\n    \
             IdentitiesOnly yes\n    \
             IdentityAgent {agent}\n    \
             PreferredAuthentications publickey\n    \
             UserKnownHostsFile {known_hosts}\n    \
             GlobalKnownHostsFile none\n    \
             StrictHostKeyChecking yes\n    \
             UpdateHostKeys no\n{revoked}",
        here = file("ssh_config"),
        agent = agent.map_or_else(|| "none".to_owned(), quoted),
        known_hosts = file("known_hosts"),
    )
}

/// A path in double quotes, with `%` doubled, which `ssh_config(5)` would
/// expand; a path that cannot be quoted was refused (see [`is_quotable`]).
fn quoted(path: &str) -> String {
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
