//! The client's half of a type of output: which files it becomes.

use zeroize::Zeroizing;

use super::material::{File, Material, OptionValues, WrittenOutput, lines};
use crate::error::Result;
use crate::output::OutputType;

/// What a type of output becomes in a destination.
#[derive(Debug)]
pub struct OutputFiles {
    /// What both sides know of the type.
    pub declaration: &'static OutputType,
    /// The file names that it may ever write; nothing else is ever wiped.
    pub file_names: &'static [&'static str],
    /// Whether it may write a file of that name too.
    pub(super) writes_also: fn(&str) -> bool,
    /// Its files.
    pub files: fn(&Material<'_>) -> Result<Vec<File>>,
    /// Checks the options' values, and the texts of the files that they name.
    pub check: fn(&OptionValues, &OptionValues) -> Result<(), String>,
    /// Variables for later steps beside those that every output has.
    pub variables: fn(&WrittenOutput<'_>) -> Vec<(&'static str, String)>,
    /// A TLS key and its chain in PEM, from the files of these names in a
    /// folder; for revoking what an earlier run wrote.
    pub tls_pem: fn(&[String], ReadFile<'_>) -> Option<Zeroizing<String>>,
}

/// Reads a file of that name in some folder.
pub type ReadFile<'a> = &'a dyn Fn(&str) -> Option<Zeroizing<String>>;

impl OutputFiles {
    /// These files, without anything special.
    pub(super) const fn new(
        declaration: &'static OutputType,
        file_names: &'static [&'static str],
        files: fn(&Material<'_>) -> Result<Vec<File>>,
    ) -> Self {
        Self {
            declaration,
            file_names,
            writes_also: |_| false,
            files,
            check: |_, _| Ok(()),
            variables: |_| Vec::new(),
            tls_pem: |_, read| concatenated(read, &["tls.key", "tls.crt"]),
        }
    }

    /// Whether it may ever write a file of that name.
    pub fn writes(&self, name: &str) -> bool {
        self.file_names.contains(&name) || (self.writes_also)(name)
    }
}

/// Files of a folder as one text; none where one of them is missing.
pub(super) fn concatenated(read: ReadFile<'_>, names: &[&str]) -> Option<Zeroizing<String>> {
    let parts: Vec<_> = names.iter().map(|name| read(name)).collect::<Option<_>>()?;
    Some(Zeroizing::new(lines(&parts.iter().map(|part| part.as_str()).collect::<Vec<_>>())))
}
