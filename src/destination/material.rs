//! What the files of outputs are made from, and what they are.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use zeroize::Zeroizing;

use super::hosts::Hosts;
use crate::error::{Error, Result};
use crate::wire::TrustAnchors;

/// Values of options, or the texts of the files that they name, by option.
pub type OptionValues = BTreeMap<String, String>;

/// What the files of one output are made from.
#[derive(Clone, Copy)]
pub struct Material<'a> {
    /// The absolute path of the folder that they will stand in.
    pub folder: &'a str,
    /// The SSH key and its certificate, a user's or a host's.
    pub ssh: Option<SshMaterial<'a>>,
    /// The TLS key and its certificate.
    pub tls: Option<TlsMaterial<'a>>,
    /// The token.
    pub jwt: Option<&'a str>,
    /// The output's options.
    pub options: &'a OptionValues,
    /// The texts of the files that its options name.
    pub files: &'a OptionValues,
    /// Whom its certificate names first: a common name, where it is X.509.
    pub subject: Option<&'a str>,
    /// Whom to trust.
    pub trust: &'a TrustAnchors,
    /// The hosts that its host CAs are believed for.
    pub hosts: &'a Hosts,
    /// The leaf cluster that it is of; none for the authority that the job joins.
    pub leaf: Option<&'a str>,
    /// The revoked host certificates, as a KRL; none where the authority is of a version that does not tell.
    pub revoked_hosts: Option<&'a [u8]>,
    /// The socket of the agent that holds the SSH key, which is in no file then.
    pub agent: Option<&'a str>,
}

impl<'a> Material<'a> {
    /// The SSH half.
    pub fn ssh(&self) -> Result<SshMaterial<'a>> {
        self.ssh.ok_or_else(|| Error::internal("an output without its SSH key"))
    }

    /// The TLS half.
    pub fn tls(&self) -> Result<TlsMaterial<'a>> {
        self.tls.ok_or_else(|| Error::internal("an output without its TLS key"))
    }

    /// `tls.key`, `tls.crt` and `ca.crt`.
    pub fn tls_files(&self) -> Result<Vec<File>> {
        let tls = self.tls()?;
        Ok(vec![
            File::key("tls.key", lines(&[tls.private_key])),
            File::new("tls.crt", lines(&[tls.chain])),
            File::new("ca.crt", self.server_cas()),
        ])
    }

    /// The CAs that the server is verified with: those of `server-ca`, else the authority's.
    pub fn server_cas(&self) -> String {
        match self.files.get("server-ca") {
            Some(given) => lines(&[given]),
            None => lines(&self.trust.tls_cas),
        }
    }
}

/// An SSH key and its certificate, each as OpenSSH writes it.
#[derive(Clone, Copy)]
pub struct SshMaterial<'a> {
    /// The private key in OpenSSH's own format; none of a host whose key is its own.
    pub private_key: Option<&'a str>,
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
    pub fn new(name: impl Into<Cow<'static, str>>, content: String) -> Self {
        Self { name: name.into(), content: Zeroizing::new(content.into_bytes()), is_key: false }
    }

    /// The same, of what is no text.
    pub fn of_bytes(name: &'static str, content: &[u8]) -> Self {
        Self { name: name.into(), content: Zeroizing::new(content.to_vec()), is_key: false }
    }

    /// A file that stays as it is.
    pub fn key(name: impl Into<Cow<'static, str>>, content: String) -> Self {
        Self { is_key: true, ..Self::new(name, content) }
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Texts, those that there are, each with exactly one line end behind it. Of its whole length at
/// once, so that no copy of a key is left behind by growing.
pub(super) fn lines<T: AsRef<str>>(texts: &[T]) -> String {
    let mut all = String::with_capacity(texts.iter().map(|text| text.as_ref().len() + 1).sum());
    for text in texts.iter().map(AsRef::as_ref).filter(|text| !text.is_empty()) {
        all.push_str(text.trim_end());
        all.push('\n');
    }
    all
}

/// An output that has been written.
#[derive(Clone, Copy, Debug)]
pub struct WrittenOutput<'a> {
    /// The absolute path of its folder.
    pub folder: &'a str,
    /// Its options.
    pub options: &'a OptionValues,
    /// Whom its certificate names first: a common name, where it is X.509.
    pub subject: Option<&'a str>,
}
