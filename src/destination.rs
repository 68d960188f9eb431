//! Destinations: private directories with the files of each output.
//!
//! An output type is one file here and one line in [`TYPES`]: which keys it
//! wants certified, which options it takes, and which files it becomes.
//! [`directory`] does the writing, [`wipe`] takes everything away again,
//! [`manifest`] says what is there.

use std::collections::BTreeMap;
use std::fmt;

use zeroize::Zeroizing;

use crate::error::Result;
use crate::wire::Trust;

pub mod above;
pub mod directory;
pub mod identity;
pub mod manifest;
pub mod pem;
pub mod random;
pub mod ssh;
pub mod wipe;

/// Every output type. A new one is a file and a line here.
pub static TYPES: &[&dyn OutputType] = &[&identity::Identity, &ssh::Ssh];

/// What a job can ask for: certificates in the files that some client wants.
pub trait OutputType: Sync {
    /// Its name: `--output NAME`.
    fn name(&self) -> &'static str;

    /// What it is for, for help and the documentation.
    fn summary(&self) -> &'static str;

    /// Which keys are certified for it.
    fn keys(&self) -> Keys;

    /// The options it takes beside `name`, `roles` and `destination`.
    fn options(&self) -> &'static [&'static str];

    /// Checks the options' values.
    ///
    /// # Errors
    /// What is wrong with them, for a person.
    fn check(&self, options: &BTreeMap<String, String>) -> Result<(), String>;

    /// Every file name it may ever write; nothing else is ever wiped.
    fn file_names(&self) -> &'static [&'static str];

    /// Its files.
    ///
    /// # Errors
    /// Where the material lacks what the type needs.
    fn files(&self, material: &Material<'_>) -> Result<Vec<File>>;

    /// Variables for later steps beside those that every output has: name and file.
    fn variables(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }
}

/// Which keys an output has certified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    /// An SSH key.
    pub ssh: bool,
    /// A TLS key.
    pub tls: bool,
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

/// Whether some output type writes a file of that name, or every destination may have it.
#[must_use]
pub fn is_file_of_ours(name: &str) -> bool {
    name == BASH_ENV || TYPES.iter().any(|kind| kind.file_names().contains(&name))
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
    /// Whom to trust.
    pub trust: &'a Trust,
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
    pub name: &'static str,
    /// What is in it; wiped from memory afterwards, since it may be a key.
    pub content: Zeroizing<Vec<u8>>,
    /// Whether it holds a key alone, so that a renewal leaves it as it is.
    pub is_key: bool,
}

impl File {
    /// A file that a renewal writes again.
    #[must_use]
    pub fn new(name: &'static str, content: String) -> Self {
        Self { name, content: Zeroizing::new(content.into_bytes()), is_key: false }
    }

    /// A file that stays as it is.
    #[must_use]
    pub fn key(name: &'static str, content: &str) -> Self {
        Self { name, content: Zeroizing::new(content.as_bytes().to_vec()), is_key: true }
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
            trust: &trust,
        };
        for kind in TYPES {
            let files = kind.files(&material).unwrap();
            let names: Vec<&str> = files.iter().map(|file| file.name).collect();
            assert_eq!(names, kind.file_names(), "{}", kind.name());
            assert!(!format!("{files:?}").contains("PRIVATE"));
        }
    }
}
