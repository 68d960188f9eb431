//! The authority's half of a type of output.

use crate::authority::policy::decide::grant::{JwtGrant, SshGrant, TlsGrant};
use crate::authority::policy::decide::role_set::RoleSet;
use crate::authority::policy::resources::RoleField;
use crate::denial::Denial;
use crate::output::OutputType;

/// What a type of output is to the policy.
#[derive(Debug)]
pub struct OutputPolicy {
    /// What both sides know of the type.
    pub declaration: &'static OutputType,
    /// Those of its options that the record repeats: what decided the certificate and
    /// is not on it.
    pub recorded: &'static [&'static str],
    /// The fields of roles that it issues: the name on the certificate first,
    /// then what a role gives with that name.
    pub(crate) fields: &'static [&'static RoleField],
    /// What its roles become.
    pub(crate) grant: fn(&mut RoleSet<'_, '_>) -> Result<Certificates, Denial>,
}

/// The certificates of an output, or its token.
pub(crate) type Certificates = (Option<SshGrant>, Option<TlsGrant>, Option<JwtGrant>);
