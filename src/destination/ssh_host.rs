//! The output `ssh-host`: a host certificate in the files that `sshd` wants.

use zeroize::Zeroizing;

use super::{File, Keys, Material, Opt, OutputType, Texts, Used, line};
use crate::error::{Error, Result};

/// An `sshd`'s host certificate.
#[derive(Debug)]
pub struct SshHost;

const PUBLIC_KEY: &str = "public-key";

impl OutputType for SshHost {
    fn name(&self) -> &'static str {
        "ssh-host"
    }

    fn summary(&self) -> &'static str {
        "a host certificate for an sshd, and the CA of the users that it lets in"
    }

    fn keys(&self) -> Keys {
        Keys { ssh: false, tls: false, host: true }
    }

    fn options(&self) -> &'static [Opt] {
        &[
            Opt { name: "principals", needed: true, used: Used::There },
            Opt { name: PUBLIC_KEY, needed: false, used: Used::File },
        ]
    }

    fn check(&self, _options: &Texts, files: &Texts) -> Result<(), String> {
        match files.get(PUBLIC_KEY) {
            // The text is not repeated: it may be the private key.
            Some(text)
                if text.trim().contains('\n') || ssh_key::PublicKey::from_openssh(text.trim()).is_err() =>
            {
                Err("`public-key` must name an OpenSSH public key, such as ssh_host_ed25519_key.pub"
                    .to_owned())
            }
            _ => Ok(()),
        }
    }

    fn given_key<'a>(&self, files: &'a Texts) -> Option<&'a str> {
        files.get(PUBLIC_KEY).map(|text| text.trim())
    }

    fn file_names(&self) -> &'static [&'static str] {
        &["ssh_host-cert.pub", "ssh_user_ca.pub", "ssh_host"]
    }

    fn files(&self, material: &Material<'_>) -> Result<Vec<File>> {
        let host = material.host.ok_or_else(|| Error::internal("a host output without a host key"))?;
        let mut files = vec![
            File::new("ssh_host-cert.pub", line(host.certificate)),
            File::new("ssh_user_ca.pub", material.trust.ssh_user_cas.iter().map(|ca| line(ca)).collect()),
        ];
        files.extend(host.private_key.map(|key| File::key("ssh_host", &Zeroizing::new(line(key)))));
        Ok(files)
    }
}
