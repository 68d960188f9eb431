//! The output `ssh-host`: a host certificate in the files that `sshd` wants.

use super::material::{File, Material, OptionValues, lines};
use super::output_files::OutputFiles;
use crate::error::Result;
use crate::output::SSH_HOST;

/// The option whose file holds the public key that is certified in place of a new one, on one line.
pub(crate) const PUBLIC_KEY: &str = "public-key";

pub(super) static FILES: OutputFiles = OutputFiles {
    check,
    ..OutputFiles::new(&SSH_HOST, &["ssh_host-cert.pub", "ssh_user_ca.pub", "ssh_host"], files)
};

fn check(_options: &OptionValues, files: &OptionValues) -> Result<(), String> {
    match files.get(PUBLIC_KEY) {
        // The text is not repeated: it may be the private key.
        Some(text)
            if text.trim().contains('\n') || ssh_key::PublicKey::from_openssh(text.trim()).is_err() =>
        {
            Err("`public-key` must name an OpenSSH public key, such as ssh_host_ed25519_key.pub".to_owned())
        }
        _ => Ok(()),
    }
}

fn files(material: &Material<'_>) -> Result<Vec<File>> {
    let host = material.ssh()?;
    let mut files = vec![
        File::new("ssh_host-cert.pub", lines(&[host.certificate])),
        File::new("ssh_user_ca.pub", lines(&material.trust.ssh_user_cas)),
    ];
    files.extend(host.private_key.map(|key| File::key("ssh_host", lines(&[key]))));
    Ok(files)
}
