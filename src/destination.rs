//! Destinations: private directories with the files of each output.
//!
//! An output type is one file here and one line in [`TYPES`]: which keys it
//! wants certified, which options it takes, and which files it becomes.
//! [`directory`] does the writing, [`wipe`] takes everything away again,
//! [`manifest`] says what is there.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::wire::Trust;

pub mod application;
pub mod database;
pub mod directory;
pub mod identity;
pub mod kubernetes;
pub mod manifest;
pub mod ssh;
pub mod ssh_host;
pub mod wipe;

/// Every output type. A new one is a file and a line here.
pub static TYPES: &[&dyn OutputType] = &[
    &identity::Identity,
    &ssh::Ssh,
    &application::Application,
    &database::Database,
    &kubernetes::Kubernetes,
    &ssh_host::SshHost,
];

/// The texts of options, or of the files that they name, by option.
pub type Texts = BTreeMap<String, String>;

/// What a job can ask for: certificates in the files that some client wants.
pub trait OutputType: Sync {
    /// Its name: `--output NAME`.
    fn name(&self) -> &'static str;

    /// What it is for, for help and the documentation.
    fn summary(&self) -> &'static str;

    /// Which keys are certified for it.
    fn keys(&self) -> Keys;

    /// The options it takes beside `name`, `roles` and `destination`.
    fn options(&self) -> &'static [Opt] {
        &[]
    }

    /// Checks the options' values, and the texts of the files that they name.
    ///
    /// # Errors
    /// What is wrong with them, for a person.
    fn check(&self, _options: &Texts, _files: &Texts) -> Result<(), String> {
        Ok(())
    }

    /// The public key on one line that is certified in place of a new one.
    fn given_key<'a>(&self, _files: &'a Texts) -> Option<&'a str> {
        None
    }

    /// The file names that it may ever write; nothing else is ever wiped.
    fn file_names(&self) -> &'static [&'static str];

    /// Whether it may ever write a file of that name.
    fn writes(&self, name: &str) -> bool {
        self.file_names().contains(&name)
    }

    /// Its files.
    ///
    /// # Errors
    /// Where the material lacks what the type needs.
    fn files(&self, material: &Material<'_>) -> Result<Vec<File>>;

    /// Variables for later steps beside those that every output has.
    fn variables(&self, _written: &Written<'_>) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// A TLS key and its chain in PEM, from the files of these names in a
    /// folder; for revoking what an earlier run wrote.
    fn tls_pem(
        &self,
        _names: &[String],
        read: &dyn Fn(&str) -> Option<Zeroizing<String>>,
    ) -> Option<Zeroizing<String>> {
        joined(read, &["tls.key", "tls.crt"])
    }
}

/// An option of an output type.
#[derive(Clone, Copy, Debug)]
pub struct Opt {
    /// Its name.
    pub name: &'static str,
    /// Whether the type cannot do without it.
    pub needed: bool,
    /// Who uses it.
    pub used: Used,
}

/// Who uses an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Used {
    /// The authority, which decides on it.
    There,
    /// This machine alone.
    Here,
    /// This machine alone: it names a file.
    File,
}

/// An output that has been written.
#[derive(Clone, Copy, Debug)]
pub struct Written<'a> {
    /// The absolute path of its folder.
    pub folder: &'a str,
    /// Its options.
    pub options: &'a Texts,
    /// Whom its certificate names first: a common name, where it is X.509.
    pub subject: Option<&'a str>,
}

/// Files of a folder as one text; none where one of them is missing.
#[must_use]
pub fn joined(read: &dyn Fn(&str) -> Option<Zeroizing<String>>, names: &[&str]) -> Option<Zeroizing<String>> {
    let parts: Vec<_> = names.iter().map(|name| read(name)).collect::<Option<_>>()?;
    // At once at its whole length, so that no copy is left behind by growing.
    let mut all = Zeroizing::new(String::with_capacity(parts.iter().map(|part| part.len() + 1).sum()));
    for part in parts {
        all.push_str(&part);
        all.push('\n');
    }
    Some(all)
}

