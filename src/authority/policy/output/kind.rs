//! What a type of output is.

use crate::authority::policy::decide::grant::{SshGrant, TlsGrant};
use crate::authority::policy::decide::merge::Merged;
use crate::authority::policy::resources::Field;
use crate::denial::Denial;

/// A type of output.
#[derive(Debug)]
pub struct OutputKind {
    /// Its name: `--output NAME`, `"type": "NAME"`.
    pub name: &'static str,
    /// What it is for, for help and the documentation.
    pub summary: &'static str,
    /// Whether it carries an SSH certificate, and so wants an SSH key.
    pub ssh: bool,
    /// Whether it carries an X.509 certificate, and so wants a CSR.
    pub tls: bool,
    /// The options that it takes.
    pub options: &'static [&'static str],
    /// Those of them that it cannot do without.
    pub needs: &'static [&'static str],
    /// Those of them that the record repeats: what decided the certificate and
    /// is not on it.
    pub recorded: &'static [&'static str],
    /// The fields of roles that it issues: the name on the certificate first,
    /// then what a role gives with that name.
    pub(crate) fields: &'static [&'static Field],
    /// What its roles become.
    pub(crate) grant: fn(&mut Merged<'_, '_>) -> Result<Certificates, Denial>,
}

/// The certificates of an output.
pub(crate) type Certificates = (Option<SshGrant>, Option<TlsGrant>);
