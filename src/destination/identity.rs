//! The output `identity`: everything that SSH and mTLS clients want, and all of it in one file.

use super::material::{File, Material, lines};
use super::output_files::OutputFiles;
use super::ssh::{REVOKED_HOSTS, known_hosts_of, ssh_files};
use crate::error::Result;
use crate::output::IDENTITY;

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
        REVOKED_HOSTS,
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
    let private = material.ssh.and_then(|ssh| ssh.private_key).filter(|_| material.agent.is_none());
    let certificate = material.ssh.map(|ssh| ssh.certificate);
    let tls = material.tls.map(|tls| [tls.private_key, tls.chain]);
    let trust = [known_hosts_of(material.trust, material.hosts), material.server_cas()];
    let parts = private.into_iter().chain(certificate).chain(tls.into_iter().flatten());
    lines(&parts.chain(trust.iter().map(String::as_str)).collect::<Vec<_>>())
}