/// Which keys an output has certified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    /// An SSH key.
    pub ssh: bool,
    /// A TLS key.
    pub tls: bool,
    /// An SSH host key.
    pub host: bool,
}

impl Keys {
    /// A TLS key alone.
    pub const TLS: Self = Self { ssh: false, tls: true, host: false };
}

/// The type of that name.
#[must_use]
pub fn output_type(name: &str) -> Option<&'static dyn OutputType> {
    TYPES.iter().copied().find(|kind| kind.name() == name)
}

/// Every type's name, in the order of the registry.
#[must_use]
pub fn type_names() -> Vec<&'static str> {
    TYPES.iter().map(|kind| kind.name()).collect()
}

/// A file of no output: what a wrapped run's shells read in place of the `$BASH_ENV` that there was.
pub const BASH_ENV: &str = "bash_env";

/// The agent's socket in a destination (`--agent`).
pub const AGENT_SOCKET: &str = "agent.sock";

/// Whether some output type writes a file of that name, or every destination may have it.
#[must_use]
pub fn is_file_of_ours(name: &str) -> bool {
    [BASH_ENV, AGENT_SOCKET].contains(&name) || TYPES.iter().any(|kind| kind.writes(name))
}

/// What the files of one output are made from.
#[derive(Clone, Copy)]
pub struct Material<'a> {
    /// The absolute path of the folder that they will stand in.
    pub folder: &'a str,
    /// The SSH key and its certificate.
    pub ssh: Option<SshMaterial<'a>>,
    /// The TLS key and its certificate.
    pub tls: Option<TlsMaterial<'a>>,
    /// The SSH host key and its certificate.
    pub host: Option<HostMaterial<'a>>,
    /// The output's options.
    pub options: &'a Texts,
    /// The texts of the files that its options name.
    pub files: &'a Texts,
    /// Whom its certificate names first: a common name, where it is X.509.
    pub subject: Option<&'a str>,
    /// Whom to trust.
    pub trust: &'a Trust,
    /// The socket of the agent that holds the SSH key, which is in no file then.
    pub agent: Option<&'a str>,
}

impl<'a> Material<'a> {
    /// The TLS half.
    ///
    /// # Errors
    /// `Kind::Internal` where there is none.
    pub fn tls(&self) -> Result<TlsMaterial<'a>> {
        self.tls.ok_or_else(|| Error::internal("an output without its TLS key"))
    }

    /// `tls.key`, `tls.crt` and `ca.crt`.
    ///
    /// # Errors
    /// `Kind::Internal` where there is no TLS key.
    pub fn tls_files(&self) -> Result<Vec<File>> {
        let tls = self.tls()?;
        Ok(vec![
            File::key("tls.key", &Zeroizing::new(line(tls.private_key))),
            File::new("tls.crt", line(tls.chain)),
            File::new("ca.crt", self.server_cas()),
        ])
    }

    /// The CAs that the server is verified with: those of `server-ca`, else the authority's.
    #[must_use]
    pub fn server_cas(&self) -> String {
        match self.files.get("server-ca") {
            Some(given) => line(given),
            None => self.trust.tls_cas.iter().map(|ca| line(ca)).collect(),
        }
    }
}

/// An SSH host key and its certificate, each as OpenSSH writes it.
#[derive(Clone, Copy)]
pub struct HostMaterial<'a> {
    /// The private key, where it was made here.
    pub private_key: Option<&'a str>,
    /// The certificate's line.
    pub certificate: &'a str,
}

/// An SSH key and its certificate, each as OpenSSH writes it.
#[derive(Clone, Copy)]
pub struct SshMaterial<'a> {
    /// The private key in OpenSSH's own format.
    pub private_key: &'a str,
    /// The public key's line.
    pub public_key: &'a str,
    /// The certificate's line.
    pub certificate: &'a str,
}

