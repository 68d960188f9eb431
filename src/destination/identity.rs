//! The output `identity`: everything that SSH and mTLS clients want, and all of it in one file.

use zeroize::Zeroizing;

use super::material::{File, Material, line};
use super::output_files::OutputFiles;
use super::ssh::{known_hosts, ssh_files};
use crate::error::Result;
use crate::output::IDENTITY;

/// Its files.
pub(super) static FILES: OutputFiles = OutputFiles::new(
    &IDENTITY,
    &[
        "key",
        "key.pub",
        "key-cert.pub",
        "ssh_config",
        "known_hosts",
        "tls.key",
        "tls.crt",
        "ca.crt",
        "identity",
    ],
    files,
);

fn files(material: &Material<'_>) -> Result<Vec<File>> {
    // Roles without a login give no SSH certificate; the TLS half stands on its own.
    let mut files = if material.ssh.is_some() { ssh_files(material)? } else { Vec::new() };
    files.extend(material.tls_files()?);
    files.push(File::new("identity", bundle(material)));
    Ok(files)
}

/// The SSH key stands first, since `ssh -i` wants it there; OpenSSL skips what it does not know.
fn bundle(material: &Material<'_>) -> String {
    let mut parts = Vec::new();
    if let Some(ssh) = material.ssh {
        parts.extend(material.agent.is_none().then(|| Zeroizing::new(line(ssh.private_key))));
        parts.push(Zeroizing::new(line(ssh.certificate)));
    }
    if let Some(tls) = material.tls {
        parts.extend([Zeroizing::new(line(tls.private_key)), Zeroizing::new(line(tls.chain))]);
    }
    let mut all = String::with_capacity(64 * 1024);
    for part in parts {
        all.push_str(&part);
    }
    all.push_str(&known_hosts(material.trust));
    all.push_str(&material.server_cas());
    all
}