/// A TLS key and its certificate in PEM.
#[derive(Clone, Copy)]
pub struct TlsMaterial<'a> {
    /// The private key (PKCS#8).
    pub private_key: &'a str,
    /// The certificate, leaf first.
    pub chain: &'a str,
}

/// A file to be written.
pub struct File {
    /// Its name in the output's folder.
    pub name: Cow<'static, str>,
    /// What is in it; wiped from memory afterwards, since it may be a key.
    pub content: Zeroizing<Vec<u8>>,
    /// Whether it holds a key alone, so that a renewal leaves it as it is.
    pub is_key: bool,
}

impl File {
    /// A file that a renewal writes again.
    #[must_use]
    pub fn new(name: impl Into<Cow<'static, str>>, content: String) -> Self {
        Self { name: name.into(), content: Zeroizing::new(content.into_bytes()), is_key: false }
    }

    /// A file that stays as it is.
    #[must_use]
    pub fn key(name: impl Into<Cow<'static, str>>, content: &str) -> Self {
        Self { name: name.into(), content: Zeroizing::new(content.as_bytes().to_vec()), is_key: true }
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("name", &self.name).finish_non_exhaustive()
    }
}

/// `text` with exactly one line end behind it.
#[must_use]
pub fn line(text: &str) -> String {
    format!("{}\n", text.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_unique_and_their_names_fit_everywhere() {
        let mut names = type_names();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), TYPES.len());
        for kind in TYPES {
            assert!(crate::wire::is_name(kind.name()));
            assert!(!kind.summary().is_empty());
            for file in kind.file_names() {
                assert!(
                    !file.contains('/') && !file.starts_with('.') && *file != manifest::FILE_NAME,
                    "{file}"
                );
            }
        }
    }

    #[test]
    fn a_type_writes_only_the_files_that_it_names() {
        let trust = Trust {
            ssh_host_cas: vec!["ssh-ed25519 AAAA".into()],
            tls_cas: vec!["CA".into()],
            ..Trust::default()
        };
        let material = Material {
            folder: "/d",
            ssh: Some(SshMaterial { private_key: "PRIVATE", public_key: "PUB", certificate: "CERT" }),
            tls: Some(TlsMaterial { private_key: "TLSKEY", chain: "CHAIN" }),
            host: Some(HostMaterial { private_key: Some("PRIVATE"), certificate: "CERT" }),
            options: &Texts::from([("cluster".into(), "c".into())]),
            files: &Texts::new(),
            subject: Some("deploy"),
            trust: &trust,
            agent: None,
        };
        for kind in TYPES {
            let files = kind.files(&material).unwrap();
            for file in &files {
                assert!(kind.writes(&file.name) && is_file_of_ours(&file.name), "{}", file.name);
            }
            let names: Vec<&str> = files.iter().map(|file| file.name.as_ref()).collect();
            assert_eq!(names, &kind.file_names()[..names.len()], "{}", kind.name());
            assert!(!format!("{files:?}").contains("PRIVATE"));
        }
    }

    #[test]
    fn with_an_agent_no_file_holds_the_ssh_key() {
        let trust = Trust::default();
        let material = Material {
            folder: "/d",
            ssh: Some(SshMaterial { private_key: "PRIVATE", public_key: "PUB", certificate: "CERT" }),
            tls: Some(TlsMaterial { private_key: "TLSKEY", chain: "CHAIN" }),
            trust: &trust,
            host: None,
            options: &Texts::new(),
            files: &Texts::new(),
            subject: None,
            agent: Some("/d/agent.sock"),
        };
        for kind in TYPES.iter().filter(|kind| kind.file_names().contains(&"ssh_config")) {
            for file in kind.files(&material).unwrap() {
                let text = String::from_utf8(file.content.to_vec()).unwrap();
                assert!(!text.contains("PRIVATE") && file.name != "key", "{}: {text}", file.name);
                assert!(
                    file.name != "ssh_config" || text.contains("IdentityAgent \"/d/agent.sock\"\n"),
                    "{text}"
                );
            }
        }
    }
}
